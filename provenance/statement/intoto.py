"""The in-toto Statement v1 (in-toto/attestation, ``spec/v1/statement.md``).

Unknown fields of a Statement are ignored, as the specification asks. Our statements have one
subject: with more, a verifier that accepts any matching one would accept part of a model.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from provenance.encoding import strict_json
from provenance.envelope.dsse import IN_TOTO_PAYLOAD, Opened
from provenance.errors import MalformedError
from provenance.statement.uris import STATEMENT

_HEX_LENGTHS = {
    "sha1": (40,),
    "sha256": (64,),
    "sha384": (96,),
    "sha512": (128,),
    "blake2b": (128,),
    "blake3": (64,),
    "gitCommit": (40, 64),
    "gitTree": (40, 64),
}
"""Digits of a digest, by algorithm (git has two hashes); any number for other algorithms."""

_HEX = re.compile(r"[0-9a-f]+")


class Subject(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the statement is about: digests in hexadecimal; name and uri prove nothing."""

    digest: dict[str, str]
    name: str = ""
    uri: str = ""


class ResourceDescriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A resource (``spec/v1/resource_descriptor.md``): it has a uri, a digest or content.

    ``content`` is base64 of at most a kilobyte.
    """

    name: str = ""
    uri: str = ""
    digest: dict[str, str] = {}
    content: str = ""
    media_type: str = ""
    annotations: dict[str, Any] = {}


class Statement(
    msgspec.Struct,
    frozen=True,
    tag_field="_type",
    tag=STATEMENT,
    rename={"predicate_type": "predicateType"},
):
    """A parsed Statement; the predicate is still a JSON object."""

    subject: Annotated[tuple[Subject, ...], msgspec.Meta(min_length=1)]
    predicate_type: str
    predicate: dict[str, Any] = {}


def format(statement: Statement) -> bytes:  # noqa: A001
    """Return *statement* in JCS."""
    return strict_json.format(statement)


def parse(payload: bytes, *, where: str | None = None) -> Statement:
    """Return the statement that *payload* spells."""
    return from_document(strict_json.parse(payload, where=where), where=where)


def from_document(document: object, *, where: str | None = None) -> Statement:
    """Return the statement that the JSON value *document* is."""
    kind = document.get("_type") if isinstance(document, dict) else None
    if kind != STATEMENT:
        raise MalformedError(f"not an in-toto Statement v1: its _type is {kind!r}", where=where)
    statement = strict_json.convert(document, Statement, where=where)
    for subject in statement.subject:
        check_digests(subject.digest, where=where)
    return statement


def from_opened(opened: Opened, *, where: str | None = None) -> Statement:
    """Return the statement that was signed in *opened*.

    The payload type is signed so that a document of one kind cannot pass for another: use this on
    an envelope, not :func:`parse`.
    """
    if opened.payload_type != IN_TOTO_PAYLOAD:
        what = f"not signed as a statement but as {opened.payload_type!r}"
        raise MalformedError(what, where=where)
    return parse(opened.payload, where=where)


def check_digests(digests: dict[str, str], *, where: str | None = None) -> None:
    """Return if *digests* is a digest set: not empty, each in lower-case hexadecimal."""
    if not digests:
        raise MalformedError("a digest is missing", where=where)
    for algorithm, value in digests.items():
        lengths = _HEX_LENGTHS.get(algorithm, (len(value),))
        if not _HEX.fullmatch(value) or len(value) not in lengths:
            raise MalformedError(f"not a {algorithm} digest: {value!r}", where=where)


def require_sha256(digests: dict[str, str], what: str, *, where: str | None = None) -> None:
    """Return if *digests*, those of *what*, is a digest set with a SHA-256."""
    check_digests(digests, where=where)
    if "sha256" not in digests:
        raise MalformedError(f"{what} has no sha256 digest", where=where)
