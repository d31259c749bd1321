"""Tensors cut into pieces, and the threads that work on them.

A piece is ``PIECE`` elements of a tensor, cut by position alone, so results do not depend on the
number of threads. A tensor of a stream (``direct`` False) is one piece. Squares are summed in
blocks of ``BLOCK`` elements; a piece is whole blocks.

Results come in the order of the pieces, and so does the first error; after it nothing new is begun,
and what is under way ends at its next block.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from threading import Condition
from typing import Final, Self, TypeVar

import numpy as np

from provenance.errors import UnreadableError
from provenance.weights.view import TensorFile, TensorInfo

Result = TypeVar("Result")

BLOCK: Final = 2**16
"""Floats whose squares make one sum. It is part of what a distance means."""

READ: Final = 2**21
"""Floats (or elements of exact types) that are read at a time to be measured, a multiple of
``BLOCK``. It changes no result: with fewer, threads wait for the interpreter's lock."""

READ_SAME: Final = 2**18
"""The same while all is equal: what is only compared stays in the processor's cache."""

PIECE: Final = 2**22
"""Elements of a piece, a multiple of ``READ``: a few milliseconds to a few tens of work."""

MAX_THREADS: Final = 6
"""Most threads: each has up to 100 MB of buffers, and many wait for the interpreter's lock."""

SMALL: Final = 2**24
"""Bytes of a model for which a further thread is worth its start."""

_PATIENCE: Final = 0.1
"""Seconds after which a thread that waits for its turn asks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The elements of the tensor *name* from *start* to *stop*."""

    name: str
    start: int
    stop: int


def cut(info: TensorInfo, *, direct: bool, size: int | None = None) -> list[Piece]:
    """Return the pieces, of *size* elements, of a tensor, in order; one if it is a stream."""
    step = (size or PIECE) if direct and info.elements else max(info.elements, 1)
    return [
        Piece(info.name, start, min(start + step, info.elements))
        for start in range(0, info.elements or 1, step)
    ]


def batched(pieces: Iterable[Piece], most: int) -> Iterator[list[Piece]]:
    """Yield *pieces* in lists of one, or of several small ones, for a thread to work on.

    A list has no more than *most* elements, if not one piece.
    """
    batch: list[Piece] = []
    elements = 0
    for piece in pieces:
        size = piece.stop - piece.start
        if batch and elements + size > most:
            yield batch
            batch, elements = [], 0
        batch.append(piece)
        elements += size
    if batch:
        yield batch


def read_chunks(
    files: Sequence[TensorFile], piece: Piece, step: int
) -> Iterator[tuple[int, tuple[memoryview, ...]]]:
    """Yield the element at which each chunk of *piece* begins, and its bytes in each of *files*.

    A chunk is *step* elements. Its bytes are valid until the next is asked for.
    """
    streams = [file.chunks(piece.name, step, piece.start, piece.stop) for file in files]
    return zip(range(piece.start, piece.stop, step), zip(*streams, strict=True), strict=True)


def place_in(shape: tuple[int, ...], index: int | None) -> tuple[int, ...] | None:
    """Return where the element *index*, in C order, stands in a tensor of this *shape*."""
    return None if index is None else tuple(map(int, np.unravel_index(index, shape)))


def cores() -> int:
    """Return the number of processors that this process may use."""
    mine = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(mine(0)) if mine else os.cpu_count() or 1


class Workers:
    """Threads for one comparison. A context manager: no thread outlives it."""

    def __init__(self, threads: int | None, nbytes: int, files: int = 2) -> None:
        """Take *threads*, or as many as there are processors and as *nbytes* to read are worth.

        Each reads as many *files* at once.
        """
        worth = 1 + nbytes // SMALL
        self.threads = min(threads or min(cores(), worth), MAX_THREADS)
        self.read, self.read_same = READ, READ_SAME
        if files > 3:  # noqa: PLR2004 - two and initial weights: memory stays bounded with more
            self.read = max(BLOCK, self.read * 3 // files // BLOCK * BLOCK)
        """How many floats of a piece to read at a time; as many at most while all is equal."""
        self.stopped = False
        """Whether results are no longer wanted: what is under way may end."""
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def results(self, tasks: Iterable[Callable[[], Result]]) -> Iterator[Result]:
        """Yield what each of *tasks* returns, in their order.

        Few are begun ahead of the one that is waited for, so memory does not grow with them.
        """
        if self._pool is None:
            for task in tasks:
                yield task()
            return
        waiting = iter(tasks)
        begun: deque[Future[Result]] = deque(
            self._pool.submit(task) for task in islice(waiting, 2 * self.threads)
        )
        while begun:
            result = begun.popleft().result()
            begun.extend(self._pool.submit(task) for task in islice(waiting, 1))
            yield result


class Digests:
    """SHA-256 of files, of the very bytes that threads read of their tensors."""

    def __init__(self) -> None:
        """Begin with no file."""
        self._streams: list[tuple[TensorFile, str, _Stream]] = []
        self._places: dict[tuple[TensorFile, str], tuple[_Stream, int, bytes]] = {}

    def begin(self, file: TensorFile, names: Sequence[str]) -> None:
        """Take *file*, if in it are just the tensors *names*, which will be read, in this order.

        What is between them is read now.
        """
        order = {name: number for number, name in enumerate(names)}
        for part in file.parts():
            filled = {name: at for name, at in part.places.items() if at[0] < at[1]}
            numbers = [order.get(name, -1) for name in filled]
            if -1 in numbers or numbers != sorted(numbers):
                continue
            stream, done = _Stream(part.source.size), 0
            for name, (begin, end) in filled.items():
                between = part.source.read(done, begin - done)
                self._places[file, name], done = (stream, begin, between), end
            stream.tail = part.source.read(done, part.source.size - done)
            first = next((self._places[file, name][2] for name in filled), stream.tail)
            if not first.startswith(part.source.head):
                raise UnreadableError("changed while it was read", where=part.source.name)
            self._streams.append((file, part.name, stream))

    def feed(
        self,
        name: str,
        begin: int,
        files: Iterable[TensorFile],
        chunks: Iterable[memoryview],
        workers: Workers,
    ) -> None:
        """Add *chunks* of the tensor *name*, from its byte *begin* on, each in its file's turn."""
        for file, chunk in zip(files, chunks, strict=True):
            if (file, name) in self._places:
                stream, start, between = self._places[file, name]
                stream.add(start + begin, b"" if begin else between, chunk, workers)

    def of(self, file: TensorFile) -> dict[str, str]:
        """Return the digest of each file that *file* was read from, by ``Placed.name``."""
        mine = ((name, stream) for other, name, stream in self._streams if other is file)
        return {name: stream.digest() for name, stream in mine if stream.complete}


class _Stream:
    """The digest of one file, which threads add to in the order of its bytes."""

    def __init__(self, size: int) -> None:
        self._size, self._done, self.tail = size, 0, b""
        self._hasher, self._turn = hashlib.sha256(), Condition()

    def add(self, begin: int, between: bytes, chunk: memoryview, workers: Workers) -> None:
        with self._turn:
            while self._done != begin - len(between):
                if workers.stopped:
                    return
                self._turn.wait(_PATIENCE)
        self._hasher.update(between)
        self._hasher.update(chunk)
        with self._turn:
            self._done = begin + len(chunk)
            self._turn.notify_all()

    @property
    def complete(self) -> bool:
        return self._done + len(self.tail) == self._size

    def digest(self) -> str:
        self._hasher.update(self.tail)
        return self._hasher.hexdigest()
