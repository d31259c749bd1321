"""What is put around a run so that its accesses to files are seen (docs/spec/training.md).

``auto`` is what the run's Pythons say (``audit``) and what ``inotify`` says of declared inputs.
``seccomp`` and ``strace`` add what any process opens, by ``supervisor``.

The collector ``trace`` says beside the claim what the files are that a run opened. Names are of
files below the working folder or a repository; of others only the last name. Files in hidden
folders elsewhere (a user's settings and caches) and secret ones are counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from provenance.capture.code.reread import ARCHIVES, CODE, state_now
from provenance.capture.code.worktrees import is_installed, text_of
from provenance.capture.draft import Before
from provenance.capture.inputs import HashedInput
from provenance.capture.process import find_program
from provenance.capture.python.records import Reads, Records
from provenance.capture.run_folder import RunFolder
from provenance.capture.secrecy.redact import readable, redact_text
from provenance.capture.secrecy.secrets import is_secret_file
from provenance.capture.trace import MECHANISMS, inotify
from provenance.capture.trace.inotify import Inotify
from provenance.capture.trace.supervisor import SUPERVISED, TRACE
from provenance.errors import ProvenanceError, UnavailableError, UsageError, reason
from provenance.keys import is_private_key
from provenance.statement.training import Collected

STOPPING = ("seccomp", "strace")
"""Mechanisms that see all that any process opens, and stop it for that."""

MAX_NAMED = 100
"""Most files of a list in the statement."""

SYSTEM = "/proc /sys /dev /run /etc /usr /bin /sbin /lib /lib32 /lib64 /var/cache".split()
"""What the system brings."""


class Trace(msgspec.Struct, frozen=True):
    """Which files are what when a run begins ``at`` (ns since 1970), and what was seen of it.

    ``roots`` are the working folder and the repositories, each with the prefix of its names and
    with those of its tracked files. ``left_out`` is declared, or recorded otherwise. ``unopened``
    and ``written`` have keys of declared inputs, the first with how many of its files that is.
    """

    mechanisms: tuple[str, ...] = ()
    roots: dict[str, tuple[str, tuple[str, ...]]] = {}
    left_out: tuple[str, ...] = ()
    model: str = "/nowhere"
    secret: tuple[str, ...] = ()
    at: int = 0
    unopened: dict[str, dict[str, int]] = {}
    written: tuple[str, ...] = ()
    problem: str = ""

    @classmethod
    def of(cls, mechanisms: tuple[str, ...], before: Before) -> Trace:
        """Return what is known *before* the run."""
        source, folder = before.source, before.inputs.located(Path())
        roots: dict[str, tuple[str, tuple[str, ...]]] = {str(folder): ("", ())}
        for one in filter(lambda each: each.is_git, source.repositories):
            names = (text_of(name) for name in (one.entries if one.count else ()))
            roots[str(one.root)] = ("" if one.root == folder else one.prefix, (*names,))
        known = [path for item in before.hashed for path in (*item.paths(), *item.behind_links())]
        known += map(before.inputs.located, before.inputs.others)
        system = [name for name in (*SYSTEM, before.software.prefix) if name and name not in roots]
        left_out, secret = (*map(str, (*known, *source.named)), *system), (*source.around.secret,)
        return cls(mechanisms, roots, left_out, str(before.model), secret, source.at)

    def own_reads(self, records: Records) -> Reads:
        """Return what the run read, without what the environments of its Pythons have."""
        kinds, files = self._kinds(records), records.reads.files
        kept = {path: state for path, state in files.items() if _innermost(path, kinds) != ""}
        return dataclasses.replace(records.reads, files=kept)

    def described(self, records: Records) -> Collected:
        """Return what was seen of files."""
        spoke = records.reads.processes
        by = [each for each in self.mechanisms if spoke or each != "audit"]
        if not by:
            silent = self.problem or "no Python of the run reported"
            return Collected("absent", reason=silent if self.mechanisms else "--trace off")
        values: dict[str, Any] = {
            "mechanism": ", ".join(by),
            "complete": False,
            "lost": records.reads.lost,
            "unopened": self.unopened,
            "writtenMeanwhile": [*self.written],
        }
        if by != ["inotify"]:
            kinds = self._kinds(records) | dict.fromkeys((*self.left_out, self.model), "")
            read = [*self._undeclared(records.reads, kinds)]
            wrote = [self._name(path, kinds) for path in records.reads.written if path.is_file()]
            lists = {
                "undeclared": sorted(name for name, _ in read if name),
                "changed": sorted(name for name, is_same in read if name and not is_same),
                "outputs": sorted(filter(None, wrote)),
            }
            values |= {name: found[:MAX_NAMED] for name, found in lists.items()}
            values |= {f"{name}Files": len(found) for name, found in lists.items()}
            values["unnamed"] = sum(not name for name, _ in read)
        return Collected("ok", values, self.problem)

    def _kinds(self, records: Records) -> dict[str, str]:
        """Return the folders of which is known what they are: of an environment (""), or a root."""
        said = [one.said for one in records.processes]
        prefixes = {name.rstrip("/") for one in said for name in (one.prefix, one.base_prefix)}
        return dict.fromkeys(prefixes - {""}, "") | {root: root for root in self.roots}

    def _undeclared(self, reads: Reads, kinds: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
        """Yield the files that were read and that nothing declares or records, and which stayed so.

        What the run made is none, nor what was made meanwhile and perhaps by it.
        """
        tracked = {root: frozenset(names) for root, (_, names) in self.roots.items()}
        for path, state in reads.files.items():
            root = _innermost(path, kinds)
            made = path in reads.written or self.mechanisms[-1] != "seccomp"  # sees renames, too
            if root == "" or (made and state.ctime_ns >= self.at) or ".git" in path.parts:
                continue
            if path.suffix in (*CODE, *ARCHIVES) or ".so." in path.name or path.is_symlink():
                continue
            if is_installed(path):
                continue
            if root and text_of(os.fsencode(path.relative_to(root))) in tracked[root]:
                continue
            yield self._name(path, kinds), state_now(path) == state

    def _name(self, path: Path, kinds: Mapping[str, str]) -> str:
        """Return what *path* is called in the statement; "" if that is nobody's business."""
        root = _innermost(path, kinds)
        if root == "" or is_secret_file(str(path)) or str(path) in self.secret:
            return ""
        if root:
            name = self.roots[root][0] + text_of(os.fsencode(path.relative_to(root)))
        else:
            name = "" if any(part.startswith(".") for part in path.parts) else path.name
        return "" if is_private_key(path) else redact_text(readable(name))


def _innermost(path: Path, kinds: Mapping[str, str]) -> str | None:
    """Return the kind of the innermost known folder that holds *path*; None: there is none."""
    return next((kinds[p] for p in map(str, (path, *path.parents)) if p in kinds), None)


MAX_WATCHES = 4096
"""Most folders and files of one input that are watched."""

SECONDS_TO_END = 10
"""How long the supervisor may take to say that it has seen all; it cannot if a process goes on."""

_CHANGED = inotify.MODIFY | inotify.MOVED_FROM | inotify.MOVED_TO | inotify.DELETE
_LOST = inotify.Q_OVERFLOW | inotify.IGNORED | inotify.DELETE_SELF | inotify.MOVE_SELF
"""Events after which a queue does not tell of all."""

_START = "import sys; sys.path.append(sys.argv.pop(1))"
_START += "; from provenance.capture.trace.supervisor import main; main()"
_PROGRAM = [sys.executable, "-IS", "-c", _START, str(Path(__file__).parents[3])]
_STRACE = "strace -f --seccomp-bpf -DDD -qq -z -y -xx -e signal=none -e trace="
_STRACE += "open,openat,openat2,open_by_handle_at,io_uring_setup"


def check(mechanism: str) -> None:
    """Raise if this system cannot do what *mechanism* needs."""
    if mechanism not in MECHANISMS:
        hint = f"one of {', '.join(MECHANISMS)}"
        raise UsageError(f"there is no trace {mechanism!r}", hint=hint)
    if mechanism == "inotify":
        Inotify().__exit__()
    if mechanism not in STOPPING:
        return
    with tempfile.TemporaryDirectory() as name:
        kept = RunFolder(Path(name), name)
        kept.write(TRACE, Trace())
        (kept.path / SUPERVISED).touch()
        words = around(mechanism, kept, [sys.executable, "-IS", "-c", ""], os.environ)
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            said = done.stderr.strip().rpartition("\n")[2].rpartition(": ")[2]
            problem = (said or f"status {done.returncode}") if done.returncode else _problem(kept)
        except FileNotFoundError:
            problem = "is not installed"
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = reason(error) if isinstance(error, OSError) else "does not answer"
    if problem:
        hint = "--trace auto sees less and works everywhere"
        raise UnavailableError(f"--trace {mechanism}: {problem}", hint=hint)


def around(
    mechanism: str, kept: RunFolder, command: Sequence[str], environ: Mapping[str, str]
) -> list[str]:
    """Return the words that run *command* and have it seen; itself if there is no such program."""
    program = find_program(command[0], environ, Path.cwd())
    if mechanism not in STOPPING or program is None or not os.access(program, os.X_OK):
        return [*command]
    if mechanism == "strace":
        reader = f"|{shlex.join([*_PROGRAM, 'strace', str(kept.path)])} >{os.devnull} 2>&1"
        return [*_STRACE.split(), "-o", reader, "--", program, *command[1:]]
    return [*_PROGRAM, "launch", str(kept.path), program, *command]


def _problem(kept: RunFolder) -> str:
    """Return why the supervisor has not seen all; "" if it has."""
    end = time.monotonic() + SECONDS_TO_END
    while (kept.path / SUPERVISED).exists():
        if time.monotonic() > end:
            return "not all was seen: a process goes on, or the supervisor was killed"
        time.sleep(0.02)
    return ""


@contextlib.contextmanager
def tracing(mechanism: str, before: Before, kept: RunFolder) -> Iterator[None]:
    """Watch the run in the folder *kept*, of which *before* is known; keep there what was seen.

    Processes that the run left behind go on and are seen no more.
    """
    names = [] if mechanism in {"off", "inotify"} else ["audit"]
    watched: list[tuple[HashedInput, Inotify]] = []
    with contextlib.ExitStack() as stack:
        problem = ""
        try:
            for item in before.hashed if mechanism not in {"off", "audit"} else ():
                queue = stack.enter_context(Inotify())
                for path in _watches(item):
                    queue.add(path, inotify.OPEN | _CHANGED | _LOST)
                watched.append((item, queue))
        except ProvenanceError as error:
            problem = f"inotify: {error.what}"
        names += ["inotify"] if watched or mechanism == "inotify" else []
        if mechanism in STOPPING:
            names.append(mechanism)
            (kept.path / SUPERVISED).touch()
        trace = Trace.of((*names,), before)
        kept.write(TRACE, replace(trace, problem="the end of the command was not seen"))
        yield
        unopened: dict[str, dict[str, int]] = {}
        written = []
        for item, queue in watched:
            number, changed, lost = _seen(queue, item)
            problem = problem or ("inotify: not all was told" if lost else "")
            about = {"files": number, "of": len(item.manifest.entries)}
            unopened |= {item.place.key: about} if number else {}
            written += [item.place.key] if changed else []
        stopping = _problem(kept) if mechanism in STOPPING else ""
        problem = "; ".join(filter(None, (stopping, problem)))
        kept.keep(TRACE, replace(trace, unopened=unopened, written=(*written,), problem=problem))


def _watches(item: HashedInput) -> list[Path]:
    """Return what is watched to see *item*: its folders, and the files behind its links."""
    top = item.place.path
    if not top.is_dir():
        return [*item.paths()]
    names = {entry.name.rpartition("/")[0] for entry in item.manifest.entries}
    folders = {top}.union(top / at for name in names for at in (Path(name), *Path(name).parents))
    found = [*sorted(folders), *map(Path, item.behind_links())]
    if len(found) > MAX_WATCHES:
        raise UnavailableError(f"{item.place.key} has more than {MAX_WATCHES} folders")
    return found


def _seen(queue: Inotify, item: HashedInput) -> tuple[int, bool, bool]:
    """Return of *item* how many files nobody opened, if one was changed, and if events were lost.

    What was put beside its files is none of them, and the list of a Croissant file may stay
    unread. Events beyond the kernel's bound are lost, and those of what was moved away or removed:
    then each file may have been opened. So it is where one that the run left opens them on and on.
    """
    lost = changed = False
    end = time.monotonic() + SECONDS_TO_END
    top, behind, opened = str(item.place.path), {*item.behind_links()}, set[str]()
    files = {str(item.root / entry.name) for entry in item.manifest.entries}
    files = files - {top} if item.root.is_dir() else {top}
    while events := queue.read():
        if time.monotonic() > end:
            lost = True
            break
        for event in events:
            path = str(event.path)
            lost |= bool(event.mask & _LOST)
            changed |= bool(
                event.mask & _CHANGED and (path in files or path == top or path in behind)
            )
            if event.mask & inotify.OPEN:
                opened.add(path)
    left = files - opened
    left -= {path for path in left if behind and os.path.realpath(path) in opened}
    return 0 if lost else len(left), changed, lost
