"""Who trains in the integration tests, and in which folders and environment.

`make test-integrations` sets the environment up: PROVENANCE_TORCH is its Python, and nothing of
ours is installed there.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.recording import TRAININGS, Recorded, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.world import Person

SCRIPTS = Path(__file__).parent / "trainings"
ROOT = Path(__file__).parents[2]
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
def ours(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The paths on which a program finds our package, and its entry points."""
    installed = tmp_path_factory.mktemp("site") / "ours-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1\n")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"[{group}]\n{n} = {v}\n" for group, all_ in groups.items() for n, v in all_.items()]
    (installed / "entry_points.txt").write_text("".join(lines))
    return f"{ROOT}{os.pathsep}{installed.parent}"


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


@pytest.fixture(scope="session")
def recorded(
    tmp_path_factory: pytest.TempPathFactory,
    clone_to: Callable[[Path], Path],
    environ: dict[str, str],
    ours: str,
    people: dict[str, Person],
) -> Callable[..., Recorded]:
    """Record the training of a name, once for each person, who has folders and seeds of their own.

    The model lies in the clone's folder.
    """

    @cache
    def make(name: str, who: str = "alice", base: Path | None = None) -> Recorded:
        training = TRAININGS[name]
        deeper = "elsewhere/deeper" if who == "bob" else ""
        folder = clone_to(tmp_path_factory.mktemp("recorded") / deeper / who)
        own = dict(environ)
        options: tuple[str, ...] = ("--seed", "0", "--tensors")
        model = f"model-of-{who}" if "{out}" in training.command else "model"
        if training.ours:
            own["PYTHONPATH"] = ours
        if training.equality:
            options += ("--equality", training.equality)
            own["PYTHONHASHSEED"] = str(sorted(people).index(who))
        if base:
            options += ("--base-model", str(base))
        if training.stray and who == "bob":
            (folder / training.stray).write_text("nothing reads this\n")
        if by_hand := name in ("JAX", "TensorFlow") and os.environ["PROVENANCE_JAX"]:
            own["PATH"] = f"{Path(by_hand).parent}{os.pathsep}{environ['PATH']}"
        if name == "Lightning":  # watched from the start, so that what it deletes at once is stated
            (folder / model / "checkpoints").mkdir(parents=True)
        words = training.words(out=model, base=base)
        made = record(folder, people[who], own, *words, model=model, options=options)
        return replace(made, base=base)

    return make
