"""Keys, signatures, and a log: ``keygen``, ``sign`` and ``publish``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from provenance.api import arguments
from provenance.api.arguments import (
    Password,
    PathLike,
    Progress,
    a_path,
    log_in,
    optional_path,
    private_key,
    public_keys,
    read_password,
    silent,
)
from provenance.api.weaknesses import weaknesses_of_files
from provenance.capture.secrecy.scan import live_secrets
from provenance.errors import UsageError
from provenance.files.manifest import Manifest
from provenance.files.names import MODEL_SIGNATURE, is_plain
from provenance.folder import attach as beside
from provenance.folder import claims
from provenance.folder.attach import Published
from provenance.folder.claims import require_model
from provenance.keys import ALGORITHMS, PrivateKey, PublicKey, generate
from provenance.keys import write_pair as write_key_pair
from provenance.sigstore.signing import Identity
from provenance.statement.model_signature import left_out
from provenance.transparency.note import format_vkey


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A new key: its algorithm, its id, and its two files."""

    algorithm: str
    key_id: str
    private: Path
    public: Path


@dataclass(frozen=True, slots=True)
class Signed:
    """A model's signature: the files that it covers, the signer's key id, and where it is.

    ``identity`` is whose it is, if nobody's key. ``not_covered`` lies in the folder and is not part
    of the model. ``warnings`` say what is wrong with its files, and who cannot check the signature.
    """

    manifest: Manifest
    key_id: str
    path: Path
    not_covered: Mapping[str, int]
    warnings: tuple[str, ...] = ()
    identity: str = ""


def keygen(path: PathLike, *, algorithm: str = ALGORITHMS[0], password: Password = None) -> KeyPair:
    """Make a key pair: the private key at *path* (mode 0600), the public one at ``path.pub``.

    *algorithm* is ``ecdsa-p256``, ``ed25519`` (which a log needs) or ``ml-dsa-44``, ``-65`` or
    ``-87``. Nothing is overwritten.
    """
    key = generate(algorithm)
    public = write_key_pair(key, a_path(path), read_password(password))
    return KeyPair(algorithm, key.public.key_id, Path(path), public)


def sign(  # noqa: PLR0913 - each option of the verb, by name
    model: PathLike,
    *,
    key: PathLike | PrivateKey | None = None,
    password: Password = None,
    identity_token: str | None = None,
    trust_config: PathLike | None = None,
    ignore_paths: Sequence[PathLike] = (),
    link_roots: Sequence[PathLike] = (),
    signature: PathLike | None = None,
    signing_certificate: PathLike | None = None,
    certificate_chain: Sequence[PathLike] = (),
    progress: Progress = silent,
) -> Signed:
    """Sign *model*, a folder or a file, in ``model.sig`` or ``FILE.sig``: an OpenSSF signature.

    It says which files these are, not how they were made. Without a *key* the identity signs that
    *identity_token* proves, else that of the hosted CI in which this runs (``sigstore``), by the
    services that the file *trust_config* names, else the public ones. A signature by another is not
    replaced (UsageError). *ignore_paths*, files and folders that are below *model*, are left out,
    which the signature says; what a loader opens cannot be. Links may lead to files below
    *link_roots*, and into known caches. The path *signature* is another place for it. With the file
    *signing_certificate* (PEM) and those of a *certificate_chain*, they say who signed.
    """
    folder, signer = Path(model), arguments.signer(key, password, identity_token, trust_config)
    if isinstance(signer, Identity):
        signer.check()
    signer = arguments.with_certificates(signer, signing_certificate, certificate_chain)
    ignored = [path.rstrip("/") for path in arguments.names_in(folder, ignore_paths)]
    roots, target = arguments.link_roots(link_roots), optional_path(signature)
    for path in ignored:
        if not is_plain(path):
            raise UsageError("is no path below the model's folder", where=path)
        own = target is not None and claims.name_in(folder, target) == path  # not there yet
        if not own and left_out([path]) and not os.path.lexists(folder / path):
            what, hint = "is not there to be left out", "mend its name, or leave out --ignore-paths"
            raise UsageError(what, where=str(folder / path), hint=hint)
    with progress("hashing") as advance:
        manifest, uncovered, public, identity = beside.sign(
            folder, signer, ignored=ignored, link_roots=roots, target=target, progress=advance
        )
    warnings = [*weaknesses_of_files(folder, manifest.entries, live_secrets(os.environ))]
    written = target or claims.beside(folder, MODEL_SIGNATURE)
    if not public.algorithm.startswith("ecdsa"):
        warnings.append(f"model_signing verifies no {public.algorithm} signatures")
    return Signed(manifest, public.key_id, written, uncovered, tuple(warnings), identity=identity)


@dataclass(frozen=True, slots=True)
class Resigned:
    """How many statements were signed again, the new key's id, and what was written.

    ``left`` of the old key's are not about the files that are here, or are of other kinds.
    """

    statements: int
    key_id: str
    written: tuple[str, ...]
    left: int = 0


def resign(  # noqa: PLR0913 - each option of the verb, by name
    model: PathLike,
    *,
    old_key: PathLike | PrivateKey,
    new_key: PathLike | PrivateKey,
    old_password: Password = None,
    new_password: Password = None,
    link_roots: Sequence[PathLike] = (),
    progress: Progress = silent,
) -> Resigned:
    """Sign again with *new_key* what *old_key* signed about the files of *model*.

    Both sign that one follows the other. What is said stays, word by word, and so do the claims of
    the old key; ``model.sig``, which has one signature, gets that of the new one. What is said of
    other files is left as it is. Links may lead to files below *link_roots*.
    """
    old, new = private_key(old_key, old_password), private_key(new_key, new_password)
    if old.public == new.public:
        raise UsageError("the old key and the new one are the same")
    roots = arguments.link_roots(link_roots)
    with progress("hashing") as advance:
        statements, left, written = beside.resign(a_path(model), old, new, roots, advance)
    return Resigned(statements, new.public.key_id, written, left)


@dataclass(frozen=True, slots=True)
class PublishedClaims:
    """The claims of a model in a log, the log's name, and its key (``name+hex+base64``)."""

    claims: tuple[Published, ...]
    log: str
    vkey: str


def publish(
    model: PathLike,
    *,
    log: PathLike,
    password: Password = None,
    keys: Sequence[PathLike | PublicKey] = (),
) -> PublishedClaims:
    """Put the claims beside *model* into the log in the folder *log*; keep the proofs with them.

    *model* may be the file of a verdict, too. *password* is that of the log's key. *keys* are those
    of claims that do not name their signer.
    """
    require_model(Path(model))
    target = log_in(log, password)
    published = beside.publish(Path(model), target, public_keys(keys))
    name = target.signer.verifier
    return PublishedClaims(published, name.name, format_vkey(name))
