"""The command line as it is recorded: comparable between rebuilders, and fit to be published.

===============  ==============================================================================
``${model}``     the model's folder; likewise ``${data:ROLE}``, ``${config:NAME}``,
                 ``${baseModel}``
``${home}``      the home folder
``${user}``      the user's name, as a part of a path
``${redacted}``  something secret
``$${``          the two characters ``${``
===============  ==============================================================================

An argument, or the value of ``NAME=VALUE`` (``--out=VALUE``), is replaced where it is the path of
an input or of the model, however that is written; a path inside one keeps its rest
(``${model}/weights.npz``). An absolute path in the working folder becomes relative. A program that
is named by an absolute path, and every Python, goes by its last name.

Secrets are recognised by the option's name, the argument's shape, and by being the value of a
sensitive variable. :func:`fill` puts other paths in for the placeholders.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from provenance.capture.redact import (
    REDACTED,
    is_secret,
    readable,
    redact_text,
    takes_value,
)
from provenance.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_DOLLARS = re.compile(r"(\$+)\{")
_PLACEHOLDER = re.compile(r"(?P<escape>\$\$+\{)|\$\{(?P<name>[^{}]*)(?P<end>\})?")
_NAME_AND_VALUE = re.compile(r"(?P<name>[-+\w.:/@]{1,200})=(?P<value>.*)", re.DOTALL)
_OPTION = re.compile(r"--?[A-Za-z][\w.-]*")
_PYTHON = re.compile(r"(?:python|pypy)(?:\d+(?:\.\d+)*t?)?")
_MIN_SECRET = 8


@dataclass(frozen=True, slots=True)
class Places:
    """Paths that have a placeholder, and what else is private: home, user, *secrets*."""

    paths: Mapping[str, Path]
    folder: Path
    home: str = ""
    user: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class RecordedCommand:
    """The arguments as they may be published. ``redacted`` holds the numbers of those cut."""

    arguments: tuple[str, ...] = ()
    redacted: tuple[int, ...] = ()


def record_command(command: Sequence[str], places: Places) -> RecordedCommand:
    """Return *command* as it may be published."""
    arguments: list[str] = []
    redacted: list[int] = []
    hide_next = ""
    for number, word in enumerate(command):
        if number == 0:
            recorded = _record_program(word, places)
        elif (
            hide_next
            and is_secret(hide_next, word)
            and (takes_value(hide_next) or not word.startswith("-"))
        ):
            recorded = REDACTED
        else:
            recorded = _record_argument(word, places)
        hide_next = word if _OPTION.fullmatch(word) else ""
        if recorded.count(REDACTED):
            redacted.append(number)
        arguments.append(recorded)
    return RecordedCommand(tuple(arguments), tuple(redacted))


def fill(arguments: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the recorded *arguments* with *values* for their placeholders.

    *values* are under the placeholders' names: ``model``, ``data:train``, ``home``.

    Raises:
        UsageError: a placeholder has no value, or something was redacted.
    """

    def value_of(match: re.Match[str]) -> str:
        if match["escape"]:  # it has one dollar more than what it stands for
            return match[0][1:]
        name = match["name"]
        if not match["end"] or name not in values:
            hint = "give it in a variable" if name == "redacted" else "say where it is"
            raise UsageError(f"the command line needs ${{{name}}}", hint=hint)
        return values[name]

    return tuple(_PLACEHOLDER.sub(value_of, argument) for argument in arguments)


def is_python(program: str) -> bool:
    """Tell whether *program* is called like a Python interpreter."""
    return _PYTHON.fullmatch(os.path.basename(program)) is not None  # noqa: PTH119 - a word


def _record_program(word: str, places: Places) -> str:
    if word.startswith("/") or is_python(word):
        word = os.path.basename(word)  # noqa: PTH119 - a word, not always a path
    return _record_argument(word, places)


def _record_argument(word: str, places: Places) -> str:
    if match := _NAME_AND_VALUE.fullmatch(word):
        name, value = match["name"], match["value"]
        hidden = bool(value) and is_secret(name, value)
        return f"{name}={REDACTED if hidden else _record_value(value, places)}"
    return _record_value(word, places)


def _record_value(value: str, places: Places) -> str:
    placed = _placed(value, places)
    if placed is not None:
        name, rest = placed
        return name + _cleaned(rest, places)
    return _cleaned(value, places)


def _placed(value: str, places: Places) -> tuple[str, str] | None:
    """Return the placeholder for the path that *value* begins with, and the rest of *value*."""
    if not value or "\0" in value or "://" in value:
        return None
    path = os.path.normpath(os.path.join(places.folder, value))  # noqa: PTH118 - pathlib keeps ".."
    best: tuple[int, str, str] | None = None
    for name, place in places.paths.items():
        lexical = os.path.normpath(os.path.join(places.folder, place))  # noqa: PTH118
        for known, given in ((lexical, path), (_real(lexical), _real(path))):
            if given == known or given.startswith(known.rstrip("/") + "/"):
                rest = given[len(known) :]
                if best is None or len(rest) < best[0]:
                    best = (len(rest), f"${{{name}}}", rest)
    if best is not None:
        return best[1], best[2]
    folder = os.path.normpath(places.folder)
    if value.startswith("/") and path.startswith(folder.rstrip("/") + "/"):
        return "", path[len(folder.rstrip("/")) + 1 :]
    return None


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return path


def _cleaned(text: str, places: Places) -> str:
    """Return *text* escaped, less secrets, home and user."""
    secrets = [re.escape(secret) for secret in places.secrets if len(secret) >= _MIN_SECRET]
    if not secrets:
        return _cleaned_piece(text, places)
    # A dollar before the mark would read as an escape of it.
    pieces = re.split(rf"\$*(?:{'|'.join(sorted(secrets, key=len, reverse=True))})", text)
    return REDACTED.join(_cleaned_piece(piece, places) for piece in pieces)


def _cleaned_piece(text: str, places: Places) -> str:
    text = redact_text(_DOLLARS.sub(r"$\1{", readable(text)))
    if len(places.home) > 1:
        boundary = r"(?=/|$|[\s:,;'\"])"
        text = re.sub(rf"(?<![\w/.$]){re.escape(places.home)}{boundary}", lambda _: "${home}", text)
    if len(places.user) > 1 and places.user != "root" and text.startswith("/"):
        user = rf"(?<=/){re.escape(places.user)}(?=/|$)"
        text = re.sub(user, lambda _: "${user}", text)
    return text
