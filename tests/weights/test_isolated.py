from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.weights import isolated
from provenance.weights.isolated import Limits, answer_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("code", "error", "what"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", MalformedError, "signal 11"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", UnreadableError, "was killed"),
        ("import os, signal; os.kill(os.getpid(), 24)", UnreadableError, "too much processor"),
        ("raise SystemExit(3)", MalformedError, "stopped its library"),
        ("print('x' * 9)", MalformedError, "too long an answer"),
    ],
)
def test_a_child_that_fails_is_one_clear_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    error: type[ProvenanceError],
    what: str,
) -> None:
    script = tmp_path / "child.py"
    script.write_text(code)
    monkeypatch.setattr(isolated, "MAX_ANSWER", 8)
    with pytest.raises(error, match=what) as caught:
        answer_of(script, [], limits=Limits(seconds=9, memory=2**32), where="m.h5")
    assert str(caught.value).startswith("m.h5: ")


def test_a_child_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "child.py"
    script.write_text("import signal; signal.pause()")
    monkeypatch.setattr(isolated, "_STARTING", -1.7)
    with pytest.raises(UnreadableError, match="took too long"):
        answer_of(script, [], limits=Limits(seconds=1, memory=2**32), where="m.h5")


def test_a_child_gets_its_arguments_and_may_use_so_much(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(
        "import resource, sys\n"
        "kinds = resource.RLIMIT_CPU, resource.RLIMIT_FSIZE\n"
        "print(*sys.argv[1:], *(resource.getrlimit(kind)[0] for kind in kinds))"
    )
    limits = Limits(seconds=9, memory=2**32)
    said = answer_of(script, ["a", "b"], limits=limits, where="m.h5")
    assert said.decode().split() == ["a", "b", "9", str(isolated.MAX_ANSWER + 1)]


WAITING = "select.select([], [], [], 20)"
WRITES = 5_000_000
HOLDING = (
    f"collections.deque(map(write, *(itertools.repeat(a, {WRITES}) for a in (pipe, b'.', 1))))"
)
"""Some seconds in one call into C, in which no thread of Python runs."""

CALLER = """
import sys
from pathlib import Path
from provenance.weights.isolated import Limits, answer_of
script, pipe = sys.argv[1:]
limits = Limits(seconds=60, memory=2**32)
answer_of(Path(script), [pipe], limits=limits, where="m.h5", descriptors=(int(pipe),))
"""


@pytest.mark.parametrize(
    "occupation",
    [
        WAITING,
        pytest.param(
            HOLDING, marks=pytest.mark.skipif(sys.platform != "linux", reason="needs SIGIO")
        ),
    ],
    ids=["waiting", "holding Python's lock"],
)
def test_a_child_ends_when_its_caller_is_killed(tmp_path: Path, occupation: str) -> None:
    script = tmp_path / "child.py"
    script.write_text(
        "import collections, ctypes, itertools, select, sys\n"
        "pipe = int(sys.argv[1])\n"
        "write = ctypes.PyDLL(None).write\n"  # which keeps Python's lock
        "write(pipe, b'begun ', 6)\n"
        f"{occupation}\n"
        "write(pipe, b'outlived its caller', 19)\n"
    )
    reading, writing = os.pipe()
    command = [sys.executable, "-c", CALLER, str(script), str(writing)]
    with subprocess.Popen(command, pass_fds=(writing,)) as caller, os.fdopen(reading, "rb") as said:
        os.close(writing)
        assert said.read(6) == b"begun "
        caller.kill()
        rest = said.read()  # until the child, which alone can still write, has ended
    assert rest == b"." * len(rest)
    assert len(rest) < WRITES
