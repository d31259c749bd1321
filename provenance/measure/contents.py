"""Weight files, read side by side: what differs in each pair of them, and by how much.

:mod:`~provenance.judge.comparators` judges them under a declaration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from provenance.measure.distances import EQUAL, Found, Job, Measured, Wanted, measure_each
from provenance.measure.findings import Divergence, TensorDistance
from provenance.measure.pieces import Digests, Workers
from provenance.measure.rounding import Rounding
from provenance.measure.squares import LEAST_ERROR, Norm, enlarged
from provenance.weights.beside import Difference, effects, metadata_differences
from provenance.weights.normalisers import Normalised
from provenance.weights.view import TensorFile, TensorInfo, tensor_digest

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


class Beside(NamedTuple):
    """Two of the files that are read together, by their places, and what the pair is called."""

    name: str
    left: int
    right: int
    tied: bool = False
    """Both models say that their output layer is their embedding."""


def read_contents(
    pairs: Sequence[Beside],
    files: Sequence[TensorFile],
    wanted: Wanted,
    initial: tuple[str, TensorFile] | None = None,
    digests: Digests | None = None,
) -> list[Contents | None]:
    """Return what each of *pairs* of the open *files* holds.

    None is a pair without the first file that has a tensor which the first has not. *initial* is
    the name of the file of initial weights, and the file, open. *digests* are fed with what is
    read.
    """
    start, begun = initial if initial is not None else (None, None)
    jobs, places = [], dict[str, list[Beside]]()
    for name, info in files[0].tensors.items():
        # A tensor without elements has nothing to measure, and a header can list very many.
        having = [info.elements and _has(file, info) for file in files]
        each = [pair for pair in pairs if having[pair.left] and having[pair.right]]
        if each:
            numbers = sorted({number for pair in each for number in (pair.left, pair.right)})
            used = [files[number] for number in numbers]
            last = [begun] if begun is not None and _has(begun, info) else []
            at = [(numbers.index(pair.left), numbers.index(pair.right)) for pair in each]
            jobs.append(Job(name, [*used, *last], at, initial=bool(last)))
            places[name] = each
    nbytes = sum(files[0].tensors[job.name].nbytes for job in jobs)
    if digests is not None:
        for file in (*files, *([] if begun is None else [begun])):
            digests.begin(file, [job.name for job in jobs if file in job.files])
    with Workers(wanted.threads, nbytes, len(files)) as workers:
        each_found = measure_each(jobs, wanted, workers, digests)
        measured = {
            name: dict(zip(each, found, strict=True))
            for (name, each), found in zip(places.items(), each_found, strict=True)
        }
    started = {job.name for job in jobs if job.initial}
    return [
        _contents(
            pair,
            (files[pair.left], files[pair.right]),
            {name: found[pair] for name, found in measured.items() if pair in found},
            start,
            started,
        )
        for pair in pairs
    ]


def _contents(
    pair: Beside,
    files: tuple[TensorFile, TensorFile],
    measured: Mapping[str, Found],
    initial: str | None,
    started: Container[str],
) -> Contents | None:
    """Return what the *files* of *pair* hold; None: a tensor was not *measured*."""
    left, right = (each.tensors for each in files)
    pairs = []
    for name in {**left, **right}:  # those of the left file, then those of the right alone
        one, other, begun = left.get(name), right.get(name), name in started
        distance, differing, rounded = None, None, EQUAL[1]
        if one is not None and _has(files[1], one):
            if one.elements and name not in measured:
                return None
            found, rounded = measured.get(name, EQUAL)
            if differing := found.differing:
                distance = _distance(pair.name, one, found, initial if begun else None)
        pairs.append(TensorPair(name, one, other, differing, distance, begun, rounded))
    head = _tied_head(pairs, files) if pair.tied else None
    pairs = [replace(each, differing=0) if each is head else each for each in pairs]
    metadata = metadata_differences(*files)
    equal = not metadata and all(each.differing == 0 for each in pairs)
    return Contents(
        file=pair.name,
        tensors=tuple(pairs),
        initial=initial,
        metadata=metadata,
        normalisers=effects(pair.name, *files, content_equal=equal, tied=head is not None),
        doubts=(*files[0].doubts, *files[1].doubts),
    )


def _tied_head(
    pairs: Sequence[TensorPair], files: tuple[TensorFile, TensorFile]
) -> TensorPair | None:
    """Return the output layer if one side leaves it out, and it is the embedding of both."""
    heads = [pair for pair in pairs if pair.name == _HEAD and None in (pair.left, pair.right)]
    embeddings = [pair for pair in pairs if _EMBEDDING.fullmatch(pair.name)]
    if not heads or len(embeddings) != 1 or embeddings[0].differing != 0:
        return None
    file = files[heads[0].left is None]
    same = tensor_digest(file, _HEAD) == tensor_digest(file, embeddings[0].name)
    return heads[0] if same else None


def _has(file: TensorFile, info: TensorInfo) -> bool:
    """Tell whether *file* has a tensor of the name, type and shape of *info*."""
    mine = file.tensors.get(info.name)
    return mine is not None and mine.is_like(info)


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
        if found.left is not None and found.right is not None and found.bases is not None:
            numbers |= _relative("weights", found, found.bases, info, notes)
            sides = zip((found.left, found.right), found.bases, strict=True)
            shares = [1 - base.l2_ratio(norm) ** 2 for norm, base in sides if norm.root]
            numbers["outlying_share"] = max([0.0, *shares])
        if found.updates is not None:
            numbers |= _relative("update", found, found.updates, info, notes)
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
    what: str, found: Measured, bases: tuple[Norm, Norm], info: TensorInfo, notes: list[str]
) -> dict[str, float | None]:
    """Return the difference as a part of the smaller of *bases*: symmetric, and the stricter."""
    gap = found.difference
    largest = min(norm.largest for norm in bases)
    if largest == 0:
        notes.append(f"zero-{what}")
        return {}
    if any(math.isinf(norm.largest) for norm in bases):
        notes.append("overflow")
        return {}
    smaller = min(bases, key=lambda norm: norm.order)
    ratios = {
        f"relative_l2_{what}": gap.l2_ratio(smaller),
        f"relative_linf_{what}": gap.largest / largest or (LEAST_ERROR if gap.largest else 0.0),
    }
    if found.row is not None:
        rows = found.row.l2_ratio(smaller, math.sqrt(info.shape[0]))
        ratios[f"relative_l2_rows_{what}"] = rows
    kept = {name: it if math.isfinite(enlarged(it)) else None for name, it in ratios.items()}
    if None in kept.values():
        notes.append("ratio-overflow")
    return kept
