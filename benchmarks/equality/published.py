"""Published verifiers, their arithmetic re-enacted in a few lines, on changes that they admit.

Nothing here is their code; each function says what was read. Beside each answer stands ours to the
same change.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from benchmarks.equality.answers import close_rule, our_answer, safetensors
from benchmarks.equality.traps import Values

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray[Any, Any]

POL = "Proof-of-Learning"
POL_UTILS = "`utils.py` at 51909cc"
POL_VERIFY = "`verify.py` at 51909cc"
MERKLE = "verifiable-training"
MERKLE_READ = "`merkle.py` at e801882"
TOPLOC = "TOPLOC"
TOPLOC_READ = "`toploc/poly.py` at 40bd10b, `poly.cpp` at 03d5d68"

POL_LIMITS = (1000, 10, 0.1, 0.001)
"""Its default thresholds for L1, L2, L-infinity and cosine."""

PRIME = 65_497
"""The largest modulus that TOPLOC tries for its indices; taken here as the prime that it
interpolates over, whose file (``ndd.cpp``) was not read."""

TOP = 128
"""Values that TOPLOC keeps, in its README's examples."""

ACCEPTS, REFUSES = "**accepts**", "refuses"


@dataclass(frozen=True, slots=True)
class Hole:
    """A change, what a verifier answers to it, and what we do."""

    project: str
    read: str
    change: str
    answer: str
    ours: str


def _values(array: Array) -> Values:
    names = {"float32": "F32", "float64": "F64", "uint8": "U8", "bfloat16": "BF16", "int64": "I64"}
    return Values(names[array.dtype.name], array.shape, array.tobytes())


def _ours(left: Mapping[str, Array], right: Mapping[str, Array], rule: str) -> str:
    files = [
        safetensors({name: _values(array) for name, array in tensors.items()}, padding)
        for tensors, padding in ((left, 0), (right, 8))
    ]
    return our_answer(files[0], files[1], rule)


def _accepted(*, accepted: bool) -> str:
    return ACCEPTS if accepted else REFUSES


# --- Proof-of-Learning (Jia and others, 2021) -----------------------------------------------------


def pol_distances(left: Array, right: Array) -> tuple[float, float, float, float]:
    """Return L1, L2, L-infinity, and 1 - w1.w2 / (|w1| |w1|): the second norm is not w2's."""
    gap = left - right
    norm = float(np.linalg.norm(left))
    one, two, most = (float(np.linalg.norm(gap, order)) for order in (1, 2, np.inf))
    return one, two, most, 1 - float(left @ right) / (norm * norm)


def pol_valid(distances: tuple[float, ...], limits: tuple[float, ...]) -> bool:
    """Tell whether no distance is above its threshold; NaN is above none."""
    return int(np.sum(np.array(distances) > np.array(limits))) == 0


def pol_cosine() -> Hole:
    """Add ten times the weights' length in an orthogonal direction."""
    weights = np.zeros(100, np.float32)
    weights[0] = 1
    planted = weights.copy()
    planted[1:] = 1
    return Hole(
        POL,
        POL_UTILS,
        "add a vector orthogonal to the weights and ten times as long (cosine)",
        _accepted(accepted=pol_valid(pol_distances(weights, planted)[3:], POL_LIMITS[3:])),
        _ours({"w": weights}, {"w": planted}, close_rule(1)),
    )


def pol_nan() -> Hole:
    """Put one NaN into the weights."""
    weights = np.linspace(-1, 1, 1000, dtype=np.float32)
    poisoned = weights.copy()
    poisoned[500] = np.nan
    return Hole(
        POL,
        POL_VERIFY,
        "one weight becomes NaN (all four distances)",
        _accepted(accepted=pol_valid(pol_distances(weights, poisoned), POL_LIMITS)),
        _ours({"w": weights}, {"w": poisoned}, close_rule(1)),
    )


def pol_hash() -> Hole:
    """Paint a patch into an image whose text numpy shortens."""
    image = np.random.default_rng(7).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    painted = image.copy()
    painted[8:24, 8:24] ^= 255
    with np.printoptions(threshold=1000, edgeitems=3):
        first, second = (hashlib.sha256(str(each).encode()).digest() for each in (image, painted))
    return Hole(
        POL,
        POL_VERIFY,
        "a patch of 16 × 16 in a training image of 32 × 32 (hash of `str(image)`)",
        _accepted(accepted=first == second),
        _ours({"image": image}, {"image": painted}, 'equality = "tensors"\n'),
    )


def pol_buffers() -> Hole:
    """Change the running mean of a BatchNorm, which is no parameter."""
    network: dict[str, Array] = {
        "bn.weight": np.ones(4, np.float32),
        "bn.running_mean": np.ones(4, np.float32),
    }
    changed = network | {"bn.running_mean": network["bn.running_mean"] * 9}
    parameters = [np.concatenate([each["bn.weight"]]) for each in (network, changed)]
    accepted = pol_valid(pol_distances(parameters[0], parameters[1]), POL_LIMITS)
    return Hole(
        POL,
        POL_UTILS,
        "a BatchNorm's running mean, nine times as large (`net.parameters()` has no buffers)",
        _accepted(accepted=accepted),
        _ours(network, changed, close_rule(1)),
    )


# --- verifiable-training (Srivastava and others, 2024) --------------------------------------------


def merkle_text(state: Mapping[str, Array]) -> str:
    """Return what becomes the leaf: some names left out, all cast to float32, no shapes."""
    hasher = hashlib.sha256()
    leaves = {}
    for name, array in sorted(state.items()):
        if "masked" in name or ".attn.bias" in name:
            continue
        hasher.update(array.astype(np.float32).tobytes())
        leaves[name] = hasher.hexdigest()
    return str(leaves)


def _merkle(change: str, left: dict[str, Array], right: dict[str, Array]) -> Hole:
    return Hole(
        MERKLE,
        MERKLE_READ,
        change,
        _accepted(accepted=merkle_text(left) == merkle_text(right)),
        _ours(left, right, 'equality = "tensors"\n'),
    )


def merkle_holes() -> tuple[Hole, ...]:
    """Return the changes that never reach the leaf."""
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    return (
        _merkle(
            "other values in `h.0.attn.bias`, or in any name with `masked`",
            {"h.0.attn.bias": plain},
            {"h.0.attn.bias": -plain},
        ),
        _merkle("shape (2, 3) becomes (3, 2)", {"w": plain}, {"w": plain.reshape(3, 2)}),
        _merkle(
            "float64 that differ below float32",
            {"w": np.array([1.0])},
            {"w": np.array([1 + 2.0**-40])},
        ),
        _merkle(
            "a counter of 2^24 + 1 becomes 2^24",
            {"n": np.array([2**24 + 1])},
            {"n": np.array([2**24])},
        ),
    )


# --- TOPLOC (Prime Intellect, 2025) ---------------------------------------------------------------


def _parts(bits: Array) -> tuple[Array, Array]:
    """Return exponents and mantissas of bfloat16: what TOPLOC compares, by their names there."""
    return bits >> 7 & 0xFF, bits & 0x7F


def exponent_mismatches(mine: Array, theirs: Array) -> int:
    """Count the exponents that differ between bfloat16 values."""
    first, second = (_parts(array.view(np.uint16))[0] for array in (mine, theirs))
    return int(np.count_nonzero(first != second))


def _largest(values: Array, count: int) -> Array:
    return np.argsort(-np.abs(values.astype(np.float32)), kind="stable")[:count]


def toploc_sign() -> Hole:
    """Negate every value."""
    values = np.linspace(0.5, 2, 512).astype(ml_dtypes.bfloat16)
    top = _largest(values, TOP)
    mismatches = exponent_mismatches(values[top], -values[top])
    _, mantissas = _parts(values.view(np.uint16))
    _, negated = _parts((-values).view(np.uint16))
    return Hole(
        TOPLOC,
        TOPLOC_READ,
        "every activation is negated",
        _accepted(accepted=mismatches == 0 and np.array_equal(mantissas, negated)),
        _ours({"w": values}, {"w": -values}, close_rule(1)),
    )


def toploc_rest() -> Hole:
    """Replace all but the largest values."""
    values = np.random.default_rng(3).standard_normal(4096).astype(ml_dtypes.bfloat16)
    top = _largest(values, TOP)
    replaced = -values
    replaced[top] = values[top]
    again = _largest(replaced, TOP)
    accepted = np.array_equal(top, again) and not exponent_mismatches(values[top], replaced[again])
    return Hole(
        TOPLOC,
        TOPLOC_READ,
        f"all but the {TOP} largest of 4,096 activations are negated",
        _accepted(accepted=accepted),
        _ours({"w": values}, {"w": replaced}, close_rule(1)),
    )


def interpolated(points: Mapping[int, int], at: int) -> int:
    """Return the value at *at* of the polynomial through *points*, modulo ``PRIME``."""
    total = 0
    for x, y in points.items():
        above = below = 1
        for other in points:
            if other != x:
                above = above * (at - other) % PRIME
                below = below * (x - other) % PRIME
        total += y * above * pow(below, -1, PRIME)
    return total % PRIME


def toploc_index() -> Hole:
    """Check honest activations of which two indices are the same modulo the prime."""
    indices = [10, 20, 30, 10 + PRIME]
    values = np.array([1, 2, 4, 64], ml_dtypes.bfloat16)
    modulus = next(m for m in range(PRIME, 0, -1) if len({i % m for i in indices}) == len(indices))
    codes = values.view(np.uint16).tolist()
    points = {index % modulus: code for index, code in zip(indices, codes, strict=True)}
    # Interpolated at the index modulo `modulus`, evaluated at the index itself.
    found = np.array([interpolated(points, index) for index in indices], np.uint16)
    wrong = exponent_mismatches(values, found.view(ml_dtypes.bfloat16))
    whole = np.zeros(PRIME + 100, ml_dtypes.bfloat16)
    whole[indices] = values
    return Hole(
        TOPLOC,
        TOPLOC_READ,
        f"none: two honest indices are {PRIME:,} apart",
        f"**{wrong} of {len(indices)} exponents differ**" if wrong else "accepts",
        _ours({"w": whole}, {"w": whole}, close_rule(1e-3)),
    )


def holes() -> tuple[Hole, ...]:
    """Return every re-enactment, in the order of the table."""
    return (
        pol_cosine(),
        pol_nan(),
        pol_hash(),
        pol_buffers(),
        *merkle_holes(),
        toploc_sign(),
        toploc_rest(),
        toploc_index(),
    )
