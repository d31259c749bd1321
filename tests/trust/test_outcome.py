"""What a claim says of its run: levels, what is required, and what is shown unticked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from provenance.api import checking
from provenance.errors import PolicyError, UsageError
from provenance.files.manifest import FileEntry
from provenance.folder.attach import sign
from provenance.statement.training import (
    MODEL,
    ChangedInput,
    Collected,
    Input,
    Metadata,
    Outcome,
    ProgramFile,
    Source,
)
from provenance.trust.outcome import LEVELS, file_notes, outcome_detail
from tests.world import FILES, attach, attest, state, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.trust.outcome import Level
    from provenance.trust.verification import Step, Verified
    from tests.world import Person, Shell

CACHE = FileEntry("labels.cache", 3, "44" * 32)
ADDED = ChangedInput("data:train", added=(CACHE,))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "model")


def outcome_of(verified: Verified) -> Step:
    return next(step for step in verified.steps if step.name == "outcome")


def levels(verified: Verified) -> list[tuple[str, str]]:
    return [(word.signer, word.level) for word in verified.levels]


def verify(root: Path, *people: Person, require: Level | None = None) -> Verified:
    return checking.verify(root, keys=[person.key.public for person in people], require=require)


NOT_RECORDED = {
    "attested after the fact": (Outcome(), Metadata()),
    "unknown: the run began and its end was not seen": (Outcome(), None),
    "was not seen to make all of these files": (Outcome(0, unseen=("model.bin",)), None),
    "attested: the command ended with status 0": (Outcome(0, untouched=tuple(FILES)), None),
}


@pytest.mark.parametrize("words", NOT_RECORDED)
def test_what_is_not_recorded_is_attested_and_said(root: Path, alice: Person, words: str) -> None:
    outcome, run = NOT_RECORDED[words]
    attest(root, alice, outcome=outcome, **({"run": run} if run else {}))
    verified = verify(root, alice, require="attested")
    assert levels(verified) == [(alice.key_id, "attested")]
    assert outcome_of(verified).skipped == (outcome.exit_status is None)
    assert words in outcome_of(verified).detail
    with pytest.raises(PolicyError, match=f"recorded is required, but .*{words}"):
        verify(root, alice, require="recorded")


def test_a_finish_time_without_an_end_is_no_end(root: Path, alice: Person) -> None:
    times = Metadata("", "2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z")
    attest(root, alice, outcome=Outcome(), run=times)
    assert "its end was not seen" in outcome_of(verify(root, alice)).detail
    with pytest.raises(PolicyError):
        verify(root, alice, require="recorded")


def test_a_recorded_run(root: Path, alice: Person) -> None:
    attest(root, alice)
    verified = verify(root, alice, require="recorded")
    assert levels(verified) == [(alice.key_id, "recorded")]
    step = outcome_of(verified)
    assert not step.skipped
    assert step.detail.startswith("recorded: the command ended with status 0, and no input")
    assert step.notes == ()


def test_a_model_signature_alone_is_only_signed(model: Path, alice: Person) -> None:
    (model / "claims.jsonl").unlink()
    verified = verify(model, alice)
    assert levels(verified) == [(alice.key_id, "signed")]
    skipped = [step.name for step in verified.steps if step.skipped]
    assert skipped == ["outcome", "equality declaration", "log proof", "verdict"]
    for level in LEVELS[1:-1]:
        with pytest.raises(PolicyError, match=f"{level} is required, but the outcome is not"):
            verify(model, alice, require=level)


def test_a_level_that_is_none(model: Path, alice: Person) -> None:
    with pytest.raises(UsageError, match="no evidence level"):
        verify(model, alice, require="certified")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="only a verdict"):
        verify(model, alice, require="rebuilt")


def test_inputs_that_nobody_looked_at_again(root: Path, alice: Person) -> None:
    stated = state(root)
    environment = msgspec.structs.replace(stated.build.internal_parameters, observed=("start",))
    build = msgspec.structs.replace(stated.build, internal_parameters=environment)
    attach(root, msgspec.structs.replace(stated, build=build), alice)
    step = outcome_of(verify(root, alice))
    assert step.detail == "recorded: the command ended with status 0"
    assert step.notes == ("the inputs were not looked at again after the run",)


def test_added_files_are_accepted_and_shown(root: Path, alice: Person) -> None:
    attest(root, alice, outcome=Outcome(0, changed_inputs=(ADDED,)))
    verified = verify(root, alice, require="recorded")
    step = outcome_of(verified)
    assert step.detail.endswith("and no file of an input changed meanwhile")
    assert step.notes == ("added during the run: data:train: labels.cache",)


@pytest.mark.parametrize(
    "spoiled",
    [
        ChangedInput("data:train", changed=("a.csv",), added=(CACHE,)),
        ChangedInput("data:train", removed=("a.csv",), added=(CACHE,)),
        ChangedInput("data:train", added=(CACHE,), more=1),
        ChangedInput("data:train", added=(CACHE,), problem="a.csv: its link leads elsewhere"),
    ],
)
def test_anything_but_added_files_is_refused_by_name(
    root: Path, alice: Person, spoiled: ChangedInput
) -> None:
    attest(root, alice, outcome=Outcome(0, changed_inputs=(ADDED, spoiled)))
    named = "1 more" if spoiled.more else r"a\.csv"
    with pytest.raises(PolicyError, match=f"inputs changed .* data:train: .*{named}"):
        verify(root, alice)


def test_files_that_the_run_did_not_make_are_shown(root: Path, alice: Person) -> None:
    names = tuple(FILES)
    attest(root, alice, outcome=Outcome(0, untouched=names[:1], rewritten=names[1:2]))
    assert outcome_of(verify(root, alice, require="recorded")).notes == (
        "1 file there before and not written by the run: config.json",
        "1 file there before and written by the run with equal bytes: model.bin",
    )


@pytest.mark.parametrize("missing", ["1, 3", ""])
def test_ranks_that_were_not_heard_are_said(root: Path, alice: Person, missing: str) -> None:
    stated = state(root)
    values = {"worldSize": 4, "ranks": "0, 2", "missing": missing, "withoutEnd": "2"}
    told = {"distribution": Collected("ok", {name: it for name, it in values.items() if it})}
    environment = msgspec.structs.replace(stated.build.internal_parameters, collectors=told)
    build = msgspec.structs.replace(stated.build, internal_parameters=environment)
    attach(root, msgspec.structs.replace(stated, build=build), alice)
    without_end = "ranks that did not say that they ended: 2 of a world of 4"
    never = "ranks that never spoke: 1, 3 of a world of 4"
    assert outcome_of(verify(root, alice)).notes == (
        (never, without_end) if missing else (without_end,)
    )


def test_a_later_claim_that_failed_is_said(root: Path, alice: Person) -> None:
    attest(root, alice)
    attest(root, alice, outcome=Outcome(3))
    verified = verify(root, alice, require="recorded")
    assert verified.claim is not None
    assert verified.claim.where == "claims.jsonl:1"
    [note] = outcome_of(verified).notes
    assert "claims.jsonl:2: the training command ended with status 3" in note


def test_each_signer_has_a_level_of_its_own(root: Path, alice: Person, bob: Person) -> None:
    attest(root, alice, outcome=Outcome(), run=Metadata())
    attest(root, bob)
    attest(root, alice)
    verified = verify(root, alice, bob)
    assert levels(verified) == [(alice.key_id, "attested"), (bob.key_id, "recorded")]
    with pytest.raises(PolicyError):
        verify(root, alice, bob, require="recorded")
    (root / "model.sig").unlink()
    assert levels(verify(root, bob, require="recorded")) == [(bob.key_id, "recorded")]


def test_who_only_signed_the_files_says_no_more(root: Path, alice: Person, bob: Person) -> None:
    attest(root, bob)
    (root / "model.sig").unlink()
    sign(root, alice.key)
    assert levels(verify(root, alice, bob)) == [
        (bob.key_id, "recorded"),
        (alice.key_id, "signed"),
    ]
    assert levels(verify(root, alice)) == [(alice.key_id, "signed")]


def test_a_key_that_signed_nothing_is_said(root: Path, alice: Person, bob: Person) -> None:
    attest(root, alice)
    assert verify(root, alice, bob).steps[1].notes == (f"no bundle is signed by {bob.key_id}",)
    assert verify(root, alice).steps[1].notes == ()


def test_what_a_downloader_sees(root: Path, alice: Person, provenance: Shell) -> None:
    added = ChangedInput("data:train", added=tuple(entry(n) for n in range(9)))
    attest(root, alice, outcome=Outcome(0, changed_inputs=(added,)))
    ran = provenance("verify", root, "--key", alice.public, "--require", "recorded")
    assert ran.status == 0
    note = "added during the run: data:train: file0, file1, file2, file3, file4, and 4 more"
    assert f"–{' ' * 24}{note}" in ran.out.splitlines()
    assert ran.out.splitlines()[-1] == "  level      recorded (as alice.pub says)"
    document = provenance("verify", root, "--key", alice.public, "--json").document
    assert document["levels"] == [{"signer": alice.key_id, "level": "recorded", "kind": "key"}]
    assert document["environment"]["collectors"]["variables"]["values"]
    assert document["steps"][5]["notes"] == [note]


def test_what_is_required_and_not_there(root: Path, alice: Person, provenance: Shell) -> None:
    attest(root, alice, outcome=Outcome(), run=Metadata())
    ran = provenance("verify", root, "--key", alice.public, "--require", "recorded")
    assert ran.status == 1
    assert "✗ 6 outcome" in ran.out
    assert "recorded is required" in ran.err
    assert "level" not in ran.out
    ran = provenance("verify", root, "--key", alice.public)
    assert ran.out.splitlines()[-1] == "  level      attested (as alice.pub says)"


@pytest.mark.parametrize("is_stated", [True, False])
def test_a_resumed_training_that_names_no_base_is_noted(root: Path, *, is_stated: bool) -> None:
    statement = state(root)
    read = (ProgramFile(f"{MODEL}checkpoint-4/w", ""), ProgramFile("cache", ""))
    recipe = msgspec.structs.replace(
        statement.recipe,
        source=Source(read=read),
        base_model=Input("checkpoint-4", {}, "", 1, 1) if is_stated else None,
    )
    build = msgspec.structs.replace(statement.build, external_parameters=recipe)
    notes = [*file_notes(msgspec.structs.replace(statement, build=build))]
    said = [] if is_stated else ["1 file there before and read by the run, of no base model: "]
    assert [note.partition("checkpoint")[0] for note in notes] == said


def entry(number: int) -> FileEntry:
    return FileEntry(f"file{number}", 1, "44" * 32)


def test_the_level_of_a_statement(root: Path) -> None:
    assert state(root).level == "recorded"
    assert "not stated" in outcome_detail(None)
