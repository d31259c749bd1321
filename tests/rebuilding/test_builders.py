"""Who counts as one builder: a signer as the reader trusts them, whatever key they sign with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

import provenance as library
from provenance.envelope import bundle as bundles
from provenance.envelope import dsse
from provenance.errors import PolicyError, SignatureError, UsageError
from provenance.rebuilding.verdict import Verifier, from_statement, to_statement
from provenance.report.agreement import verdict_lines
from provenance.statement import intoto, training
from tests import sigstores
from tests.sigstores import AUTHORITY, NOW, PROVIDER, WHO, Issued, Sigstore, issue, pem_of, usage
from tests.world import RUN, declared, payload_of, refused, sign_payload, state, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.rebuilding.verdict import Verdict
    from tests.world import Person, Shell

OTHER = "https://other.example.org"
NAME = f"{WHO} ({PROVIDER})"
YEARS: dict[str, Any] = {"begin": NOW.replace(year=2020), "end": NOW.replace(year=2100)}
ONCE = "1 of 2 builders: models by one signer count once"


@dataclass
class Scene:
    """A Sigstore, an authority, and models in *folder*, each of a run of its own."""

    folder: Path
    sigstore: Sigstore
    authority: Issued

    def payload(self, name: str, person: Person | None = None) -> bytes:
        """Return what is stated of a new model of that name; *person* is named as the signer."""
        root = write_files(self.folder / name)
        run = msgspec.structs.replace(RUN, invocation_id=f"run of {name}")
        statement = state(root, equality=declared("bytes"), run=run)
        named = training.name_signer(statement, person.key.public) if person else statement
        return intoto.format(training.to_statement(named))

    def claim(self, name: str, line: bytes) -> Path:
        (self.folder / name / "claims.jsonl").write_bytes(line + b"\n")
        return self.folder / name

    def by_key(self, name: str, person: Person) -> Path:
        return self.claim(name, sign_payload(self.payload(name, person=person), person))

    def by_identity(
        self, name: str, who: str = WHO, provider: str = PROVIDER, payload: bytes = b""
    ) -> Path:
        """Have *who* sign, with a key that is made for it."""
        payload = payload or self.payload(name)
        vouched = sigstores.tlv(0x0C, provider.encode())
        signer = self.sigstore.signer(who=x509.RFC822Name(who), provider=vouched)
        signature = sigstores.sign(signer.key, sigstores.pae(payload))
        told = sigstores.body("dsse", "0.0.1", payload, signature, signer)
        entry = self.sigstore.logs[0].enter(told, NOW)
        made = sigstores.bundle(signer, payload, [entry], [], signature=signature)
        return self.claim(name, json.dumps(made).encode())

    def by_certificate(self, name: str, subject: str, person: Person) -> Path:
        """Have *person* sign with a certificate that calls them *subject*."""
        code = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        signs = ((usage(digital_signature=True), True), (code, False))
        key = serialization.load_pem_private_key(person.key.pem(), None)
        leaf = issue(subject, self.authority, *signs, key=key, **YEARS)
        payload = self.payload(name, person=person)
        envelope = dsse.sign(dsse.IN_TOTO_PAYLOAD, payload, person.key)
        return self.claim(name, bundles.format(envelope, hint="", chain=[leaf.der]))

    @property
    def given(self) -> dict[str, Any]:
        """Whom a reader trusts: the identity, and the authority."""
        (self.folder / "root.json").write_bytes(self.sigstore.trusted_root())
        root = self.folder / "root.pem"
        root.write_bytes(pem_of("CERTIFICATE", self.authority.der))
        return {
            "identity": WHO,
            "identity_provider": PROVIDER,
            "trust_config": self.folder / "root.json",
            "certificate_chain": [root],
        }

    def agree(self, *models: Path, **more: Any) -> Verdict:  # noqa: ANN401 - the verb's own
        verdict = library.agree(models, **(self.given | more))
        assert from_statement(to_statement(verdict, Verifier("key", "0", ""))) == verdict
        return verdict


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, Sigstore(), issue("authority", None, *AUTHORITY, **YEARS))


def test_an_identity_counts_once_whatever_its_keys(scene: Scene) -> None:
    verdict = scene.agree(scene.by_identity("a"), scene.by_identity("b"))
    published, rebuilt = verdict.parties
    assert published.key_id != rebuilt.key_id
    assert (verdict.conclusion, verdict.builders, verdict.reasons) == (
        "inconclusive", (NAME,), (ONCE,),
    )  # fmt: skip
    assert [(party.subject, party.counted) for party in verdict.parties] == [
        (NAME, True), (NAME, False),
    ]  # fmt: skip


def test_two_identities_are_two_builders(scene: Scene) -> None:
    models = scene.by_identity("a"), scene.by_identity("b", "bob@example.org")
    verdict = scene.agree(*models, identity=[WHO, "bob@example.org"])
    bob = f"bob@example.org ({PROVIDER})"
    assert (verdict.conclusion, verdict.builders) == ("match", (NAME, bob))
    with pytest.raises(SignatureError, match=r"b: .*signed by bob@example.org, not by alice@"):
        scene.agree(*models)


def test_one_name_by_two_providers_is_two(scene: Scene) -> None:
    models = scene.by_identity("a"), scene.by_identity("b", provider=OTHER)
    with pytest.raises(SignatureError, match=f"vouched for by {OTHER}, not by {PROVIDER}"):
        scene.agree(*models)
    both: dict[str, Any] = {"identity": [WHO, WHO], "identity_provider": [PROVIDER, OTHER]}
    verdict = scene.agree(*models, **both)
    assert (verdict.conclusion, len(verdict.builders)) == ("match", 2)
    # The provider in the same place counts, and no other.
    swapped = {"identity": [WHO, "bob@example.org"], "identity_provider": [OTHER, PROVIDER]}
    with pytest.raises(SignatureError, match=f"vouched for by {PROVIDER}, not by {OTHER}"):
        scene.agree(*models, **swapped)


@pytest.mark.parametrize(
    ("identity", "provider"),
    [
        ("a", None), (None, "p"), ([], ["p"]), (["a", "b"], None), (["a"], ["p", "q"]),
        (["a", "b", "c"], ["p", "q"]), ("", ""), (["a", ""], "p"),
    ],
)  # fmt: skip
def test_each_identity_has_one_provider(scene: Scene, identity: Any, provider: Any) -> None:  # noqa: ANN401
    with pytest.raises(UsageError, match="both are needed"):
        scene.agree(identity=identity, identity_provider=provider)


def test_a_key_and_an_identity_agree(scene: Scene, alice: Person, provenance: Shell) -> None:
    models = scene.by_identity("a"), scene.by_key("b", alice)
    verdict = scene.agree(*models, keys=[alice.public])
    assert (verdict.conclusion, {*verdict.builders}) == ("match", {alice.key_id, NAME})
    words: list[str | Path] = ["--key", alice.public, "--trust-config", scene.folder / "root.json"]
    words += ["--identity", WHO, "--identity-provider", PROVIDER]
    ran = provenance("agree", *models, *words)
    assert ran.status == 0, ran.err
    at = ran.out.splitlines().index("builders  2 signers, 2 needed")
    assert ran.out.splitlines()[at + 1 : at + 3] == [
        f"          {NAME}  recorded",
        f"          alice.pub  {alice.key_id}  recorded",
    ]
    refused(provenance("agree", *models, "--key", alice.public), 1, f"{WHO} ({PROVIDER})")
    ran = provenance("agree", *models, *words[2:])
    refused(ran, 1, "b: ", "none is trusted (name the signer's public key with --key)")
    refused(provenance("agree", *models, *words[:-2]), 2, "add --identity-provider URL")


# --- What another one attested --------------------------------------------------------------------


def test_who_signs_anothers_attestation_has_built_nothing(scene: Scene, alice: Person) -> None:
    keyed = scene.by_key("a", alice)
    line = (keyed / "claims.jsonl").read_bytes()
    again = scene.by_identity(write_files(scene.folder / "b").name, payload=payload_of(line))
    verdict = scene.agree(keyed, again, keys=[alice.public])
    what = "does not count as a builder: it names another signer than the key that signed it"
    assert verdict.reasons == (f"rebuild 1 {what}", "1 of 2 builders")
    # Nor does a key that signs what an identity attested, or another identity.
    keyless = scene.by_identity("c")
    payload = payload_of((keyless / "claims.jsonl").read_bytes())
    write_files(scene.folder / "d")
    again = scene.claim("d", sign_payload(payload, alice))
    verdict = scene.agree(keyless, again, keys=[alice.public])
    assert verdict.reasons == (f"rebuild 1 {what}", "1 of 2 builders")
    again = scene.by_identity("d", "bob@example.org", payload=payload)
    verdict = scene.agree(keyless, again, identity=[WHO, "bob@example.org"])
    what = "does not count as a builder: another signer attested the same run"
    assert verdict.reasons == (f"rebuild 1 {what}", "1 of 2 builders")


def test_a_verdict_is_signed_where_nobody_counts(scene: Scene, alice: Person, bob: Person) -> None:
    models = [scene.by_identity(name, payload=scene.payload(name, alice)) for name in ("a", "b")]
    out = scene.folder / "verdict.json"
    verdict = scene.agree(*models, sign_with=bob.private, out=out)
    assert (verdict.conclusion, verdict.builders) == ("inconclusive", ())
    assert "builders  0 signers, 2 needed" in verdict_lines(verdict, ["a", "b"])
    assert out.exists()


# --- Certificates ---------------------------------------------------------------------------------


def test_a_subject_counts_once_whatever_its_keys(scene: Scene, alice: Person, bob: Person) -> None:
    models = scene.by_certificate("a", "Alice", alice), scene.by_certificate("b", "Alice", bob)
    verdict = scene.agree(*models)
    assert (verdict.conclusion, verdict.builders) == ("inconclusive", ("CN=Alice",))
    assert verdict.reasons == (ONCE,)
    other = scene.agree(models[0], scene.by_certificate("c", "Bob", bob))
    assert (other.conclusion, other.builders) == ("match", ("CN=Alice", "CN=Bob"))


def test_a_key_counts_once_whatever_it_is_called(scene: Scene, alice: Person, bob: Person) -> None:
    named = scene.by_certificate("a", "Alice", alice)
    for other in (scene.by_certificate("b", "Bob", alice), scene.by_key("c", alice)):
        for models in ((named, other), (other, named)):
            verdict = scene.agree(*models, keys=[alice.public])
            assert (verdict.conclusion, len(verdict.builders)) == ("inconclusive", 1)
            assert verdict.reasons == (ONCE,)
    # A certificate may be what shows that two keys are one signer's.
    keyed, between = scene.by_key("d", bob), scene.by_certificate("e", "Alice", bob)
    verdict = scene.agree(named, keyed, between, keys=[bob.public])
    assert (verdict.conclusion, verdict.builders) == ("inconclusive", ("CN=Alice",))
    assert scene.agree(named, keyed, keys=[bob.public]).conclusion == "match"


# --- What a reader makes of the verdict -----------------------------------------------------------

POLICY = """format = 1
trusted-root = "root.json"
[[party]]
name = "carol"
organisation = "One"
identities = [{{ name = "{who}", provider = "{provider}" }}]
[[party]]
name = "larry"
organisation = "Three"
keys = [{larry}]
{more}
[[rule]]
statement = "verdict"
parties = ["larry"]
builders = 2
"""
PARTY = '[[party]]\nname = "{0}"\norganisation = "{1}"\n{2}\n'
CERTIFICATE = 'certificates = [{ authority = "root.pem", subject = "CN=Bob" }]'


def trusts(scene: Scene, larry: Person, *parties: str) -> Path:
    given = {"who": WHO, "provider": PROVIDER, "larry": json.dumps(str(larry.public))}
    path = scene.folder / "policy.toml"
    path.write_text(POLICY.format(**given, more="".join(parties)))
    return path


def test_a_policy_counts_organisations_by_any_signer(
    scene: Scene, bob: Person, larry: Person
) -> None:
    out = scene.folder / "verdict.json"
    models = scene.by_identity("a"), scene.by_certificate("b", "Bob", bob)
    library.agree(models, **scene.given, sign_with=larry.private, out=out)

    def verify(*parties: str) -> None:
        library.verify(models[0], trust=trusts(scene, larry, *parties), verdict=out)

    one, two = (PARTY.format("bob", which, CERTIFICATE) for which in ("One", "Two"))
    verify()
    verify(two)
    with pytest.raises(PolicyError, match="2 builders"):
        verify(one)
    # A key that a party has is that party's, whatever its certificate says.
    key = f"keys = [{json.dumps(str(bob.public))}]"
    with pytest.raises(PolicyError, match="2 builders"):
        verify(PARTY.format("bob", "One", key), PARTY.format("other", "Two", CERTIFICATE))
    # A verdict does not say who issued the certificate: it may be either's.
    (scene.folder / "other.pem").write_bytes((scene.folder / "root.pem").read_bytes())
    with pytest.raises(PolicyError, match="2 builders"):
        verify(two, PARTY.format("bert", "Three", CERTIFICATE.replace("root.", "other.")))


def test_a_keyless_model_is_rebuilt(
    scene: Scene, alice: Person, larry: Person, provenance: Shell
) -> None:
    out = scene.folder / "verdict.json"
    models = scene.by_identity("a"), scene.by_key("b", alice)
    verdict = library.agree(
        models, **scene.given, keys=[alice.public], sign_with=larry.private, out=out
    )
    verified = library.verify(
        models[0], **scene.given, keys=[larry.public], verdict=out, require="rebuilt"
    )
    assert [(word.signer, word.level, word.kind) for word in verified.levels] == [
        (NAME, "recorded", "identity"), (larry.key_id, "rebuilt", "key"),
    ]  # fmt: skip
    shown = provenance("show", out)
    assert shown.status == 0, shown.err
    assert NAME in shown.out
    # About the same statement, signed by somebody else, it says nothing.
    payload = payload_of((models[0] / "claims.jsonl").read_bytes())
    again = scene.by_identity("a", "bob@example.org", payload=payload)
    trusted = scene.given | {"identity": "bob@example.org"}
    with pytest.raises(PolicyError, match="is about another claim"):
        library.verify(again, **trusted, keys=[larry.public], verdict=out)
    assert msgspec.to_builtins(verdict)["published"]["subject"] == NAME
    assert "subject" not in msgspec.to_builtins(verdict.rebuilds[0].party)


def test_keys_of_which_one_follows_the_other_are_one_builder(
    scene: Scene, alice: Person, bob: Person, larry: Person
) -> None:
    old, new, other = scene.by_key("a", alice), scene.by_key("b", bob), scene.by_key("c", larry)
    keys = [each.public for each in (alice, bob, larry)]
    assert scene.agree(old, new, keys=keys).conclusion == "match"
    library.resign(old, old_key=alice.private, new_key=bob.private)
    for models in ((old, new), (new, old)):
        verdict = scene.agree(*models, keys=keys)
        assert (verdict.conclusion, len(verdict.builders)) == ("inconclusive", 1)
        assert verdict.reasons == (ONCE,)
    verdict = scene.agree(new, old, other, keys=keys)
    assert {*verdict.builders} == {bob.key_id, larry.key_id}
