"""How often each byte of a model is read, and what is hashed."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from provenance.api.checking import agree, compare, verify
from provenance.equality.declaration import parse
from provenance.measure import pieces
from tests.weights import gguf_writing as gguf
from tests.weights import torch_writing as torch
from tests.weights.writing import archive, npy, simple
from tests.world import attest, declared, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.world import Person

    Arrays = Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]

EMPTY = np.zeros((0, 3), "<f4")
LARGE = 2**20 + 5
"""Elements of the largest tensor: several pieces of :func:`small_pieces`."""

SLACK = 300_000
"""Bytes that may be read once more: headers."""

CLOSE = b"""
format = 1
version = 1
name = "near"
[[any]]
[[any.all]]
equality = "close"
relative_to = "weights"
relative_l2 = 0.1
relative_linf = 1
max_rank = 2
reason = "made up"
"""

ROUNDED = b"""
format = 1
version = 1
name = "rounded"
[[any]]
[[any.all]]
equality = "rounded"
to = "BF16"
reason = "made up"
"""

digests = hashlib.sha256


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models of some megabytes be read as larger ones are, by several threads."""
    for name, value in {"PIECE": 2**18, "READ": 2**16, "SMALL": 2**18}.items():
        monkeypatch.setattr(pieces, name, value)
    monkeypatch.setattr(pieces, "cores", lambda: 3)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the bytes read of each file meanwhile, by path."""
    counts: Counter[str] = Counter()
    names: dict[int, str] = {}
    originals = {name: getattr(os, name) for name in ("open", "read", "readv", "preadv")}

    def opened(path: str | Path, *args: object, **options: object) -> int:
        descriptor: int = originals["open"](path, *args, **options)
        names[descriptor] = os.fspath(path)
        return descriptor

    def read(descriptor: int, size: int) -> bytes:
        data: bytes = originals["read"](descriptor, size)
        counts[names.get(descriptor, "")] += len(data)
        return data

    def into(name: str) -> object:
        def call(descriptor: int, buffers: Sequence[memoryview], *args: int) -> int:
            size: int = originals[name](descriptor, buffers, *args)
            counts[names.get(descriptor, "")] += size
            return size

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        patch.setattr(os, "read", read)
        for name in ("readv", "preadv"):
            patch.setattr(os, name, into(name))
        yield counts


def share(counts: Counter[str], folder: Path) -> float:
    """Return how often the bytes of the large file of *folder* that was read most were read."""
    sizes = {str(it): it.stat().st_size for it in folder.iterdir() if it.stat().st_size > 2 * SLACK}
    assert sizes
    assert all(counts[path] >= size for path, size in sizes.items())
    return max((counts[path] - SLACK) / size for path, size in sizes.items())


class _Short:
    """SHA-256 of texts and headers alone."""

    def __init__(self, data: bytes) -> None:
        assert len(data) < 1000
        self.hexdigest = digests(data).hexdigest


def test_equal_files_are_read_once_and_not_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write_files(tmp_path / side, PLACED["safetensors"](WEIGHTS)) for side in "ab"]
    monkeypatch.setattr(hashlib, "sha256", _Short)
    for left, right in (folders, [each / "model.safetensors" for each in folders]):
        with counted() as counts:
            assert compare(left, right).same
        assert max(share(counts, folder) for folder in folders) <= 1


def _sharded(arrays: Arrays) -> dict[str, bytes]:
    shards = {f"model-0000{n}-of-00002.safetensors": name for n, name in enumerate(arrays, 1)}
    index = {"metadata": {}, "weight_map": {name: shard for shard, name in shards.items()}}
    held = {shard: simple({name: arrays[name]}) for shard, name in shards.items()}
    return {"model.safetensors.index.json": json.dumps(index).encode(), **held}


def _gguf(arrays: Arrays) -> dict[str, bytes]:
    tensors = [gguf.Tensor(name, [each.size], each.tobytes()) for name, each in arrays.items()]
    return {"model.gguf": gguf.File(tensors=tensors).written()}


def _npz(arrays: Arrays) -> dict[str, bytes]:
    return {"model.npz": archive({f"{name}.npy": npy(each) for name, each in arrays.items()})}


def _hdf5(arrays: Arrays) -> dict[str, bytes]:
    hdf5 = pytest.importorskip("tests.weights.hdf5_writing")
    return {"model.h5": hdf5.hdf5(lambda file: file.update(arrays))}


def _onnx(arrays: Arrays) -> dict[str, bytes]:
    onnx = pytest.importorskip("tests.weights.onnx_writing")
    tensors = [onnx.tensor(name, each) for name, each in arrays.items()]
    return {"model.onnx": onnx.written(onnx.model(tensors))}


PLACED: dict[str, Callable[[Arrays], dict[str, bytes]]] = {
    "safetensors": lambda arrays: {"model.safetensors": simple({"a": EMPTY, **arrays})},
    "sharded": _sharded,
    "gguf": _gguf,
    "npy": lambda arrays: {f"{name}.npy": npy(each) for name, each in arrays.items()},
}
"""Formats whose bytes are read once."""

OTHERS: dict[str, Callable[[Arrays], dict[str, bytes]]] = {
    "npz": _npz,
    "torch": lambda arrays: {"model.pt": torch.saved(arrays)},
    "hdf5": _hdf5,
    "onnx": _onnx,
}
"""Formats whose bytes are read at most twice."""

EVERY = [(name, write, 1) for name, write in PLACED.items()]
EVERY += [(name, write, 2) for name, write in OTHERS.items()]

formats = pytest.mark.parametrize(
    ("write", "most"), [it[1:] for it in EVERY], ids=[*PLACED, *OTHERS]
)

_RANDOM = np.random.default_rng(1)
WEIGHTS = {"w": _RANDOM.standard_normal(LARGE, "f4"), "v": _RANDOM.standard_normal(70_000, "f4")}
CHANGED = {name: each * np.float32(1.001) for name, each in WEIGHTS.items()}
AGAIN = {name: each * np.float32(1.002) for name, each in WEIGHTS.items()}
LATE = {name: each.copy() for name, each in WEIGHTS.items()}
LATE["w"][-7] += 1


@formats
@pytest.mark.parametrize("other", [WEIGHTS, CHANGED], ids=["equal", "different"])
@pytest.mark.parametrize("declaration", [None, CLOSE, ROUNDED], ids=["plain", "close", "rounded"])
def test_compare_reads_each_byte_once(
    tmp_path: Path,
    write: Callable[[Arrays], dict[str, bytes]],
    most: int,
    other: Arrays,
    declaration: bytes | None,
) -> None:
    folders = [write_files(tmp_path / s, write(it)) for s, it in (("a", WEIGHTS), ("b", other))]
    with counted() as counts:
        found = compare(*folders, equality=None if declaration is None else parse(declaration))
    assert found.same == (other is WEIGHTS or declaration is CLOSE)
    assert max(share(counts, folder) for folder in folders) <= most


@pytest.mark.parametrize("write", PLACED.values(), ids=PLACED)
def test_what_is_equal_before_the_first_difference_of_a_tensor_is_read_again_on_one_side(
    tmp_path: Path, write: Callable[[Arrays], dict[str, bytes]]
) -> None:
    folders = [write_files(tmp_path / s, write(it)) for s, it in (("a", WEIGHTS), ("b", LATE))]
    with counted() as counts:
        assert not compare(*folders).same
    assert share(counts, folders[0]) <= 2
    assert share(counts, folders[1]) <= 1
    with counted() as counts:  # no norm is asked for
        outcome = compare(*folders, equality="tensors").outcome
    assert outcome is not None
    assert outcome.conclusion == "mismatch"


@formats
@pytest.mark.parametrize(
    "others", [[WEIGHTS], [CHANGED], [LATE], [CHANGED, AGAIN], [LATE, CHANGED]]
)
def test_agree_reads_each_byte_once(
    tmp_path: Path,
    people: dict[str, Person],
    write: Callable[[Arrays], dict[str, bytes]],
    most: int,
    others: Sequence[Arrays],
) -> None:
    folders = []
    for name, arrays in zip(("alice", "bob", "mallory"), (WEIGHTS, *others), strict=False):
        root = write_files(tmp_path / name / "model", write(arrays))
        attest(root, people[name], equality=declared(CLOSE))
        folders.append(root)
    keys = [person.key.public for person in people.values()]
    with counted() as counts:
        verdict = agree(folders, keys=keys)
    assert verdict.conclusion == ("match" if others[0] is WEIGHTS else "consistent")
    assert max(share(counts, folder) for folder in folders) <= most
    with counted() as counts:
        verify(folders[0], keys=keys)
    assert share(counts, folders[0]) <= 1


def test_no_digest_waits_for_a_tensor_that_one_side_alone_has(
    tmp_path: Path, people: dict[str, Person]
) -> None:
    folders = []
    for name, more in (("alice", {}), ("bob", {"a": np.ones(5, "f4")})):
        root = write_files(tmp_path / name, {"m.safetensors": simple(more | WEIGHTS)})
        attest(root, people[name], equality=declared(CLOSE))
        folders.append(root)
    keys = [person.key.public for person in people.values()]
    assert agree(folders, keys=keys).conclusion == "mismatch"


def test_many_small_files_are_read_once(tmp_path: Path) -> None:
    for side, step in (("a", 0), ("b", 1)):
        (tmp_path / side).mkdir()
        for number in range(300):
            each = np.full(1000, number + step * (number % 3 == 0), "<f4")
            (tmp_path / side / f"{number}.safetensors").write_bytes(simple({"w": each}))
    with counted() as counts:
        assert not compare(tmp_path / "a", tmp_path / "b").same
    sizes = {str(path): path.stat().st_size for path in tmp_path.glob("*/*")}
    assert all(size <= counts[path] <= size + 1000 for path, size in sizes.items())
