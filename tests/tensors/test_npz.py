from __future__ import annotations

import contextlib
import io
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.tensors import npy as npy_module
from tests.tensors.writing import archive, npy, npy_header

if TYPE_CHECKING:
    from tests.tensors.conftest import Opener

NAMES = st.text("abcé0_.-", min_size=1, max_size=8).filter(
    lambda name: name not in {"file", ".", ".."} and not name.endswith(".npy")
)
ARRAYS = hnp.arrays(
    st.sampled_from(["<f4", ">f4", "<f8", ">i2", "|b1", "|u1", "<u8", ">c8", "<c16", "<f2"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


def content(file: Any, name: str, elements: int = 8) -> bytes:  # noqa: ANN401
    return b"".join(map(bytes, file.chunks(name, elements)))


@given(st.dictionaries(NAMES, ARRAYS, max_size=4), st.booleans(), st.booleans())
def test_reads_what_numpy_writes(
    opened: Opener,
    arrays: dict[str, np.ndarray[Any, Any]],
    compressed: bool,
    fortran: bool,
) -> None:
    buffer = io.BytesIO()
    given = {name: np.asfortranarray(a) if fortran else a for name, a in arrays.items()}
    (np.savez_compressed if compressed else np.savez)(buffer, allow_pickle=False, **given)
    file = opened(buffer.getvalue(), "m.npz")
    assert list(file.tensors) == list(arrays)
    for name, array in arrays.items():
        little = array.astype(array.dtype.newbyteorder("<"))
        shape = given[name].shape
        assert file.tensors[name].shape == shape
        assert content(file, name) == little.tobytes()


def test_reads_an_archive_written_to_a_pipe(opened: Opener) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:  # noqa: ANN401
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", npy(np.arange(9.0)))
        file.writestr("b.npy", npy(np.arange(3.0)))
    assert pipe.data.count(b"PK\7\10") == 2
    assert content(opened(pipe.data, "m.npz"), "b") == np.arange(3.0).tobytes()


def test_chunks_are_whole_whatever_deflate_yields(opened: Opener) -> None:
    array = np.random.default_rng(0).standard_normal(300_000).astype("<f4")
    file = opened(archive({"a.npy": npy(array)}, zipfile.ZIP_DEFLATED), "m.npz")
    chunks = [bytes(chunk) for chunk in file.chunks("a", 65536)]
    assert [len(chunk) for chunk in chunks] == [262144] * 4 + [1_200_000 - 4 * 262144]
    assert b"".join(chunks) == array.tobytes()


ONE = npy(np.ones(1, "<f4"))


def patched(data: bytes, old: bytes, new: bytes, *, count: int = -1) -> bytes:
    assert old in data
    assert len(old) == len(new)
    return data.replace(old, new, count)


def doubled() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.npy", ONE)
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.npy", npy(np.zeros(1, "<f4")))
    return buffer.getvalue()


def with_comment() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.npy", ONE)
        file.comment = b"hello"
    return buffer.getvalue()


def bomb(declared: int) -> bytes:
    """An archive whose member declares *declared* bytes and holds ten."""
    data = archive({"a.npy": b"x" * 10}, zipfile.ZIP_DEFLATED)
    return patched(data, struct.pack("<I", 10) + b"\5\0", struct.pack("<I", declared) + b"\5\0")


GOOD = archive({"a.npy": ONE})
CENTRAL = GOOD.index(b"PK\1\2")
MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too short"),
    "not a ZIP": (b"x" * 99, "does not end as"),
    "bytes before": (b"#!/bin/sh\n" + GOOD, "misplaced"),
    "bytes after": (GOOD + b"x", "does not end as"),
    "comment": (with_comment(), "does not end as"),
    "member twice": (doubled(), "stands twice"),
    "member not npy": (archive({"a.txt": b"x"}), "is not \\*.npy"),
    "member without name": (archive({".npy": ONE}), "is not \\*.npy"),
    "absolute name": (archive({"/a.npy": ONE}), "not plain"),
    "parent name": (archive({"../a.npy": ONE}), "not plain"),
    "backslash": (patched(GOOD, b"a.npy", b"\\.npy"), "not plain"),
    "NUL in a name": (patched(GOOD, b"a.npy", b"\0.npy"), "control character"),
    "name not UTF-8": (patched(GOOD, b"a.npy", b"\xff.npy"), "not in UTF-8"),
    "names of two kinds": (patched(GOOD, b"a.npy", b"b.npy", count=1), "local header"),
    "encrypted": (
        GOOD[:6] + b"\1" + GOOD[7 : CENTRAL + 8] + b"\1" + GOOD[CENTRAL + 9 :],
        "encrypted",
    ),
    "bzip2": (archive({"a.npy": ONE}, zipfile.ZIP_BZIP2), "method 12"),
    "lzma": (archive({"a.npy": ONE}, zipfile.ZIP_LZMA), "method 14"),
    "object array": (
        archive(
            {"a.npy": npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n")}
        ),
        "not a plain number",
    ),
    "bytes after the array": (archive({"a.npy": ONE + b"x"}), "the member has 5"),
    "array cut off": (archive({"a.npy": ONE[:-1]}), "the member has 3"),
    "declares more than deflate can hold": (bomb(10**8), "more bytes than deflate"),
    "directory record missing": (
        GOOD[:CENTRAL] + GOOD[-22:-10] + struct.pack("<IIH", 0, CENTRAL, 0),
        "another number of records",
    ),
}


@pytest.mark.parametrize(("data", "what"), MALFORMED.values(), ids=MALFORMED)
def test_refuses(opened: Opener, data: bytes, what: str) -> None:
    with pytest.raises(MalformedError, match=what) as caught:
        opened(data, "m.npz")
    assert str(caught.value).startswith("m.npz")


def test_bytes_between_members_are_refused(opened: Opener) -> None:
    end = struct.unpack("<4s4H2IH", GOOD[-22:])
    shifted = (*end[:6], end[6] + 1, end[7])
    data = GOOD[:CENTRAL] + b"x" + GOOD[CENTRAL:-22] + struct.pack("<4s4H2IH", *shifted)
    with pytest.raises(MalformedError, match="local header"):
        opened(data, "m.npz")


def zip64(locator: int = 0, end: int = 0, parts: int = 1, record: int = 44) -> bytes:
    """GOOD with ZIP64 end records; *locator* and *end* are moved by as many bytes."""
    length = len(GOOD) - 22 - CENTRAL
    place = len(GOOD) - 22
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", record, 45, 45, 0, 0, 1, 1, length, CENTRAL + end)
    found = struct.pack("<4sIQI", b"PK\6\7", 0, place + locator, parts)
    narrow = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    return GOOD[:-22] + wide + found + narrow


def test_zip64_end_records_are_read(opened: Opener) -> None:
    data = zip64()
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert file.namelist() == ["a.npy"]
    assert content(opened(data, "m.npz"), "a") == ONE[-4:]


@pytest.mark.parametrize(
    "data",
    [
        zip64(locator=1),
        zip64(end=1),
        zip64(parts=2),
        zip64(record=45),
        zip64()[-22:],
        GOOD[:-14] + struct.pack("<H", 2) + GOOD[-12:],
        GOOD[: CENTRAL + 20] + b"\xff" * 4 + GOOD[CENTRAL + 24 :],
        GOOD[: CENTRAL + 32] + b"\1" + GOOD[CENTRAL + 33 :],
        GOOD[: CENTRAL + 24] + b"\xf0" + GOOD[CENTRAL + 25 :],
        GOOD[: CENTRAL + 28] + b"\xff" + GOOD[CENTRAL + 29 :],
        GOOD[: CENTRAL + 42] + b"\1" + GOOD[CENTRAL + 43 :],
        GOOD[:26] + b"\xff" + GOOD[27:],
        GOOD[:14] + b"\0" * 4 + GOOD[18:],
    ],
    ids=[
        "locator elsewhere",
        "directory elsewhere",
        "two parts",
        "record of another length",
        "records missing",
        "counts that differ",
        "size in a missing extra field",
        "comment of a member",
        "stored of two sizes",
        "name beyond the directory",
        "member elsewhere",
        "local name too long",
        "local header without checksum",
    ],
)
def test_records_that_contradict_each_other_are_refused(opened: Opener, data: bytes) -> None:
    with pytest.raises(MalformedError):
        opened(data, "m.npz")


def test_a_wrong_data_descriptor_is_refused(opened: Opener) -> None:
    streamed = bytearray(GOOD)
    for flags in (6, CENTRAL + 8):
        streamed[flags] |= 8
    descriptor = streamed[14:26]
    streamed[14:26] = bytes(12)

    def with_descriptor(middle: bytes) -> bytes:
        moved = (CENTRAL + len(middle)).to_bytes(4, "little")
        return bytes(streamed[:CENTRAL] + middle + streamed[CENTRAL:-6] + moved + b"\0\0")

    assert content(opened(with_descriptor(bytes(descriptor)), "m.npz"), "a") == ONE[-4:]
    for wrong in (b"", bytes(12), b"x" * 30, bytes(descriptor) + b"x"):
        with pytest.raises(MalformedError, match=r"data descriptor|local header"):
            opened(with_descriptor(wrong), "m.npz")


def test_a_wrong_checksum_is_refused_while_reading(opened: Opener) -> None:
    flipped = bytearray(GOOD)
    flipped[GOOD.index(ONE) + len(ONE) - 1] ^= 1
    file = opened(bytes(flipped), "m.npz")
    with pytest.raises(MalformedError, match="CRC-32"):
        content(file, "a")


def hidden(raw: bytes, stream: bytes) -> bytes:
    """An archive whose one member says it is *raw* and holds the deflate *stream*."""
    crc = zlib.crc32(raw)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 33, crc, len(stream), len(raw), 5, 0)
    start = len(local) + 5 + len(stream)
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 33, crc, len(stream), len(raw), 5, *[0] * 6
    )  # fmt: skip
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central) + 5, start, 0)
    return local + b"a.npy" + stream + central + b"a.npy" + end


def deflated(data: bytes) -> bytes:
    return zlib.compress(data, 9, -15)


STREAMS = {
    "shorter": (deflated(ONE[:-2]), "too short"),
    "longer": (deflated(ONE + b"x" * 9), "not of its declared size"),
    "cut off": (deflated(ONE)[:-3], "too short|declared size"),
    "bytes after the stream": (deflated(ONE) + b"hidden", "after the compressed stream"),
    "not deflate": (b"\xff" * 40, "cannot be decompressed"),
}


@pytest.mark.parametrize(("stream", "what"), STREAMS.values(), ids=STREAMS)
def test_a_stream_of_another_size_is_refused(opened: Opener, stream: bytes, what: str) -> None:
    with pytest.raises(MalformedError, match=what):
        content(opened(hidden(ONE, stream), "m.npz"), "a")


def test_a_hand_written_stream_is_read(opened: Opener) -> None:
    assert content(opened(hidden(ONE, deflated(ONE)), "m.npz"), "a") == ONE[-4:]


def test_a_large_array_in_fortran_order_is_unreadable(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npy_module, "MAX_TRANSPOSED", 8)
    file = opened(archive({"a.npy": npy(np.asfortranarray(np.ones((2, 2))))}), "m.npz")
    with pytest.raises(UnreadableError, match="Fortran order"):
        content(file, "a")


VALID = archive({"a.npy": npy(np.arange(6.0)), "b.npy": npy(np.ones(2, ">f4"))}, 8)


@given(st.data())
def test_damaged_files_raise_only_our_errors(opened: Opener, data: st.DataObject) -> None:
    damaged = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProvenanceError):
        file = opened(bytes(damaged), "m.npz")
        for name in file.tensors:
            content(file, name)


def test_refuses_an_extra_field_that_renames_a_member(opened: Opener) -> None:
    # CPython's zipfile follows the Unicode path field (0x7075) from 3.12 on, so that numpy would
    # load the tensor under another name than the one shown here.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        member = zipfile.ZipInfo("w1.npy")
        other = struct.pack("<BL", 1, zlib.crc32(b"w1.npy")) + b"w2.npy"
        member.extra = struct.pack("<HH", 0x7075, len(other)) + other
        target.writestr(member, npy(np.ones(3, np.float32)))
    with pytest.raises(MalformedError, match="extra field of kind 0x7075"):
        opened(buffer.getvalue(), "model.npz")
