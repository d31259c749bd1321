"""Writing beside the weights: claims, the model signature, byproducts, and proofs of a log.

Every writer locks the model's folder, and each file is replaced in one step: a reader sees the old
claims or the new ones. A model signature by another key is never replaced: :func:`sign` refuses,
:func:`attach` leaves it beside the new claim and says so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec

from provenance.encoding import strict_base64, strict_json
from provenance.envelope import bundle as bundles
from provenance.envelope import dsse
from provenance.envelope.bundle import Bundle
from provenance.errors import (
    ContentError,
    LogProofError,
    MalformedError,
    SignatureError,
    UnreadableError,
    UsageError,
)
from provenance.files.atomic import locked, storage_error, write_file
from provenance.files.manifest import Manifest, hash_folder
from provenance.files.names import BYPRODUCTS, CLAIMS, LINK, MODEL_SIGNATURE, RESERVED, is_within
from provenance.files.walking import check_link, raise_it, walk, walk_again
from provenance.folder.claims import (
    MAX_CLAIMS_BYTES,
    beside,
    counted,
    model_name,
    name_in,
    not_covered,
    read_bundles,
    require_model,
)
from provenance.keys import PrivateKey, PublicKey, parse_spki, refuse_private_key
from provenance.sigstore.signing import Identity
from provenance.statement import intoto, model_signature, training, uris
from provenance.statement.intoto import Statement, Subject
from provenance.statement.model_signature import ONE_FILE
from provenance.statement.training import TrainingStatement
from provenance.transparency import entry as log_entries
from provenance.transparency import log as logs
from provenance.transparency import note, rekor
from provenance.transparency.entry import LogEntry
from provenance.transparency.note import SignerKey, VerifierKey
from provenance.weights.names import opened_by

Signer: TypeAlias = PrivateKey | Identity


class Log(NamedTuple):
    """A log in a folder, and the key that signs it."""

    folder: Path
    signer: SignerKey


class Published(msgspec.Struct, frozen=True):
    """A claim, by its line from 1, and its index in the log; *new* if it had no proof before."""

    line: int
    index: int
    new: bool


class Attached(msgspec.Struct, frozen=True):
    """The paths that were written beside a model, and where its claim was published.

    ``kept_signature``: another key's ``model.sig`` was there, and was left as it is.
    ``not_covered`` lies there and is not part of the model.
    """

    written: tuple[str, ...]
    published: tuple[Published, ...]
    kept_signature: bool
    not_covered: dict[str, int]


def sign_payload(payload: bytes, key: Signer, *, openssf: bool = False) -> bytes:
    """Return the bundle, in JCS, in which *key* signs *payload*, the bytes of a statement.

    As OpenSSF's reference tool writes and expects it, its hint is the digest of the key's PEM text,
    and its ``keyid`` is empty.
    """
    if isinstance(key, Identity):
        return key.sign(payload)
    keyid, hint = ("", key.public.pem_digest) if openssf else (None, key.public.key_id)
    envelope = dsse.sign(dsse.IN_TOTO_PAYLOAD, payload, key, keyid=keyid)
    return bundles.format(envelope, hint=hint, chain=key.chain)


def sign_model(
    name: str,
    manifest: Manifest,
    key: Signer,
    *,
    links: bool = False,
    ignored: Iterable[str] = (),
    one_file: bool = False,
) -> bytes:
    """Return the OpenSSF model signature of *manifest*, as a bundle in JCS.

    *links* says that some of its files are symbolic links, *ignored* what is left out, *one_file*
    that the model is no folder but the only file.
    """
    statement = model_signature.to_statement(
        name, manifest, links=links, ignored=ignored, one_file=one_file
    )
    return sign_payload(intoto.format(statement), key, openssf=True)


class SignedClaim(msgspec.Struct, frozen=True):
    """A signed claim, the model signature with it if any, byproducts by SHA-256, links by name."""

    claim: bytes
    signature: bytes | None
    files: dict[str, bytes]


def sign_claim(
    model: Path,
    statement: TrainingStatement,
    payload: bytes,
    files: Mapping[str, bytes],
    key: Signer,
    link_roots: Sequence[Path] = (),
) -> SignedClaim:
    """Sign *statement*, which goes beside *model* with *files*.

    *payload* is the statement in bytes, as it was searched for secrets. A training that failed,
    whose inputs changed, or whose end was not seen gets no model signature, which could not say so.
    """
    not_covered(model, link_roots=link_roots)
    outcome = statement.run.provenance_outcome
    signature = None
    if not (outcome.failed or outcome.spoiled_inputs or statement.run.end_not_seen):
        name, links = statement.model_name, _holds_links(model, link_roots)
        one_file = model.is_file()
        signature = sign_model(name, statement.manifest, key, links=links, one_file=one_file)
    return SignedClaim(sign_payload(payload, key), signature, dict(files))


def attach(
    model: Path, signed: SignedClaim, log: Log | None = None, link_roots: Sequence[Path] = ()
) -> Attached:
    """Put *signed* beside *model*; a claim that is there already is not added again.

    The claim is durable before it goes into *log*; then the proof is added to it.
    """
    item = bundles.parse(signed.claim)
    with locked(_folder_of(model)):
        items = _read_claims(model, link_roots)
        place = next((n for n, it in enumerate(items) if it.envelope == item.envelope), len(items))
        items = items if place < len(items) else (*items, item)
        _write_byproducts(model, signed.files)
        _write_claims(model, [each.raw for each in items])
        links = filter(LINK.fullmatch, signed.files)
        signature, folder = beside(model, MODEL_SIGNATURE), beside(model, BYPRODUCTS)
        written = [str(beside(model, CLAIMS)), *(f"{folder}/{name}" for name in links)]
        signers = signed_by(item, named_signer(item))
        kept = signed.signature is not None and not _may_replace(signature, *signers)
        if signed.signature is not None and not kept:
            write_file(signature, signed.signature)
            written.append(str(signature))
        published = () if log is None else _publish(beside(model, CLAIMS), items, [place], log)
    return Attached(tuple(written), published, kept, not_covered(model, link_roots=link_roots))


def sign(
    model: Path,
    key: Signer,
    *,
    ignored: Sequence[str] = (),
    link_roots: Sequence[Path] = (),
    target: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Manifest, dict[str, int], PublicKey, str]:
    """Sign *model*, a folder or a file, in *target*, else ``model.sig``.

    Return its files, what is not covered, the key, and whose it is if an identity's. The paths
    *ignored* are left out, if no loader opens a file there, and so is *target*. A UsageError if
    another key signed what is there, a SecretError if a file is a private key.
    """
    require_model(model)
    path = target or beside(model, MODEL_SIGNATURE)
    uncovered = not_covered(model, link_roots=link_roots)
    if target is not None and (own := name_in(model, target)) not in ("", MODEL_SIGNATURE):
        if loader := opened_by(own):
            raise UsageError(f"is no place for a signature: {loader} opens it", where=str(target))
        ignored = (*ignored, own)
    left_out = model_signature.left_out(ignored)
    if left_out:
        uncovered |= counted(_ignored_files(model, left_out, link_roots))
    signer: tuple[Sequence[PublicKey], str | None] = (), ""
    if isinstance(key, PrivateKey):
        signer = (key.public,), None
    _refuse_to_replace(path, *signer)  # before the hashing, and again when it is written
    name, ignore, check = model_name(model), RESERVED | left_out, refuse_private_key
    places = walk(model, ignore=ignore, link_roots=link_roots)
    manifest = hash_folder(
        model, ignore=ignore, link_roots=link_roots, progress=progress, check=check, places=places
    )
    links, one_file = any(it.links for it in places.values()), model.is_file()
    signature = sign_model(name, manifest, key, links=links, ignored=ignored, one_file=one_file)
    if isinstance(key, Identity):
        signer = signed_by(bundles.parse(signature), ())
    with locked(_folder_of(model)):
        _refuse_to_replace(path, *signer)
        write_file(path, signature)
    [public], who = signer
    return manifest, uncovered, public, who or ""


def _ignored_files(
    model: Path, left_out: frozenset[str], link_roots: Sequence[Path]
) -> Iterator[str]:
    names = frozenset(walk(model, ignore=RESERVED, link_roots=link_roots))
    for name in sorted(names):
        if is_within(name, left_out):
            if loader := opened_by(name, names):
                what = f"cannot be left out: {loader} would open it"
                raise ContentError(what, where=f"{model}/{name}", hint="sign it, or move it away")
            yield name


def _holds_links(model: Path, link_roots: Sequence[Path]) -> bool:
    return any(it.links for _, it in walk_again(model, RESERVED, link_roots, raise_it))


def resign(
    model: Path,
    old: PrivateKey,
    new: PrivateKey,
    link_roots: Sequence[Path] = (),
    progress: Callable[[int], None] | None = None,
) -> tuple[int, int, tuple[str, ...]]:
    """Sign again with *new* what *old* signed beside *model* about its files.

    Return how many statements, how many are left as they are, and the paths. The same bytes are
    signed. Claims of the old key stay, and that one key follows the other is stated by both.
    """
    require_model(model)
    path = beside(model, MODEL_SIGNATURE)
    manifest = hash_folder(model, ignore=RESERVED, link_roots=link_roots, progress=progress)
    with locked(_folder_of(model)):
        items = _read_claims(model, link_roots)
        signature = _read_claims(model, link_roots, MODEL_SIGNATURE)
        moved_before = {item.envelope.payload for item in items if _is_by(item, new)}
        theirs = [item for item in (*items, *signature) if _is_by(item, old)]
        stated = dict.fromkeys(item.envelope.payload for item in theirs)
        about = {each for each in stated if _is_about(each, manifest)}
        signed = [it for it in signature if it in theirs and it.envelope.payload in about]
        claimed = {it.envelope.payload for it in theirs if it not in signature}
        payloads = [each for each in stated if each in (claimed & about) - moved_before]
        if not (payloads or signed):
            hint = "'provenance show' says who signed; what a certificate names stays"
            what = "nothing about the files here is signed by the old key alone"
            raise SignatureError(what, where=str(model), hint=hint)
        moved = _key_change([*payloads, *(it.envelope.payload for it in signed)], old, new)
        lines = [sign_payload(each, new) for each in payloads]
        lines += [sign_payload(moved, each) for each in (old, new)]
        _write_claims(model, [*(item.raw for item in items), *lines])
        if signed:
            again = [
                sign_payload(it.envelope.payload, new, openssf=True) if it in signed else it.raw
                for it in signature
            ]
            write_file(path, again[0] if len(again) == 1 else _joined(path, again))
    written = (str(beside(model, CLAIMS)), *([str(path)] if signed else ()))
    return len(payloads) + len(signed), len(stated.keys() - about), written


def _is_about(payload: bytes, manifest: Manifest) -> bool:
    """Tell whether *payload* says how the files of *manifest* were made, or that these are them."""
    with suppress(MalformedError):
        statement = intoto.parse(payload)
        if statement.predicate_type != uris.MODEL_SIGNATURE:
            return training.from_statement(statement).manifest == manifest
        said, entries = model_signature.from_statement(statement), manifest.entries
        digests = {it.name: it.sha256 for it in entries if not is_within(it.name, said.left_out)}
        files = {it: said.files[it] for it in said.files if not is_within(it, RESERVED)}
        one = ({ONE_FILE: it.sha256} for it in entries if len(entries) == 1)
        return files in (digests, *one)
    return False


def _is_by(item: Bundle, key: PrivateKey) -> bool:
    if item.chain or item.envelope.payload_type != dsse.IN_TOTO_PAYLOAD:
        return False  # what a certificate says of the old key, none says of the new one
    try:
        dsse.open_envelope(item.envelope, [key.public])
        return intoto.parse(item.envelope.payload).predicate_type != uris.KEY_CHANGE
    except (SignatureError, MalformedError):
        return False


def _key_change(payloads: Iterable[bytes], old: PrivateKey, new: PrivateKey) -> bytes:
    digests = dict.fromkeys(hashlib.sha256(each).hexdigest() for each in payloads)
    subject = tuple(Subject({"sha256": it}, f"statement-{n}") for n, it in enumerate(digests, 1))
    named = {
        name: {"keyId": key.public.key_id, "spki": strict_base64.format(key.public.spki)}
        for name, key in (("from", old), ("to", new))
    }
    return intoto.format(Statement(subject, uris.KEY_CHANGE, named))


def publish(model: Path, log: Log, keys: Sequence[PublicKey] = ()) -> tuple[Published, ...]:
    """Put the claims beside *model* into *log*, and keep the proofs with them.

    The Rekor v2 body of the claim's signature is logged: a digest of the claim and the signer's
    public key, never the claim itself. The key is one of *keys* or the one that the claim names as
    its signer's, and must have made the signature; what identities signed is left out. After an
    error the claims are as before.
    """
    require_model(model)
    path = beside(model, CLAIMS)
    if model.is_file() and not os.path.lexists(path):  # a verdict
        path = model
    with locked(_folder_of(model)):
        items = read_bundles(path) if path == model else _read_claims(model)
        if not items:
            hint = "'record' or 'attest' makes one; a model.sig alone is not logged"
            raise UnreadableError("holds no claims to publish", where=str(model), hint=hint)
        places = [n for n, item in enumerate(items) if item.material == "publicKey"]
        if not places:
            what = "holds only what identities signed: it is in the logs of their Sigstores"
            raise UsageError(what, where=str(model))
        return _publish(path, items, places, log, keys)


def _publish(
    path: Path,
    items: Sequence[Bundle],
    places: Sequence[int],
    log: Log,
    keys: Sequence[PublicKey] = (),
) -> tuple[Published, ...]:
    """Put those of the claims *items* in the file *path* that stand at *places* into *log*."""
    bodies = {n: _body(items[n], keys, f"claim {n + 1}") for n in places}
    signatures = len(logs.read_signatures(log.folder))  # with those of witnesses, a better proof
    indices = {n: _proven(items[n], bodies[n], log.signer.verifier, signatures) for n in places}
    missing = [n for n in places if indices[n] is None]
    for n in missing:
        if len(items[n].log_entries) >= bundles.MAX_LOG_ENTRIES:
            what = f"carries {bundles.MAX_LOG_ENTRIES} proofs already, which is the limit"
            raise UsageError(what, where=f"claim {n + 1}")
    new = logs.publish(log.folder, [bodies[n] for n in missing], log.signer) if missing else ()
    added = dict(zip(missing, new, strict=True))
    if added:
        lines = [
            _with_entry(item, added[n]) if n in added else item.raw for n, item in enumerate(items)
        ]
        write_file(path, _joined(path, lines))
    return tuple(
        Published(n + 1, added[n].index if index is None else index, index is None)
        for n, index in indices.items()
    )


def _folder_of(model: Path) -> Path:
    return model.parent if model.is_file() else model


def signed_by(item: Bundle, keys: Sequence[PublicKey]) -> tuple[Sequence[PublicKey], str | None]:
    """Return who signed *item*: one of *keys*, or an identity by its key; nothing is verified."""
    if item.material != "certificate":
        return keys, None
    from provenance.sigstore import certificate  # noqa: PLC0415 - rarely needed

    leaf = certificate.parse(item.chain[0])
    return [leaf.key], leaf.who


def _refuse_to_replace(path: Path, signers: Sequence[PublicKey], who: str | None) -> None:
    is_folder = path.is_dir() and not path.is_symlink()  # writing fails, and says so
    if not is_folder and not _may_replace(path, signers, who):
        what = "is signed by another, or damaged, and is not replaced"
        hint = "write to another place with --signature, or move it away"
        raise UsageError(what, where=str(path), hint=hint)


def _may_replace(path: Path, signers: Sequence[PublicKey], who: str | None) -> bool:
    """Tell whether there is no model signature at *path*, or one that *signers* made.

    Or one of the identity *who*; "" is any.
    """
    if not os.path.lexists(path):
        return True
    try:
        for item in read_bundles(path):
            keys, by = signed_by(item, signers)
            same = who is not None and who in {"", by}
            dsse.open_envelope(item.envelope, keys if same else signers)  # by certificate, too
    except (SignatureError, UnreadableError, MalformedError):
        return False
    return True


def _read_claims(
    model: Path, link_roots: Sequence[Path] = (), name: str = CLAIMS
) -> tuple[Bundle, ...]:
    path = beside(model, name)
    if path.is_symlink():
        check_link(path.parent, path.name, link_roots)
    return read_bundles(path) if os.path.lexists(path) else ()


def check_claims(model: Path, link_roots: Sequence[Path] = ()) -> None:
    """Return if a claim can be added to those beside *model*: found out before a training."""
    not_covered(model, link_roots=link_roots)
    _joined(beside(model, CLAIMS), [item.raw for item in _read_claims(model, link_roots)])


def _write_claims(model: Path, lines: Sequence[bytes]) -> None:
    write_file(beside(model, CLAIMS), _joined(beside(model, CLAIMS), lines))


def _joined(path: Path, lines: Sequence[bytes]) -> bytes:
    """Return *lines* as the file of claims *path*; refuse one that could not be read again."""
    where = str(path)
    if len(lines) > bundles.MAX_LINES:
        raise MalformedError(f"more than {bundles.MAX_LINES} lines", where=where)
    data = b"".join(line + b"\n" for line in lines)
    if len(data) > MAX_CLAIMS_BYTES:
        raise MalformedError(f"longer than {MAX_CLAIMS_BYTES} bytes", where=where)
    if any(b"\n" in line or len(line) > strict_json.MAX_BYTES for line in lines):
        raise MalformedError("a claim is too long, or not one line", where=where)
    return data


def _write_byproducts(model: Path, contents: Mapping[str, bytes]) -> None:
    """Put each of *contents*, by its SHA-256 in hexadecimal or a link's name, beside *model*."""
    if not contents:
        return
    folder = beside(model, BYPRODUCTS)
    if folder.is_symlink():
        raise UnreadableError("is a symbolic link", where=str(folder))
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    for name, content in contents.items():
        if not LINK.fullmatch(name) and hashlib.sha256(content).hexdigest() != name:  # it is a path
            raise MalformedError("does not have that digest", where=f"the byproduct {name}")
        write_file(folder / name, content)  # in place of a damaged one too


def _body(item: Bundle, keys: Sequence[PublicKey], where: str) -> bytes:
    try:
        opened = bundles.open_bundle(item, [*keys, *named_signer(item)])
    except SignatureError as error:
        what = "its signer's public key is not known, or did not make the signature"
        hint = "name the public key with --key"
        raise SignatureError(what, where=where, hint=hint) from error
    return rekor.format_body(item.envelope.pae, opened.signature, opened.key)


def line_of_run(model: Path, invocation_id: str) -> int:
    """Return the line of the claim beside *model* about the run *invocation_id*; 0: there is none.

    Raises UnreadableError or MalformedError if the claims cannot be read.
    """
    for line, item in enumerate(_read_claims(model), 1):
        metadata = _run_details(item).get("metadata")
        if isinstance(metadata, dict) and metadata.get("invocationId") == invocation_id:
            return line
    return 0


def _run_details(item: Bundle) -> dict[str, Any]:
    try:
        run = intoto.parse(item.envelope.payload).predicate.get("runDetails")
    except MalformedError:
        return {}
    return run if isinstance(run, dict) else {}


def named_signer(item: Bundle) -> list[PublicKey]:
    """Return the key that the claim names as its signer's, if any."""
    named = _run_details(item).get("provenance_signer")
    try:
        return [parse_spki(strict_base64.parse(named))] if isinstance(named, str) else []
    except MalformedError:
        return []


def _proven(item: Bundle, body: bytes, vkey: VerifierKey, signatures: int) -> int | None:
    """Return the index that a proof kept with the claim shows, if one has so many *signatures*."""
    for value in item.log_entries:
        try:
            parsed = log_entries.parse_entry(value)
            log_entries.check_entry(parsed, body=body, vkey=vkey)
            if len(note.parse(parsed.proof.checkpoint).signatures) >= signatures:
                return parsed.index
        except (MalformedError, LogProofError):
            continue
    return None


def _with_entry(item: Bundle, entry: LogEntry) -> bytes:
    """Return *item* as received, with one more log entry, parsed again to check it."""
    document: dict[str, Any] = strict_json.parse(item.raw)
    kept = [*item.log_entries, log_entries.format_entry(entry)]
    document["verificationMaterial"]["tlogEntries"] = kept
    return bundles.parse(strict_json.format(document)).raw
