"""What a keyless bundle must hold, each part of it against a Sigstore made for the test."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from provenance.envelope import bundle as bundles
from provenance.errors import LogProofError, SignatureError
from provenance.keys.public import public_key_of
from provenance.sigstore import root
from provenance.sigstore.keyless import Keyless
from tests.sigstore_adapter import check_blob
from tests.sigstores import (
    MINUTE,
    NOW,
    PROVIDER,
    WHO,
    Log,
    Sigstore,
    b64,
    body,
    bundle,
    issue,
    pae,
    sign,
    stamper,
    tlv,
)

PAYLOAD = b'{"what": "was signed"}'
V1 = [("hashedrekord", "0.0.1"), ("dsse", "0.0.1"), ("intoto", "0.0.2")]
V2 = [("hashedrekord", "0.0.2"), ("dsse", "0.0.2")]


class Scene:
    """A Sigstore, a signer and a signature in a log; what a test changes is given."""

    def __init__(self, kind: tuple[str, str] = V1[1], **of_signer: Any) -> None:  # noqa: ANN401 - Sigstore's
        self.sigstore = Sigstore()
        self.signer: Any = self.sigstore.signer(**of_signer)
        self.kind = kind
        self.version = "0.3"
        self.at = NOW
        self.stamped: list[bytes] = []

    @property
    def log(self) -> Log:
        return self.sigstore.logs[self.kind in V2]

    def sign(self) -> bytes:
        self.signature = sign(getattr(self.signer, "key", self.signer), pae(PAYLOAD))
        return self.signature

    def entry(
        self, log: Log | None = None, more: str = "", payload: bytes = PAYLOAD
    ) -> dict[str, Any]:
        told = body(*self.kind, payload, self.signature, self.signer)
        return (log or self.log).enter(told, self.at, more)

    def bundle(self, *entries: dict[str, Any]) -> dict[str, Any]:
        signature = getattr(self, "signature", None) or self.sign()
        if self.kind in V2 and not self.stamped:
            self.stamped = [self.sigstore.stampers[0].stamp(signature, self.at)]
        given = list(entries) or [self.entry()]
        return bundle(
            self.signer, PAYLOAD, given, self.stamped, version=self.version, signature=signature
        )

    def open(self, document: dict[str, Any] | None = None, who: str = WHO, keys: Any = ()) -> str:  # noqa: ANN401
        trusted = root.parse(self.sigstore.trusted_root(), where="root")
        keyless = Keyless(trusted, ((who, PROVIDER),) if who else ())
        parsed = bundles.parse(json.dumps(document or self.bundle()).encode())
        return bundles.open_bundle(parsed, [*keys, keyless]).proof


@pytest.mark.parametrize("kind", V1 + V2)
def test_each_kind_of_entry_verifies(kind: tuple[str, str]) -> None:
    scene = Scene(kind)
    assert scene.open().endswith(f"of {scene.log.name} at 2026-06-01 12:00:05 UTC")


@pytest.mark.parametrize("kind", V1 + V2)
def test_an_entry_about_something_else_is_refused(kind: tuple[str, str]) -> None:
    scene = Scene(kind)
    scene.sign()
    with pytest.raises(SignatureError, match=r"something else: .*(value|digest) differs"):
        scene.open(scene.bundle(scene.entry(payload=b"other")))
    other = scene.sigstore.signer(key=scene.signer.key)  # another certificate of the same key
    told = body(*kind, PAYLOAD, scene.signature, other)
    with pytest.raises(SignatureError, match=r"something else: .*(verifier|publicKey|rawBytes)"):
        scene.open(scene.bundle(scene.log.enter(told, NOW)))
    told = body(*kind, PAYLOAD, sign(scene.signer.key, pae(PAYLOAD)), scene.signer)
    with pytest.raises(SignatureError, match=r"something else: .*(content|sig)"):
        scene.open(scene.bundle(scene.log.enter(told, NOW)))
    told = body(*kind, PAYLOAD, scene.signature, scene.signer)
    told["spec"]["more"] = 1
    with pytest.raises(SignatureError, match=r"something else: spec.more differs"):
        scene.open(scene.bundle(scene.log.enter(told, NOW)))


def test_a_kind_that_is_not_known_is_refused() -> None:
    scene = Scene()
    scene.sign()
    told = body(*scene.kind, PAYLOAD, scene.signature, scene.signer) | {"apiVersion": "0.0.9"}
    with pytest.raises(SignatureError, match=r"kind dsse 0\.0\.9, which is not supported"):
        scene.open(scene.bundle(scene.log.enter(told, NOW)))
    mixed = scene.entry()
    mixed["kindVersion"] = {"kind": "intoto", "version": "0.0.2"}
    with pytest.raises(SignatureError, match="not of the kind intoto"):
        scene.open(scene.bundle(mixed))


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_each_version_of_bundles_verifies(version: str) -> None:
    scene = Scene()
    scene.version = version
    assert scene.open()


def test_a_promise_is_enough_in_bundles_0_1_alone() -> None:
    for version, refusal in (("0.1", ""), ("0.2", "no proof of inc"), ("0.3", "no proof of inc")):
        scene = Scene()
        scene.version = version
        scene.sign()
        entry = scene.entry()
        del entry["inclusionProof"]
        if refusal:
            with pytest.raises(SignatureError, match=refusal):
                scene.open(scene.bundle(entry))
            continue
        assert scene.open(scene.bundle(entry))
        del entry["inclusionPromise"]
        with pytest.raises(SignatureError, match="neither a proof of inclusion nor a promise"):
            scene.open(scene.bundle(entry))


def test_a_bundle_0_3_has_no_chain() -> None:
    scene = Scene()
    document = scene.bundle()
    material = document["verificationMaterial"]
    material["x509CertificateChain"] = {"certificates": [material.pop("certificate")]}
    with pytest.raises(SignatureError, match="not keyless in a bundle"):
        scene.open(document)


def test_a_log_beside_the_first_counts() -> None:
    scene = Scene()
    scene.sign()
    second, stranger = Log("second.example.org"), Log("stranger.example.org")
    scene.sigstore.logs.append(second)
    assert "of second.example.org" in scene.open(scene.bundle(scene.entry(second)))
    strangers = scene.entry(stranger)
    assert "of log.example.org" in scene.open(scene.bundle(strangers, scene.entry()))
    with pytest.raises(SignatureError, match="in no log of the trusted root"):
        scene.open(scene.bundle(strangers))


def test_every_entry_of_a_trusted_log_must_hold() -> None:
    scene = Scene()
    scene.sign()
    bad = scene.entry(payload=b"other")
    with pytest.raises(SignatureError, match="something else"):
        scene.open(scene.bundle(scene.entry(), bad))


def test_a_checkpoint_has_several_signatures() -> None:
    scene = Scene(V2[0])
    scene.sign()
    stranger = Log("witness.example.org", 2)
    entry = scene.entry(more=stranger.note("whatever"))
    assert scene.open(scene.bundle(entry))
    note = entry["inclusionProof"]["checkpoint"]
    own = note["envelope"].splitlines()[-1]
    bad = f"{own[:-6]}AAAA{own[-2:]}"  # a second line of the log's key, which does not hold
    note["envelope"] += f"{bad}\n"
    with pytest.raises(SignatureError, match=r"does not match|base64"):
        scene.open(scene.bundle(entry))
    note["envelope"] = note["envelope"].replace(f"{bad}\n", "").replace(f"{own}\n", "")
    with pytest.raises(SignatureError, match=r"not signed by the key of tiles"):
        scene.open(scene.bundle(entry))


def test_a_log_of_version_2_signs_under_its_own_name() -> None:
    scene = Scene(V2[0])
    scene.sign()
    other = Log("other.example.org", 2, key=scene.log.key)
    entry = scene.entry(other) | {"logId": {"keyId": b64(scene.log.log_id)}}
    with pytest.raises(SignatureError, match="of another log, other"):
        scene.open(scene.bundle(entry))


@pytest.mark.parametrize("kind", [V1[1], V2[0]])
def test_a_log_counts_in_its_time(kind: tuple[str, str]) -> None:
    scene = Scene(kind)
    scene.log.end = NOW
    assert scene.open()
    scene.log.end = NOW - timedelta(seconds=1)
    with pytest.raises(SignatureError, match=f"the log {scene.log.name} does not count"):
        scene.open()


def test_no_time_is_taken_from_the_certificate_or_an_unsigned_entry() -> None:
    scene = Scene()
    scene.sign()
    entry = scene.entry()
    del entry["inclusionPromise"]
    with pytest.raises(SignatureError, match="nothing proves when it was signed"):
        scene.open(scene.bundle(entry))


def test_a_timestamp_counts_to_both_ends_of_its_authority() -> None:
    for at in (NOW, NOW + MINUTE):
        scene = Scene(V2[0])
        scene.at = at
        scene.sigstore.stampers = [stamper(start=NOW, end=NOW + MINUTE)]
        assert scene.open()
    for at in (NOW - timedelta(seconds=1), NOW + MINUTE + timedelta(seconds=1)):
        scene = Scene(V2[0])
        scene.at = at
        scene.sigstore.stampers = [stamper(start=NOW, end=NOW + MINUTE)]
        with pytest.raises(SignatureError, match="when its authority does not count"):
            scene.open()


@pytest.mark.parametrize(("embedded", "named"), [(True, True), (True, False), (False, True)])
def test_a_timestamp_holds(embedded: bool, named: bool) -> None:
    scene = Scene(V2[0])
    scene.sigstore.stampers = [stamper("first"), stamper(embedded=embedded, named=named)]
    signature = scene.sign()
    stranger, good = stamper("strange"), scene.sigstore.stampers[1]
    scene.stamped = [stranger.stamp(signature, NOW), good.stamp(signature, NOW)]
    assert scene.open(), "a stranger's counts for nothing beside"
    for bad in (b"\x30\x03\x02\x01\x00", b""):
        scene.stamped = [bad]
        with pytest.raises(SignatureError, match="a timestamp does not hold"):
            scene.open()


def test_a_timestamp_by_a_certificate_of_another_purpose_is_refused() -> None:
    scene = Scene(V2[0])
    bad = stamper()
    code = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    scene.sigstore.stampers = [replace(bad, own=issue("code", bad.root, (code, True)))]
    with pytest.raises(SignatureError, match=r"timestamp does not hold|time stamps"):
        scene.open()


def test_a_timestamp_by_who_only_claims_to_be_its_authority_is_refused() -> None:
    """The response brings a certificate of the right name that the root did not issue."""
    scene = Scene(V2[0])
    good, false = stamper(named=False), stamper()
    scene.sigstore.stampers = [good]
    scene.stamped = [false.stamp(scene.sign(), NOW)]
    with pytest.raises(SignatureError, match="timestamp does not hold"):
        scene.open()


def test_every_proven_time_must_fit() -> None:
    scene = Scene(V2[0])
    late = scene.sigstore.stampers[0].stamp(scene.sign(), NOW + 30 * MINUTE)
    scene.stamped = [scene.sigstore.stampers[0].stamp(scene.signature, NOW), late]
    with pytest.raises(SignatureError, match="expired"):
        scene.open()


def test_one_good_proof_of_several_is_enough() -> None:
    scene = Scene(scts=3)
    assert scene.open()


LONG = "https://example.org/" + "x" * 300


@pytest.mark.parametrize(
    "who", ["https://github.com/o/r/.github/workflows/w.yml@refs/heads/main", LONG]
)
def test_an_identity_is_a_url(who: str) -> None:
    scene = Scene(who=x509.UniformResourceIdentifier(who))
    assert scene.open(who=who)
    for other in (who[:-1], who + "/", who.upper(), "", WHO):
        with pytest.raises(SignatureError, match="signed by"):
            scene.open(who=other)


@pytest.mark.parametrize("who", ["alice", "x" * 130, "y" * 300])
def test_an_identity_is_a_user_name(who: str) -> None:
    name = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), tlv(0x0C, who.encode()))
    assert Scene(who=name).open(who=who)


def test_the_provider_is_read_as_it_was_written_before_2023() -> None:
    assert Scene(old=True).open()


@pytest.mark.parametrize(
    ("provider", "reason"),
    [
        (tlv(0x0C, b"https://other.example.org"), "vouched for by https://other"),
        (PROVIDER.encode(), "UTF8String"),
        (b"", "UTF8String"),
        (b"\x0c\x81\x01a", "UTF8String"),
        (tlv(0x0C, PROVIDER.encode()) + b"x", "UTF8String"),
        (tlv(0x0C, b"\xff"), "UTF8String"),
        (tlv(0x0C, PROVIDER.encode() + b"\n"), "vouched for by"),
    ],
)
def test_another_provider_is_refused(provider: bytes, reason: str) -> None:
    with pytest.raises(SignatureError, match=reason):
        Scene(provider=provider).open()


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256K1()), ec.generate_private_key(ec.SECP224R1())],
)
def test_a_key_of_another_algorithm_is_refused(key: Any) -> None:  # noqa: ANN401 - any private key
    with pytest.raises(SignatureError, match="not supported"):
        Scene(key=key).open()


@pytest.mark.parametrize("kind", V1 + V2)
def test_what_a_key_signed_and_a_log_has_verifies(kind: tuple[str, str]) -> None:
    scene = Scene(kind)
    scene.signer = ec.generate_private_key(ec.SECP256R1())
    keys = [public_key_of(scene.signer.public_key())]
    for who in ("", WHO):
        assert scene.log.name in scene.open(who=who, keys=keys)
    document = scene.bundle(scene.entry(payload=b"other"))
    with pytest.raises(LogProofError, match="something else"):
        scene.open(document, who=WHO, keys=keys)
    with pytest.raises(SignatureError, match="none of the given keys"):
        scene.open(keys=[public_key_of(ed25519.Ed25519PrivateKey.generate().public_key())])


def test_without_a_log_a_key_counts_beside_an_identity_alone() -> None:
    scene = Scene()
    scene.signer = ec.generate_private_key(ec.SECP256R1())
    keys = [public_key_of(scene.signer.public_key())]
    document = scene.bundle()
    for entries in ([], [scene.entry(Log("own.example.org"))]):
        document["verificationMaterial"]["tlogEntries"] = entries
        assert scene.open(document, who=WHO, keys=keys) == ""
        with pytest.raises(LogProofError, match="in no log"):
            scene.open(document, who="", keys=keys)


def test_an_identity_that_nobody_gave_is_refused() -> None:
    with pytest.raises(SignatureError, match=r"none is trusted.*--identity"):
        Scene().open(who="")


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512", "sha1", "md5"])
def test_a_digest_is_by_sha256_or_the_curves_own(algorithm: str) -> None:
    """Clients of 2023 signed by P-384 and SHA-256."""
    private = ec.generate_private_key(ec.SECP384R1())
    key = public_key_of(private.public_key())
    hashed = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}.get(algorithm, hashes.SHA512())
    signature = private.sign(b"message", ec.ECDSA(hashed))
    digest = hashlib.new(algorithm, b"message").digest()
    if algorithm in {"sha256", "sha384"}:
        key.verify_digest(signature, digest, algorithm)
        with pytest.raises(SignatureError, match="does not match"):
            key.verify_digest(signature, digest[::-1], algorithm)
    else:
        with pytest.raises(SignatureError, match="not supported"):
            key.verify_digest(signature, digest, algorithm)
    pure = public_key_of(ed25519.Ed25519PrivateKey.generate().public_key())
    with pytest.raises(SignatureError, match="not supported"):
        pure.verify_digest(signature, digest, algorithm)


def test_a_blob_in_an_entry_for_envelopes_is_refused() -> None:
    def check(kind: tuple[str, str]) -> str:
        scene = Scene(kind)
        document = scene.bundle()
        del document["dsseEnvelope"]
        document["messageSignature"] = {"signature": b64(scene.signature)}
        trusted = root.parse(scene.sigstore.trusted_root(), where="root")
        keyless = Keyless(trusted, ((WHO, PROVIDER),))
        blob = json.dumps(document).encode()
        return check_blob(keyless, blob, lambda name: hashlib.new(name, pae(PAYLOAD)).digest())

    with pytest.raises(SignatureError, match=r"kind dsse 0\.0\.1, which is not supported"):
        check(V1[1])
    assert check(V1[0])
