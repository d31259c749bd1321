"""What a training program reports about itself under ``provenance record``.

The environment variable ``PROVENANCE_RUN`` names a folder, the *run directory*, which contains
``records.jsonl``. Every process of the training appends records to it, one JSON object a line::

    {"metric":"loss","value":0.25,"step":10}
    {"seed":"numpy","value":"20260729","rank":1}
    {"dropped":3}
    {"reports":4711}

A value that JSON cannot hold is a string: ``"NaN"``, ``"Infinity"``, ``"-Infinity"``. A seed is a
decimal string, because it may exceed 2^53. ``rank`` and, after a restart of torchrun, ``restart``
are of the process, by the variables of its launcher (:data:`LAUNCHERS`). ``dropped`` counts records
that this process could not write. ``reports`` is each process's first record, with its id: of
several Pythons, the one that reports trains. Each record begins and ends with a line feed, so a
torn one damages no other. What :mod:`provenance.capture.python.inside` tells stands between them.

Three promises to the program:

- Nothing here raises. What cannot be kept (full disk, not a number) is counted.
- Processes and threads need no lock: each record is one ``write`` of at most
  :data:`MAX_RECORD_BYTES` to a file opened for appending. (NFS does not support this.)
- No file stays open between records: in a program that closes all descriptors, as daemons do, our
  records would end up in the file that it opens next.

Only ``os`` is imported up front, so that ``import provenance`` is cheap.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import SupportsFloat, SupportsIndex

VARIABLE = "PROVENANCE_RUN"
"""The environment variable that names the run directory."""

RECORDS = "records.jsonl"
"""The file in the run directory."""

MAX_RECORD_BYTES = 4096
"""Longest record, in bytes: a page, which every local file system appends in one piece."""

MAX_NAME_BYTES = 256
"""Longest name of a metric or a seed, in bytes of UTF-8."""

MAX_SEED_BITS = 4096
"""Widest seed. numpy's ``SeedSequence`` takes any width; 128 bits are usual."""

MAX_STEP = 2**53 - 1
"""Largest step: the largest integer that is exact in every JSON reader."""

LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE"),  # and whatever starts processes as torch asks for it
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "MVAPICH": ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    "PMI": ("PMI_RANK", "PMI_SIZE"),
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),  # a batch script has SLURM_NTASKS, too
}
"""The variables by which launchers tell a process its rank and how many there are."""

RESTARTS = "TORCHELASTIC_RESTART_COUNT"
"""The variable that counts how often torchrun started all processes again."""

MAX_RANKS = 2**20
"""Most processes in a world: more are taken for a mistake."""

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class Run:
    """The run that this process belongs to. Its methods never raise."""

    __slots__ = ("_dropped", "_names", "_path", "_process", "_told")

    def __init__(self, directory: str | None) -> None:
        """Append to the records in *directory*; None: keep nothing."""
        self._path = None if directory is None else os.path.join(directory, RECORDS)  # noqa: PTH118 - pathlib costs 10 ms
        self._names: dict[str, str] = {}
        self._dropped = 0
        self._told = False
        self._process = os.getpid()

    @property
    def is_recorded(self) -> bool:
        """Whether a recorder keeps what this run reports."""
        return self._path is not None

    def metric(self, name: str, value: SupportsFloat, step: SupportsIndex | None = None) -> None:
        """Record that the metric *name* had *value*, at *step* of the training.

        *value* is anything that ``float`` takes: a number, a scalar of numpy or torch. Reading a
        scalar on a GPU waits for the GPU, as ``loss.item()`` does.
        """
        if self._path is None:
            return
        try:
            number = float(value)
            if number != number:  # noqa: PLR0124 - NaN, without importing math
                text = '"NaN"'
            elif number in (_INFINITY, -_INFINITY):
                text = '"Infinity"' if number > 0 else '"-Infinity"'
            else:
                text = float.__repr__(number)
            place = ""
            if step is not None:
                position = step.__index__()
                if not -MAX_STEP <= position <= MAX_STEP:
                    raise OverflowError  # noqa: TRY301 - counted below like every other bad value
                place = f',"step":{position}'
            record = f'{{"metric":{self._quoted(name)},"value":{text}{place}{_place()}}}'
        except Exception:  # noqa: BLE001 - a foreign scalar may raise anything
            self._drop()
            return
        self._append(record)

    def seed(self, name: str, value: SupportsIndex) -> None:
        """Record that the random generator *name* was seeded with the integer *value*."""
        if self._path is None:
            return
        try:
            number = value.__index__()
            if number.bit_length() > MAX_SEED_BITS:
                raise OverflowError  # noqa: TRY301 - as above
            record = f'{{"seed":{self._quoted(name)},"value":"{number}"{_place()}}}'
        except Exception:  # noqa: BLE001 - as above
            self._drop()
            return
        self._append(record)

    def _quoted(self, name: str) -> str:
        quoted = self._names.get(name)
        if quoted is None:
            from json.encoder import encode_basestring_ascii  # noqa: PLC0415 - see the docstring

            if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
                raise ValueError
            quoted = encode_basestring_ascii(name)
            if len(self._names) < _KEPT_NAMES:
                self._names[name] = quoted
        return quoted

    def _append(self, record: str) -> None:
        """Write *record*, and how many before it were dropped."""
        process = os.getpid()
        if process != self._process:  # after a fork the parent reports its own losses
            self._process, self._dropped, self._told = process, 0, False
        if not self._told:
            self._told = True
            _write(self._path, f'\n{{"reports":{process}}}\n'.encode())
        dropped = self._dropped
        if dropped:
            record = f'{{"dropped":{dropped}}}\n{record}'
        data = f"\n{record}\n".encode()
        if len(data) <= MAX_RECORD_BYTES and _write(self._path, data):
            self._dropped -= dropped
        else:
            self._drop()

    def _drop(self) -> None:
        self._dropped += 1
        if self._dropped == 1:  # the last chance to tell is the end of the process
            import atexit  # noqa: PLC0415 - see the docstring

            atexit.unregister(self._tell_dropped)
            atexit.register(self._tell_dropped)

    def _tell_dropped(self) -> None:
        if self._dropped and self._process == os.getpid():
            _write(self._path, f'\n{{"dropped":{self._dropped}}}\n'.encode())


_INFINITY = float("inf")
_KEPT_NAMES = 1024
_runs: dict[str | None, Run] = {}


def current_run() -> Run:
    """Return the run that this process belongs to; without a recorder it keeps nothing."""
    directory = os.environ.get(VARIABLE) or None
    run = _runs.get(directory)
    if run is None:
        run = _runs.setdefault(directory, Run(directory))
    return run


def place_of(environ: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Return launcher, rank and size of the world by *environ*; None: it is one process alone."""
    for launcher, names in LAUNCHERS.items():
        if names[0] in environ:
            rank, size = (_count(environ.get(name, "")) for name in names)
            if -1 < rank < size <= MAX_RANKS:
                return (launcher, rank, size) if size > 1 else None
    return None


def _place() -> str:
    """Return the fields that say which process of a distributed run this is."""
    place, restart = place_of(os.environ), _count(os.environ.get(RESTARTS, ""))
    rank = f',"rank":{place[1]}' if place else ""
    return f'{rank},"restart":{restart}' if restart > 0 else rank


def _count(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 8 else -1  # noqa: PLR2004 - digits


def _write(path: str | None, data: bytes) -> bool:
    """Append *data* in one write and tell whether all of it was written."""
    if path is None:
        return False
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)  # some file systems report only now that the disk is full
    except (OSError, ValueError):
        return False
    return written == len(data)
