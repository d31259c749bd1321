"""A trusted root: whom a Sigstore's users trust, each with its time.

The file is ``trusted_root.json`` or a client's trust configuration around it (sigstore/
protobuf-specs, ``sigstore_trustroot.proto``). A key whose algorithm is none of ours is left out:
what it signed is by nobody known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from provenance.encoding import strict_base64, strict_json
from provenance.encoding.strict_base64 import Base64
from provenance.envelope.bundle import CertificateChain
from provenance.errors import MalformedError, UsageError
from provenance.files.reading import read_file
from provenance.keys import PublicKey, parse_spki
from provenance.transparency.entry import LogId

MAX_ROOT_BYTES = 2**20
"""Largest trusted root read, in bytes; that of the public Sigstore has 7 KiB."""

MEDIA_TYPE = re.compile(
    r"application/vnd\.dev\.sigstore\.trustedroot(\+json;version=0\.1|\.v0\.[12]\+json)"
)

CONFIG_MEDIA_TYPE = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"

_SHIPPED = "_store/https%3A%2F%2Ftuf-repo-cdn.sigstore.dev/trusted_root.json"

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Period(msgspec.Struct, frozen=True):
    """When something is trusted, both ends included."""

    start: Moment | None = None
    end: Moment | None = None

    def covers(self, at: datetime) -> bool:
        """Tell whether *at* is in it."""
        return (self.start is None or self.start <= at) and (self.end is None or at <= self.end)


class _Key(msgspec.Struct, frozen=True, rename="camel"):
    raw_bytes: Base64
    valid_for: Period = Period()


class _Log(msgspec.Struct, frozen=True, rename="camel"):
    public_key: _Key
    log_id: LogId
    hash_algorithm: str = "SHA2_256"
    base_url: str = ""


class Issuer(msgspec.Struct, frozen=True, rename="camel"):
    """An authority's certificates, the trusted one last, and when it counts."""

    cert_chain: CertificateChain
    valid_for: Period = Period()

    @property
    def chain(self) -> list[bytes]:
        """The certificates in DER."""
        return [strict_base64.parse(each.raw_bytes) for each in self.cert_chain.certificates]


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    tlogs: tuple[_Log, ...] = ()
    certificate_authorities: tuple[Issuer, ...] = ()
    ctlogs: tuple[_Log, ...] = ()
    timestamp_authorities: tuple[Issuer, ...] = ()


@dataclass(frozen=True, slots=True)
class Log:
    """A log, by its id (32 bytes), the key that signs for it, and when that counts."""

    name: str
    log_id: bytes
    key: PublicKey
    period: Period


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """Whom to trust: ``logs`` of signatures, ``ctlogs`` of certificates, and authorities.

    ``name`` says where it is from, if no user named its file.
    """

    logs: tuple[Log, ...]
    authorities: tuple[Issuer, ...]
    ctlogs: tuple[Log, ...]
    timestamps: tuple[Issuer, ...]
    name: str = ""


def load(path: Path) -> TrustedRoot:
    """Return the trusted root in the file *path*."""
    data = read_file(path, MAX_ROOT_BYTES)
    if data.startswith(b"-----BEGIN "):
        what = "is in PEM, and no trusted root of a Sigstore"
        hint = "a certificate authority of your own is for --certificate-chain"
        raise MalformedError(what, where=str(path), hint=hint)
    return parse(data, where=str(path))


def shipped() -> TrustedRoot:
    """Return the root of the public Sigstore in the installed package ``sigstore``."""
    from importlib import metadata, util  # noqa: PLC0415 - takes a while

    found = util.find_spec("sigstore")
    places = found.submodule_search_locations if found else None
    for place in places or ():
        root = load(Path(place) / _SHIPPED)
        starts = [log.period.start for log in root.logs]
        starts += [each.valid_for.start for each in (*root.authorities, *root.timestamps)]
        newest = max((start for start in starts if start), default=None)
        dated = f", whose newest part counts since {newest:%Y-%m-%d}" if newest else ""
        name = f"the public Sigstore's root in sigstore {metadata.version('sigstore')}{dated}"
        return replace(root, name=name)
    hint = "name its trusted root with --trust-config, or install sigstore, which ships one"
    raise UsageError("no Sigstore is trusted by default", hint=hint)


def parse(data: bytes, *, where: str) -> TrustedRoot:
    """Return the trusted root that *data* spells."""
    value = strict_json.parse(data, where=where, max_bytes=MAX_ROOT_BYTES)
    if isinstance(value, dict) and value.get("mediaType") == CONFIG_MEDIA_TYPE:
        value = value.get("trustedRoot")
    document = strict_json.convert(value, _Document, where=where, what="a trusted root")
    if not MEDIA_TYPE.fullmatch(document.media_type):
        what = f"not a trusted root: the media type is {document.media_type!r}"
        raise MalformedError(what, where=where)
    return TrustedRoot(
        tuple(_logs(document.tlogs, where)),
        document.certificate_authorities,
        tuple(_logs(document.ctlogs, where)),
        document.timestamp_authorities,
    )


def _logs(documents: Iterable[_Log], where: str) -> Iterator[Log]:
    for each in documents:
        raw = strict_base64.parse(each.public_key.raw_bytes, where=where)
        try:
            key = parse_spki(raw, where=where)
        except MalformedError:
            continue
        if each.hash_algorithm == "SHA2_256":
            log_id = strict_base64.parse(each.log_id.key_id, where=where)
            yield Log(each.base_url.partition("://")[2], log_id, key, each.public_key.valid_for)
