"""A Sigstore for tests: authorities, logs of both versions, and time-stamp authorities.

Everything is written down anew here, by the formats' own specifications, and nothing by the code
that it tests.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provenance.transparency import merkle

NOW = datetime(2026, 6, 1, 12, 0, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
WHO = "alice@example.org"
PROVIDER = "https://login.example.org"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
SHA256 = hashes.SHA256()
SHA256_ID = bytes.fromhex("300b0609608648016503040201")
ECDSA_SHA256_ID = bytes.fromhex("300a06082a8648ce3d040302")


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def spki(key: Any) -> bytes:  # noqa: ANN401 - any private key
    return bytes(
        key.public_key().public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def pem_of(label: str, der: bytes) -> bytes:
    text = b64(der)
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def sign(key: Any, data: bytes) -> bytes:  # noqa: ANN401 - any private key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    return bytes(key.sign(data, ec.ECDSA(hashes.SHA256())))


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def usage(**allowed: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**(dict.fromkeys(names, False) | allowed))


def tlv(tag: int, *parts: bytes) -> bytes:
    """Return DER of *parts* under *tag*."""
    body = b"".join(parts)
    size = len(body)
    if size < 128:
        return bytes([tag, size]) + body
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(octets)]) + octets + body


def integer(number: int) -> bytes:
    return tlv(2, number.to_bytes(number.bit_length() // 8 + 1))


@dataclass
class Issued:
    """A certificate and its key."""

    key: Any
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(DER)


def issue(
    name: str | x509.Name,
    above: Issued | None,
    *extensions: tuple[x509.ExtensionType, bool],
    begin: datetime = NOW - DAY,
    end: datetime = NOW + DAY,
    key: Any = None,  # noqa: ANN401 - any private key
    serial: int = 0,
    algorithm: Any = SHA256,  # noqa: ANN401 - any hash
) -> Issued:
    key = key or new_key()
    own = name
    if isinstance(own, str):
        own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, own)] if own else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(above.certificate.subject if above else own)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    signs = (above.key if above else key).public_key()
    own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    above_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signs)
    for extension, critical in ((own_id, False), (above_id, False), *extensions):
        builder = builder.add_extension(extension, critical=critical)
    return Issued(key, builder.sign(above.key if above else key, algorithm))


AUTHORITY = (
    (x509.BasicConstraints(ca=True, path_length=None), True),
    (usage(key_cert_sign=True), True),
)


@dataclass
class Log:
    """A log: of version 1 for several kinds of entries and with promises, or of version 2."""

    name: str
    version: int = 1
    key: Any = None
    start: datetime = NOW - DAY
    end: datetime | None = None
    leaves: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key = self.key or (
            new_key() if self.version == 1 else ed25519.Ed25519PrivateKey.generate()
        )

    @property
    def log_id(self) -> bytes:
        if self.version == 1:
            return hashlib.sha256(spki(self.key)).digest()
        raw = self.key.public_key().public_bytes_raw()
        return hashlib.sha256(self.name.encode() + b"\n\x01" + raw).digest()

    def document(self) -> dict[str, Any]:
        end = {"end": stamp(self.end)} if self.end else {}
        return {
            "baseUrl": f"https://{self.name}",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": b64(spki(self.key)),
                "keyDetails": ("PKIX_ECDSA_P256_SHA_256", "PKIX_ED25519")[self.version - 1],
                "validFor": {"start": stamp(self.start), **end},
            },
            "logId": {"keyId": b64(self.log_id)},
        }

    def note(self, text: str) -> str:
        return f"— {self.name} {b64(self.log_id[:4] + sign(self.key, text.encode()))}\n"

    def enter(self, body: dict[str, Any], at: datetime, more: str = "") -> dict[str, Any]:
        """Return the entry of *body*; *more* are further signature lines of the checkpoint."""
        data = rfc8785.dumps(body)
        index = len(self.leaves)
        self.leaves += [data, b"the next"]
        hashed = [merkle.hash_leaf(leaf) for leaf in self.leaves]

        def subtree(level: int, number: int) -> bytes:
            return merkle.fold(hashed[number << level : (number + 1) << level])

        root = merkle.fold(hashed)
        origin = f"{self.name} - 42" if self.version == 1 else self.name
        text = f"{origin}\n{len(hashed)}\n{b64(root)}\n"
        given = 1000 + index if self.version == 1 else index
        entry: dict[str, Any] = {
            "logIndex": str(given),
            "logId": {"keyId": b64(self.log_id)},
            "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
            "inclusionProof": {
                "logIndex": str(index),
                "rootHash": b64(root),
                "treeSize": str(len(hashed)),
                "hashes": [b64(it) for it in merkle.prove_inclusion(index, len(hashed), subtree)],
                "checkpoint": {"envelope": f"{text}\n{more}{self.note(text)}"},
            },
            "canonicalizedBody": b64(data),
        }
        if self.version == 1:
            time = int(at.timestamp())
            said: dict[str, Any] = {"body": b64(data), "integratedTime": time, "logIndex": given}
            said["logID"] = self.log_id.hex()
            promise = {"signedEntryTimestamp": b64(sign(self.key, rfc8785.dumps(said)))}
            entry |= {"integratedTime": str(time), "inclusionPromise": promise}
        return entry


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


@dataclass
class Stamper:
    """A time-stamp authority."""

    root: Issued
    own: Issued
    start: datetime = NOW - DAY
    end: datetime | None = None
    embedded: bool = True
    """Whether responses carry the certificate."""
    named: bool = True
    """Whether the trusted root has it, too."""

    def stamp(
        self, message: bytes, at: datetime, *, digest: bytes = SHA256_ID, hashed: str = "sha256"
    ) -> bytes:
        """Return the response that says that *message* was there *at*."""
        signer = self.own
        imprint = tlv(0x30, digest, tlv(4, hashlib.new(hashed, message).digest()))
        info = tlv(
            0x30, integer(1), bytes.fromhex("06022a03"), imprint, integer(7),
            tlv(0x18, f"{at:%Y%m%d%H%M%S}Z".encode()),
        )  # fmt: skip
        kind = bytes.fromhex("060b2a864886f70d0109100104")
        found = tlv(4, hashlib.sha256(info).digest())
        attributes = sorted([
            tlv(0x30, bytes.fromhex("06092a864886f70d010903"), tlv(0x31, kind)),
            tlv(0x30, bytes.fromhex("06092a864886f70d010904"), tlv(0x31, found)),
        ])  # fmt: skip
        who = tlv(
            0x30,
            signer.certificate.issuer.public_bytes(),
            integer(signer.certificate.serial_number),
        )
        signature = tlv(4, sign(signer.key, tlv(0x31, *attributes)))
        signed = tlv(
            0x30, integer(1), who, SHA256_ID, tlv(0xA0, *attributes), ECDSA_SHA256_ID, signature
        )
        certificates = tlv(0xA0, signer.der) if self.embedded else b""
        data = tlv(
            0x30, integer(3), tlv(0x31, SHA256_ID), tlv(0x30, kind, tlv(0xA0, tlv(4, info))),
            certificates, tlv(0x31, signed),
        )  # fmt: skip
        content = tlv(0x30, bytes.fromhex("06092a864886f70d010702"), tlv(0xA0, data))
        return tlv(0x30, tlv(0x30, integer(0)), content)


def stamper(name: str = "stamps", **more: Any) -> Stamper:  # noqa: ANN401 - of the class
    purpose = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), True)
    root = issue(f"{name} root", None, *AUTHORITY)
    own = issue(name, root, (usage(digital_signature=True), True), purpose)
    return Stamper(root, own, **more)


class Sigstore:
    """All of it, with one identity's signatures."""

    def __init__(self) -> None:
        self.root = issue("root", None, *AUTHORITY)
        self.between = issue("between", self.root, *AUTHORITY)
        self.authority_period = {"start": stamp(NOW - DAY)}
        self.ctlog = Log("ct.example.org")
        self.logs = [Log("log.example.org"), Log("tiles.example.org", 2)]
        self.stampers = [stamper()]

    def trusted_root(self) -> bytes:
        def chain(*found: Issued) -> dict[str, Any]:
            return {"certificates": [{"rawBytes": b64(each.der)} for each in found]}

        named = {"subject": {"organization": "x", "commonName": "x"}, "uri": "https://example.org"}
        found = chain(self.between, self.root)
        authorities = [{**named, "certChain": found, "validFor": self.authority_period}]
        stampers = [
            {
                **named,
                "certChain": chain(*[each.own] * each.named, each.root),
                "validFor": {"start": stamp(each.start)}
                | ({"end": stamp(each.end)} if each.end else {}),
            }
            for each in self.stampers
        ]
        return json.dumps({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log.document() for log in self.logs],
            "certificateAuthorities": authorities,
            "ctlogs": [self.ctlog.document()],
            "timestampAuthorities": stampers,
        }).encode()  # fmt: skip

    def signer(
        self,
        *,
        who: x509.GeneralName | None = None,
        provider: bytes | None = None,
        old: bool = False,
        both: bool = False,
        scts: int = 1,
        extended: x509.ExtendedKeyUsage | None = None,
        begin: datetime = NOW - MINUTE,
        lasts: timedelta = 10 * MINUTE,
        promised: datetime = NOW,
        key: Any = None,  # noqa: ANN401 - any private key
    ) -> Issued:
        """Return a certificate for ten minutes, with *scts* promises of the certificate log."""
        name = who or x509.RFC822Name(WHO)
        code = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        vouched = tlv(0x0C, PROVIDER.encode()) if provider is None else provider
        number = 1 if old else 8
        issuer = x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}")
        said = x509.UnrecognizedExtension(issuer, PROVIDER.encode() if old else vouched)
        extensions = [
            (usage(digital_signature=True), True),
            (extended or code, False),
            (x509.SubjectAlternativeName([name]), True),
            (said, False),
        ]
        if both:  # as Fulcio writes it
            older = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
            extensions.append((x509.UnrecognizedExtension(older, PROVIDER.encode()), False))
        times: dict[str, Any] = {"begin": begin, "end": begin + lasts}
        key, serial = key or new_key(), x509.random_serial_number()
        plain = issue("", self.between, *extensions, key=key, serial=serial, **times)
        if not scts:
            return plain
        tbs = plain.certificate.tbs_certificate_bytes
        milliseconds = int(promised.timestamp() * 1000).to_bytes(8)
        issuer_hash = hashlib.sha256(spki(self.between.key)).digest()
        signed = b"\0\0" + milliseconds + b"\0\1" + issuer_hash
        signature = sign(self.ctlog.key, signed + len(tbs).to_bytes(3) + tbs + b"\0\0")
        sct = b"\0" + self.ctlog.log_id + milliseconds + b"\0\0\4\3"
        sct += len(signature).to_bytes(2) + signature
        many = b"".join(len(sct).to_bytes(2) + sct for _ in range(scts))
        listed = tlv(4, len(many).to_bytes(2) + many)
        extensions.append((x509.UnrecognizedExtension(SCT_LIST, listed), False))
        return issue("", self.between, *extensions, key=key, serial=serial, **times)


def pae(payload: bytes) -> bytes:
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def body(
    kind: str, version: str, payload: bytes, signature: bytes, signer: Issued | Any  # noqa: ANN401 - or a key
) -> dict[str, Any]:  # fmt: skip
    """Return the body of an entry about *signature* over a DSSE envelope."""
    by_key = not isinstance(signer, Issued)
    der = spki(signer) if by_key else signer.der
    verifier = b64(pem_of("PUBLIC KEY" if by_key else "CERTIFICATE", der))
    sig, digest = b64(signature), hashlib.sha256(payload)
    other = {"algorithm": "sha256", "value": hashlib.sha256(b"as uploaded").hexdigest()}
    hashed = {"algorithm": "sha256", "value": digest.hexdigest()}
    named = {"publicKey" if by_key else "x509Certificate": {"rawBytes": b64(der)}}
    v2 = {"content": sig, "verifier": {"keyDetails": "PKIX_ECDSA_P256_SHA_256", **named}}
    message = hashlib.sha256(pae(payload))
    spec: dict[tuple[str, str], Any] = {
        ("hashedrekord", "0.0.1"): {
            "data": {"hash": {"algorithm": "sha256", "value": message.hexdigest()}},
            "signature": {"content": sig, "publicKey": {"content": verifier}},
        },
        ("dsse", "0.0.1"): {
            "envelopeHash": other,
            "payloadHash": hashed,
            "signatures": [{"signature": sig, "verifier": verifier}],
        },
        ("intoto", "0.0.2"): {
            "content": {
                "envelope": {
                    "payloadType": PAYLOAD_TYPE,
                    "signatures": [{"publicKey": verifier, "sig": b64(sig.encode())}],
                },
                "hash": other,
                "payloadHash": hashed,
            }
        },
        ("hashedrekord", "0.0.2"): {
            "hashedRekordV002": {
                "data": {"algorithm": "SHA2_256", "digest": b64(message.digest())},
                "signature": v2,
            }
        },
        ("dsse", "0.0.2"): {
            "dsseV002": {
                "payloadHash": {"algorithm": "SHA2_256", "digest": b64(digest.digest())},
                "signatures": [v2],
            }
        },
    }  # fmt: skip
    return {"apiVersion": version, "kind": kind, "spec": spec[kind, version]}


def bundle(
    signer: Issued | Any,  # noqa: ANN401 - or a key
    payload: bytes,
    entries: list[dict[str, Any]],
    stamps: list[bytes],
    *,
    version: str = "0.3",
    signature: bytes | None = None,
) -> dict[str, Any]:
    named: dict[str, Any] = {"publicKey": {"hint": ""}}
    if isinstance(signer, Issued):
        raw = {"rawBytes": b64(signer.der)}
        chain = {"x509CertificateChain": {"certificates": [raw]}}
        named = {"certificate": raw} if version == "0.3" else chain
    made = signature or sign(signer.key if isinstance(signer, Issued) else signer, pae(payload))
    return {
        "mediaType": f"application/vnd.dev.sigstore.bundle+json;version={version}",
        "verificationMaterial": {
            **named,
            "tlogEntries": entries,
            "timestampVerificationData": {
                "rfc3161Timestamps": [{"signedTimestamp": b64(each)} for each in stamps]
            },
        },
        "dsseEnvelope": {
            "payload": b64(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": b64(made)}],
        },
    }
