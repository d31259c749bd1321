"""The numbered steps on models that are what they should be, or whose claims are many."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from provenance.errors import (
    ContentError,
    MalformedError,
    PolicyError,
    SignatureError,
    UnreadableError,
    UsageError,
)
from provenance.folder import attach
from provenance.folder.attach import Log, publish
from provenance.keys import generate
from provenance.statement.training import Metadata, Outcome
from provenance.transparency import note
from provenance.trust.verification import STEPS, Demands, Step, Verified, verify_model
from tests.world import (
    RECIPE,
    attest,
    declared,
    edit_lines,
    make_log,
    make_person,
    sign_document,
    state,
    statement_document,
    write_files,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Person


def verify(
    root: Path,
    *people: Person,
    claims: Path | None = None,
    log: note.VerifierKey | None = None,
    **demands: Any,  # noqa: ANN401 - as a policy has them
) -> Verified:
    keys = [person.key.public for person in people]
    return verify_model(root, keys, claims=claims, log=log, demands=Demands(**demands))


def details(verified: Verified) -> dict[str, str]:
    return {step.name: step.detail for step in verified.steps}


def test_each_step_is_reported_as_it_holds(model: Path, alice: Person) -> None:
    heard: list[Step] = []
    verified = verify_model(model, (alice.key.public,), on_step=heard.append)
    assert tuple(heard) == verified.steps
    assert [step.name for step in heard] == list(STEPS[:-1])
    assert [step.number for step in heard] == list(range(1, 9))
    assert [step.name for step in heard if step.skipped] == ["log proof"]


def test_what_is_verified_is_returned(model: Path, alice: Person) -> None:
    verified = verify(model, alice)
    assert verified.claim is not None
    assert verified.claim.training.recipe.seeds == {"numpy": "0"}
    assert verified.claim.opened.key == alice.key.public
    assert verified.declaration is not None
    assert verified.declaration.name == "bytes"
    [signed] = verified.signatures
    assert signed.signature.files.keys() == {e.name for e in verified.manifest.entries}
    assert verified.log_index is None


def test_nothing_is_trusted_by_default(model: Path) -> None:
    with pytest.raises(UsageError, match="nothing is trusted by default"):
        verify(model)


def test_a_model_that_is_not_there(tmp_path: Path, alice: Person) -> None:
    with pytest.raises(UnreadableError, match="no such folder"):
        verify(tmp_path / "none", alice)
    (tmp_path / "file").touch()
    with pytest.raises(
        UnreadableError, match=r"neither file\.claims\.jsonl nor file\.sig is there"
    ):
        verify(tmp_path / "file", alice)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UnreadableError, match="is not a folder"):
        verify(tmp_path / "fifo", alice)


def test_the_model_may_be_named_by_a_link(model: Path, tmp_path: Path, alice: Person) -> None:
    (tmp_path / "link").symlink_to(model)
    assert verify(tmp_path / "link", alice).claim is not None


def test_only_the_files_are_left_of_a_model(model: Path, alice: Person) -> None:
    for name in ("config.json", "model.bin", "tokenizer/merges.txt", "tokenizer/vocab.txt"):
        (model / name).unlink()
    with pytest.raises(ContentError, match=r"model\.bin is missing"):
        verify(model, alice)


def test_an_extra_file_is_refused_before_anything_is_hashed(model: Path, alice: Person) -> None:
    with (model / "extra.bin").open("wb") as file:
        file.truncate(2**42)  # hashing its four terabytes would take half an hour
    with pytest.raises(ContentError, match=r"extra\.bin is extra"):
        verify(model, alice)


# --- Several claims -------------------------------------------------------------------------------


def test_claims_by_other_keys_count_for_nothing(
    model: Path, alice: Person, mallory: Person
) -> None:
    attest(model, mallory, outcome=Outcome(1))
    (model / "model.sig").unlink()
    verified = verify(model, alice)
    assert verified.claim is not None
    assert verified.claim.where == "claims.jsonl:1"
    assert "1 by others, not counted: claims.jsonl:" in details(verified)["signature"]


def test_a_broken_claim_by_another_key_is_ignored(
    model: Path, alice: Person, mallory: Person
) -> None:
    document = statement_document(state(model))
    document["predicate"]["buildDefinition"]["externalParameters"]["unknown"] = 1
    edit_lines(model, lambda lines: [sign_document(document, mallory), *lines])
    assert verify(model, alice).claim is not None


def test_claims_about_other_weights_are_passed_over(model: Path, alice: Person) -> None:
    write_files(model, {"model.bin": b"trained again"})
    attest(model, alice)
    verified = verify(model, alice)
    assert verified.claim is not None
    assert verified.claim.where == "claims.jsonl:2"
    assert "2 training statements" in details(verified)["statement"]


def test_only_claims_about_other_weights(model: Path, alice: Person) -> None:
    write_files(model, {"model.bin": b"a"})
    attest(model, alice)
    write_files(model, {"model.bin": b"b"})
    with pytest.raises(ContentError, match=r"not the files that claims.jsonl:2 states: model.bin"):
        verify(model, alice)


def test_the_first_good_claim_counts(model: Path, alice: Person, bob: Person) -> None:
    attest(model, bob, equality=declared("bytes"))
    verified = verify(model, alice, bob)
    assert verified.claim is not None
    assert verified.claim.opened.key == alice.key.public
    (model / "model.sig").unlink()
    only_bobs = verify(model, bob)
    assert only_bobs.claim is not None
    assert only_bobs.claim.opened.key == bob.key.public


def test_a_failed_training_before_a_good_one_of_the_same_bits(
    tmp_path: Path, alice: Person
) -> None:
    root = write_files(tmp_path / "model")
    attest(root, alice, outcome=Outcome(1))
    attest(root, alice)
    verified = verify(root, alice)
    assert verified.claim is not None
    assert verified.claim.where == "claims.jsonl:2"


def test_a_failed_training_leaves_no_model_signature(tmp_path: Path, alice: Person) -> None:
    root = write_files(tmp_path / "model")
    attest(root, alice, outcome=Outcome(1))
    assert not (root / "model.sig").exists()


def test_two_keys_that_declare_two_equalities(model: Path, alice: Person, bob: Person) -> None:
    attest(model, bob, equality=declared("tensors"))
    with pytest.raises(PolicyError, match="declare different equalities"):
        verify(model, alice, bob)
    (model / "model.sig").unlink()
    assert verify(model, alice).declaration is not None  # Bob's does not count


def test_a_claim_of_a_kind_that_is_not_ours_beside_ours(model: Path, alice: Person) -> None:
    document = statement_document(state(model))
    document["predicateType"] = "https://example.org/praise/v1"
    edit_lines(model, lambda lines: [*lines, sign_document(document, alice)])
    assert verify(model, alice).claim is not None


def test_other_sizes_of_the_same_files(model: Path, alice: Person) -> None:
    document = statement_document(state(model))
    document["predicate"]["provenance_manifest"][0]["size"] += 1
    edit_lines(model, lambda _: [sign_document(document, alice)])
    with pytest.raises(ContentError, match=r"config\.json was changed"):
        verify(model, alice)


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "ed25519", "ml-dsa-65"])
def test_every_algorithm_from_claim_to_log(tmp_path: Path, algorithm: str, larry: Person) -> None:
    person = make_person(tmp_path, "key", algorithm)
    root = attest(write_files(tmp_path / "model"), person)
    signer = make_log(tmp_path / "log", larry)
    publish(root, Log(tmp_path / "log", signer))
    assert verify(root, person, log=signer.verifier).log_index == 0


# --- Claims elsewhere, and the model signature alone ----------------------------------------------


def test_claims_from_another_file(model: Path, tmp_path: Path, alice: Person) -> None:
    elsewhere = (model / "claims.jsonl").rename(tmp_path / "alice.jsonl")
    (model / "model.sig").unlink()
    verified = verify(model, alice, claims=elsewhere)
    assert details(verified)["parse"] == "1 bundle in alice.jsonl"


def test_claims_from_another_file_replace_those_beside(
    model: Path, tmp_path: Path, bob: Person
) -> None:
    attest(shutil.copytree(model, tmp_path / "copy"), bob)
    (model / "claims.jsonl").write_bytes(b"not claims")
    bobs = tmp_path / "copy" / "claims.jsonl"
    verified = verify(model, bob, claims=bobs)
    assert verified.claim is not None
    assert verified.claim.opened.key == bob.key.public
    assert "1 by others" in details(verified)["signature"]


def test_claims_that_are_not_there(model: Path, tmp_path: Path, alice: Person) -> None:
    with pytest.raises(UnreadableError, match="no such file"):
        verify(model, alice, claims=tmp_path / "none")


def test_a_file_of_claims_with_a_colon_in_its_name(
    model: Path, tmp_path: Path, alice: Person
) -> None:
    attest(model, alice)
    elsewhere = (model / "claims.jsonl").rename(tmp_path / "a:b")
    assert details(verify(model, alice, claims=elsewhere))["parse"] == "2 bundles in a:b"


def test_the_model_signature_alone(model: Path, alice: Person) -> None:
    (model / "claims.jsonl").unlink()
    verified = verify(model, alice)
    assert verified.claim is None
    assert verified.declaration is None
    assert details(verified)["outcome"].startswith("not stated")


def test_the_model_signature_alone_does_not_say_how(model: Path, alice: Person) -> None:
    (model / "claims.jsonl").unlink()
    write_files(model, {"config.json": b"{}"})
    with pytest.raises(ContentError, match=r"model\.sig states: config\.json was changed"):
        verify(model, alice)


def test_a_stale_model_signature_beside_a_good_claim(model: Path, alice: Person) -> None:
    old = (model / "model.sig").read_bytes()
    write_files(model, {"model.bin": b"new"})
    attest(model, alice)
    (model / "model.sig").write_bytes(old)
    with pytest.raises(ContentError, match=r"model\.sig states: model\.bin was changed"):
        verify(model, alice)


def test_a_model_signature_over_reserved_names(model: Path, alice: Person) -> None:
    # A tool that reserves other names than ours signs them too.
    long_name = f"provenance/{'x' * 300}"
    manifest = state(model).manifest
    extra = msgspec.structs.replace(manifest.entries[0], name=long_name)
    wider = msgspec.structs.replace(manifest, entries=(*manifest.entries, extra))
    (model / "model.sig").write_bytes(attach.sign_model("model", wider, alice.key))
    with pytest.raises(ContentError, match="is missing"):
        verify(model, alice)


# --- Attested after the fact, and the log ---------------------------------------------------------


def test_attested_after_the_fact(tmp_path: Path, alice: Person) -> None:
    root = write_files(tmp_path / "model")
    attest(
        root,
        alice,
        outcome=Outcome(),
        run=Metadata(),
        recipe=msgspec.structs.replace(RECIPE, command=()),
    )
    assert "not observed" in details(verify(root, alice))["outcome"]


def test_proofs_of_two_logs(model: Path, tmp_path: Path, alice: Person, larry: Person) -> None:
    signers = [make_log(tmp_path / name, larry, f"example.org/{name}") for name in "ab"]
    for signer, name in zip(signers, "ab", strict=True):
        publish(model, Log(tmp_path / name, signer))
    for signer in signers:
        assert verify(model, alice, log=signer.verifier).log_index == 0


def test_a_foreign_entry_that_is_not_understood_beside_a_good_one(
    model: Path, tmp_path: Path, alice: Person, larry: Person
) -> None:
    signer = make_log(tmp_path / "log", larry)
    publish(model, Log(tmp_path / "log", signer))
    line = (model / "claims.jsonl").read_bytes()
    other = line.replace(b'"tlogEntries":[', b'"tlogEntries":[{"version":"9"},', 1)
    (model / "claims.jsonl").write_bytes(other)
    assert verify(model, alice, log=signer.verifier).log_index == 0
    stranger = note.VerifierKey(signer.name, generate("ed25519").public)
    with pytest.raises(MalformedError, match=r"claims\.jsonl"):
        verify(model, alice, log=stranger)


def test_a_claim_signed_by_certificate(model: Path, alice: Person) -> None:
    line = (model / "claims.jsonl").read_bytes()
    hint = b'"publicKey":{"hint":"' + alice.key_id.encode() + b'"}'
    assert hint in line
    (model / "claims.jsonl").write_bytes(line.replace(hint, b'"certificate":{"rawBytes":""}'))
    (model / "model.sig").unlink()
    with pytest.raises(SignatureError, match=r"claims\.jsonl"):
        verify(model, alice)
