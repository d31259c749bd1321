"""The run's folder: what a recorder has seen, durable before its next step.

A training of weeks must not be lost to what is wrong after it. So each step is written down when it
is done, and ``provenance record --finish`` completes a claim from the last that was reached:

=================  ==============================================================
``plan.json``      before the command starts: :class:`Plan`
``started.json``   the command's process
``ended.json``     how it ended, at once
``made.json``      the model's files as they were then
``seen.json``      everything else that is observed afterwards: :class:`Seen`
``signed.json``    the signed claim, before it is put beside the model
``room``           space, for the files after it when the training has filled the disk
``program/``       what the program is told of (``PROVENANCE_RUN``) and may write
``0/``, ``1/`` …   of several models, what is of one: ``plan``, ``made``, ``seen``, ``signed``
=================  ==============================================================

The folder is private (0700), in ``$XDG_STATE_HOME/provenance/runs`` or
``~/.local/state/provenance/runs``; below the temporary folder if that is in the model, in the
repository, or not writable. Its recorder holds a lock on it. The training runs as the same user and
could write here, as it can write its own model: to finish a run takes as much trust in the training
as to record it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from provenance.capture.draft import Recording
from provenance.capture.process import CommandResult
from provenance.capture.python import records
from provenance.errors import (
    MalformedError,
    ProvenanceError,
    UnavailableError,
    UnreadableError,
    UsageError,
    as_typed,
    reason,
    some_of,
)
from provenance.files.atomic import flush_folder, lock, write_file
from provenance.files.reading import kind, read_file

PLAN, STARTED, ENDED = "plan.json", "started.json", "ended.json"
MADE, SEEN, SIGNED = "made.json", "seen.json", "signed.json"

MAX_BYTES = 2**30
"""Longest file that is read, in bytes: a manifest of some million files."""

ROOM_BYTES = 2**20
"""How much of the disk is kept: what is seen of a model of some thousand files."""

_PROGRAM = "program"
_ROOM = "room"
_FINISHED = ".finished"
_ID_LETTERS = 8
_PART = re.compile("[0-9]{1,4}")

T = TypeVar("T")


class Plan(msgspec.Struct, frozen=True):
    """What is known before the command starts.

    ``model``, ``key``, ``log`` and ``link_roots`` are whole paths; ``key`` is None if it is no
    file. ``secrets`` are the variables whose values must not be published. ``began`` is when the
    model was first looked at, in nanoseconds. ``link`` is the step of an in-toto link, or "".
    ``tensors``: those of the model are listed; ``base`` is where the base model is. ``keyless``: an
    identity signs, by the Sigstore of the file ``trust_config``, if that is named.
    """

    recording: Recording
    model: Path
    key: Path | None
    log: Path | None
    secrets: tuple[str, ...]
    started_on: str
    began: int
    link_roots: tuple[Path, ...] = ()
    link: str = ""
    tensors: bool = False
    base: Path | None = None
    keyless: bool = False
    trust_config: Path | None = None


class Seen(msgspec.Struct, frozen=True):
    """The statement without the model, and its fields that held secrets, with their variables."""

    recording: Recording
    secrets: dict[str, str]


class Process(msgspec.Struct, frozen=True):
    """A process; ``born`` tells it from a later one of the same number."""

    pid: int
    born: str


@dataclass(frozen=True, slots=True)
class RunFolder:
    """An open run folder, locked; ``name`` is what ``--finish`` calls it.

    ``part`` is the folder in it of one of several models.
    """

    path: Path
    name: str
    part: str = ""

    @property
    def place(self) -> Path:
        """Where what is of one model lies."""
        return self.path / self.part

    def parts(self) -> list[RunFolder]:
        """Return this for each model that has no claim yet; itself where there is one."""
        numbers = sorted(
            int(each.name) for each in self.path.iterdir() if _PART.fullmatch(each.name)
        )
        return [replace(self, part=str(number)) for number in numbers] or [self]

    def divide(self, number: int) -> list[RunFolder]:
        """Return this for each of so many models, with folders if they are several."""
        for each in range(number if number > 1 else 0):
            (self.path / str(each)).mkdir(mode=0o700)
        return self.parts()

    @property
    def program(self) -> Path:
        """The folder that the program may write."""
        return self.path / _PROGRAM

    def write(self, name: str, value: object) -> None:
        """Put *value* into the file *name*."""
        document = msgspec.to_builtins(value, enc_hook=str)  # of a Path: not UTF-8, as surrogates
        write_file(self._at(name), json.dumps(document).encode(), mode=0o600)

    def keep(self, name: str, value: object) -> None:
        """Put *value* into the file *name*, unless the disk is full: that must stop nothing."""
        with contextlib.suppress(UnavailableError):
            self.write(name, value)

    def read(self, name: str, kind_of_value: type[T]) -> T | None:
        """Return the value in the file *name*, or None if it is not there."""
        path = self._at(name)
        if not os.path.lexists(path):
            return None
        data = read_file(path, MAX_BYTES, follow=False)
        try:
            return msgspec.convert(json.loads(data), kind_of_value, dec_hook=_parse_path)
        except (ValueError, RecursionError, msgspec.ValidationError) as error:
            raise MalformedError("is damaged", where=str(path)) from error

    def _at(self, name: str) -> Path:
        return (self.place if name in (PLAN, MADE, SEEN, SIGNED) else self.path) / name

    def remove(self) -> None:
        """Remove the folder; killed meanwhile, what is left is no run any more."""
        folder = self.place if self.part and len(self.parts()) > 1 else self.path
        gone = folder.with_name(folder.name + _FINISHED)
        with contextlib.suppress(OSError):
            folder.rename(gone)
            flush_folder(gone.parent)
            shutil.rmtree(gone, ignore_errors=True)

    def plan(self) -> Plan:
        """Return what was known before the command started."""
        found = self.read(PLAN, Plan)
        if found is None:
            raise UnreadableError("is not the folder of a run", where=str(self.path))
        return found

    def make_room(self) -> None:
        """Take some of the disk, so that a training that fills it cannot take all."""
        write_file(self.path / _ROOM, os.urandom(ROOM_BYTES), mode=0o600)

    def ended(self, result: CommandResult) -> None:
        """Write down how the command ended, and what is seen afterwards, in the room for that."""
        with contextlib.suppress(OSError):
            (self.path / _ROOM).unlink()
        self.keep(ENDED, result)

    def started(self, pid: int) -> None:
        """Write down that the command is the process *pid*."""
        if (found := process(pid)) is not None:
            self.keep(STARTED, found)

    def running(self) -> Process | None:
        """Return the command's process, if it runs."""
        started = self.read(STARTED, Process)
        return started if started and process(started.pid) == started else None

    def command_to_finish(self, *options: str) -> str:
        """Return the command line that completes the claim."""
        return as_typed(["provenance", "record", "--finish", self.name, *options])


@contextlib.contextmanager
def create(
    invocation_id: str, environ: Mapping[str, str], outside: Sequence[Path]
) -> Iterator[RunFolder]:
    """Make the folder of a run, in none of the folders *outside*."""
    folder = _make(invocation_id, environ, outside)
    with _locked(folder.path):
        records.prepare(folder.program)
        yield folder


@contextlib.contextmanager
def reopen(run: str, environ: Mapping[str, str]) -> Iterator[RunFolder]:
    """Open the folder of the run that is called *run*: a name in the usual place, or a path."""
    usual = _usual_place(environ)
    path = Path(run) if "/" in run or usual is None else usual / run
    if path.name.endswith(_FINISHED):
        raise UsageError("this run is finished", where=run)
    with _locked(path):
        yield RunFolder(path, run)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the folder *path*, which must be the user's own and private."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        hint = _others(path.parent)
        raise UsageError("no such run, or it is finished", where=str(path), hint=hint) from error
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            what = f"is {kind(path.lstat().st_mode)}, not the folder of a run"
            raise UnreadableError(what, where=str(path)) from error
        raise UnreadableError(reason(error), where=str(path)) from error
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            what, hint = "is no folder of yours with mode 0700", "others may have written to it"
            raise UnreadableError(what, where=str(path), hint=hint)
        try:
            lock(descriptor, path, seconds=0)
        except UnavailableError as error:
            what = "this run is being recorded or finished by another process"
            raise UnavailableError(what, where=str(path), hint="wait for its end") from error
        if not path.exists() or not os.path.samestat(status, path.lstat()):
            raise UsageError("this run is finished", where=str(path))
        yield
    finally:
        os.close(descriptor)


def _others(place: Path) -> str:
    """Say which runs in the folder *place* have no claim yet, the newest first."""
    begun: list[tuple[int, str]] = []
    for path in place.glob(f"*/{STARTED}"):
        with contextlib.suppress(OSError, ProvenanceError):
            kept = RunFolder(path.parent, path.parent.name)
            model = kept.parts()[0].plan().model.name
            if not kept.name.endswith(_FINISHED):
                begun.append((path.stat().st_mtime_ns, f"{kept.name} (of {model})"))
    names = [name for _, name in sorted(begun, reverse=True)]
    return f"without a claim: {some_of(names)}" if names else "no run is without its claim"


def _usual_place(environ: Mapping[str, str]) -> Path | None:
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if not state.startswith("/"):  # the specification: a relative one is ignored
        state = f"{home}/.local/state" if home else ""
    return Path(state, "provenance/runs") if state.startswith("/") else None


def _make(invocation_id: str, environ: Mapping[str, str], outside: Sequence[Path]) -> RunFolder:
    homes = [Path(os.path.realpath(path)) for path in outside]

    def is_apart(path: Path) -> bool:
        real = Path(os.path.realpath(path))
        return not any(real.is_relative_to(home) for home in homes)

    place, name = _usual_place(environ), invocation_id[:_ID_LETTERS]
    if place is not None and is_apart(place):
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            (place / name).mkdir(mode=0o700)
            (place / name / _PROGRAM).mkdir(mode=0o700)
            return RunFolder(place / name, name)
    try:
        if not is_apart(Path(tempfile.gettempdir())):
            raise NotADirectoryError
        path = Path(tempfile.mkdtemp(prefix="provenance-run-"))
        (path / _PROGRAM).mkdir(mode=0o700)
    except OSError as error:
        what = f"no private folder for what is seen of the run: {reason(error)}"
        hint = "name one outside of the model and the repository in XDG_STATE_HOME"
        raise UnavailableError(what, hint=hint) from error
    return RunFolder(path, str(path))


def process(pid: int) -> Process | None:
    """Return the process *pid*, or None if it has ended."""
    if Path("/proc/self/stat").exists():
        try:
            stated = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        boot = ""
        with contextlib.suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        state, born = stated[0].decode(), f"{boot} {stated[19].decode()}"
    else:  # macOS
        command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.SubprocessError):
            return None
        state, _, born = done.stdout.strip().partition(" ")
    return Process(pid, born.strip()) if state and state[0] not in "ZX" else None


def _parse_path(_kind: type, value: Any) -> Path:  # noqa: ANN401 - msgspec's hook
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("not a path")
    return Path(value)
