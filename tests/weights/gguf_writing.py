"""GGUF files written by hand, so that every byte can be wrong on purpose."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from provenance.weights.dtypes import DTYPES
from provenance.weights.gguf.types import GGML_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

CODES = {
    "u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f",
    "bool": "B", "str": "", "arr": "", "u64": "Q", "i64": "q", "f64": "d",
}  # fmt: skip
KINDS = {name: number for number, name in enumerate(CODES)}
TYPES = {name: number for number, name in GGML_TYPES.items()}


def text(value: str | bytes) -> bytes:
    """Return a string with its length."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def plain(kind: str, *values: float | str) -> bytes:
    """Return *values* of one type, one after the other."""
    if kind == "str":
        return b"".join(text(str(value)) for value in values)
    return struct.pack(f"<{len(values)}{CODES[kind]}", *values)


def key(name: str | bytes, kind: str, raw: bytes) -> bytes:
    """Return a key with a value."""
    return text(name) + struct.pack("<I", KINDS[kind]) + raw


def scalar(name: str, kind: str, value: float | str) -> bytes:
    """Return a key with a value that is no array."""
    return key(name, kind, plain(kind, value))


def array(name: str, kind: str, *values: float | str) -> bytes:
    """Return a key with an array."""
    return key(name, "arr", items(kind, len(values), plain(kind, *values)))


def items(kind: str, number: int, raw: bytes) -> bytes:
    """Return an array: type, number, values."""
    return struct.pack("<IQ", KINDS[kind], number) + raw


def aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


@dataclass(frozen=True)
class Tensor:
    """A tensor, of any description, with any bytes."""

    name: str | bytes
    dims: Sequence[int]
    """Innermost first, as in the file."""
    data: bytes
    dtype: str | int = "F32"
    offset: int | None = None
    """By default where it belongs."""

    def info(self, offset: int) -> bytes:
        """Return its description."""
        number = TYPES[self.dtype] if isinstance(self.dtype, str) else self.dtype
        place = offset if self.offset is None else self.offset
        dims = struct.pack(f"<I{len(self.dims)}Q", len(self.dims), *self.dims)
        return text(self.name) + dims + struct.pack("<IQ", number, place)


@dataclass(frozen=True)
class File:
    """A file in parts; the default is the smallest valid one."""

    keys: Sequence[bytes] = ()
    tensors: Sequence[Tensor] = ()
    magic: bytes = b"GGUF"
    version: int = 3
    counts: tuple[int | None, int | None] = (None, None)
    """Of tensors and keys, by default how many there are."""
    alignment: int = 32
    padding: bytes = b"\0"
    end: bool = True
    """Whether the last tensor is padded."""
    order: Sequence[int] = field(default=())
    """Of the tensors' bytes, by default that of their descriptions."""

    def written(self) -> bytes:
        """Return the file."""
        order = self.order or range(len(self.tensors))
        offsets: dict[int, int] = {}
        data = b""
        for place in order:
            data += self._pad(len(data))
            offsets[place] = len(data)
            data += self.tensors[place].data
        if self.end:
            data += self._pad(len(data))
        tensors, keys = self.counts
        head = self.magic + struct.pack(
            "<IQQ",
            self.version,
            len(self.tensors) if tensors is None else tensors,
            len(self.keys) if keys is None else keys,
        )
        head += b"".join(self.keys)
        head += b"".join(t.info(offsets[place]) for place, t in enumerate(self.tensors))
        return head + (self._pad(len(head)) + data if self.tensors else b"")

    def _pad(self, position: int) -> bytes:
        return self.padding * (aligned(position, self.alignment) - position)


def filled(name: str, dtype: str, dims: Sequence[int], seed: int = 1) -> Tensor:
    """Return a tensor whose bytes differ from each other."""
    elements = 1
    for size in dims:
        elements *= size
    data = bytes((seed + 7 * i) % 251 for i in range(DTYPES[dtype].nbytes(elements)))
    return Tensor(name, dims, data, dtype)


KEYS = (
    scalar("general.architecture", "str", "llama"),
    scalar("llama.block_count", "u32", 2),
    scalar("llama.rope.freq_base", "f32", 1e5),
    scalar("tokenizer.ggml.add_bos_token", "bool", 1),
    array("tokenizer.ggml.tokens", "str", "<s>", "Ġ", 'a"b', ""),
    array("tokenizer.ggml.scores", "f32", -1.5, 0.0),
    array("tokenizer.ggml.token_type", "i32", 1, 3),
)
TENSORS = (
    filled("token_embd.weight", "Q8_0", [64, 3]),
    filled("blk.0.attn_norm.weight", "F32", [5], 2),
    filled("blk.0.attn_q.weight", "Q4_K", [256, 2], 3),
)


def samples() -> dict[str, bytes]:
    """Return small valid files by name, one for each thing that the format can vary."""
    nested = items("arr", 2, items("u8", 2, b"\1\2") + items("str", 1, text("x")))
    stated = (scalar("general.alignment", "u32", 64), *KEYS)
    every = [filled(f"t.{name}", name, [256, 2]) for name in TYPES]
    numbers = [scalar(f"n.{kind}", kind, 1) for kind in CODES if kind not in ("str", "arr")]
    files = {
        "plain.gguf": File(KEYS, TENSORS),
        "version-2.gguf": File(KEYS, TENSORS, version=2),
        "aligned.gguf": File(stated, TENSORS, alignment=64),
        "unpadded.gguf": File(KEYS, TENSORS[:2], end=False),
        "reordered.gguf": File(KEYS[::-1], TENSORS, order=(2, 0, 1)),
        "vocabulary.gguf": File(KEYS),
        "values.gguf": File([*numbers, key("n.nested", "arr", nested)]),
        "every-type.gguf": File((), every),
        "empty.gguf": File(),
    }
    return {name: file.written() for name, file in files.items()}
