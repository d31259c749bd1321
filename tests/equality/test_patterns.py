from __future__ import annotations

import time

import pytest

from provenance.equality.patterns import fault, selects_file, selects_tensor

FILES = [
    ("*.safetensors", "model.safetensors", True),
    ("*.safetensors", "deep/er/model.safetensors", True),
    ("model.safetensors", "other-model.safetensors", False),
    ("sub/*.npz", "sub/a.npz", True),
    ("sub/*.npz", "a/sub/a.npz", False),
    ("sub/*.npz", "sub/a/b.npz", False),
    ("/a.npz", "a.npz", True),
    ("/a.npz", "b/a.npz", False),
    ("**/a.npz", "a.npz", True),
    ("**/a.npz", "b/c/a.npz", True),
    ("b/**/a.npz", "b/a.npz", True),
    ("b/**", "b/c/d", True),
    ("shard-[0-9].npz", "shard-3.npz", True),
    ("shard-[!0-9].npz", "shard-3.npz", False),
    ("shard-?.npz", "shard-10.npz", False),
    ("a.b", "axb", False),
    ("A", "a", False),
]


@pytest.mark.parametrize(("pattern", "name", "selected"), FILES)
def test_file_patterns(pattern: str, name: str, selected: bool) -> None:
    assert fault(pattern) is None
    assert selects_file([pattern], name) is selected


def test_tensor_patterns_cross_slashes() -> None:
    assert selects_tensor(["*"], "layer/0/w")
    assert selects_tensor(["layer/*"], "layer/0/w")
    assert not selects_tensor(["*.bias"], "layer.weight")
    assert selects_tensor(["*"], "a\nb")


def test_the_last_match_decides() -> None:
    patterns = ["*", "!*.bias", "head.bias"]
    assert [selects_tensor(patterns, name) for name in ("w", "a.bias", "head.bias")] == [
        True,
        False,
        True,
    ]
    assert not selects_tensor(["!*"], "w")
    assert not selects_file([], "w")


@pytest.mark.parametrize(
    "pattern", ["", "!", "!!a", "a\\b", "a\nb", "../a", "a//b", "a/", "a" * 257]
)
def test_faulty_patterns_are_named(pattern: str) -> None:
    assert fault(pattern) is not None


def test_no_pattern_takes_long() -> None:
    pattern = "*a" * 100 + "b"
    began = time.monotonic()
    assert not selects_tensor([pattern], "a" * 5000)
    assert not selects_file(["**/" * 60 + "b"], "a/" * 2000 + "a")
    assert not selects_file([pattern], "a" * 5000)
    assert time.monotonic() - began < 5
