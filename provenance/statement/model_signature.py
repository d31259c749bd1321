"""The OpenSSF model signature, predicate v1.0 (ossf/model-signing-spec).

The subject's ``sha256`` is the root digest: SHA-256 over the raw digests in the order in which the
resources are listed. We write the reference tool's order (by path components) and read any, because
the specification's text has another one (by code points). Written are whole files with SHA-256;
read are BLAKE2b and BLAKE3 too, and shards, ``NAME:BEGIN:END``, of one size but for the last: the
tool calls their algorithm ``sha256-sharded-SIZE``, the specification ``sha256``. No shard is empty,
and so empty files are not signed. What ``ignore_paths`` names was not signed: files, and folders
with what is in them. Of reserved names (:mod:`~provenance.files.names`) the list says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from provenance.encoding import strict_json
from provenance.errors import MalformedError, SubjectError
from provenance.files.digest import DIGEST_BYTES, SHA256, Hashing
from provenance.files.manifest import Manifest, root_digest
from provenance.files.names import RESERVED, check_name, component_order, is_plain
from provenance.statement import intoto
from provenance.statement.intoto import Statement, Subject
from provenance.statement.uris import MODEL_SIGNATURE


class Resource(msgspec.Struct, frozen=True, gc=False):
    """One file: its name, the hash algorithm, the digest in hexadecimal."""

    name: str
    algorithm: str
    digest: str


ONE_FILE = "."
"""The name of the file in the signature of a model that is no folder."""


NAMELESS = "a model without a name"
"""What stands for it where none was signed, as before 0.3 and by 1.0 of the folder it was in."""


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
    """A model signature: the model's name, its root digest, and each file's digests by *hashing*.

    The root digest of files with SHA-256 is that of their manifest, in whatever order they were
    signed. ``sizes`` are those of the files, by name, where it states them: it does of shards.
    """

    model_name: str
    root_digest: str
    files: dict[str, str]
    ignored: tuple[str, ...]
    hashing: Hashing = SHA256
    sizes: dict[str, int | None] = {}
    predicate_type: Literal["https://model_signing/signature/v1.0"] = MODEL_SIGNATURE

    @property
    def left_out(self) -> frozenset[str]:
        """What the signer left out beyond reserved names: as a file, and as a folder by a ``/``."""
        return left_out(self.ignored)


_SHARD = re.compile(r"(?s:(?P<name>.+)):(?P<begin>0|[1-9][0-9]{0,17}):(?P<end>[1-9][0-9]{0,17})")

_RESERVED = frozenset(name.rstrip("/") for name in RESERVED)


def left_out(ignored: Iterable[str]) -> frozenset[str]:
    """Return the paths *ignored* as names in a folder: each as a file, and with a ``/``."""
    names = {name for path in ignored if is_plain(name := path.rstrip("/"))} - _RESERVED
    return frozenset(spelled for name in names for spelled in (name, f"{name}/"))


def to_statement(
    model_name: str,
    manifest: Manifest,
    *,
    links: bool = False,
    ignored: Iterable[str] = (),
    one_file: bool = False,
) -> Statement:
    """Return the statement that signs the files of *manifest* but for the names *ignored*.

    *links*: some are links. *one_file*: it is the model, and there is no folder.
    """
    named = ((ONE_FILE if one_file else it.name, it.sha256) for it in manifest.entries)
    resources = [{"name": name, "algorithm": "sha256", "digest": it} for name, it in named]
    method = {"method": "files", "hash_type": "sha256", "allow_symlinks": links}
    serialization: dict[str, Any] = {**method, "ignore_paths": sorted(_RESERVED.union(ignored))}
    return Statement(
        subject=(Subject({"sha256": manifest.root_digest}, model_name),),
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
    hashing = _hashing_of(predicate.serialization, where)
    _check_digests(predicate.resources, hashing, where)
    if hashing.shard_bytes:
        files, sizes = _shards(predicate.resources, hashing.shard_bytes, where)
    else:
        files = _by_name(((it.name, it.digest) for it in predicate.resources), where)
        sizes = dict.fromkeys(files)
    for name in files:
        if len(files) > 1 or name != ONE_FILE:
            check_name(name, where=where)
    if len(statement.subject) != 1:
        raise MalformedError("a model signature has exactly one subject", where=where)
    subject = statement.subject[0]
    root = root_digest(resource.digest for resource in predicate.resources)
    if not files or subject.digest.get("sha256") != root:
        raise SubjectError("the subject is not the digest of the resources", where=where)
    if hashing == SHA256:  # in our order
        root = root_digest(files[name] for name in sorted(files, key=component_order))
    ignored = predicate.serialization.ignore_paths
    return ModelSignature(subject.name or NAMELESS, root, files, ignored, hashing, sizes)


def from_older(statement: Statement, *, where: str | None = None) -> ModelSignature:
    """Return the model signature that *statement* is, one of the form before model-signing 0.3.

    It names no model, and says nothing of what was left out.
    """
    for subject in statement.subject:
        check_name(subject.name, where=where)
        intoto.require_sha256(subject.digest, repr(subject.name), where=where)
    files = _by_name(((it.name, it.digest["sha256"]) for it in statement.subject), where)
    root = root_digest(files[name] for name in sorted(files, key=component_order))
    return ModelSignature(NAMELESS, root, files, (), sizes=dict.fromkeys(files))


def _hashing_of(said: Serialization, where: str | None) -> Hashing:
    if said.method not in ("files", "shards") or said.hash_type not in DIGEST_BYTES:
        what = f"signed by {said.method} with {said.hash_type}, which is not known"
        hint = f"ask the signer for files or shards with {', '.join(DIGEST_BYTES)}"
        raise MalformedError(what, where=where, hint=hint)
    if said.method == "files":
        return Hashing(said.hash_type)
    size = said.shard_size or 0
    if size < 1 or size != int(size):
        raise MalformedError(f"shards of {size} bytes", where=where)
    return Hashing(said.hash_type, int(size))


def _check_digests(resources: Iterable[Resource], hashing: Hashing, where: str | None) -> None:
    name, shard_bytes = hashing
    names = {name, f"{name}-sharded-{shard_bytes}"} if shard_bytes else {name}
    digest = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES[name]}}}")
    for each in resources:
        if each.algorithm not in names:
            what = f"hashed with {each.algorithm!r}, not {name} as the others"
            raise MalformedError(what, where=where)
        if not digest.fullmatch(each.digest):
            raise MalformedError(f"not a {name} digest: {each.digest!r}", where=where)


def _by_name(digests: Iterable[tuple[str, str]], where: str | None) -> dict[str, str]:
    files: dict[str, str] = {}
    for name, digest in digests:
        if name in files:
            raise MalformedError(f"the file {name!r} is duplicated", where=where)
        files[name] = digest
    return files


def _shards(
    resources: Sequence[Resource], shard_bytes: int, where: str | None
) -> tuple[dict[str, str], dict[str, int | None]]:
    """Return the digests of each file's shards as one text, and its size."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    for resource in resources:
        shard = _SHARD.fullmatch(resource.name)
        if shard is None:
            raise MalformedError(f"{resource.name!r} is no shard NAME:BEGIN:END", where=where)
        place = (int(shard["begin"]), int(shard["end"]), resource.digest)
        found.setdefault(shard["name"], []).append(place)
    sizes: dict[str, int | None] = {}
    for name, shards in found.items():
        shards.sort()
        sizes[name] = size = shards[-1][1]
        begins = range(0, size, shard_bytes)
        expected = ((at, min(at + shard_bytes, size)) for at in begins)
        if len(begins) != len(shards) or any(
            shard[:2] != place for shard, place in zip(shards, expected, strict=True)
        ):
            raise MalformedError(f"the shards of {name!r} do not make a file", where=where)
    return {name: "".join(it[2] for it in shards) for name, shards in found.items()}, sizes
