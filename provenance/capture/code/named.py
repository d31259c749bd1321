"""What a command names: files, the folders in which it works, or a program that is no file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from provenance.capture.code.git import free_name
from provenance.capture.process import is_python
from provenance.capture.python.inside import SHELLS
from provenance.capture.python.launchers import PREFIXES, is_shell_text, words_of_shell
from provenance.capture.secrecy.redact import readable
from provenance.capture.secrecy.secrets import is_secret_file
from provenance.files.digest import hash_file
from provenance.statement.training import ProgramFile

MAX_PROGRAM_FILES = 256
"""Most files taken from one command line."""

_NO_FILE = re.compile(r"-|/dev/stdin|/dev/fd/\d+|/proc/self/fd/\d+")
_CODE_FOLLOWS = re.compile(r"-[A-Za-z]*[cm]")

_FOLDER_OPTION = re.compile(r"(?:-C|--(?:directory|chdir|project))(?:=(.+))?", re.DOTALL)
"""Of make, uv and env(1), which then run a program there."""


def program_files(
    command: Sequence[str],
    folder: Path,
    *,
    leave_out: Callable[[Path], bool],
    redacted: Collection[int] = (),
) -> dict[Path, ProgramFile]:
    """Return the files that *command* names by real path, except where *leave_out* is true.

    Considered are the first word if it is a path, every argument, the value of each
    ``--option=VALUE``, the module of ``-m MODULE`` if *folder* has it, and the same of the words
    of a text for a shell, also in the folder to which that changes. A file outside *folder*
    is named by its last name, with a number if that is taken. Arguments with the indices
    *redacted* are skipped: a digest of a file that holds a password helps to guess it.
    """
    found: dict[Path, ProgramFile] = {}
    taken: set[str] = set()
    homes = [folder, *(folder / place for place in program_folders(command, redacted))]
    for path in (home / word for word in _words(command, redacted) for home in homes):
        if not os.path.isfile(path) or len(found) == MAX_PROGRAM_FILES:  # noqa: PTH113 - never raises
            continue
        real = Path(os.path.realpath(path))
        if real in found or leave_out(real):
            continue
        top = os.path.realpath(folder)
        name = os.path.relpath(real, top) if real.is_relative_to(top) else real.name
        name = free_name(readable(name), taken)
        found[real] = ProgramFile(name, "" if is_secret_file(name) else hash_file(real)[0])
    return dict(sorted(found.items(), key=lambda item: item[1].name))


def redacted_files(
    command: Sequence[str], folder: Path, redacted: Collection[int]
) -> frozenset[str]:
    """Return the real paths that the arguments *redacted* may name."""
    others = set(range(len(command))).difference(redacted)
    words = _words(("", *command[1:]), others)
    return frozenset(os.path.realpath(folder / word) for word in words)


def _words(command: Sequence[str], redacted: Collection[int]) -> list[str]:
    words = [word for word in command[:1] if "/" in word]
    for number, argument in enumerate(command[1:], 1):
        if number in redacted:
            continue
        words.append(argument)
        _, equals, value = argument.partition("=")
        if equals:
            words.append(value)
        if command[number - 1] == "-m":
            module = argument.replace(".", "/")
            words += [f"{module}.py", f"{module}/__main__.py"]
        if is_shell_text(command, number):
            words += _words(("", *words_of_shell(argument)), ())
    return [word for word in words if word and "\0" not in word]


def program_folders(command: Sequence[str], redacted: Collection[int] = ()) -> Iterator[str]:
    """Yield the folders, as written, to which *command* changes by ``-C``, or by ``cd`` in ``-c``.

    Arguments with the indices *redacted* are skipped.
    """
    for number, argument in enumerate(command[1:], 1):
        if number in redacted or "\0" in argument:
            continue
        before = command[number - 1]
        if (option := _FOLDER_OPTION.fullmatch(before)) and not option[1]:
            yield argument
        elif (option := _FOLDER_OPTION.fullmatch(argument)) and option[1]:
            yield option[1]
        elif is_shell_text(command, number):
            words = [word for word in words_of_shell(argument) if word != "--"]
            yield from (to for cd, to in pairwise(words) if cd == "cd" and "$" not in to)


def is_piped(command: Sequence[str]) -> bool:
    """Tell whether the first Python or shell in *command* gets its program from a pipe or terminal.

    As in ``python - < train.py``, ``nice bash`` and ``python <(make-program)``.
    """
    names = [os.path.basename(word) for word in command]  # noqa: PTH119 - words, not always paths
    found = (n for n, name in enumerate(names) if name in SHELLS or is_python(name))
    start = next(found, None)
    if start is None or (start and names[0] not in (*PREFIXES, "env", "uv")):
        return False
    for word in command[start + 1 :]:
        if _NO_FILE.fullmatch(word) or (word == "-s" and names[start] in SHELLS):
            return True
        if not word.startswith("-") or _CODE_FOLLOWS.fullmatch(word):
            return False
    return True
