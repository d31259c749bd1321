"""What is read of signatures, for mutations: by ``test_signatures`` and by ``make fuzz``.

Each target has the valid documents that mutation begins with, and reads one: whatever comes out
must be the value that was signed, or one of our errors.
"""

from __future__ import annotations

import atexit
import json
import shutil
from base64 import b64decode, b64encode
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

import provenance
from provenance.envelope import bundle as bundles
from provenance.errors import ProvenanceError, SignatureError
from provenance.folder import attach
from provenance.keys import certificates, generate, parse_public_pem
from provenance.keys.private import parse_private
from provenance.report.explain import explain
from provenance.report.verification import summary_lines, verified_document
from provenance.sigstore import certificate, root, times
from provenance.sigstore.keyless import Keyless
from provenance.statement import intoto, model_signature, training
from provenance.transparency import note
from provenance.trust import policy
from tests.sigstores import NOW, Sigstore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from provenance.keys import PrivateKey

REPOSITORY = Path(__file__).parents[2]
VECTORS = REPOSITORY / "tests/vectors"
MODELS = VECTORS / "openssf-model-signing"
HONEST = REPOSITORY / "tests/forgeries/claim/honest/model"
TRUSTED = (VECTORS / "sigstore/trusted_root.production.json").read_bytes()
BUNDLE = (MODELS / "v1.1.0-sigstore/model.sig").read_bytes()
CERTIFIED = (MODELS / "v1.1.0-certificate/model.sig").read_bytes()
KEYED = (MODELS / "v1.1.0-elliptic-key/model.sig").read_bytes()
WHO = ("stefanb@us.ibm.com", "https://sigstore.verify.ibm.com/oauth2")
JUNK: list[Any] = [
    None, "", 0, -1, True, [], {}, "A", "9" * 19, "00", 1e300, "\ud7ff", [[]], {"a": 1},
    "253402300800",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - JSON
    found = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in found:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def mutated(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 5])):
        at, length = random.randrange(len(changed) or 1), random.randrange(1, 20)
        other = random.randrange(len(changed) or 1)
        cut = changed[other : other + length]
        changed[at : at + random.choice([0, 1, length])] = random.choice(
            [random.randbytes(1), b"", cut]
        )
    return bytes(changed)


def altered(document: bytes, random: Random) -> bytes:
    """Return the JSON *document* with one value replaced or left out, or what it spells changed."""
    value = json.loads(document)
    *steps, last = random.choice(list(places(value)))
    inside = value
    for step in steps:
        inside = inside[step]
    if random.random() < 0.1:
        del inside[last]
    elif isinstance(inside[last], str) and random.random() < 0.8:
        try:
            spelled = b64decode(inside[last], validate=True)
            inside[last] = b64encode(mutated(spelled, random)).decode()
        except ValueError:
            inside[last] = mutated(inside[last].encode(), random).decode(errors="replace")
    else:
        inside[last] = random.choice(JUNK)
    return json.dumps(value).encode()


class Target(NamedTuple):
    """What is read, from which documents on, and how they are mutated."""

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes], object]
    mutate: Callable[[bytes, Random], bytes] = mutated


@cache
def made() -> tuple[Sigstore, root.TrustedRoot, bytes, bytes]:
    """Return a Sigstore, its root, a signer's certificate, and a timestamp."""
    sigstore = Sigstore()
    trusted = root.parse(sigstore.trusted_root(), where="root")
    return sigstore, trusted, sigstore.signer().der, sigstore.stampers[0].stamp(b"message", NOW)


@cache
def keyless() -> Keyless:
    return Keyless(root.parse(TRUSTED, where="root"), (WHO,))


def _pem(name: str) -> bytes:
    return (MODELS / "keys/certificate" / name).read_bytes()


def _opened(data: bytes, seed: bytes, trusted: bundles.Trusted) -> None:
    opened = bundles.open_bundle(bundles.parse(data), [trusted])
    assert opened.payload == bundles.parse(seed).envelope.payload


def _bundle(data: bytes) -> None:
    _opened(data, BUNDLE, keyless())


def _keyed(data: bytes) -> None:
    _opened(data, KEYED, parse_public_pem(_pem("signing-key-pub.pem")))


def _certified(data: bytes) -> None:
    trusted = [("ca.pem", _pem("ca-cert.pem"))]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    _opened(data, CERTIFIED, certificates.parse_authority(trusted, at))


@cache
def _scene() -> tuple[Path, PrivateKey]:
    """Return a model's folder, and the key that the reader trusts."""
    place = Path(mkdtemp(prefix="provenance-fuzz-"))
    atexit.register(shutil.rmtree, place)
    return shutil.copytree(HONEST, place / "model"), generate()


def _claims() -> list[bytes]:
    document = json.loads((HONEST / "claims.jsonl").read_bytes())
    return [b64decode(document["dsseEnvelope"]["payload"])]


def _signed_claim(data: bytes) -> None:
    """Show and verify a model whose trusted signer says *data*."""
    model, key = _scene()
    (model / "claims.jsonl").write_bytes(attach.sign_payload(data, key) + b"\n")
    with suppress(ProvenanceError):
        explain(model)
    verified = provenance.verify(model, keys=[key.public])
    summary_lines(verified)
    verified_document(verified)


def _root(data: bytes) -> None:
    trusted = Keyless(root.parse(data, where="root"), (WHO,))
    bundles.open_bundle(bundles.parse(BUNDLE), [trusted])


def _certificate(data: bytes) -> None:
    _, trusted, leaf, _ = made()
    signer = certificate.parse(data)
    authority = certificate.check_chain(signer, trusted.authorities, NOW)
    certificate.check_logged(signer, authority, trusted.ctlogs)
    assert signer.der == leaf


def _timestamp(data: bytes) -> None:
    [found] = times.stamped([data], b"message", made()[1].timestamps)
    assert isinstance(found, SignatureError) or found == NOW


def _pems(data: bytes) -> None:
    authority = certificates.parse_authority([("ca.pem", data)], NOW)
    pems = [(name, _pem(name)) for name in ("signing-key-cert.pem", "int-ca-cert.pem")]
    chain = certificates.chain_for(parse_public_pem(_pem("signing-key-pub.pem")), pems)
    authority.certify(chain)
    with suppress(ProvenanceError):
        certificates.chain_for(parse_public_pem(_pem("signing-key-pub.pem")), [("x", data)])


def _private(data: bytes) -> None:
    with suppress(ProvenanceError):
        parse_private(data, None, "key")
    parse_private(data, b"password", "key")


def _note(data: bytes) -> None:
    assert note.format(note.parse(data)) == data


def _model_signature(data: bytes) -> None:
    statement = intoto.parse(data)
    with suppress(ProvenanceError):
        model_signature.from_older(statement)
    assert model_signature.from_statement(statement).files


def _examples(kind: str) -> list[bytes]:
    folder = REPOSITORY / "schemas/examples/valid" / kind
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def _payloads() -> list[bytes]:
    paths = [*MODELS.glob("made/*.sig"), MODELS / "v0.2.0-certificate/model.sig"]
    return [b64decode(json.loads(it.read_bytes())["dsseEnvelope"]["payload"]) for it in paths]


def _private_keys() -> list[bytes]:
    key = generate("ecdsa-p256")
    handle = ed25519.Ed25519PrivateKey.generate()
    openssh = handle.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    short = b64encode(bytes.fromhex("302e020100300506032b656f04220420") + bytes(32)).decode()
    x448 = f"-----BEGIN PRIVATE KEY-----\n{short}\n-----END PRIVATE KEY-----\n".encode()
    return [x448, key.pem(), key.pem(b"password"), generate("ed25519").pem(), openssh]


def _public_keys() -> list[bytes]:
    handle = ed25519.Ed25519PrivateKey.generate().public_key()
    return [_pem("signing-key-pub.pem"),
            handle.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)]  # fmt: skip


TARGETS = {
    "bundle": Target(lambda: [BUNDLE], _bundle, altered),
    "key-bundle": Target(lambda: [KEYED], _keyed, altered),
    "certificate-bundle": Target(lambda: [CERTIFIED], _certified, altered),
    "trusted-root": Target(lambda: [TRUSTED], _root, altered),
    "certificate": Target(lambda: [made()[2]], _certificate),
    "timestamp": Target(lambda: [made()[3]], _timestamp),
    "authorities": Target(lambda: [_pem("ca-cert.pem")], _pems),
    "model-signature": Target(_payloads, _model_signature, altered),
    "claim": Target(
        lambda: _examples("training-statement"),
        lambda data: training.from_statement(intoto.parse(data)),
        altered,
    ),
    "signed-claim": Target(_claims, _signed_claim, altered),
    "policy": Target(
        lambda: _examples("trust-policy"),
        lambda data: policy.parse(data, MODELS / "keys/certificate/policy.toml"),
    ),
    "public-key": Target(_public_keys, parse_public_pem),
    "private-key": Target(_private_keys, _private),
    "note": Target(lambda: [b"text\n\n" + made()[0].logs[1].note("text\n").encode()], _note),
}


def read(name: str, data: bytes) -> bool:
    """Tell whether the target *name* takes *data*."""
    try:
        TARGETS[name].read(data)
    except ProvenanceError:
        return False
    return True
