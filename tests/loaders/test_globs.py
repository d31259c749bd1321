"""All globs at once answer as each does alone, by an engine that asks them one after the other."""

from __future__ import annotations

import time
import tracemalloc
from fnmatch import translate
from re import compile as compiled

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.loaders import globs
from provenance.loaders.globs import Globs

GLOBS = st.lists(
    st.text(alphabet="ab/*?[]!-^.\\&|~\n", max_size=12)
    | st.text(alphabet="a/*", max_size=12)
    | st.lists(st.sampled_from(["**", "*", "a", "b*", "?", "[!a]"]), max_size=6).map("/".join),
    max_size=6,
)
NAMES = st.lists(st.text(alphabet="ab/-]!^.[&|~\\\n", max_size=12), max_size=6)


def alone(glob: str, name: str, *, paths: bool) -> bool:
    """Tell whether *glob* matches *name*, by an expression for each part."""
    if not paths or "/" not in glob:
        last = name.rpartition("/")[2] if paths else name
        return compiled(translate(glob)).match(last) is not None
    parts = name.split("/")
    reached = [True] + [False] * len(parts)  # the glob so far matches the first parts
    for wanted in glob.removeprefix("/").split("/"):
        if wanted == "**":
            reached = [any(reached[: index + 1]) for index in range(len(reached))]
        else:
            part = compiled(translate(wanted))
            matched = [part.match(each) is not None for each in parts]
            reached = [False, *(a and b for a, b in zip(reached, matched, strict=False))]
    return reached[-1]


@given(GLOBS, NAMES, st.booleans())
def test_they_match_what_each_matches_alone(
    patterns: list[str], names: list[str], paths: bool
) -> None:
    every = Globs(patterns, paths=paths)
    for name in names:
        matching = tuple(i for i, each in enumerate(patterns) if alone(each, name, paths=paths))
        assert every.matching(name) == matching


@given(GLOBS, NAMES)
def test_neither_how_many_there_are_nor_what_was_kept_changes_an_answer(
    patterns: list[str], names: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(globs, "MAX_PLACES", 3)
        patch.setattr(globs, "MAX_KEPT", 1)
        scarce = Globs(patterns, paths=True)
    for name in names * 2:
        assert scarce.matching(name) == Globs(patterns, paths=True).matching(name)


@pytest.mark.parametrize(
    "names",
    [
        [chr(code) for code in range(0x3400, 0xD7FF)],
        [f"{at * 0x9E3779B97F4A7C15 % 2**63:063b}".replace("1", "a") for at in range(700)],
    ],
    ids=["letters", "sets of places"],
)
def test_what_is_kept_is_bounded(names: list[str]) -> None:
    many = Globs(["*a" + "?" * 40], paths=False)
    tracemalloc.start()
    try:
        for name in names:
            many.matching(name)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2**20


@pytest.mark.parametrize("paths", [True, False])
@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 100 + "b", "a" * 65_000),
        ("*" + "a" * 200 + "b*", "a" * 65_000),
        ("*a" + "?" * 200, "aabab" * 13_000),
        ("*" + "[!b]" * 60 + "b", "".join(map(chr, range(1000, 55_000)))),
        ("**/a*" * 50 + "/b", "a/" * 32_000 + "a"),
    ],
)
def test_no_pattern_takes_long(pattern: str, name: str, paths: bool) -> None:
    began = time.monotonic()
    Globs([pattern[at:] + "c" for at in range(64)], paths=paths).matching(name)
    assert time.monotonic() - began < 30
