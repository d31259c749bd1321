"""What is signed: bundles in ``claims.jsonl``, ``model.sig`` and verdicts; and bare statements.

Recipes, declarations and verdicts look as ``verify``, ``equality check`` and ``agree`` show them;
the rest is shown field by field.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from provenance.encoding import strict_base64, strict_json
from provenance.envelope import bundle as bundles
from provenance.envelope.bundle import Bundle, DsseEnvelope
from provenance.envelope.dsse import IN_TOTO_PAYLOAD
from provenance.errors import MalformedError, ProvenanceError, SignatureError, as_typed, count
from provenance.rebuilding import verdict as verdicts
from provenance.report.agreement import verdict_lines
from provenance.report.explain_text import (
    MAX_SHOWN_DOCUMENTS,
    MAX_SHOWN_VALUES,
    Explained,
    cell,
    explained,
    fields,
    row,
    rows,
)
from provenance.report.explain_training import training_rows
from provenance.statement import intoto, model_signature, training, uris
from provenance.statement.intoto import ResourceDescriptor, Statement
from provenance.transparency import checkpoint, note
from provenance.transparency import entry as log_entries

_SAID = ("verificationResult", "verifiedLevels", "timeVerified", "slsaVersion", "properties",
         "timeCreated")  # fmt: skip
"""Fields beside a verdict in a SLSA verification summary, or an in-toto simple result."""


def explain_bundles(data: bytes, where: str) -> Explained:
    """Return what the bundles *data* (one a line, or one document) hold."""
    parsed = bundles.parse_any(data, where=where)
    described, lines, problems = describe_bundles(parsed, where)
    title = f"{where}: {count(len(parsed), 'signed document')}"
    return explained("bundles", title, {"bundles": described}, lines, problems)


def describe_bundles(
    parsed: Sequence[Bundle], where: str
) -> tuple[list[dict[str, Any]], list[str], list[ProvenanceError]]:
    """Return *parsed* for programs, in lines, and what could not be understood.

    ``signer`` is how the signer is named: ``publicKey`` or ``certificate``.
    """
    described: list[dict[str, Any]] = []
    lines: list[str] = []
    problems: list[ProvenanceError] = []
    for number, item in enumerate(parsed[:MAX_SHOWN_DOCUMENTS], 1):
        place, label = (f"{where}:{number}", f"{number}. ") if len(parsed) > 1 else (where, "")
        envelope = item.envelope
        kind, document, shown, found = _describe(envelope.payload, envelope.payload_type, place)
        logged, faults = _log_entries(item, place)
        found += faults
        problems += [error.inside(place) for error in found]  # a new one has no frames, with values
        described.append(
            {
                "what": kind,
                "signer": item.material,
                "hint": item.hint,
                "keyid": envelope.keyid,
                "payloadType": envelope.payload_type,
                "payloadDigest": {"sha256": hashlib.sha256(envelope.payload).hexdigest()},
                "statement": document,
                "logEntries": logged,
                "problem": str(found[0]) if found else None,
            }
        )
        lines += [f"{label}{kind}", *_signer_rows(item), *shown, *_verifier_rows(item, document)]
        lines += fields({"logEntries": logged})
        lines += rows("log entries", [f"not understood: {error.what}" for error in faults])
        lines += [] if logged or faults else [row("log entries", "none: not published")]
    if more := len(parsed) - len(described):
        problems.append(MalformedError(f"{more:,} more documents are not shown", where=where))
    return described, lines, problems


class _Link(msgspec.Struct, frozen=True, tag_field="_type", tag="link"):
    """An in-toto link: the files with which a step began, those it left, and its command."""

    name: str
    command: tuple[str, ...]
    materials: dict[str, dict[str, str]]
    products: dict[str, dict[str, str]]
    byproducts: dict[str, Any]
    environment: dict[str, Any]


def explain_link(data: bytes, where: str) -> Explained:
    """Return what the in-toto link *data*, which 'record --link' wrote, says."""
    envelope = strict_json.convert(_parse(data, where), DsseEnvelope, where=where)
    payload = _parse(strict_base64.parse(envelope.payload, where=where), where)
    link = strict_json.convert(payload, _Link, where=where)
    signers = [each.keyid or "a key that is not named" for each in envelope.signatures]
    shown: dict[str, Any] = {"name": link.name, "signedBy": signers}
    shown["command"] = as_typed(link.command)
    for name, files in (("materials", link.materials), ("products", link.products)):
        shown[name] = [{"name": file, "digest": files[file]} for file in sorted(files)]
    lines = fields({**shown, "byproducts": cell(link.byproducts)})
    lines.append(row("", "'verify --layout' holds it against a layout"))
    content = {"signatures": envelope.signatures, "link": payload}
    return explained("link", f"{where}: in-toto link of a step", content, lines)


def explain_bare_statement(data: bytes, where: str) -> Explained:
    """Return what the statement *data*, which nobody signed, says."""
    kind, document, lines, problems = _describe(data, IN_TOTO_PAYLOAD, where)
    if document is None:
        raise problems[0]
    content = {"what": kind, "statement": document}
    return explained("statement", f"{where}: {kind}, not signed", content, lines, problems)


def byproducts_by_digest(parsed: Sequence[Bundle]) -> dict[str, ResourceDescriptor]:
    """Return the byproducts that the bundles *parsed* describe, by SHA-256; the last one wins."""
    found: dict[str, ResourceDescriptor] = {}
    for item in parsed:
        with contextlib.suppress(MalformedError):
            claim = training.from_statement(intoto.from_document(_parse(item.envelope.payload)))
            found |= {each.digest.get("sha256", ""): each for each in claim.run.byproducts}
    return found


def _describe(
    payload: bytes, payload_type: str, where: str
) -> tuple[str, Any, list[str], list[ProvenanceError]]:
    """Return what *payload* is, its JSON, its rows, and what is wrong with it."""
    if payload_type != IN_TOTO_PAYLOAD:
        size = f"{len(payload):,} bytes of {payload_type}"
        return "another payload", None, [row("payload", size)], []
    try:
        document = _parse(payload, where)
        statement = intoto.from_document(document, where=where)
    except MalformedError as error:
        return "another payload", None, [row("problem", error.what)], [error]
    kind = _kind(statement)
    try:
        return kind, document, _ROWS[kind](statement, where), []
    except MalformedError as error:
        lines = [*_other_rows(statement, where), row("problem", error.what)]
        return kind, document, lines, [error]


def _parse(payload: bytes, where: str | None = None) -> Any:  # noqa: ANN401 - any JSON value
    return strict_json.parse(payload, where=where, max_values=MAX_SHOWN_VALUES)


def _signer_rows(item: Bundle) -> list[str]:
    keyid = item.envelope.keyid
    if item.material != "publicKey":
        return [row("signed by", f"who the certificate says: {_certified(item)}")]
    lines = [row("signed by", item.hint or keyid or "a key that is not named")]
    other = item.hint and keyid and keyid != item.hint
    return [*lines, row("", f"but the signature names the key {keyid}")] if other else lines


def _certified(item: Bundle) -> str:
    from provenance.sigstore import certificate  # noqa: PLC0415 - takes a while

    try:
        return certificate.parse(item.chain[0]).who
    except SignatureError as error:
        return error.what


def _verifier_rows(item: Bundle, document: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    """Say so if a verdict names another verifier than the bundle names as its signer."""
    predicate = document.get("predicate") if isinstance(document, dict) else None
    named = predicate.get("verifier") if isinstance(predicate, dict) else None
    verifier = named.get("id") if isinstance(named, dict) else None
    keyid = item.envelope.keyid or item.hint
    if not isinstance(verifier, str) or not verifier.startswith(f"{uris.VERIFIER}/"):
        return []
    ours = verifier == verdicts.verifier_uri(keyid)
    return [] if ours else [row("", "but the verifier that it names is not the key that signed it")]


def _log_entries(item: Bundle, where: str) -> tuple[list[dict[str, Any]], list[ProvenanceError]]:
    """Return the log entries that *item* names, and those that could not be understood."""
    found: list[dict[str, Any]] = []
    problems: list[ProvenanceError] = []
    for value in item.log_entries:
        try:
            entry = log_entries.parse_entry(value, where=where)
        except MalformedError as error:
            problems.append(error)
            continue
        origin = None
        with contextlib.suppress(MalformedError):
            origin = checkpoint.parse(note.parse(entry.proof.checkpoint).text).origin
        kind, size = f"{entry.kind} {entry.version}", entry.proof.size
        found.append({"index": entry.index, "origin": origin, "kind": kind, "treeSize": size})
    return found, problems


def _kind(statement: Statement) -> str:
    """Return the kind of *statement*; another tool's may have a predicate type that we use."""
    kind, predicate = statement.predicate_type, statement.predicate
    if kind == uris.MODEL_SIGNATURE:
        return "model signature"
    if kind == uris.SLSA_PROVENANCE:
        build = predicate.get("buildDefinition")
        ours = isinstance(build, dict) and build.get("buildType") == uris.BUILD_TYPE
        return "training statement" if ours else "another statement"
    carries = kind in (uris.SLSA_VSA, uris.IN_TOTO_SVR) and "provenance_verdict" in predicate
    return "verdict" if carries or kind == uris.VERDICT else "another statement"


def _signature_rows(statement: Statement, where: str) -> list[str]:
    signature = model_signature.from_statement(statement, where=where)
    files = [{"name": name, "sha256": digest} for name, digest in signature.files.items()]
    subject = {"model": signature.model_name, "subject": signature.root_digest}
    shown = fields({**subject, "files": files, "notSigned": ", ".join(signature.ignored)})
    return [*shown, row("", "says which files these are, not how they were made")]


def _verdict_rows(statement: Statement, where: str) -> list[str]:
    verdict = verdicts.from_statement(statement, where=where)
    models = [
        {"name": p.name, "rootDigest": p.root_digest, "keyId": p.key_id, "level": p.level}
        | ({"subject": p.subject} if p.subject else {})
        for p in verdict.parties
    ]
    said = {name: cell(statement.predicate[name]) for name in _SAID if name in statement.predicate}
    verifier = statement.predicate.get("verifier")
    if isinstance(verifier, dict):
        said["verifier"] = cell(verifier.get("id"))
    # Colours say what this program found; this verdict is another's.
    shown = verdict_lines(verdict, [party.name for party in verdict.parties])
    return [
        *fields({"statedAs": statement.predicate_type, **said, "models": models}),
        *(f"  {click.unstyle(line)}" for line in shown),
    ]


def _other_rows(statement: Statement, where: str) -> list[str]:  # noqa: ARG001 - as the others
    holds = ", ".join(sorted(statement.predicate)) or "nothing"
    return fields({"type": statement.predicate_type, "subject": statement.subject, "holds": holds})


_ROWS = {
    "training statement": training_rows, "model signature": _signature_rows,
    "verdict": _verdict_rows, "another statement": _other_rows,
}  # fmt: skip
