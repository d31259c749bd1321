"""The command line as it may be published, and compared between rebuilders.

docs/spec/training.md, "The command", has the placeholders and says what they stand for. An argument
is replaced if it is a path of an input or the model in any spelling, and so is a path within one;
the words of a shell's command are relative paths, too, except where it changes folders. A program
with an absolute path, and every Python (behind ``nice``, or in a shell's command, too), is recorded
by its last name. :func:`fill` replaces the placeholders with other paths.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from provenance.capture.process import is_python
from provenance.capture.python.launchers import is_shell_text
from provenance.capture.secrecy.redact import (
    mark,
    readable,
    redact_text,
    secrets_of_forms,
    takes_value,
)
from provenance.capture.secrecy.secrets import kind_of_name
from provenance.errors import UsageError
from provenance.statement.training import REDACTION

_DOLLARS = re.compile(r"(?<!\$)(\$+)\{")
_PLACEHOLDER = re.compile(r"(?<!\$)(?:(?P<escape>\$\$+\{)|\$\{(?P<name>[^{}]*+)(?P<end>\})?)")
_BYTE = re.compile(r"(?<!\$)\$*+[\udc80-\udcff]")
_BYTE_NAME = re.compile(r"byte:([0-9a-f]{2})")
_CHANGES_FOLDER = re.compile(r"(?<![\w.-])(?:cd|pushd|popd|chdir)(?![\w.-])")
_PATH_WITHIN = re.compile(
    r"""(?x) (?P<quoted> '[^']+' | "[^"]+" )
      | (?: ^ | (?<=[\s;|&(<>\[{,=:]) )  (?P<option> -[A-Za-z](?=/) )?+
        (?P<path> (?!//) [^\s"'`;|&()<>\[\]{},=:$*?\\]++ )
        (?P<more> [*?$`"'(\[{=] | \\(?!["']|$) )?+"""
)
"""A path within a text: ``more`` continues its last part. What follows a quoted text is no path."""

_BEFORE_WORD, _AFTER_WORD = frozenset(" \t\n=;|&<>"), frozenset(" \t\n;|&<>)")
_NAME_AND_VALUE = re.compile(r"(?P<name>[-+\w.:/@]++)=(?P<value>.+)", re.DOTALL)
_OPTION = re.compile(r"--?[A-Za-z][\w.-]*")
_MIN_SECRET = 8
_ACCESS_KEY = re.compile(r"(?:AKIA|ASIA)[0-9A-Z]{16}")


@dataclass(frozen=True, slots=True)
class Places:
    """Paths that have a placeholder, and the private home, user and secrets.

    ``relative`` says that the words of a text are relative paths, too.
    """

    paths: Mapping[str, Path]
    folder: Path
    home: str = ""
    user: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    relative: bool = False


@dataclass(frozen=True, slots=True)
class RecordedCommand:
    """The arguments as they may be published; ``redacted`` are the indices of redacted ones."""

    arguments: tuple[str, ...] = ()
    redacted: tuple[int, ...] = ()


def record_command(command: Sequence[str], places: Places) -> RecordedCommand:
    """Return *command* as it may be published."""
    beside = "AKIA" if any(_ACCESS_KEY.search(word) for word in command) else ""
    arguments: list[str] = []
    option = ""
    for number, (word, forms) in enumerate(zip(command, secrets_of_forms(command), strict=True)):
        stays = is_shell_text(command, number) and not _CHANGES_FOLDER.search(word)
        within = replace(places, relative=stays)
        kind = ""
        if option and (takes_value(option) or not word.startswith("-")):
            kind = kind_of_name(option, word)
        if kind:
            recorded = mark(kind)
        elif number and forms and not _placed(word, places):
            start = 0
            recorded = ""
            for begin, end, kind in forms:
                recorded += _record_argument(word[start:begin], within, beside).rstrip("$")
                recorded += mark(kind)
                start = end
            recorded += _record_argument(word[start:], within, beside)
        else:
            if is_python(word) or (number == 0 and word.startswith("/")):
                word = os.path.basename(word)  # noqa: PLW2901, PTH119 - a word, not always a path
            recorded = _record_argument(word, within, beside)
        option = word if number and _OPTION.fullmatch(word) else ""
        arguments.append(recorded)
    redacted = (number for number, word in enumerate(arguments) if REDACTION.search(word))
    return RecordedCommand(tuple(arguments), tuple(redacted))


def fill(arguments: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the recorded *arguments* with *values* for their placeholders, by name.

    Raises UsageError if a placeholder has no value, or something was redacted.
    """

    def value_of(match: re.Match[str]) -> str:
        if match["escape"]:  # it has an extra dollar
            return match[0][1:]
        name = match["name"]
        if match["end"] and (byte := _BYTE_NAME.fullmatch(name)):
            return os.fsdecode(bytes.fromhex(byte[1]))
        if not match["end"] or name not in values:
            hint = "give it in a variable" if name.startswith("redacted") else "say where it is"
            raise UsageError(f"the command line needs ${{{name}}}", hint=hint)
        return values[name]

    return tuple(_PLACEHOLDER.sub(value_of, argument) for argument in arguments)


def _record_argument(word: str, places: Places, beside: str) -> str:
    name = ""
    if match := _NAME_AND_VALUE.fullmatch(word):
        name, word = f"{_cleaned(match['name'], places, beside)}=", match["value"]
        if kind := kind_of_name(match["name"], word):
            return f"{name}{mark(kind)}"
    if word and word in places.secrets:
        return f"{name}{mark('variable')}"
    before, rest = _placed(word, places) or ("", word)
    return name + before + _cleaned(rest, places, beside)


def _with_places(text: str, places: Places, *, relative: bool) -> str:
    """Return *text* with placeholders for the paths in it; with *relative*, it is a shell's."""

    def replaced(match: re.Match[str]) -> str:
        start, end = match.span()
        word = text[start - 1 : start] in _BEFORE_WORD or not start
        if quoted := match["quoted"]:
            inner = quoted[1:-1]
            found = _place_of(inner, places, relative=relative and word)
            inner = found or _with_places(inner, places, relative=False)
            return f"{quoted[0]}{inner}{quoted[0]}"
        path, more = match["path"], match["more"] or ""
        word = word and not more and (text[end : end + 1] in _AFTER_WORD or end == len(text))
        found = _place_of(path, places, relative=relative and word)
        if found is None and relative and word and is_python(path):
            found = os.path.basename(path)  # noqa: PTH119 - a word
        if found is None or (more and found.endswith("}") and not path.endswith("/")):
            return match[0]
        slash = "/" if more and path.endswith("/") else ""
        return f"{match['option'] or ''}{found}{slash}{more}"

    return _PATH_WITHIN.sub(replaced, text)


def _place_of(path: str, places: Places, *, relative: bool) -> str | None:
    """Return *path* with its placeholder, if it has one."""
    if not relative and not path.startswith("/"):
        return None
    before, rest = _placed(path, places) or ("", "")
    return f"{before}{rest}" if before else None


def _placed(value: str, places: Places) -> tuple[str, str] | None:
    """Return the placeholder for the path at the start of *value*, and the rest of *value*."""
    if not value or "\0" in value or "://" in value:
        return None
    path, real = _spellings(value, places.folder)
    found: list[tuple[str, str]] = []
    for name, place in places.paths.items():
        both = zip(_spellings(str(place), places.folder), (path, real), strict=True)
        for known, given in both:
            if given == known or given.startswith(known.rstrip("/") + "/"):
                found.append((f"${{{name}}}", given[len(known) :]))
    if found:
        return min(found, key=lambda each: len(each[1]))
    folder = os.path.normpath(places.folder)
    if value.startswith("/") and path.startswith(folder.rstrip("/") + "/"):
        return "", path[len(folder.rstrip("/")) + 1 :]
    return None


def _spellings(path: str, folder: Path) -> tuple[str, str]:
    """Return *path* as it is written, in one form, and where it leads; ``..`` may follow a link."""
    joined = os.path.join(folder, path)  # noqa: PTH118 - pathlib keeps ".."
    try:
        real = os.path.realpath(joined)
    except (OSError, ValueError):
        real = os.path.normpath(joined)
    return (real if ".." in path.split("/") else os.path.normpath(joined)), real


def _cleaned(text: str, places: Places, beside: str) -> str:
    """Return *text* escaped, without secrets, home and user."""
    secrets = [re.escape(secret) for secret in places.secrets if len(secret) >= _MIN_SECRET]
    pieces = [text]
    if secrets:
        pieces = re.split("|".join(sorted(secrets, key=len, reverse=True)), text)
        pieces[:-1] = [piece.rstrip("$") for piece in pieces[:-1]]
    return mark("variable").join(_cleaned_piece(piece, places, beside) for piece in pieces)


def _cleaned_piece(text: str, places: Places, beside: str) -> str:
    text = _with_places(_DOLLARS.sub(r"$\1{", text), places, relative=places.relative)
    marks = "${{byte:{:02x}}}".format
    text = readable(_BYTE.sub(lambda match: "".join(map(marks, os.fsencode(match[0]))), text))
    if len(places.home) > 1:
        boundary = r"(?=/|$|[\s:,;'\"])"
        text = re.sub(rf"(?<![\w/.$]){re.escape(places.home)}{boundary}", lambda _: "${home}", text)
    if len(places.user) > 1 and places.user != "root" and text.startswith("/"):
        user = rf"(?<=/){re.escape(places.user)}(?=/|$)"
        text = re.sub(user, lambda _: "${user}", text)
    return redact_text(text, beside=beside)
