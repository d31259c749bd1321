"""What ``record`` and ``attest`` do with a folder in which something is in the way."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

import provenance
from provenance.errors import MalformedError, ProvenanceError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Person

TRAIN = ["sh", "-c", "echo trained > trained"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alice: Person) -> Path:
    """Return a model that Alice attested, in the current folder."""
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("0.25")
    provenance.attest(model, key=alice.key)
    return model


@pytest.mark.parametrize("kind", ["link to a folder", "dangling link", "FIFO"])
def test_what_is_no_file_is_refused_and_left(
    folder: Path, tmp_path: Path, bob: Person, kind: str
) -> None:
    path = folder / "model.sig"
    path.unlink()
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path if kind == "link to a folder" else "nowhere")
    before = path.lstat()
    for make in (provenance.attest, provenance.sign):
        with pytest.raises(ProvenanceError, match=r"model\.sig"):
            make(folder, key=bob.key)
    assert path.lstat().st_ino == before.st_ino


@pytest.mark.parametrize("kind", ["folder", "empty"])
def test_what_is_no_signature_is_left(folder: Path, bob: Person, kind: str) -> None:
    path = folder / "model.sig"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.touch()
    before = path.lstat()
    done = provenance.attest(folder, key=bob.key)
    assert path.lstat().st_ino == before.st_ino
    assert len(done.warnings) == len(done.remarks) + 1
    assert len((folder / "claims.jsonl").read_bytes().splitlines()) == 2
    with pytest.raises(ProvenanceError):
        provenance.sign(folder, key=bob.key)
    assert path.lstat().st_ino == before.st_ino


@pytest.mark.parametrize("kind", ["link", "indented"])
def test_claims_to_which_none_can_be_added_are_refused_before_the_training(
    folder: Path, tmp_path: Path, alice: Person, kind: str
) -> None:
    claims = folder / "claims.jsonl"
    if kind == "link":
        claims.rename(tmp_path / "elsewhere")
        claims.symlink_to(tmp_path / "elsewhere")
    else:
        claims.write_text(json.dumps(json.loads(claims.read_text()), indent=1) + "\n")
    with pytest.raises(ProvenanceError):
        provenance.record(TRAIN, model=folder, key=alice.key)
    assert not (tmp_path / "trained").exists()


@pytest.mark.parametrize(
    "stated",
    [
        {"secret_variables": "KEY_PASSWORD"},
        {"allowed_secrets": "HOME"},
        {"data": "data.csv"},
        {"config": "config.json"},
        {"data": ["a\0"]},
        {"config": ["\ud800"]},
        {"seeds": 10**5000},
        {"seeds": {"\ud800": 1}},
    ],
)
def test_arguments_that_cannot_be_meant(
    folder: Path, alice: Person, stated: dict[str, Any]
) -> None:
    """Of one text for several the letters would count: no variable would be kept secret."""
    with pytest.raises((UsageError, MalformedError)):
        provenance.record(TRAIN, model=folder, key=alice.key, **stated)
    with pytest.raises((UsageError, MalformedError)):
        provenance.attest(folder, key=alice.key, **stated)
    assert not (folder.parent / "trained").exists()


def test_an_argument_of_another_name_is_no_argument(folder: Path, alice: Person) -> None:
    misspelt: dict[str, Any] = {"secret_variable": ["KEY_PASSWORD"]}
    with pytest.raises(TypeError, match="secret_variable"):
        provenance.record(TRAIN, model=folder, key=alice.key, **misspelt)


@pytest.mark.parametrize("command", [[], ["true", "\ud800"], ["true", "\0"], "true"])
def test_commands_that_cannot_be_run(folder: Path, alice: Person, command: list[str]) -> None:
    with pytest.raises(UsageError):
        provenance.record(command, model=folder, key=alice.key)


def test_keys_and_models_are_several(folder: Path, alice: Person) -> None:
    with pytest.raises(UsageError, match="give a list"):
        provenance.verify(folder, keys="alice.pub")
    for models in ("", "ab"):
        with pytest.raises(UsageError):
            provenance.agree(models, keys=[alice.key.public], equality="bytes")
    with pytest.raises(UsageError):
        provenance.keygen("a\0")


def test_what_a_run_cost_is_measured_and_no_drift(folder: Path, alice: Person) -> None:
    made = provenance.record(["sh", "-c", "echo 1 > model/weights"], model=folder, key=alice.key)
    internal = made.statement.build.internal_parameters
    cost = internal.collectors["cost"]
    assert (cost.status, cost.reason) == ("ok", "")
    assert cost.values["wallSeconds"] > 0
    assert cost.values["cpuSeconds"].keys() == {"user", "system"}
    assert "cost" not in [each.collector for each in internal.drift]


def test_what_was_attested_afterwards_has_no_cost(folder: Path, alice: Person) -> None:
    made = provenance.attest(folder, key=alice.key)
    assert "cost" not in made.statement.build.internal_parameters.collectors
