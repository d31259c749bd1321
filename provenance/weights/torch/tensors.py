"""Tensors as torch describes them in a checkpoint: the calls that would rebuild them.

Source: ``torch/_utils.py`` (``_rebuild_tensor``, ``_v2``, ``_v3``, ``_rebuild_parameter``) and
``torch/serialization.py`` (``persistent_load``) of torch 2.13. Such a call gives a view of a
storage, ``requires_grad``, hooks (refused), and whether the values are lazily conjugated or negated
(refused: the bytes are not the values).

Refused by name: quantised, sparse and nested tensors, subclasses, tensors without storage, integers
narrower than a byte (torch 2.13 cannot save them) and the ``bits`` types. ``float4_e2m1fn_x2`` is
two elements in a byte: the last dimension is twice that of torch, as in safetensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.dtypes import DTYPES, NUMPY
from provenance.weights.torch.pickle_program import Global, Made, Reference
from provenance.weights.torch.strided import View, check_view
from provenance.weights.view import MAX_BYTES, describe

if TYPE_CHECKING:
    from provenance.weights.view import TensorInfo

_PAIRS: Final = "float4_e2m1fn_x2"

UNTYPED: Final = "torch.storage.UntypedStorage"
"""The class of storages of bytes: each tensor in it states its element type."""

DTYPE_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {np.dtype(code).name: name for name, code in NUMPY.items()}
    | {"bfloat16": "BF16", "complex32": "C32", "bcomplex32": "BC32", _PAIRS: "F4"}
    | {"float8_e4m3fn": "F8_E4M3", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2": "F8_E5M2"}
    | {"float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0"}
)
"""The element types that are read, by torch's names."""

_STORAGES: Final[Mapping[str, str]] = MappingProxyType(
    {"torch.BoolStorage": "bool", "torch.ByteStorage": "uint8", "torch.CharStorage": "int8"}
    | {"torch.ShortStorage": "int16", "torch.IntStorage": "int32", "torch.LongStorage": "int64"}
    | {"torch.HalfStorage": "float16", "torch.BFloat16Storage": "bfloat16"}
    | {"torch.FloatStorage": "float32", "torch.DoubleStorage": "float64", UNTYPED: "uint8"}
    | {"torch.ComplexFloatStorage": "complex64", "torch.ComplexDoubleStorage": "complex128"}
)
"""The element type of each class of storage, in whose elements its size is counted."""

_LOCATION: Final = re.compile(
    r"(?:cpu|cuda|mps|xpu|npu|hpu|ipu|xla|mtia|privateuseone)(?::[0-9]{1,4})?"
)
_KEY: Final = re.compile(r"[0-9]{1,20}")

_PARAMETER: Final = "torch._utils._rebuild_parameter"
_REBUILT: Final[Mapping[str, range]] = MappingProxyType(
    {
        "torch._utils._rebuild_tensor": range(4, 5),
        "torch._utils._rebuild_tensor_v2": range(6, 8),
        "torch._utils._rebuild_tensor_v3": range(7, 9),
    }
)
"""How many arguments each call takes."""

TENSOR_CALLS: Final = frozenset({_PARAMETER, *_REBUILT})
TENSOR_GLOBALS: Final = TENSOR_CALLS | _STORAGES.keys() | {f"torch.{name}" for name in DTYPE_NAMES}


class Storage(NamedTuple):
    """The bytes of a member of the archive, which tensors view."""

    key: str
    kind: str
    location: str
    nbytes: int


class StoredTensor(NamedTuple):
    """A tensor, and where it is stored."""

    info: TensorInfo
    storage: Storage
    view: View
    trained: bool
    parameter: bool


def rebuild(made: Made, name: str, *, where: str) -> StoredTensor:
    """Return the tensor that the call *made*, one of ``TENSOR_CALLS``, describes, checked."""
    trained: object = None
    parameter = str(made.function) == _PARAMETER
    if parameter:
        made, trained = _parameter(made, where)
    given = made.arguments
    typed = str(made.function).endswith("_v3")
    if len(given) not in _REBUILT[str(made.function)] or not made.bare:
        raise MalformedError("a tensor is described as torch does not", where=where)
    storage, item_type = _storage(given[0], where)
    if trained is None:
        trained = given[4] if len(given) > 4 else False  # noqa: PLR2004 - its place
    if typed:
        if storage.kind != UNTYPED:  # torch.load swaps the bytes of a storage by the storage's type
            raise MalformedError("an element type beside that of its storage", where=where)
        item_type = given[6].name if isinstance(given[6], Global) else ""
        if item_type not in DTYPE_NAMES or given[6] != Global("torch", item_type):
            raise MalformedError("a tensor has no element type", where=where)
    _check_rest(given[5:6], given[6 + typed :], where)
    if type(trained) is not bool:
        raise MalformedError("requires_grad is neither true nor false", where=where)
    (offset,), sizes, strides = (_numbers(n, where) for n in ((given[1],), given[2], given[3]))
    view = View(_item_bytes(item_type), offset, sizes, strides)
    shape = sizes
    if item_type == _PAIRS:
        if not sizes:
            raise MalformedError("a pair of elements without a dimension", where=where)
        shape = (*sizes[:-1], 2 * sizes[-1])
    info = describe(name, DTYPE_NAMES[item_type], shape, where=where)
    check_view(view, storage.nbytes, where=where)
    return StoredTensor(info, storage, view, trained, parameter)


def _parameter(made: Made, where: str) -> tuple[Made, object]:
    """Return the call that makes a parameter's data, and whether the parameter is trained."""
    if len(made.arguments) != 3 or not made.bare:  # noqa: PLR2004 - as unpacked
        raise MalformedError("a parameter is described as torch does not", where=where)
    data, trained, hooks = made.arguments
    _check_rest((hooks,), (), where)
    if not isinstance(data, Made) or str(data.function) not in _REBUILT:
        raise MalformedError("a parameter's data are not a tensor", where=where)
    return data, trained


def _storage(reference: object, where: str) -> tuple[Storage, str]:
    """Return the storage that *reference* names, and the type of its elements."""
    match reference:
        case Reference(identifier=("storage", Global() as kind, key, location, count)):
            item_type = _STORAGES.get(str(kind))
        case _:
            raise MalformedError("a tensor has no storage", where=where)
    if item_type is None:
        raise MalformedError("a tensor has no storage of a known class", where=where)
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise MalformedError("the key of a storage is not a number", where=where)
    if not isinstance(location, str) or not _LOCATION.fullmatch(location):
        raise MalformedError(f"unknown storage device {location!r}", where=where)
    if type(count) is not int or not 0 <= count <= MAX_BYTES:
        raise MalformedError("storage size out of range", where=where)
    return Storage(key, str(kind), location, count * _item_bytes(item_type)), item_type


def _item_bytes(item_type: str) -> int:
    return 1 if item_type == _PAIRS else DTYPES[DTYPE_NAMES[item_type]].bits // 8


def _check_rest(hooks: tuple[object, ...], metadata: tuple[object, ...], where: str) -> None:
    """Refuse hooks, and flags that change what the tensor's bytes mean."""
    for value in hooks:
        match value:
            case None:
                pass
            case Made(Global("collections", "OrderedDict"), (), bare=True):
                pass
            case _:
                raise UnreadableError("a tensor has hooks, which are not read", where=where)
    if any(value is not None and value != {} for value in metadata):
        what, hint = "a tensor is lazily conjugated or negated", "save resolve_conj().resolve_neg()"
        raise UnreadableError(what, where=where, hint=hint)


def _numbers(value: object, where: str) -> tuple[int, ...]:
    """Return *value*, a tuple or torch.Size of integers."""
    if isinstance(value, Made) and str(value.function) == "torch.Size":
        value = value.arguments[0] if len(value.arguments) == 1 else None
    if not isinstance(value, tuple) or any(type(number) is not int for number in value):
        raise MalformedError("an offset, size or stride is not an integer", where=where)
    return value
