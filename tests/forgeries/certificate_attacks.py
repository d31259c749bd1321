"""Attacks on a model signature by a certificate; the victim trusts ``root.pem``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.sigstores import AUTHORITY, Issued, b64, bundle, issue, pae, pem_of, sign, usage
from tests.world import payload_of

if TYPE_CHECKING:
    from tests.forgeries.scene import Scene

PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2990, 1, 1, tzinfo=UTC)
CODE = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
EMAIL = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
SIGNS = (usage(digital_signature=True), True)
UNKNOWN = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)


def _issue(name: str, above: Issued | None, *extensions: Any, **more: Any) -> Issued:  # noqa: ANN401 - as issue has them
    return issue(name, above, *extensions, **{"begin": PAST, "end": FUTURE, **more})


@cache
def _root() -> Issued:
    return _issue("root", None, *AUTHORITY)


@cache
def _between() -> Issued:
    return _issue("between", _root(), *AUTHORITY)


def _leaf(above: Issued | None = None, *extensions: Any, **more: Any) -> Issued:  # noqa: ANN401
    return _issue("signer", above or _between(), *(extensions or (SIGNS, CODE)), **more)


def _keep(scene: Scene, *chain: Issued, key: Any = None) -> None:  # noqa: ANN401 - any private key
    """Sign by the first of *chain*, or by *key*, and keep it with the *chain*."""
    path = scene.root / "model.sig"
    payload = payload_of(path.read_bytes())
    signature = sign(key or chain[0].key, pae(payload))
    document = bundle(chain[0], payload, [], [], version="0.2", signature=signature)
    certificates = [{"rawBytes": b64(each.der)} for each in chain]
    document["verificationMaterial"] = {"x509CertificateChain": {"certificates": certificates}}
    path.write_text(json.dumps(document))
    for name, issued in (("root", _root()), ("between", _between())):
        (path.parents[1] / f"{name}.pem").write_bytes(pem_of("CERTIFICATE", issued.der))


def honest(scene: Scene) -> None:
    _keep(scene, _leaf(), _between())


def an_expired_certificate(scene: Scene) -> None:
    _keep(scene, _leaf(end=datetime(2021, 1, 1, tzinfo=UTC)), _between())


def a_certificate_that_is_not_yet_valid(scene: Scene) -> None:
    _keep(scene, _leaf(begin=datetime(2980, 1, 1, tzinfo=UTC)), _between())


def below_an_authority_that_expired(scene: Scene) -> None:
    old = _issue("old", _root(), *AUTHORITY, end=datetime(2021, 1, 1, tzinfo=UTC))
    _keep(scene, _leaf(old), old)


def for_something_else(scene: Scene) -> None:
    _keep(scene, _leaf(None, SIGNS, EMAIL), _between())


def not_for_signatures(scene: Scene) -> None:
    _keep(scene, _leaf(None, (usage(key_encipherment=True), True), CODE), _between())


def for_nothing_that_it_names(scene: Scene) -> None:
    _keep(scene, _issue("signer", _between()), _between())


def without_what_lies_between(scene: Scene) -> None:
    _keep(scene, _leaf())


def of_another_root_of_the_same_name(scene: Scene) -> None:
    _keep(scene, _leaf(_issue("root", None, *AUTHORITY)))


def a_root_that_it_brings(scene: Scene) -> None:
    own = _issue("own", None, *AUTHORITY)
    _keep(scene, _leaf(own), own)


def an_authority_of_the_name_of_another(scene: Scene) -> None:
    false = _issue("between", _issue("root", None, *AUTHORITY), *AUTHORITY)
    _keep(scene, _leaf(false), false)


def a_signer_that_poses_as_an_authority(scene: Scene) -> None:
    leaf = _issue("leaf", _between(), SIGNS, CODE)
    _keep(scene, _leaf(leaf), leaf, _between())


def an_authority_that_may_not_sign(scene: Scene) -> None:
    weak = _issue("weak", _root(), AUTHORITY[0], (usage(crl_sign=True), True))
    _keep(scene, _leaf(weak), weak)


def too_long_a_path(scene: Scene) -> None:
    basic = (x509.BasicConstraints(ca=True, path_length=0), True)
    short = _issue("short", _root(), basic, AUTHORITY[1])
    low = _issue("low", short, *AUTHORITY)
    _keep(scene, _leaf(low), low, short)


def what_nobody_knows(scene: Scene) -> None:
    _keep(scene, _leaf(None, SIGNS, CODE, UNKNOWN), _between())


def below_what_nobody_knows(scene: Scene) -> None:
    odd = _issue("odd", _root(), *AUTHORITY, UNKNOWN)
    _keep(scene, _leaf(odd), odd)


def signed_with_sha224(scene: Scene) -> None:
    _keep(scene, _leaf(algorithm=hashes.SHA224()), _between())


def below_a_short_rsa_key(scene: Scene) -> None:
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is to be refused
    small = _issue("small", _root(), *AUTHORITY, key=key)
    _keep(scene, _leaf(small), small)


def a_root_as_the_signer(scene: Scene) -> None:
    _keep(scene, _root())


def a_curve_that_is_not_on_the_list(scene: Scene) -> None:
    _keep(scene, _leaf(key=ec.generate_private_key(ec.SECP256K1())), _between())


def signed_by_another_key(scene: Scene) -> None:
    _keep(scene, _leaf(), _between(), key=_leaf().key)


def the_chain_begins_with_another(scene: Scene) -> None:
    _keep(scene, _leaf(), _leaf(), _between(), key=_leaf().key)
