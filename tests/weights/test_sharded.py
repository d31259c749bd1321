from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import ContentError, MalformedError, ProvenanceError, UnreadableError
from provenance.weights import sharded
from provenance.weights.names import carries_tensors, is_readable
from provenance.weights.normalisers import Normaliser
from provenance.weights.opening import companions, open_tensors
from provenance.weights.source import Source
from tests.weights import torch_writing
from tests.weights.gguf_writing import File, filled
from tests.weights.writing import safetensors, simple, tensor_digests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from provenance.weights.view import TensorFile

Arrays = dict[str, np.ndarray[Any, Any]]

INDEX = "model.safetensors.index.json"
ARRAYS: Arrays = {f"layer.{i}": np.full((2, 3), i, "<f4") for i in range(4)}
SPLIT = (["layer.0", "layer.2"], ["layer.1"], ["layer.3"])
SIZE = 4 * 24


def shard(number: int, of: int = 3) -> str:
    return f"model-{number:05}-of-{of:05}.safetensors"


MAP = {name: shard(place) for place, names in enumerate(SPLIT, 1) for name in names}


def write(folder: Path, index: Any = None, split: Any = SPLIT, **metadata: str) -> Path:  # noqa: ANN401
    """Write shards of ``ARRAYS``, and the index: a document, or bytes."""
    for place, names in enumerate(split, 1):
        data = simple({name: ARRAYS[name] for name in names}, **metadata)
        (folder / shard(place, len(split))).write_bytes(data)
    if index is None:
        index = {"metadata": {"total_size": SIZE}, "weight_map": MAP}
    path = folder / INDEX
    path.write_bytes(index if isinstance(index, bytes) else json.dumps(index).encode())
    return path


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def whole(folder: Path, arrays: Arrays, **metadata: str) -> TensorFile:
    path = folder / "model.safetensors"
    path.write_bytes(simple(arrays, **metadata))
    return open_tensors(path)


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    with (
        open_tensors(write(tmp_path, format="pt"), name="m") as file,
        whole(tmp_path, ARRAYS, format="pt") as single,
    ):
        assert file.format == single.format
        assert file.direct
        assert file.aliases == ()
        assert tensor_digests(file) == tensor_digests(single)
        assert [*file.tensors] == ["layer.0", "layer.2", "layer.1", "layer.3"]
        assert dict(file.metadata) == dict(single.metadata) == {"format": "pt"}
        assert file.container.keys() == single.container.keys() | {"sharding"}
        assert file.container.keys() <= set(Normaliser)
        assert file.container["spelling"] == "compact"
        assert b"".join(map(bytes, file.chunks("layer.3", 256))) == ARRAYS["layer.3"].tobytes()
        file.check_unchanged()


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return as many new folders as are asked for; a case of hypothesis has no tmp_path."""
    return iter(tmp_path_factory.mktemp("shards") / str(i) for i in range(100_000))


@given(
    st.dictionaries(st.text("ab.é", max_size=4), st.integers(0, 3), min_size=1, max_size=6),
    st.booleans(),
)
def test_any_split_has_the_digests_of_the_whole(
    folders: Iterator[Path], placed: dict[str, int], stated: bool
) -> None:
    folder = next(folders)
    folder.mkdir()
    arrays: Arrays = {name: np.arange(place + 2, dtype="<f4") for name, place in placed.items()}
    used = sorted(set(placed.values()))
    names = {place: shard(number, len(used)) for number, place in enumerate(used, 1)}
    for place, name in names.items():
        held = {tensor: array for tensor, array in arrays.items() if placed[tensor] == place}
        (folder / name).write_bytes(simple(held))
    size = sum(array.nbytes for array in arrays.values())
    index = {
        "metadata": {"total_size": size} if stated else {},
        "weight_map": {tensor: names[place] for tensor, place in placed.items()},
    }
    (folder / INDEX).write_text(json.dumps(index))
    with open_tensors(folder / INDEX) as file:
        found = tensor_digests(file)
    with whole(folder, arrays) as single:
        assert found == tensor_digests(single)


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": MAP},
        {"metadata": {}, "weight_map": MAP},
        {"metadata": {"total_size": float(SIZE)}, "weight_map": MAP},
        {"metadata": {"total_size": SIZE, "total_parameters": 24}, "weight_map": MAP},
    ],
)
def test_what_follows_from_the_tensors_is_not_content(tmp_path: Path, index: Any) -> None:  # noqa: ANN401
    with open_tensors(write(tmp_path, index)) as file:
        assert dict(file.metadata) == {}


def test_what_the_index_states_beside_is_content(tmp_path: Path) -> None:
    stated = {"total_parameters": 23, "by": "1", "n": 1, "list": [True, None]}
    index = {"metadata": stated, "weight_map": MAP}
    with open_tensors(write(tmp_path, index, format="pt")) as file:
        assert dict(file.metadata) == {
            "format": "pt",
            "index.total_parameters": "23",
            "index.by": '"1"',
            "index.n": "1",
            "index.list": "[true,null]",
        }


def test_the_index_is_a_fact_to_the_byte(tmp_path: Path) -> None:
    path = write(tmp_path)
    facts = []
    for text in (path.read_bytes(), path.read_bytes() + b"\n"):
        path.write_bytes(text)
        with open_tensors(path) as file:
            facts.append(dict(file.container))
    assert facts[0].pop("sharding") != facts[1].pop("sharding")
    assert facts[0] == facts[1]


def test_facts_of_the_shards_are_put_together(tmp_path: Path) -> None:
    path = write(tmp_path)
    with open_tensors(path) as file:
        before = dict(file.container)
    last = tmp_path / shard(3)
    raw = ARRAYS["layer.3"].tobytes()
    entry = {"layer.3": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    last.write_bytes(safetensors(entry, raw, padding=4))
    with open_tensors(path) as file:
        after = dict(file.container)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"layout"}
    assert before["layout"] == "0"


def test_shards_of_another_format(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "x.gguf", "b": "y.gguf"}}
    for name, tensor in {"x.gguf": "a", "y.gguf": "b"}.items():
        (tmp_path / name).write_bytes(File((), [filled(tensor, "Q4_0", [32, 2])]).written())
    path = tmp_path / "m.gguf.index.json"
    path.write_text(json.dumps(index))
    with open_tensors(path) as file:
        assert file.format == "gguf"
        assert {info.dtype.name for info in file.tensors.values()} == {"Q4_0"}


def test_tied_weights_in_shards_are_counted_once_or_each_time(tmp_path: Path) -> None:
    samples = torch_writing.samples()
    shards = {"x.bin": samples["views.pth"], "y.bin": samples["linear.pt"]}
    weight_map: dict[str, str] = {}
    size = 0
    for name, data in shards.items():
        (tmp_path / name).write_bytes(data)
        with open_tensors(tmp_path / name) as file:
            weight_map |= dict.fromkeys(file.tensors, name)
            size += sum(info.nbytes for info in file.tensors.values())
    path = tmp_path / "pytorch_model.bin.index.json"
    again = 24  # a and b are one view of one storage
    for total in (size, size - again):
        path.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
        with open_tensors(path) as file:
            assert file.aliases == (("a", "b"),)
    path.write_text(json.dumps({"metadata": {"total_size": size - 8}, "weight_map": weight_map}))
    with open_tensors(path) as file:
        assert dict(file.metadata) == {
            "index.total_size": str(size - 8),
            "shards": '["x.bin","y.bin"]',
        }


def test_names_that_a_loader_could_take_by_themselves_are_content(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / shard(3)).rename(tmp_path / "adapter_model.safetensors")
    placed = {**MAP, "layer.3": "adapter_model.safetensors"}
    path.write_text(json.dumps({"weight_map": placed}))
    with open_tensors(path) as file:
        assert dict(file.metadata) == {"shards": '["adapter_model.safetensors"]'}
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "model-3-of-003.safetensors")
    path.write_text(json.dumps({"weight_map": {**MAP, "layer.3": "model-3-of-003.safetensors"}}))
    with open_tensors(path) as file:
        assert dict(file.metadata) == {}


INDEXES: dict[str, tuple[Any, str]] = {
    "not JSON": (b"{", "not JSON"),
    "a list": ([], "weight_map and metadata"),
    "without weight_map": ({"metadata": {}}, "weight_map and metadata"),
    "a further key": ({"weight_map": MAP, "x": 1}, "weight_map and metadata"),
    "weight_map a list": ({"weight_map": [1]}, "are objects"),
    "weight_map empty": ({"weight_map": {}}, "not empty"),
    "metadata null": ({"metadata": None, "weight_map": MAP}, "are objects"),
    "a tensor twice": (b'{"weight_map":{"a":"x","a":"x"}}', "is duplicated"),
    "weight_map twice": (b'{"weight_map":{"a":"x"},"weight_map":{"a":"x"}}', "is duplicated"),
    "shard not text": ({"weight_map": {"a": 1}}, "not a string"),
    "shards with other names alone": ({"weight_map": {"a": "../m"}}, "none of its shards is there"),
}


@pytest.mark.parametrize(("index", "what"), INDEXES.values(), ids=INDEXES)
def test_refuses(tmp_path: Path, index: Any, what: str) -> None:  # noqa: ANN401
    path = write(tmp_path, index)
    with pytest.raises((MalformedError, UnreadableError), match=what) as caught:
        open_tensors(path, name="m")
    assert str(caught.value).startswith("m: ")


MISFITS: dict[str, tuple[dict[str, str], str]] = {
    "shard called as the whole": (
        {**MAP, "a": "model.safetensors"},
        "the shard 'model.safetensors' is named as the whole",
    ),
    "shard called as the whole in another case": (
        {**MAP, "a": "Model.SafeTensors"},
        "is named as the whole",
    ),
    "shard empty": ({**MAP, "a": ""}, "empty part"),
    "shard in a folder": ({**MAP, "a": "x/y.safetensors"}, "not in its folder"),
    "shard outside": ({**MAP, "a": "../m.safetensors"}, "leaves the folder"),
    "shard the folder": ({**MAP, "a": ".."}, "leaves the folder"),
    "shard absolute": ({**MAP, "a": "/m.safetensors"}, "is absolute"),
    "shard with NUL": ({**MAP, "a": "m\0.safetensors"}, "control character"),
    "tensor in another shard": (
        {**MAP, "layer.1": shard(1)},
        f"'{shard(1)}' does not hold 'layer.1', and 1 more",
    ),
    "tensor not there": ({**MAP, "x": shard(2)}, f"'{shard(2)}' does not hold 'x'"),
    "tensor not named": (
        {name: MAP[name] for name in MAP if name != "layer.2"},
        f"it does not place 'layer.2' in '{shard(1)}'",
    ),
}


@pytest.mark.parametrize(("weight_map", "what"), MISFITS.values(), ids=MISFITS)
def test_an_index_that_does_not_fit_makes_doubtful_what_is_there(
    tmp_path: Path, weight_map: dict[str, str], what: str
) -> None:
    path = write(tmp_path, {"weight_map": weight_map})
    with (
        open_tensors(path, name="m", sha256=digests(tmp_path)) as file,
        whole(tmp_path, ARRAYS) as single,
    ):
        assert tensor_digests(file) == tensor_digests(single)
        (doubt,) = file.doubts
    assert doubt.startswith("m: the index does not fit: ")
    assert what in doubt


@pytest.mark.parametrize("total", [SIZE + 1, str(SIZE), None, True, [SIZE]])
def test_a_size_that_is_not_that_of_the_tensors_is_content(tmp_path: Path, total: object) -> None:
    index = {"metadata": {"total_size": total}, "weight_map": MAP}
    with open_tensors(write(tmp_path, index)) as file:
        assert dict(file.metadata) == {"index.total_size": json.dumps(total, separators=(",", ":"))}
        assert file.doubts == ()


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    path = write(tmp_path)
    arrays = {name: ARRAYS[name] for name in ("layer.0", "layer.1")}
    (tmp_path / shard(2)).write_bytes(simple(arrays))
    with pytest.raises(MalformedError, match=r"00002-of-00003.* both hold 'layer\.0'"):
        open_tensors(path)


def test_shards_that_differ_in_metadata(tmp_path: Path) -> None:
    path = write(tmp_path, format="pt")
    (tmp_path / shard(2)).write_bytes(simple({"layer.1": ARRAYS["layer.1"]}, format="tf"))
    with pytest.raises(MalformedError, match=r"00002-of-00003.* states another 'format'"):
        open_tensors(path)


def test_which_shard_says_what_is_a_matter_of_the_sharding(tmp_path: Path) -> None:
    facts = []
    for silent in (2, 3):
        path = write(tmp_path, format="pt")
        (name,) = SPLIT[silent - 1]
        (tmp_path / shard(silent)).write_bytes(simple({name: ARRAYS[name]}))
        with open_tensors(path) as file:
            assert dict(file.metadata) == {"format": "pt"}
            facts.append(file.container["sharding"])
    assert len(set(facts)) == 2


def test_metadata_that_index_and_shards_both_state(tmp_path: Path) -> None:
    index = {"metadata": {"a": 1}, "weight_map": MAP}
    path = write(tmp_path, index, **{"index.a": "1"})
    with pytest.raises(MalformedError, match=r"both state 'index\.a'"):
        open_tensors(path)


def test_shards_of_two_formats(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(File((), [filled("a", "F32", [2])]).written())
    path = write(tmp_path, {"weight_map": {**MAP, "a": "x.gguf"}})
    with pytest.raises(MalformedError, match="different formats"):
        open_tensors(path)


def test_a_missing_shard(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / shard(2)).unlink()
    with pytest.raises(UnreadableError, match=r"00002-of-00003.*no such file"):
        open_tensors(path)


def test_a_shard_without_a_reader(tmp_path: Path) -> None:
    path = write(tmp_path, {"weight_map": {"a": INDEX}})
    with pytest.raises(UnreadableError, match="cannot be read by this version"):
        open_tensors(path)


@pytest.mark.parametrize(
    ("limit", "what"), [("MAX_SHARDS", "more than 2 shards"), ("MAX_INDEX", "longer than 2 bytes")]
)
def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, what: str) -> None:
    monkeypatch.setattr(sharded, limit, 2)
    with pytest.raises(MalformedError, match=what):
        open_tensors(write(tmp_path))


def test_every_file_has_the_digest_that_it_should_have(tmp_path: Path) -> None:
    path = write(tmp_path)
    sha256 = digests(tmp_path)
    with open_tensors(path, sha256=sha256) as file:
        assert len(tensor_digests(file)) == len(ARRAYS)
    for name in sha256:
        wrong = {**sha256, name: "0" * 64}
        with pytest.raises(ContentError, match="no longer the file that was hashed") as caught:
            open_tensors(path, name="m", sha256=wrong)
        assert str(caught.value).startswith("m:" if name == INDEX else f"m: {name}")


def test_shards_that_the_index_does_not_name_and_those_that_are_missing(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / shard(4)).write_bytes(simple({"more": ARRAYS["layer.0"]}))
    with open_tensors(path, sha256=digests(tmp_path)) as file:
        assert f"it does not name '{shard(4)}'" in file.doubts[0]
        assert "more" in file.tensors
    for number in (3, 4):
        (tmp_path / shard(number)).unlink()
    with open_tensors(path, sha256=digests(tmp_path)) as file:
        assert f"the shard '{shard(3)}' is missing" in file.doubts[0]
        assert list(file.tensors) == ["layer.0", "layer.2", "layer.1"]


def descriptors(folder: Path) -> int:
    """Return how many files of *folder* this process has open."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found += entry.readlink().is_relative_to(folder)
        except FileNotFoundError:  # the listing's own
            continue
    return found


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an index of eight shards, of which two may be open."""
    monkeypatch.setattr(sharded, "MAX_OPEN", 2)
    arrays: Arrays = {f"t{i}": np.arange(600, dtype="<f4") + i for i in range(8)}
    for place, (name, array) in enumerate(arrays.items(), 1):
        (tmp_path / shard(place, 8)).write_bytes(simple({name: array}))
    path = tmp_path / INDEX
    weight_map = {name: shard(place, 8) for place, name in enumerate(arrays, 1)}
    path.write_text(json.dumps({"weight_map": weight_map}))
    return path


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_few_files_are_open(many: Path) -> None:
    with open_tensors(many, sha256=digests(many.parent)) as file:
        assert descriptors(many.parent) <= 3
        first = tensor_digests(file)
        assert tensor_digests(file) == first
        assert descriptors(many.parent) <= 3
    assert descriptors(many.parent) == 0


def test_a_shard_stays_open_while_it_is_read(many: Path) -> None:
    with open_tensors(many) as file:
        running = {name: file.chunks(name, 256) for name in file.tensors}
        parts = {name: [bytes(next(chunks))] for name, chunks in running.items()}
        for name, chunks in running.items():
            parts[name] += map(bytes, chunks)
        for place, name in enumerate(file.tensors):
            expected = (np.arange(600, dtype="<f4") + place).tobytes()
            assert b"".join(parts[name]) == expected


def test_many_threads_read_at_once(many: Path) -> None:
    with open_tensors(many) as file:
        expected = tensor_digests(file)
        found: list[Mapping[str, str]] = []
        threads = [
            threading.Thread(target=lambda: found.append(tensor_digests(file))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [expected] * 4


def replaced(path: Path) -> None:
    """Put another file of the same bytes in the place of *path*."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def test_a_shard_that_is_replaced_is_not_read(many: Path) -> None:
    with open_tensors(many) as file:
        replaced(many.parent / shard(1, 8))  # closed meanwhile: six were opened since
        with pytest.raises(UnreadableError, match=r"00001-of-00008.*changed while it was read"):
            next(file.chunks("t0", 256))
        with pytest.raises(UnreadableError, match="changed while it was read"):
            file.check_unchanged()


def test_a_shard_that_changes_while_it_is_opened(tmp_path: Path) -> None:
    def opener(path: Path, name: str, sha256: str | None) -> TensorFile:
        assert sha256 is None
        os.utime(path, ns=(0, 0))
        return open_tensors(path, name=name)

    index = write(tmp_path)
    with (
        Source(index, name="m") as source,
        pytest.raises(UnreadableError, match=r"^m: model-00001-of-00003.*changed"),
    ):
        sharded.ShardedFile(source, index, opener, None)


@pytest.mark.parametrize("name", [shard(1, 8), shard(8, 8), INDEX])
def test_a_change_is_noticed_at_the_end(many: Path, name: str) -> None:
    with open_tensors(many) as file:
        file.check_unchanged()
        status = (many.parent / name).stat()
        os.utime(many.parent / name, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        with pytest.raises(UnreadableError, match="changed while it was read"):
            file.check_unchanged()


@given(st.binary(max_size=60) | st.recursive(st.none() | st.text(max_size=3), st.lists))
def test_any_index_is_refused_or_read(folders: Iterator[Path], document: Any) -> None:  # noqa: ANN401
    folder = next(folders)
    folder.mkdir()
    path = folder / INDEX
    raw = document if isinstance(document, bytes) else json.dumps({"weight_map": document}).encode()
    path.write_bytes(raw)
    with pytest.raises(ProvenanceError):
        open_tensors(path)


def test_an_index_is_known_by_its_name(tmp_path: Path) -> None:
    assert carries_tensors("a/model.safetensors.index.json")
    assert is_readable("model.safetensors.index.json")
    assert carries_tensors("tf_model.h5.index.json")
    assert not carries_tensors("tokens.index.json")
    assert not carries_tensors("model.txt.index.json")
    assert not carries_tensors(".index.json")
    assert companions(write(tmp_path)) == (shard(1), shard(2), shard(3))
    assert companions(tmp_path / shard(1)) == ()
