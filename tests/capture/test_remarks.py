"""What is said before a run, and what of it a strict recorder refuses."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provenance.capture.inputs import Inputs
from provenance.capture.recorder import observe_before
from provenance.capture.remarks import remarks
from tests.world import declared

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.capture.remarks import Remark
    from tests.capture.conftest import Repository

    Say = Callable[..., tuple[Remark, ...]]

PYTHON = (os.path.realpath(sys.executable), "train.py")
"""Without the environment of these tests, in which this package is editable and perhaps changed."""


@pytest.fixture
def say(repository: Repository, tmp_path: Path) -> Say:
    """Return the remarks on a run in a committed repository that names its data."""
    (tmp_path / "data.csv").write_text("1\n")
    repository.commit({"train.py": "", "conf/a.toml": "x"})

    def run(
        command: tuple[str, ...] = PYTHON,
        folder: Path = repository.path,
        *,
        by_default: bool = False,
        key: Path | None = None,
        **stated: Any,  # noqa: ANN401 - of many types
    ) -> tuple[Remark, ...]:
        given: dict[str, Any] = {
            "data": (("train", tmp_path / "data.csv"),),
            "equality": declared("bytes"),
        }
        inputs = Inputs(model=tmp_path / "model", working_folder=folder, **(given | stated))
        before = observe_before(inputs, command or None, environ=repository.environ)
        return remarks(before, by_default=by_default, key=key)

    return run


def test_nothing_is_said_of_a_run_of_which_all_is_seen(say: Say) -> None:
    assert say() == ()


def test_the_default_equality_is_no_cause(say: Say) -> None:
    (found,) = say(by_default=True)
    assert not found.is_cause
    assert "'bytes'" in found.text
    assert "--equality" in found.way_out


def test_no_data(say: Say) -> None:
    (found,) = say(data=())
    assert (found.is_cause, found.way_out) == (True, "--data ROLE=PATH")


def test_a_base_that_a_resumed_training_may_remove(say: Say, tmp_path: Path) -> None:
    (tmp_path / "model/checkpoint-4").mkdir(parents=True)
    (tmp_path / "model/checkpoint-4/w").write_text("1")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/w").write_text("1")
    (found,) = say(base_model=tmp_path / "model/checkpoint-4")
    assert "baseModel lies in the model's folder" in found.text
    assert say(base_model=tmp_path / "models") == ()
    assert say((), base_model=tmp_path / "model/checkpoint-4") == ()  # of an attestation


@pytest.mark.parametrize("name", ["train.py", "conf/a.toml"])
def test_changes_that_are_not_committed(say: Say, repository: Repository, name: str) -> None:
    repository.write({name: "changed", "err.txt": "untracked, and nobody's code"})
    (found,) = say()
    assert found.is_cause
    assert found.text == f"not committed: {name}"


def test_many_changes_are_counted(say: Say, repository: Repository) -> None:
    repository.commit({f"{number}.py": "" for number in range(9)})
    (repository.path / "0.py").unlink()
    repository.write({f"{number}.py": "changed" for number in range(1, 9)} | {"new.py": ""})
    repository.git("add", "new.py")
    (found,) = say()
    assert found.text == "not committed: 0.py, 1.py, 2.py, 3.py, 4.py, and 5 more"


def test_code_outside_a_repository(say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "train.py").touch()
    (found,) = say(folder=folder)
    assert "not in a git repository: only train.py is recorded" in found.text
    (found,) = say((PYTHON[0], "-c", "1"), folder=folder)
    assert "none is recorded" in found.text


def test_a_repository_that_cannot_be_read(say: Say, repository: Repository) -> None:
    (repository.path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (repository.path / ".git/config").write_text("[broken\n")
    (found,) = say()
    assert found.is_cause
    assert "not seen as a whole: " in found.text
    assert "config" in found.text


def test_an_interpreter_that_cannot_be_seen(say: Say, tmp_path: Path) -> None:
    (found,) = say((PYTHON[0], "-I", "train.py"))
    assert "Python is started with -I" in found.text
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\necho no such thing >&2; exit 1\n")
    broken.chmod(0o755)
    (found,) = say((str(broken), "train.py"))
    assert "no such thing" in found.text


def test_behind_a_launcher_the_run_will_tell(say: Say) -> None:
    assert say(("sh", "train.sh")) == say(("make", "model")) == ()


def test_a_run_that_is_only_stated_has_no_interpreter(say: Say) -> None:
    assert say(()) == ()


def test_a_key_inside_the_repository(say: Say, repository: Repository, tmp_path: Path) -> None:
    repository.write({".gitignore": "alice\n", "alice": "secret"})
    repository.commit({".gitignore": "alice\n"})
    for folder in (repository.path, repository.path / "conf"):
        (found,) = say(PYTHON, folder, key=repository.path / "alice")
        assert "inside the repository" in found.text
        assert found.is_cause
    assert say(key=tmp_path / "alice") == ()
    link = tmp_path / "link"
    link.symlink_to(repository.path / "alice")
    assert len(say(key=link)) == 1


def test_another_private_key_inside_the_repository(say: Say, repository: Repository) -> None:
    repository.write({"keys/id": "-----BEGIN OPENSSH PRIVATE KEY-----\n", "notes": "no key"})
    (found,) = say()
    assert str(repository.path / "keys/id") in found.text
    assert "is a private key" in found.text


def test_every_remark_is_one_line_with_a_way_out(say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    found = say((PYTHON[0], "-I", "x.py"), folder, by_default=True, data=())
    assert len(found) == 4
    for remark in found:
        assert str(remark) == f"{remark.text} ({remark.way_out})"
        assert remark.way_out
        assert "\n" not in str(remark)


def test_a_dry_run_starts_nothing(say: Say, repository: Repository, tmp_path: Path) -> None:
    """Not even an interpreter that lies in the working folder, which git may have brought."""
    for name in ("python3", "torchrun"):
        text = f"#!/bin/sh\ntouch {tmp_path}/started\n"
        text = text if name == "python3" else f"#!{repository.path}/python3\n"
        (repository.path / name).write_text(text)
        (repository.path / name).chmod(0o755)
        repository.git("add", name)
    repository.git("commit", "--quiet", "--message", "programs")
    for command in (("./python3", "train.py"), ("./torchrun", "x"), ("env", "./python3", "x")):
        assert say(command, dry_run=True) == ()
        assert not (tmp_path / "started").exists()
    assert say(("./python3", "train.py"))
    assert (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("command", "is_said"),
    [
        ("python -", True),
        ("python3", True),
        ("python -u /dev/stdin", True),
        ("bash -s a", True),
        ("nice -n 5 bash", True),
        ("env A=1 python /dev/fd/63", True),
        ("uv run python -", True),
        ("python train.py -", False),
        ("python -m train -", False),
        ("python -c pass -", False),
        ("bash -ec true", False),
        ("bash train.py bash", False),
        ("make python", False),
    ],
)
def test_a_program_on_standard_input_is_told(say: Say, command: str, *, is_said: bool) -> None:
    found = any(
        "comes from standard input" in str(remark) for remark in say(tuple(command.split()))
    )
    assert found == is_said
