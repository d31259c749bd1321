"""Hashing the checkpoints of a run while it goes on, in a thread that gets in nobody's way.

In the model's folder a checkpoint is a folder that is called so (``checkpoint-500``), weights that
are called so (``epoch=3-step=120.ckpt``), and weights that are written again (``last.pt``): of
these, each state. It is hashed when it has been the same for a second, or its writer has closed it,
or the program says that it is complete (``current_run().checkpoint``). Elsewhere, a checkpoint is
what the program says, below the working folder.

inotify tells what is written, and so what was gone before it was hashed; where there is none, the
thread looks now and then, for at most a fiftieth of the time, and says so. Everything that is read
may be written, moved and removed meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, Self

import msgspec

from provenance.capture import chain
from provenance.capture.chain import BY_LOOKS, MAX_BYTES, Chain, Checkpoint, Files
from provenance.capture.process import blocked, timestamp
from provenance.capture.python import told
from provenance.capture.python.inside import MAX_LINE_BYTES
from provenance.capture.python.records import MAX_HOSTS
from provenance.capture.run import MAX_STEP, RECORDS
from provenance.capture.trace import inotify
from provenance.encoding import strict_json
from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.files.manifest import Seen
from provenance.files.names import RESERVED, is_within
from provenance.files.reading import Identity, identity, open_file, read_file
from provenance.statement.training import MODEL
from provenance.weights.names import carries_tensors, weight_sets

CHAIN: Final = "checkpoints.jsonl"
"""The file in the run's folder, to which each checkpoint is added when it is hashed."""

QUIET_S: Final = 1.0
"""How long a checkpoint must have been the same."""

_PAUSE_S: Final = 0.005
"""How long the thread lets events gather that no look is due for, as of many small files."""

_REST: Final = 50
"""How many times as long as a look the thread rests."""

_ANYWAY_S: Final = 60.0
"""How long it rests when nothing is told: what another machine writes is not."""

_MAX_READS: Final = 64
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

_WRITTEN: Final = inotify.CLOSE_WRITE | inotify.MOVED_TO
_APART: Final = inotify.OPEN | inotify.DELETE
"""Of no interest, but between two others that are alike: the kernel makes one of these."""

_EVENTS: Final = _WRITTEN | _APART | inotify.CREATE | inotify.MOVED_FROM | inotify.MOVE_SELF
_NEW: Final = inotify.CREATE | inotify.MOVED_TO


@dataclass(frozen=True, slots=True)
class _Known:
    """A checkpoint in the ``state`` that is there ``since``; ``states`` were hashed so far."""

    state: int
    since: float = 0.0
    hashed: bool = False
    tried: bool = False
    states: int = 0
    held: Checkpoint | None = None
    """The only state so far of weights that no name calls a checkpoint."""


class Watcher:
    """Finds and hashes the checkpoints below *top*, the model's folder, and those the run names.

    ::

        with Watcher(kept.path, kept.program, top, folder) as watcher:
            …                                   # the run
        watcher.end(files)
    """

    def __init__(self, run_folder: Path, said: Path, top: str, folder: Path) -> None:
        """Keep in *run_folder* what is found below *top*, if that is known.

        The program runs in *folder*, and speaks in the folder *said*.
        """
        self._chain, self._said = chain.Writer(run_folder / CHAIN), said
        self._top = Path(top) if top else None
        self._folder = Path(os.path.realpath(folder))
        self._known: dict[str, _Known] = {}
        self._told: dict[str, int | None] = {}
        self._came: Counter[str] = Counter()  # states of each that nobody has hashed yet
        self._moving: dict[int, tuple[str, int]] = {}
        self._placed: Path | None = None  # a file that was moved there, and may still be open
        self._hasty = self._overflowed = self._blind = False
        self._read: Counter[Path] = Counter()
        self._problem = ""
        self._inotify: inotify.Inotify | None = None
        self._watched: set[str] = set()
        self._ended = threading.Event()
        self._waking = os.pipe()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        with self._noting():
            if self._top is not None:
                try:
                    self._inotify = inotify.Inotify()
                except ProvenanceError:
                    self._look_only()
            self._watch_top()
            for name, known in self._known.items():  # what is there now is none of the run
                self._known[name] = replace(known, hashed=True)
        with blocked():  # the main thread asks whether they are pending
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        os.write(self._waking[1], b"x")
        self._thread.join()
        for descriptor in self._waking:
            os.close(descriptor)
        with self._noting():
            self._take_events()
        if self._inotify is not None:
            self._inotify.__exit__()
            self._inotify = None

    def end(self, files: Mapping[str, Seen]) -> None:
        """Add what is left when the run has ended; *files* of the model were hashed already."""
        with self._noting():
            self._look(files)
        if self._problem:
            with contextlib.suppress(ProvenanceError, OSError):
                self._miss("", self._problem)

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
        """Hear what is told until a look is due, of which the last *took* so many seconds."""
        listening = select.poll()
        listening.register(self._waking[0], select.POLLIN)
        if self._inotify is not None:
            listening.register(self._inotify.fileno(), select.POLLIN)
        began, due, left = time.monotonic(), False, QUIET_S
        while not self._ended.is_set():
            listening.poll(max(left, 0) * 1000)
            unsettled = self._told or any(not known.hashed for known in self._known.values())
            due = bool(self._take_events() or due or unsettled or self._has_said())
            rest = max(QUIET_S * (not self._hasty), _REST * took) if due else _ANYWAY_S
            if (left := began + rest - time.monotonic()) <= 0:
                return
            left = min(left, QUIET_S)
            self._ended.wait(_PAUSE_S * (not due))

    def _spoken(self) -> list[Path]:
        """Return the records of all hosts."""
        return [self._said / RECORDS, *sorted(self._said.glob("records-*.jsonl"))[:MAX_HOSTS]]

    def _has_said(self) -> bool:
        with contextlib.suppress(OSError):
            return any(path.stat().st_size > self._read[path] for path in self._spoken())
        return False

    # What inotify tells.

    def _take_events(self) -> bool:
        """Note what is told; tell whether a look is due, as always where nothing is."""
        due = self._inotify is None and self._top is not None
        for _ in range(_MAX_READS):
            if self._inotify is None or not (events := self._inotify.read()):
                break
            for event in events:
                if event.mask & _APART:  # also of folders that are looked at
                    self._placed = None if event.path == self._placed else self._placed
                elif event.mask != inotify.CREATE:  # of a file, which is not written yet
                    due = self._hear(event) or due
        return due

    def _hear(self, event: inotify.Event) -> bool:
        mask, path, top = event.mask, event.path, self._top
        if path is None or top is None:
            self._overflowed = True
        elif path == top or path in top.parents:
            self._watched -= {str(path)} if mask & (inotify.IGNORED | inotify.MOVE_SELF) else set()
            if not self._watch_top() and mask & _NEW and not path.is_dir():
                self._miss(MODEL, "gone before it could be watched")
        elif str(path.parent) in self._watched and path.is_relative_to(top):
            return self._hear_inside(path, mask, event.cookie)
        else:
            return False  # in a folder that has another name now, or beside one above
        return True

    def _hear_inside(self, path: Path, mask: int, cookie: int) -> bool:
        name, states = os.path.relpath(path, self._top), 0
        if mask & inotify.MOVED_FROM:
            self._moving[cookie] = MODEL + name, self._leave(path, mask)
        elif mask & inotify.MOVED_TO:
            _, states = self._moving.pop(cookie, ("", 0))
        if not mask & inotify.ISDIR:
            again = mask & inotify.CLOSE_WRITE and path == self._placed  # as safetensors write
            self._placed = path if mask & inotify.MOVED_TO else None
            written = bool(mask & _WRITTEN) and carries_tensors(name) and not again
            self._came[MODEL + name] += max(states, 1) * written
            self._hasty |= written
            return written
        if mask & inotify.IGNORED:
            self._watched.discard(str(path))
        elif mask & _NEW and not is_within(f"{name}/", RESERVED):
            if _is_numbered(name) or not self._watch(path):
                self._came[MODEL + name] += 1
            else:
                self._list(f"{name}/")
        return True

    def _leave(self, path: Path, mask: int) -> int:
        """Forget what has moved away from *path*; return how many states of it nobody hashed."""
        name = MODEL + os.path.relpath(path, self._top)
        inside = [name]
        if mask & inotify.ISDIR:
            self._watched = {it for it in self._watched if not Path(it).is_relative_to(path)}
            inside += [it for it in {*self._known, *self._came} if it.startswith(f"{name}/")]
        states = 0
        for each in inside:
            self._release(each)
            known = self._known.pop(each, None)
            states += self._came.pop(each, 0) or (known is not None and not known.hashed)
        return states

    def _list(self, folder: str) -> None:
        """See what is in a new *folder*: from now on, inotify tells."""
        for name, found in self._candidates(folder):
            self._see(name, found)

    def _see(self, name: str, found: Files) -> _Known:
        known = self._known.get(name)
        if known is None and len(self._known) == _MAX_KNOWN:
            raise UnreadableError(f"more than {_MAX_KNOWN:,} checkpoints")
        if known is None or known.state != found.state:
            self._release(name)
            known = _Known(found.state, time.monotonic(), states=known.states if known else 0)
            self._known[name] = known
        return known

    def _watch_top(self) -> bool:
        """Watch the model's folder, or else the nearest above it; tell whether it is there."""
        way = [self._top, *self._top.parents] if self._top else []
        nearest = next((number for number, at in enumerate(way) if at.is_dir()), 0)
        if not all(self._watch(at) for at in reversed(way[: nearest + 1])):
            return False
        self._list("")
        return True

    def _watch(self, folder: Path) -> bool:
        """Watch *folder*, and tell whether it is there; what cannot be watched is looked at."""
        if self._inotify is None:
            return folder.is_dir()
        try:
            if len(self._watched) >= _MAX_WATCHED:
                raise UnreadableError("too many folders")
            self._inotify.add(folder, _EVENTS | inotify.ONLYDIR | inotify.DONT_FOLLOW)
        except ProvenanceError:
            if not folder.is_dir():
                return False
            self._inotify.__exit__()
            self._inotify = None
            self._look_only()
        self._watched.add(str(folder))
        return True

    def _look_only(self) -> None:
        self._blind = True
        self._chain.add(Checkpoint(MODEL, timestamp(), by=BY_LOOKS))

    # What is there.

    def _candidates(self, start: str) -> Iterator[tuple[str, Files]]:
        """Yield what may be a checkpoint below *start*, by the name that the chain has for it."""
        waiting = [start] if self._top else []
        while waiting:
            folder = waiting.pop()
            place = self._path(MODEL + folder)
            if str(place) not in self._watched:
                self._watch(place)
            weights: dict[str, Identity] = {}
            with contextlib.suppress(OSError), os.scandir(place) as listing:
                for item in listing:
                    name = folder + item.name
                    with contextlib.suppress(FileNotFoundError, UnreadableError):
                        if not item.is_dir(follow_symlinks=False):
                            if carries_tensors(name) and item.is_file(follow_symlinks=False):
                                weights[item.name] = identity(item.stat(follow_symlinks=False))
                        elif _is_numbered(name):
                            yield MODEL + name, chain.look(place / item.name)
                        elif f"{name}/" not in RESERVED and name.count("/") < chain.MAX_DEPTH:
                            waiting.append(f"{name}/")
            for each in weight_sets(weights):
                names = (*each.files, each.index) if each.index else each.files
                if len(names) > 1:  # each of the shards comes by itself
                    came = max(self._came.pop(MODEL + folder + it, 0) for it in names)
                    self._came[MODEL + folder + each.name] += came
                yield MODEL + folder + each.name, Files({n: weights[n] for n in names})

    def _look(self, files: Mapping[str, Seen] | None = None) -> None:
        """Look at all of it; at the end, *files* are known, and everything is complete."""
        self._hasty = False
        self._take_events()
        self._take_records()
        if self._overflowed:
            self._overflowed, self._watched = False, set()
            self._miss(MODEL, "more was written at once than the system tells")
        here, began = set(), time.monotonic()
        for name, found in self._all():
            here.add(name)
            known = self._see(name, found)
            closed = self._came[name] and not found.is_folder and len(found.names) == 1
            complete = closed or name in self._told or files is not None
            if not known.hashed and (complete or began - known.since >= QUIET_S):
                self._take(name, found, files)
            if name in self._known and self._known[name].hashed:
                self._came.pop(name, 0)
                if name in self._told:
                    self._release(name)
                    del self._told[name]
        self._forget(here)

    def _all(self) -> Iterator[tuple[str, Files]]:
        yield from self._candidates("")
        for name in [*self._told]:
            try:
                yield name, chain.look(self._path(name))
            except UnreadableError:
                if not os.path.lexists(self._path(name)):
                    del self._told[name]
                    self._came[name] += name not in self._known

    def _forget(self, here: AbstractSet[str]) -> None:
        """Say what was gone before it was hashed, and forget what is gone."""
        moving, self._moving = self._moving, {}
        self._came.update(dict(moving.values()))  # to where nothing is told
        for name in sorted({*self._known, *(+self._came)} - here):
            if not os.path.lexists(self._path(name)):
                self._release(name)
                known, came = self._known.pop(name, None), self._came.pop(name, 0)
                seen = not self._blind or _is_numbered(name)
                if came or (known is not None and not known.hashed and seen):
                    self._miss(name, "gone before it was hashed", self._step(name))

    def _take(self, name: str, found: Files, files: Mapping[str, Seen] | None) -> None:
        """Hash the checkpoint *name* and add it, unless it is seen to change."""
        known, at_end = self._known[name], files is not None
        listed = name in self._told or known.states or _is_numbered(name) or self._came[name] > 1
        if (known.tried and not at_end) or (at_end and not listed):
            return  # at the end, what was written once is the model itself
        known = self._known[name] = replace(known, tried=True)
        top, inside = self._place(name)
        base = f"{inside}/" if found.is_folder else inside[: -len(PurePosixPath(inside).name)]
        try:
            hashed = _known_from(files or {}, base, found) if top == self._top else None
            hashed = hashed or chain.hash_files(top, base, found, self._go_on)
            made = chain.describe(name, hashed, timestamp(), self._step(name, found))
        except ProvenanceError as error:
            if at_end or isinstance(error, MalformedError):
                self._miss(name, error.what, self._step(name, found))
                self._known[name] = replace(known, hashed=True)
            return  # else it is looked at again, as it is then
        self._take_events()
        if self._came.pop(name, 0) > 1:
            listed = True
            self._miss(name, "another state of it was gone before it was hashed", _step_in(name))
        if listed:
            self._chain.add(made)
        held = None if listed else made
        self._known[name] = replace(known, hashed=True, states=known.states + 1, held=held)

    def _release(self, name: str) -> None:
        """Add a state that was held back: it is not the model's, since there is another now."""
        known = self._known.get(name)
        if known is not None and known.held is not None:
            self._chain.add(known.held)
            self._known[name] = replace(known, held=None)

    def _take_records(self) -> None:
        """Note what the program said to be complete."""
        for path in self._spoken():
            with open(open_file(path)[0], "rb") as file:  # noqa: PTH123 - a descriptor
                file.seek(self._read[path])
                while (line := file.readline(MAX_LINE_BYTES + 1)).endswith(b"\n"):
                    self._read[path] += len(line)
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
        self._miss(path.name, "lies outside of the model's folder and of the working folder", step)

    def _miss(self, name: str, why: str, step: int | None = None) -> None:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        self._chain.add(Checkpoint(shown, timestamp(), step=step, missed=why))

    def _step(self, name: str, found: Files | None = None) -> int | None:
        """Return the step of a checkpoint, as the program, its state or its name tells it."""
        if (step := self._told.get(name)) is not None:
            return step
        with contextlib.suppress(ProvenanceError):
            if found is not None and _STATE in found.names and found.is_folder:
                data = read_file(self._path(name) / _STATE, _MAX_STATE_BYTES, follow=False)
                state = strict_json.parse(data, max_bytes=_MAX_STATE_BYTES)
                step = state.get("global_step") if isinstance(state, dict) else None
                if type(step) is int and 0 <= step <= MAX_STEP:
                    return step
        return _step_in(name)

    def _place(self, name: str) -> tuple[Path, str]:
        inside = name.removeprefix(MODEL)
        return (self._folder if inside == name else self._top or self._folder), inside

    def _path(self, name: str) -> Path:
        return Path(*self._place(name))

    def _go_on(self, descriptor: int, _read: int) -> None:
        if self._ended.is_set() and threading.current_thread() is self._thread:
            raise UnreadableError("the run has ended")
        if os.fstat(descriptor).st_nlink == 0:  # it would take up space for as long as it is open
            raise UnreadableError("deleted while it was read")
        self._take_events()  # a new folder is to be watched now


def _known_from(files: Mapping[str, Seen], base: str, found: Files) -> Files | None:
    """Return *found* with the digests in *files*, if all of it was hashed as it is."""
    was = {name: files.get(f"{base}{name}") for name in found.names}
    if any(seen is None or seen.identity != found.names[name] for name, seen in was.items()):
        return None
    return replace(found, sha256={name: seen.sha256 for name, seen in was.items() if seen})


def read_chain(run_folder: Path) -> Chain:
    """Return what is written down of the checkpoints of a run, up to what is torn or damaged."""
    found: dict[bytes, Checkpoint] = {}
    with contextlib.suppress(ProvenanceError):
        data = read_file(run_folder / CHAIN, MAX_BYTES, follow=False)
        found.update(chain.follow(data, CHAIN))
    return Chain(found)


def _step_in(name: str) -> int | None:
    numbers = _STEP.findall(PurePosixPath(name).name)
    return int(numbers[-1]) if numbers else None


def _is_numbered(name: str) -> bool:
    return _NUMBERED.fullmatch(PurePosixPath(name).name) is not None
