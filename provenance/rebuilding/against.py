"""What rebuilders whom a policy trusts signed against a model, as far as a log can tell.

Whoever wants a yes can remove a file that says no. So it counts only what is in a log up to a
checkpoint: each entry there that somebody signed who could speak against the model must be at hand
as a document, or nothing is known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from provenance.envelope.bundle import open_bundle
from provenance.envelope.dsse import Opened
from provenance.errors import (
    MalformedError,
    ProvenanceError,
    SignatureError,
    UnreadableError,
    count,
)
from provenance.files.names import CLAIMS, MODEL_SIGNATURE
from provenance.files.reading import read_file
from provenance.files.walking import walk_folders
from provenance.folder.claims import beside, read_bundles
from provenance.rebuilding import verdict as verdicts
from provenance.statement import intoto, uris
from provenance.transparency import checkpoint as checkpoints
from provenance.transparency import rekor
from provenance.transparency.log import entries_under
from provenance.transparency.note import MAX_NOTE_BYTES
from provenance.trust.decision import Searched, signer_in
from provenance.trust.policy import NoMismatch, Party, TrustPolicy
from provenance.trust.verification import Verified

_DOCUMENTS = (".json", ".jsonl")
_VERDICTS = (uris.VERDICT, uris.SLSA_VSA, uris.IN_TOTO_SVR)


def search(
    policy: TrustPolicy, verified: Verified, more: Sequence[Path], now: datetime
) -> Searched:
    """Return what the log that *policy* names tells of the files of *verified*.

    Documents are beside the model, where the policy says, and in the files *more*. A revoked key
    speaks against it all the same: a timestamp could be removed from what it signed.
    """
    if (named := policy.no_trusted_mismatch) is None:
        return Searched()
    try:
        return _search(policy, named, verified, more, now)
    except ProvenanceError as error:
        return Searched(problem=str(error))


def _search(
    policy: TrustPolicy,
    named: NoMismatch,
    verified: Verified,
    more: Sequence[Path],
    now: datetime,
) -> Searched:
    log, path = policy.logs[named.log], policy.folder / named.checkpoint
    raw = read_file(path, MAX_NOTE_BYTES)
    signed = checkpoints.open_checkpoint(raw, log, where=str(path))
    if policy.witnesses:
        policy.witnesses.check(raw, now, where=str(path))
    speakers = {it.name for it in policy.signers.values()}
    speakers &= {*named.parties} or speakers
    certified = any(it.identities or it.certificates for it in _parties(policy, speakers))
    documents = dict(_documents(policy, named, verified, more))
    against: list[str] = []
    unknown: list[str] = []
    for index, body in enumerate(entries_under(policy.folder / named.folder, signed)):
        opened = documents.get(body)
        signer = rekor.signer_of(body) if opened is None else signer_in(policy, opened)
        party, as_entry = policy.signers.get(signer), f"as entry {index}"
        if party is None and certified:
            unknown.append(f"what somebody signed {as_entry}")
        elif party is not None and party.name in speakers:
            if opened is None:
                unknown.append(f"what {party.name} signed {as_entry}")
            elif said := _said(opened, verified):
                (against if said == "mismatch" else unknown).append(
                    f"a {said} by {party.name}, logged {as_entry}"
                )
    return Searched(
        f"the {count(signed.size, 'entry', 'entries')} of {log.name}", (*against,), (*unknown,)
    )


def _parties(policy: TrustPolicy, names: Collection[str]) -> Iterator[Party]:
    return (party for party in policy.signers.values() if party.name in names)


def _documents(
    policy: TrustPolicy, named: NoMismatch, verified: Verified, more: Sequence[Path]
) -> Iterator[tuple[bytes, Opened]]:
    """Yield what parties signed, by the entry that it is in a log."""
    paths = [path for each in named.documents for path in _files(policy.folder / each)]
    own = (beside(verified.root, name) for name in (CLAIMS, MODEL_SIGNATURE))
    for path in (*own, *more, *paths):
        try:
            items = read_bundles(path)
        except (MalformedError, UnreadableError):
            continue  # what it holds is not at hand
        for item in items:
            with suppress(SignatureError):
                opened = open_bundle(item, policy.trusted)
                yield rekor.format_body(item.envelope.pae, opened.signature, opened.key), opened


def _files(path: Path) -> Iterator[Path]:
    """Yield *path*, or the files of JSON in it."""
    if not path.is_dir():
        yield path
    for folder, _, names in walk_folders(path):
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(_DOCUMENTS))


def _said(opened: Opened, verified: Verified) -> str:
    """Return what *opened* says against the model; "" if it is about another, or for it."""
    try:
        statement = intoto.from_opened(opened)
        if statement.predicate_type not in _VERDICTS:
            return ""
        found = verdicts.from_statement(statement)
    except MalformedError:
        return "statement that is not understood"
    about = found.published.root_digest["sha256"] == verified.manifest.root_digest
    return (
        "mismatch" if about and found.equality.declared and found.conclusion == "mismatch" else ""
    )
