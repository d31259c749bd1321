"""Signing with the library ``sigstore``: a program of its own that imports nothing of ours.

:mod:`~provenance.sigstore.signing` starts it and asks once, in JSON: a client's trust configuration
("" is the public Sigstore's, which is fetched), an identity token ("" is that of the hosted service
in which this runs) and a statement ("": nothing is signed). The answer has the bundle, or what
failed, and where. The library sets no time limits, and so the caller ends this process.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Generator
from logging.handlers import BufferingHandler
from typing import Any
from urllib.parse import urlsplit

from sigstore.dsse import Statement
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityToken, detect_credential
from sigstore.sign import SigningContext
from sigstore.verify import Verifier
from sigstore.verify.policy import UnsafeNoOp

MAX_ANSWER, MAX_REASON = 100_000, 600
"""Longest answer of a service that is looked at, and longest reason that is passed on."""


LOCAL = "localhost", "127.0.0.1", "::1"
"""Hosts to which a token may go unencrypted."""


def reason_of(error: BaseException | None) -> str:
    """Return what *error* says and what its causes do, with the answer of a service."""
    texts = []
    while error is not None:
        said = str(error).replace("\n", " ").strip()
        texts.append(f"{type(error).__name__}: {said}" if said else type(error).__name__)
        if (answer := getattr(error, "response", None)) is not None:
            texts.append(answer.text[:MAX_ANSWER])
        error = error.__cause__
    return "; ".join(texts)


def sign(request: dict[str, Any], found: dict[str, Any]) -> None:
    """Put into *found* the bundle that *request* asks for; ``at`` is what is being done."""
    warned = BufferingHandler(capacity=100)  # that an authority failed, the library only logs
    logging.getLogger("sigstore").addHandler(warned)
    found["at"] = "the identity"
    if not (raw := request["token"] or detect_credential()):
        found["at"] = "nobody"
        raise LookupError
    request["token"] = raw
    token = IdentityToken(raw)
    found["at"] = "the trust configuration"
    text = request["config"]
    config = ClientTrustConfig.from_json(text) if text else ClientTrustConfig.production()
    context, stampers = SigningContext.from_trust_config(config), config.signing_config.get_tsas()
    authority = urlsplit(config.signing_config.get_fulcio().url)  # the token goes nowhere else
    if authority.scheme != "https" and authority.hostname not in LOCAL:
        raise ValueError(f"the token would go to {authority.hostname} unencrypted, not by https")
    found["bundle"] = ""
    if not request["statement"]:
        return
    found["at"] = "the certificate"
    with context.signer(token) as signer:
        found["at"] = "the log"
        bundle = signer.sign_dsse(Statement(request["statement"].encode()))
    found["at"] = "the time-stamp authority"
    stamps = bundle.verification_material.timestamp_verification_data
    if len(stamps.rfc3161_timestamps if stamps else ()) < len(stampers):
        raise LookupError("; ".join(each.getMessage() for each in warned.buffer))
    found["at"] = "the check of the signature"
    Verifier(trusted_root=config.trusted_root).verify_dsse(bundle, UnsafeNoOp())
    found["bundle"] = bundle.to_json()


def main(_arguments: list[str]) -> Generator[list[bytes], bytes, None]:
    """Answer that the library is there, and then the one request."""
    request = json.loads((yield [b""]))
    found: dict[str, Any] = {}
    try:
        sign(request, found)
    except Exception as error:  # noqa: BLE001 - whatever the library says is why it failed
        why = reason_of(error).replace(request["token"] or "…", "…")
        # A service may answer with what it was sent, or a part of it.
        found["failed"] = re.sub(r"eyJ[\w.-]*", "…", why)[:MAX_REASON]
    yield [json.dumps(found).encode()]
