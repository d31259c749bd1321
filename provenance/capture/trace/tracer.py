"""What is put around a run so that its accesses to files are seen (docs/spec/training.md).

``auto`` is what the run's Pythons say (``audit``) and what ``inotify`` says of declared inputs.
``seccomp`` and ``strace`` add what any process opens, by ``supervisor``.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from provenance.capture.draft import Before
from provenance.capture.inputs import HashedInput
from provenance.capture.process import find_program
from provenance.capture.run_folder import RunFolder
from provenance.capture.trace import MECHANISMS, inotify
from provenance.capture.trace.findings import STOPPING, Trace
from provenance.capture.trace.inotify import Inotify
from provenance.capture.trace.supervisor import SUPERVISED, TRACE
from provenance.errors import ProvenanceError, UnavailableError, UsageError, reason

MAX_WATCHES = 4096
"""Most folders and files of one input that are watched."""

SECONDS_TO_END = 10
"""How long the supervisor may take to say that it has seen all; it cannot if a process goes on."""

_CHANGED = inotify.MODIFY | inotify.MOVED_FROM | inotify.MOVED_TO | inotify.DELETE
_START = "import sys; sys.path.append(sys.argv.pop(1))"
_START += "; from provenance.capture.trace.supervisor import main; main()"
_PROGRAM = [sys.executable, "-IS", "-c", _START, str(Path(__file__).parents[3])]
_STRACE = "strace -f --seccomp-bpf -DDD -qq -z -y -xx -e signal=none -e trace=open,openat,openat2"


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
    queues: dict[str, Inotify] = {}
    with contextlib.ExitStack() as stack:
        problem = ""
        try:
            for item in before.hashed if mechanism not in {"off", "audit"} else ():
                queue = stack.enter_context(Inotify())
                for path in _watches(item):
                    queue.add(path, inotify.OPEN | _CHANGED)
                queues[item.place.key] = queue
        except ProvenanceError as error:
            problem = f"inotify: {error.what}"
        names += ["inotify"] if queues or mechanism == "inotify" else []
        if mechanism in STOPPING:
            names.append(mechanism)
            (kept.path / SUPERVISED).touch()
        trace = Trace.of((*names,), before)
        kept.write(TRACE, replace(trace, problem="the end of the command was not seen"))
        yield
        unopened: dict[str, dict[str, int]] = {}
        written = []
        for item in before.hashed:
            if (queue_of := queues.get(item.place.key)) is not None:
                number, changed = _seen(queue_of, item)
                about = {"files": number, "of": len(item.manifest.entries)}
                unopened |= {item.place.key: about} if number else {}
                written += [item.place.key] if changed else []
        problem = (_problem(kept) if mechanism in STOPPING else "") or problem
        kept.keep(TRACE, replace(trace, unopened=unopened, written=(*written,), problem=problem))


def _watches(item: HashedInput) -> list[Path]:
    """Return what is watched to see *item*: its folders, and the files behind its links."""
    top = item.place.path
    if not top.is_dir():
        return [*item.paths()]
    folders = {""}
    for entry in item.manifest.entries:
        folder = entry.name.rpartition("/")[0]
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    found = [*(top / folder for folder in sorted(folders)), *map(Path, item.behind_links())]
    if len(found) > MAX_WATCHES:
        raise UnavailableError(f"{item.place.key} has more than {MAX_WATCHES} folders")
    return found


def _seen(queue: Inotify, item: HashedInput) -> tuple[int, bool]:
    """Return how many files of *item* nobody opened, and whether one was changed, by *queue*.

    What was put beside its files is none of them, and the list of a Croissant file may stay
    unread. Events beyond the kernel's bound are lost: then each file may have been opened.
    """
    lost = changed = False
    top, behind, opened = str(item.place.path), {*item.behind_links()}, set[str]()
    files = {str(item.root / entry.name) for entry in item.manifest.entries}
    files = files - {top} if item.root.is_dir() else {top}
    while events := queue.read(0):
        for event in events:
            path = str(event.path)
            lost |= bool(event.mask & inotify.Q_OVERFLOW)
            changed |= bool(
                event.mask & _CHANGED and (path in files or path == top or path in behind)
            )
            if event.mask & inotify.OPEN:
                opened.add(path)
    left = files - opened
    left -= {path for path in left if behind and os.path.realpath(path) in opened}
    return 0 if lost else len(left), changed
