"""A table in plain text, as narrow as what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDEST: Final = 44
"""Widest column, in characters; a longer cell loses its middle, for names differ at their ends.
Cells that would then look the same stay whole."""

_GAP: Final = "  "


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()
) -> list[str]:
    """Return *header* and *rows* as aligned lines; the columns *right* are aligned to the right.

    A row may have fewer cells than the header, and more: these are not aligned. A column in which
    no row has anything is left out.
    """
    looks: dict[str, set[str]] = {}
    for cell in (cell for row in rows for cell in row):
        looks.setdefault(_cut(cell), set()).add(cell)
    cells = [[_cut(cell) if len(looks[_cut(cell)]) == 1 else cell for cell in row] for row in rows]
    used = [n for n in range(len(header)) if any(len(row) > n and row[n] for row in cells)]
    widths = {n: max(len(header[n]), *(len(row[n]) for row in cells if len(row) > n)) for n in used}
    lines = []
    for row in [list(header), *cells]:
        parts = [_aligned(row[n] if len(row) > n else "", widths[n], n in right) for n in used]
        lines.append(_GAP.join([*parts, *row[len(header) :]]).rstrip())
    return lines


def _aligned(text: str, width: int, to_right: bool) -> str:  # noqa: FBT001 - one caller, beside it
    return text.rjust(width) if to_right else text.ljust(width)


def _cut(text: str) -> str:
    if len(text) <= WIDEST:
        return text
    half = (WIDEST - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
