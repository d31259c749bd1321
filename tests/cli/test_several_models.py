"""``record --model A --model B``: each model has a claim and a signature of its own, of one run."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from provenance.api.making import record
from provenance.errors import UsageError
from tests.cli.test_finish import accepted, command_in, killing, only, statement
from tests.world import Shell, refused, tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Person

TRAIN = "mkdir -p a b; printf 1 > a/w; printf 2 > b/w"

pytestmark = pytest.mark.usefixtures("runs")


@pytest.fixture
def both(work: Path, alice: Person) -> tuple[str, ...]:
    """Say what is recorded, with the two models in the folder *work*."""
    assert work.is_dir()
    return ("record", "--model", "a", "--model", "b", "--key", str(alice.private))


def ids(work: Path) -> set[str]:
    """Return the ids of the runs that made the two models."""
    return {statement(work / n)["runDetails"]["metadata"]["invocationId"] for n in "ab"}


def test_each_model_has_a_claim_of_the_same_run(
    work: Path, runs: Path, provenance: Shell, both: tuple[str, ...], alice: Person
) -> None:
    (work / "t.sh").write_text(f"{TRAIN}; printf 3 > b/checkpoint-1.pt")
    ran = provenance(*both, "--json", "--link", "train", "--", "sh", "t.sh", "a", "b", work / "b")
    assert ran.status == 0, ran
    assert len(ids(work)) == 1
    commands, roots = set(), set()
    for name, document in zip("ab", json.loads(ran.out), strict=True):
        assert "recorded" in accepted(provenance, work / name, alice)
        assert any(path.endswith(".link") for path in document["written"])
        assert all(path.startswith(f"{name}/") for path in document["written"])
        roots.add(document["rootDigest"]["sha256"])
        made = statement(work / name)
        commands.add(tuple(made["buildDefinition"]["externalParameters"]["command"]))
        beside = [each["name"] for each in made["runDetails"].get("byproducts", [])]
        assert ("checkpoints" in beside) == (name == "b")
        assert made["runDetails"]["provenance_outcome"] == {"exitStatus": 0}
    assert commands == {
        ("sh", "t.sh", "${model}", "b", "b"),
        ("sh", "t.sh", "a", "${model}", "${model}"),
    }
    assert len(roots) == 2
    assert [*runs.iterdir()] == []


def test_what_two_claims_say_alike_is_said_once(
    provenance: Shell, both: tuple[str, ...], work: Path
) -> None:
    ran = provenance(*both, "--", "sh", "-c", TRAIN)
    words = [line.split()[1:3] for line in ran.err.splitlines()]
    assert [word for label, word in words if label == "model"] == ["a", "b"]
    assert [label for label, _ in words].count("code") == 1
    assert (work / "b/claims.jsonl").exists()


def test_a_dry_run_shows_each_statement(
    work: Path, provenance: Shell, both: tuple[str, ...]
) -> None:
    ran = provenance(*both, "--dry-run", "--", "sh", "-c", TRAIN)
    assert (ran.status, tree(work)) == (0, {})
    assert [each["subject"][0]["name"] for each in json.loads(ran.out)] == ["a", "b"]


def test_the_library_returns_the_first_with_the_others(work: Path, alice: Person) -> None:
    recorded = record(["sh", "-c", TRAIN], model=["a", work / "b"], key=alice.private)
    others = [each.statement.model_name for each in recorded.others]
    assert (recorded.statement.model_name, others) == ("a", ["b"])


@pytest.mark.parametrize(
    ("made", "models", "words"),
    [
        ("mkdir a", ("a", "a"), "lies in, the folder of another model"),
        ("mkdir a", ("a", "a/b"), "lies in, the folder of another model"),
        ("mkdir a", ("a/b", "a"), "lies in, the folder of another model"),
        ("mkdir a; ln -s a b", ("a", "b"), "lies in, the folder of another model"),
        ("mkdir b; touch b/old", ("a", "b"), "begins in an empty folder"),
        ("true", ("a", "runs/*"), "begins in an empty folder"),
        ("mkdir data", ("a", "data/b"), "the model's folder is in the input"),
        ("touch b", ("a", "b"), "is not a folder"),
        ("mkdir b; mkdir b/claims.jsonl", ("a", "b"), "b/claims.jsonl: is a folder"),
    ],
)
def test_what_could_not_be_told_apart_is_refused_beforehand(
    work: Path, alice: Person, provenance: Shell, made: str, models: tuple[str, ...], words: str
) -> None:
    subprocess.run(["sh", "-c", made], check=True)
    before = tree(work)
    data = ("--data", "data") if "data" in made else ()
    named = [word for model in models for word in ("--model", model)]
    ran = provenance("record", *named, *data, "--key", alice.private, "--", "sh", "-c", TRAIN)
    refused(ran, 125, words)
    assert tree(work) == before


def test_the_library_is_given_at_least_one(work: Path, alice: Person) -> None:
    with pytest.raises(UsageError, match="no model"):
        record(["touch", "ran"], model=[], key=alice.private)
    assert not (work / "ran").exists()


@pytest.mark.parametrize("option", ["--finish", "--rebuild-of"])
def test_one_model_is_finished_or_repeated(
    both: tuple[str, ...], provenance: Shell, option: str
) -> None:
    refused(provenance(*both, option, "x"), 125, "more than once")


def test_a_command_that_fails_is_claimed_for_what_it_left(
    work: Path, runs: Path, provenance: Shell, both: tuple[str, ...]
) -> None:
    ran = provenance(*both, "--", "sh", "-c", "mkdir b; touch b/w; exit 3")
    assert ran.status == 3, ran
    assert statement(work / "b")["runDetails"]["provenance_outcome"] == {"exitStatus": 3}
    assert not (work / "a").exists()
    assert [*runs.iterdir()] == []


def test_what_is_wrong_with_one_costs_the_other_nothing(
    work: Path, runs: Path, provenance: Shell, both: tuple[str, ...], alice: Person
) -> None:
    ran = provenance(*both, "--", "sh", "-c", f"{TRAIN}; mkfifo a/x")
    refused(ran, 125, "a/x", "record --finish", "written b/claims.jsonl")
    accepted(provenance, work / "b", alice)
    assert not (work / "a" / "claims.jsonl").exists()
    refused(provenance(*command_in(ran)), 125, "a/x")
    (work / "a" / "x").unlink()
    finished = provenance(*command_in(ran))
    assert finished.status == 0, finished
    assert statement(work / "a")["runDetails"]["provenance_outcome"] == {"exitStatus": 0}
    assert len(ids(work)) == 1
    assert [*runs.iterdir()] == []


def test_several_that_are_left_are_finished_where_they_are(
    work: Path, runs: Path, provenance: Shell, both: tuple[str, ...], alice: Person
) -> None:
    ran = provenance(*both, "--", "sh", "-c", f"{TRAIN}; mkfifo a/x b/x")
    name = only(runs).name
    refused(provenance("record", "--finish", name, "--model", "a"), 125, "several models")
    for model in "ab":
        (work / model / "x").unlink()
    assert provenance(*command_in(ran)).status == 0
    assert len(ids(work)) == 1
    accepted(provenance, work / "a", alice)
    accepted(provenance, work / "b", alice)


def test_a_recorder_that_is_killed_while_it_signs_is_finished(
    work: Path, runs: Path, provenance: Shell, both: tuple[str, ...], alice: Person
) -> None:
    states = set()
    with killing(*both, "--", "sh", "-c", TRAIN) as run:
        for number in range(48, 200, 3):  # from the second look on
            for model in "ab":
                shutil.rmtree(work / model, ignore_errors=True)
            if run(number) != -signal.SIGKILL:
                break
            states.add(tuple((work / name / "claims.jsonl").exists() for name in "ab"))
            for path in runs.glob("*"):
                if not path.name.endswith(".finished"):
                    ran = provenance("record", "--finish", path.name)
                    assert ran.status == 0, (number, ran)
            assert len(ids(work)) == 1
            for name in "ab":
                accepted(provenance, work / name, alice)
    assert states == {(False, False), (True, False), (True, True)}
