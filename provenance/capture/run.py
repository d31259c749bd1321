"""What a training program reports about itself under ``provenance record``.

The environment variable ``PROVENANCE_RUN`` names a folder, the *run directory*, which contains
``records.jsonl``. Every process of the training appends records to it, one JSON object a line::

    {"metric":"loss","value":0.25,"step":10}
    {"seed":"numpy","value":"20260729","rank":1}
    {"checkpoint":"/runs/model/checkpoint-10","step":10}
    {"digest":"initialWeights","sha256":"…","count":148}
    {"arguments":"TrainingArguments","values":{"learning_rate":0.001, …}}
    {"dropped":3}
    {"reports":4711}

A value that JSON cannot hold is a string: ``"NaN"``, ``"Infinity"``, ``"-Infinity"``. A seed is a
decimal string, because it may exceed 2^53. ``rank`` and, after a restart of torchrun, ``restart``
are of the process, by the variables of its launcher (:data:`LAUNCHERS`). ``dropped`` counts records
that this process could not write. ``reports`` is each process's first record, with its id: of
several Pythons, the one that reports trains. Each record begins and ends with a line feed, so a
torn one damages no other. What :mod:`provenance.capture.python.inside` tells stands between them.

Three promises to the program:

- Nothing here raises, but for what a signal's handler raises in it. What cannot be kept (full disk,
  not a number) is counted.
- Processes and threads need no lock: each record is one ``write`` of at most
  :data:`MAX_RECORD_BYTES` to a file opened for appending. NFS does not support this, so each
  other host has a file of its own, ``records-`` and its name in hexadecimal, which the start-up
  folder makes.
- No file stays open between records: in a program that closes all descriptors, as daemons do, our
  records would end up in the file that it opens next.

Only ``os`` is imported up front, so that ``import provenance`` is cheap.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, SupportsFloat, SupportsIndex

VARIABLE = "PROVENANCE_RUN"
"""The environment variable that names the run directory."""

RECORDS = "records.jsonl"
"""The file in the run directory."""

MAX_RECORD_BYTES = 4096
"""Longest record, in bytes: a page, which every local file system appends in one piece."""

MAX_NAME_BYTES, MAX_SEED_BITS, MAX_STEP = 256, 4096, 2**53 - 1
"""Longest name of a metric or a seed, in bytes of UTF-8; widest seed (128 bits are usual); largest
step: the largest integer that is exact in every JSON reader."""

LAUNCHERS = {
    "torch": ("RANK", "WORLD_SIZE"),  # torchrun, accelerate, or by hand
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

MAX_HASHED_BYTES, MAX_ITEMS, MAX_ARGUMENTS, MAX_TEXT, MAX_SHOWN = 2**36, 2**24, 2048, 512, 64
"""Most bytes of tensors in one digest, places in an order, values of one set of arguments,
characters of a text among them and of its name."""

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class Run:
    """The run that this process belongs to. Its methods never raise."""

    __slots__ = ("_dropped", "_names", "_path", "_process", "_told")

    def __init__(self, directory: str | None) -> None:
        """Append to the records in *directory*; None: keep nothing."""
        self._path = None if directory is None else records_in(directory)
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

        def record() -> str:
            number = float(value)
            if number != number:  # noqa: PLR0124 - NaN, without importing math
                text = '"NaN"'
            elif number in (_INFINITY, -_INFINITY):
                text = '"Infinity"' if number > 0 else '"-Infinity"'
            else:
                text = float.__repr__(number)
            return f'{{"metric":{self._quoted(name)},"value":{text}{_at(step)}{_place()}}}'

        self._tell(record)

    def seed(self, name: str, value: SupportsIndex) -> None:
        """Record that the random generator *name* was seeded with the integer *value*."""

        def record() -> str:
            number = value.__index__()
            if number.bit_length() > MAX_SEED_BITS:
                raise OverflowError
            return f'{{"seed":{self._quoted(name)},"value":"{number}"{_place()}}}'

        self._tell(record)

    def checkpoint(self, path: str | os.PathLike[str], step: SupportsIndex | None = None) -> None:
        """Record that the checkpoint *path*, a file or folder, is written in full."""

        def record() -> str:
            place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - as above
            return f'{{"checkpoint":{_json(place)}{_at(step)}{_place()}}}'

        self._tell(record)

    def initial_weights(self, tensors: Any, step: SupportsIndex | None = None) -> None:  # noqa: ANN401 - of any framework
        """Record the digest of the weights with which training begins.

        *tensors* are a model of torch or keras, or tensors in mappings and sequences. They are
        hashed here, as docs/spec/training.md says; those on a GPU are copied, one at a time.
        """
        self._tell(lambda: _digest("initialWeights", "", _of_tensors(tensors), step))

    def data_order(self, indices: Any, step: SupportsIndex | None = None) -> None:  # noqa: ANN401 - as above
        """Record the digest of the order in which examples are used.

        *indices* are integers, or batches of them, in a list, range or array; or the SHA-256 of
        something that tells the order. A sampler is not asked: that would draw.
        """
        self._tell(lambda: _digest("dataOrder", "", _of_order(indices), step))

    def probe(self, name: str, outputs: Any, step: SupportsIndex | None = None) -> None:  # noqa: ANN401 - as above
        """Record the digest of what the model answers to inputs that *name* stands for."""
        self._tell(
            lambda: _digest("probe", f',"of":{self._quoted(name)}', _of_tensors(outputs), step)
        )

    def arguments(self, values: Any) -> None:  # noqa: ANN401 - a namespace, mapping or dataclass
        """Record what a training was told: a namespace, a mapping, a dataclass, a configuration.

        Nested names are joined with dots. A text whose name calls it secret is left out here, and
        what else is secret before anything is signed. Of several ranks, the first tells.
        """
        place = place_of(os.environ)
        if place is None or place[1] == 0:
            self._tell(lambda: _arguments(values))

    def _tell(self, make: Callable[[], str]) -> None:
        if self._path is None:
            return
        try:
            records = make().split("\n")
        except Exception as error:
            if is_of_signal(error):
                raise
            self._drop()  # what is foreign may raise anything
            return
        for record in records:
            self._append(record)

    def _quoted(self, name: str) -> str:
        quoted = self._names.get(name)
        if quoted is None:
            if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
                raise ValueError
            quoted = _json(name)
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


def _json(value: Any) -> str:  # noqa: ANN401 - a JSON value
    import json  # noqa: PLC0415 - see the docstring

    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _at(step: SupportsIndex | None) -> str:
    if step is None:
        return ""
    position = step.__index__()
    if not -MAX_STEP <= position <= MAX_STEP:
        raise OverflowError
    return f',"step":{position}'


# Digests: docs/spec/training.md has the form that is hashed.


def _digest(kind: str, of: str, digest: tuple[str, int], step: SupportsIndex | None) -> str:
    numbers = f',"count":{digest[1]}{_at(step)}{_place()}'
    return f'{{"digest":"{kind}","sha256":"{digest[0]}"{of}{numbers}}}'


def _of_tensors(value: Any) -> tuple[str, int]:  # noqa: ANN401 - of any framework
    """Return the digest of the tensors in *value*, and how many they are."""
    import hashlib  # noqa: PLC0415 - see the docstring

    state = getattr(value, "state_dict", None)
    if callable(state):
        value = state()
    elif not hasattr(value, "shape") and isinstance(getattr(value, "weights", None), list):  # keras
        value = {getattr(each, "path", number): each for number, each in enumerate(value.weights)}
    tensors = dict(_flat(value, ""))
    hasher, left = hashlib.sha256(), MAX_HASHED_BYTES
    for name in sorted(tensors):
        kind, shape, data = _tensor(tensors[name])
        hasher.update(f"{_json([name, kind, shape])}\n".encode())
        hasher.update(data)
        left -= len(data)
        if left < 0:
            raise OverflowError
    if not tensors:
        raise ValueError
    return hasher.hexdigest(), len(tensors)


def _tensor(value: Any) -> tuple[str, list[int], Any]:  # noqa: ANN401 - as above
    """Return type, shape and bytes of a tensor, of its own shard if it is in several processes."""
    import sys  # noqa: PLC0415 - see the docstring

    if isinstance(value, (bool, int, float, str, bytes)) and not hasattr(value, "dtype"):
        data = value if isinstance(value, bytes) else _json(value).encode()
        return type(value).__name__, [len(data)], data
    if hasattr(value, "detach"):
        local = value.to_local() if hasattr(value, "to_local") else value
        flat = local.detach().cpu().contiguous().reshape(-1).view(sys.modules["torch"].uint8)
        return str(value.dtype).rpartition(".")[2], list(value.shape), memoryview(flat.numpy())
    numpy: Any = sys.modules["numpy"]
    array = numpy.ascontiguousarray(value)
    if array.dtype.hasobject:
        raise TypeError
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    shape = list(numpy.shape(value))  # ascontiguousarray makes a list of a scalar
    return array.dtype.name, shape, memoryview(array.reshape(-1).view(numpy.uint8))


def _of_order(value: Any) -> tuple[str, int]:  # noqa: ANN401 - as above
    """Return the digest of the order *value*, and how many places it has (0: it is a digest)."""
    import hashlib  # noqa: PLC0415 - see the docstring

    if isinstance(value, str):
        if len(value) != _HEX_LENGTH or set(value) - set("0123456789abcdef"):
            raise ValueError
        return value, 0
    if len(value) > MAX_ITEMS:
        raise OverflowError
    if not isinstance(value, (list, tuple, range)):
        value = value.tolist()  # numpy, torch, array
    hasher = hashlib.sha256()
    for item in value:
        items = item.tolist() if hasattr(item, "tolist") else item
        batch = isinstance(items, (list, tuple))
        place = [each.__index__() for each in items] if batch else items.__index__()
        hasher.update(f"{_json(place)}\n".encode())
    return hasher.hexdigest(), len(value)


# Arguments.


def _arguments(values: Any) -> str:  # noqa: ANN401 - as of Run.arguments
    """Return the records of the arguments *values*, each short enough."""
    name = "arguments" if hasattr(values, "items") else _cut(type(values).__name__, 64)
    before = f'{{"arguments":{_json(name)},"values":{{'
    records: list[list[str]] = [[]]
    size = len(before)
    for number, (key, value) in enumerate(_flat(_mapping(values), "")):
        if number == MAX_ARGUMENTS:
            raise OverflowError
        field = f"{_json(_cut(key, MAX_SHOWN))}:{_scalar(key, value)}"
        if size + len(field) > MAX_RECORD_BYTES - _ROOM:
            records.append([])
            size = len(before)
        records[-1].append(field)
        size += len(field) + 1
    return "\n".join(f"{before}{','.join(fields)}}}}}" for fields in records)


def _mapping(values: Any) -> Any:  # noqa: ANN401 - as of Run.arguments
    if hasattr(values, "items"):
        return values
    for method in ("to_dict", "model_dump"):  # transformers (without its tokens), pydantic
        if callable(getattr(values, method, None)):
            return getattr(values, method)()
    fields = getattr(values, "__dataclass_fields__", None)
    return vars(values) if fields is None else {name: getattr(values, name) for name in fields}


def _flat(values: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - as above
    """Yield what is in nested mappings and sequences, by dotted names."""
    if hasattr(values, "items") and not hasattr(values, "shape"):
        items = values.items()
    elif isinstance(values, (list, tuple)):
        items = enumerate(values)
    else:
        yield name, values
        return
    if depth == _MAX_DEPTH:
        raise RecursionError
    for key, value in items:
        yield from _flat(value, f"{name}.{key}" if name else str(key), depth + 1)


def _scalar(name: str, value: Any) -> str:  # noqa: ANN401 - as above
    """Return the argument *value* in JSON."""
    value = getattr(value, "value", value)  # of an enumeration
    if value is None or isinstance(value, bool):
        return _json(value)
    if isinstance(value, int):
        return _json(int(value) if abs(value) <= MAX_STEP else str(value)[:MAX_TEXT])
    if isinstance(value, float):
        return _json(value if value - value == 0 else str(value))  # not NaN, not infinite
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    text = value if isinstance(value, str) else f"<{type(value).__qualname__}>"
    from provenance.capture.secrecy.secrets import kind_of_name  # noqa: PLC0415 - see the docstring

    if text and kind_of_name(name):
        text = "${redacted:argument}"
    return _json(_cut(text, MAX_TEXT))


def _cut(text: str, length: int) -> str:
    return text.encode("utf-8", "backslashreplace").decode()[:length]


_INFINITY = float("inf")
_ROOM = 64
_HEX_LENGTH = 64
_MAX_DEPTH = 16
_KEPT_NAMES = 1024
_runs: dict[str | None, Run] = {}


def current_run() -> Run:
    """Return the run that this process belongs to; without a recorder it keeps nothing."""
    directory = os.environ.get(VARIABLE) or None
    run = _runs.get(directory)
    if run is None:
        run = _runs.setdefault(directory, Run(directory))
    return run


def records_in(directory: str) -> str:
    """Return the file of this host in *directory*, the common one if it has none of its own."""
    own = f"{directory}/records-{os.fsencode(os.uname().nodename).hex()}.jsonl"
    return own if os.path.exists(own) else f"{directory}/{RECORDS}"  # noqa: PTH110 - pathlib costs 10 ms


def place_of(environ: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Return launcher, rank and size of the world by *environ*; None: it is one process alone."""
    for launcher, names in LAUNCHERS.items():
        if names[0] in environ:
            rank, size = (number_of(environ.get(name, "")) for name in names)
            if -1 < rank < size <= MAX_RANKS:
                return (launcher, rank, size) if size > 1 else None
    return None


def _place() -> str:
    """Return the fields that say which process of a distributed run this is."""
    place, restart = place_of(os.environ), number_of(os.environ.get(RESTARTS, ""))
    rank = f',"rank":{place[1]}' if place else ""
    return f'{rank},"restart":{restart}' if restart > 0 else rank


def number_of(text: str) -> int:
    """Return the number *text*; -1: it is none, or a long one."""
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
    except Exception as error:
        if is_of_signal(error):
            raise
        return False  # a program's audit hook may raise anything
    return written == len(data)


def is_of_signal(error: BaseException) -> bool:
    """Tell whether a signal's handler raised *error*: its frame was given the one that it broke."""
    trace = error.__traceback__
    while trace is not None and not isinstance(error, KeyboardInterrupt):
        frame, trace = trace.tb_frame, trace.tb_next
        for given in frame.f_locals.values():
            each = given if given.__class__ is tuple else (given,)  # *args
            if frame.f_back is not None and any(one is frame.f_back for one in each):
                return True
    return isinstance(error, KeyboardInterrupt)
