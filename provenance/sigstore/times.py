"""When a signature was made, as time-stamp authorities of a trusted root say (RFC 3161)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from warnings import catch_warnings

from cryptography.x509.oid import ExtendedKeyUsageOID

from provenance.errors import SignatureError, one_line
from provenance.keys.certificates import Authority, load, may_issue
from provenance.sigstore.root import Issuer

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

_HASHES = {"2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2", "2.16.840.1.101.3.4.2.3"}
"""SHA-256, SHA-384 and SHA-512."""


def stamped(
    responses: Iterable[bytes], signature: bytes, issuers: Iterable[Issuer]
) -> Iterator[datetime | SignatureError]:
    """Yield for each of *responses* (DER) the time at which *signature* was there, or a refusal."""
    for der in responses:
        refusal = SignatureError("a timestamp by no authority of the trusted root")
        for issuer in issuers:
            try:
                yield _check(der, signature, issuer)
                break
            except SignatureError as error:
                refusal = error
        else:
            yield refusal


def _check(der: bytes, signature: bytes, issuer: Issuer) -> datetime:
    import rfc3161_client as rfc3161  # noqa: PLC0415 - takes a while, and few bundles need it

    first, *others = chain = [load(each) for each in issuer.chain]
    # A chain may begin with the authority's own certificate; else the response carries it.
    named = None if may_issue(first) else first
    *between, root = (named and others) or chain
    builder = rfc3161.VerifierBuilder(tsa_certificate=named, intermediates=between, roots=[root])
    try:
        with catch_warnings(action="error"):
            response = rfc3161.decode_timestamp_response(der)
            at = response.tst_info.gen_time.astimezone(UTC)
            hashed = {each.dotted_string for each in response.signed_data.digest_algorithms}
            builder.build().verify_message(response, signature)
            signer = issuer.chain[0] if named else _signer_of(response)
    except BaseException as error:
        # What Rust panics with is no Exception, and has no name to catch it by.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        why = str(error).partition(": ErrorStack")[0]  # then OpenSSL's own words
        what = f"a timestamp does not hold: {one_line(why)[:200]}"
        raise SignatureError(what) from error
    if not hashed <= _HASHES:
        raise SignatureError("a timestamp by a hash that is not accepted")
    Authority((root,), tuple(between), at, ExtendedKeyUsageOID.TIME_STAMPING).certify([signer])
    if not issuer.valid_for.covers(at):
        what = f"a timestamp of {at:%Y-%m-%d %H:%M:%S}, when its authority does not count"
        raise SignatureError(what)
    return at


def _signer_of(response: TimeStampResponse) -> bytes:
    """Return the certificate in *response* of who signed it."""
    [signer] = response.signed_data.signer_infos
    for der in response.signed_data.certificates:
        found = load(der)
        if (found.issuer, found.serial_number) == (signer.issuer, signer.serial_number):
            return der
    raise ValueError("the signer's certificate is missing")
