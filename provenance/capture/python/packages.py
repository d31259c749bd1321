"""The Python that the training uses, and every distribution installed there.

The trainer's virtual environment is not the recorder's, so the interpreter that the command starts
(:mod:`~provenance.capture.python.launchers`) is queried with the training's environment. Where
another Python trained, by the word of the run (:mod:`~provenance.capture.python.trained`), nothing
that a stranger named is run: its files are read here.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec

from provenance.capture.code.editables import editable_folders
from provenance.capture.made import CLOCK_TICK
from provenance.capture.python import asking
from provenance.capture.python.launchers import find_interpreter
from provenance.capture.python.probe import MARK, distributions
from provenance.capture.python.records import Introduction
from provenance.capture.secrecy.redact import public_remote, readable, redact_text
from provenance.errors import ProvenanceError, UnreadableError, reason
from provenance.files.digest import hash_open
from provenance.files.reading import identity, open_file, read_file
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import Collected

NOT_STARTED = "not started by a dry run"
"""Why nothing is known of an interpreter that could be asked."""

NOT_NAMED = "the command does not identify a Python"
"""The reason where only the run's own Pythons can tell."""

_MAX_ANSWER_BYTES = 64 * 2**20
_MAX_DISTRIBUTIONS = 10_000
_MAX_METADATA_BYTES = 2**20
_MAX_RECORD_BYTES = 64 * 2**20
_MAX_PROGRAM_BYTES = 2**30
_MAX_TEXT = 200
_MAGIC = frozenset((b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"))  # ELF, Mach-O, fat
_SAYS = re.compile(r"(?:\.(?:dist-info|egg-info|egg-link|pth)|^EGG-INFO|customize\.py)\Z")
_SAYING = ("METADATA", "PKG-INFO", "RECORD", "direct_url.json")
_IMPLEMENTATIONS = {"cpython": "CPython", "pypy": "PyPy"}
_VERSION = re.compile(r"\S+ \(([^,()]+), ([^()]+?)\)\s*\[(.*)\]")


@dataclass(frozen=True, slots=True)
class Software:
    """What an interpreter reported: itself, its distributions, the folders of editable ones.

    ``options`` are those that it is started with and that change where it looks for modules.
    ``sources`` are the files and folders that say all this, ``state`` is their state.
    """

    interpreter: Collected
    packages: Collected
    distributions: tuple[ResourceDescriptor, ...] = ()
    editable: tuple[tuple[str, Path], ...] = ()
    executable: str = ""
    prefix: str = ""
    options: str = ""
    sources: tuple[str, ...] = ()
    state: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def collectors(self) -> dict[str, Collected]:
        """What was found, by the names of the collectors."""
        return {"interpreter": self.interpreter, "packages": self.packages}

    @property
    def environment(self) -> tuple[str, str]:
        """What tells this Python environment from another."""
        return self.executable, self.prefix


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
    *,
    start: bool = True,
    known: Software | None = None,
) -> Software:
    """Return the Python that *command* starts in *folder* and what is installed there.

    Never raises: the status of ``interpreter`` and ``packages`` says what is unknown, as all is
    where nothing may *start*. It is what is *known* if no file that says it has changed.
    """
    if not command:
        return no_software("absent", "no command: the training's interpreter is not known")
    interpreter = find_interpreter(command, folder, environ)
    if not interpreter:
        return no_software("absent", NOT_NAMED)
    if not start:
        return no_software("absent", NOT_STARTED)
    options = "".join(interpreter[1:])
    same = known is not None and known.state and known.options == options
    if known and same and _state(interpreter[0], known)[0] == known.state:
        return known
    return replace(_ask(interpreter, folder, environ), options=options)


def _state(program: str, software: Software) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the state of what says what is installed, and the latest ctime there."""
    if os.path.realpath(program) != software.executable:  # a script chooses the Python
        return {}, 0
    places = [program, *software.sources]
    for folder in software.sources:
        with contextlib.suppress(OSError):
            for name in filter(_SAYS.search, os.listdir(folder)):  # noqa: PTH208 - of names
                place = f"{folder}/{name}"
                places += (place, *(f"{place}/{file}" for file in _SAYING))
    found: dict[str, tuple[int, ...]] = {}
    newest = 0
    for place in places:
        with contextlib.suppress(OSError, ValueError):
            status = os.stat(place)  # noqa: PTH116 - of thousands
            is_file = stat.S_ISREG(status.st_mode)
            found[place] = identity(status) if is_file else (status.st_dev, status.st_ino)
            newest = max(newest, status.st_ctime_ns)
    return found, newest


def _ask(interpreter: list[str], folder: Path, environ: Mapping[str, str]) -> Software:
    try:
        output, said, began = asking.ask(interpreter, folder, environ)
    except subprocess.TimeoutExpired:
        return no_software("error", f"the interpreter took longer than {asking.TIMEOUT_SECONDS} s")
    except OSError as error:
        status: Literal["denied", "error"]
        status = "denied" if isinstance(error, PermissionError) else "error"
        return no_software(status, f"the interpreter cannot be run: {reason(error)}")
    mark = output.rfind(b"\n" + MARK.encode())
    line = output[mark + 1 + len(MARK) :].partition(b"\n")[0] if mark >= 0 else b""
    try:
        if len(line) > _MAX_ANSWER_BYTES:
            return no_software("error", "the interpreter's answer is too long")
        answer = msgspec.json.decode(line, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        why = redact_text(said)[:200]
        return no_software("error", f"the interpreter did not answer: {why}")
    found = _software(answer)
    # While the clock stood still, it may have changed unseen.
    state, newest = _state(interpreter[0], found)
    return replace(found, state=state) if newest < began - CLOCK_TICK else found


def _software(answer: _Answer) -> Software:
    about = {name: value for name, value in answer.interpreter.items() if value != ""}
    executable, prefix = str(about.pop("executable", "")), str(about.pop("prefix", ""))
    described = tuple(_describe(distribution) for distribution in answer.distributions)
    folders = ((each.name, _editable_folder(each)) for each in answer.distributions)
    named = ((name, path) for name, path in folders if path is not None)
    path = [str(place) for place in about.pop("path", ())]
    editable = editable_folders(named, path)
    sources = (executable, str(about.pop("library", "")), f"{prefix}/pyvenv.cfg", *path)
    without = sum("recordDigest" not in item.annotations for item in described)
    counts = {"distributions": len(described), "withoutRecord": without}
    problem = redact_text(readable(answer.problem))[:200]
    packages = Collected("error" if problem else "ok", counts, problem)
    interpreter = Collected("ok", about)
    return Software(interpreter, packages, described, editable, executable, prefix, sources=sources)


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


def no_software(status: Literal["absent", "denied", "error"], reason: str) -> Software:
    """Return that nothing is known, and why."""
    collected = Collected(status, reason=reason)
    return Software(collected, collected)


def read_software(said: Introduction) -> Software:
    """Return what can be read of the Python that *said* what it is; nothing is run.

    Every path is a stranger's word: files are read if they are regular, up to a limit.
    """
    version = _VERSION.match(said.version)
    name = said.implementation
    about: dict[str, Any] = {
        "implementation": _IMPLEMENTATIONS.get(name, readable(name)[:_MAX_TEXT]),
        "version": readable(said.version.partition(" ")[0])[:_MAX_TEXT],
        "build": [readable(version[part].replace(",", ""))[:_MAX_TEXT] for part in (1, 2)]
        if version
        else "",
        "compiler": readable(version[3])[:_MAX_TEXT] if version else "",
        "cacheTag": readable(said.cache_tag)[:_MAX_TEXT],
        "pointerBits": said.pointer_bits,
        "executableDigest": digest_of_program(said.executable),
        "virtualEnvironment": said.prefix != said.base_prefix,
        "optimize": said.optimize,
        "hashRandomization": said.hash_randomization,
        "path": list(said.path),
        "saidBy": "the program",
    }
    found: list[_Distribution] = []
    problem = ""
    try:
        found = msgspec.convert(distributions(installed(said.path)), list[_Distribution])
    except Exception as error:  # noqa: BLE001 - a stranger's files may break any parser
        problem = f"{type(error).__name__}: {error}"
    return _software(_Answer(about, found, problem))


@dataclass(frozen=True, slots=True)
class _Installed:
    """A distribution by its folder of metadata."""

    folder: Path

    def read_text(self, filename: str) -> str | None:
        limit = _MAX_RECORD_BYTES if filename == "RECORD" else _MAX_METADATA_BYTES
        try:
            return read_file(self.folder / filename, limit).decode("utf-8", "replace")
        except ProvenanceError:
            return None


def installed(path: Iterable[str]) -> Iterator[_Installed]:
    """Yield the distributions below the folders *path*, in the order in which Python finds them."""
    count = 0
    for folder in filter(os.path.isabs, path):
        try:
            entries = sorted(os.listdir(folder))  # noqa: PTH208 - of names
        except OSError:  # an archive, or a folder that is not there
            continue
        for name in entries:
            if name.endswith((".dist-info", ".egg-info")):
                count += 1
                if count > _MAX_DISTRIBUTIONS:
                    raise UnreadableError(f"more than {_MAX_DISTRIBUTIONS} distributions")
                yield _Installed(Path(folder, name))


def digest_of_program(path: str) -> str:
    """Return the SHA-256 of the program at *path*, or "" if it is none.

    Of other files nothing is told: a program that may not read a secret could have it named here.
    """
    try:
        descriptor, status = open_file(path, follow=True)
        if status.st_size <= _MAX_PROGRAM_BYTES and os.pread(descriptor, 4, 0) in _MAGIC:
            return hash_open(descriptor, status, path)[0]
        os.close(descriptor)
    except (ProvenanceError, OSError):
        pass
    return ""
