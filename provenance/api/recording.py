"""Recording from inside: ``with provenance.recording(…) as run`` in a script or notebook.

Another process, the *observer*, holds the key. It looks before the block and after it as ``record``
does, and signs; this process tells it by a pipe how the block ended. When this process dies, nobody
saw the end, and that is what the claim says which ``provenance record --finish`` makes.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from importlib.machinery import SourceFileLoader
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Self, Unpack, cast

from provenance.capture.python import inside
from provenance.capture.run import RECORDS, VARIABLE, Run, place_of, records_in
from provenance.errors import UnavailableError, UnfinishedError, UsageError, count, reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from provenance.api.arguments import PathLike
    from provenance.api.finishing import Recorded
    from provenance.api.making import Stated
    from provenance.capture.draft import Before
    from provenance.capture.process import CommandResult
    from provenance.capture.run_folder import RunFolder

_OBSERVER: Final = (
    "import json, sys; sys.path += json.loads(sys.argv[1]); "  # a script's uuid.py is not ours
    "from provenance.api.recording import observe; observe()"
)
_STARTING: Final = threading.Lock()
_LOST: Final[list[object]] = []
_SECONDS: Final = 1.0
"""How often the observer asks whether this process lives: its children may keep the pipe open."""


def recording(
    *, model: PathLike | Sequence[PathLike], key: PathLike | None = None, **stated: Unpack[Stated]
) -> LiveRun:
    """Return the run that is recorded while its ``with`` block, or between ``start`` and ``stop``.

    The arguments are those of ``record``; this process never opens the file ``key``. Where a
    recorder is at work already, the run reports to that one, and nothing is signed here.

    Raises:
        UnfinishedError: at the end, if the claim could not be made; ``finish`` makes it.
    """
    return LiveRun({"model": model, "key": key, "stated": stated})


class LiveRun(Run):
    """A run that is recorded from inside; ``recorded`` is the claim, once it is made."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        """Keep what the observer will be asked."""
        super().__init__(os.environ.get(VARIABLE) or None)
        self.recorded: Recorded | None = None
        self._request = request
        self._observer: subprocess.Popen[bytes] | None = None
        self._pipes: list[tuple[IO[bytes], os.stat_result]] = []
        self._begun: dict[str, Any] = {}
        self._at_end = contextlib.ExitStack()
        self._failed = ""

    def __repr__(self) -> str:
        """Say in what state the run is, and where its claim stands."""
        state = self._failed or "not recorded"
        if (made := self.recorded) is not None:
            claims = [each.written[0] for each in (made, *made.others) if each.written]
            said = f", {count(len(made.warnings), 'warning')}" * bool(made.warnings)
            state = f"{made.statement.level}{said}, {', '.join(claims) or 'nothing was written'}"
        elif self._begun or self._path is not None:
            state = "being recorded" if self._begun else "told to the recorder that is at work"
        return f"<run: {state}>"

    def start(self) -> None:
        """Begin; what could never be claimed is refused now."""
        with _STARTING:  # another thread may, and is to report to this one or this one to it
            self._start()

    def _start(self) -> None:
        place, known = place_of(os.environ), os.environ.get(VARIABLE)
        if known and self._path is None:
            self._path = records_in(known)
        if known or self._observer or (place and place[1]):
            return  # another records, or the first rank does
        stated = {**self._request["stated"], "progress": None}
        say = stated.pop("on_warning", None)
        asked = {**self._request, "stated": stated, "words": _words(), "process": os.getpid()}
        try:
            line = json.dumps(asked, default=os.fsdecode)
        except TypeError as error:
            what, hint = "an argument is no text, number or path", "name files by their paths"
            raise UsageError(what, hint=hint) from error
        searched = json.dumps([*map(str, sys.path)])  # a program may put paths there
        words = [sys.executable, "-Ic", _OBSERVER, searched]
        pipe = subprocess.PIPE
        try:  # in a session of its own: Ctrl-C is for the training
            self._observer = subprocess.Popen(
                words, stdin=pipe, stdout=pipe, start_new_session=True
            )
        except OSError as error:
            raise UnavailableError(reason(error), where=sys.executable) from error
        pipes = cast("list[IO[bytes]]", [self._observer.stdin, self._observer.stdout])
        self._pipes = [(each, os.fstat(each.fileno())) for each in pipes]
        answer = self._ask(line)
        if not isinstance(answer, dict):
            self._take(answer)
            return
        self._begun = answer
        for remark in answer["remarks"] if say else ():
            say(remark)
        self._listen(answer["program"], answer["heard"], answer["path"])

    def stop(self, error: BaseException | None = None) -> None:
        """End, by *error* if that ended the training, and wait for the claim."""
        if not self._begun or self._begun["pid"] != os.getpid():  # a forked child leaves the block
            return
        began = self._begun["environ"]
        environ = {name: value for name, value in os.environ.items() if began.get(name) != value}
        self._at_end.close()
        self._path, spent = None, _spent()
        used = {name: spent[name] - self._begun["spent"][name] for name in spent}
        answer = self._ask(json.dumps({**_outcome(error), "times": used, "environ": environ}))
        self._begun = {}
        self._failed = f"no claim: {answer}" * isinstance(answer, Exception)
        if error is None or not isinstance(answer, Exception):
            self._take(answer)
        else:
            error.add_note(f"provenance: {answer}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: object, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop(error)

    def _ask(self, line: str) -> Any:  # noqa: ANN401 - a dict, a claim or an error
        """Tell the observer *line* and return its answer; an error if there is none."""
        assert self._observer is not None  # noqa: S101
        (to, _), (answer, _) = self._pipes
        with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
            if not all(os.path.samestat(os.fstat(it.fileno()), was) for it, was in self._pipes):
                _LOST.extend(self._pipes)  # closed, and now files of the program: never touched
                self._observer.stdin = self._observer.stdout = None
                self._observer.kill()
            elif self._observer.poll() is None:  # else SIGPIPE could end this process
                to.write(line.encode() + b"\n")
                to.flush()
                return pickle.load(answer)  # noqa: S301 - by our own program
        what, run = "the process that observes the run has died", self._begun.get("run", "")
        hint = f"when this program has ended: {self._begun['finish']}" if run else None
        return UnfinishedError(what, hint=hint, run=run) if run else UnavailableError(what)

    def _take(self, answer: Any) -> None:  # noqa: ANN401 - as above
        """Keep the last answer of the observer, or raise it."""
        assert self._observer is not None  # noqa: S101
        observer, self._observer = self._observer, None
        with contextlib.suppress(OSError):
            observer.communicate()
        if isinstance(answer, Exception):
            raise answer
        self.recorded = answer

    def _listen(self, program: str, heard: Mapping[str, Any], path: str) -> None:
        """Have this process, and those that it starts, tell the observer what they do."""
        self._begun |= {"pid": os.getpid(), "spent": _spent()}
        self._path, self._told, self._process = f"{program}/{RECORDS}", False, os.getpid()
        state = SourceFileLoader("provenance_state", f"{program}/state.py")
        folders = heard["watched"], heard["left_out"], heard["models"]
        watch = inside.Watch(f"{program}/{RECORDS}", folders, state)
        set_here = {VARIABLE: program, "PYTHONPATH": path, watch.variable: str(os.getpid())}
        before = {name: os.environ.get(name) for name in set_here}
        os.environ.update(set_here)
        self._begun["environ"] = {**os.environ}
        self._at_end.callback(_restore, before, set_here)
        if watch.introduce():
            for module in [*sys.modules.values()]:
                file = getattr(module, "__dict__", {}).get("__file__")
                if isinstance(file, str):
                    watch.read(file, imported=True)
            sys.addaudithook(watch.hook())  # it stays, and tells nothing without handlers
            watch.imported(("", None))  # torch, if it is loaded already
            self._at_end.callback(watch.handlers.clear)
            self._at_end.callback(watch.tell_state, "exit")


def _restore(before: Mapping[str, str | None], ours: Mapping[str, str]) -> None:
    for name, value in before.items():
        if os.environ.get(name) != ours[name]:
            continue  # the program has set it
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


def _words() -> list[str]:
    """Return the command of this process; a notebook's kernel is given the notebook, if known."""
    words = [sys.executable, *sys.orig_argv[1:]]
    if words[1:3] != ["-m", "ipykernel_launcher"]:
        return words
    main = sys.modules["__main__"].__dict__
    notebook = main.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME", "")
    return [*words[:3], notebook] if os.path.isfile(notebook) else words[:3]  # noqa: PTH113


def _spent() -> dict[str, float]:
    """Return the seconds that this process and the children it waited for have computed."""
    times = os.times()
    return {
        "user": times.user + times.children_user,
        "system": times.system + times.children_system,
    }


def _outcome(error: BaseException | None) -> dict[str, Any]:
    """Return how a program ends that does not catch *error*."""
    if isinstance(error, KeyboardInterrupt):
        return {"status": 130, "signal": "SIGINT"}
    if isinstance(error, SystemExit):
        code = 0 if error.code is None else error.code
        number = code if isinstance(code, int) else 1
        return {"status": (number if abs(number) < 2**63 else -1) & 0xFF, "signal": ""}
    return {"status": int(error is not None), "signal": ""}


# The observer.


def observe() -> None:
    """Do what a recording process asks on standard input, and answer on standard output."""
    from dataclasses import replace  # noqa: PLC0415 - what follows is for this process alone

    from provenance.api.arguments import silent  # noqa: PLC0415
    from provenance.api.making import Making  # noqa: PLC0415
    from provenance.capture import process, recorder  # noqa: PLC0415
    from provenance.capture.secrecy.secrets import is_suspect_name  # noqa: PLC0415

    for number in process.CAUGHT:  # a batch system signals all: the training decides how it ends
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the training may ignore it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.buffer.readline())
    remarks: list[Any] = []

    def wait(kept: RunFolder, environ: Mapping[str, str], before: Before) -> CommandResult:
        if os.getppid() != asked["process"]:  # the block never began
            kept.remove()
            raise SystemExit
        kept.started(asked["process"])
        began, started = process.timestamp(), time.monotonic()
        answer: dict[str, Any] = {"run": str(kept.path), "program": str(kept.program)}
        answer |= {"finish": kept.command_to_finish(), "path": environ["PYTHONPATH"]}
        answer |= {"heard": recorder.heard(before), "remarks": remarks}
        _send(answers, answer)
        while not select.select([0], [], [], _SECONDS)[0]:
            if os.getppid() != asked["process"]:
                raise SystemExit
        if not (line := sys.stdin.buffer.readline()):
            raise SystemExit
        end = json.loads(line)
        secret = (name for name in end["environ"] if is_suspect_name(name))
        os.environ.update({name: end["environ"][name] for name in secret})  # to be searched for
        now, cost = process.timestamp(), process.measured(time.monotonic() - started, end["times"])
        return process.CommandResult(end["status"], began, now, end["signal"], cost=cost)

    stated = {**asked["stated"], "on_warning": remarks.append, "progress": silent}
    if isinstance(data := stated.get("data"), list):
        stated["data"] = [tuple(each) if isinstance(each, list) else each for each in data]
    try:
        if stated.get("trace") in {"seccomp", "strace"}:
            hint = "provenance record --trace … -- COMMAND"
            raise UsageError(f"{stated['trace']} sees a program from its start", hint=hint)  # noqa: TRY301 - sent to the block, as all that follows
        making = Making.of(asked["model"], asked["key"], cast("Stated", stated))
        making = replace(making, inputs=replace(making.inputs, from_inside=True))
        _send(answers, making.around(tuple(asked["words"]), wait))
    except Exception as error:  # noqa: BLE001 - it is raised where the block is
        error.__cause__ = error.__context__ = None
        _send(answers, error)


def _send(answers: Any, value: object) -> None:  # noqa: ANN401 - a file
    with contextlib.suppress(OSError):  # nobody waits any more
        pickle.dump(value, answers)
        answers.flush()
