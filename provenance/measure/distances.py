"""The distance of two tensors, in constant memory, with a stated error bound.

Equal pieces are not widened; where the tensor differs elsewhere and a norm needs them, they are
read again. So equal tensors cost a comparison of bytes and no arithmetic.

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

import numpy as np

from provenance.errors import UnavailableError, UsageError
from provenance.measure.pieces import Piece, Workers, batched, cut, place_in, read_chunks
from provenance.measure.squares import Norm, Squares
from provenance.measure.totals import Totals
from provenance.weights.view import CHUNK_UNIT, TensorFile

_COMPARED = 2**18
"""Bytes of each file that are compared at a time, while none was found to differ: what was read
of both is still in the processor's cache."""


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
    left: Norm | None
    right: Norm | None
    """None where not wanted, or where nothing differs."""
    left_update: Norm | None
    right_update: Norm | None
    """None as the norms, without initial weights, or where these are not finite."""
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


def measure_each(
    jobs: Sequence[tuple[str, TensorFile | None]],
    left: TensorFile,
    right: TensorFile,
    wanted: Wanted,
    workers: Workers,
) -> Iterator[Measured]:
    """Yield how far each tensor of *jobs* is apart in *left* and *right*, in their order.

    A job is a tensor's name, and the file of the initial weights that its updates start from.
    """
    squares = Squares(compiled=wanted.compiled)
    pairs = {
        name: _Pair(name, (left, right, *([initial] if initial else [])), wanted, squares, workers)
        for name, initial in jobs
    }
    pieces = (piece for pair in pairs.values() for piece in pair.pieces())

    def survey(batch: list[Piece]) -> list[Totals | None]:
        return [pairs[piece.name].surveyed(piece) for piece in batch]

    tasks = (partial(survey, batch) for batch in batched(pieces))
    found = (each for results in workers.results(tasks) for each in results)
    for pair in pairs.values():
        total, equal = pair.totals(), list[Piece]()
        for piece in pair.pieces():
            part = next(found)
            if part is None:
                equal.append(piece)
            else:
                total.merge(part)
            if wanted.on_bytes is not None:
                wanted.on_bytes(pair.info.dtype.nbytes(piece.stop - piece.start))
        if total.differing and total.norms:
            for part in workers.results(partial(pair.measured, each, equal=True) for each in equal):
                total.merge(part)
        yield _measured(total, pair.info.shape)


class _Pair:
    """A tensor in the files that have it: left, right, and the initial weights if there are."""

    def __init__(
        self,
        name: str,
        files: tuple[TensorFile, ...],
        wanted: Wanted,
        squares: Squares,
        workers: Workers,
    ) -> None:
        self.info = files[0].tensors[name]
        if not all(self.info.is_like(file.tensors[name]) for file in files):
            raise UsageError("tensors of two types or shapes have no distance", where=name)
        self._files, self._wanted = files, wanted
        self._squares, self._workers = squares, workers
        self._direct = all(file.direct for file in files)

    def pieces(self) -> list[Piece]:
        return cut(self.info, direct=self._direct)

    def totals(self) -> Totals:
        initial = len(self._files) > 2  # noqa: PLR2004 - left, right and initial
        return Totals(
            self.info.dtype, norms=self._wanted.norms, ulp=self._wanted.ulp, initial=initial
        )

    def surveyed(self, piece: Piece) -> Totals | None:
        """Return the totals of *piece*, or None where its bytes are the same in both files.

        A stream is not begun twice: it is measured at once.
        """
        dtype = self.info.dtype
        step = _COMPARED * 8 // dtype.bits * dtype.block // CHUNK_UNIT * CHUNK_UNIT
        if self._direct and all(
            _same_bytes(*chunks) or self._workers.stopped
            for _, chunks in read_chunks(self._files[:2], piece, step)
        ):
            return None
        return self.measured(piece)

    @np.errstate(all="ignore")
    def measured(self, piece: Piece, *, equal: bool = False) -> Totals:
        """Return the totals of *piece*; of one that is *equal* in both files, one is read."""
        check_arithmetic()
        totals = self.totals()
        files = (self._files[0], *self._files[2:]) if equal else self._files
        step = self._workers.read // self.info.dtype.components
        for start, chunks in read_chunks(files, piece, step):
            if self._workers.stopped:
                break
            totals.add(start, (chunks[0], *chunks) if equal else chunks, self._squares)
        return totals


def _same_bytes(left: memoryview, right: memoryview) -> bool:
    """Tell whether two chunks of one length are the same, eight bytes at a time."""
    whole = len(left) // 8 * 8
    return (
        np.array_equal(np.frombuffer(left[:whole], "<u8"), np.frombuffer(right[:whole], "<u8"))
        and left[whole:] == right[whole:]
    )


def _measured(totals: Totals, shape: tuple[int, ...]) -> Measured:
    norms = totals.norms and totals.differing > 0
    updates = norms and totals.updates
    difference, left, right, left_update, right_update = totals.sums
    return Measured(
        differing=totals.differing,
        not_finite=totals.not_finite,
        difference=difference.norm(),
        left=left.norm() if norms else None,
        right=right.norm() if norms else None,
        left_update=left_update.norm() if updates else None,
        right_update=right_update.norm() if updates else None,
        max_ulp=totals.max_ulp if totals.ulp else None,
        first=place_in(shape, totals.first),
        worst=place_in(shape, totals.worst()),
        nan=totals.nan if norms else None,
        zero_signs=totals.zero_signs,
        parts=totals.parts or None,
    )
