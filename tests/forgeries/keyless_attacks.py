"""Attacks on a keyless model signature, by a Sigstore whose trusted root is ``root.json``."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.sigstores import (
    DAY,
    MINUTE,
    NOW,
    SCT_LIST,
    Log,
    Sigstore,
    b64,
    body,
    bundle,
    issue,
    pae,
    sign,
    stamp,
    stamper,
    tlv,
    usage,
)
from tests.world import payload_of

if TYPE_CHECKING:
    from datetime import datetime

    from tests.forgeries.scene import Scene
    from tests.sigstores import Issued


@cache
def _one() -> Sigstore:
    return Sigstore()


def _sigstore(**changed: Any) -> Sigstore:  # noqa: ANN401 - its attributes
    """Return the one of the honest signature, with attributes *changed*."""
    other = copy.copy(_one())
    vars(other).update(changed)
    return other


class _Signed:
    """A signature with its log entry; the parts of the bundle can be changed before it is kept."""

    def __init__(
        self, scene: Scene, signer: Issued | None = None, *, at: datetime = NOW, v2: bool = False
    ) -> None:
        self.path = scene.root / "model.sig"
        self.payload = payload_of(self.path.read_bytes())
        self.signer = signer or _one().signer()
        self.signature = sign(self.signer.key, pae(self.payload))
        self.log = _one().logs[v2]
        self.kind = ("dsse", "0.0.2" if v2 else "0.0.1")
        self.entries = [self.enter(self.log, at)]
        self.stamps = [_one().stampers[0].stamp(self.signature, at)] if v2 else []

    def enter(self, log: Log, at: datetime = NOW, payload: bytes | None = None) -> dict[str, Any]:
        about = payload or self.payload
        return log.enter(body(*self.kind, about, self.signature, self.signer), at)

    def keep(self, sigstore: Sigstore | None = None, version: str = "0.3") -> dict[str, Any]:
        """Write bundle and trusted root; return the former."""
        document = bundle(
            self.signer, self.payload, self.entries, self.stamps, version=version,
            signature=self.signature,
        )  # fmt: skip
        self.write(document)
        (self.path.parents[1] / "root.json").write_bytes((sigstore or _one()).trusted_root())
        return document

    def write(self, document: dict[str, Any]) -> None:
        self.path.write_text(json.dumps(document))


def honest(scene: Scene) -> None:
    _Signed(scene).keep()


# --- The certificate ------------------------------------------------------------------------------


def a_certificate_for_another_purpose(scene: Scene) -> None:
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    _Signed(scene, _one().signer(extended=purpose)).keep()


def a_certificate_of_another_authority(scene: Scene) -> None:
    _Signed(scene, Sigstore().signer()).keep()


def a_root_that_the_bundle_brings(scene: Scene) -> None:
    other = Sigstore()
    signed = _Signed(scene, other.signer())
    document = signed.keep(version="0.2")
    chain = document["verificationMaterial"]["x509CertificateChain"]["certificates"]
    chain += [{"rawBytes": b64(each.der)} for each in (other.between, other.root)]
    signed.write(document)


def expired_when_it_was_signed(scene: Scene) -> None:
    _Signed(scene, at=NOW + 20 * MINUTE).keep()


def not_yet_valid_when_it_was_signed(scene: Scene) -> None:
    _Signed(scene, at=NOW - 2 * MINUTE).keep()


def valid_now_but_not_when_it_was_signed(scene: Scene) -> None:
    _Signed(scene, _one().signer(lasts=timedelta(days=365000)), at=NOW - 2 * MINUTE).keep()


def of_an_authority_that_did_not_count(scene: Scene) -> None:
    ended = {"end": stamp(NOW - timedelta(seconds=1))}
    _Signed(scene).keep(_sigstore(authority_period=ended))


def a_name_of_an_unknown_kind(scene: Scene) -> None:
    name = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), tlv(0x30, tlv(0xA3)))
    signs = (usage(digital_signature=True), True)
    _Signed(scene, issue("", _one().between, signs, (name, True))).keep()


def no_promise_of_the_certificates_log(scene: Scene) -> None:
    _Signed(scene, _one().signer(scts=0)).keep()


def a_promise_for_another_certificate(scene: Scene) -> None:
    [listed] = [
        each for each in _one().signer().certificate.extensions if each.oid == SCT_LIST
    ]  # fmt: skip
    raw = x509.UnrecognizedExtension(SCT_LIST, listed.value.public_bytes())
    plain = _one().signer(scts=0)
    kept = [(each.value, each.critical) for each in plain.certificate.extensions][2:]
    times: dict[str, Any] = {"begin": NOW - MINUTE, "end": NOW + 9 * MINUTE}
    made = issue("", _one().between, *kept, (raw, False), key=plain.key, **times)
    _Signed(scene, made).keep()


def a_promise_forged_by_another_key(scene: Scene) -> None:
    false = type("False", (Log,), {"log_id": _one().ctlog.log_id})("ct.example.org")
    _Signed(scene, _sigstore(ctlog=false).signer()).keep()


def a_promise_of_another_log(scene: Scene) -> None:
    _Signed(scene, _sigstore(ctlog=Log("ct.example.org")).signer()).keep()


def a_promise_when_the_log_did_not_count(scene: Scene) -> None:
    ended = copy.copy(_one().ctlog)
    ended.end = NOW - MINUTE
    _Signed(scene).keep(_sigstore(ctlog=ended))


# --- The log and the time -------------------------------------------------------------------------


def no_entry(scene: Scene) -> None:
    signed = _Signed(scene)
    signed.entries = []
    signed.keep()


def an_entry_about_another_artifact(scene: Scene) -> None:
    signed = _Signed(scene)
    signed.entries = [signed.enter(signed.log, payload=b"other")]
    signed.keep()


def an_entry_in_another_log(scene: Scene) -> None:
    signed = _Signed(scene)
    signed.entries = [signed.enter(Log("stranger.example.org"))]
    signed.keep()


def an_inclusion_proof_of_another_entry(scene: Scene) -> None:
    signed = _Signed(scene, v2=True)
    proof = _Signed(scene, v2=True).entries[0]["inclusionProof"]
    signed.entries[0]["inclusionProof"] = proof
    signed.keep()


def a_checkpoint_of_another_log(scene: Scene) -> None:
    signed = _Signed(scene, v2=True)
    other = Log("tiles.example.org", 2)
    other.leaves = list(signed.log.leaves)[:-2]
    signed.entries[0]["inclusionProof"]["checkpoint"] = signed.enter(other)["inclusionProof"][
        "checkpoint"
    ]
    signed.keep()


def a_checkpoint_of_another_tree(scene: Scene) -> None:
    signed = _Signed(scene, v2=True)
    later = signed.enter(signed.log)
    signed.entries[0]["inclusionProof"]["checkpoint"] = later["inclusionProof"]["checkpoint"]
    signed.keep()


def a_promise_of_another_time(scene: Scene) -> None:
    signed = _Signed(scene)
    signed.entries[0]["integratedTime"] = str(int(NOW.timestamp()) + 1)
    signed.keep()


def nothing_proves_the_time(scene: Scene) -> None:
    signed = _Signed(scene, v2=True)
    signed.stamps = []
    signed.keep()


def a_timestamp_of_another_signature(scene: Scene) -> None:
    signed = _Signed(scene, v2=True)
    signed.stamps = [_one().stampers[0].stamp(b"another", NOW)]
    signed.keep()


def a_timestamp_by_a_stranger(scene: Scene) -> None:
    signed = _Signed(scene, v2=True)
    signed.stamps = [stamper("stranger").stamp(signed.signature, NOW)]
    signed.keep()


def a_timestamp_beyond_its_authority(scene: Scene) -> None:
    signed = _Signed(scene, v2=True)
    signed.stamps = [_one().stampers[0].stamp(signed.signature, NOW - DAY - MINUTE)]
    signed.keep()


# --- The signature --------------------------------------------------------------------------------


def a_signature_over_another_statement(scene: Scene) -> None:
    signed = _Signed(scene)
    signed.payload = signed.payload.replace(b"model.bin", b"Model.bin")
    signed.keep()


def signed_by_another_key(scene: Scene) -> None:
    signed = _Signed(scene)
    signed.signature = sign(_one().signer().key, pae(signed.payload))
    signed.keep()
