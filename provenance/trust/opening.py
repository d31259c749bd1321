"""Statements that a trusted key signed: steps 2 to 4 of a verification.

Anybody can put copies of a signed statement beside a model, so each signature is checked once, and
each statement parsed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from provenance.encoding import strict_base64
from provenance.envelope import bundle as bundles
from provenance.envelope.bundle import Bundle, Notary
from provenance.envelope.dsse import Envelope, Opened, open_envelope
from provenance.errors import (
    MalformedError,
    PolicyError,
    ProvenanceError,
    SignatureError,
    SubjectError,
)
from provenance.files.digest import SHA256
from provenance.files.manifest import Manifest
from provenance.files.walking import raise_it
from provenance.keys import PublicKey, parse_spki
from provenance.statement import intoto, model_signature, training, uris
from provenance.statement.model_signature import ModelSignature
from provenance.statement.training import TrainingStatement

if TYPE_CHECKING:
    from provenance.envelope.bundle import Trusted


class Claim(msgspec.Struct, frozen=True):
    """A training statement that a given key signed."""

    where: str
    training: TrainingStatement
    opened: Opened
    bundle: Bundle


class Signed(msgspec.Struct, frozen=True):
    """A model signature that a given key made."""

    where: str
    signature: ModelSignature
    opened: Opened


class KeyChange(msgspec.Struct, frozen=True, rename={"old": "from", "new": "to"}):
    """That one key follows another, by their ids, as both signed."""

    old: str
    new: str


class Statements(msgspec.Struct, frozen=True):
    """The statements of the given keys."""

    claims: tuple[Claim, ...]
    signatures: tuple[Signed, ...]

    @property
    def models(self) -> list[tuple[str, str]]:
        """Name and root digest of each model that they are about, in their order."""
        stated = [claim.training for claim in self.claims]
        if stated:
            return [(each.model_name, each.manifest.root_digest) for each in stated]
        return [(it.signature.model_name, it.signature.root_digest) for it in self.signatures]

    @property
    def by_sha256(self) -> bool:
        """Whether the root digests of :attr:`models` are those of manifests."""
        return bool(self.claims) or all(it.signature.hashing == SHA256 for it in self.signatures)

    def matching(self, manifest: Manifest) -> tuple[Claim, ...]:
        """Return the claims that are about the files of *manifest*."""
        return tuple(claim for claim in self.claims if claim.training.manifest == manifest)


def open_all(
    received: Sequence[tuple[str, Bundle]],
    trusted: Sequence[Trusted],
    refuse: Callable[[ProvenanceError], None] = raise_it,
) -> list[tuple[str, Bundle, Opened]]:
    """Return those of the bundles *received* that one of *trusted* signed.

    One that names a trusted key which did not sign it goes to *refuse*; if that returns, it is left
    out.
    """
    keys = [each for each in trusted if isinstance(each, PublicKey)]
    known = {name for key in keys for name in (key.key_id, key.pem_digest)}
    opened = []
    refusal: SignatureError | None = None
    notarised = any(isinstance(each, Notary) for each in trusted)  # by more than is signed
    seen: dict[tuple[str, str, Envelope, tuple[bytes, ...], bytes], Opened | SignatureError] = {}
    for where, item in received:
        more = item.raw if notarised else b""
        signed = (item.material, item.hint, item.envelope, item.chain, more)
        if (found := seen.get(signed)) is None:
            try:
                found = bundles.open_bundle(item, trusted)
            except SignatureError as error:
                found = error
            seen[signed] = found
        if not isinstance(found, SignatureError):
            opened.append((where, item, found))
            continue
        if {item.hint, item.envelope.keyid} & known:
            what = (
                "the signature does not fit: the claim was changed after it was signed,"
                " or another key signed it in this one's name"
            )
            found = SignatureError(what, where=where)
            refuse(found)
        elif not notarised and item.material == "certificate":
            from provenance.sigstore import certificate  # noqa: PLC0415 - rarely needed

            with suppress(SignatureError):
                who = f"{found.what}; its certificate names {certificate.parse(item.chain[0]).who}"
                found = SignatureError(who, hint=found.hint)
        older = as_older(item).envelope.older and not item.envelope.older
        hint = "its form is older: --digests-v0.1 reads it" if older else found.hint
        refusal = refusal or SignatureError(found.what, where=where, hint=hint)
    if not opened:
        raise refusal or SignatureError("there is nothing signed")
    return opened


def key_changes(
    received: Sequence[tuple[str, Bundle]], trusted: Sequence[Trusted], payload: bytes
) -> tuple[KeyChange, ...]:
    """Return by which changes of keys *payload* came to, or from, a key of *trusted*.

    Each is a statement that both keys signed, so that neither can say it of the other.
    """
    signed: dict[bytes, set[Envelope]] = {}
    for _, item in received:
        if uris.KEY_CHANGE.encode() in item.envelope.payload:
            signed.setdefault(item.envelope.payload, set()).add(item.envelope)
    known = {each.key_id for each in trusted if isinstance(each, PublicKey)}
    about, found = hashlib.sha256(payload).hexdigest(), dict[bytes, KeyChange]()
    changes = {each: spkis for each in signed if (spkis := _changed(each, about))}
    for each in (*reversed(changes), *changes):  # from a trusted key back, and on
        ids = [strict_base64.format(hashlib.sha256(spki).digest()) for spki in changes[each]]
        if known & {*ids}:
            spkis, changes[each] = changes[each], []  # each is asked once
            if all(_is_signed(signed[each], spki) for spki in spkis):
                found[each] = KeyChange(*ids)
                known |= {*ids}
    return tuple(found[each] for each in signed if each in found)


def _changed(payload: bytes, about: str) -> list[bytes]:
    """Return the old key and the new one (DER), where *payload* states a change for that digest."""
    try:
        statement = intoto.parse(payload)
        subjects = {subject.digest.get("sha256") for subject in statement.subject}
        if statement.predicate_type != uris.KEY_CHANGE or about not in subjects:
            return []
        said: list[Any] = [statement.predicate.get(name) for name in ("from", "to")]
        return [strict_base64.parse(str(each["spki"])) for each in said]
    except (MalformedError, KeyError, TypeError):
        return []


def _is_signed(envelopes: Iterable[Envelope], spki: bytes) -> bool:
    for each in envelopes:
        with suppress(SignatureError, MalformedError):
            open_envelope(each, [parse_spki(spki)])
            return True
    return False


def understand(
    trusted: Sequence[tuple[str, Bundle, Opened]], *, separately: bool = False
) -> Statements:
    """Return what was signed, parsed; statements of other kinds are left out.

    Read *separately*, one that is not understood leaves the others as they are.
    """
    parsed: dict[tuple[str, bytes], TrainingStatement | ModelSignature | None] = {}
    claims, signatures = [], []
    refusal: ProvenanceError | None = None
    for where, item, opened in trusted:
        signed = (opened.payload_type, opened.payload)
        if signed not in parsed:
            try:
                parsed[signed] = _parse(opened, where, older=item.envelope.older)
            except (MalformedError, SubjectError) as error:
                if not separately:
                    raise
                refusal, parsed[signed] = refusal or error, None
        statement = parsed[signed]
        if isinstance(statement, training.TrainingStatement):
            claims.append(Claim(where, statement, opened, item))
        elif statement is not None:
            signatures.append(Signed(where, statement, opened))
    if not claims and not signatures:
        raise refusal or PolicyError("the given keys signed only statements of other kinds")
    return Statements(tuple(claims), tuple(signatures))


def as_older(item: Bundle) -> Bundle:
    """Return *item*, to be opened as model-signing signed before 0.3, if it is of that form."""
    older = uris.OLDER_DIGESTS.encode() in item.envelope.payload
    return replace(item, envelope=replace(item.envelope, older=older))


def _parse(opened: Opened, where: str, *, older: bool) -> TrainingStatement | ModelSignature | None:
    statement = intoto.from_opened(opened, where=where)
    if older and statement.predicate_type == uris.OLDER_DIGESTS:
        return model_signature.from_older(statement, where=where)
    if statement.predicate_type == uris.SLSA_PROVENANCE:
        return training.from_statement(statement, where=where)
    if statement.predicate_type == uris.MODEL_SIGNATURE:
        return model_signature.from_statement(statement, where=where)
    return None
