"""A run whose Pythons speak, without a recorder around them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from provenance.capture.python.records import Records, read_records

PLAIN = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
PYTHON = os.path.realpath(sys.executable)
"""Without the environment of the tests, in which the package is installed."""


@dataclass(frozen=True)
class Scene:
    """A run's folder with its start-up folder, a watched folder, a model, and a place outside."""

    root: Path
    environ: dict[str, str]

    @property
    def watched(self) -> Path:
        return self.root / "watched"

    def run(
        self, program: str, *options: str, python: str = PYTHON, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run *program* as a script in the watched folder."""
        script = self.root / "script.py"
        script.write_text(textwrap.dedent(program))
        return subprocess.run(
            [python, *options, str(script)],
            cwd=self.watched,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    def said(self) -> Records:
        return read_records(self.root / "run")

    def read(self, program: str, **environ: str) -> set[str]:
        """Run *program*; return which files below the scene it, not its script, is said to read."""
        done = self.run(program, **environ)
        assert (done.returncode, done.stderr) == (0, "")
        return {str(path.relative_to(self.root)) for path in self.said().reads.files} - {
            "script.py"
        }


def states(scene: Scene) -> list[tuple[str, dict[str, bool | int | str]]]:
    """Return what each process said that it had set, in order."""
    told = [states for each in scene.said().processes for states in each.states.values()]
    return [state for states in told for state in states.items()]
