"""The Python that the training uses, and every distribution installed there.

The trainer's virtual environment is not the recorder's, so the interpreter is found from the
command (a Python; a script with one in its first line, such as ``torchrun``; ``env … python``) and
queried with the training's environment. For other commands (``bash train.sh``) it is the one that
the trainer names, or the one that first called ``provenance.current_run()``, queried after the run;
otherwise nothing is recorded.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec

from provenance.capture.probe import MARK
from provenance.capture.process import find_program
from provenance.capture.redact import is_python, public_remote, readable, redact_text
from provenance.errors import reason
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import Collected

TIMEOUT_SECONDS = 120
"""Time limit for an interpreter to answer; 76 distributions take under a second."""

NOT_STARTED = "not started by a dry run"
"""Why nothing is known of an interpreter that could be asked."""

_MAX_ANSWER_BYTES = 64 * 2**20
_PATH_FLAGS = re.compile(r"-[bBdEiIOPqsSuvx]+")
_START = """import sys
if sys.path[:1] == [""]:
    del sys.path[0]
exec(compile(sys.argv[1], "probe", "exec"))
"""
_LONG_SHEBANG = re.compile(rb"'''exec' (?P<quote>[\"']?)(?P<path>/[^\"'\n]*?)(?P=quote) ")
_RELATIVE_SHEBANG = re.compile(rb"'''exec' \"\$\(dirname .*?\"\)\"/'?(?P<name>[\w.]+)'? ")


@dataclass(frozen=True, slots=True)
class Software:
    """What an interpreter reported: itself, its distributions, the folders of editable ones."""

    interpreter: Collected
    packages: Collected
    distributions: tuple[ResourceDescriptor, ...] = ()
    editable: tuple[tuple[str, Path], ...] = ()
    executable: str = ""

    @property
    def collectors(self) -> dict[str, Collected]:
        """What was found, by the names of the collectors."""
        return {"interpreter": self.interpreter, "packages": self.packages}


class _Distribution(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    version: str
    record_digest: str = ""
    direct_url: dict[str, Any] | None = None


class _Answer(msgspec.Struct, frozen=True):
    interpreter: dict[str, Any]
    distributions: list[_Distribution] = []
    problem: str = ""


def observe_software(
    command: Sequence[str],
    folder: Path,
    environ: Mapping[str, str],
    named: Path | None = None,
    *,
    start: bool = True,
) -> Software:
    """Return the Python that *command* starts in *folder* (or *named*) and what is installed there.

    Never raises: the status of ``interpreter`` and ``packages`` says what is unknown, as all is
    where nothing may *start*.
    """
    if named is not None and start:
        return _ask([str(named)], folder, environ)
    if not command:
        return _nothing("absent", "no command: the training's interpreter is not known")
    try:
        interpreter = find_interpreter(command, folder, environ)
    except OSError as error:
        return _nothing("error", f"the program cannot be read: {reason(error)}")
    if not interpreter:
        return _nothing("absent", "the command does not identify a Python")
    if not start:
        return _nothing("absent", NOT_STARTED)
    return _ask(interpreter, folder, environ)


def find_interpreter(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the Python that *command* starts in *folder*, with import options; [] if unknown."""
    words = list(command)
    if os.path.basename(words[0]) == "env":  # noqa: PTH119 - a word, not always a path
        words = _after_env(words)
    program = find_program(words[0], environ, folder) if words else None
    if program is None:
        return []
    if is_python(words[0]):
        return [program, *_path_flags(words[1:])]
    return _from_shebang(Path(program), folder, environ)


def _after_env(words: Sequence[str]) -> list[str]:
    """Return what ``env`` runs; nothing if it has options."""
    rest = list(words[1:])
    while rest and "=" in rest[0]:
        del rest[0]
    return [] if rest and rest[0].startswith("-") else rest


def _path_flags(arguments: Sequence[str]) -> list[str]:
    """Return the interpreter's options that change where it looks for modules."""
    found = ""
    for argument in arguments:
        if not _PATH_FLAGS.fullmatch(argument):
            break
        found += "".join(letter for letter in argument if letter in "EIPsS")
    return [f"-{found}"] if found else []


def _from_shebang(script: Path, folder: Path, environ: Mapping[str, str]) -> list[str]:
    with script.open("rb") as file:
        head = file.read(1024)
    if not head.startswith(b"#!"):
        return []
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
            words = _after_env([word for word in words if word != "-S"])
    program = find_program(words[0], environ, folder) if words else None
    if program is None or not is_python(words[0]):
        return []
    return [program, *_path_flags(words[1:])]


def _ask(interpreter: list[str], folder: Path, environ: Mapping[str, str]) -> Software:
    program = resources.files(__package__).joinpath("probe.py").read_text("utf-8")
    try:
        done = subprocess.run(
            [*interpreter, "-c", _START, program],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return _nothing("error", f"the interpreter took longer than {TIMEOUT_SECONDS} s")
    except OSError as error:
        status: Literal["denied", "error"]
        status = "denied" if isinstance(error, PermissionError) else "error"
        return _nothing(status, f"the interpreter cannot be run: {reason(error)}")
    mark = done.stdout.rfind(b"\n" + MARK.encode())
    line = done.stdout[mark + 1 + len(MARK) :].partition(b"\n")[0] if mark >= 0 else b""
    try:
        if len(line) > _MAX_ANSWER_BYTES:
            return _nothing("error", "the interpreter's answer is too long")
        answer = msgspec.json.decode(line, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no answer"]
        return _nothing("error", f"the interpreter did not answer: {redact_text(said[-1])[:200]}")
    return _software(answer)


def _software(answer: _Answer) -> Software:
    about = {name: value for name, value in answer.interpreter.items() if value != ""}
    executable = str(about.pop("executable", ""))
    described = tuple(_describe(distribution) for distribution in answer.distributions)
    folders = ((each.name, _editable_folder(each)) for each in answer.distributions)
    editable = tuple((name, path) for name, path in folders if path is not None)
    without = sum("recordDigest" not in item.annotations for item in described)
    counts = {"distributions": len(described), "withoutRecord": without}
    problem = redact_text(readable(answer.problem))[:200]
    packages = Collected("error" if problem else "ok", counts, problem)
    return Software(Collected("ok", about), packages, described, editable, executable)


def _describe(distribution: _Distribution) -> ResourceDescriptor:
    """Return *distribution* by its package URL (purl-spec, type pypi)."""
    name, version = readable(distribution.name), readable(distribution.version)
    annotations: dict[str, Any] = {}
    if _editable_folder(distribution) is not None:
        annotations["editable"] = True  # its RECORD names a folder of this machine, not its code
    elif distribution.record_digest:
        annotations["recordDigest"] = distribution.record_digest
    if "recordDigest" not in annotations:
        annotations["recordStatus"] = "absent"
    if distribution.direct_url is not None:
        annotations |= _direct_url(distribution.direct_url)
    uri = f"pkg:pypi/{quote(name, safe='')}@{quote(version, safe='')}"
    return ResourceDescriptor(name=name, uri=uri, annotations=annotations)


def _direct_url(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return what PEP 610's *origin* says, less users, passwords and local folders."""
    found: dict[str, Any] = {}
    url = origin.get("url")
    if isinstance(url, str) and (public := public_remote(url)):
        found["directUrl"] = public
    vcs = origin.get("vcs_info")
    if isinstance(vcs, dict) and isinstance(vcs.get("commit_id"), str):
        found["commit"] = readable(vcs["commit_id"])[:128]
    archive = origin.get("archive_info")
    if isinstance(archive, dict) and isinstance(archive.get("hashes"), dict):
        sha256 = archive["hashes"].get("sha256")
        if isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256):
            found["archiveDigest"] = sha256
    return found


def _editable_folder(distribution: _Distribution) -> Path | None:
    origin = distribution.direct_url or {}
    information, url = origin.get("dir_info"), origin.get("url")
    if not (isinstance(information, dict) and information.get("editable") is True):
        return None
    try:
        path = urlsplit(url).path if isinstance(url, str) else ""
    except ValueError:
        path = ""
    return Path(unquote(path) or "/")


def _nothing(status: Literal["absent", "denied", "error"], reason: str) -> Software:
    collected = Collected(status, reason=reason)
    return Software(collected, collected)
