"""A trust policy: who is trusted to say what about which models (docs/verify.md).

TOML 1.0. A rule that can never hold is refused, as is all that would be read over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from unicodedata import normalize

import msgspec

from provenance.envelope.bundle import Bundle, Notary, open_bundle
from provenance.envelope.dsse import Opened, identity_text
from provenance.equality.declaration import MAX_BYTES, in_words, parse_toml
from provenance.errors import LogProofError, MalformedError, SignatureError, UsageError, count
from provenance.files.reading import read_file
from provenance.keys import PublicKey
from provenance.keys.public import parse_public_pem, read_key_file
from provenance.transparency import witness
from provenance.transparency.log import find_vkey
from provenance.transparency.note import VerifierKey, parse_vkey
from provenance.transparency.witness import MAX_POLICY_BYTES, LogPolicy

if TYPE_CHECKING:
    from provenance.envelope.bundle import Trusted
    from provenance.keys.certificates import Authority
    from provenance.sigstore.keyless import Keyless

Kind = Literal["training", "signature", "verdict"]
"""What is signed: how a model was made, that these are its files, or that it was rebuilt."""

_Name = Annotated[str, msgspec.Meta(pattern=r"^\S(.*\S)?\Z", max_length=200)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
_Days = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
_Few = msgspec.Meta(max_length=64)


class _Part(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="kebab"
):
    pass


class Identity(_Part, frozen=True):
    """An identity (keyless): a mail address or URL, and the provider that vouches for it."""

    name: _Text
    provider: _Text


class Certified(_Part, frozen=True):
    """The subject (RFC 4514) of certificates that a root in the file *authority* (PEM) leads to."""

    authority: _Text
    subject: _Text


class Party(_Part, frozen=True):
    """Somebody who signs, and the organisation that stands behind them.

    Files are named from the policy's folder; a key can be written out, in PEM or OpenSSH's form.
    """

    name: _Name
    organisation: _Name
    keys: Annotated[tuple[_Text, ...], _Few] = ()
    identities: Annotated[tuple[Identity, ...], _Few] = ()
    certificates: Annotated[tuple[Certified, ...], _Few] = ()


class Revoked(_Part, frozen=True):
    """A party's key that counts only for what a trusted timestamp puts before a day (UTC)."""

    key: _Text
    on: date


class Rule(_Part, frozen=True):
    """What must have been signed of models with such names, and by whom.

    Without ``parties`` all may sign it. ``organisations`` distinct ones must have. ``strength`` and
    ``builders`` (2) are for verdicts, the rest from ``level`` on for training statements.
    """

    statement: Kind
    models: Annotated[tuple[_Name, ...], msgspec.Meta(min_length=1, max_length=64)] = ("*",)
    parties: Annotated[tuple[_Name, ...], msgspec.Meta(min_length=1, max_length=64)] = ()
    organisations: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    level: Literal["attested", "recorded"] | None = None
    equality: bool = False
    clean_tree: bool = False
    repository: bool = False
    licences: bool = False
    open_data: bool = False
    logs: Annotated[tuple[_Text, ...], _Few] = ()
    max_age_days: _Days | None = None
    strength: Literal["rounded", "tensors", "bytes"] | None = None
    builders: Annotated[int, msgspec.Meta(ge=2, le=1000)] | None = None


class NoMismatch(_Part, frozen=True):
    """That nobody trusted signed of these files that rebuilding gave others.

    Known only of a log: of all in its copy ``folder`` up to ``checkpoint``, which a file holds, as
    far as ``documents`` (files, and folders of files) show what the ``parties`` (all) signed there.
    How old that is, witnesses say, who cosign only the last that they saw.
    """

    log: _Text
    checkpoint: _Text
    folder: _Text
    max_age_days: _Days | None = None
    documents: Annotated[tuple[_Text, ...], _Few] = ()
    parties: Annotated[tuple[_Name, ...], _Few] = ()


class Document(_Part, frozen=True):
    """A trust policy as it is written."""

    format: Literal[1]
    party: Annotated[tuple[Party, ...], msgspec.Meta(min_length=1, max_length=256)]
    rule: Annotated[tuple[Rule, ...], msgspec.Meta(min_length=1, max_length=256)]
    revoked: Annotated[tuple[Revoked, ...], msgspec.Meta(max_length=256)] = ()
    trusted_root: _Text | None = None
    """A Sigstore's trusted root, for identities and timestamps; else the public one's."""
    tlog_policy: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_POLICY_BYTES)] | None = (
        None
    )
    """A C2SP tlog-policy, as lines or in a file: the only logs, and who must have cosigned them."""
    no_trusted_mismatch: NoMismatch | None = None


@dataclass(frozen=True)
class TrustPolicy:
    """A policy, read and checked.

    ``signers`` are the parties by key id or by the name of a certificate's subject, ``revoked``
    days by key id, ``logs`` the keys of logs by the text that names them in a rule; ``witnesses``
    cosign their checkpoints. Files of ``no_trusted_mismatch`` are in ``folder``.
    """

    rules: tuple[Rule, ...]
    signers: Mapping[str, Party]
    revoked: Mapping[str, date] = field(default_factory=dict)
    logs: Mapping[str, VerifierKey] = field(default_factory=dict)
    trusted: tuple[Trusted, ...] = ()
    no_trusted_mismatch: NoMismatch | None = None
    witnesses: LogPolicy | None = None
    folder: Path = Path()


@dataclass(frozen=True)
class _Certified(Notary):
    """The parties that sign with certificates; whoever opens a bundle first has signed it."""

    accepted: tuple[tuple[str, str, Authority | Keyless], ...]
    clock: Keyless | None

    def open(self, bundle: Bundle) -> Opened:
        """Return what one of them signed; its subject is the signer's name in the policy."""
        refusal = None
        for name, subject, trusted in self.accepted:
            try:
                opened = open_bundle(bundle, [trusted])
            except SignatureError as error:
                refusal = refusal or error
                continue
            if subject in ("", opened.subject):
                return msgspec.structs.replace(opened, subject=name)
            what = f"signed by {opened.subject}, whom the policy does not name"
            refusal = refusal or SignatureError(what)
        raise refusal or SignatureError("signed with a certificate, and the policy trusts none")

    def confirm(self, bundle: Bundle, opened: Opened) -> Opened:
        """Return *opened*, which a key signed, with the time that is proven, if there is one."""
        try:
            return self.clock.confirm(bundle, opened) if self.clock else opened
        except (LogProofError, MalformedError, SignatureError):
            return opened


def load(path: Path) -> TrustPolicy:
    """Return the policy in the file *path*."""
    data = read_file(path, MAX_BYTES)
    if data.startswith(b"-----BEGIN "):
        what, hint = "is in PEM, and no policy", "trust it with --key or --certificate-chain"
        raise MalformedError(what, where=str(path), hint=hint)
    return parse(data, path)


def parse(data: bytes, path: Path) -> TrustPolicy:
    """Return the policy that *data*, which stands in *path*, spells."""
    where = str(path)
    try:
        document = msgspec.convert(parse_toml(data, where), Document)
    except msgspec.ValidationError as error:
        what, hint = in_words(str(error), Document, "not a trust policy")
        raise MalformedError(what, where=where, hint=hint) from error
    if wrong := next(_wrong(document), None):
        raise MalformedError(wrong, where=where)
    folder, against = path.parent, document.no_trusted_mismatch
    keys = {party.name: [_key(folder, text) for text in party.keys] for party in document.party}
    signers = _signers(document, keys, where)
    revoked = {_key(folder, each.key).key_id: each.on for each in document.revoked}
    if strange := next((each for each in revoked if each not in signers), None):
        raise MalformedError(f"revokes a key that no party has: {strange}", where=where)
    if len(revoked) < len(document.revoked):
        raise MalformedError("revokes a key twice", where=where)
    witnesses = None if document.tlog_policy is None else _witnesses(folder, document.tlog_policy)
    aged = against is not None and against.max_age_days is not None
    if aged and (witnesses is None or witnesses.quorum == witness.NO_QUORUM):
        what, hint = "only witnesses say how old a checkpoint is", "name a quorum in tlog-policy"
        raise MalformedError(what, where=where, hint=hint)
    texts = [text for rule in document.rule for text in rule.logs]
    texts += [against.log] if against else []
    logs = {text: _log(folder, text, witnesses, where) for text in texts}
    policy = TrustPolicy(document.rule, signers, revoked, logs, (), against, witnesses, folder)
    for number, rule in enumerate(document.rule, 1):
        if never := next(_never(rule, policy, document), None):
            raise MalformedError(f"rule {number} can never hold: {never}", where=where)
    all_keys = dict.fromkeys(key for found in keys.values() for key in found)
    return replace(policy, trusted=(*all_keys, *_certified(document, folder, where)))


def _wrong(document: Document) -> Iterator[str]:
    """Yield what is wrong with the parties of *document*, and with where they are named."""
    names, against = [party.name for party in document.party], document.no_trusted_mismatch
    if twice := next((each for each in names if names.count(each) > 1), None):
        yield f"two parties are called {twice}; one party may have several keys"
    for it in document.party:
        if not (it.keys or it.identities or it.certificates):
            yield f"{it.name} has nothing to sign with"
    said = {f"rule {number}": rule.parties for number, rule in enumerate(document.rule, 1)}
    said["no-trusted-mismatch"] = against.parties if against else ()
    for where, parties in said.items():
        if unknown := [each for each in parties if each not in names]:
            yield f"{where} names a party that is none: {unknown[0]!r}"


def _signers(
    document: Document, keys: Mapping[str, Sequence[PublicKey]], where: str
) -> dict[str, Party]:
    """Return the parties by each that signs for them; nobody signs for two."""
    found: dict[str, Party] = {}
    for party in document.party:
        named = (it[0] for it in accepted(party))
        for signer in (*(key.key_id for key in keys[party.name]), *named):
            if found.setdefault(signer, party) is not party:
                both = f"{found[signer].name} and {party.name}"
                raise MalformedError(f"{both} share a key, identity or certificate", where=where)
    return found


def organisation(party: Party) -> str:
    """Return what makes the party's organisation distinct: capitals and spaces do not."""
    return " ".join(normalize("NFKC", party.organisation).casefold().split())


def may_sign(rule: Rule, party: Party) -> bool:
    """Tell whether *rule* counts what *party* signs."""
    return not rule.parties or party.name in rule.parties


def _key(folder: Path, text: str) -> PublicKey:
    if " " in text and text.startswith(("-----BEGIN", "ssh-", "ecdsa-")):
        return parse_public_pem(text.encode(), where="a key in the policy")
    return parse_public_pem(read_key_file(folder / text), where=text)


def _witnesses(folder: Path, text: str) -> LogPolicy:
    if "\n" in text:
        return witness.parse(text.encode("utf-8", "replace"), where="tlog-policy")
    return witness.parse(read_file(folder / text, MAX_POLICY_BYTES), where=text)


def _log(folder: Path, text: str, witnesses: LogPolicy | None, where: str) -> VerifierKey:
    """Return the log that *text* is the key of, or its file, or the name in a tlog-policy."""
    known = witnesses.logs if witnesses else ()
    found = [log for log in known if log.name == text]
    if len(found) != 1:
        found = [parse_vkey(text) if "+" in text else find_vkey(folder / text)]
    if witnesses and found[0] not in known:
        raise MalformedError(f"the tlog-policy has no log {found[0].name}", where=where)
    return found[0]


def accepted(party: Party) -> Iterator[tuple[str, str]]:
    """Yield the name of each signer by certificate, and the subject that it must have."""
    for each in party.identities:
        yield identity_text(each.name, each.provider), ""
    for it in party.certificates:
        yield f"{it.subject} (by {it.authority})", it.subject


def _certified(document: Document, folder: Path, where: str) -> Iterator[_Certified]:
    """Yield who opens what is signed with certificates, if anybody may."""
    identified = any(party.identities for party in document.party)
    certified = any(party.certificates for party in document.party)
    if not identified and not certified and document.trusted_root is None:
        return
    from cryptography import x509  # noqa: PLC0415 - rarely needed

    from provenance.keys.certificates import parse_authority  # noqa: PLC0415 - rarely needed
    from provenance.sigstore import root  # noqa: PLC0415
    from provenance.sigstore.keyless import Keyless  # noqa: PLC0415

    sigstore, given = None, document.trusted_root
    if identified or given is not None:
        try:
            sigstore = root.shipped() if given is None else root.load(folder / given)
        except UsageError as error:
            hint = 'name its trusted root: trusted-root = "FILE"'
            raise MalformedError(error.what, where=where, hint=hint) from error
    found: list[tuple[str, str, Authority | Keyless]] = []
    for party in document.party:
        whom: list[Authority | Keyless] = []
        if sigstore is not None:
            whom += [Keyless(sigstore, ((it.name, it.provider),)) for it in party.identities]
        for it in party.certificates:
            name = ""
            with suppress(ValueError):
                name = x509.Name.from_rfc4514_string(it.subject).rfc4514_string()
            if name != it.subject:  # in another spelling, nobody ever has it
                what = f"{it.subject!r} is no subject of a certificate (RFC 4514)"
                hint = "as 'verify --certificate-chain' names the signer: CN=Alice,O=Example"
                raise MalformedError(what, where=where, hint=hint)
            pem = (it.authority, read_key_file(folder / it.authority))
            whom.append(parse_authority([pem], datetime.now(UTC)))
        named = accepted(party)
        found += [(*name, trusted) for name, trusted in zip(named, whom, strict=True)]
    # Beside an identity, what a key signed need not be in a log.
    yield _Certified(tuple(found), Keyless(sigstore, (("nobody", ""),)) if sigstore else None)


def _never(rule: Rule, policy: TrustPolicy, document: Document) -> Iterator[str]:
    """Yield why *rule* can never hold, if so."""
    clock = document.trusted_root is not None or any(it.identities for it in document.party)
    able = {
        organisation(party)
        for signer, party in policy.signers.items()
        if may_sign(rule, party) and (clock or signer not in policy.revoked)
    }
    if len(able) < rule.organisations:
        revoked = ", as a key is revoked, and no trusted-root tells when it signed"
        why = revoked * (not clock and bool(policy.revoked))
        yield f"{count(rule.organisations, 'organisation')} must sign, and {len(able)} can{why}"
    for letters in (it for each in rule.models for it in re.findall(r"\[!*(.[^\]]*)\]", each)):
        yield from (f"no letter is in {a}-{b}" for a, b in re.findall("(.)-(.)", letters) if a > b)
    set_ = msgspec.to_builtins(rule).keys() - {"statement", "models", "parties", "organisations"}
    used = {"training": set_ - {"strength", "builders"}, "verdict": set_ & {"strength", "builders"}}
    if strange := sorted(set_ - used.get(rule.statement, set())):
        yield f"no {rule.statement} says anything of {strange[0]}"
