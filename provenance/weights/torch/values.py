"""What a torch checkpoint holds: its tensors, and the plain values beside them, each by its path.

``docs/spec/equality.md`` section 7, "Torch", has the texts of values, the structure, and what is
not content. A collection that is shared very often, or contains itself, is beyond the limits below.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.dtypes import NUMPY
from provenance.weights.torch.pickle_program import HINT, Global, Made, Reference
from provenance.weights.torch.tensors import (
    DTYPE_NAMES,
    LAYOUT,
    NAMES,
    TENSOR_CALLS,
    TENSOR_GLOBALS,
    StoredTensor,
    parts,
    rebuild,
)
from provenance.weights.view import check_count, check_name, describe, fact_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from provenance.loaders.keys import Path

MAX_VALUES: Final = 1_000_000
"""Most collections and values, counted as often as they are reached."""

MAX_DEPTH: Final = 32
"""Deepest nesting, in levels. Checkpoints of trainers have about ten."""

MAX_TEXT: Final = 64 * 2**20
"""Most characters of all names and texts together: a text may be shared a million times."""

ROOT: Final = "value"
"""The path of a single tensor or value."""

STRUCTURE: Final = "_structure"
"""The path of the structure of what is not flat."""

_MAX_BITS: Final = 8192
"""Widest integer in decimal digits, of which Python writes 4300; objects may have wider ones."""

_LEAF: Final = "*"
_FOLDER: Final = "${dirpath}"
_VERSIONS: Final = (1, 2)

_ORDERED: Final = "collections.OrderedDict"
_COUNTER: Final = "collections.Counter"
_SIZE: Final = "torch.Size"
_DICTS: Final = frozenset({"dict", _ORDERED})
_LISTS: Final = frozenset({"list", "tuple", _SIZE})

_DEVICE: Final = "torch.device"
_ENCODE: Final = "_codecs.encode"
_NUMPY_DTYPE: Final = "numpy.dtype"
_NUMPY_SCALARS: Final = frozenset({"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"})
_ARRAYS: Final = frozenset(
    {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
)
_BYTES: Final = frozenset({"__builtin__.bytes", "builtins.bytes"})
SETS: Final = frozenset(
    f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset")
)
_UNORDERED: Final = frozenset({str, int, bytes, type(None)})
"""Kinds of elements of a set of which two are equal only if their texts are."""

_COMPLEX: Final = frozenset({"__builtin__.complex", "builtins.complex"})
BYTEARRAYS: Final = frozenset({"__builtin__.bytearray", "builtins.bytearray"})
_NUMPY_CODES: Final = frozenset(code[1:] for code in NUMPY.values() if "c" not in code)

GLOBALS: Final = (
    TENSOR_GLOBALS | _NUMPY_SCALARS | _ARRAYS | _COMPLEX | BYTEARRAYS | _BYTES | SETS
    | {_DEVICE, _ENCODE, _NUMPY_DTYPE, "numpy.ndarray", _ORDERED, _COUNTER, _SIZE}
)  # fmt: skip
"""Every name that a checkpoint may ask for."""


@dataclass(frozen=True, slots=True)
class Content:
    """What was saved."""

    tensors: tuple[StoredTensor, ...]
    arrays: Mapping[str, NDArray[Any]]
    """Arrays of numpy, which are in the pickle itself."""
    metadata: Mapping[str, str]
    paths: Mapping[str, Path]
    """Every path, by its name, in the order of the entries."""
    sets: list[str]
    """The order of the elements of each set."""
    types: list[tuple[str, str]]
    """The kind of each collection and the version of each module, by path."""


class _Collection(NamedTuple):
    """A collection, or a tensor in parts: its kind, its entries, and its ``_metadata``."""

    kind: str
    entries: Iterable[tuple[str | int, object]]
    modules: object = None


def read_content(value: object, *, where: str) -> Content:
    """Return what *value*, described by a pickle, holds."""
    walk = _Contents(where)
    structure = walk.visit(value, (), 0)
    if not walk.flat:
        walk.put((STRUCTURE,), structure)
    return Content(
        tuple(walk.tensors),
        walk.arrays,
        walk.metadata,
        walk.paths,
        walk.sets,
        sorted(walk.types),
    )


class Walk:
    """A walk through values, within the limits."""

    def __init__(self, where: str) -> None:
        """Begin; errors say *where*."""
        self.where = where
        self._values = 0
        self._text = 0
        self._open: set[int] = set()

    def count(self, value: object) -> None:
        """Take *value* into account, and the elements of a set."""
        elements = set_elements(value) if isinstance(value, Made) else None
        self._values += 1 + (len(elements[1]) if elements is not None else 0)
        if self._values > MAX_VALUES:
            raise MalformedError(f"more than {MAX_VALUES} values", where=self.where)

    def count_text(self, length: int) -> None:
        """Take a text of *length* characters into account."""
        self._text += length
        if self._text > MAX_TEXT:
            raise MalformedError(f"names and texts of more than {MAX_TEXT}", where=self.where)

    def enter(self, value: object) -> None:
        """Go into *value*, which holds others, until it is left."""
        if len(self._open) >= MAX_DEPTH or id(value) in self._open:
            what = f"nested deeper than {MAX_DEPTH} levels, or in itself"
            raise MalformedError(what, where=self.where)
        self._open.add(id(value))

    def leave(self, value: object) -> None:
        """Go out of *value*."""
        self._open.discard(id(value))


class _Contents(Walk):
    """A walk through the collections, and what it has found."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.tensors: list[StoredTensor] = []
        self.arrays: dict[str, NDArray[Any]] = {}
        self.metadata: dict[str, str] = {}
        self.paths: dict[str, Path] = {}
        self.types: list[tuple[str, str]] = []
        self.sets: list[str] = []
        self.flat = True

    def visit(self, value: object, path: Path, depth: int) -> str:
        """Take in *value* and what it holds; return its nesting."""
        self.count(value)
        found = _collection(value, self.where)
        if found is not None:
            return self._enter(value, found, path, depth)
        self.flat &= depth > 0
        if isinstance(value, Made) and str(value.function) in _ARRAYS:
            name = self._take(path)
            array = self._array(value, f"{self.where}: {name}")
            self.types.append((name, f"{array.dtype.str} {array.flags.c_contiguous}"))
            self.arrays[name] = array
            return _LEAF
        if isinstance(value, Made) and str(value.function) in TENSOR_CALLS:
            name = self._take(path)
            self.tensors.append(rebuild(value, name, where=f"{self.where}: {name}"))
            check_count(len(self.tensors), where=self.where)
            return _LEAF
        if isinstance(value, str | bytes):  # before its text is made, for the millionth time
            self.count_text(len(value))
        if isinstance(value, Made) and (elements := set_elements(value)) is not None:
            self.sets.append(fact_digest(elements[1]))
        self.put(path, plain_text(value, f"{self.where}: {_name(path)}" if path else self.where))
        return _LEAF

    def _enter(self, value: object, found: _Collection, path: Path, depth: int) -> str:
        self.enter(value)
        self.types.append(("/".join(map(str, path)), found.kind))
        steps = int if found.kind in _LISTS else str
        arrays = len(self.tensors) + len(self.arrays)
        inside = [
            (key, self.visit(entry, self._join(path, steps(key)), depth + 1))
            for key, entry in found.entries
        ]
        modules = [] if found.modules is None else self._modules(found.modules, path, depth)
        self.leave(value)
        if not inside:
            self.put(path, "[]" if found.kind in _LISTS else "{}")
        self.flat &= depth == 0 and found.kind in _DICTS and not modules
        self.flat &= all(type(key) is str for key, _ in inside)
        if found.kind in _LISTS:
            return f"[{','.join(nested for _, nested in inside)}]"
        attribute = f"@{_braces(modules)}" if modules else ""
        name = "" if found.kind in _DICTS else found.kind.rpartition(".")[2]
        plain = arrays == len(self.tensors) + len(self.arrays)
        return f"{name}{_braces(inside, ordered=plain)}{attribute}"

    def _modules(self, value: object, path: Path, depth: int) -> list[tuple[str | int, str]]:
        """Take in a state dict's ``_metadata``: a dictionary for each module."""
        found: list[tuple[str | int, str]] = []
        for module, entries in self._plain_entries(value):
            self.count(module)
            version, inside = "absent", []
            for key, entry in self._plain_entries(entries):
                if key == "version" and type(entry) is int and entry in _VERSIONS:
                    version = str(entry)
                else:
                    place = self._join(path, "_metadata", str(module), str(key))
                    inside.append((key, self.visit(entry, place, depth + 3)))
            self.types.append((_name(self._join(path, f"@{module}")), version))
            if inside:
                found.append((module, _braces(inside)))
        return found

    def _plain_entries(self, value: object) -> Iterable[tuple[str | int, object]]:
        found = _collection(value, self.where)
        if found is None or found.kind not in _DICTS or found.modules is not None:
            what = "the attribute _metadata is not that of a state dict"
            raise UnreadableError(what, where=self.where, hint=HINT)
        return found.entries

    def _array(self, made: Made, where: str) -> NDArray[Any]:
        """Return the array of numpy that a call and its state describe."""
        match made:
            case Made(
                arguments=(Global("numpy", "ndarray"), (0,), start),
                entries={},
                state=[(1, tuple() as sizes, dtype, bool() as fortran, raw)],
            ) if as_bytes(start) == b"b":
                plain, data = _plain_dtype(dtype), as_bytes(raw)
            case _:
                raise MalformedError("an array is described as numpy does not", where=where)
        if plain is None or data is None:
            raise UnreadableError("an array of other elements than numbers", where=where, hint=HINT)
        shape = describe(where, "U8", (*sizes, plain.itemsize), where=where).shape[:-1]
        if math.prod(shape) * plain.itemsize != len(data):
            raise MalformedError("the size of an array of numpy is wrong", where=where)
        self.count_text(len(data))
        return np.frombuffer(data, plain).reshape(shape, order="F" if fortran else "C")

    def _join(self, path: Path, *steps: str | int) -> Path:
        joined = (*path, *steps)
        self.count_text(sum(len(str(step)) + 1 for step in joined))
        return joined

    def _take(self, path: Path) -> str:
        name = check_name(_name(path), where=self.where)
        if name in self.paths:
            raise MalformedError(f"duplicate path {name!r}", where=self.where)
        self.paths[name] = path
        return name

    def put(self, path: Path, text: str) -> None:
        self.count_text(len(text))
        self.metadata[self._take(path)] = text


def _name(path: Path) -> str:
    return "/".join(map(str, path)) if path else ROOT


def _braces(entries: list[tuple[str | int, str]], *, ordered: bool = False) -> str:
    members = [
        f"{json.dumps(key, ensure_ascii=False) if isinstance(key, str) else key}:{nested}"
        for key, nested in entries
    ]
    return f"{{{','.join(members if ordered else sorted(members))}}}"


def _collection(value: object, where: str) -> _Collection | None:
    """Return what *value* holds, or None if it is not a collection."""
    kind = type(value).__name__
    modules = None
    if isinstance(value, Made):
        kind, given = str(value.function), value.arguments
        if kind == _ORDERED and not given:
            for state in value.state:
                if not isinstance(state, dict) or list(state) != ["_metadata"]:
                    what = "a dictionary has attributes other than _metadata"
                    raise UnreadableError(what, where=where, hint=HINT)
                modules = state["_metadata"]
            value = value.entries
        elif kind in (_COUNTER, _SIZE) and len(given) == 1 and value.bare:
            value = given[0]
        elif (named := parts(value, where=where)) is not None:
            value = named
    if isinstance(value, dict) and kind != _SIZE:
        return _Collection(kind, _from_folder(value).items(), modules)
    if isinstance(value, list | tuple) and kind != _COUNTER:
        if len(value) > MAX_VALUES:
            raise MalformedError(f"more than {MAX_VALUES} values", where=where)
        return _Collection(kind, enumerate(value))
    return None


def _from_folder(state: dict[Any, object]) -> dict[Any, object]:
    """Return *state* with the keys of best models spelled from the folder that it states too."""
    match state:
        case {"dirpath": str(folder), "best_k_models": dict(best)} if folder and all(
            type(key) is str and not key.startswith(_FOLDER) for key in best
        ):
            below = f"{folder}/"
            spelled = {
                _FOLDER + key.removeprefix(folder) if key.startswith(below) else key: score
                for key, score in best.items()
            }
            return {**state, "best_k_models": spelled}
    return state


def plain_text(value: object, where: str) -> str:
    """Return the canonical text of a plain value."""
    match value:
        case None | bool():
            text: str | None = json.dumps(value)
        case int():
            wide = value.bit_length() > _MAX_BITS
            text = tagged("int", f'"{value:#x}"') if wide else str(value)
        case float():
            text = _float_text(value)
        case str():
            text = json.dumps(value, ensure_ascii=False)
        case bytes():
            text = tagged("bytes", f'"{value.hex()}"')
        case Global(module="torch", name=name) if name in DTYPE_NAMES:
            text = tagged("torch.dtype", f'"{name}"')
        case Global() if str(value) in NAMES:
            text = tagged("global", f'"{value}"')
        case Made(bare=True):
            text = call_text(value, where)
        case _:
            text = None
    if text is None:
        what = value.function if isinstance(value, Made) else value
        shown = "a storage without a tensor" if isinstance(what, Reference) else f"{what}"
        raise UnreadableError(f"{shown} is not read as a value", where=where, hint=HINT)
    return text


def tagged(kind: str, text: str) -> str:
    """Return *text* as the one member, *kind*, of an object."""
    return f'{{"{kind}":{text}}}'


def _float_text(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    return tagged("float", f'"nan {bits:#018x}"' if math.isnan(value) else f'"{value}"')


def call_text(made: Made, where: str) -> str | None:
    """Return the text of what a call makes, or None if it is not read."""
    kind = str(made.function)
    match made.arguments:
        case (str() as text,) if kind in (_DEVICE, LAYOUT):
            return tagged(kind, json.dumps(text, ensure_ascii=False))
        case (str() as device, int() as index) if kind == _DEVICE:
            shown = f"{device}:{plain_text(index, where)}"
            return tagged(kind, json.dumps(shown, ensure_ascii=False))
        case (float() as real, float() as imaginary) if kind in _COMPLEX:
            return tagged("complex", f"[{_float_text(real)},{_float_text(imaginary)}]")
        case (dtype, raw) if kind in _NUMPY_SCALARS:
            return _scalar_text(dtype, as_bytes(raw), where)
        case (list(),) if (found := set_elements(made)) is not None:
            return tagged(kind.rpartition(".")[2], f"[{','.join(found[0])}]")
        case () if kind in BYTEARRAYS:
            data: bytes | None = b""
        case (raw,) if kind in BYTEARRAYS:
            data = as_bytes(raw)
        case _:
            data = as_bytes(made)
    return None if data is None else tagged("bytes", f'"{data.hex()}"')


def set_elements(made: Made) -> tuple[list[str], list[int]] | None:
    """Return the texts of the elements of a set, sorted, and their places in the order given.

    None if it is no set, or one whose order could matter: of two elements that are equal, as 1 and
    true are, it keeps the first.
    """
    if str(made.function) not in SETS or not made.bare or len(made.arguments) != 1:
        return None
    elements = made.arguments[0]
    if not isinstance(elements, list) or not {*map(type, elements)} <= _UNORDERED:
        return None
    once = {id(each): each for each in elements}  # a text may be shared a million times
    spelled = {key: plain_text(each, "") for key, each in once.items()}
    texts = sorted({*spelled.values()})
    places = {text: place for place, text in enumerate(texts)}
    return texts, [places[spelled[id(each)]] for each in elements]


def as_bytes(value: object) -> bytes | None:
    """Return the bytes that *value* is, or that protocol 2 writes as Latin-1 text."""
    match value:
        case bytes():
            return value
        case Made(function=function, arguments=(str() as text, "latin1"), bare=True):
            if str(function) == _ENCODE and all(c < "\u0100" for c in text):
                return text.encode("latin-1")
        case Made(function=function, arguments=(), bare=True) if str(function) in _BYTES:
            return b""
    return None


def _scalar_text(dtype: object, data: bytes | None, where: str) -> str | None:
    """Return the text of a numpy scalar, or None if it is not read."""
    plain = _plain_dtype(dtype)
    if plain is None or data is None:
        return None
    if len(data) != plain.itemsize:
        raise MalformedError("the size of a numpy scalar is wrong", where=where)
    return tagged(f"numpy.{plain.name}", plain_text(np.frombuffer(data, plain)[0].item(), where))


def _plain_dtype(dtype: object) -> np.dtype[Any] | None:
    """Return the type of numpy that a call and its state describe, if it is one of numbers."""
    # numpy's dtype.__setstate__: version, byte order, and six fields that plain types have not.
    match dtype:
        case Made(
            function=function,
            arguments=(str() as code, *rest),
            entries={},
            items=[],
            state=[(3, "<" | ">" | "|" as order, None, None, None, -1, -1, 0)],
        ) if str(function) == _NUMPY_DTYPE and code in _NUMPY_CODES and rest in ([], [False, True]):
            return np.dtype(f"{order}{code}")
    return None
