"""How often each byte of a model is read."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from provenance.api.checking import compare
from tests.weights.writing import simple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ELEMENTS = 3 * 2**22 + 5
"""Of the largest tensor: several pieces."""

SLACK = 2**17
"""Bytes that may be read once more: headers."""


digests = hashlib.sha256


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


def largest_share(counts: Counter[str], files: Sequence[Path]) -> float:
    """Return how often a byte of *files* was read, of the one that was read most."""
    sizes = {str(path): path.stat().st_size for path in files}
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
    values = np.arange(ELEMENTS, dtype="<u4").view("<f4")
    files = []
    for side in "ab":
        (tmp_path / side).mkdir()
        files.append(tmp_path / side / "model.safetensors")
        files[-1].write_bytes(simple({"w": values, "small": values[:7]}))
    monkeypatch.setattr(hashlib, "sha256", _Short)
    for left, right in (files, [tmp_path / "a", tmp_path / "b"]):
        with counted() as counts:
            assert compare(left, right).same
        assert largest_share(counts, files) <= 1
