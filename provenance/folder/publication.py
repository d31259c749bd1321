"""Publishing claims: each goes into a log, and keeps the proof that it is there.

What is logged is the Rekor v2 body of the claim's signature, which holds a digest of the claim and
the signer's public key, never the claim itself. The key comes from the caller or from the claim,
which names its own signer; either way it must have made the signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from provenance.encoding import strict_base64, strict_json
from provenance.envelope import bundle as bundles
from provenance.errors import (
    LogProofError,
    MalformedError,
    SignatureError,
    UnreadableError,
    UsageError,
)
from provenance.folder import claims
from provenance.keys import parse_spki
from provenance.statement import intoto
from provenance.transparency import entry as log_entries
from provenance.transparency import log as logs
from provenance.transparency import rekor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from provenance.envelope.bundle import Bundle
    from provenance.keys import PublicKey
    from provenance.transparency.note import SignerKey, VerifierKey


class Published(msgspec.Struct, frozen=True):
    """A claim (by its line, from 1) and its index in the log; *new* if it was not there before."""

    line: int
    index: int
    new: bool


def publish_claims(
    model: Path, log: Path, signer: SignerKey, keys: Sequence[PublicKey] = ()
) -> tuple[Published, ...]:
    """Put the claims beside *model* into the log in the folder *log*; keep the proofs with them.

    Raises:
        UnreadableError, MalformedError: the claims or the log cannot be read.
        SignatureError: a claim's signer is not known, or did not make its signature.
        LogProofError: the log contradicts itself.
        UnavailableError: the disk is full or may not be written. The claims are then as before.
    """
    published: list[Published] = []

    def add_proofs(lines: tuple[bytes, ...]) -> list[bytes]:
        if not lines:
            raise UnreadableError(
                "holds no claims to publish",
                where=str(model),
                hint="'record' or 'attest' makes one; a model.sig alone is not logged",
            )
        parsed = [bundles.parse(line, where=f"claim {n}") for n, line in enumerate(lines, 1)]
        bodies = [_body(item, keys, f"claim {n}") for n, item in enumerate(parsed, 1)]
        indices = [
            _proven(item, body, signer.verifier) for item, body in zip(parsed, bodies, strict=True)
        ]
        missing = [n for n, index in enumerate(indices) if index is None]
        for n in missing:
            if len(parsed[n].log_entries) >= bundles.MAX_LOG_ENTRIES:
                raise UsageError(
                    f"carries {bundles.MAX_LOG_ENTRIES} proofs already, which is the limit",
                    where=f"claim {n + 1}",
                )
        added = (
            dict(zip(missing, logs.publish(log, [bodies[n] for n in missing], signer), strict=True))
            if missing
            else {}
        )
        published.extend(
            Published(n + 1, added[n].index if index is None else index, index is None)
            for n, index in enumerate(indices)
        )
        return [
            _with_entry(item, log_entries.format_entry(added[n])) if n in added else item.raw
            for n, item in enumerate(parsed)
        ]

    claims.update_claims(model, add_proofs)
    return tuple(published)


def _body(item: Bundle, keys: Sequence[PublicKey], where: str) -> bytes:
    candidates = [*keys, *_named_signer(item, where)]
    try:
        opened = bundles.open_bundle(item, candidates)
    except SignatureError as error:
        raise SignatureError(
            "its signer's public key is not known, or did not make the signature",
            where=where,
            hint="name the public key with --key",
        ) from error
    return rekor.format_body(item.envelope.pae, opened.signature, opened.key)


def _named_signer(item: Bundle, where: str) -> list[PublicKey]:
    """Return the key that the claim names as its signer's, if it names one."""
    try:
        statement = intoto.parse(item.envelope.payload, where=where)
        run = statement.predicate.get("runDetails")
        named = run.get("provenance_signer") if isinstance(run, dict) else None
        return [parse_spki(strict_base64.parse(named))] if isinstance(named, str) else []
    except MalformedError:
        return []


def _proven(item: Bundle, body: bytes, vkey: VerifierKey) -> int | None:
    """Return the index that a proof kept with the claim shows, if one holds."""
    for value in item.log_entries:
        try:
            parsed = log_entries.parse_entry(value)
            return log_entries.check_entry(parsed, body=body, vkey=vkey).index
        except (MalformedError, LogProofError):
            continue
    return None


def _with_entry(item: Bundle, entry: dict[str, Any]) -> bytes:
    """Return *item* as it came, with one more log entry."""
    document = strict_json.parse(item.raw)
    document["verificationMaterial"]["tlogEntries"] = [*item.log_entries, entry]
    return strict_json.format(document)
