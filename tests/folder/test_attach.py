"""Publishing: every claim is in the log, and says so itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from provenance.envelope.bundle import MAX_LOG_ENTRIES
from provenance.errors import (
    MalformedError,
    SignatureError,
    UnavailableError,
    UnreadableError,
    UsageError,
)
from provenance.files import atomic
from provenance.folder import attach as attach_module
from provenance.folder.attach import Log, SignedClaim, attach, publish
from provenance.keys import load_public
from provenance.transparency import log as logs
from provenance.transparency.audit import audit
from provenance.trust.verification import verify_model
from tests.world import (
    attest,
    edit_bundle,
    edit_lines,
    make_log,
    sign_document,
    state,
    statement_document,
    tree,
    write_files,
)

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.transparency.note import SignerKey
    from tests.world import Person


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def signer(log: Path, larry: Person) -> SignerKey:
    return make_log(log, larry)


@pytest.mark.parametrize("name", ["../../escaped", "/absolute", "0" * 64])
def test_a_byproduct_is_called_by_its_digest(
    model: Path, alice: Person, tmp_path: Path, name: str
) -> None:
    attest(model, alice)
    claim = (model / "claims.jsonl").read_bytes().splitlines()[-1]
    name = f"{tmp_path}{name}" if name.startswith("/") else name
    with pytest.raises(MalformedError, match="does not have that digest"):
        attach(model, SignedClaim(claim, None, {name: b"x"}))
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"x"
    ]


def test_each_claim_gets_its_own_entry(
    model: Path, log: Path, signer: SignerKey, alice: Person, bob: Person
) -> None:
    attest(model, bob)
    published = publish(model, Log(log, signer))
    assert [(p.line, p.index, p.new) for p in published] == [(1, 0, True), (2, 1, True)]
    for person in (alice, bob):
        (model / "model.sig").unlink(missing_ok=True)
        verified = verify_model(model, (person.key.public,), log=signer.verifier)
        assert verified.log_index == (0 if person is alice else 1)
    assert audit(log, signer.verifier).checkpoint.size == 2


def test_publishing_again_changes_nothing(model: Path, log: Path, signer: SignerKey) -> None:
    publish(model, Log(log, signer))
    before = tree(model), tree(log)
    (again,) = publish(model, Log(log, signer))
    assert (again.index, again.new) == (0, False)
    assert (tree(model), tree(log)) == before


def test_a_lost_proof_is_found_again(model: Path, log: Path, signer: SignerKey) -> None:
    lost = (model / "claims.jsonl").read_bytes()
    publish(model, Log(log, signer))
    (model / "claims.jsonl").write_bytes(lost)
    (again,) = publish(model, Log(log, signer))
    assert again.index == 0
    assert logs.read_checkpoint(log, signer.verifier).size == 1


def test_a_claim_that_does_not_name_its_signer(
    model: Path, log: Path, signer: SignerKey, alice: Person
) -> None:
    unnamed = sign_document(statement_document(state(model)), alice)
    edit_lines(model, lambda _: [unnamed])
    before = tree(model), tree(log)
    with pytest.raises(SignatureError, match="name the public key with --key"):
        publish(model, Log(log, signer))
    assert (tree(model), tree(log)) == before
    publish(model, Log(log, signer), (load_public(alice.public),))
    assert verify_model(model, (alice.key.public,), log=signer.verifier).log_index == 0


def test_a_claim_with_a_broken_signature_is_not_published(
    model: Path, log: Path, signer: SignerKey, alice: Person
) -> None:
    attest(model, alice)
    before = tree(log)

    def break_second(lines: list[bytes]) -> list[bytes]:
        other = edit_bundle(lines[1], lambda b: b["dsseEnvelope"].update(payloadType="x"))
        return [lines[0], other]

    edit_lines(model, break_second)
    with pytest.raises(SignatureError, match="claim 2"):
        publish(model, Log(log, signer))
    assert tree(log) == before  # the good claim waits for the bad one


def test_a_model_without_claims(tmp_path: Path, log: Path, signer: SignerKey) -> None:
    root = write_files(tmp_path / "model")
    with pytest.raises(UnreadableError, match="holds no claims to publish"):
        publish(root, Log(log, signer))
    assert "claims.jsonl" not in tree(root)


def test_a_full_disk_after_the_log_grew(
    model: Path, log: Path, signer: SignerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(model)

    def full(path: Path, _data: bytes) -> None:
        raise atomic.storage_error(OSError(28, "No space left on device"), path)

    monkeypatch.setattr(attach_module, "write_file", full)
    with pytest.raises(UnavailableError, match="no space left on device"):
        publish(model, Log(log, signer))
    assert tree(model) == before
    monkeypatch.undo()
    (again,) = publish(model, Log(log, signer))
    assert again.index == 0
    assert logs.read_checkpoint(log, signer.verifier).size == 1


def test_what_a_bundle_carries_besides_is_kept(model: Path, log: Path, signer: SignerKey) -> None:
    def add_timestamp(document: dict[str, Any]) -> None:
        timestamps = {"rfc3161Timestamps": [{"signedTimestamp": "AA=="}]}
        document["verificationMaterial"]["timestampVerificationData"] = timestamps

    edit_lines(model, lambda lines: [edit_bundle(line, add_timestamp) for line in lines])
    publish(model, Log(log, signer))
    material = json.loads((model / "claims.jsonl").read_text())["verificationMaterial"]
    assert material["timestampVerificationData"]["rfc3161Timestamps"]
    assert len(material["tlogEntries"]) == 1


def test_one_proof_too_many_is_refused_before_the_log_grows(
    model: Path, log: Path, signer: SignerKey
) -> None:
    def fill(document: dict[str, Any]) -> None:
        document["verificationMaterial"]["tlogEntries"] = [{}] * MAX_LOG_ENTRIES

    edit_lines(model, lambda lines: [edit_bundle(line, fill) for line in lines])
    with pytest.raises(UsageError, match="claim 1: carries 16 proofs"):
        publish(model, Log(log, signer))
    assert audit(log, signer.verifier).checkpoint.size == 0
