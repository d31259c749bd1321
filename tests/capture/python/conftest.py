from __future__ import annotations

import os
from pathlib import Path

import pytest

from provenance.capture.python import startup
from provenance.capture.python.records import prepare
from provenance.capture.run import VARIABLE
from tests.capture.python.scene import PLAIN, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    root = Path(os.path.realpath(tmp_path))
    for name in ("run", "watched", "watched/data", "watched/.git", "model", "outside"):
        root.joinpath(name).mkdir()
    for name in ("watched/a.py", "watched/data/x", "watched/.git/config", "outside/b.py"):
        root.joinpath(name).write_text("x = 1\n")
    prepare(root / "run")
    environ = startup.install(
        root / "run",
        {**PLAIN, VARIABLE: str(root / "run"), "PYTHONDONTWRITEBYTECODE": "1"},
        watched=[root / "watched"],
        left_out=[root / "watched/data"],
        models=[root / "model"],
    )
    return Scene(root, environ)
