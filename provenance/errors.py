"""The one tree of errors.

Every error that leaves this package is a :class:`ProvenanceError`. It carries its data as fields:
*what* is wrong, *where* (a path, a JSON pointer, a line), and the *hint* (what the user can do).
``str(error)`` is always one line, ``where: what (hint)``, with control characters escaped.

The classes tell apart what a caller does next, and the command line gives each its exit status:

====================  ======  =====================================================
class                 status  meaning
====================  ======  =====================================================
RefusedError          1       the input was read and understood, and the answer is no
UsageError            2       the call contradicts itself
MalformedError        3       these bytes are not what the format allows
UnreadableError       3       this file cannot be read as it should be
UnavailableError      4       something outside failed: disk, log, a package of an extra
====================  ======  =====================================================
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Self

MAX_PART = 4096
"""Longest part of a message, in characters: a path (PATH_MAX). What is wrong may quote a document,
and one string of a document may be hundreds of megabytes."""


_BLANK = "\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"


def one_line(text: str) -> str:
    """Return *text* with every control character, line break and lone surrogate escaped.

    File names and the contents of documents reach the terminal through errors; an unescaped one
    could forge a line of output or move the cursor. So are letters that look like blanks.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c.isprintable() and c not in _BLANK else c.encode("unicode_escape").decode()
        for c in text
    )


def as_typed(words: Iterable[str]) -> str:
    """Return *words* as bash would have them typed: one line that means these words and no others.

    What is not printable, or would change how a line is shown, is spelled in ``$'…'``.
    """
    return " ".join(shlex.quote(w) if w.isprintable() else f"$'{_escaped(w)}'" for w in words)


def _escaped(word: str) -> str:
    spelled = []
    for character in word:
        number = ord(character)
        if character in "\\'":
            spelled.append(f"\\{character}")
        elif character.isprintable():
            spelled.append(character)
        elif 0xDC80 <= number <= 0xDCFF:  # noqa: PLR2004 - a byte that is not UTF-8
            spelled.append(f"\\x{number - 0xDC00:02x}")
        else:
            spelled.append(f"\\U{number:08x}" if number > 0xFFFF else f"\\u{number:04x}")  # noqa: PLR2004
    return "".join(spelled)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return *number* with *noun*, in the plural where it is not one: ``1 file``, ``2 files``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


SHOWN = 5
"""Names given in one message; the rest are counted."""


def some_of(names: Sequence[str], more: int = 0) -> str:
    """Return the first of *names*, and how many others there are, *more* beside those given."""
    return ", ".join(cut(names, SHOWN, more=more))


def cut(texts: Sequence[str], limit: int, what: str = "more", *, more: int = 0) -> list[str]:
    """Return the first *limit* of *texts*, and one that counts the others and *more* besides."""
    others = len(texts[limit:]) + more
    return [*texts[:limit], *([f"and {others:,} {what}"] if others else [])]


def reason(error: OSError | ValueError) -> str:
    """Return the system's own words for *error*, in lower case.

    A call refuses a path that holds NUL with a ValueError, in words that differ between versions.
    """
    if not isinstance(error, OSError):
        return "the path holds a null byte"
    return (error.strerror or str(error) or type(error).__name__).lower()


class ProvenanceError(Exception):
    """Anything that this package refuses or cannot do."""

    longest_hint: ClassVar[int] = MAX_PART

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        """Keep *what* is wrong, *where*, and the *hint*, each without a full stop at its end."""
        super().__init__(what, where, hint)
        self.what = what
        self.where = where
        self.hint = hint

    def inside(self, place: str) -> Self:
        """Return this error with *place* before its own, unless it begins with that already."""
        if self.where is None:
            where = place
        elif self.where == place or self.where.startswith((f"{place}/", f"{place}:")):
            where = self.where
        else:
            where = f"{place}: {self.where}"
        return type(self)(self.what, where=where, hint=self.hint)

    def __str__(self) -> str:
        place = f"{_short(self.where)}: " if self.where else ""
        hint = f" ({_short(self.hint, self.longest_hint)})" if self.hint else ""
        return one_line(f"{place}{_short(self.what)}{hint}")

    def __reduce__(self) -> tuple[partial[ProvenanceError], tuple[str], dict[str, object]]:
        # An exception is copied, and passed between processes, by calling its class with `args`;
        # two of ours are keywords.
        return partial(type(self), where=self.where, hint=self.hint), (self.what,), vars(self)


def _short(text: str, longest: int = MAX_PART) -> str:
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


class UsageError(ProvenanceError):
    """The call contradicts itself or asks for what does not exist."""


class MalformedError(ProvenanceError):
    """The bytes are not a document of the expected format."""


class SubjectError(MalformedError):
    """The subject is not what the statement itself says it is about."""


class UnreadableError(ProvenanceError):
    """A file or folder is missing, of the wrong kind, not permitted, or changes meanwhile."""


class NotMadeError(UnreadableError):
    """There is no one folder that can be signed as what a recorded command made."""


class UnavailableError(ProvenanceError):
    """Something outside the program failed: a full disk, a log, a package that an extra brings."""


class CommandError(UnavailableError):
    """A recorded command did not start, or failed and left nothing to attest."""

    def __init__(self, what: str, *, status: int = 1, **place: str | None) -> None:
        """Keep the command's exit *status* too, as a shell gives it (127: not found)."""
        super().__init__(what, **place)
        self.status = status


class UnfinishedError(CommandError):
    """A recorded command has ended, and its claim could not be made.

    What was seen is kept in the folder ``run``. ``status`` is the command's: 0 if it ended well.
    """

    longest_hint: ClassVar[int] = 2**20  # it ends in a command with an option for each secret field

    def __init__(self, what: str, *, run: str = "", status: int = 0, **place: str | None) -> None:
        """Keep the *run* and the *status* too."""
        super().__init__(what, status=status, **place)
        self.run = run


class RefusedError(ProvenanceError):
    """The input was understood and the answer is no."""


class SignatureError(RefusedError):
    """No trusted key made this signature over these bytes."""


class ContentError(RefusedError):
    """The files are not those that the statement names."""


class LogProofError(RefusedError):
    """A transparency log's proof, checkpoint or signature does not hold."""


class PolicyError(RefusedError):
    """What was proven is less than what was asked for."""


class SecretError(RefusedError):
    """A document or model to be signed holds a secret; publication cannot be undone.

    ``fields`` are those of a statement that hold one, each with its environment variable or "".
    """

    def __init__(
        self, what: str, *, fields: Mapping[str, str] | None = None, **place: str | None
    ) -> None:
        """Keep the *fields* too."""
        super().__init__(what, **place)
        self.fields = dict(fields or {})
