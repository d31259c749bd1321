"""The lattice of equalities: what each guarantees and admits (``docs/spec/equality.md`` section 3).

The command line, the documentation and the conclusions are made from this one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

Strength = Literal["bytes", "tensors", "rounded", "close", "behaviour", "metrics", "curves"]
Conclusion = Literal["match", "consistent", "plausible", "mismatch", "inconclusive"]


class Equality(msgspec.Struct, frozen=True):
    """An equality of the lattice; ``place`` is its number in the specification."""

    name: Strength
    place: str
    concludes: Conclusion
    """What may be said of two models for which it holds: closeness is never a match."""
    compares: str
    guarantees: str
    admits: str

    @property
    def transitive(self) -> bool:
        """Whether two models that each equal a third equal each other."""
        return self.concludes == "match"


_ALL: Final = (
    Equality("curves", "P7", "plausible",
        compares="loss curves point by point, and their ends",
        guarantees="the published curves look like those of the same training",
        admits="any weights: a curve is a list of numbers that anybody can write down"),
    Equality("metrics", "P6", "consistent",
        compares="scores on the same examples, by a test of equivalence",
        guarantees="the mean score differs by less than the margin, at the stated level",
        admits="a backdoor, and any change that a few examples or one subgroup would show; any"
            " weights, for the scores are what a builder reports"),
    Equality("behaviour", "P5", "consistent",
        compares="outputs on probes",
        guarantees="the outputs on these probes are within the limits; on inputs like the probes"
            " the answers differ at most at the rate that is stated",
        admits="a backdoor: no number of probes finds a trigger that is not among them; where the"
            " outputs are files, any weights, for they are what a builder reports: if nothing else"
            " speaks for some, it concludes 'plausible'"),
    Equality("close", "P4", "consistent",
        compares="tensors, by relative L2 and relative L-infinity together",
        guarantees="every tensor is within the limits of its counterpart",
        admits="a backdoor, unless the limits are far below honest drift: a tolerance that covers"
            " honest end-to-end noise is wide enough to plant one"),
    Equality("rounded", "P2", "match",
        compares="tensors after one rounding to the type that is shipped",
        guarantees="the weights that are shipped in the narrower type are the same in every bit",
        admits="drift below one rounding step, and steering of values near a rounding boundary:"
            " where it is not shown that the narrower type is shipped, it concludes 'consistent'"),
    Equality("tensors", "P1", "match",
        compares="names, types, shapes and bits of tensors, and every other file",
        guarantees="the same bits are used",
        admits="what the named normalisers drop: order, padding, compression, the container"),
    Equality("bytes", "P0", "match",
        compares="files", guarantees="the files are the same", admits="nothing"),
)  # fmt: skip

LATTICE: Final[Mapping[Strength, Equality]] = {each.name: each for each in _ALL}
"""The equalities from the weakest to the strongest. Of those between ``curves`` and ``rounded``
none implies another; their order only decides which one names a conjunction of them."""

STRENGTHS: Final[tuple[Strength, ...]] = tuple(LATTICE)
"""The equalities from the weakest to the strongest."""

AGREES: Final[tuple[Conclusion, ...]] = ("match", "consistent", "plausible")
"""The conclusions in which an equality held."""

LATER: Final = frozenset({"segments", "sketch", "recipe"})
"""Equalities of the lattice that later versions judge: P3, P4s and P8."""
