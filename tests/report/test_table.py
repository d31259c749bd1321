"""Tables in plain text."""

from __future__ import annotations

from provenance.report.table import WIDEST, table

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
