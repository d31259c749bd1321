from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from provenance.errors import MalformedError, ProvenanceError, UnavailableError, UnreadableError
from provenance.weights import isolated
from provenance.weights.isolated import Isolated, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def running(script: Path, arguments: Sequence[str] = (), *, seconds: int = 9) -> Isolated:
    """Start *script*, which inherits the standard error."""
    limits, needs = Limits(seconds, memory=2**32), ("some", "extra")
    return Isolated(script, arguments, limits=limits, where="m.h5", needs=needs, descriptor=2)


def answer_of(script: Path, arguments: Sequence[str] = (), *, seconds: int = 9) -> bytearray:
    with closing(running(script, arguments, seconds=seconds)) as process:
        return process.answer()


def script(folder: Path, *body: str) -> Path:
    """Return a script whose ``main`` is *body*."""
    path = folder / "child.py"
    path.write_text("\n    ".join(["def main(arguments):", *body, "yield []"]))
    return path


@pytest.mark.parametrize(
    ("code", "error", "what"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", MalformedError, "signal 11"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", UnreadableError, "was killed"),
        ("import os, signal; os.kill(os.getpid(), 24)", UnreadableError, "too much processor"),
        ("raise SystemExit(3)", MalformedError, "its reader process exited with status 3"),
        ("yield [b'x' * 9999]", MalformedError, "too long an answer"),
        ("raise MemoryError", UnreadableError, "too much memory"),
        ("import nothing_of_this_name", UnavailableError, "needs some"),
        ("raise ValueError('x' * 9999)", MalformedError, "cannot be read by its library: x"),
        ("import os; os.write(3, b'x' * 9)", MalformedError, "too long an answer"),
        (
            "import os; os.write(3, bytes([1, 2, *bytes(7)]) + b'{}')",
            MalformedError,
            "is not one",
        ),
    ],
)
def test_a_child_that_fails_is_one_clear_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    error: type[ProvenanceError],
    what: str,
) -> None:
    monkeypatch.setattr(isolated, "MAX_ANSWER", 9000)
    with pytest.raises(error, match=what) as caught:
        answer_of(script(tmp_path, code))
    assert str(caught.value).startswith("m.h5: ")


def test_a_child_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = script(tmp_path, "import signal; signal.pause()")
    monkeypatch.setattr(isolated, "_SLACK", -1.7)
    with pytest.raises(UnreadableError, match="took too long"):
        answer_of(child, seconds=1)


def test_a_child_gets_its_arguments_and_may_use_so_much(tmp_path: Path) -> None:
    child = script(
        tmp_path,
        "import resource",
        "kinds = resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE",
        "said = [*arguments, *(resource.getrlimit(kind)[0] for kind in kinds)]",
        "yield [' '.join(map(str, said)).encode()]",
    )
    said = answer_of(child, ["a", "b"])
    assert said.decode().split() == ["a", "b", "9", str(isolated.MAX_ANSWER + 1), "0"]


def test_a_child_answers_requests_until_one_fails(tmp_path: Path) -> None:
    child = script(
        tmp_path,
        "print('what a library prints is no answer')",
        "asked = b'begun'",
        "while asked != b'end': asked = yield [asked, memoryview(asked)]",
        "raise ValueError('no more')",
    )
    with closing(running(child)) as process:
        assert process.answer() == b"begun" * 2
        assert process.answer(b"") == b""
        assert process.answer(b"x") == b"xx"
        with ThreadPoolExecutor() as pool:
            asked = [bytes([number]) * 1000 for number in range(99)]
            assert list(pool.map(process.answer, asked)) == [text * 2 for text in asked]
        for _ in range(2):
            with pytest.raises(MalformedError, match=r"m\.h5: .*: no more"):
                process.answer(b"end")


WAITING = "select.select([], [], [], 20)"
WRITES = 5_000_000
HOLDING = (
    f"collections.deque(map(write, *(itertools.repeat(a, {WRITES}) for a in (pipe, b'.', 1))))"
)
"""Some seconds in one call into C, in which no thread of Python runs."""

CALLER = """
import sys
from pathlib import Path
from provenance.weights.isolated import Isolated, Limits
script, pipe = sys.argv[1:]
Isolated(
    Path(script), [pipe], limits=Limits(seconds=60, memory=2**32), where="m.h5",
    needs=("some", "extra"), descriptor=int(pipe),
).answer()
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
    child = script(
        tmp_path,
        "import collections, ctypes, itertools, select",
        "pipe = int(arguments[0])",
        "write = ctypes.PyDLL(None).write",  # which keeps Python's lock
        "write(pipe, b'begun ', 6)",
        occupation,
        "write(pipe, b'outlived its caller', 19)",
    )
    reading, writing = os.pipe()
    command = [sys.executable, "-c", CALLER, str(child), str(writing)]
    with subprocess.Popen(command, pass_fds=(writing,)) as caller, os.fdopen(reading, "rb") as said:
        os.close(writing)
        assert said.read(6) == b"begun "
        caller.kill()
        rest = said.read()  # until the child, which alone can still write, has ended
    assert rest == b"." * len(rest)
    assert len(rest) < WRITES
