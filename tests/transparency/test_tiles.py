from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import MalformedError
from provenance.transparency import merkle, tiles
from provenance.transparency.tiles import ENTRIES, WIDTH, Tile

PATHS = {
    "tile/0/000": Tile(0, 0, 256),
    "tile/0/001": Tile(0, 1, 256),
    "tile/0/999": Tile(0, 999, 256),
    "tile/0/x001/000": Tile(0, 1000, 256),
    "tile/0/x001/x234/067": Tile(0, 1234067, 256),
    "tile/1/000.p/17": Tile(1, 0, 17),
    "tile/63/000.p/255": Tile(63, 0, 255),
    "tile/entries/x001/x234/067.p/1": Tile(ENTRIES, 1234067, 1),
    "tile/entries/273": Tile(ENTRIES, 273, 256),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_names_a_tile_and_a_tile_its_path(path: str) -> None:
    assert tiles.parse_path(path) == PATHS[path]
    assert tiles.format_path(PATHS[path]) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "tile/0",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/1234",
        "tile/0/x000/001",
        "tile/0/x000/x000/001",
        "tile/0/001/x002",
        "tile/0/x001",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/100/000",
        "tile/-1/000",
        "tile/data/000",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/1.tmp",
        "tile/0/000/",
        "/tile/0/000",
        "x/tile/0/000",
        "tile/0/../0/000",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/000\n",
        "tile/0/x" + "999/x" * 30 + "999",
        "tile/0/X001/000",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(MalformedError, match="not the path of a tile"):
        tiles.parse_path(path)


@given(st.integers(-1, 63), st.integers(0, 2**63 - 1), st.integers(1, 256))
def test_every_tile_has_a_path(level: int, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert tiles.parse_path(tiles.format_path(tile)) == tile


@given(st.text("tilenrsxp.0123456789/", max_size=30))
def test_any_path_is_that_of_one_tile_or_refused(path: str) -> None:
    for candidate in (path, "tile/0/" + path, "tile/entries/000" + path):
        try:
            tile = tiles.parse_path(candidate)
        except MalformedError:
            continue
        assert tiles.format_path(tile) == candidate


def test_the_tiles_of_the_specification_s_example() -> None:
    # tlog-tiles, "Partial Tiles": a tree of size 70,000, and one of size 256.
    counts: dict[int, list[int]] = {}
    for tile in tiles.between(0, 70_000):
        counts.setdefault(tile.level, []).append(tile.width)
    assert counts == {
        ENTRIES: [256] * 273 + [112],
        0: [256] * 273 + [112],
        1: [256, 17],
        2: [1],
    }
    assert list(tiles.between(0, 256)) == [
        Tile(ENTRIES, 0, 256),
        Tile(0, 0, 256),
        Tile(1, 0, 1),
    ]
    assert list(tiles.between(0, 0)) == []


def leaves_of(size: int) -> list[bytes]:
    return [merkle.hash_leaf(b"%d" % number) for number in range(size)]


@given(st.lists(st.integers(0, 700), max_size=6))
def test_growing_writes_the_tiles_of_the_tree(steps: list[int]) -> None:
    leaves = leaves_of(sum(steps))
    store: dict[Tile, bytes] = {}
    edge: tiles.Edge = ()
    size = 0
    for step in steps:
        written, edge = tiles.extend(size, edge, leaves[size : size + step])
        hash_tiles = [tile for tile in tiles.between(size, size + step) if tile.level != ENTRIES]
        assert list(written) == hash_tiles
        store |= written
        size += step
        assert tiles.root(edge) == merkle.fold(leaves[:size])
        for row, tile in zip(edge, tiles.edge_tiles(size), strict=True):
            assert b"".join(row) == (store[tile] if tile else b"")

    def read(tile: Tile) -> tuple[bytes, ...]:
        return tiles.parse_tile(store[tile], tile)

    if size:
        assert merkle.root_between(0, size, tiles.subtree(size, read)) == merkle.fold(leaves)


@given(st.integers(1, 70_000), st.data())
def test_proofs_read_few_tiles(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    asked: set[Tile] = set()

    def read(tile: Tile) -> list[bytes]:
        asked.add(tile)
        return [b"\x00" * 32] * tile.width

    merkle.prove_inclusion(index, size, tiles.subtree(size, read))
    assert asked <= set(tiles.between(0, size))
    assert len(asked) <= 2 * 3  # at each of three levels: the leaf's tile and the edge


def test_a_tile_of_another_length_is_malformed() -> None:
    assert len(tiles.parse_tile(b"\x00" * 8192, Tile(0, 0, 256))) == 256
    for length in (0, 31, 33, 8191, 8193):
        with pytest.raises(MalformedError, match="has 8192 bytes"):
            tiles.parse_tile(b"\x00" * length, Tile(0, 0, 256))


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_a_bundle_is_read_back(entries: list[bytes]) -> None:
    data = tiles.format_bundle(entries)
    assert tiles.parse_bundle(data, len(entries)) == tuple(entries)
    if entries:
        with pytest.raises(MalformedError, match="ends within entry"):
            tiles.parse_bundle(data[:-1], len(entries))
        with pytest.raises(MalformedError, match="bytes after its"):
            tiles.parse_bundle(data, len(entries) - 1)
    with pytest.raises(MalformedError, match="bytes after its"):
        tiles.parse_bundle(data + b"\x00", len(entries))
    with pytest.raises(MalformedError, match="ends within entry"):
        tiles.parse_bundle(data, len(entries) + 1)


@given(st.binary(max_size=60), st.integers(0, WIDTH))
def test_any_bytes_are_a_bundle_or_malformed(data: bytes, width: int) -> None:
    try:
        entries = tiles.parse_bundle(data, width)
    except MalformedError:
        return
    assert tiles.format_bundle(entries) == data


def test_an_entry_has_at_most_65535_bytes() -> None:
    assert tiles.parse_bundle(tiles.format_bundle([b"x" * 65_535]), 1) == (b"x" * 65_535,)
