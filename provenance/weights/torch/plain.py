"""The plain values of a torch checkpoint, each as one canonical text.

JSON (RFC 8785), but for numbers: an integer is its digits, a float the shortest decimal that rounds
to it (``1.0``, ``1e-05``, ``-0.0``). What JSON has not is an object of one member:

    {"float":"inf"}  {"float":"-inf"}  {"float":"nan 0x7ff8000000000000"}    a float that is none
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
from provenance.weights.torch.pickle_program import Global, Made, Reference
from provenance.weights.torch.tensors import DTYPE_NAMES

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

PLAIN_GLOBALS: Final = _NUMPY_SCALARS | _COMPLEX | _BYTEARRAYS | {_DEVICE, _ENCODE, _NUMPY_DTYPE}
"""The names that a plain value may ask for, but for those of element types."""

_MEND: Final = "save only tensors and plain values, such as a state dict"


def plain_text(value: object, where: str) -> str:
    """Return the canonical text of a plain value.

    Raises:
        MalformedError: a scalar of numpy is not of its size.
        UnreadableError: it is none that is read.
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
        raise UnreadableError(f"{shown} is not read as a value", where=where, hint=_MEND)
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
    return _tagged(f"numpy.{plain.name}", plain_text(np.frombuffer(data, plain)[0].item(), where))
