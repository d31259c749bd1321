"""The rules that a declaration is made of: one type for each equality of the lattice.

A rule selects what it judges by patterns (:mod:`provenance.equality.patterns`) and gives limits;
one that tolerates a difference gives its reason (``docs/spec/equality.md`` section 1). Types and
ranges are checked when the declaration is read, and the rest by :func:`fault`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

import msgspec

from provenance.equality.patterns import fault as fault_of_pattern
from provenance.equality.patterns import selects_tensor
from provenance.files.names import is_plain

MAX_RELATIVE: Final = 10.0
"""Largest relative limit. A limit of 1 or more admits any tensor of the same size; only a tensor
whose update is itself noise (zero gradient, ``docs/spec/equality.md``) can need that."""

MIN_RELATIVE: Final = 1e-30
"""Smallest relative limit, far below one bit of any tensor; for zero, use ``tensors``."""

MIN_DIFFERENCE, MAX_DIFFERENCE = 1e-30, 1e30
"""Range of a limit on a difference of outputs; for zero, use ``tensors``."""

MAX_RESAMPLES: Final = 100_000

MAX_POINTS: Final = 4_000_000
"""Most points of a curve: what a recorder keeps in 256 MiB."""

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
_Patterns = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1)], ...],
    msgspec.Meta(min_length=1, max_length=64),
]
_Relative = Annotated[float, msgspec.Meta(ge=MIN_RELATIVE, le=MAX_RELATIVE)]
_Difference = Annotated[float, msgspec.Meta(ge=MIN_DIFFERENCE, le=MAX_DIFFERENCE)]
_Rate = Annotated[float, msgspec.Meta(gt=0, lt=1)]
_Rank = Annotated[int, msgspec.Meta(ge=0, le=64)]
_Confidence = Annotated[float, msgspec.Meta(ge=0.5, lt=1)]
_Level = Annotated[float, msgspec.Meta(gt=0, le=0.5)]

Nan = Literal["refused", "same-bits"]
"""``refused``: NaN in a tensor that differs breaks the rule. ``same-bits``: NaN equals NaN of the
same bits in the same place, and nothing else."""

SignedZero = Literal["equal", "distinct"]


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="equality",
            tag=str.lower):  # fmt: skip
    """A rule: an object whose ``equality`` is the type's name in lower case."""


class Bytes(_Form, frozen=True):
    """P0: the selected files are equal byte for byte."""

    files: _Patterns | None = None
    reason: _Text | None = None


class Tensors(_Form, frozen=True):
    """P1: the selected tensors are equal bit for bit, in whatever container."""

    files: _Patterns | None = None
    tensors: _Patterns = ("*",)
    optional: bool = False
    """Whether the patterns may select nothing in a model."""
    reason: _Text | None = None


class Rounded(_Form, frozen=True):
    """P2: the selected tensors, each rounded once, are equal bit for bit."""

    to: Literal["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"]
    """The type rounded to (to nearest, ties to even); both sides are wider."""
    reason: _Text
    ships: _Text | None = None
    """The file of the same model that holds them rounded; by default any that does."""
    files: _Patterns | None = None
    tensors: _Patterns = ("*",)
    optional: bool = False
    nan: Nan = "refused"
    signed_zero: SignedZero = "distinct"


class Close(_Form, frozen=True):
    """P4: the selected tensors differ by little, in L2 and in L-infinity."""

    relative_l2: _Relative
    """Of the update's (or the weights') L2 norm, to which a magnitude adds a bounded part."""
    relative_linf: _Relative
    """Of the update's (or the weights') largest magnitude, bounded likewise."""
    reason: _Text
    files: _Patterns | None = None
    tensors: _Patterns = ("*",)
    optional: bool = False
    max_ulp: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)] | None = None
    initial: _Text | None = None
    """The file of the same model that holds the weights before training."""
    relative_to: Literal["update", "weights"] = "update"
    nan: Nan = "refused"
    signed_zero: SignedZero = "equal"
    relative_l2_rows: _Relative | None = None
    """Of the root mean square of the rows' L2 norms in that base; for tensors of two dimensions or
    more, whose rows are the slices along the first axis."""
    min_rank: _Rank | None = None
    max_rank: _Rank | None = None
    """How many dimensions a tensor has that the rule selects."""
    max_share: _Rate | None = None
    """How much of all elements of a weight file the selected tensors may hold."""


class Behaviour(_Form, frozen=True):
    """P5: the outputs on probes differ by little.

    The outputs are files of both models (``outputs``), or those of the ONNX model ``run`` on the
    file ``probes``, which is the same in both models or given at comparison.
    """

    kind: Literal["logits", "probabilities", "labels", "values"]
    reason: _Text
    outputs: _Patterns | None = None
    run: _Text | None = None
    probes: _Text | None = None
    tensors: _Patterns = ("*",)
    """Which arrays of an output file, or which outputs of the model that is run."""
    files: _Patterns | None = None
    """Weight files that are judged through these outputs alone."""
    max_difference: _Difference | None = None
    mean_difference: _Difference | None = None
    kl_divergence: _Difference | None = None
    """Mean over the probes, in nats; the larger of both directions."""
    disagreement: _Rate | None = None
    """Limit of the upper bound of the rate at which the top answers differ."""
    confidence: _Confidence = 0.95
    """Of that bound, which is one-sided and exact."""


class Metrics(_Form, frozen=True):
    """P6: scores on the same examples are equivalent on average."""

    samples: _Patterns
    """Files with the score of every example, one array for each metric."""
    margin: _Difference
    """The largest difference of means that is equivalent, in the metric's unit."""
    reason: _Text
    metrics: _Patterns = ("*",)
    files: _Patterns | None = None
    """Weight files that are judged through these metrics alone."""
    test: Literal["tost", "bootstrap"] = "tost"
    alpha: _Level = 0.05
    """Level of the test, after Holm's correction over the selected metrics."""
    resamples: Annotated[int, msgspec.Meta(ge=1000, le=MAX_RESAMPLES)] = 10_000
    max_churn: _Rate | None = None
    """Limit of the upper bound, at ``1 - alpha``, of the rate at which answers change."""


class Curves(_Form, frozen=True):
    """P7: curves agree point by point for a while, and at their ends."""

    curves: _Patterns
    """Which curves, by name."""
    pointwise: _Relative
    """Largest relative difference of two points that agree."""
    points: Annotated[int, msgspec.Meta(ge=1, le=MAX_POINTS)]
    """How many points must agree, from the first on."""
    terminal: _Relative
    """Largest relative difference of the means of the last points."""
    reason: _Text
    sources: _Patterns | None = None
    """Files that hold the curves; by default the metrics that the training statement recorded."""
    files: _Patterns | None = None
    """Weight files that are judged through these curves alone."""
    window: Annotated[int, msgspec.Meta(ge=1, le=MAX_POINTS)] = 10
    """How many last points are averaged."""


Rule = Bytes | Tensors | Rounded | Close | Behaviour | Metrics | Curves
TensorRule = Tensors | Rounded | Close
EvidenceRule = Behaviour | Metrics | Curves
"""Rules that judge the tensors of weight files, and those that judge what a model does."""


def takes(rule: TensorRule, name: str, rank: int) -> bool:
    """Tell whether *rule* selects the tensor *name*, of *rank* dimensions."""
    if isinstance(rule, Close):
        least, most = rule.min_rank, rule.max_rank
        if rank < (least or 0) or (most is not None and rank > most):
            return False
    return selects_tensor(rule.tensors, name)


def takes_all(rule: TensorRule) -> bool:
    """Tell whether *rule* selects every tensor, of whatever name and rank."""
    ranks = (rule.min_rank, rule.max_rank) if isinstance(rule, Close) else ()
    return rule.tensors == ("*",) and not any(each is not None for each in ranks)


_PATTERN_KEYS: Final = ("files", "tensors", "outputs", "samples", "metrics", "curves", "sources")
_NAME_KEYS: Final = ("ships", "initial", "run", "probes")


def number_of_patterns(rule: Rule) -> int:
    """Return how many patterns *rule* has."""
    return sum(len(getattr(rule, name, None) or ()) for name in _PATTERN_KEYS)


def fault(rule: Rule) -> str | None:
    """Return what is wrong with *rule* beyond types and ranges, or nothing."""
    for name in rule.__struct_fields__:
        if (what := _fault_of_value(name, getattr(rule, name))) is not None:
            return what
    if rule.reason is not None and not rule.reason.strip():
        return "the reason is empty"
    if isinstance(rule, Metrics):
        few = rule.test == "bootstrap" and rule.alpha * (rule.resamples + 1) < 1
        return "so few resamples can never show equivalence at this level" if few else None
    if isinstance(rule, Close):
        return _fault_of_close(rule)
    return _fault_of_behaviour(rule) if isinstance(rule, Behaviour) else None


def _fault_of_value(name: str, value: Any) -> str | None:  # noqa: ANN401 - of any key
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name!r} is not finite"
    if name in _NAME_KEYS and not (value is None or (value.isprintable() and is_plain(value))):
        return f"{name!r} {value!r} is not the name of a file in the model"
    for pattern in value or () if name in _PATTERN_KEYS else ():
        if (what := fault_of_pattern(pattern)) is not None:
            return f"the pattern {pattern!r} in {name!r} {what}"
    return None


def _fault_of_close(rule: Close) -> str | None:
    if rule.max_rank is not None and rule.max_rank < (rule.min_rank or 0):
        return "'max_rank' is below 'min_rank': it selects nothing"
    if rule.initial is None:
        needed = rule.relative_to == "update"
        return "needs 'initial', or relative_to = \"weights\"" if needed else None
    useless = rule.relative_to == "weights"
    return "'initial' has no use with relative_to = \"weights\"" if useless else None


def _fault_of_behaviour(rule: Behaviour) -> str | None:
    if (rule.outputs is None) == (rule.run is None):
        return "needs either 'outputs', files of both models, or 'run', a model to be run"
    if rule.run is None and rule.probes is not None:
        return "'probes' has no use without 'run'"
    distances = (rule.max_difference, rule.mean_difference, rule.kl_divergence)
    if distances == (None, None, None) and rule.disagreement is None:
        return "needs a limit: max_difference, mean_difference, kl_divergence or disagreement"
    if rule.kind == "values" and (rule.kl_divergence or rule.disagreement):
        return "'values' have no top answer and no divergence: only differences"
    if rule.kind == "labels" and distances != (None, None, None):
        return "'labels' have no distance: only 'disagreement'"
    return None
