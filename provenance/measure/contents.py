"""Two weight files of one name, read side by side: what differs, and by how much.

:mod:`~provenance.judge.comparators` judges them under a declaration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from provenance.equality.patterns import selects_tensor
from provenance.measure.distances import Measured, Wanted, measure_each
from provenance.measure.findings import Divergence, TensorDistance
from provenance.measure.pieces import Workers
from provenance.measure.rounding import Rounding, is_narrower, measure_rounded
from provenance.measure.squares import Norm, cosine
from provenance.weights.dtypes import DTYPES
from provenance.weights.metadata import effects, metadata_differences
from provenance.weights.view import tensor_digest

if TYPE_CHECKING:
    from provenance.weights.beside import Difference
    from provenance.weights.normalisers import Normalised
    from provenance.weights.view import TensorFile, TensorInfo

_MAX_EXACT: Final = 2**53 - 1

_HEAD: Final = "lm_head.weight"
_EMBEDDING: Final = re.compile(r"(?:[^.]+\.)*(?:embed_tokens|wte|word_embeddings|embed_in)\.weight")
"""How transformers names the output layer of a language model, and its embedding."""


@dataclass(frozen=True, slots=True)
class TensorPair:
    """A tensor of either file, or of both."""

    name: str
    left: TensorInfo | None
    right: TensorInfo | None
    differing: int | None
    """Elements whose bits differ; None where the two cannot be compared."""
    distance: TensorDistance | None
    """Where any bit differs."""
    in_initial: bool
    """Whether the file of initial weights has it, of the same type and shape."""
    rounded: Mapping[str, Rounding] = field(default_factory=dict)
    """What rounding showed, by the type that was rounded to; where the type is wider."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Two weight files, read."""

    file: str
    """What the pair is called."""
    tensors: tuple[TensorPair, ...]
    initial: str | None
    """The file of initial weights, where it was read."""
    metadata: tuple[Difference, ...]
    """The keys in which the metadata differ."""
    normalisers: tuple[Normalised, ...] | None
    """None where a difference of the containers has no normaliser."""
    doubts: tuple[str, ...] = ()
    """Why it is not judged."""

    @property
    def first(self) -> Divergence | None:
        """Where the tensors begin to differ, in the order of the left file."""
        for pair in self.tensors:
            if pair.differing != 0:
                index = pair.distance.first if pair.distance is not None else None
                return Divergence(file=self.file, tensor=pair.name, index=index)
        return None


def read_contents(
    name: str,
    files: tuple[TensorFile, TensorFile],
    wanted: Wanted,
    initial: tuple[str, TensorFile] | None = None,
    *,
    tied: bool = False,
) -> Contents:
    """Return what the open *files*, left and right, both called *name*, hold.

    *initial* is the name of the file of initial weights, and the file, open. *tied*: both models
    say that their output layer is their embedding.
    """
    pairs = tuple(_pairs(name, files, wanted, initial))
    head = _tied_head(pairs, files) if tied else None
    pairs = tuple(replace(pair, differing=0) if pair is head else pair for pair in pairs)
    metadata = metadata_differences(*files)
    equal = not metadata and all(pair.differing == 0 for pair in pairs)
    return Contents(
        file=name,
        tensors=pairs,
        initial=initial[0] if initial is not None else None,
        metadata=metadata,
        normalisers=effects(name, *files, content_equal=equal, tied=head is not None),
        doubts=(*files[0].doubts, *files[1].doubts),
    )


def _tied_head(
    pairs: tuple[TensorPair, ...], files: tuple[TensorFile, TensorFile]
) -> TensorPair | None:
    """Return the output layer if one side leaves it out, and it is the embedding of both."""
    heads = [pair for pair in pairs if pair.name == _HEAD and None in (pair.left, pair.right)]
    embeddings = [pair for pair in pairs if _EMBEDDING.fullmatch(pair.name)]
    if not heads or len(embeddings) != 1 or embeddings[0].differing != 0:
        return None
    file = files[heads[0].left is None]
    same = tensor_digest(file, _HEAD) == tensor_digest(file, embeddings[0].name)
    return heads[0] if same else None


def _pairs(
    file: str,
    files: tuple[TensorFile, TensorFile],
    wanted: Wanted,
    initial: tuple[str, TensorFile] | None,
) -> Iterator[TensorPair]:
    """Yield every tensor of either file: those of the left one, then those of the right alone."""
    left, right = (each.tensors for each in files)
    start, begun = initial if initial is not None else (None, None)
    alike = {name for name, info in left.items() if _has(files[1], info)}
    started = {name for name in alike if begun is not None and _has(begun, left[name])}
    # A tensor without elements has nothing to measure, and a header can list very many.
    filled = [name for name, info in left.items() if name in alike and info.elements]
    jobs = [(name, begun if name in started else None) for name in filled]
    with Workers(wanted.threads, sum(left[name].nbytes for name in filled)) as workers:
        found = measure_each(jobs, *files, wanted, workers)
        for name in {**left, **right}:
            distance, rounded, differing = None, {}, 0 if name in alike else None
            if name in alike and left[name].elements:
                measured = next(found)
                differing = measured.differing
                if differing:
                    distance = _distance(
                        file, left[name], measured, start if name in started else None
                    )
                    rounded = _rounded(name, files, wanted, workers)
            yield TensorPair(
                name,
                left.get(name),
                right.get(name),
                differing,
                distance,
                in_initial=name in started,
                rounded=rounded,
            )


def _has(file: TensorFile, info: TensorInfo) -> bool:
    """Tell whether *file* has a tensor of the name, type and shape of *info*."""
    mine = file.tensors.get(info.name)
    return mine is not None and mine.is_like(info)


def _rounded(
    name: str, files: tuple[TensorFile, TensorFile], wanted: Wanted, workers: Workers
) -> dict[str, Rounding]:
    """Return the comparison after each rounding that is wanted of the tensor *name*."""
    source = files[0].tensors[name].dtype
    targets = {to for to, patterns in wanted.rounded if selects_tensor(patterns, name)}
    return {
        to: measure_rounded(name, *files, DTYPES[to], workers)
        for to in sorted(targets)
        if is_narrower(DTYPES[to], source)
    }


def _distance(file: str, info: TensorInfo, found: Measured, initial: str | None) -> TensorDistance:
    """Return *found* with every number finite or absent, and why."""
    notes: list[str] = []
    numbers: dict[str, Any] = {}
    gap = found.difference
    if info.dtype.kind == "exact":
        notes.append("exact-type")
    elif found.not_finite:
        notes.append("not-finite")
    elif not math.isfinite(gap.l2) or not math.isfinite(gap.largest):
        notes.append("overflow")
    else:
        numbers = {"l2": gap.l2, "linf": gap.largest}
        if found.left is not None and found.right is not None:
            numbers |= _relative("weights", gap, (found.left, found.right), notes)
            numbers["cosine"] = cosine(found.left, found.right, gap)
        if found.left_update is not None and found.right_update is not None:
            numbers |= _relative("update", gap, (found.left_update, found.right_update), notes)
        elif initial is not None:
            notes.append("initial-not-finite")
    max_ulp = found.max_ulp if not found.not_finite else None
    if max_ulp is not None and max_ulp > _MAX_EXACT:
        notes.append("ulp-too-large")
        max_ulp = None
    return TensorDistance(
        file=file,
        tensor=info.name,
        dtype=info.dtype.name,
        shape=info.shape,
        elements=info.elements,
        differing=found.differing,
        initial=initial,
        max_ulp=max_ulp,
        first=found.first,
        worst=None if found.not_finite else found.worst,
        nan=found.nan or 0,
        zero_signs=found.zero_signs,
        parts=dict(found.parts) if found.parts else None,
        notes=tuple(notes),
        **numbers,
    )


def _relative(
    what: str, gap: Norm, bases: tuple[Norm, Norm], notes: list[str]
) -> dict[str, float | None]:
    """Return *gap* as a part of the smaller of *bases*: symmetric, and the stricter of both."""
    largest = min(norm.largest for norm in bases)
    if largest == 0:
        notes.append(f"zero-{what}")
        return {}
    if any(math.isinf(norm.largest) for norm in bases):
        notes.append("overflow")
        return {}
    smaller = min(bases, key=lambda norm: (norm.exponent, norm.root))
    ratios = {
        f"relative_l2_{what}": gap.l2_ratio(smaller),
        f"relative_linf_{what}": gap.largest / largest,
    }
    if not all(map(math.isfinite, ratios.values())):
        notes.append("ratio-overflow")
    return {name: ratio if math.isfinite(ratio) else None for name, ratio in ratios.items()}
