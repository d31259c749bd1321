"""What is this file? An explanation of anything that the program writes.

The kind is detected by the content, and by the name where the content cannot tell (the tiles and
the state of a log). Each file is then read by the strict parser of its kind, as the other commands
read it. Nothing is verified: no signature, no digest, no proof.

Limits: a file is held in memory up to the limit of its kind, at most 64 MiB; of weights only the
header is read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from provenance.encoding import strict_json
from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.files.names import BYPRODUCTS
from provenance.files.reading import open_file, read_file, unreadable
from provenance.keys.public import MAX_KEY_BYTES
from provenance.report import explain_equality, explain_files, explain_logs, explain_signed
from provenance.report.explain_text import MAX_SHOWN_BYTES, Explained, Kind
from provenance.statement.metrics import is_metric
from provenance.transparency import note
from provenance.transparency.log_state import STATE
from provenance.weights.names import PICKLES, READABLE_WORDS, UNREAD, UNREADABLE, suffix_of

NOT_VERIFIED = "not verified: this is what it says; nothing of it was checked"
"""The last line of every explanation."""

HEAD_BYTES = 4096
"""What is read to detect the kind, in bytes."""

_DIGEST_NAME = re.compile(r"[0-9a-f]{64}")
_OPENSSH_PUBLIC = (b"ssh-", b"ecdsa-", b"sk-")


class Shown(msgspec.Struct, frozen=True):
    """What ``show --json`` prints: the file's kind and content; never verified.

    The fields of ``content`` depend on the kind; its statements are described by their own schemas.
    ``problems`` are the parts that could not be understood.
    """

    path: str
    kind: Kind
    content: dict[str, Any]
    problems: tuple[str, ...] = ()
    verified: Literal[False] = False


def shown(path: str, explained: Explained) -> Shown:
    """Return *explained*, which is of the file at *path*, for programs."""
    problems = tuple(str(problem) for problem in explained.problems)
    return Shown(path, explained.kind, explained.content, problems)


def explain(path: Path) -> Explained:
    """Return what the file or folder at *path* is and says."""
    if path.is_dir():
        return _explain_folder(path)
    descriptor, status = open_file(path, follow=True)
    try:
        with os.fdopen(descriptor, "rb") as file:
            head, size = file.read(HEAD_BYTES), status.st_size
    except OSError as error:
        raise unreadable(error, str(path)) from error
    folder = path.absolute().parent.name
    if folder == STATE:
        return explain_logs.explain_state(path)
    if (tile := explain_logs.find_tile(path)) is not None:
        return explain_logs.explain_tile(path, tile)
    try:
        return _explain_content(path, head, size)
    except MalformedError:
        if folder == BYPRODUCTS and _DIGEST_NAME.fullmatch(path.name):  # which can be anything
            return explain_files.explain_byproduct(path)
        raise


def _explain_folder(folder: Path) -> Explained:
    if explain_logs.is_log_folder(folder):
        return explain_logs.explain_log_folder(folder)
    if explain_files.is_model_folder(folder):
        return explain_files.explain_model_folder(folder)
    absolute = folder.absolute()
    if absolute.name == BYPRODUCTS and explain_files.is_model_folder(absolute.parent):
        return explain_files.explain_byproduct_folder(folder)
    raise UnreadableError(
        "neither a log nor a model folder: nothing in it is signed",
        where=str(folder),
        hint="'record', 'attest' or 'sign' a model in it first",
    )


def _explain_content(path: Path, head: bytes, size: int) -> Explained:
    where = str(path)
    if suffix_of(path.name) in PICKLES:
        raise _unknown(path)
    if explain_files.holds_weights(path.name, head, size):
        return explain_files.explain_weights(path)
    if b"PRIVATE KEY-----" in head:
        return explain_files.explain_private_key(path)
    if b"PUBLIC KEY-----" in head or head.startswith(_OPENSSH_PUBLIC):
        return explain_files.explain_public_key(read_file(path, MAX_KEY_BYTES), where)
    first = head.lstrip()[:1]
    if first == b"{":
        return _explain_objects(path, head, size)
    if first == b"[" and b"".join(head.split())[:3] in (b'[["', b"[]"):  # TOML begins with [ too
        return explain_files.explain_manifest(read_file(path, MAX_SHOWN_BYTES), where)
    return _explain_text(path, head, size)


def _explain_objects(path: Path, head: bytes, size: int) -> Explained:
    """Return what a JSON object, or one a line, is, by the fields that name its kind."""
    where = str(path)
    if _begins_with_metric(head):
        if size > explain_files.MAX_METRICS_BYTES:
            raise MalformedError("too many metrics to sum up", where=where)
        return explain_files.explain_metrics(read_file(path, size), where)
    data = read_file(path, MAX_SHOWN_BYTES)
    if b'"mediaType"' in data and b'"verificationMaterial"' in data:
        return explain_signed.explain_bundles(data, where)
    if b'"payloadType"' in data and b'"signatures"' in data:
        return explain_signed.explain_link(data, where)
    if b'"_type"' in data and b'"predicateType"' in data:
        return explain_signed.explain_bare_statement(data, where)
    raise _unknown(path)


def _begins_with_metric(head: bytes) -> bool:
    try:
        return is_metric(strict_json.parse(head.partition(b"\n")[0]))
    except MalformedError:
        return False


def _explain_text(path: Path, head: bytes, size: int) -> Explained:
    where = str(path)
    if not head.strip() or b"\0" in head or size > note.MAX_NOTE_BYTES:
        raise _unknown(path)
    data = read_file(path, note.MAX_NOTE_BYTES)
    if "\n\n— ".encode() in data:
        return explain_logs.explain_note(data, where)
    text = data.decode("utf-8", "replace")
    if text.count("\n") <= 1 and text.count("+") >= 2:  # noqa: PLR2004 - NAME+ID+KEY
        return explain_logs.explain_vkey(text.removesuffix("\n"), where)
    if b"[[party]]" in data:
        hint = "'provenance trust check' says what it demands"
        raise MalformedError("is a trust policy", where=where, hint=hint)
    try:
        return explain_equality.explain_equality(data, where)
    except MalformedError as error:
        if path.suffix == ".toml":
            raise
        raise _unknown(path) from error


def _unknown(path: Path) -> ProvenanceError:
    """Return the error for a file of an unknown kind, with what the user can do."""
    where, suffix = str(path), suffix_of(path.name)
    if suffix in PICKLES:
        hint = "save its arrays with numpy.savez or safetensors to see its tensors; 'verify' and"
        hint += " 'compare' take the file as it is, byte for byte"
        what = "a pickled model, which this program never loads"
        return UnreadableError(what, where=where, hint=hint)
    if suffix in UNREAD:
        return UnreadableError(UNREADABLE, where=where, hint=READABLE_WORDS)
    hint = "'show' explains claims, signatures, verdicts, keys, weights, equalities and logs"
    return MalformedError("not a file that this program writes", where=where, hint=hint)
