"""Arguments of the verbs, as a person passes them, read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from msgspec import structs

from provenance.errors import ProvenanceError, UnreadableError, UsageError
from provenance.folder.claims import not_compared, not_covered, require_folder
from provenance.keys import PrivateKey, PublicKey, load_private, load_public
from provenance.keys.elsewhere import TEXTS, read_text, scheme_of
from provenance.keys.public import read_key_file

if TYPE_CHECKING:
    from provenance.envelope.bundle import Trusted
    from provenance.equality.declaration import Declaration
    from provenance.folder.attach import Log
    from provenance.keys.certificates import Authority
    from provenance.sigstore.keyless import Keyless
    from provenance.sigstore.signing import Identity
    from provenance.transparency.note import VerifierKey
    from provenance.weights.model import Model

T = TypeVar("T")
PathLike: TypeAlias = str | os.PathLike[str]
Password: TypeAlias = str | bytes | None
Texts: TypeAlias = str | Sequence[str] | None
Progress: TypeAlias = "Callable[[str], AbstractContextManager[Callable[[int], None] | None]]"
"""Called with what is being done; gives what is then called with the numbers of bytes done."""


def silent(_what: str) -> AbstractContextManager[None]:
    """Report no progress."""
    return nullcontext()


def check_word(word: PathLike) -> None:
    """Return if the system can be given *word*, a path or an argument."""
    try:
        fits = b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise UsageError("holds what no path or argument can hold", where=ascii(word))


def a_path(path: PathLike) -> Path:
    """Return *path*, if it can be one."""
    check_word(path)
    return Path(path)


def optional_path(path: PathLike | None) -> Path | None:
    """Return *path*, if there is one."""
    return None if path is None else a_path(path)


def several(values: Sequence[T], what: str) -> Sequence[T]:
    """Return *values*: a text is a sequence, too, of its letters, and never meant so."""
    if isinstance(values, str | bytes):
        raise UsageError(f"{what} are one text", where=ascii(values), hint="give a list")
    return values


def link_roots(folders: Sequence[PathLike]) -> tuple[Path, ...]:
    """Return the whole paths of *folders*, below which links may lead."""
    found = tuple(Path(os.path.realpath(a_path(each))) for each in several(folders, "link_roots"))
    for each in found:
        require_folder(each)
    return found


def names_in(model: Path, paths: Sequence[PathLike]) -> list[str]:
    """Return *paths* as names in the folder *model*: from here, if they lead there, or its own."""
    root = os.path.abspath(model)  # noqa: PTH100 - as it is written, without following links
    names = [os.path.relpath(a_path(each), root) for each in several(paths, "ignore_paths")]
    return [
        os.fspath(given) if name.startswith("..") else name
        for given, name in zip(paths, names, strict=True)
    ]


def open_models(paths: Sequence[PathLike], roots: Sequence[PathLike]) -> list[Model]:
    """Return the models at *paths*, which are folders, or each one file.

    Links in folders may lead to files below *roots*, and into the caches that are known.
    """
    from provenance.weights import model  # noqa: PLC0415 - needs numpy

    places = [a_path(each) for each in several(paths, "models")]
    for path in places:
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where it may not look
            raise UnreadableError("no such file or folder", where=str(path))
    if len({path.is_dir() for path in places}) > 1:
        raise UsageError(
            "a folder and a file cannot be compared",
            where=", ".join(map(str, places)),
            hint="name folders alone, or files alone",
        )
    linked, found = link_roots(roots), []
    for path in places:
        if not path.is_dir():
            found.append(model.model_of_file(path))
            continue
        others = not_compared(path, not_covered(path, link_roots=linked))
        found.append(replace(model.model_of_folder(path, link_roots=linked), not_compared=others))
    return found


def read_password(password: Password) -> bytes | None:
    """Return *password* in bytes."""
    return os.fsencode(password) if isinstance(password, str) else password


def private_key(key: PathLike | PrivateKey, password: Password) -> PrivateKey:
    """Return *key*, loaded if it is a file, or named as :mod:`~provenance.keys.elsewhere` says."""
    if isinstance(key, PrivateKey):
        return key
    return load_private(os.fspath(key), read_password(password))


def signer(
    key: PathLike | PrivateKey | None,
    password: Password,
    token: str | None,
    trust_config: PathLike | None,
) -> PrivateKey | Identity:
    """Return the private *key*; without one, whose identity *token* proves, else that of a CI.

    The token may be named as ``env:NAME`` or ``fd:N``, or be in ``SIGSTORE_IDENTITY_TOKEN``.
    """
    if key is not None:
        if token is not None or trust_config is not None:
            what, hint = "a key signs, or an identity", "leave out --key, or what is for the other"
            raise UsageError(what, hint=hint)
        return private_key(key, password)
    from provenance.sigstore.signing import (  # noqa: PLC0415 - rarely needed
        TOKEN_VARIABLE,
        Identity,
        read_config,
    )

    text = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
    text = os.fsdecode(read_text(text)) if scheme_of(text) in TEXTS else text
    if token is not None and not text.strip():  # never another one in its place
        raise UsageError("the identity token is empty")
    config = b"" if trust_config is None else read_config(a_path(trust_config))
    return Identity(text.strip(), config)


def with_certificates(
    key: PrivateKey | Identity, certificate: PathLike | None, chain: Sequence[PathLike]
) -> PrivateKey | Identity:
    """Return *key* with its owner's *certificate*, and the *chain* from there to a root (PEM)."""
    paths = [a_path(each) for each in several(chain, "certificate_chain")]
    if certificate is None:
        if paths:
            raise UsageError("a chain leads from a certificate", hint="--signing-certificate PEM")
        return key
    if not isinstance(key, PrivateKey):
        raise UsageError("an identity gets its certificate when it signs", hint="name its --key")
    from provenance.keys.certificates import chain_for  # noqa: PLC0415 - rarely needed

    pems = [(str(path), read_key_file(path)) for path in (a_path(certificate), *paths)]
    return structs.replace(key, chain=chain_for(key.public, pems))


def public_keys(keys: Sequence[PathLike | PublicKey]) -> tuple[PublicKey, ...]:
    """Return *keys*, each once, loaded if they are files."""
    keys = several(keys, "keys")
    loaded = (key if isinstance(key, PublicKey) else load_public(Path(key)) for key in keys)
    return tuple(dict.fromkeys(loaded))


def signers(
    keys: Sequence[PathLike | PublicKey],
    certificate_chain: Sequence[PathLike],
    identity: Texts,
    identity_provider: Texts,
    trust_config: PathLike | None,
) -> tuple[Trusted, ...]:
    """Return who is trusted to sign: by key, by certificate, by identity."""
    return (
        *public_keys(keys),
        *_authorities(certificate_chain),
        *_identities(paired(identity, identity_provider), trust_config),
    )


def in_options(error: ProvenanceError, of: str = "") -> ProvenanceError:
    """Return *error*; its hint names the options, *of* somebody, of a verb that has fewer."""
    if error.hint is not None:
        error.hint = _TRUSTING.sub(f"--{of}", _OF_VERIFY.sub("", error.hint))
    return error


_OF_VERIFY = re.compile(
    r"name the[a-z ]+ with --claims(?: or --signature, or|;) |, or in (?:the policy|a policy .*)$"
)
"""What only ``verify`` has an option for."""

_TRUSTING = re.compile(r"--(?=(key|certificate-chain|identity|trust-config)\b)")
"""How an option begins that says who is trusted."""


def _authorities(files: Sequence[PathLike]) -> tuple[Authority, ...]:
    """Return who is trusted by the certificates in *files* (PEM), as of now."""
    paths = [Path(each) for each in several(files, "certificate_chain")]
    if not paths:
        return ()
    from provenance.keys.certificates import parse_authority  # noqa: PLC0415 - rarely needed

    pems = [(str(path), read_key_file(path)) for path in paths]
    return (parse_authority(pems, datetime.now(UTC)),)


def paired(identity: Texts, provider: Texts) -> tuple[tuple[str, str], ...]:
    """Return each identity with its provider: those in the same place, or one for all."""
    given = (() if it is None else it for it in (identity, provider))
    names, providers = ([it] if isinstance(it, str) else [*it] for it in given)
    if len(providers) == 1 and names:
        providers *= len(names)
    if len(names) != len(providers) or not all((*names, *providers)):
        missing = "--identity NAME" if len(names) < len(providers) else "--identity-provider URL"
        what = "an identity counts by the word of its provider: both are needed"
        hint = f"add {missing}; one provider is for all, or each identity has its own, in order"
        raise UsageError(what, hint=hint)
    return tuple(zip(names, providers, strict=True))


def _identities(
    named: tuple[tuple[str, str], ...], trust_config: PathLike | None
) -> tuple[Keyless, ...]:
    """Return who is trusted by identity, or by nothing but a key that a log knows.

    Without the trusted root *trust_config*, it is the one that the package ``sigstore`` ships.
    """
    if not named and trust_config is None:
        return ()
    from provenance.sigstore import root  # noqa: PLC0415 - rarely needed
    from provenance.sigstore.keyless import Keyless  # noqa: PLC0415

    trusted = root.shipped() if trust_config is None else root.load(a_path(trust_config))
    return (Keyless(trusted, named),)


def declaration(equality: PathLike | Declaration) -> Declaration:
    """Return *equality*: a declaration, a built-in name, or a file."""
    from provenance.equality.declaration import Declaration, find  # noqa: PLC0415 - rarely needed

    return equality if isinstance(equality, Declaration) else find(equality)


def log_in(folder: PathLike, password: Password) -> Log:
    """Return the log in *folder*, with the key that signs it."""
    from provenance.folder.attach import Log  # noqa: PLC0415 - rarely needed
    from provenance.transparency.log import load_signer  # noqa: PLC0415

    return Log(Path(folder), load_signer(Path(folder), password=read_password(password)))


def log_key(log: PathLike | VerifierKey) -> VerifierKey:
    """Return *log*: a log's key, its text, or a file with it."""
    from provenance.transparency.log import find_vkey  # noqa: PLC0415 - rarely needed
    from provenance.transparency.note import VerifierKey  # noqa: PLC0415

    return log if isinstance(log, VerifierKey) else find_vkey(log)
