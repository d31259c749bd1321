"""The OpenSSF model signature, predicate v1.0 (ossf/model-signing-spec).

The subject's ``sha256`` is the root digest: SHA-256 over the raw digests in the order in which the
resources are listed. We write the reference tool's order (by path components) and read any, because
the specification's text has another one (by code points). Only signatures by whole files with
SHA-256 are read. What ``ignore_paths`` names was not signed: files, and folders with what is in
them. Of reserved names (:mod:`~provenance.files.names`) the list says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from provenance.encoding import strict_json
from provenance.errors import MalformedError, SubjectError
from provenance.files.manifest import Manifest, root_digest
from provenance.files.names import RESERVED, check_name, is_plain
from provenance.statement import intoto
from provenance.statement.intoto import Statement, Subject
from provenance.statement.uris import MODEL_SIGNATURE


class Resource(msgspec.Struct, frozen=True, gc=False):
    """One file: its name, the hash algorithm, the digest in hexadecimal."""

    name: str
    algorithm: str
    digest: str


class Serialization(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the model became a list of resources."""

    method: str
    hash_type: str
    allow_symlinks: bool = False
    ignore_paths: tuple[str, ...] = ()
    shard_size: float | None = None


class ModelSignaturePredicate(msgspec.Struct, frozen=True):
    """The predicate of a model signature."""

    resources: tuple[Resource, ...]
    serialization: Serialization


class ModelSignature(msgspec.Struct, frozen=True):
    """A model signature: the model's name, its root digest, and the SHA-256 of each file."""

    model_name: str
    root_digest: str
    files: dict[str, str]
    ignored: tuple[str, ...]
    predicate_type: Literal["https://model_signing/signature/v1.0"] = MODEL_SIGNATURE

    @property
    def left_out(self) -> frozenset[str]:
        """What the signer left out beyond reserved names: as a file, and as a folder by a ``/``."""
        return left_out(self.ignored)


_RESERVED = frozenset(name.rstrip("/") for name in RESERVED)


def left_out(ignored: Iterable[str]) -> frozenset[str]:
    """Return the paths *ignored* as names in a folder: each as a file, and with a ``/``."""
    names = {name for path in ignored if is_plain(name := path.rstrip("/"))} - _RESERVED
    return frozenset(spelled for name in names for spelled in (name, f"{name}/"))


def to_statement(
    model_name: str, manifest: Manifest, *, links: bool = False, ignored: Iterable[str] = ()
) -> Statement:
    """Return the statement that signs the files of *manifest* but for the names *ignored*.

    *links*: some are links.
    """
    resources = [
        {"name": entry.name, "algorithm": "sha256", "digest": entry.sha256}
        for entry in manifest.entries
    ]
    method = {"method": "files", "hash_type": "sha256", "allow_symlinks": links}
    serialization: dict[str, Any] = {**method, "ignore_paths": sorted(_RESERVED.union(ignored))}
    return Statement(
        subject=(Subject(model_name, {"sha256": manifest.root_digest}),),
        predicate_type=MODEL_SIGNATURE,
        predicate={"resources": resources, "serialization": serialization},
    )


def from_statement(statement: Statement, *, where: str | None = None) -> ModelSignature:
    """Return the model signature that *statement* is.

    A SubjectError (and not just a MalformedError) says that its subject does not match its files.
    """
    if statement.predicate_type != MODEL_SIGNATURE:
        raise MalformedError(f"not a model signature but {statement.predicate_type}", where=where)
    predicate = strict_json.convert(statement.predicate, ModelSignaturePredicate, where=where)
    serialization = predicate.serialization
    if (serialization.method, serialization.hash_type) != ("files", "sha256"):
        what = f"signed by {serialization.method} with {serialization.hash_type}, not supported"
        hint = "ask the signer for a signature by files with sha256"
        raise MalformedError(what, where=where, hint=hint)
    files: dict[str, str] = {}
    for resource in predicate.resources:
        check_name(resource.name, where=where)
        if resource.algorithm != "sha256":
            raise MalformedError(f"unknown digest algorithm {resource.algorithm!r}", where=where)
        intoto.check_digests({"sha256": resource.digest}, where=where)
        if resource.name in files:
            raise MalformedError(f"the file {resource.name!r} is duplicated", where=where)
        files[resource.name] = resource.digest
    if len(statement.subject) != 1:
        raise MalformedError("a model signature has exactly one subject", where=where)
    subject = statement.subject[0]
    root = root_digest(files.values())
    if not files or subject.digest.get("sha256") != root:
        raise SubjectError("the subject is not the digest of the resources", where=where)
    return ModelSignature(subject.name, root, files, serialization.ignore_paths)
