"""Tensors as torch describes them in a checkpoint: the calls that would rebuild them.

Source: ``torch/_utils.py`` (``_rebuild_tensor``, ``_v2``, ``_v3``, ``_rebuild_parameter``) and
``torch/serialization.py`` (``persistent_load``) of torch 2.13. Such a call gives a view of a
storage, ``requires_grad``, hooks (refused), and whether the values are lazily conjugated or negated
(refused: the bytes are not the values).

Other tensors that ``torch.load(weights_only=True)`` reads (sparse, quantised, nested, of devices
without storages, with attributes) are *parts*: the arguments of their call by name, among them
plain tensors. The integers of a quantised tensor are one.

Refused by name: subclasses, integers narrower than a byte, quantised or not, and the ``bits``
types. ``float4_e2m1fn_x2`` is two elements in a byte: the last dimension is twice that of torch, as
in safetensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.dtypes import DTYPES, NUMPY
from provenance.weights.torch.pickle_program import Global, Made, Reference
from provenance.weights.torch.strided import View, check_view
from provenance.weights.view import MAX_BYTES, TensorInfo, describe

_PAIRS: Final = "float4_e2m1fn_x2"

UNTYPED: Final = "torch.storage.UntypedStorage"
"""The class of storages of bytes: each tensor in it states its element type."""

DTYPE_NAMES: Final[Mapping[str, str]] = (
    {np.dtype(code).name: name for name, code in NUMPY.items()}
    | {"bfloat16": "BF16", "complex32": "C32", "bcomplex32": "BC32", _PAIRS: "F4"}
    | {"float8_e4m3fn": "F8_E4M3", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2": "F8_E5M2"}
    | {"float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0"}
)
"""The element types that are read, by torch's names."""

_STORAGES: Final[Mapping[str, str]] = (
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
_REBUILT: Final[Mapping[str, range]] = {
    "torch._utils._rebuild_tensor": range(4, 5),
    "torch._utils._rebuild_tensor_v2": range(6, 8),
    "torch._utils._rebuild_tensor_v3": range(7, 9),
}
"""How many arguments each call takes."""

_QUANTISED: Final[Mapping[str, str]] = {
    "torch.QInt8Storage": "CharStorage",
    "torch.QUInt8Storage": "ByteStorage",
} | {"torch.QInt32Storage": "IntStorage"}
"""The storage of integers of each class of quantised ones."""

_QTENSOR: Final = "torch._utils._rebuild_qtensor"
_SPARSE: Final = "torch._utils._rebuild_sparse_tensor"
_TYPED: Final = "torch._tensor._rebuild_from_type_v2"
_COO: Final = ("layout", "indices", "values", "size", "is_coalesced")
_MOVED: Final = ("data", "dtype", "device", "requires_grad")
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
        _PARAMETER: ("data", "requires_grad", "backward_hooks"),
        "torch._utils._rebuild_parameter_with_state": (
            "data", "requires_grad", "backward_hooks", "state",
        ),
        "torch._utils._rebuild_nested_tensor": ("buffer", "sizes", "strides", "storage_offsets"),
        "torch._utils._rebuild_meta_tensor_no_storage": (
            "dtype", "size", "stride", "requires_grad",
        ),
        "torch._utils._rebuild_device_tensor_from_numpy": _MOVED,
        "torch._utils._rebuild_device_tensor_from_cpu_tensor": _MOVED,
        _SPARSE: ("layout", "compressed_indices", "plain_indices", "values", "size"),
        _QTENSOR: ("int_repr", "quantizer", "storage"),
        _TYPED: ("data", "type", "state"),
    }  # fmt: skip
"""The names of the parts of each call that makes another kind of tensor."""

LAYOUT: Final = "torch.serialization._get_layout"
NAMES: Final = _QUANTISED.keys() | {
    "torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "torch.qint8",
    "torch.quint8", "torch.qint32", "torch.per_tensor_affine", "torch.per_tensor_symmetric",
    "torch.per_channel_affine", "torch.per_channel_symmetric",
    "torch.per_channel_affine_float_qparams",
}  # fmt: skip
"""Names that are values: classes of tensors, and kinds of quantisation."""

TENSOR_CALLS: Final = frozenset({_PARAMETER, *_REBUILT})
TENSOR_GLOBALS: Final = (
    TENSOR_CALLS | _STORAGES.keys() | {f"torch.{name}" for name in DTYPE_NAMES}
    | _PARTS.keys() | NAMES | {LAYOUT}
)  # fmt: skip


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


def parts(made: Made, *, where: str) -> dict[str, object] | None:
    """Return the parts of a tensor that is none of ``TENSOR_CALLS``; None if *made* is no other."""
    kind, given = str(made.function), made.arguments
    names = _PARTS.get(kind)
    if names is None or (kind == _PARAMETER and _function(given[:1]) in _REBUILT):
        return None
    match given:
        case (Global() as function, Global() as of, tuple() as arguments, state) if kind == _TYPED:
            given = (Made(function, arguments), of, state)
        case (Made(arguments=("torch.sparse_coo",)) as layout, tuple() as data) if kind == _SPARSE:
            names, given = _COO[: len(data) + 1], (layout, *data)
        case (layout, tuple() as data) if kind == _SPARSE:
            given = layout, *data
        case (stored, offset, sizes, strides, quantizer, trained, hooks) if kind == _QTENSOR:
            kept, stored = _integers(stored, where)
            call = Global("torch._utils", "_rebuild_tensor_v2")
            given = Made(call, (stored, offset, sizes, strides, trained, hooks)), quantizer, kept
    if len(given) != len(names) or not made.bare:
        raise MalformedError("a tensor is described as torch does not", where=where)
    return dict(zip(names, given, strict=True))


def _function(given: tuple[object, ...]) -> str:
    return str(given[0].function) if given and isinstance(given[0], Made) else ""


def _integers(reference: object, where: str) -> tuple[Global, Reference]:
    """Return the class of the storage of a quantised tensor, and it as one of integers."""
    match reference:
        case Reference(identifier=("storage", Global() as kind, *rest)) if str(kind) in _QUANTISED:
            return kind, Reference(("storage", Global("torch", _QUANTISED[str(kind)]), *rest))
    raise MalformedError("a quantised tensor has no storage of a known class", where=where)


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
    if isinstance(value, Made) and str(value.function) == "torch.Size":
        value = value.arguments[0] if len(value.arguments) == 1 else None
    if not isinstance(value, tuple) or any(type(number) is not int for number in value):
        raise MalformedError("an offset, size or stride is not an integer", where=where)
    return value
