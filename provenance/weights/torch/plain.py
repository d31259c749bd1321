"""The plain values of a torch checkpoint, each as one canonical text.

JSON (RFC 8785), but for numbers: an integer is its digits, a float the shortest decimal that rounds
to it (``1.0``, ``1e-05``, ``-0.0``). What JSON lacks is an object of one member:

    {"float":"inf"}  {"float":"-inf"}  {"float":"nan 0x7ff8000000000000"}    not a finite number
    {"complex":[1.0,-0.0]}                                                   each part as above
    {"bytes":"00ff"}                                                         in hexadecimal
    {"numpy.float64":1.0}                                                    a scalar of numpy
    {"torch.device":"cuda:1"}  {"torch.dtype":"float32"}                     as torch shows them
"""

from __future__ import annotations

import json
import math
import struct
from typing import Final

import numpy as np

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.dtypes import NUMPY
from provenance.weights.torch.pickle_program import HINT, Global, Made, Reference
from provenance.weights.torch.tensors import DTYPE_NAMES

_DEVICE: Final = "torch.device"
_ENCODE: Final = "_codecs.encode"
_NUMPY_DTYPE: Final = "numpy.dtype"
_NUMPY_SCALARS: Final = frozenset({"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"})
_COMPLEX: Final = frozenset({"__builtin__.complex", "builtins.complex"})
_BYTEARRAYS: Final = frozenset({"__builtin__.bytearray", "builtins.bytearray"})
_NUMPY_CODES: Final = frozenset(code[1:] for code in NUMPY.values() if "c" not in code)

PLAIN_GLOBALS: Final = _NUMPY_SCALARS | _COMPLEX | _BYTEARRAYS | {_DEVICE, _ENCODE, _NUMPY_DTYPE}
"""The names that a plain value may ask for, but for those of element types."""


def plain_text(value: object, where: str) -> str:
    """Return the canonical text of a plain value.

    Raises:
        MalformedError: the size of a numpy scalar is wrong.
        UnreadableError: values of its kind are not read.
    """
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
        raise UnreadableError(f"{shown} is not read as a value", where=where, hint=HINT)
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
    match made.arguments:
        case (str() as device,) if kind == _DEVICE:
            return _tagged(kind, json.dumps(device, ensure_ascii=False))
        case (str() as device, int() as index) if kind == _DEVICE:
            return _tagged(kind, json.dumps(f"{device}:{index}", ensure_ascii=False))
        case (float() as real, float() as imaginary) if kind in _COMPLEX:
            return _tagged("complex", f"[{_float_text(real)},{_float_text(imaginary)}]")
        case (dtype, raw) if kind in _NUMPY_SCALARS:
            return _scalar_text(dtype, _bytes(raw), where)
        case () if kind in _BYTEARRAYS:
            data: bytes | None = b""
        case (raw,) if kind in _BYTEARRAYS:
            data = _bytes(raw)
        case _:
            data = _bytes(made)
    return None if data is None else _tagged("bytes", f'"{data.hex()}"')


def _bytes(value: object) -> bytes | None:
    """Return the bytes that *value* is, or that protocol 2 spells as text in Latin-1."""
    match value:
        case bytes():
            return value
        case Made(function=function, arguments=(str() as text, "latin1"), state=[]):
            if str(function) == _ENCODE and not value.entries and all(c < "\u0100" for c in text):
                return text.encode("latin-1")
    return None


def _scalar_text(dtype: object, data: bytes | None, where: str) -> str | None:
    """Return the text of a scalar of numpy, of its type and its bytes."""
    # numpy's dtype.__setstate__: version, byte order, and six fields that plain types have not.
    match dtype:
        case Made(
            function=function,
            arguments=(str() as code, *rest),
            entries=entries,
            state=[(3, "<" | ">" | "|" as order, None, None, None, -1, -1, 0)],
        ) if str(function) == _NUMPY_DTYPE and code in _NUMPY_CODES:
            if data is None or entries or rest not in ([], [False, True]):
                return None
        case _:
            return None
    plain = np.dtype(f"{order}{code}")
    if len(data) != plain.itemsize:
        raise MalformedError("the size of a numpy scalar is wrong", where=where)
    return _tagged(f"numpy.{plain.name}", plain_text(np.frombuffer(data, plain)[0].item(), where))
