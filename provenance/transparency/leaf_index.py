"""Where each leaf hash stands in a log: a cache, in one SQLite file.

A log must answer "is this entry in already?" without reading all of its tiles. The file holds
nothing that the tiles do not hold: when it is missing, damaged or behind, the caller reads the rest
from the tiles, and an answer counts only after the tile agrees. So no failure here is an error: a
damaged index is removed and made anew.

``leaves(hash, position)`` holds the first position of each hash among the first ``covered.size``
leaves of the log.
"""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

CACHE_KIBIBYTES = 64 * 2**10
"""Memory for the table while it is written, in KiB: a million leaves take about 50 MiB."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leaves (
    hash BLOB PRIMARY KEY, position INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS covered (size INTEGER NOT NULL);
INSERT INTO covered SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM covered);
"""


def lookup(path: Path, hashes: Iterable[bytes]) -> tuple[int, dict[bytes, int]] | None:
    """Return how many leaves the index *path* covers, and the positions of *hashes* among them.

    None is returned where the index is damaged; one that is missing or locked covers nothing.
    """
    try:
        with _opened(path, "ro") as connection:
            size = _covered(connection)
            query = "SELECT position FROM leaves WHERE hash = ?"
            rows = ((item, connection.execute(query, (item,)).fetchone()) for item in hashes)
            return size, {item: _natural(row) for item, row in rows if row}
    except sqlite3.OperationalError:
        return 0, {}
    except sqlite3.Error:
        return None


def add(path: Path, start: int, hashes: Sequence[bytes]) -> None:
    """Add *hashes*, the leaves from *start* on; the index must cover just those before."""
    try:
        with _opened(path, "rwc") as connection:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                if _covered(connection) != start:
                    return
                rows = zip(hashes, range(start, start + len(hashes)), strict=True)
                connection.executemany("INSERT OR IGNORE INTO leaves VALUES (?, ?)", rows)
                connection.execute("UPDATE covered SET size = ?", (start + len(hashes),))
    except sqlite3.OperationalError:
        return  # a full disk, a lock: the index stays behind, and the next append reads the tiles
    except sqlite3.Error:
        discard(path)


def discard(path: Path) -> None:
    """Remove the index: it is damaged, or of another log."""
    for part in _parts(path):
        with contextlib.suppress(OSError):
            part.unlink()


def _parts(path: Path) -> tuple[Path, ...]:
    """Return the files of the index, with those that SQLite keeps beside it."""
    return tuple(path.with_name(path.name + end) for end in ("", "-journal", "-wal", "-shm"))


def _covered(connection: sqlite3.Connection) -> int:
    return _natural(connection.execute("SELECT size FROM covered").fetchone())


def _natural(row: tuple[object, ...] | None) -> int:
    """Return the one natural number in *row*: SQLite stores anything in any column."""
    if row is None or type(row[0]) is not int or row[0] < 0:
        raise sqlite3.DatabaseError("not a natural number")
    return row[0]


@contextlib.contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    for part in _parts(path):  # SQLite would wait for a FIFO
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not stat.S_ISREG(part.lstat().st_mode):
                raise sqlite3.DatabaseError("not a file")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)
    try:
        yield connection
    finally:
        connection.close()
