"""An in-toto link: a run as one step of a supply chain, which in-toto's own tools verify.

It repeats what the claim says, by names that a rebuild gives too: as materials the files of the
inputs (``data:train/a.csv``) and the code (``source`` by its git tree, ``code/train.py``), as
products the model's files. What makes links is the ``in-toto`` library.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from provenance.encoding import strict_json
from provenance.errors import UsageError
from provenance.files.names import LINK_STEP
from provenance.keys import PrivateKey, PublicKey

if TYPE_CHECKING:  # what verifies links needs no recorder
    from provenance.capture.draft import Recording


def check_signer(key: PublicKey) -> None:
    """Return if in-toto checks what *key* signs: its library signs ML-DSA in a way of its own."""
    if key.algorithm.startswith("ml-dsa"):
        hint = "'provenance keygen' makes ecdsa-p256 and ed25519"
        raise UsageError(f"in-toto does not check signatures by {key.algorithm}", hint=hint)


def check_step(name: str, key: PublicKey) -> str:
    """Return *name*, a step that *key* can sign a link for."""
    if not LINK_STEP.fullmatch(name):
        hint = "at most 100 letters, digits, '.', '_' and '-', no '.' first"
        raise UsageError(f"not the name of a step: {name!r}", hint=hint)
    check_signer(key)
    return name


def make_link(step: str, recording: Recording, key: PrivateKey) -> tuple[str, bytes]:
    """Return the link of *step* signed by *key*, with its file's name."""
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - rarely needed
        load_pem_public_key,
    )
    from in_toto.models.link import FILENAME_FORMAT, Link  # noqa: PLC0415
    from in_toto.models.metadata import Envelope  # noqa: PLC0415
    from securesystemslib.signer import (  # type: ignore[attr-defined] # noqa: PLC0415
        Signature,
        SSlibKey,
    )

    statement = recording.statement
    status = statement.run.provenance_outcome.exit_status
    link = Link(
        name=step,
        materials=_materials(recording),
        products={each.name: {"sha256": each.sha256} for each in statement.manifest.entries},
        byproducts={} if status is None else {"return-value": status},
        command=list(statement.recipe.command),
    )
    envelope = Envelope.from_signable(link)
    keyid = SSlibKey.from_crypto(load_pem_public_key(key.public.pem)).keyid
    envelope.signatures[keyid] = Signature(keyid, key.sign(envelope.pae()).hex())
    name = FILENAME_FORMAT.format(step_name=step, keyid=keyid)
    return name, json.dumps(envelope.to_dict(), sort_keys=True).encode()


def _materials(recording: Recording) -> dict[str, dict[str, str]]:
    statement = recording.statement
    found: dict[str, dict[str, str]] = {}
    for item in statement.run.byproducts:
        kind, _, key = item.name.partition("/")
        if kind == "manifest" and (data := recording.data_of(item)):  # a redacted one has none
            found |= {
                f"{key}/{name}": {"sha256": sha256} for name, _, sha256 in strict_json.parse(data)
            }
    source = statement.recipe.source
    for file in (*source.files, *source.read) if source else ():
        if file.sha256:
            found[f"code/{file.name}"] = {"sha256": file.sha256}
    for each in statement.build.resolved_dependencies:
        if "gitTree" in each.digest:
            found[each.name] = {"gitTree": each.digest["gitTree"]}
    return found
