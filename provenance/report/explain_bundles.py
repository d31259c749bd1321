"""What is signed: bundles in ``claims.jsonl``, ``model.sig`` and verdicts; and bare statements."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from provenance.envelope import bundle as bundles
from provenance.envelope.dsse import IN_TOTO_PAYLOAD
from provenance.errors import MalformedError, count
from provenance.report.explain_statements import (
    Meaning,
    StatementKind,
    explain_statement,
    parse_payload,
)
from provenance.report.explain_text import explained, row, rows
from provenance.statement import intoto, training
from provenance.transparency import checkpoint, note
from provenance.transparency import entry as log_entries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provenance.envelope.bundle import Bundle
    from provenance.errors import ProvenanceError
    from provenance.report.explain_text import Explained
    from provenance.statement.intoto import ResourceDescriptor


class LogProof(msgspec.Struct, frozen=True, rename="camel"):
    """Where a log is said to hold the claim. ``origin`` is the log's name in its checkpoint."""

    index: int
    tree_size: int
    kind: str
    origin: str | None


class SignedStatement(msgspec.Struct, frozen=True, rename="camel"):
    """A statement and who is said to have signed it; no signature was checked.

    ``signer`` says how the key is named: ``publicKey``, ``certificate``, ``x509CertificateChain``.
    ``statement`` is the payload's JSON as it was received; null: it is no in-toto Statement.
    ``problem`` says what is wrong with it.
    """

    what: StatementKind
    signer: str
    hint: str
    keyid: str
    payload_type: str
    payload_digest: dict[str, str]
    statement: dict[str, Any] | None
    log_entries: tuple[LogProof, ...]
    problem: str | None = None


class BundleFile(msgspec.Struct, frozen=True, tag_field="kind", tag="bundles"):
    """A file of bundles: claims, a model signature, or a verdict."""

    bundles: tuple[SignedStatement, ...]


class StatementFile(msgspec.Struct, frozen=True, tag_field="kind", tag="statement"):
    """A statement that nobody signed."""

    what: StatementKind
    statement: dict[str, Any]
    problem: str | None = None


def explain_bundles(data: bytes, where: str) -> Explained:
    """Return what the bundles *data* hold, one a line or one document.

    Raises:
        MalformedError: *data* are no bundles.
    """
    parsed = bundles.parse_any(data, where=where)
    content, lines, problems = describe_bundles(parsed, where)
    title = count(len(parsed), "signed document")
    return explained(content, [f"{where}: {title} (not verified)", *lines], problems)


def describe_bundles(
    parsed: Sequence[Bundle], where: str
) -> tuple[BundleFile, list[str], list[ProvenanceError]]:
    """Return *parsed* for programs, in lines, and what could not be understood."""
    described: list[SignedStatement] = []
    lines: list[str] = []
    problems: list[ProvenanceError] = []
    for number, item in enumerate(parsed, 1):
        place = f"{where}:{number}" if len(parsed) > 1 else where
        signed, meaning, found = _describe(item, place)
        described.append(signed)
        problems += found
        label = f"{number}. " if len(parsed) > 1 else ""
        lines += [f"{label}{meaning.kind}", *_signer_rows(item), *meaning.rows]
        lines += rows("log entries", _log_texts(signed.log_entries, found, meaning))
    return BundleFile(tuple(described)), lines, problems


def explain_bare_statement(data: bytes, where: str) -> Explained:
    """Return what the statement *data*, which nobody signed, says.

    Raises:
        MalformedError: it is no Statement v1.
    """
    document, statement = parse_payload(data, where)
    meaning = explain_statement(statement, where)
    problems = [meaning.problem] if meaning.problem else []
    content = StatementFile(meaning.kind, document, _problem_text(problems))
    lines = [f"{where}: {meaning.kind}, not signed (not verified)", *meaning.rows]
    return explained(content, lines, problems)


def find_byproduct(parsed: Sequence[Bundle], digest: str) -> ResourceDescriptor | None:
    """Return how one of the bundles *parsed* describes the byproduct with the SHA-256 *digest*."""
    for item in reversed(parsed):
        try:
            claim = training.from_statement(intoto.parse(item.envelope.payload))
        except MalformedError:
            continue
        for byproduct in claim.run.byproducts:
            if byproduct.digest.get("sha256") == digest:
                return byproduct
    return None


def _describe(item: Bundle, where: str) -> tuple[SignedStatement, Meaning, list[ProvenanceError]]:
    envelope = item.envelope
    document: dict[str, Any] | None = None
    if envelope.payload_type == IN_TOTO_PAYLOAD:
        try:
            document, statement = parse_payload(envelope.payload, where)
            meaning = explain_statement(statement, where)
        except MalformedError as error:
            meaning = Meaning("another payload", (row("problem", error.what),), error)
    else:
        size = f"{len(envelope.payload):,} bytes of {envelope.payload_type}"
        meaning = Meaning("another payload", (row("payload", size),))
    proofs, problems = _log_proofs(item, where)
    if meaning.problem is not None:
        problems.insert(0, meaning.problem)
    signed = SignedStatement(
        what=meaning.kind,
        signer=item.material,
        hint=item.hint,
        keyid=envelope.signatures[0].keyid,
        payload_type=envelope.payload_type,
        payload_digest={"sha256": hashlib.sha256(envelope.payload).hexdigest()},
        statement=document,
        log_entries=proofs,
        problem=_problem_text(problems),
    )
    return signed, meaning, problems


def _signer_rows(item: Bundle) -> list[str]:
    keyid = item.envelope.signatures[0].keyid
    if item.material != "publicKey":
        return [row("signer", f"named by {item.material}, which this version does not read")]
    if not (item.hint or keyid):
        return [row("signer", "not named")]
    lines = [row("signer", f"key {item.hint or keyid}, as the bundle says")]
    if item.hint and keyid and keyid != item.hint:
        lines.append(row("", f"but the signature names the key {keyid}"))
    return lines


def _log_proofs(item: Bundle, where: str) -> tuple[tuple[LogProof, ...], list[ProvenanceError]]:
    proofs: list[LogProof] = []
    problems: list[ProvenanceError] = []
    for value in item.log_entries:
        try:
            entry = log_entries.parse_entry(value, where=where)
        except MalformedError as error:
            problems.append(error)
            continue
        kind = f"{entry.kind} {entry.version}"
        origin = _origin(entry.proof.checkpoint)
        proofs.append(LogProof(entry.index, entry.proof.size, kind, origin))
    return tuple(proofs), problems


def _origin(signed_note: bytes) -> str | None:
    try:
        return checkpoint.parse(note.parse(signed_note).text).origin
    except MalformedError:
        return None


def _log_texts(
    proofs: Sequence[LogProof], problems: Sequence[ProvenanceError], meaning: Meaning
) -> list[str]:
    texts = [
        f"entry {proof.index} of {proof.origin or 'a log without a name'},"
        f" {proof.kind}, in the tree of {proof.tree_size:,}"
        for proof in proofs
    ]
    texts += [f"not understood: {e.what}" for e in problems if e is not meaning.problem]
    return texts or ["none: not published"]


def _problem_text(problems: Sequence[ProvenanceError]) -> str | None:
    return str(problems[0]) if problems else None
