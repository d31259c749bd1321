"""in-toto layouts for tests, made by the library that real owners make them with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from in_toto.models.layout import Inspection, Layout, Step
from in_toto.models.metadata import Envelope, Metablock
from securesystemslib.signer import Signature, SSlibKey  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.world import Person

ALLOWED = [["ALLOW", "*"]]


def key_of(person: Person) -> dict[str, Any]:
    """Return the public key of *person* as in-toto's documents hold it."""
    key = SSlibKey.from_crypto(load_pem_public_key(person.key.public.pem))
    return {**key.to_dict(), "keyid": key.keyid}


def step(name: str, *workers: Person, threshold: int = 1, **rules: Any) -> Step:  # noqa: ANN401 - in-toto's
    return Step(
        name=name,
        pubkeys=[key_of(worker)["keyid"] for worker in workers],
        threshold=threshold,
        **{"expected_materials": ALLOWED, "expected_products": ALLOWED, **rules},
    )


def layout(
    workers: Sequence[Person],
    *steps: Step,
    inspect: Sequence[str] = (),
    expires: str = "2999-01-01T00:00:00Z",
) -> Layout:
    """Return a layout; *inspect* is the command of an inspection."""
    return Layout(
        steps=list(steps),
        keys={key_of(worker)["keyid"]: key_of(worker) for worker in workers},
        inspect=[Inspection(name="look", run=list(inspect))] if inspect else [],
        expires=expires,
    )


def signed(document: Any, *signers: Person, dsse: bool = True) -> bytes:  # noqa: ANN401 - in-toto's
    """Return *document* of in-toto's, signed by each of *signers*."""
    envelope = Envelope.from_signable(document) if dsse else Metablock(signed=document)
    said = envelope.pae() if dsse else document.signable_bytes
    for signer in signers:
        keyid = key_of(signer)["keyid"]
        signature = Signature(keyid, signer.key.sign(said).hex())
        if dsse:
            envelope.signatures[keyid] = signature
        else:
            envelope.signatures.append(signature.to_dict())
    return json.dumps(envelope.to_dict()).encode()


def name_of(step: str, signer: Person) -> str:
    return f"{step}.{key_of(signer)['keyid'][:8]}"


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
