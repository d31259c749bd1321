"""What rebuilders whom a policy trusts signed against a model, as far as a log can tell.

Whoever wants a yes can remove a file that says no. So it counts only what is in a log up to a
checkpoint: each entry there that somebody signed who could speak against the model must be at hand
as a document, or nothing is known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
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
from provenance.transparency.checkpoint import Checkpoint
from provenance.transparency.log import entries_under
from provenance.transparency.note import MAX_NOTE_BYTES, VerifierKey
from provenance.trust.decision import Searched, asking, counted, signer_in
from provenance.trust.policy import NoMismatch, TrustPolicy
from provenance.trust.verification import Verified

_DOCUMENTS = (".json", ".jsonl")
MISMATCH = "a mismatch"
_VERDICTS = (uris.VERDICT, uris.SLSA_VSA, uris.IN_TOTO_SVR)


def search(
    policy: TrustPolicy, named: NoMismatch, verified: Verified, more: Sequence[Path], now: datetime
) -> Searched:
    """Return what the log that *policy* has *named* tells of the files of *verified*.

    Documents are beside the model, where the policy says, and in the files *more*. A revoked key
    speaks against it all the same: a timestamp could be removed from what it signed.
    """
    names = dict.fromkeys(policy.signers, "")
    stranger = ""
    for signer, party in policy.signers.items():
        if party.name in named.parties or not named.parties:
            names[signer] = party.name
            if party.identities or party.certificates:  # of whom the log does not tell
                stranger = "somebody"
    # What a signature leaves out may be gone, and with it the digest that a verdict is about.
    called = {each.training.model_name for each in verified.claims}
    asked = {name: asking(policy, name) for name in called}  # once: anybody can add copies
    claims = ((each, asked[each.training.model_name]) for each in verified.claims)
    bound = any(counted(each, rules, policy) for each, rules in claims) or not any(
        each.signature.left_out or each.signature.hashing.shard_bytes
        for each in verified.signatures
    )
    found: dict[bool, list[str]] = {True: [], False: []}
    try:
        log, signed = _checkpoint(policy, named, now)
        documents = dict(_documents(policy, named, verified, more))
        for index, body in enumerate(entries_under(policy.folder / named.folder, signed)):
            opened = documents.get(body)
            said = _said(opened, verified, bound) if opened else "a document that is not at hand"
            signers = [signer_in(policy, opened)] if opened else rekor.signers_of(body)
            known = [names[each] for each in signers if each in names]
            if said and (name := next(filter(None, known), "" if known else stranger)):
                found[said == MISMATCH].append(f"{said}, by {name} (entry {index})")
    except ProvenanceError as error:
        return Searched(problem=str(error))
    entries = count(signed.size, "entry", "entries")
    return Searched(f"the {entries} of {log.name}", (*found[True],), (*found[False],))


def _checkpoint(
    policy: TrustPolicy, named: NoMismatch, now: datetime
) -> tuple[VerifierKey, Checkpoint]:
    """Return the log, and the checkpoint of it up to which it is searched."""
    log, path = policy.logs[named.log], policy.folder / named.checkpoint
    raw = read_file(path, MAX_NOTE_BYTES)
    signed = checkpoints.open_checkpoint(raw, log, where=str(path))
    if policy.witnesses:
        age = timedelta(named.max_age_days) if named.max_age_days else None
        policy.witnesses.check(raw, now, max_age=age, where=str(path))
    return log, signed


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
            with suppress(SignatureError, MalformedError):  # a stranger's; of a kind in no log
                opened = open_bundle(item, policy.trusted)
                yield rekor.format_body(item.envelope.pae, opened.signature, opened.key), opened


def _files(path: Path) -> Iterator[Path]:
    """Yield *path*, or the files of JSON in it."""
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it may not look
        yield path
    for folder, _, names in walk_folders(path):
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(_DOCUMENTS))


def _said(opened: Opened, verified: Verified, bound: bool) -> str:  # noqa: FBT001 - one caller
    """Return what *opened* says against the model; "" if it is about another, or for it.

    *bound*: no file of the model can have been taken away unnoticed.
    """
    try:
        statement = intoto.from_opened(opened)
        if statement.predicate_type not in _VERDICTS:
            return ""
        found = verdicts.from_statement(statement)
    except MalformedError:
        return "a statement that is not understood"
    if found.conclusion != "mismatch" or not found.equality.declared:
        return ""
    if found.published.root_digest["sha256"] == verified.manifest.root_digest:
        return MISMATCH
    return "" if bound else "a mismatch of other files, and the model's signature leaves some out"
