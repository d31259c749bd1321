"""Every transcript here, and every console block of the README, does what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from provenance import cli
from tests.sessions.session import as_pattern, console_blocks, parse, run

HERE = Path(__file__).parent
README = HERE.parent.parent / "README.md"
VERIFY = README.parent / "docs/verify.md"
SESSIONS = sorted(HERE.glob("*.txt"))

WITHOUT_SESSION = {"demo"}
"""Verbs that print a session themselves (tests/cli/test_demo.py)."""

ABOUT_ALL_VERBS = {"mistakes"}
"""Sessions that are about no verb of their own."""


def folder(tmp_path: Path) -> Path:
    made = tmp_path / "session"
    made.mkdir()
    return made


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_session(path: Path, tmp_path: Path) -> None:
    assert run(parse(path.read_text("utf-8")), folder(tmp_path)) > 0


def test_every_verb_has_its_session() -> None:
    assert {path.stem for path in SESSIONS} - ABOUT_ALL_VERBS == set(cli.COMMANDS) - WITHOUT_SESSION


@pytest.mark.parametrize("page", [README, VERIFY], ids=lambda page: page.name)
def test_the_pages(page: Path, tmp_path: Path) -> None:
    blocks = console_blocks(page.read_text("utf-8"))
    assert blocks
    assert run(parse("".join(blocks)), folder(tmp_path)) > 0


# --- The runner itself ----------------------------------------------------------------------------


def test_what_a_pattern_stands_for() -> None:
    assert as_pattern(("a … c", "…", "end")).fullmatch("a b c\nx\ny\nend\n")
    assert as_pattern(("a … c", "…", "end")).fullmatch("a  c\nend\n")
    assert not as_pattern(("a … c",)).fullmatch("a b d\n")
    assert not as_pattern(("a",)).fullmatch("a\nb\n")
    assert not as_pattern(()).fullmatch("anything\n")
    assert as_pattern(("1+1 (x)",)).fullmatch("1+1 (x)\n")


def test_what_a_transcript_says() -> None:
    text = "# remark\n\n$ one\na\n\nb\n\n# remark\n$ two\n(exit status 3)\n"
    one, two = parse(text)
    assert (one.line, one.expected, one.status) == ("one", ("a", "", "b"), 0)
    assert (two.line, two.expected, two.status) == ("two", (), 3)


def test_a_line_runs_where_the_one_before_left_off(tmp_path: Path) -> None:
    text = "$ mkdir a && cd a\n$ pwd; (exit 3)\n…/session/a\n(exit status 3)\n$ ls ../a\n"
    assert run(parse(text), folder(tmp_path)) == 3


@pytest.mark.parametrize("text", ["$ true\n(exit status 1)", "$ echo a", "$ echo a\nb"])
def test_a_transcript_that_is_wrong(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run(parse(text), folder(tmp_path))
