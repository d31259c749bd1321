"""Who trains in the integration tests, and in which folders and environment.

`make test-integrations` sets the environment up: PROVENANCE_TORCH is its Python, and nothing of
ours is installed there.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPTS = Path(__file__).parent / "trainings"
PROJECT = "[project]\nname = 'training'\nversion = '0'\nrequires-python = '>=3.11'\n"


@pytest.fixture(scope="session")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of both: the trainer's Python first on the path, one thread, no network."""
    own = {
        "PATH": f"{Path(os.environ['PROVENANCE_TORCH']).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    for number, role in enumerate(("AUTHOR", "COMMITTER")):
        own |= {f"GIT_{role}_NAME": "a", f"GIT_{role}_EMAIL": f"a{number}@example.org"}
    return own


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]) -> Path:
    """A repository with all trainings."""
    root = shutil.copytree(SCRIPTS, tmp_path_factory.mktemp("upstream") / "trainings")
    (root / "pyproject.toml").write_text(PROJECT)
    (root / ".gitignore").write_text("__pycache__/\n.venv\ndata/\nmodel/\nbase/\n*-of-*/\n")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "Train")):
        subprocess.run(["git", *words], cwd=root, env={**os.environ, **environ}, check=True)
    return root


@pytest.fixture(scope="session")
def clone_to(upstream: Path, environ: dict[str, str]) -> Callable[[Path], Path]:
    """Clone the trainings to a place, with data and environment."""

    def make(root: Path) -> Path:
        subprocess.run(
            ["git", "clone", "-q", upstream, root], env={**os.environ, **environ}, check=True
        )
        (root / ".venv").symlink_to(Path(os.environ["PROVENANCE_TORCH"]).parent.parent)
        (root / "data").mkdir()
        draw = random.Random(0).gauss
        rows = [",".join(f"{draw(0, 1):.4f}" for _ in range(5)) for _ in range(64)]
        (root / "data" / "rows.csv").write_text("\n".join(rows) + "\n")
        return root

    return make


@pytest.fixture
def clone(clone_to: Callable[[Path], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Clone the trainings to a place below the test's folder, with data and environment."""
    return lambda place: clone_to(tmp_path / place)
