"""Verdicts against a model count where a log shows them, and what cannot be known is a no."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

import provenance as library
from provenance.errors import PolicyError
from provenance.keys import generate
from provenance.report.policy import policy_lines
from provenance.statement import uris
from provenance.transparency import log as logs
from provenance.transparency import note
from provenance.transparency.note import VerifierKey, format_vkey
from provenance.trust.policy import load
from tests.rebuilding.builds import files
from tests.sigstores import Sigstore, b64
from tests.world import attest, cosign, declared, make_log, sign_payload, vkey_text, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.transparency.note import SignerKey
    from provenance.trust.verification import Answer
    from tests.world import Person, Shell


class World:
    """Alice's model, a log, a folder of documents, and a policy that asks for no mismatch."""

    def __init__(self, folder: Path, people: dict[str, Person]) -> None:
        self.folder, self.people = folder, people
        self.log: SignerKey = make_log(folder / "log", people["larry"])
        self.model = write_files(folder / "digits", files())
        attest(self.model, people["alice"], equality=declared("bytes"))
        (folder / "documents").mkdir()

    def verdict(self, who: str, name: str, noise: float, *, of: Path | None = None) -> Path:
        """Have *who* rebuild the model, with *noise*, and sign what comes of it."""
        person = self.people[who]
        again = write_files(self.folder / name / "digits", files(noise))
        attest(again, person, equality=declared("bytes"))
        out = self.folder / "documents" / f"{name}.json"
        keys = [self.people["alice"].public, person.public]
        models = [of or self.model, again]
        library.agree(models, keys=keys, sign_with=person.private, out=out)
        return out

    def publish(self, path: Path, who: str) -> None:
        library.publish(path, log=self.folder / "log", keys=[self.people[who].public])
        shutil.copy(self.folder / "log/checkpoint", self.folder / "checkpoint")

    def answer(
        self, first: str = "", rule: str = 'statement = "training"', **changes: object
    ) -> str:
        """Return why the policy says that nothing speaks against the model, or that it does."""
        parties = "".join(
            f'[[party]]\nname = "{name}"\norganisation = "of {name}"\n'
            f"keys = [{json.dumps(str(self.people[name].public))}]\n"
            for name in ("alice", "bob")
        )
        against = {
            "log": vkey_text(self.log.verifier),
            "checkpoint": "checkpoint",
            "folder": "log",
            "documents": ["documents"],
            "parties": ["bob"],
            **changes,
        }
        rows = "".join(f"{key} = {json.dumps(value)}\n" for key, value in against.items())
        text = f'format = 1\n{first}{parties}[[rule]]\n{rule}\nparties = ["alice"]\n'
        policy = self.folder / "policy.toml"
        policy.write_text(f"{text}[no-trusted-mismatch]\n{rows}")
        told: list[Answer] = []
        try:
            library.verify(self.model, trust=policy, on_answer=told.append)
        except PolicyError:
            assert not told[-1].holds
        else:
            assert told[-1].holds
        assert told[-1].rule == "no trusted mismatch"
        return str(told[-1].why)


@pytest.fixture
def world(tmp_path: Path, people: dict[str, Person]) -> World:
    return World(tmp_path, people)


def test_a_mismatch_counts_within_the_named_log(world: World) -> None:
    match = world.verdict("bob", "match", 0.0)
    world.publish(match, "bob")
    before = (world.folder / "checkpoint").read_bytes()
    assert world.answer() == "none in the 1 entry of example.org/log"
    # In no log it is not there: whoever wants a yes would remove it.
    mismatch = world.verdict("bob", "mismatch", 0.1)
    assert world.answer() == "none in the 1 entry of example.org/log"
    world.publish(mismatch, "bob")
    assert world.answer() == "a mismatch, by bob (entry 1)"
    # Removed, it is missed; and before the checkpoint that is named, it was not there.
    kept = mismatch.read_bytes()
    mismatch.unlink()
    assert world.answer() == "not decidable here: a document that is not at hand, by bob (entry 1)"
    (world.folder / "checkpoint").write_bytes(before)
    mismatch.write_bytes(kept)
    assert world.answer() == "none in the 1 entry of example.org/log"


def test_who_may_speak_against_it(world: World) -> None:
    world.publish(world.model, "alice")
    world.publish(world.verdict("mallory", "of-a-stranger", 0.1), "mallory")
    assert world.answer() == "none in the 2 entries of example.org/log"
    assert world.answer(parties=["alice"]) == "none in the 2 entries of example.org/log"
    assert world.answer(parties=[]) == "none in the 2 entries of example.org/log"
    attest(other := write_files(world.folder / "other"), world.people["alice"])
    world.publish(other, "alice")
    assert "not at hand, by alice (entry 2)" in world.answer(parties=["alice"])
    assert world.answer().startswith("none in")
    assert world.answer(documents=["documents", "other"], parties=["alice"]).startswith("none in")


def test_a_mismatch_of_another_model_does_not_count(world: World) -> None:
    other = write_files(world.folder / "another/digits", files(0.5))
    attest(other, world.people["alice"], equality=declared("bytes"))
    world.publish(world.verdict("bob", "mismatch", 0.1, of=other), "bob")
    assert world.answer() == "none in the 1 entry of example.org/log"


def test_of_who_signs_with_certificates_every_stranger_may_be_one(
    world: World, tmp_path: Path
) -> None:
    world.publish(world.verdict("mallory", "of-a-stranger", 0.1), "mallory")
    (tmp_path / "root.json").write_bytes(Sigstore().trusted_root())
    extra = (
        'trusted-root = "root.json"\n[[party]]\nname = "carol"\norganisation = "Two"\n'
        'identities = [{ name = "carol@example.org", provider = "https://example.org" }]\n'
    )
    for parties, answer in (
        (["bob"], "none in the 1 entry of example.org/log"),
        (["carol"], "not decidable here: a document that is not at hand, by somebody (entry 0)"),
    ):
        assert world.answer(first=extra, parties=parties) == answer


def test_what_is_not_understood_is_not_passed_over(world: World) -> None:
    statement = {"_type": "https://in-toto.io/Statement/v1", "predicateType": uris.VERDICT,
                 "subject": [{"name": "x", "digest": {"sha256": "00" * 32}}],
                 "predicate": {"conclusion": "of a later version"}}  # fmt: skip
    path = world.folder / "documents/later.json"
    path.write_bytes(sign_payload(json.dumps(statement).encode(), world.people["bob"]))
    world.publish(path, "bob")
    assert "a statement that is not understood, by bob" in world.answer()
    # What is no entry as this program makes them is nobody's; documents that are none are not read.
    for name, data in {"a.json": b"{", "b.json": b"\xff", "c.txt": path.read_bytes()}.items():
        (world.folder / "documents" / name).write_bytes(data)
    logs.append(world.folder / "log", [b"\0" * 32, b"[" * 60000, b"{}"], world.log)
    shutil.copy(world.folder / "log/checkpoint", world.folder / "checkpoint")
    assert world.answer(documents=[]).endswith("not at hand, by bob (entry 0)")


@pytest.mark.parametrize("lost", ["checkpoint", "log/tile/entries/000.p/1", "log"])
def test_a_log_that_is_not_at_hand(world: World, lost: str) -> None:
    world.publish(world.model, "alice")
    path = world.folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert world.answer().startswith("not decidable here: ")


def test_a_log_that_was_changed(world: World, people: dict[str, Person]) -> None:
    world.publish(world.verdict("bob", "mismatch", 0.1), "bob")
    bundle = world.folder / "log/tile/entries/000.p/1"
    bundle.write_bytes(bundle.read_bytes().replace(b"0.0.2", b"0.0.3"))
    assert "do not give the root" in world.answer()
    shutil.rmtree(world.folder / "log")
    make_log(world.folder / "log", people["larry"], "example.org/other")
    shutil.copy(world.folder / "log/checkpoint", world.folder / "checkpoint")
    assert "not signed by the key of example.org/log" in world.answer()


def test_the_command_line_publishes_a_verdict(world: World, provenance: Shell) -> None:
    path, log = world.verdict("bob", "mismatch", 0.1), world.folder / "log"
    assert provenance("publish", path, "--log", log).status == 1  # a verdict names no signer
    key = world.people["bob"].public
    assert provenance("publish", path, "--log", log, "--key", key).out.startswith("claim 1 pub")
    assert provenance("publish", path, "--log", log, "--key", key).out.startswith("claim 1 is al")
    assert provenance("publish", world.model / "model.safetensors", "--log", log).status == 3


def test_a_checkpoint_that_witnesses_must_have_cosigned(world: World) -> None:
    """In the policy's log, in the proof with a claim, and in the proof that takes its place."""
    key = generate("ed25519")
    witness = VerifierKey("w.example", key.public, kind=4)
    log = vkey_text(world.log.verifier)
    asked = f"log {log}\nwitness w {format_vkey(witness)}\nquorum w\n"
    (world.folder / "witnesses").write_text(asked)
    world.publish(world.model, "alice")

    def answers() -> list[bool]:
        policy = world.folder / "policy.toml"
        world.answer()
        text = policy.read_text().replace('"training"', f'"training"\nlogs = ["{log}"]')
        policy.write_text(text.replace("format = 1\n", 'format = 1\ntlog-policy = "witnesses"\n'))
        told: list[Answer] = []
        with suppress(PolicyError):
            library.verify(world.model, trust=policy, on_answer=told.append)
        return [each.holds for each in told]

    assert answers() == [True, False, False]
    checkpoint = world.folder / "log/checkpoint"
    read = note.parse(checkpoint.read_bytes())
    line = cosign(read.text, "w.example", key, datetime.now(UTC), 4)
    checkpoint.write_bytes(note.format(replace(read, signatures=(*read.signatures, line))))
    (world.folder / "checkpoint").write_bytes(checkpoint.read_bytes())
    assert answers() == [True, False, True]
    world.publish(world.model, "alice")
    assert answers() == [True, True, True]


def test_how_old_a_checkpoint_may_be(world: World) -> None:
    key = generate("ed25519")
    witness = format_vkey(VerifierKey("w.example", key.public, kind=4))
    asked = f"log {vkey_text(world.log.verifier)}\nwitness w {witness}\nquorum w\n"
    world.publish(world.model, "alice")
    path = world.folder / "checkpoint"
    read = note.parse(path.read_bytes())
    for days in (3, 1):
        at = datetime.now(UTC) - timedelta(days=days, hours=1)
        line = cosign(read.text, "w.example", key, at, 4)
        path.write_bytes(note.format(replace(read, signatures=(*read.signatures, line))))
        first = f"tlog-policy = {json.dumps(asked)}\n"
        assert world.answer(first=first) == "none in the 1 entry of example.org/log"
        changes: dict[str, Any] = {"max-age-days": 2}
        said = world.answer(first=first, **changes)
        assert ("did not cosign it in the last 2 days" in said) == (days == 3)
    shown = "\n".join(policy_lines(load(world.folder / "policy.toml")))
    assert "at most 2 days old." in " ".join(shown.split())


def test_a_signature_that_leaves_files_out(world: World) -> None:
    """Without the claims, and without a file that is left out, the files have another digest."""
    alice = world.people["alice"]
    (world.model / "notes.md").write_text("left out")
    (world.model / "claims.jsonl").unlink()
    attest(world.model, alice, equality=declared("bytes"))
    library.sign(world.model, key=alice.private, ignore_paths=[world.model / "notes.md"])
    world.publish(world.verdict("bob", "mismatch", 0.1), "bob")
    rule = 'statement = "signature"'
    assert world.answer(rule=rule) == "a mismatch, by bob (entry 0)"
    (world.model / "claims.jsonl").unlink()
    (world.model / "notes.md").unlink()
    assert world.answer(rule=rule).startswith("not decidable here")
    attest(world.model, world.people["bob"])  # whose claim no rule counts
    assert world.answer(rule=rule).startswith("not decidable here")


@pytest.mark.parametrize("kind", ["0.0.1", "0.0.2"])
def test_an_entry_of_another_kind_that_names_a_party(world: World, kind: str) -> None:
    key = world.people["bob"].key.public
    signature = {"content": "AAAA", "verifier": {"publicKey": {"rawBytes": b64(key.spki)}}}
    spec: dict[str, object] = {"dsseV002": {"payloadHash": {}, "signatures": [signature]}}
    if kind == "0.0.1":
        spec = {"signatures": [{"signature": "AAAA", "verifier": b64(key.pem)}]}
    body = {"apiVersion": kind, "kind": "dsse", "spec": spec}
    logs.append(world.folder / "log", [json.dumps(body).encode()], world.log)
    shutil.copy(world.folder / "log/checkpoint", world.folder / "checkpoint")
    assert "not at hand, by bob (entry 0)" in world.answer()
