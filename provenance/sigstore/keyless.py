"""The check of a bundle against a trusted root, offline: who signed, when, and that it was logged.

In this order, each with its own refusal: the certificate names the identity, its key made the
signature, an entry of a trusted log is about exactly this, a trusted log or time-stamp authority
says when, the certificate was valid then and leads to an authority of the root, and it was logged
itself. All times that are proven must fit; the certificate's own say nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import msgspec

from provenance.encoding import strict_base64
from provenance.envelope import bundle as bundles
from provenance.envelope.bundle import Bundle, Material, Notary
from provenance.envelope.dsse import Opened
from provenance.errors import LogProofError, MalformedError, SignatureError
from provenance.keys import PublicKey
from provenance.sigstore import certificate, logged, times
from provenance.sigstore.certificate import Leaf
from provenance.sigstore.logged import Signed
from provenance.sigstore.root import Log, TrustedRoot


@dataclass(frozen=True)
class Keyless(Notary):
    """Trust in *identities*, each with the provider that vouches for it, by a trusted root.

    Without any, the root is for what keys signed: that must be in one of its logs.
    """

    root: TrustedRoot
    identities: tuple[tuple[str, str], ...] = ()

    def open(self, bundle: Bundle) -> Opened:
        """Return what one of the identities signed in *bundle*."""
        document, envelope = bundle.document, bundle.envelope
        with refusing():
            leaf, name = self.certified(document.media_type, bundle.material, bundle.chain)
            leaf.key.verify(envelope.sig, envelope.pae)
            signed = _signed(bundle, leaf.key, leaf.der)
            said = self.prove(document.verification_material, document.media_type, signed, leaf)
        signed_by = (leaf.key, envelope.sig, name, *said)
        return Opened(envelope.payload_type, envelope.payload, *signed_by, kind="identity")

    def confirm(self, bundle: Bundle, opened: Opened) -> Opened:
        """Return *opened*, which a key signed, if its entries in logs of the root hold.

        Beside an identity there need not be any.
        """
        document, signed = bundle.document, _signed(bundle, opened.key, b"")
        try:
            said = self.prove(document.verification_material, document.media_type, signed, None)
        except SignatureError as error:  # the signature holds, but not what is said of it
            raise LogProofError(error.what) from error
        return msgspec.structs.replace(opened, proof=said[0], at=said[1])

    def certified(self, media_type: str, kind: str, chain: tuple[bytes, ...]) -> tuple[Leaf, str]:
        """Return the first of *chain*, and the trusted identity that it names."""
        if not self.identities:
            raise bundles.no_identity()
        if kind == "x509CertificateChain" and _version(media_type) == "0.3":
            what = "signed with a chain of certificates, which is not keyless in a bundle v0.3"
            hint = "name the authority that issued them with --certificate-chain"
            raise SignatureError(what, hint=hint)
        leaf = certificate.parse(chain[0])
        return leaf, certificate.check_identity(leaf, self.identities)

    def prove(
        self, material: Material, media_type: str, signed: Signed, leaf: Leaf | None
    ) -> tuple[str, datetime | None]:
        """Return what proves *signed*: the log, and when it was there at the latest."""
        entries = tuple(self._logged(material, media_type, signed))
        found = [at for _, _, at in entries if at is not None]
        refusals = []
        for said in times.stamped(stamps_of(material), signed.signature, self.root.timestamps):
            if isinstance(said, SignatureError):
                refusals.append(said)
            else:
                found.append(said)
        if leaf is not None and not found:
            missing = "nothing proves when it was signed: no timestamp, and no log's signed time"
            raise refusals[0] if refusals else SignatureError(missing)
        for at in found:
            for _, log, _ in entries:
                if not any(it.period.covers(at) for it in self._known(log.log_id)):
                    raise SignatureError(f"the log {log.name} does not count at {at}")
            if leaf is not None:
                authority = certificate.check_chain(leaf, self.root.authorities, at)
                certificate.check_logged(leaf, authority, self.root.ctlogs)
        when = f" at {min(found):%Y-%m-%d %H:%M:%S} UTC" if found else ""
        by = f", by {self.root.name}" if self.root.name else ""
        proof = "".join(f"entry {number} of {log.name}{when}{by}" for number, log, _ in entries[:1])
        return proof, min(found, default=None)

    def _logged(
        self, material: Material, media_type: str, signed: Signed
    ) -> Iterator[tuple[int, Log, datetime | None]]:
        """Yield index and log of each entry in a trusted one, about *signed*, and its time."""
        none = True
        for value in material.tlog_entries:
            entry, proven = logged.parse(value, _version(media_type))
            for log in self._known(entry.log_id)[:1]:
                logged.check_body(entry, signed)
                at = logged.check_promise(entry, log) if entry.promise else None
                if proven:
                    logged.check_inclusion(entry, log)
                yield entry.index if at else entry.proof.index, log, at
                none = False
        if none and (signed.certificate or not self.identities):
            hint = "--trust-config names the root of another Sigstore"
            raise SignatureError("the signature is in no log of the trusted root", hint=hint)

    def _known(self, log_id: bytes) -> list[Log]:
        return [log for log in self.root.logs if log.log_id == log_id]


def _signed(bundle: Bundle, key: PublicKey, der: bytes) -> Signed:
    it, pae = bundle.envelope, bundle.envelope.pae
    return Signed(
        it.sig, key, der, lambda name: hashlib.new(name, pae).digest(), it.payload, it.payload_type
    )


def stamps_of(material: Material) -> list[bytes]:
    """Return the responses of time-stamp authorities in *material*, in DER."""
    given = material.timestamp_verification_data
    responses = given.rfc3161_timestamps if given else ()
    return [strict_base64.parse(each.signed_timestamp) for each in responses]


def _version(media_type: str) -> str:
    """Return the version of a bundle of *media_type*, "0.1" to "0.3"."""
    return re.sub(r".*(0\.\d).*", r"\1", media_type)


@contextmanager
def refusing() -> Iterator[None]:
    """Let every refusal be one of the signature, for another bundle may be good."""
    try:
        yield
    except (MalformedError, LogProofError) as error:
        raise SignatureError(error.what, where=error.where, hint=error.hint) from error
