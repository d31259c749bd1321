"""The Python that a command starts, told before it runs; nothing is run to find it.

Known are a Python, a script with one in its first line (``torchrun``), and either behind programs
whose words have a fixed grammar: :data:`PREFIXES`, ``env NAME=VALUE``, ``bash -c`` with one simple
command, and ``uv run`` with the project's ``.venv``. After the run the Pythons themselves tell
(:mod:`provenance.capture.python.trained`); here the answer may be wrong without harm.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import dropwhile
from pathlib import Path

from provenance.capture.process import find_program, is_python
from provenance.capture.python.inside import SHELLS
from provenance.errors import UnreadableError
from provenance.files.reading import open_file

PREFIXES: Mapping[str, tuple[str, int]] = {
    "nice": ("n", 0),
    "nohup": ("", 0),
    "setsid": ("", 0),
    "stdbuf": ("ioe", 0),
    "ionice": ("cn", 0),
    "timeout": ("ks", 1),  # the duration
    "taskset": ("", 1),  # the mask, or the list after -c
}
"""Programs that run the rest of their words: options that take a value, and words before it."""

_SHELL_COMMAND = re.compile(r"-[A-Za-z]*c")
_UV_FLAGS = frozenset("--no-sync --offline --frozen --locked --quiet -q --no-progress".split())
_SIMPLE = re.compile(r"[^;&|<>()$`\n*?\[\]{}~#!]*")
_PATH_FLAGS = re.compile(r"-[bBdEiIOPqsSuvx]+")
_LONG_SHEBANG = re.compile(rb"'''exec' (?P<quote>[\"']?)(?P<path>/[^\"'\n]*?)(?P=quote) ")
_RELATIVE_SHEBANG = re.compile(rb"'''exec' \"\$\(dirname .*?\"\)\"/'?(?P<name>[\w.]+)'? ")
_MAX_DEPTH = 8


def find_interpreter(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the Python that *command* starts in *folder*, with import options; [] if unknown."""
    words = list(command)
    for _ in range(_MAX_DEPTH):
        name = os.path.basename(words[0]) if words else ""  # noqa: PTH119 - a word, not always a path
        if name in PREFIXES:
            words = _after_prefix(words[1:], *PREFIXES[name])
        elif name in _UNWRAPPED:
            words = _UNWRAPPED[name](words[1:])
        elif name == "uv" and words[1:2] == ["run"]:
            words, environ = _after_uv(words[2:], folder, environ)
        else:
            break
    program = find_program(words[0], environ, folder) if words else None
    if program is None:
        return []
    if is_python(words[0]):
        return [program, *_path_flags(words[1:])]
    return _from_shebang(Path(program), folder, environ)


def _after_prefix(words: list[str], with_value: str, before: int) -> list[str]:
    """Return *words* without the options, one letter each or ``--name=value``, and words before."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "--":
            break
        if not option.startswith("--") and option[-1] in with_value and len(option) == 2:  # noqa: PLR2004 - "-n"
            del rest[:1]
        elif option.startswith("--") and "=" not in option and with_value:
            return []  # it may take the next word, or not
    return rest[before:]


def _after_env(words: list[str]) -> list[str]:
    """Return what ``env`` runs; nothing if it has options."""
    rest = [*dropwhile(lambda word: "=" in word, words)]
    return [] if rest and rest[0].startswith("-") else rest


def _after_shell(words: list[str]) -> list[str]:
    """Return the one simple command of ``-c``, or nothing."""
    option, text = (*words, "", "$")[:2]
    if not re.fullmatch(r"-[eux]*c", option) or not _SIMPLE.fullmatch(text):
        return []
    try:
        rest = shlex.split(text)
    except ValueError:
        return []
    rest = rest[1:] if rest[:1] == ["exec"] else rest
    return ["env", *rest]  # assignments may stand before it


_UNWRAPPED: Mapping[str, Callable[[list[str]], list[str]]] = {
    "env": _after_env,
    **dict.fromkeys(SHELLS, _after_shell),
}


def is_shell_text(command: Sequence[str], number: int) -> bool:
    """Tell whether the argument *number* is a text that a shell runs, as after ``bash -c``."""
    return (
        number > 1
        and _SHELL_COMMAND.fullmatch(command[number - 1]) is not None
        and not SHELLS.isdisjoint(word.rpartition("/")[2] for word in command[:number])
    )


def words_of_shell(text: str) -> list[str]:
    """Return the words of *text* for a shell, without the files that ``>`` and ``tee`` write.

    An unclosed quote ends them.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    before, in_tee = "", False
    with contextlib.suppress(ValueError):
        for word in lexer:
            in_tee = word == "tee" or (in_tee and word[0] not in ";|&")
            if ">" not in before and not in_tee:
                words.append(word)
            before = word
    return words


def _after_uv(
    words: list[str], folder: Path, environ: Mapping[str, str]
) -> tuple[list[str], Mapping[str, str]]:
    """Return what ``uv run`` runs, with the variables that it gets."""
    rest = [*dropwhile(_UV_FLAGS.__contains__, words)]
    projects = (at for at in (folder, *folder.parents) if at.joinpath("pyproject.toml").is_file())
    bin_folder = next(projects, folder) / ".venv" / "bin"
    redirected = any(name.startswith("UV_") for name in environ)
    if not rest or rest[0].startswith("-") or redirected or not (bin_folder / "python").exists():
        return [], environ
    if rest[0].endswith(".py"):
        rest = ["python", *rest]
    path = os.pathsep.join([str(bin_folder), environ.get("PATH", os.defpath)])
    return rest, {**environ, "PATH": path}


def _path_flags(arguments: Sequence[str]) -> list[str]:
    """Return the interpreter's options that change where it looks for modules."""
    found = ""
    for argument in arguments:
        if not _PATH_FLAGS.fullmatch(argument):
            break
        found += "".join(letter for letter in argument if letter in "EIPsS")
    return [f"-{found}"] if found else []


def script_head(path: str | Path) -> bytes:
    """Return the beginning of the script *path*, which names its interpreter; b"" if it is none."""
    try:
        descriptor, _ = open_file(path, follow=True)  # it waits for no FIFO
        with os.fdopen(descriptor, "rb") as file:
            head = file.read(1024)
    except (UnreadableError, OSError):
        return b""
    return head if head.startswith(b"#!") else b""


def _from_shebang(script: Path, folder: Path, environ: Mapping[str, str]) -> list[str]:
    head = script_head(script)
    if match := _LONG_SHEBANG.search(head):  # a path too long or with a space in it
        words = [os.fsdecode(match["path"])]
    elif match := _RELATIVE_SHEBANG.search(head):
        words = [str(Path(os.path.realpath(script)).parent / os.fsdecode(match["name"]))]
    else:
        try:
            words = shlex.split(os.fsdecode(head[2:].partition(b"\n")[0]))
        except ValueError:
            return []
        if words and os.path.basename(words[0]) == "env":  # noqa: PTH119 - a word
            words = _after_env([word for word in words[1:] if word != "-S"])
    program = find_program(words[0], environ, folder) if words else None
    if program is None or not is_python(words[0]):
        return []
    return [program, *_path_flags(words[1:])]
