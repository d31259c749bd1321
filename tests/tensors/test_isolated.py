from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.tensors import isolated
from provenance.tensors.isolated import Limits, answer_of

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
    monkeypatch.setattr(isolated, "_STARTING", 0.2)
    with pytest.raises(UnreadableError, match="took too long"):
        answer_of(script, [], limits=Limits(seconds=0, memory=0), where="m.h5")
