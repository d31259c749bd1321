from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import MalformedError, ProvenanceError, UnavailableError, UnreadableError
from provenance.weights.hdf5 import reader as hdf5_module
from tests.weights.hdf5_writing import WEIGHT, chunked, every_type, hdf5, plain, samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.weights.conftest import Opener

SAMPLES = samples()


def content(file: Any, name: str, elements: int = 256) -> bytes:  # noqa: ANN401
    return b"".join(map(bytes, file.chunks(name, elements)))


@pytest.mark.parametrize("name", [name for name in SAMPLES if not name.endswith("keras")])
def test_reads_what_h5py_writes(opened: Opener, name: str) -> None:
    file = opened(SAMPLES[name], name)
    with h5py.File(io.BytesIO(SAMPLES[name])) as peer:
        found: list[str] = []
        peer.visititems(lambda key, o: found.append(key) if isinstance(o, h5py.Dataset) else None)
        assert set(found) == set(file.tensors)
        for key in found:
            array = peer[key][...]
            assert content(file, key) == array.astype(array.dtype.newbyteorder("<")).tobytes()
            assert file.tensors[key].shape == array.shape


def test_every_element_type_has_its_name(opened: Opener) -> None:
    file = opened(hdf5(every_type), "m.h5")
    names = {name: info.dtype.name for name, info in file.tensors.items()}
    assert names == {
        "u1": "U8", "i1": "I8", "u2": "U16", "i2": "I16", "u4": "U32", "i4": "I32", "u8": "U64",
        "i8": "I64", "f2": "F16", "f4": "F32", "f8": "F64", "big": "F32", "bool": "BOOL",
        "c8": "C64", "c16": "C128", "bf16": "BF16",
    }  # fmt: skip


def test_attributes_and_groups_are_content(opened: Opener) -> None:
    assert dict(opened(hdf5(plain), "m.h5").metadata) == {
        "/@backend": 'text "tensorflow"',
        "layers@names": 'text ["dense", "other"]',
        "layers@rate": "F32 [] 0000003f",
    }


TEXTS = {
    "text of any length": (["cat", "ö"], 'text ["cat", "ö"]'),
    "bytes": (np.array([b"cat", b"do"]), 'bytes ["cat", "do"]'),
    "one": ("cat", 'text "cat"'),
    "none": (np.zeros(0, "S3"), "bytes of shape [0]"),
}


@pytest.mark.parametrize(("value", "said"), TEXTS.values(), ids=TEXTS)
def test_texts_beside_weights_are_values(opened: Opener, value: object, said: str) -> None:
    def fill(file: Any) -> None:  # noqa: ANN401 - h5py's own
        plain(file)
        file["labels/classes"] = value
        file["labels/again"] = file["labels/classes"]

    file = opened(hdf5(fill), "m.h5")
    assert file.metadata["labels/classes"] == file.metadata["labels/again"] == said
    assert file.tensors.keys() == opened(hdf5(plain), "m.h5").tensors.keys()


EMPTY = {
    "as Keras 2 writes it": (np.array([], "f8"), "F64 [0] "),
    "rows of none": (np.zeros((2, 0), ">i4"), "I32 [2, 0] "),
    "many rows of none": (np.zeros((10**9, 0), "S3"), "bytes of shape [1000000000, 0]"),
    "bytes": (np.array([], "S3"), "bytes of shape [0]"),
    "texts": (np.array([], h5py.string_dtype()), "text of shape [0]"),
    "no dataspace": (h5py.Empty("f4"), "nothing"),
}


@pytest.mark.parametrize(("value", "said"), EMPTY.values(), ids=EMPTY)
def test_an_attribute_without_elements(opened: Opener, value: object, said: str) -> None:
    def fill(file: Any) -> None:  # noqa: ANN401 - h5py's own
        plain(file)
        file["layers"].attrs["weight_names"] = value

    assert opened(hdf5(fill), "m.h5").metadata["layers@weight_names"] == said


def test_groups_without_tensors_are_content(opened: Opener) -> None:
    def fill(file: Any) -> None:  # noqa: ANN401 - h5py's own
        plain(file)
        file.create_group("empty/inner")

    metadata = opened(hdf5(fill), "m.h5").metadata
    assert metadata["groups"] == '["empty", "empty/inner"]'


def test_parts_of_chunks_and_bands(opened: Opener) -> None:
    array = np.random.default_rng(0).standard_normal((300, 77)).astype("<f4")

    def fill(file: Any) -> None:  # noqa: ANN401
        file.create_dataset("a", data=array, chunks=(31, 20), compression="gzip", shuffle=True)

    file = opened(hdf5(fill), "m.h5")
    assert content(file, "a", 1024) == array.tobytes()
    part = b"".join(map(bytes, file.chunks("a", 512, 2048, 4096)))
    assert part == array.tobytes()[4 * 2048 : 4 * 4096]
    assert [len(chunk) for chunk in file.chunks("a", 512, 2048, 4096)] == [2048] * 4


def test_hard_links_to_one_dataset_are_tied_weights(opened: Opener) -> None:
    def fill(file: Any) -> None:  # noqa: ANN401
        plain(file)
        file["layers/tied"] = file["w"]

    file = opened(hdf5(fill), "m.h5")
    assert file.aliases == (("layers/tied", "w"),)
    assert content(file, "layers/tied") == content(file, "w") == WEIGHT.tobytes()


def one(array: Any, **options: Any) -> Callable[[Any], None]:  # noqa: ANN401
    def fill(file: Any) -> None:  # noqa: ANN401
        file.create_dataset("w", data=array, **options)

    return fill


CHUNKED = {"chunks": (2, 3), "compression": "gzip"}


@pytest.mark.parametrize(
    ("shape", "options"), [((), {}), ((3, 4), {}), ((0, 2), {}), ((3, 4), CHUNKED)]
)
def test_opaque_elements_are_bytes(
    opened: Opener, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    array = np.arange(math.prod(shape)).reshape(shape).astype(ml_dtypes.bfloat16).view("V2")

    def fill(file: Any) -> None:  # noqa: ANN401
        file.create_dataset("w", data=array, **options)

    file = opened(hdf5(fill), "m.h5")
    info = file.tensors["w"]
    assert (info.dtype.name, info.shape) == ("RAW", (*shape, 2))
    assert content(file, "w") == array.tobytes()


VARIANTS: dict[str, tuple[Callable[[Any], None], set[str]]] = {
    "big-endian": (one(WEIGHT.astype(">f4")), {"byte-order", "layout"}),
    "chunks": (one(WEIGHT, chunks=(2, 3)), {"layout"}),
    "compression": (
        one(WEIGHT, chunks=(3, 4), compression="gzip"),
        {"compression", "layout"},
    ),
    "times": (one(WEIGHT, track_times=True), {"layout"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_changes_no_tensor_is_a_fact(opened: Opener, variant: str) -> None:
    fill, facts = VARIANTS[variant]
    file = opened(hdf5(one(WEIGHT)), "m.h5")
    before, said, raw = dict(file.container), dict(file.metadata), content(file, "w")
    file = opened(hdf5(fill), "m.h5")
    assert (dict(file.metadata), content(file, "w")) == (said, raw)
    differing = {key for key in before if file.container[key] != before[key]}
    assert "layout" in differing
    assert differing <= facts


def linked(link: object) -> bytes:
    def fill(file: Any) -> None:  # noqa: ANN401
        file["a"] = link

    return hdf5(fill)


def looped(file: Any) -> None:  # noqa: ANN401
    file["group/inner"] = file["/"]


def virtual(file: Any) -> None:  # noqa: ANN401
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    file.create_virtual_dataset("v", layout)


def outside(file: Any) -> None:  # noqa: ANN401
    file.create_dataset("x", (3,), "f4", external=[("/etc/hostname", 0, 12)])


def typed(file: Any) -> None:  # noqa: ANN401
    file["t"] = np.dtype("f4")


def described(value: Any) -> Callable[[Any], None]:  # noqa: ANN401
    def fill(file: Any) -> None:  # noqa: ANN401
        file.attrs["a"] = value

    return fill


GOOD = SAMPLES["plain.h5"]


def called(name: str) -> Callable[[Any], None]:
    def fill(file: Any) -> None:  # noqa: ANN401
        file[name] = ["a"]

    return fill


TIMES = np.zeros(2, "M8[s]").astype(h5py.opaque_dtype(np.dtype("M8[s]")))
UNUSUAL = [("x", "<f4"), ("y", "<f4")]
REFUSED: dict[str, tuple[bytes, str]] = {
    "not HDF5": (b"x" * 99, "does not begin as HDF5"),
    "bytes before": (bytes(512) + GOOD, "does not begin as HDF5"),
    "userblock": (hdf5(plain, userblock_size=512), "does not begin as HDF5"),
    "bytes behind": (GOOD + b"x", "describes"),
    "cut off": (GOOD[:-1], "describes"),
    "soft link": (linked(h5py.SoftLink("/b")), "a: a soft or external link"),
    "external link": (linked(h5py.ExternalLink("o.h5", "/b")), "a: a soft or external link"),
    "groups in a circle": (hdf5(looped), "group/inner: a second link to a group"),
    "virtual": (hdf5(virtual), "v: a virtual dataset"),
    "in another file": (hdf5(outside), "x: numbers in another file"),
    "named type": (hdf5(typed), "t: a named type"),
    "texts in chunks": (hdf5(one(["a", "b"], chunks=(1,))), "w: texts in chunks"),
    "texts that are not there": (hdf5(one(None, shape=(2,), dtype="S3")), "w: texts in chunks, or"),
    "texts in another file": (
        hdf5(lambda it: it.create_dataset("w", (3,), "S4", external=[("/etc/hostname", 0, 12)])),
        "w: texts in chunks, or not in the file",
    ),
    "texts called groups": (hdf5(called("groups")), "something else"),
    "texts called as an attribute": (hdf5(called("/@a")), "something else"),
    "structures": (hdf5(one(np.zeros(2, UNUSUAL))), "w: a structure"),
    "opaque with a tag": (hdf5(one(TIMES)), "w: an element type that is not read"),
    "references": (hdf5(described(h5py.Reference())), "/@a: a reference that is not read"),
    "no shape": (hdf5(one(h5py.Empty("f4"))), "w: a dataset without a shape"),
    "other filter": (hdf5(one(WEIGHT, compression="lzf")), "w: the filter 32000"),
    "scaled": (hdf5(one(WEIGHT, scaleoffset=2)), "w: the filter 6"),
    "control character": (hdf5(lambda file: file.create_dataset("a\nb", (1,), "f4")), "control"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "what"), REFUSED.values(), ids=REFUSED)
def test_refuses(opened: Opener, data: bytes, what: str) -> None:
    with pytest.raises(MalformedError, match=what) as caught:
        opened(data, "m.h5")
    assert str(caught.value).startswith("m.h5")


def test_what_is_in_no_storage_is_bounded(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(file: Any) -> None:  # noqa: ANN401
        file.create_dataset("w", (2**50,), "f4")

    with pytest.raises(UnreadableError, match="that are not in the file"):
        opened(hdf5(fill), "m.h5")
    monkeypatch.setattr(hdf5_module, "MAX_BAND", 8)
    with pytest.raises(UnreadableError, match="more than 8 bytes at once"):
        opened(hdf5(chunked), "m.h5")


def test_a_damaged_chunk_is_malformed(opened: Opener) -> None:
    good = hdf5(one(WEIGHT, chunks=(3, 4), compression="gzip", fletcher32=True))
    with h5py.File(io.BytesIO(good)) as peer:
        info = peer["w"].id.get_chunk_info(0)
    for place in (info.byte_offset, info.byte_offset + info.size - 1):
        damaged = bytearray(good)
        damaged[place] ^= 1
        with pytest.raises(MalformedError, match="filter returned failure"):
            content(opened(bytes(damaged), "m.h5"), "w")
    stripped = hdf5(one(WEIGHT, chunks=(3, 4), compression="gzip"))
    with h5py.File(io.BytesIO(stripped)) as peer:
        info = peer["w"].id.get_chunk_info(0)
    damaged = bytearray(stripped)
    damaged[info.byte_offset] ^= 0xFF
    with pytest.raises(MalformedError, match="filter returned failure"):
        content(opened(bytes(damaged), "m.h5"), "w")


def test_an_index_that_readers_get_lost_in_is_refused(opened: Opener) -> None:
    """Who walks over all of a B-tree finds chunks that a search does not."""
    good = bytearray(hdf5(one(np.arange(1, 9, dtype="<f4"), chunks=(2,)), libver="earliest"))
    node = good.index(b"TREE\x01")
    entries = [slice(node + 24 + 32 * at, node + 56 + 32 * at) for at in range(4)]  # key, address
    assert content(opened(bytes(good), "m.h5"), "w")
    swapped = bytearray(good)
    swapped[entries[0]], swapped[entries[1]] = good[entries[1]], good[entries[0]]
    with pytest.raises(MalformedError, match="w: a chunk that its index does not lead to"):
        opened(bytes(swapped), "m.h5")
    twice = bytearray(good)
    twice[entries[1].start : entries[1].start + 24] = good[entries[0]][:24]  # the key alone
    with pytest.raises(MalformedError, match="a duplicate chunk"):
        opened(bytes(twice), "m.h5")


def test_an_edge_that_filters_are_spared_has_one_reading(opened: Opener) -> None:
    data = (Path(__file__).parent / "vectors" / "edge_without_filters.h5").read_bytes()
    with pytest.raises(MalformedError, match="w: a chunk at the edge that has two readings"):
        opened(data, "m.h5")


@pytest.mark.parametrize("chunk", [None, (4,)])
@pytest.mark.parametrize("never", [True, False])
def test_numbers_that_are_nowhere_are_refused(
    opened: Opener, chunk: tuple[int, ...] | None, never: bool
) -> None:
    def fill(file: Any) -> None:  # noqa: ANN401
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        if chunk:
            plist.set_chunk(chunk)
        plist.set_fill_value(np.array(5, "<f4"))
        if never:
            plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file.id, b"w", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4,)), plist)

    if never:
        with pytest.raises(MalformedError, match="w: numbers that are not in the file"):
            opened(hdf5(fill), "m.h5")
    else:
        assert content(opened(hdf5(fill), "m.h5"), "w") == np.full(4, 5, "<f4").tobytes()


def test_attributes_that_two_paths_could_have_are_refused(opened: Opener) -> None:
    def fill(file: Any) -> None:  # noqa: ANN401
        file.create_group("lstm@1").attrs["weight_names"] = ["kernel"]
        file.create_group("lstm").attrs["1@weight_names"] = ["x"]

    with pytest.raises(MalformedError, match="lstm: the attribute '1@weight_names' has an @"):
        opened(hdf5(fill), "m.h5")


def test_texts_that_readers_give_as_bytes_are_told_apart(opened: Opener) -> None:
    assert opened(hdf5(described("none")), "m.h5").metadata["/@a"] == 'text "none"'
    assert opened(hdf5(described(np.bytes_(b"none"))), "m.h5").metadata["/@a"] == 'bytes "none"'


def test_a_grid_of_very_many_places_is_refused(opened: Opener) -> None:
    def fill(file: Any) -> None:  # noqa: ANN401
        file.create_dataset("w", (2**28,), "u1", chunks=(1,))

    with pytest.raises(MalformedError, match="w: more than 250000 chunks in the file"):
        opened(hdf5(fill), "m.h5")


def test_many_small_bands_are_read_in_pieces(opened: Opener) -> None:
    array = np.arange(3000, dtype="<f4")
    file = opened(hdf5(one(array, chunks=(1,))), "m.h5")
    assert content(file, "w", 2048) == content(file, "w", 256) == array.tobytes()


def test_without_h5py_the_hint_names_the_extra(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "h5py.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"pip install 'training-provenance\[hdf5\]'"):
        opened(GOOD, "m.h5")


@settings(max_examples=15)
@given(st.sampled_from([name for name in SAMPLES if name != "model.keras"]), st.data())
def test_a_damaged_file_raises_only_our_errors(opened: Opener, name: str, data: Any) -> None:  # noqa: ANN401
    good = SAMPLES[name]
    place = data.draw(st.integers(64, len(good) - 1))
    damaged = good[:place] + bytes([data.draw(st.integers(0, 255))]) + good[place + 1 :]
    try:
        file = opened(damaged, name)
        for key in file.tensors:
            content(file, key)
    except ProvenanceError:
        pass


def test_the_probe_limits_itself(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_module, "MEMORY", 2**24)
    with pytest.raises((MalformedError, UnreadableError)):
        opened(GOOD, "m.h5")


def test_the_probe_is_a_program_of_its_own() -> None:
    script = Path(hdf5_module.__file__).with_name("probe.py")
    code = f"import runpy, sys; runpy.run_path({str(script)!r}); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name for name in ran.stdout.split() if name.startswith("provenance.")}
