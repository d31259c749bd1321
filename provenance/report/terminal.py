"""Text for a terminal, a count of bytes on it, and JSON for programs.

Everything from a document passes :func:`~provenance.errors.one_line` before it is shown: it could
otherwise move the cursor or forge a line. Lines are wrapped between words on a terminal only. The
error handler :data:`PLAIN` spells in ASCII what the encoding of a stream lacks.
"""

from __future__ import annotations

import codecs
import contextlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final
from unicodedata import east_asian_width

import click

PLAIN: Final = "provenance-plain"
"""Name of the codec error handler for standard output and standard error."""

WIDEST: Final = 44
"""Widest column of a table, in characters: longer cells lose their middle, because names differ at
their ends, unless two of them would then look the same."""

_SIGNS: Final = {
    "✓": "ok", "✗": "no", "–": "--", "—": "--", "…": "...", "→": "->", "×": "x", "≠": "!=",
    "≤": "<=", "≥": ">=", "±": "+/-", "∞": "inf", "‖": "||",
}  # fmt: skip

_DIGEST: Final = 64
"""Columns of a SHA-256, which no terminal of 80 columns cuts."""

_UNUSUAL: Final = re.compile(r"[^\n -~]")
"""Anything but printable ASCII and the line breaks of the layout."""

_LABEL: Final = re.compile(r" *\S.*? {2,}(?=\S)")
_WORD: Final = re.compile(r" *(?:provenance record --finish .+|[^ ]+)")
"""A word, or the command that ends a message and is to be pasted whole."""


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unencodable = error.object[error.start : error.end]
    spelled = [_SIGNS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in unencodable]
    return "".join(spelled), error.end


codecs.register_error(PLAIN, _spell)


def wants_colour(environ: Mapping[str, str]) -> bool | None:
    """Return whether *environ* forces (True) or forbids colour; None: only a terminal gets it."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return False if environ.get("TERM") == "dumb" else None


good, bad = partial(click.style, fg="green"), partial(click.style, fg="red")
dim = partial(click.style, dim=True)
"""Each returns a text in its style, which is shown where the output has colour."""


def print_lines(lines: Iterable[str], *, hang: int | None = None, err: bool = False) -> None:
    """Print *lines* on stdout, or on stderr, wrapped to the terminal if there is one.

    Continuation lines are indented by *hang* columns; by default, to the text after the label.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is not None and stream.isatty():
        import shutil  # noqa: PLC0415 - `--help` needs neither this nor what it loads

        width = shutil.get_terminal_size().columns
        lines = [part for line in lines for part in wrap(line, width, hang, whole=err)]
    click.echo("\n".join(lines), err=err)


def wrap(line: str, width: int, hang: int | None = None, *, whole: bool = True) -> list[str]:
    """Return *line* in parts of at most *width* columns, cut between words.

    A word that is too long for the indentation gets a line of its own, indented less. Unless words
    are to stay *whole*, it is cut before it reaches the column of labels: a document may have it.
    """
    text = click.unstyle(line)
    if _columns(text) <= width:
        return [line]
    if hang is None:
        label = _LABEL.match(text)
        hang = label.end() if label else width
        if hang > width // 2:
            hang = len(text) - len(text.lstrip(" ")) + 2
    parts, used = [""], 0
    longest = max(1, min(max(width - hang, _DIGEST), width - 4))
    room = max(1, width - hang) if width > 2 * hang else longest
    words = _WORD.findall(line) if whole else _pieces(line, longest, room)
    for word in words:
        length = _columns(click.unstyle(word))
        if used and used + length > width:
            word = word.lstrip(" ")  # noqa: PLW2901 - the same word, at the start of a line
            length = _columns(click.unstyle(word))
            used = max(0, min(hang, width - length))
            parts.append(" " * used)
        parts[-1] += word
        used += length
    return parts


def _columns(text: str) -> int:
    """Return the columns that *text* takes at most: an East Asian character may take two."""
    return len(text) if text.isascii() else sum(1 + (east_asian_width(c) in "WF") for c in text)


def _pieces(line: str, longest: int, room: int) -> Iterator[str]:
    """Yield the words of *line* with the blanks before them; one over *longest* in *room* each."""
    for word in re.findall(" *[^ ]+", line):
        if _columns(word.lstrip(" ")) <= longest:
            yield word
            continue
        most = room if word.isascii() else max(1, room // 2)
        yield from (word[at : at + most] for at in range(0, len(word), most))


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()
) -> list[str]:
    """Return *header* and *rows* as aligned lines; the columns *right* are right-aligned.

    A row may have fewer cells than the header, or more, which are not aligned. Empty columns are
    left out.
    """
    looks: dict[str, set[str]] = {}
    for cell in (cell for row in rows for cell in row):
        looks.setdefault(_cut(cell), set()).add(cell)
    cells = [[_cut(cell) if len(looks[_cut(cell)]) == 1 else cell for cell in row] for row in rows]
    used = [n for n in range(len(header)) if any(len(row) > n and row[n] for row in cells)]
    widths = {n: max(len(header[n]), *(len(row[n]) for row in cells if len(row) > n)) for n in used}
    lines = []
    for row in [list(header), *cells]:
        padded = {n: row[n] if len(row) > n else "" for n in used}
        aligned = {n: f"{padded[n]:{'>' if n in right else '<'}{widths[n]}}" for n in used}
        lines.append("  ".join([*aligned.values(), *row[len(header) :]]).rstrip())
    return lines


def _cut(text: str) -> str:
    if len(text) <= WIDEST:
        return text
    half = (WIDEST - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def print_json(document: Any) -> None:  # noqa: ANN401 - any JSON value or struct
    r"""Print *document* as one indented JSON document on stdout.

    Control characters, line breaks and what the stream's encoding may lack are spelled ``\uXXXX``.
    Bytes of a path that are not UTF-8, which JSON cannot spell, are escaped.
    """
    import json  # noqa: PLC0415 - `--help` needs neither

    import msgspec  # noqa: PLC0415

    try:
        encoded = msgspec.json.encode(document, order="sorted")
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_spelled(msgspec.to_builtins(document)), order="sorted")
    text = msgspec.json.format(encoded, indent=2).decode()
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    unicode = codecs.lookup(encoding).name == "utf-8"

    def spell(found: re.Match[str]) -> str:
        printable = unicode and found[0].isprintable()
        return found[0] if printable else json.dumps(found[0])[1:-1]

    click.echo(_UNUSUAL.sub(spell, text))


def _spelled(value: Any) -> Any:  # noqa: ANN401 - JSON values
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_spelled(key): _spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    return value


PATIENCE_SECONDS, INTERVAL_SECONDS = 1.0, 0.2
"""How long a user waits before something is shown, and how often it is drawn again."""

_ERASE_LINE = "\r\x1b[K"


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int], None] | None]:
    """Give a function to call with the number of bytes done; None where stderr is no terminal.

    They are counted on stderr for what takes more than a second.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    began = drawn = time.monotonic()
    done = 0
    lock = threading.Lock()

    def advance(count: int) -> None:
        nonlocal done, drawn
        with lock:
            done += count
            now = time.monotonic()
            if now - began < PATIENCE_SECONDS or now - drawn < INTERVAL_SECONDS:
                return
            drawn = now
            rate = done / 1e6 / (now - began)
            sys.stderr.write(f"{_ERASE_LINE}{what}: {done / 1e9:,.2f} GB, {rate:,.0f} MB/s")
            sys.stderr.flush()

    try:
        yield advance
    finally:
        if drawn != began:
            sys.stderr.write(_ERASE_LINE)
            sys.stderr.flush()
