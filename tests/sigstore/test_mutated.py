"""Mutated bundles, certificates, timestamps and roots: refused by errors of ours, or still good."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from provenance.envelope import bundle as bundles
from provenance.errors import MalformedError, SignatureError
from provenance.sigstore import certificate, root, times
from provenance.sigstore.keyless import Keyless
from tests.sigstores import NOW, Sigstore

if TYPE_CHECKING:
    from collections.abc import Iterator

VECTORS = Path(__file__).parents[1] / "vectors"
TRUSTED = (VECTORS / "sigstore/trusted_root.production.json").read_bytes()
BUNDLE = (VECTORS / "openssf-model-signing/v1.1.0-sigstore/model.sig").read_bytes()
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
    """Return the JSON *document* with one value replaced, or the bytes changed that it spells."""
    value = json.loads(document)
    *steps, last = random.choice(list(places(value)))
    inside = value
    for step in steps:
        inside = inside[step]
    if isinstance(inside[last], str) and random.random() < 0.8:
        try:
            spelled = b64decode(inside[last], validate=True)
            inside[last] = b64encode(mutated(spelled, random)).decode()
        except ValueError:
            inside[last] = mutated(inside[last].encode(), random).decode(errors="replace")
    else:
        inside[last] = random.choice(JUNK)
    return json.dumps(value).encode()


@pytest.mark.parametrize("seed", range(8))
def test_a_mutated_bundle_or_root(seed: int) -> None:
    random = Random(seed)
    payload = bundles.parse(BUNDLE).envelope.payload
    refused = 0
    for number in range(300):
        data = altered(BUNDLE, random) if number % 4 else BUNDLE
        trusted = TRUSTED if number % 4 else altered(TRUSTED, random)
        try:
            keyless = Keyless(root.parse(trusted, where="root"), *WHO)
            opened = bundles.open_bundle(bundles.parse(data), [keyless])
        except (MalformedError, SignatureError):
            refused += 1
        else:
            assert (opened.payload, opened.subject) == (payload, f"{WHO[0]} ({WHO[1]})")
    assert refused > 200


@pytest.mark.parametrize("seed", range(4))
def test_a_mutated_certificate_or_timestamp(seed: int) -> None:
    """Of parts that a whole bundle's checks would not reach."""
    random, made = Random(seed), Sigstore()
    trusted = root.parse(made.trusted_root(), where="root")
    leaf, stamped = made.signer().der, made.stampers[0].stamp(b"message", NOW)
    for _ in range(300):
        try:
            signer = certificate.parse(mutated(leaf, random))
            authority = certificate.check_chain(signer, trusted.authorities, NOW)
            certificate.check_logged(signer, authority, trusted.ctlogs)
        except SignatureError:
            pass
        else:
            assert signer.der == leaf
        token = mutated(stamped, random)
        [found] = times.stamped([token], b"message", trusted.timestamps)
        assert isinstance(found, SignatureError) or found == NOW
