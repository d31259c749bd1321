from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.equality.patterns import fault, selects_file, selects_tensor
from tests.loaders.test_globs import GLOBS, NAMES, alone

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


@given(GLOBS, st.lists(st.booleans(), min_size=6), NAMES)
def test_many_patterns_select_what_they_do_one_after_the_other(
    globs: list[str], excluded: list[bool], names: list[str]
) -> None:
    patterns = ["!" * out + each for each, out in zip(globs, excluded, strict=False)]
    for name in names:
        for select, paths in ((selects_file, True), (selects_tensor, False)):
            matching = [it for it in patterns if alone(it.removeprefix("!"), name, paths=paths)]
            assert select(patterns, name) is (matching[-1:] != [] and matching[-1][:1] != "!")
