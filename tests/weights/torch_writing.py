"""Checkpoints of torch written without torch, so that every byte can be wrong on purpose.

:func:`pickled` writes what ``torch.pickle_program`` reads, :func:`zipped` an archive
as miniz does, and :func:`checkpoint` puts both together as ``torch.save`` does.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from provenance.weights.torch.pickle_program import Global, Made, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REBUILD = "torch._utils _rebuild_tensor_v2"


def named(name: str) -> Global:
    """Return the global of a module and a name with a space between."""
    module, _, last = name.partition(" ")
    return Global(module, last)


def made(name: str, *arguments: object) -> Made:
    return Made(named(name), arguments)


def ordered(entries: Mapping[Any, object], state: object = None) -> Made:
    """Return an OrderedDict; *state* is what it has as attributes."""
    states = [] if state is None else [state]
    return Made(named("collections OrderedDict"), (), dict(entries), states)


def versions(**modules: int) -> dict[str, object]:
    """Return the attributes of a state dict: the versions of its modules."""
    return {"_metadata": ordered({name: {"version": n} for name, n in modules.items()})}


def storage(
    key: str, count: int, kind: str = "torch FloatStorage", device: str = "cpu"
) -> Reference:
    return Reference(("storage", named(kind), key, device, count))


def tensor(
    stored: Reference,
    sizes: Sequence[int],
    strides: Sequence[int] | None = None,
    *,
    offset: int = 0,
    trained: bool = False,
) -> Made:
    """Return a view of *stored*, in C order without *strides*."""
    if strides is None:
        strides = [int(np.prod(sizes[at + 1 :])) for at in range(len(sizes))]
    return made(REBUILD, stored, offset, tuple(sizes), tuple(strides), trained, ordered({}))


def typed(stored: Reference, dtype: str, sizes: Sequence[int], *more: object) -> Made:
    """Return a vector of a type that has no storage of its own."""
    name = "torch._utils _rebuild_tensor_v3"
    given = (stored, 0, tuple(sizes), (1,) * len(sizes), False, ordered({}))
    return made(name, *given, named(f"torch {dtype}"), *more)


def pickled(value: object, protocol: int = 2) -> bytes:
    """Return *value*, of what ``read_program`` returns, as a pickle."""
    writer = _Pickle(protocol)
    writer.write(value)
    body = bytes(writer.data) + b"."
    frame = b"\x95" + struct.pack("<Q", len(body)) if protocol > 3 else b""
    return bytes([0x80, protocol]) + frame + body


class _Pickle:
    def __init__(self, protocol: int) -> None:
        self.data = bytearray()
        self.protocol = protocol
        self.memo: dict[int, int] = {}

    def keep(self, value: object) -> None:
        self.memo[id(value)] = len(self.memo)
        if self.protocol > 3:
            self.data += b"\x94"
        else:
            self.data += b"r" + struct.pack("<I", self.memo[id(value)])

    def write(self, value: object) -> None:
        if id(value) in self.memo:
            self.data += b"j" + struct.pack("<I", self.memo[id(value)])
        elif isinstance(value, tuple | list | dict):
            self.collection(value)
        elif isinstance(value, Global):
            self.globally(value)
        elif isinstance(value, Reference):
            self.write(value.identifier)
            self.data += b"Q"
        elif isinstance(value, Made):
            self.made(value)
        else:
            self.plain(value)

    def plain(self, value: object) -> None:
        match value:
            case None | bool():
                self.data += {None: b"N", True: b"\x88", False: b"\x89"}[value]
            case int():
                self.integer(value)
            case float():
                self.data += b"G" + struct.pack(">d", value)
            case str():
                raw = value.encode()
                self.data += b"X" + struct.pack("<I", len(raw)) + raw
            case bytes():
                self.data += b"B" + struct.pack("<I", len(value)) + value
            case _:
                raise TypeError(value)

    def collection(self, value: tuple[object, ...] | list[object] | dict[Any, object]) -> None:
        if isinstance(value, dict):
            self.data += b"}"
            self.keep(value)
            self.entries(value)
            return
        if isinstance(value, list):
            self.data += b"]"
            self.keep(value)
        self.data += b"("
        for entry in value:
            self.write(entry)
        self.data += b"e" if isinstance(value, list) else b"t"

    def integer(self, value: int) -> None:
        if 0 <= value < 256:
            self.data += b"K" + bytes([value])
        elif 0 <= value < 65536:
            self.data += b"M" + struct.pack("<H", value)
        elif -(2**31) <= value < 2**31:
            self.data += b"J" + struct.pack("<i", value)
        else:
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.data += b"\x8a" + bytes([len(raw)]) + raw

    def globally(self, value: Global) -> None:
        if self.protocol > 3:
            for part in (value.module, value.name):
                self.data += b"\x8c" + bytes([len(part)]) + part.encode()
            self.data += b"\x93"
        else:
            self.data += b"c" + f"{value.module}\n{value.name}\n".encode()

    def made(self, value: Made) -> None:
        self.write(value.function)
        self.write(value.arguments)
        self.data += b"R"
        self.keep(value)
        if value.entries:
            self.entries(value.entries)
        for state in value.state:
            self.write(state)
            self.data += b"b"

    def entries(self, value: Mapping[Any, object]) -> None:
        self.data += b"("
        for key, entry in value.items():
            self.write(key)
            self.write(entry)
        self.data += b"u"


def zipped(members: Mapping[str, bytes], alignment: int = 64, fill: bytes = b"Z") -> bytes:
    """Return an archive as miniz writes it for torch: padded, with descriptors and ZIP64 ends."""
    return b"".join(piece for _, piece in laid_out(members, alignment, fill))


def laid_out(
    members: Mapping[str, bytes | int], alignment: int = 64, fill: bytes = b"Z"
) -> list[tuple[int, bytes]]:
    """Return the pieces of an archive and their places; a number stands for a hole of its size."""
    pieces: list[tuple[int, bytes]] = []
    central, place = bytearray(), 0
    for name, content in members.items():
        raw, hole = name.encode(), content if isinstance(content, int) else 0
        data = b"" if isinstance(content, int) else content
        size, crc, offset = hole or len(data), zlib.crc32(data), place
        wide, far = size >= 2**32 - 1, offset >= 2**32 - 1
        ends = struct.pack("<Q", offset) * far
        early = struct.pack("<QQ", size, 0) * wide + ends
        zip64 = struct.pack("<HH", 1, len(early)) + early if early else b""
        pad = -(offset + 30 + len(raw) + len(zip64) + 4) % alignment
        extra = zip64 + struct.pack("<2sH", b"FB", pad) + fill * pad
        fields = (0, 0x0808, 0, 0, 0)
        head = struct.pack("<4s5H3I2H", b"PK\3\4", *fields, 0, 0, 0, len(raw), len(extra))
        late = struct.pack("<QQ", size, size) * wide + ends
        zip64 = struct.pack("<HH", 1, len(late)) + late if late else b""
        shown = (2**32 - 1 if wide else size,) * 2
        central += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 0, *fields, crc, *shown, len(raw), len(zip64), *[0] * 4,
            2**32 - 1 if far else offset,
        ) + raw + zip64  # fmt: skip
        layout = "<4sIQQ" if wide or far else "<4sIII"
        tail = struct.pack(layout, b"PK\7\10", crc, size, size)
        start = offset + len(head + raw + extra)
        pieces += [(offset, head + raw + extra + data), (start + size, tail)]
        place = start + size + len(tail)
    ends = _ends(len(members), len(central), place)
    return [*pieces, (place, bytes(central) + ends)]


def _ends(count: int, length: int, start: int) -> bytes:
    wide = (44, 0x31E, 45, 0, 0, count, count, length, start)
    few, shown = min(count, 2**16 - 1), min(start, 2**32 - 1)
    return (
        struct.pack("<4sQ2H2I4Q", b"PK\6\6", *wide)
        + struct.pack("<4sIQI", b"PK\6\7", 0, start + length, 1)
        + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, few, few, length, shown, 0)
    )


RECORDS = {".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little"}


def members(
    program: bytes, storages: Mapping[str, bytes], records: Mapping[str, bytes] = RECORDS
) -> dict[str, bytes]:
    """Return the members of a checkpoint by their names in its folder."""
    data = {f"data/{key}": raw for key, raw in storages.items()}
    late = {
        "version": b"3\n",
        ".data/serialization_id": b"0561108523619670529401518672509764667776",
    }
    return {"data.pkl": program, **records, **data, **late}


def checkpoint(
    value: object,
    storages: Mapping[str, bytes],
    *,
    records: Mapping[str, bytes] = RECORDS,
    root: str = "archive",
    protocol: int = 2,
) -> bytes:
    """Return *value* with its *storages* as ``torch.save`` writes them."""
    inside = members(pickled(value, protocol), storages, records)
    return zipped({f"{root}/{name}": data for name, data in inside.items()})


def saved(arrays: Mapping[str, Any], **modules: int) -> bytes:
    """Return a checkpoint of the float32 *arrays*, and of versions of *modules*."""
    entries = {
        name: tensor(storage(str(key), array.size), array.shape)
        for key, (name, array) in enumerate(arrays.items())
    }
    data = {str(key): array.tobytes() for key, array in enumerate(arrays.values())}
    return checkpoint(ordered(entries, versions(**modules)), data)


def floats(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def linear() -> bytes:
    """A state dict of one layer, with the versions of its modules."""
    weight = tensor(storage("0", 6), (2, 3))
    bias = tensor(storage("1", 2), (2,))
    state = ordered({"weight": weight, "bias": bias}, versions(linear=1))
    return checkpoint(state, {"0": floats(1, 2, 3, 4, 5, 6), "1": floats(7, -0.0)})


def scalar(code: str, order: str, data: bytes) -> Made:
    """A scalar of numpy as protocol 2 spells it."""
    dtype = Made(
        named("numpy dtype"), (code, False, True), state=[(3, order, None, None, None, -1, -1, 0)]
    )
    text = made("_codecs encode", data.decode("latin-1"), "latin1")
    return made("numpy._core.multiarray scalar", dtype, text)


def nested() -> bytes:
    """A trainer's checkpoint: model, optimizer, scheduler and hyperparameters."""
    moment = tensor(storage("1", 2, device="cuda:1"), (2,))
    group = {"lr": 1e-05, "betas": (0.9, 0.999), "fused": None, "amsgrad": False, "params": [0]}
    value = {
        "model": ordered({"w": tensor(storage("0", 2), (2,), trained=True)}, versions(w=2)),
        "optimizer": {"state": {0: {"exp_avg": moment, "step": 7}}, "param_groups": [group]},
        "scheduler": {"milestones": made("collections Counter", {3: 1})},
        "args": {
            "name": "tiny \N{GREEK SMALL LETTER ALPHA}",
            "seed": 2**70,
            "dtype": named("torch bfloat16"),
            "device": made("torch device", "cuda", 1),
            "shape": made("torch Size", (2, 3)),
            "best": scalar("f8", "<", struct.pack("<d", 1.5)),
            "worst": float("inf"),
            "empty": [],
            "raw": b"\x00\xff",
        },
    }
    return checkpoint(value, {"0": floats(1, 2), "1": floats(3, 4)}, root="epoch1")


def views() -> bytes:
    """Tensors that share a storage: tied, transposed, with gaps, repeated and empty."""
    stored = storage("0", 12)
    value = {
        "a": tensor(stored, (2, 3)),
        "b": tensor(stored, (2, 3)),
        "turned": tensor(stored, (3, 2), (1, 3)),
        "every_second": tensor(stored, (2, 2), (4, 2), offset=4),
        "repeated": tensor(stored, (2, 3), (0, 1)),
        "empty": tensor(stored, (0, 3)),
    }
    return checkpoint(value, {"0": floats(*range(12))})


def types() -> bytes:
    """A vector of each element type that has no class of storage, and of two that have."""
    wide = ("uint16", "uint32", "uint64", "complex32")
    narrow = ("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn_x2")
    value: dict[str, object] = {}
    for key, name in enumerate((*wide, *narrow)):
        width = {"uint16": 2, "uint64": 8}.get(name, 4 if name in wide else 1)
        stored = storage(str(key), 8, "torch.storage UntypedStorage")
        value[name] = typed(stored, name, (8 // width,))
    value["half"] = tensor(storage("8", 4, "torch BFloat16Storage"), (4,))
    value["flags"] = tensor(storage("9", 8, "torch BoolStorage"), (2, 2, 2))
    return checkpoint(value, {str(key): bytes(range(key, key + 8)) for key in range(10)})


def big_endian() -> bytes:
    value = {
        "w": tensor(storage("0", 3), (3,)),
        "turned": tensor(storage("1", 4, "torch ComplexFloatStorage"), (2, 2), (1, 2)),
    }
    complexes = np.arange(8, dtype=">f4").tobytes()
    storages = {"0": np.array([1, 2, 3], ">f4").tobytes(), "1": complexes}
    return checkpoint(value, storages, records={**RECORDS, "byteorder": b"big"})


def early() -> bytes:
    """As torch 1.6 wrote it: fewer records, addresses as keys, a parameter, another protocol."""
    data = tensor(storage("94743424565712", 2), (2,), trained=True)
    name = "torch._utils _rebuild_parameter"
    value = [Made(named(name), (data, True, ordered({})))]
    inside = members(pickled(value, 4), {"94743424565712": floats(1, 2)}, {})
    del inside[".data/serialization_id"]
    return zipped({f"archive/{name}": raw for name, raw in inside.items()})


def samples() -> dict[str, bytes]:
    """Return small valid checkpoints by their files' names."""
    return {
        "linear.pt": linear(),
        "nested.ckpt": nested(),
        "views.pth": views(),
        "types.bin": types(),
        "big_endian.pt": big_endian(),
        "early.pth.tar": early(),
    }
