from __future__ import annotations

import contextlib
import io
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.weights import npy as npy_module
from tests.weights.writing import archive, npy, npy_header

if TYPE_CHECKING:
    from tests.weights.conftest import Opener

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
        with file.open("b.npy", "w", force_zip64=True) as member:  # as numpy does
            member.write(npy(np.arange(3.0)))
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
    "not a ZIP": (b"x" * 99, "does not end as"),
    "bytes before": (b"#!/bin/sh\n" + GOOD, "misplaced"),
    "bytes after": (GOOD + b"x", "does not end as"),
    "comment": (with_comment(), "does not end as"),
    "member twice": (doubled(), "duplicate member"),
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
        "the element type '|O' is not read",
    ),
    "bytes after the array": (archive({"a.npy": ONE + b"x"}), "but 5 follow"),
    "array cut off": (archive({"a.npy": ONE[:-1]}), "but 3 follow"),
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


@pytest.mark.parametrize("elements", [0, 1, 5000])
def test_a_wrong_checksum_is_refused(opened: Opener, elements: int) -> None:
    flipped = bytearray(archive({"a.npy": npy(np.ones(elements))}))
    end = flipped.index(b"PK\1\2")
    for place in (14, end + 16):  # in the local header and in the directory
        flipped[place] ^= 1
    with pytest.raises(MalformedError, match="CRC-32"):
        content(opened(bytes(flipped), "m.npz"), "a")


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


def with_extra(local: bytes = b"", central: bytes = b"", *, after: bytes = b"") -> bytes:
    """GOOD with these extra fields, and *after* the last of them before the end record."""
    data = bytearray(GOOD)
    data[28:30] = struct.pack("<H", len(local))
    data[CENTRAL + 30 : CENTRAL + 32] = struct.pack("<H", len(central))
    place = struct.pack("<II", len(GOOD) - 22 - CENTRAL + len(central), CENTRAL + len(local))
    end = bytes(data[-22:-10]) + place + bytes(2)
    return bytes(data[:35] + local + data[35:CENTRAL] + data[CENTRAL:-22] + central + after + end)


def extra(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, len(data)) + data


WIDE = extra(1, struct.pack("<QQ", len(ONE), len(ONE)))
LOCATOR = struct.pack("<4sIQI", b"PK\6\7", 0, 0, 1)
TIME = extra(0x5455, b"\1" + bytes(4))


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ((extra(0xCAFE, b""), b""), "kind 0xcafe and 0 bytes"),
        ((b"", extra(0xCAFE, LOCATOR)), "that the end record does not ask for"),
        ((b"", extra(0x000A, bytes(12) + LOCATOR)), "that the end record does not ask for"),
        ((extra(0x5455, bytes(14)), b""), "kind 0x5455 and 14 bytes"),
        ((extra(0x000A, bytes(32)), b""), "kind 0x000a and 32 bytes"),
        ((WIDE, b""), "ZIP64 extra field is missing, or of another length"),
        ((b"", WIDE), "ZIP64 extra field is missing, or of another length"),
        ((b"", extra(1, b"")), "kind 0x0001 and 0 bytes"),
        ((b"", extra(1, b"x")), "kind 0x0001 and 1 bytes"),
        ((TIME + TIME, b""), "two extra fields of kind 0x5455"),
        ((b"", TIME + b"x"), "an extra field is cut off"),
        ((b"", TIME[:-1]), "an extra field is cut off"),
    ],
)
def test_refuses_extra_fields(opened: Opener, fields: tuple[bytes, bytes], what: str) -> None:
    with pytest.raises(MalformedError, match=what):
        opened(with_extra(*fields), "m.npz")


def test_reads_archives_with_times_and_owners(opened: Opener) -> None:
    owner = extra(0x7875, b"\1\4\0\0\0\0\4\0\0\0\0")
    file = opened(with_extra(TIME + owner, TIME), "m.npz")
    assert content(file, "a") == ONE[-4:]


def test_reads_sizes_that_only_the_extra_field_has(opened: Opener) -> None:
    data = bytearray(with_extra(WIDE, WIDE))
    moved = CENTRAL + len(WIDE)
    for place in (18, moved + 20):
        data[place : place + 8] = b"\xff" * 8
    assert content(opened(bytes(data), "m.npz"), "a") == ONE[-4:]
    for length in (8, 24):
        short = with_extra(b"", extra(1, bytes(length)))
        short = short[: CENTRAL + 20] + b"\xff" * 8 + short[CENTRAL + 28 :]
        with pytest.raises(MalformedError, match="missing, or of another length"):
            opened(short, "m.npz")


def test_refuses_end_records_that_contradict_each_other(opened: Opener) -> None:
    data = zip64()
    said = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, 2**32 - 1, 2**32 - 1, 0)
    with pytest.raises(MalformedError, match="contradict each other"):
        opened(data[:-22] + said, "m.npz")


def test_refuses_an_archive_behind_the_directory(opened: Opener) -> None:
    # CPython looks 20 bytes before the end record whether that asks for a locator or not, so that
    # numpy would load the tensors of the directory that this one leads to.
    evil = npy(np.zeros(1, "<f4"))
    inner = struct.pack(
        "<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, zlib.crc32(evil), len(evil), len(evil), 5, 0
    )
    body = inner + b"a.npy" + evil
    listed = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, zlib.crc32(evil), len(evil), len(evil), 5,
        0, 0, 0, 0, 0, 35 + 4,
    ) + b"a.npy"  # fmt: skip
    moved = CENTRAL + 4 + len(body)
    place = moved + len(GOOD) - 22 - CENTRAL + 4
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(listed), place)
    found = struct.pack("<4sIQI", b"PK\6\7", 0, place + len(listed), 1)
    data = with_extra(extra(0xCAFE, body), extra(0xCAFE, listed + wide + found))
    with np.load(io.BytesIO(data)) as archived:
        assert archived["a"].tobytes() == evil[-4:] != ONE[-4:]
    with pytest.raises(MalformedError, match="that the end record does not ask for"):
        opened(data, "m.npz")


def test_refuses_arrays_that_numpy_mixes_up(opened: Opener) -> None:
    data = archive({"a.npy": ONE, "a.npy.npy": npy(np.zeros(1, "<f4"))})
    with pytest.raises(MalformedError, match=r"two arrays named 'a\.npy'"):
        opened(data, "m.npz")


def saved(*, compressed: bool) -> bytes:
    buffer = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(buffer, a=np.arange(6.0), b=np.ones((2, 3), ">f4", order="F"))
    return buffer.getvalue()


SAVED = {
    "savez": saved(compressed=False),
    "compressed": saved(compressed=True),
    "zip64 end": zip64(),
    "wide": with_extra(TIME, TIME),
}
TOKENS = [
    *(b"PK" + mark for mark in (b"\1\2", b"\3\4", b"\5\6", b"\6\6", b"\6\7", b"\7\10")),
    *(b"\xff" * size for size in (2, 4, 8)),
    *(bytes(size) for size in (2, 4, 8)),
    *(extra(kind, b"")[:2] for kind in (1, 0x000A, 0x5455, 0x7075, 0x7875)),
    WIDE,
    LOCATOR,
    b"a.npy",
    b"b.npy",
]


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_what_is_accepted_is_what_zipfile_and_numpy_read(
    opened: Opener, data: st.DataObject
) -> None:
    raw = bytearray(data.draw(st.sampled_from(list(SAVED.values()))))
    structure = [i for i in range(len(raw)) if raw[i : i + 2] == b"PK"]
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.sampled_from(structure)) + data.draw(st.integers(-24, 60))
        place = min(max(place, 0), len(raw) - 1)
        piece = data.draw(st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=4))
        stop = place + (len(piece) if data.draw(st.booleans()) else 0)
        raw[place:stop] = piece
    try:
        file = opened(bytes(raw), "m.npz")
        ours = {name: content(file, name) for name in file.tensors}
    except ProvenanceError:
        return
    with np.load(io.BytesIO(bytes(raw)), allow_pickle=False) as theirs:
        assert sorted(theirs.files) == sorted(ours)
        for name, array in ((name, theirs[name]) for name in theirs.files):
            assert file.tensors[name].shape == array.shape
            assert ours[name] == array.astype(array.dtype.newbyteorder("<")).tobytes()


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
