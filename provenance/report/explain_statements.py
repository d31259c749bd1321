"""What a statement says, of whatever kind it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

from provenance.errors import MalformedError
from provenance.rebuilding import verdict as verdicts
from provenance.report.agreement import verdict_lines
from provenance.report.explain_text import pairs_text, row, rows, sha256_text
from provenance.report.explain_training import training_rows
from provenance.statement import intoto, model_signature, training, uris

if TYPE_CHECKING:
    from provenance.rebuilding.verdict import Party
    from provenance.statement.intoto import Statement

StatementKind = Literal[
    "training statement", "model signature", "verdict", "another statement", "another payload"
]


class Meaning(msgspec.Struct, frozen=True):
    """What a statement is, what it says in rows, and why it could not be understood."""

    kind: StatementKind
    rows: tuple[str, ...]
    problem: MalformedError | None = None


def explain_statement(statement: Statement, where: str, depth: int = 1) -> Meaning:
    """Return what *statement* says; one that is malformed has a problem, and does not raise."""
    kind = _kind(statement)
    try:
        return Meaning(kind, tuple(_ROWS[kind](statement, where, depth)))
    except MalformedError as error:
        about = [*_other_rows(statement, where, depth), row("problem", error.what, depth)]
        return Meaning(kind, tuple(about), error)


def _kind(statement: Statement) -> StatementKind:
    """Return what *statement* sets out to be; a statement of another tool's may have our type."""
    kind, predicate = statement.predicate_type, statement.predicate
    if kind == uris.MODEL_SIGNATURE:
        return "model signature"
    if kind == uris.SLSA_PROVENANCE:
        build = predicate.get("buildDefinition")
        ours = isinstance(build, dict) and build.get("buildType") == uris.BUILD_TYPE
        return "training statement" if ours else "another statement"
    carries = kind in (uris.SLSA_VSA, uris.IN_TOTO_SVR) and "provenance_verdict" in predicate
    return "verdict" if carries or kind == uris.VERDICT else "another statement"


def _training_rows(statement: Statement, where: str, depth: int) -> list[str]:
    return training_rows(training.from_statement(statement, where=where), depth)


def _signature_rows(statement: Statement, where: str, depth: int) -> list[str]:
    signature = model_signature.from_statement(statement, where=where)
    files = [f"{name}  {sha256_text(digest)}" for name, digest in signature.files.items()]
    lines = [
        row("model", signature.model_name, depth),
        row("subject", f"sha256 {signature.root_digest}", depth),
        row("files", f"{len(files):,}", depth),
        *rows("", files, depth),
    ]
    if signature.ignored:
        lines.append(row("not signed", ", ".join(signature.ignored), depth))
    return [*lines, row("", "says which files these are, not how they were made", depth)]


def _verdict_rows(statement: Statement, where: str, depth: int) -> list[str]:
    verdict = verdicts.from_statement(statement, where=where)
    lines = rows("stated as", _stated_as(statement), depth)
    lines.append(row("published", _party_text(verdict.published), depth))
    lines += rows("rebuilds", [_party_text(item.party) for item in verdict.rebuilds], depth)
    names = [party.name for party in (verdict.published, *(r.party for r in verdict.rebuilds))]
    indent = "  " * depth
    # Colours say what this program found; of a verdict that is only shown, it found nothing.
    return lines + [indent + click.unstyle(line) for line in verdict_lines(verdict, names)]


_STATED: dict[str, tuple[str, tuple[str, ...]]] = {
    uris.SLSA_VSA: (
        "SLSA verification summary",
        ("verificationResult", "verifiedLevels", "timeVerified"),
    ),
    uris.IN_TOTO_SVR: ("in-toto simple verification result", ("properties", "timeCreated")),
    uris.VERDICT: ("verdict that claims nothing of the model", ()),
}
"""By predicate type: what carries the verdict, and its fields that say something of their own."""


def _stated_as(statement: Statement) -> list[str]:
    what, fields = _STATED[statement.predicate_type]
    given = [name for name in fields if name in statement.predicate]
    return [what, *(_field_text(name, statement.predicate[name]) for name in given)]


def _field_text(name: str, value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    return pairs_text({name: value})


def _party_text(party: Party) -> str:
    return (
        f"{party.name}  {sha256_text(party.root_digest.get('sha256', ''))}  by key {party.key_id}"
    )


def _other_rows(statement: Statement, where: str, depth: int) -> list[str]:  # noqa: ARG001 - as the others
    subjects = [
        "  ".join([item.name, *(f"{name} {value}" for name, value in item.digest.items())])
        for item in statement.subject
    ]
    lines = [row("type", statement.predicate_type, depth), *rows("subject", subjects, depth)]
    fields = ", ".join(sorted(statement.predicate)) or "nothing"
    return [*lines, row("holds", fields, depth)]


_ROWS = {
    "training statement": _training_rows,
    "model signature": _signature_rows,
    "verdict": _verdict_rows,
    "another statement": _other_rows,
}


def parse_payload(payload: bytes, where: str) -> tuple[dict[str, Any], Statement]:
    """Return the JSON of the in-toto *payload*, and the statement that it is.

    Raises:
        MalformedError: it is no Statement v1.
    """
    statement = intoto.parse(payload, where=where)
    document: dict[str, Any] = msgspec.json.decode(payload)
    return document, statement
