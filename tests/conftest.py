"""What every test shares: how hypothesis draws its examples, and people with keys and a model."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests.world import Person, Shell, attest, declared, make_person, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xdist.remote import Producer

# No deadline: a busy machine is not a defect. In CI the same examples every time, so that a change
# is judged by what it changed; at a developer's desk new ones, kept in .hypothesis when they fail.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
# Thousands of mutants are tried: few examples each, the same for all.
settings.register_profile("mutation", settings.get_profile("ci"), max_examples=20)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


class _Scheduling(LoadFileScheduling):  # type: ignore[misc]  # has no types
    """A file is run by one worker; so are all that read the trainings recorded for the session."""

    READERS = ("captured", "checkpoints", "frameworks", "integrations", "ranks", "real_folders")

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        readers = [f"tests/integration/test_{name}.py" for name in self.READERS]
        return "recorded" if file in readers else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    return _Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_ignored() -> None:
    """Have children heed these signals, even where the tests run under nohup or by ``&``."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _no_run_is_kept_at_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that will hold the folders of runs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/provenance/runs"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Person]:
    """Alice and Bob, who build; Mallory, whom nobody trusts; Larry, who keeps a log."""
    folder = tmp_path_factory.mktemp("keys")
    made = [make_person(folder, name) for name in ("alice", "bob", "mallory")]
    made.append(make_person(folder, "larry", "ed25519"))
    return {person.name: person for person in made}


@pytest.fixture
def alice(people: dict[str, Person]) -> Person:
    return people["alice"]


@pytest.fixture
def bob(people: dict[str, Person]) -> Person:
    return people["bob"]


@pytest.fixture
def mallory(people: dict[str, Person]) -> Person:
    return people["mallory"]


@pytest.fixture
def larry(people: dict[str, Person]) -> Person:
    return people["larry"]


@pytest.fixture(scope="session")
def alices_model(tmp_path_factory: pytest.TempPathFactory, people: dict[str, Person]) -> Path:
    """A model that Alice attested, with the equality ``bytes``; not to be changed."""
    root = write_files(tmp_path_factory.mktemp("made") / "model")
    return attest(root, people["alice"], equality=declared("bytes"))


@pytest.fixture
def model(alices_model: Path, tmp_path: Path) -> Path:
    """A copy of Alice's model, to be changed."""
    return shutil.copytree(alices_model, tmp_path / "model")


@pytest.fixture
def provenance(capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line, called in this process."""
    return Shell(capsys)


@pytest.fixture
def deepen() -> Iterator[Callable[[Path], None]]:
    """Return what makes folders in a folder, deeper than Python before 3.12 can walk or remove."""
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        for depth in range(1200):
            os.mkdir(f"{folder}/{'a/' * depth}")  # noqa: PTH102 - pathlib takes a second for each

    yield make
    for folder in made:
        subprocess.run(["rm", "-rf", folder], check=True)
