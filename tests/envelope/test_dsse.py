from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from securesystemslib.dsse import Envelope as PeerEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey  # type: ignore[attr-defined]

from provenance.encoding import strict_base64
from provenance.envelope import dsse
from provenance.envelope.dsse import Envelope, open_envelope, pae
from provenance.errors import SignatureError
from provenance.keys import ALGORITHMS, PrivateKey, generate

# The first is the DSSE specification's own (secure-systems-lab/dsse, protocol.md, "Test Vectors").
PAE_VECTORS = {
    "the specification's": (
        "http://example.com/HelloWorld",
        b"hello world",
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world",
    ),
    "nothing": ("", b"", b"DSSEv1 0  0 "),
    "lengths in bytes": ("ä", "ö€".encode(), b"DSSEv1 2 \xc3\xa4 5 \xc3\xb6\xe2\x82\xac"),
    "spaces and digits": ("a 1", b"2 b", b"DSSEv1 3 a 1 3 2 b"),
    "binary": ("t", b"\0\xff\n", b"DSSEv1 1 t 3 \0\xff\n"),
}

KEYS = {algorithm: generate(algorithm) for algorithm in ALGORITHMS}
STRANGER = generate()

PEER_SCHEMES = {
    "ecdsa-p256": ("ecdsa", "ecdsa-sha2-nistp256"),
    "ed25519": ("ed25519", "ed25519"),
}


def peer_key(key: PrivateKey, keyid: str) -> Key:
    kind, scheme = PEER_SCHEMES[key.public.algorithm]
    value = key.public.raw.hex() if kind == "ed25519" else key.public.pem.decode()
    return SSlibKey(keyid, kind, scheme, {"public": value})


@pytest.mark.parametrize(("kind", "payload", "expected"), PAE_VECTORS.values(), ids=PAE_VECTORS)
def test_the_pre_authentication_encoding(kind: str, payload: bytes, expected: bytes) -> None:
    assert pae(kind, payload) == expected
    assert Envelope(kind, payload, "", b"").pae == expected


@given(st.text(), st.binary(), st.text(), st.binary())
def test_two_documents_are_never_encoded_alike(
    kind: str, payload: bytes, other_kind: str, other_payload: bytes
) -> None:
    same = (kind, payload) == (other_kind, other_payload)
    assert (pae(kind, payload) == pae(other_kind, other_payload)) == same


@given(st.text(), st.binary())
def test_the_encoding_is_the_peers(kind: str, payload: bytes) -> None:
    assert pae(kind, payload) == PeerEnvelope(payload, kind, {}).pae()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_signed_opens(algorithm: str) -> None:
    key = KEYS[algorithm]
    envelope = dsse.sign("text/plain", b"payload", key)
    assert envelope.keyid == key.public.key_id
    opened = open_envelope(envelope, [STRANGER.public, key.public])
    assert (opened.payload_type, opened.payload) == ("text/plain", b"payload")
    assert opened.key == key.public
    assert opened.signature == envelope.sig


def test_nothing_opens_without_a_key_or_without_a_signature() -> None:
    envelope = dsse.sign("t", b"p", STRANGER)
    bare = Envelope("t", b"p", "", b"")
    for keys in ([], [KEYS["ed25519"].public]):
        with pytest.raises(SignatureError, match="none of the given keys"):
            open_envelope(envelope, keys)
    with pytest.raises(SignatureError, match="none of the given keys"):
        open_envelope(bare, [STRANGER.public])


ALTERED = {
    "payload": lambda e: replace(e, payload=e.payload + b" "),
    "type": lambda e: replace(e, payload_type=e.payload_type + " "),
    "a byte moved from type to payload": lambda e: replace(
        e, payload_type="", payload=b"t" + e.payload
    ),
    "signature": lambda e: replace(e, keyid="", sig=e.sig[:-1]),
    "empty signature": lambda e: replace(e, keyid="", sig=b""),
}


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_altered_does_not_open(algorithm: str, alter: object) -> None:
    key = KEYS[algorithm]
    envelope = dsse.sign("t", b"p", key)
    assert callable(alter)
    with pytest.raises(SignatureError):
        open_envelope(alter(envelope), [key.public])


def test_a_raw_signature_over_the_payload_does_not_open() -> None:
    with pytest.raises(SignatureError):
        open_envelope(Envelope("t", b"p", "", STRANGER.sign(b"p")), [STRANGER.public])


def test_a_hint_proves_nothing() -> None:
    key = KEYS["ecdsa-p256"]
    for hint in ("", "somebody", "\u202e"):
        envelope = dsse.sign("t", b"p", key, keyid=hint)
        assert open_envelope(envelope, [STRANGER.public, key.public]).key == key.public
        with pytest.raises(SignatureError):
            open_envelope(envelope, [STRANGER.public])


@pytest.mark.parametrize(
    "hint", [STRANGER.public.key_id, STRANGER.public.pem_digest], ids=["key-id", "pem-digest"]
)
def test_a_hint_that_names_a_given_key_binds(hint: str) -> None:
    key = KEYS["ecdsa-p256"]
    envelope = dsse.sign("t", b"p", key, keyid=hint)
    with pytest.raises(SignatureError):
        open_envelope(envelope, [STRANGER.public, key.public])


@pytest.mark.parametrize("algorithm", PEER_SCHEMES)
def test_the_peer_verifies_what_we_sign(algorithm: str) -> None:
    key = KEYS[algorithm]
    ours = dsse.sign("text/plain", b"payload", key)
    signatures = [{"keyid": ours.keyid, "sig": strict_base64.format(ours.sig)}]
    theirs = PeerEnvelope.from_dict(
        {
            "payload": strict_base64.format(ours.payload),
            "payloadType": ours.payload_type,
            "signatures": signatures,
        }
    )
    theirs.verify([peer_key(key, key.public.key_id)], 1)
    theirs.payload = b"payloae"
    with pytest.raises(VerificationError):
        theirs.verify([peer_key(key, key.public.key_id)], 1)


@pytest.mark.parametrize("algorithm", PEER_SCHEMES)
def test_we_open_what_the_peer_signs(algorithm: str) -> None:
    key = KEYS[algorithm]
    handle = load_pem_private_key(key.pem(), None)
    signer = CryptoSigner(handle, peer_key(key, "theirs"))  # type: ignore[arg-type]
    theirs = PeerEnvelope(b"payload", "text/plain", {})
    theirs.sign(signer)
    [(keyid, made)] = theirs.signatures.items()
    envelope = Envelope("text/plain", b"payload", keyid, bytes.fromhex(made.signature))
    opened = open_envelope(envelope, [key.public])
    assert opened.payload == b"payload"
    with pytest.raises(SignatureError):
        open_envelope(replace(envelope, payload=b"payloae"), [key.public])
