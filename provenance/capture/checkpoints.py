"""Hashing the checkpoints of a run while it goes on, in a thread that gets in nobody's way.

In the model's folder a checkpoint is a folder that is called so (``checkpoint-500``), weights that
are called so (``epoch=3-step=120.ckpt``), and weights that are written again (``last.pt``): of
these, each state that was seen. It is hashed when it has been the same for two looks, or its writer
has closed it, or the program says that it is complete (``current_run().checkpoint``). Elsewhere, a
checkpoint is what the program says, below the working folder.

inotify tells when to look; where there is none, the thread looks now and then, for at most a
fiftieth of the time. Everything that is read may be written, moved and removed meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, Self

import msgspec
from msgspec.structs import replace as but

from provenance.capture import chain
from provenance.capture.chain import MAX_BYTES, Checkpoint, Files
from provenance.capture.process import blocked, timestamp
from provenance.capture.python import told
from provenance.capture.python.inside import MAX_LINE_BYTES
from provenance.capture.run import MAX_STEP, RECORDS
from provenance.capture.trace import inotify
from provenance.encoding import strict_json
from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.files.atomic import storage_error
from provenance.files.manifest import Seen
from provenance.files.names import RESERVED, is_within
from provenance.files.reading import Identity, identity, open_file, read_file
from provenance.statement.training import MODEL
from provenance.transparency import merkle
from provenance.weights.names import carries_tensors, weight_sets

CHAIN: Final = "checkpoints.jsonl"
"""The file in the run's folder, to which each checkpoint is added when it is hashed."""

QUIET_S: Final = 1.0
"""How long a checkpoint must have been the same."""

_PAUSE_S: Final = 0.05
"""How long the thread lets events gather that no look is due for, as of many small files."""

_REST: Final = 50
"""How many times as long as a look the thread rests."""

_MAX_WATCHED: Final = 1000
_MAX_KNOWN: Final = 100_000
_MAX_STATE_BYTES: Final = 2**24
_NUMBERED: Final = re.compile(
    r"(?!tmp|\.)(?:.*[-_.])?(?:checkpoint|ckpt|global_step|step|epoch|iter|iteration)[-_=]?[0-9]+"
    r"(?:[-_.].*)?"
)
_STEP: Final = re.compile(r"(?:checkpoint-|step[-_=]?)([0-9]{1,15})(?![0-9])")
_STATE: Final = "trainer_state.json"
"""In which transformers keep the step."""

_CLOSED: Final = inotify.CLOSE_WRITE | inotify.MOVED_TO
_EVENTS: Final = _CLOSED | inotify.CREATE | inotify.ONLYDIR | inotify.DONT_FOLLOW


@dataclass(frozen=True, slots=True)
class _Known:
    """A checkpoint in the ``state`` that was seen last, and how many ``states`` were hashed."""

    state: int
    hashed: bool = False
    tried: bool = False
    states: int = 0
    held: Checkpoint | None = None
    """The only state so far of weights that no name calls a checkpoint."""


class Watcher:
    """Finds and hashes the checkpoints below *top*, the model's folder, and those the run names.

    ::

        with Watcher(kept.path, top, folder) as watcher:
            …                                   # the run
        watcher.end(files)
    """

    def __init__(self, run_folder: Path, said: Path, top: str, folder: Path) -> None:
        """Keep in *run_folder* what is found below *top*, if that is known.

        The program runs in *folder*, and speaks in *said*.
        """
        self._chain, self._said = run_folder / CHAIN, said / RECORDS
        self._top = Path(top) if top else None
        self._folder = Path(os.path.realpath(folder))
        self._known: dict[str, _Known] = {}
        self._told: dict[str, int | None] = {}
        self._closed: set[str] = set()
        self._appeared: set[str] = set()
        self._prev, self._bytes, self._read = "", 0, 0
        self._problem = ""
        self._inotify: inotify.Inotify | None = None
        self._watched: set[str] = set()
        self._ended = threading.Event()
        self._waking = os.pipe()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        with self._noting():
            with contextlib.suppress(ProvenanceError):
                self._inotify = inotify.Inotify()
            for name, found in self._candidates():  # what is there now is no checkpoint of the run
                self._known[name] = _Known(found.state, hashed=True)
        with blocked():  # the main thread asks whether they are pending
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        os.write(self._waking[1], b"x")
        self._thread.join()
        for descriptor in self._waking:
            os.close(descriptor)
        if self._inotify is not None:
            self._inotify.__exit__()

    def end(self, files: Mapping[str, Seen]) -> None:
        """Add what is left when the run has ended; *files* of the model were hashed already."""
        with self._noting():
            self._look(files)
        if self._problem:
            with contextlib.suppress(ProvenanceError, OSError):
                self._add(Checkpoint("", timestamp(), missed=self._problem))

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep what goes wrong: it must stop neither the run nor its claim."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - as above
            what = error.what if isinstance(error, ProvenanceError) else type(error).__name__
            self._problem = self._problem or what

    def _work(self) -> None:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        with self._noting():
            while not self._ended.is_set():
                began = time.monotonic()
                self._look()
                self._rest(time.monotonic() - began)

    def _rest(self, took: float) -> None:
        """Wait until a look is due, of which the last *took* so many seconds."""
        listening = select.poll()
        listening.register(self._waking[0], select.POLLIN)
        if self._inotify is not None:
            listening.register(self._inotify.fileno(), select.POLLIN)
        began = time.monotonic()
        while not self._ended.is_set():
            listening.poll(QUIET_S * 1000)
            if self._take_events() or self._unsettled() or self._has_said():
                self._ended.wait(
                    max(QUIET_S * (not self._closed), _REST * took) + began - time.monotonic()
                )
                return
            self._ended.wait(_PAUSE_S)

    def _unsettled(self) -> bool:
        return bool(self._told) or any(not known.hashed for known in self._known.values())

    def _has_said(self) -> bool:
        with contextlib.suppress(OSError):
            return self._said.stat().st_size > self._read
        return False

    def _take_events(self) -> bool:
        """Note what inotify tells; tell whether a look is due, as always without it."""
        if self._inotify is None or self._top is None:
            return True
        due = "" not in self._watched
        for event in self._inotify.read(0):
            if event.mask == inotify.CREATE:  # of a file, which is not written yet
                continue
            name = os.path.relpath(event.path or self._top, self._top)
            if event.mask & inotify.ISDIR and _is_numbered(name):
                self._appeared.add(MODEL + name)
            elif event.mask & _CLOSED and carries_tensors(name):
                self._closed.add(MODEL + name)
            elif event.mask & inotify.IGNORED:  # the folder is gone; there may be another
                self._watched.clear()
            elif not event.mask & (inotify.ISDIR | inotify.Q_OVERFLOW):
                continue
            due = True
        return due

    def _watch(self, folder: str) -> None:
        if self._inotify is None or folder in self._watched:
            return
        try:
            if len(self._watched) >= _MAX_WATCHED:
                raise UnreadableError("too many folders")
            self._inotify.add(self._path(MODEL + folder), _EVENTS)
            self._watched.add(folder)
        except ProvenanceError:
            if self._path(MODEL + folder).is_dir():  # look now and then instead
                self._inotify.__exit__()
                self._inotify = None

    def _candidates(self) -> Iterator[tuple[str, Files]]:
        """Yield what may be a checkpoint, by the name that the chain has for it."""
        waiting = [""] if self._top else []
        while waiting:
            folder = waiting.pop()
            self._watch(folder)
            weights: dict[str, Identity] = {}
            with contextlib.suppress(OSError), os.scandir(self._path(MODEL + folder)) as listing:
                for item in listing:
                    name = folder + item.name
                    with contextlib.suppress(FileNotFoundError, UnreadableError):
                        if not item.is_dir(follow_symlinks=False):
                            if carries_tensors(name) and item.is_file(follow_symlinks=False):
                                weights[item.name] = identity(item.stat(follow_symlinks=False))
                        elif _is_numbered(name):
                            yield MODEL + name, chain.look(self._path(MODEL + name))
                        elif f"{name}/" not in RESERVED and name.count("/") < chain.MAX_DEPTH:
                            waiting.append(f"{name}/")
            for each in weight_sets(weights):
                names = (*each.files, each.index) if each.index else each.files
                yield MODEL + folder + each.name, Files({n: weights[n] for n in names})
        for name in [*self._told]:
            try:
                yield name, chain.look(self._path(name))
            except UnreadableError:
                del self._told[name]
                self._appeared.add(name)

    def _look(self, files: Mapping[str, Seen] | None = None) -> None:
        """Look at all of it; at the end, *files* are known, and everything is complete."""
        self._take_records()
        closed, self._closed = self._closed, set()
        here = set()
        for name, found in self._candidates():
            here.add(name)
            known = self._known.get(name)
            complete = name in closed or name in self._told or files is not None
            if known is None and len(self._known) == _MAX_KNOWN:
                raise UnreadableError(f"more than {_MAX_KNOWN:,} checkpoints")
            if known is None or known.state != found.state:
                self._release(name)
                self._known[name] = _Known(found.state, states=known.states if known else 0)
            else:
                complete = True
            if complete and not self._known[name].hashed:
                self._take(name, found, files)
            if self._known[name].hashed and name in self._told:
                self._release(name)
                del self._told[name]
        self._forget(self._known.keys() - here)

    def _forget(self, gone: AbstractSet[str]) -> None:
        """Say which checkpoints were deleted before they were hashed."""
        missed, self._appeared = self._appeared, set()
        for name in gone:
            if not os.path.lexists(self._path(name)):
                self._release(name)
                known = self._known.pop(name)
                missed |= {name} if not known.hashed and _is_numbered(name) else set()
        for name in sorted(missed - self._known.keys()):
            if not os.path.lexists(self._path(name)):
                self._miss(name, "deleted before it was hashed")

    def _take(self, name: str, found: Files, files: Mapping[str, Seen] | None) -> None:
        """Hash the checkpoint *name* and add it, unless it is seen to change."""
        known, at_end = self._known[name], files is not None
        listed = name in self._told or known.states or _is_numbered(name)
        if (known.tried and not at_end) or (at_end and not listed):
            return  # at the end, what was written once is the model itself
        self._known[name] = replace(known, tried=True)
        top, inside = self._place(name)
        base = f"{inside}/" if found.is_folder else inside[: -len(PurePosixPath(inside).name)]
        try:
            hashed = _known_from(files or {}, base, found) if top == self._top else None
            hashed = hashed or chain.hash_files(top, base, found, self._go_on)
            made = chain.describe(name, hashed, timestamp(), self._step(name, found))
        except ProvenanceError as error:
            if at_end or isinstance(error, MalformedError):
                self._miss(name, error.what)
                self._known[name] = replace(known, hashed=True)
            return  # else it is looked at again, as it is then
        if listed:
            self._add(made)
        held = None if listed else made
        self._known[name] = replace(known, hashed=True, states=known.states + 1, held=held)

    def _release(self, name: str) -> None:
        """Add a state that was held back: it is not the model's, since there is another now."""
        known = self._known.get(name)
        if known is not None and known.held is not None:
            self._add(known.held)
            self._known[name] = replace(known, held=None)

    def _take_records(self) -> None:
        """Note what the program said to be complete."""
        with open(open_file(self._said)[0], "rb") as file:  # noqa: PTH123 - a descriptor
            file.seek(self._read)
            while (line := file.readline(MAX_LINE_BYTES + 1)).endswith(b"\n"):
                self._read += len(line)
                if line.startswith(b'{"checkpoint"') and len(self._told) < told.MAX_TOLD:
                    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                        said = msgspec.json.decode(line, type=told.Checkpoint)
                        self._tell(Path(said.checkpoint), said.step)
            if len(line) > MAX_LINE_BYTES:
                raise UnreadableError("a record is longer than any")

    def _tell(self, path: Path, step: int | None) -> None:
        real = Path(os.path.realpath(path))
        for top, mark in ((self._top, MODEL), (self._folder, "")):
            if top in real.parents:
                name = os.path.relpath(real, top)
                if not is_within(name, RESERVED):
                    self._told[mark + name] = step
                    return
        self._miss(path.name, "lies outside of the model's folder and of the working folder")

    def _miss(self, name: str, why: str) -> None:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        self._add(Checkpoint(shown, timestamp(), missed=why))

    def _step(self, name: str, found: Files) -> int | None:
        """Return the step of a checkpoint, as the program, its state or its name tells it."""
        if (step := self._told.get(name)) is not None:
            return step
        with contextlib.suppress(ProvenanceError):
            if _STATE in found.names and found.is_folder:
                data = read_file(self._path(name) / _STATE, _MAX_STATE_BYTES, follow=False)
                state = strict_json.parse(data, max_bytes=_MAX_STATE_BYTES)
                step = state.get("global_step") if isinstance(state, dict) else None
                if type(step) is int and 0 <= step <= MAX_STEP:
                    return step
        numbers = _STEP.findall(PurePosixPath(name).name)
        return int(numbers[-1]) if numbers else None

    def _place(self, name: str) -> tuple[Path, str]:
        inside = name.removeprefix(MODEL)
        return (self._folder if inside == name else self._top or self._folder), inside

    def _path(self, name: str) -> Path:
        return Path(*self._place(name))

    def _go_on(self, descriptor: int) -> None:
        if self._ended.is_set() and threading.current_thread() is self._thread:
            raise UnreadableError("the run has ended")
        if os.fstat(descriptor).st_nlink == 0:  # it would take up space for as long as it is open
            raise UnreadableError("deleted while it was read")

    def _add(self, checkpoint: Checkpoint) -> None:
        """Write *checkpoint* down, as the next of the chain."""
        if self._bytes > MAX_BYTES // 2:
            checkpoint = but(checkpoint, files=())
        line = strict_json.format(but(checkpoint, prev=self._prev))
        if self._bytes + len(line) >= MAX_BYTES:
            raise UnreadableError("too many checkpoints")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(self._chain, flags, 0o600), "ab", buffering=0) as file:  # noqa: PTH123 - a descriptor
                try:
                    file.write(line + b"\n")
                    os.fsync(file.fileno())
                    if file.tell() != self._bytes + len(line) + 1:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301 - as a disk does
                except OSError:
                    file.truncate(self._bytes)
                    raise
        except OSError as error:
            raise storage_error(error, self._chain) from error
        self._prev = merkle.hash_leaf(line).hex()
        self._bytes += len(line) + 1


def read_chain(run_folder: Path) -> bytes:
    """Return what is written down of the checkpoints of a run, up to what is torn or damaged."""
    found = bytearray()
    with contextlib.suppress(ProvenanceError):
        for line, _ in chain.follow(read_file(run_folder / CHAIN, MAX_BYTES, follow=False), CHAIN):
            found += line + b"\n"
    return bytes(found)


def _known_from(files: Mapping[str, Seen], base: str, found: Files) -> Files | None:
    """Return *found* with the digests in *files*, if all of it was hashed as it is."""
    was = {name: files.get(f"{base}{name}") for name in found.names}
    if any(seen is None or seen.identity != found.names[name] for name, seen in was.items()):
        return None
    return replace(found, sha256={name: seen.sha256 for name, seen in was.items() if seen})


def _is_numbered(name: str) -> bool:
    return _NUMBERED.fullmatch(PurePosixPath(name).name) is not None
