"""Weight files written by hand, so that every byte can be wrong on purpose."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from provenance.weights.view import tensor_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from provenance.weights.view import TensorFile


def safetensors(header: Any, data: bytes = b"", *, padding: int = 0) -> bytes:  # noqa: ANN401
    """Return a file of *header* (text, or a value for JSON) and *data*."""
    text = (
        header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    )
    text += b" " * padding
    return struct.pack("<Q", len(text)) + text + data


def tensor_digests(file: TensorFile) -> dict[str, str]:
    return {name: tensor_digest(file, name) for name in file.tensors}


def entry(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, Any]:
    """Return a tensor's entry in the header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def simple(tensors: Mapping[str, np.ndarray[Any, Any]], **metadata: str) -> bytes:
    """Return a safetensors file of little-endian arrays, in the order given."""
    names = {"<f4": "F32", "<f8": "F64", "<f2": "F16", "<i8": "I64", "|u1": "U8", "<c8": "C64"}
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, array in tensors.items():
        raw = array.tobytes()
        dtype = names[array.dtype.str]
        header[name] = entry(dtype, list(array.shape), len(data), len(data) + len(raw))
        data += raw
    return safetensors(header, data)


def npy(array: np.ndarray[Any, Any], version: tuple[int, int] | None = None) -> bytes:
    """Return *array* as numpy writes it."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def npy_header(text: str, data: bytes = b"", *, version: int = 1) -> bytes:
    """Return an npy array with this *text* as header."""
    raw = text.encode("utf-8" if version == 3 else "latin-1")
    length = struct.pack("<H" if version == 1 else "<I", len(raw))
    return b"\x93NUMPY" + bytes([version, 0]) + length + raw + data


def archive(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def node(loader: str, content: Any = None, /, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a node of a schema of skops."""
    inside = {} if content is None else {"content": content}
    return {"__class__": "object", "__module__": "m", "__loader__": loader, **inside, **more}


def skops(schema: Any, members: Mapping[str, bytes] | None = None, **options: int) -> bytes:  # noqa: ANN401
    """Return a skops model of *schema* (a value, or its bytes) and other *members*."""
    text = schema if isinstance(schema, bytes) else json.dumps(schema, indent=2).encode()
    return archive({**(members or {}), "schema.json": text}, **options)


def small_skops(first: int = 71, second: int = 9, **options: int) -> bytes:
    """Return a skops model of two arrays, one of them in two places, at these addresses."""
    array = {"type": "numpy", "file": f"{first}.npy", "__id__": first}
    content = {
        "coef_": node("NdArrayNode", **array),
        "again": node("NdArrayNode", **array),
        "classes_": node("NdArrayNode", type="numpy", file=f"{second}.npy", __id__=second),
    }
    schema = node("ObjectNode", node("DictNode", content, __id__=3), protocol=2)
    members = {f"{first}.npy": npy(np.ones(2)), f"{second}.npy": npy(np.array(["a", "b"]))}
    return skops(schema, members, **options)


def samples() -> dict[str, bytes]:
    """Return small valid files by name: every kind of thing that a reader meets."""
    floats = np.linspace(-1, 1, 12, dtype="<f4").reshape(3, 4)
    arrays = {"w": floats, "b": np.arange(3, dtype="<i8"), "empty": np.zeros((0, 2), "<f8")}
    turned = np.asfortranarray(floats.astype(">f4"))
    members = {f"{name}.npy": npy(array) for name, array in arrays.items()}
    return {
        "plain.safetensors": simple(arrays, format="pt"),
        "padded.safetensors": safetensors({"s": entry("BF16", [], 0, 2)}, b"\x80\x3f", padding=6),
        "packed.safetensors": safetensors({"q": entry("F4", [4], 0, 2)}, b"\x12\x34"),
        "stored.npz": archive(members),
        "deflated.npz": archive(members, zipfile.ZIP_DEFLATED),
        "model.skops": small_skops(),
        "plain.npy": npy(floats),
        "turned.npy": npy(turned),
        "second.npy": npy(np.zeros((), "<c16"), (2, 0)),
    }
