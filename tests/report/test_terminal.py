"""Text for a terminal: wrapped, coloured, in the signs of its encoding; JSON; tables."""

from __future__ import annotations

import io
import json
import shutil
import sys
from os import terminal_size

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.report.terminal import (
    PLAIN,
    WIDEST,
    dim,
    good,
    print_json,
    print_lines,
    table,
    wants_colour,
    wrap,
)

OBEYED = "\x9b2J\x7f\u202e\u2028\u2066\ufeff\U000e0001\x1b\n"


def test_nothing_that_a_terminal_could_obey_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    document = {OBEYED: [OBEYED, "plain \u20ac \U0001f600 é"]}
    print_json(document)
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    assert "plain \u20ac \U0001f600 é" in shown
    assert "\\u202e" in shown
    assert json.loads(shown) == document


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_printed_is_the_document(document: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("click.echo", lines.append)
        print_json(document)
    (text,) = lines
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == document


def test_json_in_another_encoding_is_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "latin-1", errors=PLAIN)
    monkeypatch.setattr(sys, "stdout", stream)
    document = ["✓ – \U0001f600 é"]
    print_json(document)
    stream.flush()
    assert json.loads(raw.getvalue().decode("ascii")) == document


# --- Signs and colours ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "spelled"),
    [
        ("utf-8", "✓ ✗ – … × ≠ ∞ \u20ac"),
        ("latin-1", "ok no -- ... × != inf \\u20ac"),
        ("ascii", "ok no -- ... x != inf \\u20ac"),
    ],
)
def test_a_sign_that_the_encoding_lacks_is_spelled(encoding: str, spelled: str) -> None:
    assert "✓ ✗ – … × ≠ ∞ \u20ac".encode(encoding, PLAIN).decode(encoding) == spelled


def test_the_handler_decodes_nothing() -> None:
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", PLAIN)


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({"NO_COLOR": "", "FORCE_COLOR": ""}, None),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour(environ: dict[str, str], wanted: bool | None) -> None:
    assert wants_colour(environ) is wanted


# --- Wrapping -------------------------------------------------------------------------------------


def test_a_short_line_stays() -> None:
    assert wrap("  label    text  and more", 80) == ["  label    text  and more"]


def test_a_continued_line_stands_under_the_text() -> None:
    assert wrap("  label    one two three", 16) == ["  label    one", "    two three"]
    assert wrap("  label    one two three", 24) == ["  label    one two three"]
    assert wrap("  label    one two three four", 23) == [
        "  label    one two",
        "           three four",
    ]
    assert wrap("one two three", 9, 4) == ["one two", "    three"]


def test_a_long_word_has_a_line_of_its_own_and_stays_whole() -> None:
    word = "a" * 64
    assert wrap(f"  subject      the model {word} and so on", 80) == [
        "  subject      the model",
        f"               {word}",
        "               and so on",
    ]
    assert wrap(f"✓ 2 signature            signed by {word}", 80, 25)[1] == f"{'':16}{word}"
    assert wrap(f"x {word * 2}", 80) == ["x", word * 2]


def test_a_word_that_may_be_cut_stays_under_the_text() -> None:
    long = "b" * 70
    assert wrap(f"✓ 2 signature            signed by {long} x", 80, 25, whole=False) == [
        "✓ 2 signature            signed by",
        f"{'':25}{long[:54]}",
        f"{'':25}{long[54:]} x",
    ]
    digest = "a" * 64
    assert wrap(f"  root       of {digest}", 70, whole=False) == [
        "  root       of",
        f"{'':6}{digest}",
    ]


def test_colours_take_no_columns() -> None:
    line = f"{good('=')} {'a' * 38} {dim('b' * 39)}"
    assert wrap(line, 80) == [line]


@given(st.text("ab \x1b", max_size=200), st.integers(1, 100))
def test_no_word_is_lost_or_cut(text: str, width: int) -> None:
    assert [word for part in wrap(text, width) for word in part.split()] == text.split()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_a_terminal_is_wrapped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: terminal_size((20, 24)))
    print_lines(["word " * 10])
    assert capsys.readouterr().out == "word " * 10 + "\n"
    for name in ("stdout", "stderr"):
        stream = Terminal()
        monkeypatch.setattr(sys, name, stream)
        print_lines(["word " * 10], err=name == "stderr")
        lines = click.unstyle(stream.getvalue()).splitlines()
        assert len(lines) > 1
        assert all(len(line) <= 20 for line in lines)


# --- Tables ---------------------------------------------------------------------------------------

HEADER = ("name", "empty", "number")


def test_columns_are_as_wide_as_what_they_hold() -> None:
    rows = [("w", "", "1"), ("weight", "", "1,000")]
    assert table(HEADER, rows, right=frozenset({2})) == [
        "name    number",
        "w            1",
        "weight   1,000",
    ]


def test_a_row_may_be_shorter_or_longer() -> None:
    assert table(("a", "b"), [("x",), ("y", "z", "remark")]) == ["a  b", "x", "y  z  remark"]


def test_a_long_cell_loses_its_middle() -> None:
    name = "a" * WIDEST + "b" * WIDEST
    (_, line) = table(("name",), [(name,)])
    assert len(line) <= WIDEST
    assert (line[0], line[-1], "…" in line) == ("a", "b", True)


def test_without_rows_nothing_but_an_empty_header() -> None:
    assert table(HEADER, []) == [""]


def test_names_that_would_look_the_same_stay_whole() -> None:
    layers = [f"{'a' * WIDEST}.{number}.{'b' * WIDEST}" for number in range(2)]
    other = "a" * WIDEST + "c" * WIDEST
    header, *lines = table(["name"], [[name] for name in [*layers, other]])
    assert header == "name"
    assert lines[:2] == layers
    assert len(lines[2]) < WIDEST
