"""Reading what the training program reported, in the format of :mod:`provenance.capture.run`.

The program may have been killed while writing, or its disk may be full, so a line that is not a
record is counted (in the statement), not refused: a torn line must not cost a training of weeks its
statement. :mod:`provenance.statement.metrics` has the format of the metrics returned.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from provenance.capture.run import MAX_NAME_BYTES, MAX_RECORD_BYTES, MAX_STEP, RECORDS
from provenance.errors import UnreadableError, reason
from provenance.files.atomic import storage_error
from provenance.statement.metrics import MAX_BYTES, NOT_FINITE, Metric, format_metric

MAX_RECORDS_BYTES = MAX_BYTES
"""Most bytes of records read: about four million metrics. The rest is dropped."""

MAX_LAST_VALUES = 64
"""Most metrics whose last value is in the statement itself."""

_MAX_SEED_DIGITS = 1300
_MAX_SEED_NAMES = 256
_MAX_SEEDS_OF_A_NAME = 256
_MAX_INTERPRETERS = 16


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as a process of the run first found it."""

    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Reads:
    """The files that the run's Pythons said to have opened below the watched folders.

    ``files`` are those read, by real path, and ``written`` those written. ``lost`` counts, at
    least, opens that were not told. ``processes`` said something; 0: nothing is known of reads.
    """

    files: Mapping[Path, FileState] = field(default_factory=dict)
    written: frozenset[Path] = frozenset()
    lost: int = 0
    processes: int = 0


@dataclass(frozen=True, slots=True)
class Records:
    """What the program reported.

    ``metrics`` are JSON lines, ``count`` of them. ``last`` holds the last value of each metric.
    ``seeds`` are decimal strings; several values of one name are sorted and separated by commas.
    ``dropped`` records could not be written or were too many, ``damaged`` lines could not be read.
    ``interpreters`` are the executables of the reporting processes.
    """

    metrics: bytes = b""
    count: int = 0
    last: dict[str, float | str] = field(default_factory=dict)
    seeds: dict[str, str] = field(default_factory=dict)
    dropped: int = 0
    damaged: int = 0
    interpreters: tuple[str, ...] = ()
    reads: Reads = field(default_factory=Reads)


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    metric: str | None = None
    seed: str | None = None
    dropped: int | None = None
    interpreter: str | None = None
    value: float | str | None = None
    step: int | None = None


_decoder = msgspec.json.Decoder(_Line)


def prepare(directory: Path) -> None:
    """Create the empty file of records in *directory*."""
    try:
        directory.joinpath(RECORDS).touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise storage_error(error, directory / RECORDS) from error


def read_records(directory: Path) -> Records:
    """Return what the program reported in the run directory *directory*."""
    metrics = bytearray()
    last: dict[str, float | str] = {}
    seeds: dict[str, str] = {}
    interpreters: dict[str, None] = {}
    count = dropped = damaged = 0
    for data in _lines(directory / RECORDS):
        line = None if data is None else _parse(data)
        if line is None:
            damaged += 1
        elif line.dropped is not None:
            dropped += line.dropped
        elif line.interpreter is not None:
            if len(interpreters) < _MAX_INTERPRETERS:
                interpreters[line.interpreter] = None
        elif line.metric is not None and line.value is not None:
            metrics += format_metric(Metric(line.metric, line.value, line.step))
            count += 1
            if line.metric in last or len(last) < MAX_LAST_VALUES:
                last[line.metric] = line.value
        elif line.seed is not None and _has_room(seeds, line.seed):
            seeds[line.seed] = merge_seeds(seeds.get(line.seed), str(line.value))
        else:
            dropped += 1
    dropped = min(dropped, MAX_STEP)  # the program may report any number
    return Records(bytes(metrics), count, last, seeds, dropped, damaged, tuple(interpreters))


def merge_seeds(first: str | None, second: str) -> str:
    """Return the seeds *first* and *second*, each one or more integers, as one text."""
    values = {int(value) for text in (first, second) if text for value in text.split(",")}
    return ",".join(str(value) for value in sorted(values))


def _has_room(seeds: Mapping[str, str], name: str) -> bool:
    if name not in seeds:
        return len(seeds) < _MAX_SEED_NAMES
    return seeds[name].count(",") < _MAX_SEEDS_OF_A_NAME - 1


def parse_seed(text: str) -> str | None:
    """Return the integer *text* as the shortest decimal string, or None."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MAX_SEED_DIGITS):
        return None
    return str(int(text))


def _lines(path: Path) -> Iterator[bytes | None]:
    """Yield the lines of *path* that are not empty, and None for each torn or too long one."""
    try:
        # The program may have replaced it with a FIFO or a link to an endless device.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnreadableError("is no longer a file", where=str(path))
            left = MAX_RECORDS_BYTES
            while left > 0 and (line := file.readline(MAX_RECORD_BYTES + 1)):
                left -= len(line)
                if line.endswith(b"\n"):
                    if line != b"\n":
                        yield line
                    continue
                yield None  # torn at the end, or longer than any record
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_RECORD_BYTES)
                    left -= len(line)
            while chunk := file.read(2**20):
                yield from (b'{"dropped":1}' for line in chunk.split(b"\n")[:-1] if line)
    except OSError as error:
        raise UnreadableError(f"cannot be read: {reason(error)}", where=str(path)) from error


def _parse(data: bytes) -> _Line | None:
    """Return the record *data*, or None if it is malformed."""
    try:
        line = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return line if _is_record(line) else None


def _is_record(line: _Line) -> bool:
    """Tell whether *line* is one of the four kinds of record, within the limits."""
    if line.interpreter is not None:
        return line == _Line(interpreter=line.interpreter) and line.interpreter.startswith("/")
    match line:
        case _Line(metric=str(name), seed=None, dropped=None, value=value, step=step):
            in_range = step is None or -MAX_STEP <= step <= MAX_STEP
            return _is_name(name) and in_range and (type(value) is float or value in NOT_FINITE)
        case _Line(metric=None, seed=str(name), dropped=None, value=str(text), step=None):
            return _is_name(name) and parse_seed(text) == text
        case _Line(metric=None, seed=None, dropped=int(count), value=None, step=None):
            return 0 < count <= MAX_STEP
        case _:
            return False


def _is_name(name: str) -> bool:
    try:
        return 0 < len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False
