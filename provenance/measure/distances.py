"""The distance of tensors, in constant memory, with a stated error bound.

All that is wanted of a tensor, in all files, is found in one reading. Equal chunks are compared and
not widened before the first that differs; where a norm needs them then, one side of these is read
again. So equal tensors cost no arithmetic. Where digests are taken, nothing is read again: equal
chunks are measured at once.

Elements are compared by their bits alone: -0 is not +0, and NaN equals only NaN with the same
payload. Elements of which one is NaN or infinite have no distance and no part in any norm; where
their bits differ they are counted separately, and no limit admits them. Of a block type
(``DType.block`` above 1) blocks are counted, each at its first element.

What is found does not depend on the number of threads, the size of reads, the container, or on
whether there is compiled code; see :mod:`~provenance.measure.pieces` and, for the error bound,
:mod:`~provenance.measure.squares`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from provenance.equality.patterns import selects_tensor
from provenance.errors import UnavailableError, UsageError
from provenance.measure.pieces import (
    PIECE,
    Digests,
    Piece,
    Workers,
    batched,
    cut,
    place_in,
    read_chunks,
)
from provenance.measure.rounding import Rounded, Rounding, is_narrower
from provenance.measure.squares import Norm, Squares
from provenance.measure.totals import Totals
from provenance.weights.dtypes import DTYPES
from provenance.weights.source import same_bytes
from provenance.weights.view import TensorFile, TensorInfo


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be measured beside the bits that differ."""

    norms: bool = True
    """The tensors' own norms, and NaN in them."""
    ulp: bool = False
    rounded: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Types to round to, each with the patterns of the tensors to be rounded."""
    threads: int | None = None
    """How many work at once; by default as many as there are processors, fewer for small models."""
    compiled: bool = True
    """Whether compiled code measures floats, where it was built. It changes no result."""
    on_bytes: Callable[[int], None] | None = None
    """Told the bytes of each side as they are done, in the thread that asked."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found of two tensors."""

    differing: int
    not_finite: int
    """Elements (parts, of complex ones) whose bits differ and of which one is NaN or infinite."""
    difference: Norm
    row: Norm | None
    """Of the longest row of the difference; None as the norms, or with fewer than 2 dimensions."""
    left: Norm | None
    right: Norm | None
    """None where not wanted, or where nothing differs."""
    bases: tuple[Norm, Norm] | None
    """What a difference is a part of: left and right, which few large elements cannot lift; None
    as the norms."""
    updates: tuple[Norm, Norm] | None
    """The same of both updates; None without initial weights, or where these are not finite."""
    max_ulp: int | None
    first: tuple[int, ...] | None
    """Place of the first element that differs."""
    worst: tuple[int, ...] | None
    """Place of the first element with the largest difference; None where every one is zero."""
    nan: int | None
    """Elements with NaN on either side; None as the norms."""
    zero_signs: int
    """Elements with zeros of two signs, in either part of complex ones."""
    parts: Mapping[str, int] | None
    """Of a block type: the blocks that differ, by part."""


def check_arithmetic() -> None:
    """Check that this thread's float64 keeps subnormal numbers.

    A library built with ``-ffast-math`` may have enabled flush-to-zero, and then tensors that
    differ in subnormal numbers would have no distance. Each thread has a setting of its own.
    """
    tiny = np.array([2.0**-149, 2.0**-140], dtype=np.float32)
    wide = tiny.astype(np.float64)
    least = np.array([2.0**-1074])
    if not (wide == (2.0**-149, 2.0**-140)).all() or not (least + least == 2.0**-1073).all():
        raise UnavailableError("flush-to-zero is enabled: subnormal numbers would be lost")


Found = tuple[Measured, Mapping[str, Rounding]]
"""What was found of two tensors, and of both after each rounding that is wanted."""

EQUAL: Final[Found] = (
    Measured(
        differing=0,
        not_finite=0,
        difference=Norm(0.0, 0.0, 0),
        row=None,
        left=None,
        right=None,
        bases=None,
        updates=None,
        max_ulp=0,
        first=None,
        worst=None,
        nan=None,
        zero_signs=0,
        parts=None,
    ),
    {},
)
"""What is found of equal tensors."""


class Job(NamedTuple):
    """A tensor in the *files* that are read together; *initial* weights, if there are, are last."""

    name: str
    files: Sequence[TensorFile]
    pairs: Sequence[tuple[int, int]]
    """Which of the files are compared with one another."""
    initial: bool = False


def measure_each(
    jobs: Sequence[Job], wanted: Wanted, workers: Workers, digests: Digests | None = None
) -> Iterator[list[Found]]:
    """Yield how far each pair of *jobs* is apart, in their order.

    *digests* are fed with what is read, of which nothing is then read again.
    """
    squares = Squares(compiled=wanted.compiled)
    tensors = {job.name: _Tensor(job, wanted, squares, workers, digests) for job in jobs}
    pieces = (piece for tensor in tensors.values() for piece in tensor.pieces())

    def read(batch: list[Piece]) -> list[list[_Part | None]]:
        return [tensors[piece.name].read(piece) for piece in batch]

    most = PIECE if digests is None else workers.read
    tasks = (partial(read, batch) for batch in batched(pieces, most))
    found = (each for results in workers.results(tasks) for each in results)
    for tensor in tensors.values():
        totals: list[_Part | None] = [None] * len(tensor.equal)
        for piece in tensor.pieces():
            for number, part in enumerate(next(found)):
                totals[number] = _joined(totals[number], part)
            if wanted.on_bytes is not None:
                wanted.on_bytes(tensor.info.dtype.nbytes(piece.stop - piece.start))
        for number, total in enumerate(totals):
            if total is not None and total.totals.differing:
                again = (partial(tensor.again, number, piece) for piece in tensor.equal[number])
                for part in workers.results(again):
                    total.merge(part)
        yield [EQUAL if total is None else total.found() for total in totals]


def _joined(total: _Part | None, part: _Part | None) -> _Part | None:
    if total is None or part is None:
        return total or part
    total.merge(part)
    return total


def _rounded_to(info: TensorInfo, wanted: Wanted) -> list[str]:
    return [
        to
        for to, patterns in sorted(wanted.rounded)
        if is_narrower(DTYPES[to], info.dtype) and selects_tensor(patterns, info.name)
    ]


class _Part:
    """What was found of a pair of tensors, or of a part of it."""

    def __init__(self, info: TensorInfo, wanted: Wanted, *, initial: bool) -> None:
        self._info = info
        self.totals = Totals(info, norms=wanted.norms, ulp=wanted.ulp, initial=initial)
        self.rounded = {to: Rounded(info.dtype, DTYPES[to]) for to in _rounded_to(info, wanted)}

    @np.errstate(all="ignore")
    def add(self, start: int, chunks: Sequence[memoryview], squares: Squares) -> None:
        self.totals.add(start, chunks, squares)
        for each in self.rounded.values():
            each.add(start, chunks[0], chunks[1])

    def merge(self, other: _Part) -> None:
        self.totals.merge(other.totals)
        for to, each in self.rounded.items():
            each.merge(other.rounded[to])

    def found(self) -> Found:
        if not self.totals.differing:
            return EQUAL
        shape, rounded = self._info.shape, self.rounded.items()
        return _measured(self.totals, shape), {to: it.rounding(shape) for to, it in rounded}


class _Tensor:
    """A tensor in the files that are read together."""

    def __init__(
        self,
        job: Job,
        wanted: Wanted,
        squares: Squares,
        workers: Workers,
        digests: Digests | None,
    ) -> None:
        self.info = job.files[0].tensors[job.name]
        if not all(self.info.is_like(file.tensors[job.name]) for file in job.files):
            raise UsageError("tensors of two types or shapes have no distance", where=job.name)
        self._job, self._wanted = job, wanted
        self._squares, self._workers, self._digests = squares, workers, digests
        self._direct = all(file.direct for file in job.files)
        self._sides = len(job.files) - job.initial
        floats = self.info.dtype.kind != "exact"
        self._whole = (wanted.norms and floats) or bool(_rounded_to(self.info, wanted))
        """Whether what is equal counts too, where anything differs."""
        self._again = self._direct and digests is None
        """Whether what is equal may be read again."""
        self._differ = [False] * len(job.pairs)
        """The pairs of which something was found to differ."""
        self.equal: list[list[Piece]] = [[] for _ in job.pairs]
        """What is equal in each pair, and was not measured."""

    def pieces(self) -> list[Piece]:
        """Return what one thread reads at a time; digests are fed in order, a read at a time."""
        size = None if self._digests is None else self._step
        return cut(self.info, direct=self._direct, size=size)

    @property
    def _step(self) -> int:
        return self._workers.read // self.info.dtype.components

    def read(self, piece: Piece) -> list[_Part | None]:
        """Return what is found in *piece*, of each pair; None where nothing was measured.

        What is equal is measured only where the pair differs before it, or cannot be read again.
        """
        job, step = self._job, self._step
        if self._again and not any(self._differ):
            step = min(step, self._workers.read_same // self.info.dtype.components)
        found: list[_Part | None] = [None] * len(job.pairs)
        equal_until: dict[int, int] = {}
        for start, chunks in read_chunks(job.files, piece, step):
            if self._workers.stopped:
                break
            if self._digests is not None:
                begin = self.info.dtype.nbytes(start)
                self._digests.feed(job.name, begin, job.files, chunks, self._workers)
            for number, (one, other) in enumerate(job.pairs):
                equal = same_bytes(chunks[one], chunks[other])
                self._differ[number] |= not equal
                if not equal or (self._whole and (self._differ[number] or not self._again)):
                    part = found[number] = found[number] or self._begun()
                    sides = chunks[one], chunks[one if equal else other]
                    part.add(start, (*sides, *chunks[self._sides :]), self._squares)
                elif self._whole:
                    equal_until[number] = min(start + step, piece.stop)
        for number, stop in equal_until.items():
            self.equal[number].append(Piece(job.name, piece.start, stop))
        return found

    def again(self, number: int, piece: Piece) -> _Part:
        """Return what is found in *piece*, which is equal in both files of a pair: one is read."""
        part = self._begun()
        files = [self._job.files[self._job.pairs[number][0]], *self._job.files[self._sides :]]
        for start, chunks in read_chunks(files, piece, self._step):
            if self._workers.stopped:
                break
            part.add(start, (chunks[0], *chunks), self._squares)
        return part

    def _begun(self) -> _Part:
        check_arithmetic()
        return _Part(self.info, self._wanted, initial=self._job.initial)


def _measured(totals: Totals, shape: tuple[int, ...]) -> Measured:
    norms = totals.norms
    difference, *sides = totals.sums
    return Measured(
        differing=totals.differing,
        not_finite=totals.not_finite,
        difference=difference.norm(),
        row=totals.rows.longest() if norms and totals.rows.row else None,
        left=sides[0].norm() if norms else None,
        right=sides[1].norm() if norms else None,
        bases=(sides[0].base(), sides[1].base()) if norms else None,
        updates=(sides[2].base(), sides[3].base()) if totals.updates else None,
        max_ulp=totals.max_ulp if totals.ulp else None,
        first=place_in(shape, totals.first),
        worst=place_in(shape, totals.worst()),
        nan=totals.nan if norms else None,
        zero_signs=totals.zero_signs,
        parts=totals.parts or None,
    )
