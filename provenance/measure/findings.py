"""What a comparison says: values that are signed in a verdict, so every one has a JCS form.

Numbers are finite or absent; where one is absent, ``notes`` says why with a word of ``NOTES``. A
finding's ``value`` is what was compared with ``limit``: a measure with its error bound added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from provenance.equality.lattice import LATTICE, Conclusion, Strength
from provenance.weights.normalisers import Normalised

if TYPE_CHECKING:
    from provenance.weights.beside import Difference
    from provenance.weights.view import TensorInfo

NOTES: Final[Mapping[str, str]] = {
    "exact-type": "integers, booleans and packed codes have no distance",
    "not-finite": "NaN or infinity stands where the two differ, or where a mean is taken",
    "overflow": "the distance is beyond float64",
    "zero-update": "a builder's tensor did not move from the initial one",
    "zero-weights": "a builder's tensor is zero throughout",
    "initial-not-finite": "the initial tensor holds NaN or infinity",
    "ulp-too-large": "the distance in units of last place is beyond 2^53 - 1",
    "ratio-overflow": "the ratio is beyond float64",
    "not-a-number": "NaN stands in it, and the rule does not say that it may",
    "sign-of-zero": "-0 stands in one place and +0 in its counterpart",
    "not-wider": "the type is not a wider float than the one to round to",
    "empty": "there is nothing to compare",
    "not-a-distribution": "probabilities are negative, not finite, or do not add up to 1",
    "infinite-divergence": "a class has probability 0 on one side only, or beyond float64",
    "too-few": "too few examples for a test",
    "zero-variance": "all differences are the same: the margin decides, not a test",
    "answers-not-0-or-1": "the scores are not answers that are right or wrong",
    "steps-not-increasing": "a step comes twice, or after a later one: the curve restarts",
    "steps-differ": "a step is on one side only",
    "beyond-the-narrower-type": "a value has no counterpart in the type to round to",
    "not-read": "an exception selects values in it, and they cannot be read on both sides",
    "too-many": "exceptions select more values than an outcome lists",
    "other-base": "it is not known that both were made from the same base model",
    "reported": "numbers that a builder reported are all that speaks for these weights",
    "shipped": "both models hold it in the narrower type, too, equal in every bit",
}
"""Why a number is absent."""

NEVER_HELD: Final = frozenset({"presence", "bytes", "type-and-shape", "container", "distribution"})
NEVER_HELD_OF: Final = ("metadata: ", "value: ", "loaded by ")
"""Measures that are only found where something is against a rule, and how such begin that end with
a key or with loaders."""


AS_NARROWER: Final = "differing-elements-as-"
"""How the measure of a tensor begins that was compared after rounding."""

REPORTED: Final = "reported"
"""The note of weights of which only reported numbers were judged."""

SHIPPED: Final = "shipped"
"""The note of a tensor that is equal once rounded, and of which the narrower form is shipped."""


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
    relative_l2_rows_weights: float | None = None
    """The largest L2 of a row (a slice along the first axis), as a part of the root mean square of
    the rows' norms in the smaller of both tensors; of two dimensions or more."""
    relative_l2_rows_update: float | None = None
    """The same, as a part of the smaller of both updates."""
    outlying_share: float | None = None
    """How much of the squared L2 norm of a tensor a few large elements carry, which the relative
    distances leave out; the larger of both sides."""
    initial: str | None = None
    """The file of initial weights that the updates start from."""
    max_ulp: int | None = None
    """Most representable values between two elements, where asked for."""
    first: tuple[int, ...] | None = None
    """Place of the first element that differs, in C order."""
    worst: tuple[int, ...] | None = None
    """Place of the element with the largest difference, the first of them."""
    nan: int = 0
    """Places in which either side is NaN."""
    zero_signs: int = 0
    """Elements that differ in nothing but the sign of zero."""
    parts: dict[str, int] | None = None
    """Of a quantised type: the blocks that differ in each part (scales, codes)."""
    notes: tuple[str, ...] = ()


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """Where two models begin to differ: a tensor, and the first element of it that differs."""

    file: str
    tensor: str
    index: tuple[int, ...] | None = None
    """Its place in C order; absent where the tensors cannot be compared element by element."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was checked in one alternative.

    One with a value and no limit was measured for information: it holds, and decides nothing.
    """

    file: str
    measure: str
    held: bool
    tensor: str | None = None
    left: str | None = None
    right: str | None = None
    value: float | None = None
    limit: float | None = None
    place: tuple[int, ...] | None = None
    """Of the worst element, or of the first that differs where there is no distance."""
    note: str | None = None
    """Why the value is absent, or what is special about it: a word of ``NOTES``."""


class Excepted(msgspec.Struct, frozen=True, kw_only=True):
    """What differs and was admitted by an exception, with its reason."""

    file: str
    key: str | None
    """Of the value, as a pattern spells it; null: the whole file, by its SHA-256, or member."""
    left: str | None
    right: str | None
    """In the first place, shortened; null where the side has no such value."""
    reason: str
    member: str | None = None
    """The member of an archive that it is, or is in."""
    places: int = 1
    """How many values the key stands for."""
    set: str | None = None
    """The built-in set of which the exception is."""
    unsafe: bool = False


class Judged(msgspec.Struct, frozen=True):
    """What one rule, or one part of it, found, and what it could not judge."""

    findings: tuple[Finding, ...]
    missing: tuple[str, ...] = ()
    excepted: tuple[Excepted, ...] = ()
    normalisers: tuple[Normalised, ...] = ()
    """Of side files."""

    @staticmethod
    def merged(parts: Iterable[Judged]) -> Judged:
        """Return *parts* as one."""
        each = list(parts)
        return Judged(
            tuple(finding for part in each for finding in part.findings),
            tuple(text for part in each for text in part.missing),
            tuple(excepted for part in each for excepted in part.excepted),
            tuple(effect for part in each for effect in part.normalisers),
        )


def unlike(file: str, tensor: str, left: TensorInfo | None, right: TensorInfo | None) -> Finding:
    """Return the finding that a tensor is on one side only, or of another type or shape."""
    one, two = (f"{it.dtype.name}{list(it.shape)}" if it else None for it in (left, right))
    measure = "type-and-shape" if one and two else "presence"
    return Finding(file=file, measure=measure, held=False, tensor=tensor, left=one, right=two)


def differs(file: str, what: str, found: Difference, note: str | None = None) -> Finding:
    """Return the finding that a value of *file* beside the tensors differs; *what* it is called."""
    measure = ": ".join(filter(None, (what, found.key)))
    left, right = found.shown
    return Finding(file=file, measure=measure, held=False, left=left, right=right, note=note)


class AlternativeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One alternative, judged."""

    strength: Strength
    """Its weakest rule."""
    held: bool | None
    """None where something needed could not be read and nothing read was against it."""
    findings: tuple[Finding, ...]
    """What differed, held or not, and what was measured of what the models do; tensors that are
    equal in every bit are not listed."""
    missing: tuple[str, ...] = ()

    @property
    def concludes(self) -> Conclusion:
        """What may be said of the models where it holds."""
        if any(each.note == REPORTED for each in self.findings):
            return "plausible"
        rounded = (each for each in self.findings if each.measure.startswith(AS_NARROWER))
        if self.strength == "rounded" and any(each.note != SHIPPED for each in rounded):
            return "consistent"
        return LATTICE[self.strength].concludes


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A declaration, applied to two models."""

    conclusion: Conclusion
    declaration: str
    """SHA-256 of the declaration."""
    alternatives: tuple[AlternativeOutcome, ...]
    strongest: Strength | None = None
    """The strongest equality that held."""
    first: Divergence | None = None
    """Where the weights begin to differ, in the order of the first model's file."""
    distances: tuple[TensorDistance, ...] = ()
    """Of every tensor that was read and differs in any bit."""
    normalisers: tuple[Normalised, ...] = ()
    missing: tuple[str, ...] = ()
    exceptions: tuple[Excepted, ...] = ()
    """What differed and was admitted: by the alternative that concludes, or by any if none held."""
    same_weights: bool | None = None
    """Whether every tensor of every weight file is equal in every bit; null: not all were read."""
    loaders: int | None = None
    """The version of the table of loaders, where it was asked."""
    not_compared: tuple[str, ...] = ()
    """What lay in either folder and is no part of the model: claims, and what other tools keep."""
