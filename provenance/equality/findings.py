"""What a comparison says: values that are signed in a verdict, so every one has a JCS form.

Numbers are finite or absent; where one is absent, ``notes`` says why with a word of ``NOTES``. A
finding's ``value`` is what was compared with ``limit``: a measure with its error bound added.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from provenance.equality.normalisers import Normalised

if TYPE_CHECKING:
    from collections.abc import Mapping

Conclusion = Literal["match", "consistent", "mismatch", "inconclusive"]
Strength = Literal["bytes", "tensors", "close"]

STRENGTHS: Final[tuple[Strength, ...]] = ("close", "tensors", "bytes")
"""The equalities from the weakest to the strongest."""

CONCLUDES: Final[Mapping[Strength, Conclusion]] = MappingProxyType(
    {"bytes": "match", "tensors": "match", "close": "consistent"}
)
"""What each equality may conclude (DESIGN section 4): closeness is never a match."""

AGREES: Final[tuple[Conclusion, ...]] = ("match", "consistent")
"""The conclusions in which an equality held."""

NOTES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "exact-type": "integers, booleans and packed codes have no distance",
        "not-finite": "NaN or infinity stands in one place and something else in its counterpart",
        "overflow": "the distance is beyond float64",
        "zero-update": "a builder's tensor did not move from the initial one",
        "zero-weights": "a builder's tensor is zero throughout",
        "initial-not-finite": "the initial tensor holds NaN or infinity",
        "ulp-too-large": "the distance in units of last place is beyond 2^53 - 1",
        "ratio-overflow": "the ratio is beyond float64",
    }
)
"""Why a number is absent."""


class TensorDistance(msgspec.Struct, frozen=True, kw_only=True):
    """How far two tensors of one type and shape are apart."""

    file: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    differing: int
    """Elements whose bits differ."""
    l2: float | None = None
    linf: float | None = None
    """Largest difference of one element; of a complex one, of its parts."""
    relative_l2_weights: float | None = None
    """L2 as a part of the smaller of both tensors' L2 norms."""
    relative_linf_weights: float | None = None
    """L-infinity as a part of the smaller of both tensors' largest magnitudes."""
    relative_l2_update: float | None = None
    """L2 as a part of the smaller of both updates' L2 norms."""
    relative_linf_update: float | None = None
    """L-infinity as a part of the smaller of both updates' largest magnitudes."""
    initial: str | None = None
    """The file of initial weights that the updates start from."""
    max_ulp: int | None = None
    """Most representable values between two elements, where asked for."""
    notes: tuple[str, ...] = ()


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was checked in one alternative."""

    file: str
    measure: str
    held: bool
    tensor: str | None = None
    left: str | None = None
    right: str | None = None
    value: float | None = None
    limit: float | None = None
    note: str | None = None
    """Why the value is absent, a word of ``NOTES``."""


class AlternativeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One alternative, judged."""

    strength: Strength
    """Its weakest rule."""
    held: bool | None
    """None where something needed could not be read and nothing read was against it."""
    findings: tuple[Finding, ...]
    """What differed, held or not; what is equal in every bit is not listed."""
    missing: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A declaration, applied to two models."""

    conclusion: Conclusion
    declaration: str
    """SHA-256 of the declaration."""
    alternatives: tuple[AlternativeOutcome, ...]
    strongest: Strength | None = None
    """The strongest equality that held."""
    distances: tuple[TensorDistance, ...] = ()
    """Of every tensor that was read and differs in any bit."""
    normalisers: tuple[Normalised, ...] = ()
    missing: tuple[str, ...] = ()
