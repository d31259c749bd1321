"""Reading what the run's programs said: :mod:`provenance.capture.run` and ``inside`` have the form.

The program may have been killed while writing, or its disk may be full, so a line that is not a
record is counted (in the statement), not refused: a torn line must not cost a training of weeks its
statement. :mod:`provenance.statement.metrics` has the format of the metrics returned.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from os.path import normpath
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from provenance.capture.python.inside import MAX_LINE_BYTES
from provenance.capture.python.told import Arguments, Checkpoint, Digest, Integer, Name, Rank, Told
from provenance.capture.run import MAX_NAME_BYTES, MAX_STEP, RECORDS
from provenance.files.atomic import storage_error
from provenance.files.reading import open_file, unreadable
from provenance.statement.metrics import MAX_BYTES, Metric, format_metric

MAX_RECORDS_BYTES = MAX_BYTES
"""Most bytes of records read: about four million metrics. The rest is dropped."""

MAX_LAST_VALUES = 64
"""Most metrics whose last value is in the statement itself."""

_MAX_SEED_DIGITS = 1300
_MAX_SEED_NAMES = 256
_MAX_SEEDS_OF_A_NAME = 256

MAX_FILES, MAX_PROCESSES, MAX_STARTED, MAX_STATES, MAX_HOSTS = 65536, 4096, 16384, 4096, 1024
"""Most that is kept of a run: files of each kind (read, written, mapped), processes (with those
that they forked), started programs, records of states, hosts beside the recorder's."""

_OF_HOST = re.compile(r"records-(?:[0-9a-f]{2}){1,64}\.jsonl")
_Id = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_STEP)]
_Place = tuple[int, int]
_Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Text = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"\A[^\0\ud800-\udfff]*\Z")]
_Setting = Annotated[str, msgspec.Meta(max_length=MAX_NAME_BYTES, pattern=r"\A[A-Za-z0-9_.]+\Z")]
_Path = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"\A/[^\0\ud800-\udfff]*\Z")]


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


class Introduction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What a Python of the run says that it is; ``path`` is its ``sys.path``."""

    pid: _Id
    parent: _Id
    forked: bool
    executable: _Text
    prefix: _Text
    base_prefix: _Text
    version: _Text
    implementation: _Text
    cache_tag: _Text
    path: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=1024)]
    pointer_bits: Literal[32, 64]
    optimize: Annotated[int, msgspec.Meta(ge=0, le=9)]
    hash_randomization: bool
    launched: Annotated[
        dict[Name, Annotated[str, msgspec.Meta(max_length=8)]], msgspec.Meta(max_length=32)
    ] = {}


class Started(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program that a Python of the run started, and its words that may name a Python."""

    started: _Path
    words: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=16)]
    pid: _Id


@dataclass(frozen=True, slots=True)
class Process:
    """A Python of the run with those that it forked.

    ``parent`` is the number of the one above it, if that spoke. It ``reported`` if it called
    ``current_run()`` and used it. Its ``host`` is a number. ``states`` is what it and
    each fork, by process id, had set: before torch's first ``step`` and at its ``exit``. Of ranks
    alone it is told that they ``ended``.
    """

    said: Introduction
    parent: int | None
    reported: bool = False
    wrote: set[str] = field(default_factory=set)
    started: list[Started] = field(default_factory=list)
    states: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)
    ended: bool = False
    host: int = 0
    libraries: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Records:
    """What the program reported.

    ``metrics`` are JSON lines, ``count`` of them. ``last`` holds the last value of each metric.
    ``seeds`` are decimal strings; several values of one name are sorted and separated by commas.
    ``dropped`` records could not be written or were too many, ``damaged`` lines could not be read.
    ``told`` is what it said beside these. ``processes`` are the Pythons that spoke, and
    ``strangers`` reports of others. ``ranks`` have metrics, each with its restart (-1: of no rank);
    ``seeds_of_ranks`` are by name, then by rank.
    """

    metrics: bytes = b""
    count: int = 0
    last: dict[str, float | str] = field(default_factory=dict)
    seeds: dict[str, str] = field(default_factory=dict)
    dropped: int = 0
    damaged: int = 0
    processes: tuple[Process, ...] = ()
    told: Told = field(default_factory=Told)
    strangers: int = 0
    ranks: Collection[tuple[int, int]] = frozenset()
    seeds_of_ranks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reads: Reads = field(default_factory=Reads)


class _Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    metric: Name
    value: float | Literal["NaN", "Infinity", "-Infinity"]
    step: Integer | None = None
    rank: Rank | None = None
    restart: Rank = 0


class _Seed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seed: Name
    value: Annotated[str, msgspec.Meta(pattern=r"\A(?:0|-?[1-9][0-9]{0,1299})\Z")]
    rank: Rank | None = None
    restart: Rank = 0


class _Dropped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dropped: _Count


class _Introduced(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    process: Introduction


class _Read(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    read: _Path
    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    mtime_ns: _Number
    ctime_ns: _Number
    pid: _Id


class _Wrote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    wrote: _Path
    pid: _Id


class _Libraries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    libraries: Annotated[tuple[_Path, ...], msgspec.Meta(max_length=4096)]
    pid: _Id


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: Literal["step", "exit"]
    values: Annotated[dict[_Setting, bool | Integer | _Text], msgspec.Meta(max_length=1024)]
    pid: _Id


class _Lost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lost: _Count
    pid: _Id


class _Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ended: Literal[True]
    pid: _Id


class _Reports(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reports: _Id


_Line = _Metric | _Seed | _Dropped | Checkpoint | Digest | Arguments
_OfPython = _Introduced | _Read | _Wrote | Started | _State | _Libraries | _Ended | _Lost | _Reports

_decoders: Mapping[bytes, msgspec.json.Decoder[_Line | _OfPython]] = {
    kind.__struct_fields__[0].encode(): msgspec.json.Decoder(kind)
    for kind in get_args(_Line) + get_args(_OfPython)
}
"""By the first name in the record."""


def prepare(directory: Path) -> None:
    """Create the empty file of records in *directory*."""
    try:
        directory.joinpath(RECORDS).touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise storage_error(error, directory / RECORDS) from error


def read_records(directory: Path) -> Records:
    """Return what the run's programs said in the run directory *directory*."""
    metrics, seeds, processes, told = _Metrics(), _Seeds(), _Processes(), Told()
    dropped = damaged = 0
    for host, data in _all_lines(directory):
        processes.hear(host)
        match None if data is None else _parse(data):
            case None:
                damaged += 1
            case _Metric() as line:
                metrics.take(line)
            case _Seed() as line:
                dropped += not seeds.take(line)
            case _Dropped(dropped=number):
                dropped += number
            case Checkpoint():  # hashed while the run went on
                pass
            case Digest() | Arguments() as line:
                dropped += not told.take(line)
            case _Introduced(process=said):
                processes.introduce(said)
            case of_python:
                processes.take(of_python)
    return Records(
        metrics=b"".join(metrics.lines[place] for place in sorted(metrics.lines)),
        count=metrics.count,
        last={name: value for name, (_, value) in metrics.last.items()},
        seeds=_texts(seeds.values),
        dropped=min(dropped, MAX_STEP),  # the program may report any number
        damaged=damaged,
        processes=processes.all(),
        told=told,
        strangers=processes.reports[None],
        ranks=metrics.lines.keys(),
        seeds_of_ranks={name: _texts(own) for name, own in seeds.of_ranks.items()},
        reads=processes.reads(),
    )


class _Metrics:
    """Metrics by rank and restart, and the last value of each, of the lowest rank."""

    def __init__(self) -> None:
        self.lines: defaultdict[_Place, bytearray] = defaultdict(bytearray)
        self.last: dict[str, tuple[_Place, float | str]] = {}
        self.count = 0

    def take(self, line: _Metric) -> None:
        name, value = line.metric, line.value
        self.count += 1
        at = -1 if line.rank is None else line.rank, line.restart
        self.lines[at] += format_metric(Metric(name, value, line.step, line.rank, line.restart))
        before = self.last.get(name, (at, 0.0))[0]
        newer = (-at[0], at[1]) >= (-before[0], before[1])
        if newer and (name in self.last or len(self.last) < MAX_LAST_VALUES):
            self.last[name] = at, value


class _Seeds:
    """Seeds by name, and those of each rank."""

    def __init__(self) -> None:
        self.values: dict[str, set[int]] = {}
        self.of_ranks: dict[str, dict[str, set[int]]] = {}

    def take(self, line: _Seed) -> bool:
        """Keep *line*, if there is room."""
        if line.seed not in self.values and len(self.values) == _MAX_SEED_NAMES:
            return False
        known, value, rank = self.values.setdefault(line.seed, set()), int(line.value), line.rank
        if value not in known and len(known) == _MAX_SEEDS_OF_A_NAME:
            return False
        known.add(value)
        if rank is not None:
            own = self.of_ranks.setdefault(line.seed, {})
            if str(rank) in own or len(own) < MAX_LAST_VALUES:
                own.setdefault(str(rank), set()).add(value)
        return True


class _Processes:
    """What the Pythons told, as it is read; a process id means the last that introduced itself."""

    def __init__(self) -> None:
        self.found: list[Process] = []
        self.known: dict[int, int] = {}
        self.reports: Counter[int | None] = Counter()
        self.ended: set[tuple[int | None, int]] = set()
        self.host = 0
        self.files: dict[str, FileState] = {}
        self.written: set[str] = set()
        self.count = self.lost = self.starts = self.states = self.mapped = 0

    def take(self, line: _OfPython) -> None:
        match line:
            case _Read(read=path) if path in self.files or len(self.files) < MAX_FILES:
                state = FileState(line.size, line.mtime_ns, line.ctime_ns)
                self.files.setdefault(path, state)
            case _Wrote(wrote=path) if path in self.written or len(self.written) < MAX_FILES:
                self.written.add(path)
                if line.pid in self.known:
                    self.found[self.known[line.pid]].wrote.add(path)
            case Started() if line.pid in self.known and self.starts < MAX_STARTED:
                self.found[self.known[line.pid]].started.append(line)
                self.starts += 1
            case _State(state=when) if line.pid in self.known and self.states < MAX_STATES:
                states = self.found[self.known[line.pid]].states.setdefault(line.pid, {})
                states.setdefault(when, {}).update(line.values)
                self.states += 1
            case _Libraries(libraries=paths) if line.pid in self.known and self.mapped < MAX_FILES:
                self.found[self.known[line.pid]].libraries.update(paths)
                self.mapped += len(paths)
            case _Lost(lost=lost):
                self.lost += lost
            case _Reports(reports=pid):
                self.reports[self.known.get(pid)] += 1
            case _Ended(pid=pid):
                self.ended.add((self.known.get(pid), pid))
            case _:
                self.lost += 1

    def hear(self, host: int) -> None:
        """Take what follows for that of the *host*: ids are its own."""
        if host != self.host:
            self.known, self.host = {}, host

    def introduce(self, said: Introduction) -> None:
        above = self.known.get(said.parent)
        self.count += 1
        if said.forked and above is not None:
            self.known[said.pid] = above
        elif len(self.found) < MAX_PROCESSES:
            self.known[said.pid] = len(self.found)
            self.found.append(Process(said, above, states={said.pid: {}}, host=self.host))
        else:
            self.lost += 1

    def all(self) -> tuple[Process, ...]:
        return tuple(  # a fork that ended has another id
            replace(it, reported=n in self.reports, ended=(n, it.said.pid) in self.ended)
            for n, it in enumerate(self.found)
        )

    def reads(self) -> Reads:
        files = {Path(normpath(path)): state for path, state in self.files.items()}
        written = frozenset(Path(normpath(path)) for path in self.written)
        return Reads(files, written, min(self.lost, MAX_STEP), self.count)


def merge_seeds(first: str | None, second: str) -> str:
    """Return the seeds *first* and *second*, each one or more integers, as one text."""
    values = {int(value) for text in (first, second) if text for value in text.split(",")}
    return ",".join(map(str, sorted(values)))


def _texts(seeds: Mapping[str, set[int]]) -> dict[str, str]:
    return {name: ",".join(map(str, sorted(values))) for name, values in seeds.items()}


def parse_seed(text: str) -> str | None:
    """Return the integer *text* as the shortest decimal string, or None."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MAX_SEED_DIGITS):
        return None
    return str(int(text))


def _all_lines(directory: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines of each host's file, the recorder's first, with the number of the host."""
    left = MAX_RECORDS_BYTES
    others = sorted(path for path in directory.glob("records-*") if _OF_HOST.fullmatch(path.name))
    for host, path in enumerate([directory / RECORDS, *others[:MAX_HOSTS]]):
        for line in _lines(path, left):
            left -= len(line or b"")
            yield host, line
    yield from ((MAX_HOSTS, None) for _ in others[MAX_HOSTS:])


def _lines(path: Path, left: int) -> Iterator[bytes | None]:
    """Yield the lines of *path* that are not empty, and None for each torn or too long one.

    What is behind *left* bytes is dropped, and counted for as many bytes again.
    """
    # The program may have replaced it with a FIFO or a link to an endless device.
    descriptor, _ = open_file(path)
    try:
        with os.fdopen(descriptor, "rb") as file:
            while left > 0 and (line := file.readline(MAX_LINE_BYTES + 1)):
                left -= len(line)
                if line.endswith(b"\n"):
                    if line != b"\n":
                        yield line
                    continue
                yield None  # torn at the end, or longer than any record
                while left > 0 and line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)
                    left -= len(line)
            for _ in range(-(-MAX_RECORDS_BYTES // 2**20)):  # it may be a hole of terabytes
                chunk = file.read(2**20)
                if number := sum(map(bool, chunk.split(b"\n")[:-1])):
                    yield b'{"dropped":%d}' % number
    except OSError as error:
        raise unreadable(error, str(path)) from error


def _parse(data: bytes) -> _Line | _OfPython | None:
    decoder = _decoders.get(data[2 : data.find(b'"', 2)])
    try:
        return decoder.decode(data) if decoder else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
