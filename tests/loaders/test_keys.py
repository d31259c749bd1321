"""Patterns of keys select what they spell and nothing beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.loaders import keys


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        ("log_history[].train_runtime", ("log_history", 3, "train_runtime")),
        ("[][].x", (0, 1, "x")),
        ('"modelspec.date"', ("modelspec.date",)),
        ("callbacks.*.dirpath", ("callbacks", "ModelCheckpoint{'every.n': 1}", "dirpath")),
        ("ss_*", ("ss_session_id",)),
        ("a.**", ("a",)),
        ("a.**", ("a", 0, "b")),
        ("**", ()),
    ],
)
def test_it_selects(pattern: str, path: keys.Path) -> None:
    assert keys.selects(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a", ("A",)),
        ("a", ("a", "b")),
        ("a.*", ("a", "b", "c")),
        ("a.*", ("a", 0)),
        ("a[]", ("a", "0")),
        ("a.b", ("a.b",)),
        ("a", ("a\n",)),
        ("a?", ("ab",)),
        ("a.**", ("b",)),
    ],
)
def test_it_does_not_select(pattern: str, path: keys.Path) -> None:
    assert not keys.selects(pattern, path)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a[0]",
        "a]",
        "**.a",
        'a"b"',
        '""',
        "a[].",
        "a" * 300,
        "[]a",
    ],
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|is) "):
        keys.parse(pattern)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=6)
        | st.integers(0, 9),
        min_size=1,
        max_size=6,
    )
)
def test_what_is_spelled_selects_its_own_path(path: list[str | int]) -> None:
    assert keys.selects(keys.spelled(tuple(path)), tuple(path))
