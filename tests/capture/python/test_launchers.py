from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from provenance.capture.python.launchers import find_interpreter

BIN = str(Path(sys.executable).parent)
ENVIRON = {"PATH": f"{BIN}:/usr/bin:/bin"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a ``python3`` of its own, in ``v/bin`` and as the project's environment."""
    for name in ("v/bin", ".venv/bin"):
        tmp_path.joinpath(name).mkdir(parents=True)
        tmp_path.joinpath(name, "python").symlink_to(sys.executable)
    tool = tmp_path / ".venv/bin/tool"
    tool.write_text(f"#!{tmp_path}/.venv/bin/python -I\n")
    tool.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "v/bin/python t.py",
        "nice v/bin/python t.py",
        "nice -n 5 v/bin/python t.py",
        "nice -n5 v/bin/python t.py",
        "nice --adjustment=5 v/bin/python t.py",
        "nohup v/bin/python t.py",
        "timeout 60 v/bin/python t.py",
        "timeout -k 5 --signal=INT 60 v/bin/python t.py",
        "taskset 3 v/bin/python t.py",
        "taskset -c 0,1 v/bin/python t.py",
        "setsid -w v/bin/python t.py",
        "stdbuf -oL -e 0 v/bin/python t.py",
        "ionice -c 2 -n 7 v/bin/python t.py",
        "env A=b v/bin/python t.py",
        "nice timeout 9 env A=b nohup v/bin/python t.py",
        "bash -c 'v/bin/python t.py --x \"a b\"'",
        "sh -ec 'A=b v/bin/python t.py'",
        "sh -c 'exec v/bin/python t.py'",
        "/usr/bin/nice -- v/bin/python t.py",
    ],
)
def test_a_python_is_found_behind_what_has_a_known_grammar(folder: Path, command: str) -> None:
    found = find_interpreter(shlex.split(command), folder, ENVIRON)
    assert found == [str(folder / "v/bin/python")]


@pytest.mark.parametrize(
    "command",
    [
        ["make"],
        ["bash", "run.sh"],
        ["bash", "-c"],
        ["bash", "-lc", "v/bin/python t.py"],
        ["bash", "-c", "cd x; v/bin/python t.py"],
        ["bash", "-c", "v/bin/python t.py > log"],
        ["bash", "-c", "$PYTHON t.py"],
        ["bash", "-c", "v/bin/python 't.py"],
        ["nice", "--adjustment", "5", "v/bin/python"],
        ["timeout", "5"],
        ["timeout", "--kill-after", "5", "60", "v/bin/python"],
        ["nice"],
        ["env", "-i", "v/bin/python", "t.py"],
        ["uv", "run", "--with", "x", "t.py"],
        ["uv", "run", "--python", "3.12", "t.py"],
        ["uv", "run"],
        ["uv", "pip", "list"],
        ["env"] * 50 + ["v/bin/python"],
        [],
    ],
)
def test_what_is_not_certain_is_left_to_the_run(folder: Path, command: list[str]) -> None:
    assert find_interpreter(command, folder, ENVIRON) == []


def test_uv_runs_in_the_environment_of_the_project(folder: Path) -> None:
    python = str(folder / ".venv/bin/python")
    below = folder / "src"
    below.mkdir()
    folder.joinpath("pyproject.toml").touch()
    for words in (["t.py"], ["--no-sync", "--offline", "t.py"], ["python", "-m", "t"]):
        assert find_interpreter(["uv", "run", *words], below, ENVIRON) == [python]
    assert find_interpreter(["uv", "run", "tool"], folder, ENVIRON) == [python, "-I"]
    elsewhere = {**ENVIRON, "UV_PROJECT_ENVIRONMENT": "/x"}
    assert find_interpreter(["uv", "run", "t.py"], folder, elsewhere) == []
    Path(python).unlink()
    assert find_interpreter(["uv", "run", "t.py"], folder, ENVIRON) == []


def test_a_fifo_is_no_script(folder: Path) -> None:
    os.mkfifo(folder / "fifo", 0o755)
    assert find_interpreter(["./fifo"], folder, ENVIRON) == []
