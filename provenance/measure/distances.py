"""The distance of two tensors, in constant memory, with a stated error bound.

A piece in which nothing differs is not widened: where a norm needs it, it is read again once it is
known that the tensor differs elsewhere. So equal tensors cost their bytes and no arithmetic.

Whether two elements are the same is told by their bits alone: -0 is not +0, NaN is NaN only with
the same payload. Elements of which one is NaN or infinite have no distance and no part in any norm;
where their bits differ they are counted apart, and no limit admits them. Units of last place count
the representable values between two, -0 and +0 being two: bits as ordered unsigned integers.

Of a block type (``DType.block`` above 1) what is counted is blocks, and a place is that of the
block's first element.

What is found does not depend on the number of threads, the size of reads or the container; see
:mod:`~provenance.measure.pieces` and, for the error bound, :mod:`~provenance.measure.norms`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from provenance.errors import UnavailableError, UsageError
from provenance.measure.compiled import is_worth, meter_for
from provenance.measure.meter import Scratch, Tally, same_bytes
from provenance.measure.norms import RELATIVE_ERROR, Norm, at_most
from provenance.measure.pieces import (
    Piece,
    Workers,
    batched,
    compared_at_once,
    cut,
    place_in,
    read_chunks,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from provenance.weights.view import TensorFile, TensorInfo

__all__ = ["RELATIVE_ERROR", "Measured", "Norm", "Wanted", "at_most", "measure", "measure_each"]


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
    compiled: bool | None = None
    """Whether compiled code measures floats (the extra ``fast``); by default where that is there
    and the tensors are large. It changes no result."""
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

    A library built with ``-ffast-math`` may have set the processor to take them for zero, and
    then tensors that differ in them would have no distance. Each thread has a setting of its own.

    Raises:
        UnavailableError: it does not.
    """
    tiny = np.array([2.0**-149, 2.0**-140], dtype=np.float32)
    wide = tiny.astype(np.float64)
    least = np.array([2.0**-1074])
    if not (wide == (2.0**-149, 2.0**-140)).all() or not (least + least == 2.0**-1073).all():
        raise UnavailableError("the processor is set to take subnormal numbers for zero")


def measure(
    name: str,
    left: TensorFile,
    right: TensorFile,
    wanted: Wanted,
    *,
    initial: TensorFile | None = None,
) -> Measured:
    """Return how far the tensors *name* of *left* and *right* are apart.

    *initial* holds the weights that the updates start from. Raises as :func:`measure_each`.
    """
    with Workers(wanted.threads, left.tensors[name].nbytes) as workers:
        (found,) = measure_each([(name, initial)], left, right, wanted, workers)
    return found


def measure_each(
    jobs: Sequence[tuple[str, TensorFile | None]],
    left: TensorFile,
    right: TensorFile,
    wanted: Wanted,
    workers: Workers,
) -> Iterator[Measured]:
    """Yield how far each tensor that *jobs* names is apart in *left* and *right*, in their order.

    Beside its name stands the file of the initial weights that its updates start from.

    Raises:
        UsageError: the tensors are of two types or shapes.
        MalformedError: the bytes do not decode.
        UnreadableError: a file cannot be read.
        UnavailableError: see :func:`check_arithmetic`, or the code cannot be compiled.
    """
    if wanted.compiled is None:
        compiled = is_worth(left.tensors[name] for name, _ in jobs)
        wanted = replace(wanted, compiled=compiled)
    pairs = {
        name: _Pair(name, (left, right) if initial is None else (left, right, initial), wanted)
        for name, initial in jobs
    }
    spare: deque[Scratch] = deque()
    pieces = (piece for pair in pairs.values() for piece in pair.pieces())
    tasks = (partial(_survey, pairs, batch, spare, workers) for batch in batched(pieces))
    found = (each for results in workers.results(tasks) for each in results)
    for pair in pairs.values():
        total, equal = pair.tally(), list[Piece]()
        for piece in pair.pieces():
            part = next(found)
            if part is None:
                equal.append(piece)
            else:
                total.merge(part)
            if wanted.on_bytes is not None:
                wanted.on_bytes(pair.info.dtype.nbytes(piece.stop - piece.start))
        if total.differing and total.norms:
            again = (partial(pair.meter_equal, piece, spare, workers) for piece in equal)
            for part in workers.results(again):
                total.merge(part)
        yield _measured(total, pair.info)


class _Pair:
    """A tensor in the files that have it: left, right, and the initial weights if there are."""

    def __init__(self, name: str, files: tuple[TensorFile, ...], wanted: Wanted) -> None:
        infos = [file.tensors[name] for file in files]
        self.info = infos[0]
        if any((info.dtype, info.shape) != (self.info.dtype, self.info.shape) for info in infos):
            raise UsageError("tensors of two types or shapes have no distance", where=name)
        self._files = files
        self._wanted = wanted
        self._direct = all(file.direct for file in files)

    def pieces(self) -> list[Piece]:
        return cut(self.info, direct=self._direct)

    def tally(self) -> Tally:
        return Tally(
            self.info.dtype,
            norms=self._wanted.norms,
            ulp=self._wanted.ulp,
            initial=len(self._files) > 2,  # noqa: PLR2004 - left, right and initial
        )

    def survey(self, piece: Piece, spare: deque[Scratch], workers: Workers) -> Tally | None:
        """Return the measures of *piece*, or None where its bytes are the same in both files.

        A stream is not begun twice: it is measured at once.
        """
        step = compared_at_once(self.info.dtype)
        if self._direct and all(
            same_bytes(*chunks) or workers.stopped
            for _, chunks in read_chunks(self._files[:2], piece, step)
        ):
            return None
        return self._meter(piece, spare, workers, equal=False)

    def meter_equal(self, piece: Piece, spare: deque[Scratch], workers: Workers) -> Tally:
        """Return the norms of *piece*, whose bytes are the same in both files."""
        return self._meter(piece, spare, workers, equal=True)

    def _meter(
        self, piece: Piece, spare: deque[Scratch], workers: Workers, *, equal: bool
    ) -> Tally:
        check_arithmetic()
        tally = self.tally()
        scratch = spare.pop() if spare else Scratch()
        meter = meter_for(tally, scratch, compiled=bool(self._wanted.compiled))
        files = (self._files[0], *self._files[2:]) if equal else self._files
        with np.errstate(all="ignore"):
            for start, chunks in read_chunks(files, piece, workers.read):
                if workers.stopped:
                    break
                if equal:
                    meter.add_equal(chunks)
                else:
                    meter.add(start, chunks)
        spare.append(scratch)
        return tally


def _survey(
    pairs: Mapping[str, _Pair], batch: list[Piece], spare: deque[Scratch], workers: Workers
) -> list[Tally | None]:
    return [pairs[piece.name].survey(piece, spare, workers) for piece in batch]


def _measured(tally: Tally, info: TensorInfo) -> Measured:
    norms = tally.norms and tally.differing > 0
    updates = norms and tally.updates
    return Measured(
        differing=tally.differing,
        not_finite=tally.not_finite,
        difference=tally.difference.norm(),
        left=tally.left.norm() if norms else None,
        right=tally.right.norm() if norms else None,
        left_update=tally.left_update.norm() if updates else None,
        right_update=tally.right_update.norm() if updates else None,
        max_ulp=tally.max_ulp if tally.ulp else None,
        first=place_in(info.shape, tally.first),
        worst=place_in(info.shape, tally.difference.place),
        nan=tally.nan if norms else None,
        zero_signs=tally.zero_signs,
        parts=tally.parts or None,
    )
