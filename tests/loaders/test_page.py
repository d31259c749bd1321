"""docs/loaders.md says what the table says."""

from __future__ import annotations

from pathlib import Path

from provenance.loaders.table import table
from tools.loaders import PAGE, page

TEXT = (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8")


def test_the_page_is_current() -> None:
    assert page(TEXT, table()) == TEXT, "run python -m tools.loaders"


def test_every_reason_and_every_file_is_on_the_page() -> None:
    found = table()
    stated = [(each.file, each.why) for each in found.free]
    stated += [(each.file, each.why) for each in (*found.set, *found.base)]
    for file, why in stated:
        assert f"`{file}`" in TEXT
        assert why in TEXT
    for loader in found.loader:
        assert f"### {loader.name} {loader.version}\n" in TEXT
        assert all(f"`{each.file}`" in TEXT for each in loader.opens)
