"""Signatures by an identity, without a key of one's own.

The library ``sigstore`` (an extra) makes a key, has a certificate authority certify it for the
holder of an identity token, signs, has time-stamp authorities and a log confirm it, and forgets the
key (ADR 0031). It runs in a process that is limited in time and memory; what it makes is checked as
``verify`` does before it is given on, and the token is nowhere but there.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from provenance.encoding import strict_json
from provenance.envelope import bundle as bundles
from provenance.errors import (
    MalformedError,
    SignatureError,
    UnavailableError,
    UnreadableError,
    UsageError,
    one_line,
)
from provenance.files.reading import read_file

TOKEN_VARIABLE: Final = "SIGSTORE_IDENTITY_TOKEN"  # noqa: S105 - a name
"""Where the command of ``sigstore`` looks for an identity token, too."""

SIGNING_VARIABLES: Final = (
    TOKEN_VARIABLE,
    "SIGSTORE_ID_TOKEN",  # GitLab
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",  # GitHub
    "ACTIONS_ID_TOKEN_REQUEST_URL",
)
"""What a program needs to sign as the identity that records it, and is kept from a training."""

_CHILD: Final = Path(__file__).with_name("signing_child.py")
_WHERE: Final = "signing without a key (--key)"
_LIMITS: Final = 30, 2**31
"""Seconds of processor time and bytes. That makes two minutes by the clock: a log answers when the
entry is in the tree, which may take 20 s."""


def read_config(path: Path) -> bytes:
    """Return the client's trust configuration in the file *path*."""
    from provenance.sigstore import root  # noqa: PLC0415 - rarely needed

    data, where = read_file(path, root.MAX_ROOT_BYTES), str(path)
    root.parse(data, where=where)
    if strict_json.parse(data)["mediaType"] != root.CONFIG_MEDIA_TYPE:
        hint = "a client's trust configuration has the signing configuration, too"
        raise UsageError("says whom to trust, not where to sign", where=where, hint=hint)
    return data


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signs by an identity *token*, else by the one of the hosted service where this runs.

    *config* is a client's trust configuration: which services, and whom they are trusted to be;
    without one, the public Sigstore's.
    """

    token: str = field(default="", repr=False)
    config: bytes = field(default=b"", repr=False)

    def check(self) -> None:
        """Return if there is an identity that can sign, as far as nothing is asked for it."""
        self._ask("")

    def sign(self, payload: bytes) -> bytes:
        """Return a bundle, in JCS, around *payload*, the bytes of a statement."""
        return self._checked(self._ask(payload.decode()))

    def _ask(self, statement: str) -> str:
        from provenance.weights.isolated import Isolated, Limits  # noqa: PLC0415 - rarely needed

        limits = Limits(*_LIMITS)
        request = {"config": self.config.decode(), "token": self.token, "statement": statement}
        needs = "sigstore", "sigstore"
        try:
            with closing(Isolated(_CHILD, [], limits=limits, where=_WHERE, needs=needs)) as child:
                child.answer()
                found: dict[str, Any] = json.loads(child.answer(json.dumps(request).encode()))
        except (MalformedError, UnreadableError) as error:  # its reasons are those of a reader
            raise UnavailableError(error.what, where=_WHERE) from error
        if "failed" not in found:
            return str(found["bundle"])
        what, way_out = one_line(found["failed"]), "--key KEY, or --identity-token TOKEN"
        if found["at"] == "nobody":
            raise UsageError("no key is named, and no identity is found here", hint=way_out)
        denied = "GitHubOidcPermission" in what
        hint = "give the job 'permissions: id-token: write', or name a --key" if denied else None
        raise UnavailableError(what, where=f"{_WHERE}: {found['at']}", hint=hint)

    def _checked(self, made: str) -> bytes:
        from provenance.sigstore import certificate, root, times  # noqa: PLC0415 - rarely needed
        from provenance.sigstore.keyless import Keyless, stamps_of  # noqa: PLC0415

        try:
            item = bundles.parse(strict_json.format(strict_json.parse(made.encode())))
            leaf = certificate.parse(item.chain[0])
            if self.config:
                trusted = root.parse(self.config, where=_WHERE)
                name = next(iter(leaf.identities), "")
                Keyless(trusted, ((name, leaf.provider),)).open(item)
                stamps = stamps_of(item.document.verification_material)
                for each in times.stamped(stamps, item.envelope.sig, trusted.timestamps):
                    if isinstance(each, SignatureError):  # to a reader it counts as absent
                        raise each
        except (MalformedError, SignatureError) as error:
            what = f"what the Sigstore made does not hold: {error.what}"
            raise UnavailableError(what, where=_WHERE) from error
        return item.raw
