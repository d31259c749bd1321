from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.encoding import strict_base64
from provenance.envelope import bundle, dsse
from provenance.errors import MalformedError, ProvenanceError, SignatureError
from provenance.keys import generate

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = generate()
STRANGER = generate()
PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1"}'
ENVELOPE = dsse.sign(dsse.IN_TOTO_PAYLOAD, PAYLOAD, KEY)
BUNDLE = bundle.format(ENVELOPE, hint=KEY.public.key_id)
DOCUMENT: dict[str, Any] = json.loads(BUNDLE)

MISSING = object()


def altered(path: str, value: object) -> bytes:
    """Return the bundle with *value* at the dotted *path*; :data:`MISSING` takes it away."""
    document = copy.deepcopy(DOCUMENT)
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place: Any = document
    for part in parents:
        place = place[part]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


SIG = DOCUMENT["dsseEnvelope"]["signatures"][0]
BASE64_OF_62_63 = "-_-_"

REFUSED: dict[str, tuple[bytes, str]] = {
    "no media type": (altered("mediaType", MISSING), "missing required field 'mediaType'"),
    "an unknown version": (
        altered("mediaType", "application/vnd.dev.sigstore.bundle.v0.4+json"),
        "not a Sigstore bundle",
    ),
    "another media type": (altered("mediaType", "text/html"), "not a Sigstore bundle"),
    "a media type of another case": (
        altered("mediaType", bundle.MEDIA_TYPE.upper()),
        "not a Sigstore bundle",
    ),
    "no envelope": (altered("dsseEnvelope", MISSING), "missing required field 'dsseEnvelope'"),
    "a message signature": (
        json.dumps(
            {
                "mediaType": bundle.MEDIA_TYPE,
                "verificationMaterial": DOCUMENT["verificationMaterial"],
                "messageSignature": {"messageDigest": {}, "signature": ""},
            }
        ).encode(),
        r"got 'object' - at '\$\.messageSignature'",
    ),
    "two contents": (
        altered("messageSignature", {"signature": ""}),
        r"got 'object' - at '\$\.messageSignature'",
    ),
    "a hundred thousand values": (
        altered("verificationMaterial.tlogEntries", [[0] * bundle.MAX_VALUES]),
        "more than 100000 values",
    ),
    "no payload": (altered("dsseEnvelope.payload", MISSING), "missing required field 'payload'"),
    "no payload type": (
        altered("dsseEnvelope.payloadType", MISSING),
        "missing required field 'payloadType'",
    ),
    "no signatures": (
        altered("dsseEnvelope.signatures", MISSING),
        "missing required field 'signatures'",
    ),
    "an empty list of signatures": (
        altered("dsseEnvelope.signatures", []),
        "'array' of length >= 1",
    ),
    "two signatures": (altered("dsseEnvelope.signatures", [SIG, SIG]), "'array' of length <= 1"),
    "no sig": (altered("dsseEnvelope.signatures.0.sig", MISSING), "missing required field 'sig'"),
    "no material": (
        altered("verificationMaterial", MISSING),
        "missing required field 'verificationMaterial'",
    ),
    "no signer": (altered("verificationMaterial.publicKey", MISSING), "in exactly one way"),
    "two signers": (
        altered("verificationMaterial.certificate", {"rawBytes": "AAAA"}),
        "in exactly one way",
    ),
    "only a null signer": (altered("verificationMaterial.publicKey", None), "in exactly one way"),
    "too many log entries": (
        altered("verificationMaterial.tlogEntries", [{}] * (bundle.MAX_LOG_ENTRIES + 1)),
        "'array' of length <= 16",
    ),
    "a log entry that is none": (
        altered("verificationMaterial.tlogEntries", ["x"]),
        r"got 'str' - at '\$\.verificationMaterial\.tlogEntries\[0\]'",
    ),
    "payload: no padding": (altered("dsseEnvelope.payload", "Zg"), "base64"),
    "payload: unused bits": (altered("dsseEnvelope.payload", "Zh=="), "canonical base64"),
    "payload: URL alphabet": (altered("dsseEnvelope.payload", BASE64_OF_62_63), "not base64"),
    "payload: line breaks": (altered("dsseEnvelope.payload", "Zm9v\n"), "base64"),
    "sig: URL alphabet": (
        altered("dsseEnvelope.signatures.0.sig", BASE64_OF_62_63),
        "not base64",
    ),
    "sig: hexadecimal": (altered("dsseEnvelope.signatures.0.sig", "abcde"), "base64"),
    "same key": (BUNDLE[:-1] + b',"mediaType":"x"}', "is duplicated"),
    "same key, deep": (BUNDLE.replace(b'"payload":', b'"payload":"","payload":'), "is duplicated"),
    "trailing bytes": (BUNDLE + b"x", "Extra data"),
    "a second document": (BUNDLE + BUNDLE, "Extra data"),
    "200 levels": (
        altered("verificationMaterial.tlogEntries", json.loads("[" * 200 + "]" * 200)),
        "nested deeper",
    ),
    "a list": (b"[" + BUNDLE + b"]", "not a Sigstore bundle: Expected 'object'"),
    "a text": (b'"bundle"', "not a Sigstore bundle: Expected 'object'"),
    "nothing": (b"", "not JSON"),
    "cut off": (BUNDLE[:-1], "not JSON"),
}

PLACES = [
    "mediaType",
    "dsseEnvelope",
    "dsseEnvelope.payload",
    "dsseEnvelope.payloadType",
    "dsseEnvelope.signatures",
    "dsseEnvelope.signatures.0",
    "dsseEnvelope.signatures.0.sig",
    "dsseEnvelope.signatures.0.keyid",
    "verificationMaterial",
    "verificationMaterial.publicKey",
    "verificationMaterial.publicKey.hint",
    "verificationMaterial.tlogEntries",
]

OTHER_TYPES = {
    "number": 0,
    "false": False,
    "empty list": [],
    "list of numbers": [1],
    "empty object": {},
    "float": 0.5,
}
FITTING = {  # an object or a list where one belongs, though empty
    ("verificationMaterial.publicKey", "empty object"),
    ("verificationMaterial.tlogEntries", "empty list"),
}


def opens(data: bytes) -> bytes:
    return bundle.open_bundle(bundle.parse(data), [KEY.public]).payload


def test_round_trip() -> None:
    parsed = bundle.parse(BUNDLE)
    assert parsed.envelope == ENVELOPE
    assert (parsed.material, parsed.hint) == ("publicKey", KEY.public.key_id)
    assert parsed.log_entries == ()
    assert parsed.raw == BUNDLE
    assert bundle.format(parsed.envelope, hint=parsed.hint) == BUNDLE
    assert opens(BUNDLE) == PAYLOAD


def test_log_entries_are_kept_as_they_are() -> None:
    entries: tuple[dict[str, Any], ...] = ({"logIndex": "1", "unknown": [None, 0.5]}, {})
    data = bundle.format(ENVELOPE, hint="", log_entries=entries)
    parsed = bundle.parse(data)
    assert parsed.log_entries == entries
    assert bundle.format(parsed.envelope, hint="", log_entries=parsed.log_entries) == data


@pytest.mark.parametrize("media_type", sorted(bundle.READ_MEDIA_TYPES))
def test_older_media_types_are_read(media_type: str) -> None:
    assert opens(altered("mediaType", media_type)) == PAYLOAD


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message) as caught:
        bundle.parse(data, where="model.sig")
    assert (caught.value.where or "").startswith("model.sig")


@pytest.mark.parametrize("kind", OTHER_TYPES)
@pytest.mark.parametrize("place", PLACES)
def test_a_value_of_another_type_is_refused(place: str, kind: str) -> None:
    data = altered(place, OTHER_TYPES[kind])
    if (place, kind) in FITTING:
        assert opens(data) == PAYLOAD
        return
    with pytest.raises(MalformedError):
        bundle.parse(data)


@pytest.mark.parametrize("keyid", [None, "", MISSING])
def test_a_signature_may_have_no_keyid(keyid: object) -> None:
    assert opens(altered("dsseEnvelope.signatures.0.keyid", keyid)) == PAYLOAD


def test_what_is_unknown_is_ignored() -> None:
    for place in ("new", "dsseEnvelope.new", "verificationMaterial.timestampVerificationData"):
        assert opens(altered(place, {"x": 1})) == PAYLOAD
    assert opens(altered("verificationMaterial.certificate", None)) == PAYLOAD


@pytest.mark.parametrize(
    "hint", [KEY.public.key_id, KEY.public.pem_digest, ""], ids=["key-id", "pem-digest", "none"]
)
def test_the_hint_names_a_key_in_one_of_two_ways_or_none(hint: str) -> None:
    data = bundle.format(dsse.sign("t", b"p", KEY, keyid=""), hint=hint)
    keys = [STRANGER.public, KEY.public]
    assert bundle.open_bundle(bundle.parse(data), keys).key == KEY.public


CHAIN = {"certificates": [{"rawBytes": "AAAA"}]}

SIGNERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "hint of another key": (
        lambda: bundle.format(dsse.sign("t", b"p", KEY, keyid=""), hint=STRANGER.public.key_id),
        "none of the given keys",
    ),
    "hint of no given key": (
        lambda: bundle.format(dsse.sign("t", b"p", generate(), keyid=""), hint="nobody"),
        "signed by another key, nobody",
    ),
    "signed by a stranger under our hint": (
        lambda: bundle.format(
            dsse.sign("t", b"p", generate(), keyid=KEY.public.key_id), hint=KEY.public.key_id
        ),
        "none of the given keys",
    ),
    "named by certificate": (
        lambda: json.dumps(
            DOCUMENT | {"verificationMaterial": {"certificate": {"rawBytes": "AAAA"}}}
        ).encode(),
        "signed by an identity",
    ),
    "named by a chain of certificates": (
        lambda: json.dumps(
            DOCUMENT | {"verificationMaterial": {"x509CertificateChain": CHAIN}}
        ).encode(),
        "signed with a certificate, and no authority is trusted",
    ),
}


@pytest.mark.parametrize(("make", "message"), SIGNERS.values(), ids=SIGNERS)
def test_a_signer_that_does_not_fit_is_refused(make: Callable[[], bytes], message: str) -> None:
    parsed = bundle.parse(make())
    with pytest.raises(SignatureError, match=message):
        bundle.open_bundle(parsed, [KEY.public, STRANGER.public])


@pytest.mark.parametrize("hint", ["nobody", "SHA256:rt1C+8e", "ab" * 20, "ü", None])
@pytest.mark.parametrize(
    "keyid", ["", "nobody's", None, STRANGER.public.key_id], ids=["", "nobody", "none", "stranger"]
)
def test_hints_that_name_no_given_key_are_only_hints(hint: str | None, keyid: str | None) -> None:
    document = json.loads(bundle.format(dsse.sign("t", b"p", KEY), hint=""))
    document["verificationMaterial"]["publicKey"]["hint"] = hint
    document["dsseEnvelope"]["signatures"][0]["keyid"] = keyid
    opened = bundle.open_bundle(bundle.parse(json.dumps(document).encode()), [KEY.public])
    assert opened.key == KEY.public
    with pytest.raises(SignatureError):
        bundle.open_bundle(bundle.parse(json.dumps(document).encode()), [STRANGER.public])


def test_hint_and_keyid_may_name_two_given_keys() -> None:
    parsed = bundle.parse(bundle.format(ENVELOPE, hint=STRANGER.public.key_id))
    assert bundle.open_bundle(parsed, [STRANGER.public, KEY.public]).key == KEY.public


def test_no_key_opens_nothing() -> None:
    with pytest.raises(SignatureError):
        bundle.open_bundle(bundle.parse(BUNDLE), [])


def test_no_changed_byte_gives_another_payload() -> None:
    for place in range(len(BUNDLE)):
        for flip in (0x01, 0x20, 0x80, 0xFF):
            data = bytearray(BUNDLE)
            data[place] ^= flip
            try:
                opened = bundle.open_bundle(bundle.parse(bytes(data)), [KEY.public])
            except ProvenanceError:
                continue
            assert (opened.payload_type, opened.payload) == (dsse.IN_TOTO_PAYLOAD, PAYLOAD)


@given(st.data())
def test_no_splice_gives_another_payload(draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(BUNDLE)))
    end = draw.draw(st.integers(start, len(BUNDLE)))
    middle = draw.draw(st.binary(max_size=8) | st.just(BUNDLE[start:end] * 2))
    try:
        payload = opens(BUNDLE[:start] + middle + BUNDLE[end:])
    except ProvenanceError as error:
        assert str(error).isprintable()  # noqa: PT017 - either outcome is right
    else:
        assert payload == PAYLOAD


# --- claims.jsonl ---------------------------------------------------------------------------------

PRETTY = json.dumps(DOCUMENT, indent=2).encode()
OTHER = bundle.format(dsse.sign("t", b"other", KEY), hint=KEY.public.key_id)

LINES: dict[str, tuple[bytes, list[bytes]]] = {
    "one line": (BUNDLE + b"\n", [BUNDLE]),
    "two lines": (BUNDLE + b"\n" + OTHER + b"\n", [BUNDLE, OTHER]),
    "CRLF": (BUNDLE + b"\r\n" + OTHER + b"\r\n", [BUNDLE + b"\r", OTHER + b"\r"]),
    "the same line twice": ((BUNDLE + b"\n") * 2, [BUNDLE, BUNDLE]),
}

ANY = {
    "one line without end": (BUNDLE, [BUNDLE]),
    "one bundle over several lines": (PRETTY, [PRETTY]),
    "the same with an end": (PRETTY + b"\n", [PRETTY]),
    "the same with CRLF": (
        PRETTY.replace(b"\n", b"\r\n") + b"\r\n",
        [PRETTY.replace(b"\n", b"\r\n")],
    ),
}

BAD_LINES = {
    "nothing": (b"", "the last line has no newline"),
    "no end": (BUNDLE, "the last line has no newline"),
    "the last cut off": (BUNDLE + b"\n" + OTHER[:50], "the last line has no newline"),
    "no end after the last": (BUNDLE + b"\n" + OTHER, "the last line has no newline"),
    "only an end": (b"\n", "claims:1: not JSON"),
    "a blank line first": (b"\n" + BUNDLE + b"\n", "claims:1: not JSON"),
    "a blank line between": (BUNDLE + b"\n\n" + OTHER + b"\n", "claims:2: not JSON"),
    "a blank line last": (BUNDLE + b"\n\n", "claims:2: not JSON"),
    "a line of white space": (BUNDLE + b"\n \r\n", "claims:2: not JSON"),
    "two bundles on a line": (BUNDLE + OTHER + b"\n", "claims:1: not JSON: Extra data"),
    "a bundle over two lines": (
        BUNDLE.replace(b",", b",\n", 1) + b"\n",
        "claims:1: not JSON",
    ),
    "a wrong second line": (BUNDLE + b'\n{"mediaType":1}\n', "claims:2: not a Sigstore bundle"),
    "a byte-order mark": (b"\xef\xbb\xbf" + BUNDLE + b"\n", "claims:1: not JSON"),
    "CR alone": (BUNDLE + b"\r" + OTHER + b"\n", "claims:1: not JSON"),
}


@pytest.mark.parametrize(("data", "expected"), LINES.values(), ids=LINES)
def test_one_bundle_a_line(data: bytes, expected: list[bytes]) -> None:
    assert [item.raw for item in bundle.parse_lines(data)] == expected
    assert [item.raw.strip() for item in bundle.parse_any(data)] == [e.strip() for e in expected]


@pytest.mark.parametrize(("data", "expected"), ANY.values(), ids=ANY)
def test_any_layout(data: bytes, expected: list[bytes]) -> None:
    assert [item.raw for item in bundle.parse_any(data)] == expected


@pytest.mark.parametrize(("data", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_lines_that_are_no_claims(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        bundle.parse_lines(data, where="claims")


def test_the_number_of_lines_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_LINES", 2)
    assert len(bundle.parse_lines((BUNDLE + b"\n") * 2)) == 2
    with pytest.raises(MalformedError, match="more than 2 lines"):
        bundle.parse_lines((BUNDLE + b"\n") * 3)


def test_a_large_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = bytes(3 * 2**20)
    data = bundle.format(dsse.sign("t", payload, KEY), hint="")
    assert opens(data) == payload
    monkeypatch.setattr("provenance.encoding.strict_json.MAX_BYTES", 2**20)
    with pytest.raises(MalformedError, match="longer than"):
        bundle.format(dsse.sign("t", payload, KEY), hint="")


def test_the_payload_is_kept_byte_for_byte() -> None:
    payload = b' {"b": 1.0,\r\n "a" : "\\u0061" }'
    parsed = bundle.parse(bundle.format(dsse.sign("t", payload, KEY), hint=""))
    assert parsed.envelope.payload == payload
    assert strict_base64.format(payload).encode() in parsed.raw
