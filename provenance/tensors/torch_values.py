"""What a torch checkpoint holds: its tensors, and the plain values beside them, each by its path.

A path is the keys from the outermost collection inwards, joined with ``/``; places in lists and
tuples count from 0. So a state dict's keys are its tensors' names. What is no collection has the
path ``value`` where it is all that was saved. Two values of one path are refused.

**Plain values** are content, and each is one canonical JSON text (RFC 8785), but for numbers:
an integer is its digits, a float the shortest decimal that rounds to it (``1.0``, ``1e-05``,
``-0.0``). What JSON has not is an object of one member:

    {"float":"inf"}  {"float":"-inf"}  {"float":"nan 0x7ff8000000000000"}    a float that is none
    {"complex":[1.0,-0.0]}                                                   each part as above
    {"bytes":"00ff"}                                                         in hexadecimal
    {"numpy.float64":1.0}                                                    a scalar of numpy
    {"torch.device":"cuda:1"}  {"torch.dtype":"float32"}                     as torch shows them

An empty collection is ``{}`` or ``[]``.

**Not content**, and a container fact each: the kinds of collections and of keys
(``torch-container-types``), their order (``torch-entry-order``), whether a tensor is trained or a
parameter (``torch-requires-grad``), and the versions of modules that a state dict carries in its
attribute ``_metadata`` (``torch-module-versions``). Anything else in that attribute is content,
under ``_metadata`` and the module's name.

Limits: 100,000 tensors, 1,000,000 values, 32 levels, 64 MiB of names and texts. So a collection
that is shared very often, or holds itself, is refused.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from provenance.errors import MalformedError, UnreadableError
from provenance.tensors.pickle_program import Global, Made, Reference
from provenance.tensors.torch_tensors import (
    DTYPE_NAMES,
    TENSOR_CALLS,
    TENSOR_GLOBALS,
    StoredTensor,
    rebuild,
)
from provenance.tensors.view import check_count, check_name, fact_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_VALUES: Final = 1_000_000
"""Most collections and values, counted as often as they are reached."""

MAX_DEPTH: Final = 32
"""Deepest nesting, in levels. Checkpoints of trainers have about ten."""

MAX_TEXT: Final = 64 * 2**20
"""Most characters of all names and texts together: a text may be shared a million times."""

ROOT: Final = "value"
"""The path of what is no collection and all that was saved."""

_ORDERED: Final = "collections.OrderedDict"
_COUNTER: Final = "collections.Counter"
_SIZE: Final = "torch.Size"
_DEVICE: Final = "torch.device"
_ENCODE: Final = "_codecs.encode"
_NUMPY_DTYPE: Final = "numpy.dtype"
_NUMPY_SCALARS: Final = frozenset({"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"})
_COMPLEX: Final = frozenset({"__builtin__.complex", "builtins.complex"})
_BYTEARRAYS: Final = frozenset({"__builtin__.bytearray", "builtins.bytearray"})
_NUMPY_CODES: Final = frozenset(
    {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
)
_PLAIN_DTYPE: Final = (None, None, None, -1, -1, 0)

GLOBALS: Final = TENSOR_GLOBALS | _NUMPY_SCALARS | _COMPLEX | _BYTEARRAYS | {
    _ORDERED, _COUNTER, _SIZE, _DEVICE, _ENCODE, _NUMPY_DTYPE,
}  # fmt: skip
"""Every name that a checkpoint may ask for."""

_MEND: Final = "save only tensors and plain values, such as a state dict"


@dataclass(frozen=True, slots=True)
class Content:
    """What was saved."""

    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, str]
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Collection:
    """A collection: its kind, and what it holds."""

    kind: str
    entries: Iterable[tuple[str | int, object]]
    modules: object = None
    """The attribute ``_metadata``."""


def read_content(value: object, *, where: str) -> Content:
    """Return what *value*, described by a pickle, holds.

    Raises:
        MalformedError: torch would not describe it so, or it is beyond a limit.
        UnreadableError: it holds what is not read.
    """
    walk = _Walk(where)
    walk.visit(value, None, 0)
    return Content(tuple(walk.tensors), MappingProxyType(walk.metadata), walk.facts())


class _Walk:
    """Everything found on the way through the collections."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.tensors: list[StoredTensor] = []
        self.metadata: dict[str, str] = {}
        self._paths: dict[str, None] = {}
        self._kinds: list[tuple[str, str, str]] = []
        self._versions: list[tuple[str, str, str]] = []
        self._values = 0
        self._text = 0
        self._open: set[int] = set()

    def visit(self, value: object, path: str | None, depth: int) -> None:
        """Take in *value* and what it holds."""
        self._count()
        if isinstance(value, Made) and str(value.function) in TENSOR_CALLS:
            name = self._take(path)
            self.tensors.append(rebuild(value, name, where=f"{self.where}: {name}"))
            check_count(len(self.tensors), where=self.where)
            return
        found = _collection(value, self.where)
        if found is None:
            self._leaf(value, path)
        else:
            self._enter(value, found, path, depth)

    def _enter(self, value: object, found: _Collection, path: str | None, depth: int) -> None:
        if depth >= MAX_DEPTH or id(value) in self._open:
            raise MalformedError(
                f"nested deeper than {MAX_DEPTH} levels, or in itself", where=self.where
            )
        self._open.add(id(value))
        keys = {type(key).__name__ for key, _ in found.entries}
        self._kinds.append((path or "", found.kind, "+".join(sorted(keys))))
        if not keys:
            self._put(path, "[]" if found.kind in ("list", "tuple", _SIZE) else "{}")
        for key, entry in found.entries:
            self.visit(entry, self._join(path, key), depth + 1)
        if found.modules is not None:
            self._modules(found.modules, path, depth)
        self._open.discard(id(value))

    def _modules(self, value: object, path: str | None, depth: int) -> None:
        """Take in the attribute ``_metadata`` of a state dict: a dictionary for each module."""
        for module, said in self._plain_entries(value):
            self._count()
            for key, entry in self._plain_entries(said):
                if key == "version" and type(entry) is int:
                    self._versions.append((path or "", str(module), str(entry)))
                else:
                    place = self._join(self._join(self._join(path, "_metadata"), module), key)
                    self.visit(entry, place, depth + 3)

    def _plain_entries(self, value: object) -> Iterable[tuple[str | int, object]]:
        found = _collection(value, self.where)
        if found is None or found.kind not in ("dict", _ORDERED) or found.modules is not None:
            raise UnreadableError(
                "the attribute _metadata is not that of a state dict", where=self.where, mend=_MEND
            )
        return found.entries

    def _count(self) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise MalformedError(f"more than {MAX_VALUES} values", where=self.where)

    def _join(self, path: str | None, key: str | int) -> str:
        joined = str(key) if path is None else f"{path}/{key}"
        self._text += len(joined)
        self._check_text()
        return joined

    def _check_text(self) -> None:
        if self._text > MAX_TEXT:
            raise MalformedError(f"names and texts of more than {MAX_TEXT}", where=self.where)

    def _take(self, path: str | None) -> str:
        name = check_name(ROOT if path is None else path, where=self.where)
        if name in self._paths:
            raise MalformedError(f"the path {name!r} stands twice", where=self.where)
        self._paths[name] = None
        return name

    def _put(self, path: str | None, text: str) -> None:
        self._text += len(text)
        self._check_text()
        self.metadata[self._take(path)] = text

    def _leaf(self, value: object, path: str | None) -> None:
        if isinstance(value, str | bytes):  # before its text is made, for the millionth time
            self._text += len(value)
            self._check_text()
        self._put(path, _text(value, self.where if path is None else f"{self.where}: {path}"))

    def facts(self) -> dict[str, str]:
        trained = sorted((t.info.name, t.trained, t.parameter) for t in self.tensors)
        plain = not any(t.trained or t.parameter for t in self.tensors)
        return {
            "torch-entry-order": fact_digest(list(self._paths)),
            "torch-container-types": fact_digest(sorted(self._kinds)),
            "torch-module-versions": fact_digest(sorted(self._versions))
            if self._versions
            else "none",
            "torch-requires-grad": "none" if plain else fact_digest(trained),
        }


def _collection(value: object, where: str) -> _Collection | None:
    """Return what *value* holds, or None if it is no collection."""
    kind = type(value).__name__
    modules = None
    if isinstance(value, Made):
        kind, given = str(value.function), value.arguments
        if kind == _ORDERED and not given:
            modules = _modules_of(value, where)
            value = value.entries
        elif kind in (_COUNTER, _SIZE) and len(given) == 1 and not (value.entries or value.state):
            value = given[0]
    if isinstance(value, dict) and kind != _SIZE:
        return _Collection(kind, value.items(), modules)
    if isinstance(value, list | tuple) and kind != _COUNTER:
        if len(value) > MAX_VALUES:
            raise MalformedError(f"more than {MAX_VALUES} values", where=where)
        return _Collection(kind, tuple(enumerate(value)))
    return None


def _modules_of(value: Made, where: str) -> object:
    if not value.state:
        return None
    (state,) = value.state
    if not isinstance(state, dict) or list(state) != ["_metadata"]:
        raise UnreadableError(
            "a dictionary has attributes other than _metadata", where=where, mend=_MEND
        )
    return state["_metadata"]


def _text(value: object, where: str) -> str:
    """Return the canonical text of a plain value."""
    match value:
        case None | bool():
            text: str | None = json.dumps(value)
        case int():
            text = str(value)
        case float():
            text = _float_text(value)
        case str():
            text = json.dumps(value, ensure_ascii=False)
        case bytes():
            text = _tagged("bytes", f'"{value.hex()}"')
        case Global(module="torch", name=name) if name in DTYPE_NAMES:
            text = _tagged("torch.dtype", f'"{name}"')
        case Made(entries=entries, state=state) if not entries and not state:
            text = _made_text(value, where)
        case _:
            text = None
    if text is None:
        what = value.function if isinstance(value, Made) else value
        shown = "a storage without a tensor" if isinstance(what, Reference) else f"{what}"
        raise UnreadableError(f"{shown} is not read as a value", where=where, mend=_MEND)
    return text


def _tagged(kind: str, text: str) -> str:
    return f'{{"{kind}":{text}}}'


def _float_text(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    return _tagged("float", f'"nan {bits:#018x}"' if math.isnan(value) else f'"{value}"')


def _made_text(made: Made, where: str) -> str | None:
    """Return the text of what a call makes, or None if it is not read."""
    kind = str(made.function)
    text = None
    match made.arguments:
        case (str() as device,) if kind == _DEVICE:
            text = _tagged(kind, json.dumps(device, ensure_ascii=False))
        case (str() as device, int() as index) if kind == _DEVICE:
            text = _tagged(kind, json.dumps(f"{device}:{index}", ensure_ascii=False))
        case (float() as real, float() as imaginary) if kind in _COMPLEX:
            text = _tagged("complex", f"[{_float_text(real)},{_float_text(imaginary)}]")
        case (dtype, raw) if kind in _NUMPY_SCALARS:
            text = _scalar_text(dtype, _bytes(raw), where)
        case () if kind in _BYTEARRAYS:
            text = _tagged("bytes", '""')
        case (raw,) if kind in _BYTEARRAYS and (data := _bytes(raw)) is not None:
            text = _tagged("bytes", f'"{data.hex()}"')
        case _ if kind == _ENCODE and (data := _bytes(made)) is not None:
            text = _tagged("bytes", f'"{data.hex()}"')
    return text


def _bytes(value: object) -> bytes | None:
    """Return the bytes that *value* is, or that protocol 2 spells as text in Latin-1."""
    match value:
        case bytes():
            return value
        case Made(function=function, arguments=(str() as text, "latin1"), entries={}, state=[]):
            if str(function) == _ENCODE and not value.entries and all(c < "\u0100" for c in text):
                return text.encode("latin-1")
    return None


def _scalar_text(dtype: object, data: bytes | None, where: str) -> str | None:
    """Return the text of a scalar of numpy, of its type and its bytes."""
    if data is None or not isinstance(dtype, Made) or str(dtype.function) != _NUMPY_DTYPE:
        return None
    code = dtype.arguments[0] if dtype.arguments else None
    state = dtype.state[0] if dtype.state else None
    if not isinstance(code, str) or code not in _NUMPY_CODES or not isinstance(state, tuple):
        return None
    # numpy's dtype.__setstate__: version, byte order, and six fields that plain types have not.
    if state[:1] != (3,) or state[2:] != _PLAIN_DTYPE or state[1] not in ("<", ">", "|"):
        return None
    plain = np.dtype(f"{state[1]}{code}")
    if len(data) != plain.itemsize:
        raise MalformedError("a scalar of numpy is not of its size", where=where)
    return _tagged(f"numpy.{plain.name}", _text(np.frombuffer(data, plain)[0].item(), where))
