"""The claims beside a model: ``claims.jsonl``, ``model.sig``, and the files in ``provenance/``.

Writers exclude each other by locking the model's folder, and each file is replaced in one step, so
a reader sees the old claims or the new ones.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from provenance.encoding import strict_base64
from provenance.envelope import bundle, dsse
from provenance.errors import MalformedError, UnreadableError, UsageError
from provenance.files.atomic import locked, storage_error, write_file
from provenance.files.names import BYPRODUCTS, CLAIMS, MODEL_SIGNATURE
from provenance.files.reading import read_file
from provenance.statement import intoto, model_signature, training

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from provenance.envelope.bundle import Bundle
    from provenance.files.manifest import Manifest
    from provenance.keys import PrivateKey, PublicKey
    from provenance.statement.intoto import Statement
    from provenance.statement.training import TrainingStatement

MAX_CLAIMS_BYTES = 2**30
"""Largest claims file read, in bytes."""


def sign_statement(statement: Statement, key: PrivateKey) -> bytes:
    """Return the bundle, in JCS, in which *key* signs *statement*."""
    return sign_payload(intoto.format(statement), key)


def sign_payload(payload: bytes, key: PrivateKey) -> bytes:
    """Return the bundle, in JCS, in which *key* signs *payload*, the bytes of a statement."""
    envelope = dsse.sign(dsse.IN_TOTO_PAYLOAD, payload, key)
    return bundle.format(envelope, hint=key.public.key_id)


def name_signer(statement: TrainingStatement, signer: PublicKey) -> TrainingStatement:
    """Return *statement* with the public key of its *signer* in it."""
    run = msgspec.structs.replace(
        statement.run, provenance_signer=strict_base64.format(signer.spki)
    )
    return msgspec.structs.replace(statement, run=run)


def sign_training(statement: TrainingStatement, key: PrivateKey) -> bytes:
    """Return the bundle, in JCS, in which *key* signs *statement* and names itself."""
    return sign_statement(training.to_statement(name_signer(statement, key.public)), key)


def sign_model(model_name: str, manifest: Manifest, key: PrivateKey) -> bytes:
    """Return the OpenSSF model signature of *manifest*, as a bundle in JCS.

    Its hint is the digest of the key's PEM text and its ``keyid`` is empty, as the reference tool
    has them and checks them.
    """
    payload = intoto.format(model_signature.to_statement(model_name, manifest))
    envelope = dsse.sign(dsse.IN_TOTO_PAYLOAD, payload, key, keyid="")
    return bundle.format(envelope, hint=key.public.pem_digest)


class Attached(msgspec.Struct, frozen=True):
    """What was put beside a model: its claim, and the paths that were written."""

    claim: bytes
    written: tuple[str, ...]


def attach(
    model: Path,
    statement: TrainingStatement,
    payload: bytes,
    files: Mapping[str, bytes],
    key: PrivateKey,
) -> Attached:
    """Sign *statement* with *key* and put it beside *model*, with *files* and a model signature.

    *payload* is the statement in bytes: exactly those are signed that were searched for secrets.
    A training that failed, or whose inputs changed meanwhile, gets no model signature, which could
    not say so; an earlier one, which is about other files, is left alone.

    Raises:
        UnreadableError, MalformedError: the claims that are there cannot be read.
        UnavailableError: the disk is full, or the folder may not be written.
    """
    claim = sign_payload(payload, key)
    write_byproducts(model, files)
    append_claim(model, claim)
    written = [str(model / CLAIMS)]
    outcome = statement.run.provenance_outcome
    if not outcome.failed and not outcome.changed_inputs:
        signature = sign_model(statement.model_name, statement.manifest, key)
        write_model_signature(model, signature)
        written.append(str(model / MODEL_SIGNATURE))
    return Attached(claim, tuple(written))


def read_bundles(path: Path) -> tuple[Bundle, ...]:
    """Return the bundles in the file *path*: one a line, or one over several lines.

    Raises:
        UnreadableError: the file is missing, not a file, or too large.
        MalformedError: it holds something else than bundles.
    """
    return bundle.parse_any(read_file(path, MAX_CLAIMS_BYTES), where=str(path))


def append_claim(model: Path, claim: bytes) -> None:
    """Add the bundle *claim* as the last line of the claims beside *model*.

    Raises:
        UnreadableError, MalformedError: the claims that are there cannot be read, or *claim* is not
            a bundle on one line.
        UnavailableError: the disk is full, or the folder may not be written.
    """
    update_claims(model, lambda lines: (*lines, claim))


def update_claims(model: Path, change: Callable[[tuple[bytes, ...]], Sequence[bytes]]) -> None:
    """Replace the lines of the claims beside *model* by what *change* makes of them.

    Raises:
        UnreadableError, MalformedError: the claims that are there cannot be read, or what *change*
            makes of them could not be.
        UnavailableError: the disk is full, or the folder may not be written.
    """
    path = model / CLAIMS
    with locked(model):
        lines: tuple[bytes, ...] = ()
        if os.path.lexists(path):
            data = read_file(path, MAX_CLAIMS_BYTES, follow=False)
            lines = tuple(item.raw for item in bundle.parse_any(data, where=str(path)))
        changed = tuple(change(lines))
        if changed == lines:
            return
        _check_lines(changed, frozenset(lines), str(path))
        write_file(path, b"".join(line + b"\n" for line in changed))


def _check_lines(changed: Sequence[bytes], known: frozenset[bytes], where: str) -> None:
    """Refuse to write what could not be read again: one bad line would take all claims with it."""
    if len(changed) > bundle.MAX_LINES:
        raise MalformedError(f"more than {bundle.MAX_LINES} lines", where=where)
    if sum(len(line) + 1 for line in changed) > MAX_CLAIMS_BYTES:
        raise MalformedError(f"longer than {MAX_CLAIMS_BYTES} bytes", where=where)
    for number, line in enumerate(changed, 1):
        if b"\n" in line:
            raise MalformedError("a bundle over several lines is no claim", where=where)
        if line not in known:
            bundle.parse(line, where=f"{where}:{number}")


def write_model_signature(model: Path, signature: bytes) -> None:
    """Put *signature* beside the weights as ``model.sig``.

    Raises:
        UnavailableError: the disk is full, or the folder may not be written.
    """
    with locked(model):
        write_file(model / MODEL_SIGNATURE, signature)


def refuse_to_replace(model: Path, signer: PublicKey) -> None:
    """Return if there is no model signature beside *model*, or one by *signer*.

    Raises:
        UsageError: another key signed it.
        UnreadableError, MalformedError: it cannot be read.
    """
    path = model / MODEL_SIGNATURE
    if (
        os.path.lexists(path)
        and not path.is_dir()
        and any(
            item.hint not in ("", signer.pem_digest, signer.key_id) for item in read_bundles(path)
        )
    ):
        raise UsageError(
            "is signed by another key, and is not replaced",
            where=str(path),
            hint="remove it, or move it away, if its signature is no longer wanted",
        )


def write_byproducts(model: Path, contents: Mapping[str, bytes]) -> None:
    """Put each of *contents*, keyed by its SHA-256 in hexadecimal, beside the weights.

    Raises:
        UnreadableError: the folder of byproducts is a symbolic link, or *model* is no folder.
        UnavailableError: the disk is full, or the folder may not be written.
    """
    if not contents:
        return
    folder = model / BYPRODUCTS
    with locked(model):
        if folder.is_symlink():
            raise UnreadableError("is a symbolic link", where=str(folder))
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from error
        for digest, content in contents.items():
            if not (folder / digest).exists():
                write_file(folder / digest, content)


def require_folder(path: Path) -> None:
    """Return if *path* is a folder.

    Raises:
        UnreadableError: it is not there, or something else.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it may not look
        what = "is not a folder" if os.path.lexists(path) else "no such folder"
        raise UnreadableError(what, where=str(path))
