"""Are these the weights that someone I trust attested? Steps 1 to 8 of docs/spec/verification.md.

A step either holds and is reported, or raises; where nothing was checked it is *skipped*. Nothing
here uses the clock or the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from provenance.envelope.bundle import Bundle
from provenance.envelope.dsse import Opened
from provenance.equality import declaration as declarations
from provenance.equality.declaration import Declaration
from provenance.errors import (
    SHOWN,
    ContentError,
    LogProofError,
    MalformedError,
    PolicyError,
    ProvenanceError,
    SubjectError,
    UsageError,
    count,
    cut,
    some_of,
)
from provenance.files.digest import SHA256
from provenance.files.manifest import Manifest
from provenance.files.walking import raise_it
from provenance.folder.claims import (
    check_beside,
    counted,
    folder_names,
    not_covered,
    read_beside,
    read_claims,
    require_model,
)
from provenance.keys import PublicKey
from provenance.statement.model_signature import ONE_FILE
from provenance.transparency import entry as log_entries
from provenance.transparency import rekor
from provenance.transparency.note import VerifierKey
from provenance.trust.contents import Found, Reading, Stated, check_files, hash_stated
from provenance.trust.lineage import Ancestor
from provenance.trust.opening import (
    Claim,
    KeyChange,
    Signed,
    Statements,
    as_older,
    key_changes,
    open_all,
    understand,
)
from provenance.trust.outcome import (
    Level,
    Word,
    check_level,
    first_good,
    levels_of,
    notes_on,
    outcome_detail,
)
from provenance.weights.names import opened_by

if TYPE_CHECKING:
    from provenance.envelope.bundle import Trusted

STEPS = (
    "parse",
    "signature",
    "statement",
    "subject",
    "manifest",
    "outcome",
    "equality declaration",
    "log proof",
    "verdict",
)

_WHOM = "say whom with --key, --certificate-chain or --identity, or in a policy with --trust"


class Step(msgspec.Struct, frozen=True):
    """One step of verification that held, or that there was nothing to do for.

    ``notes`` say what does not refuse the claim, but was not shown to hold either.
    """

    number: int
    name: str
    detail: str
    skipped: bool = False
    notes: tuple[str, ...] = ()


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader demands beyond a signature by a trusted key.

    ``require``: the least evidence level of the claim. ``name`` and ``root_digest`` (SHA-256 in
    hexadecimal) say which model is expected.
    """

    require: Level = "signed"
    name: str | None = None
    root_digest: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """Whether a rule of a trust policy, or a part of it, holds, and why."""

    rule: str
    why: str
    holds: bool = False


class Verified(msgspec.Struct, frozen=True):
    """A model whose every step held.

    ``claim`` is the first claim about these files whose training did not fail; None where only an
    OpenSSF model signature says anything. ``name`` is what its signer calls the model. ``manifest``
    are the files as they are. ``levels`` has one word for each trusted signer: of a claim about
    them the level of the first good one, else *signed*; and one for the signer of a verdict.
    ``not_covered`` is what lies there beside them, with numbers of files. ``warnings`` say what
    does not refuse the model and should be looked at. ``ancestors`` are what it was made from.
    ``claims`` and ``signatures`` are all about these files, failed trainings too; ``answers`` are
    those of a trust policy, if there is one; ``key_changes`` those by which it is signed by another
    key than at first.
    """

    root: Path
    name: str
    manifest: Manifest
    claim: Claim | None
    declaration: Declaration | None
    log_index: int | None
    levels: tuple[Word, ...]
    not_covered: Mapping[str, int]
    warnings: tuple[str, ...]
    steps: tuple[Step, ...]
    reading: Reading = Reading()
    ancestors: tuple[Ancestor, ...] = ()
    claims: tuple[Claim, ...] = ()
    signatures: tuple[Signed, ...] = ()
    answers: tuple[Answer, ...] | None = None
    key_changes: tuple[KeyChange, ...] = ()


def verify_model(  # noqa: PLR0913 - what is verified, against what, and two listeners
    root: Path,
    keys: Sequence[Trusted],
    *,
    claims: Path | None = None,
    log: VerifierKey | None = None,
    demands: Demands = Demands(),  # noqa: B008 - frozen
    reading: Reading = Reading(),  # noqa: B008 - frozen
    on_step: Callable[[Step], None] = lambda _: None,
    progress: Callable[[int], None] | None = None,
) -> Verified:
    """Return the model in the folder *root*, verified by *keys*; *on_step* hears each step.

    *claims* are read in place of those beside it. A step that does not hold is a RefusedError of
    its kind (errors.py); that something cannot be read or parsed is an UnreadableError or
    MalformedError.
    """
    if not keys:
        raise UsageError("nothing is trusted by default", hint=_WHOM)
    require_model(root)
    steps: list[Step] = []

    def held(detail: str, *, skipped: bool = False, notes: Iterable[str] = ()) -> None:
        steps.append(Step(len(steps) + 1, STEPS[len(steps)], detail, skipped, tuple(notes)))
        on_step(steps[-1])

    received = read_claims(claims) if claims else read_beside(root, reading.link_roots)
    sources = dict.fromkeys(where.rpartition(":")[0] or where for where, _ in received)
    held(f"{count(len(received), 'bundle')} in {' and '.join(sources)}")
    if reading.older_digests:
        received = [(where, as_older(item)) for where, item in received]
    doubts: list[ProvenanceError] = []
    trusted = open_all(received, keys, doubts.append if reading.separately else raise_it)
    held(_signature_detail(trusted, received), notes=_silent(trusted, keys))
    try:
        stated = understand(trusted, separately=reading.separately)
    except SubjectError:  # the statements are understood; what does not hold is the next step
        held(count(len(trusted), "statement"))
        raise
    found = {"training statement": stated.claims, "model signature": stated.signatures}
    held(" and ".join(count(len(items), noun) for noun, items in found.items() if items))
    held(_subject_detail(stated, demands, separately=reading.separately))
    contents = _check_contents(root, stated, reading, progress)
    manifest, matching, signatures = contents.manifest, contents.matching, contents.signatures
    signed = () if stated.by_sha256 else [root for _, root in stated.models]
    _check_root((*signed, manifest.root_digest), demands)
    about, trainings = ([each.training for each in them] for them in (matching, stated.claims))
    beside = check_beside(root, about, trainings, contents.uncovered, reading.link_roots)
    held(f"{count(len(manifest.entries), 'file')}, {count(manifest.size, 'byte')}{beside}")
    try:
        claim = first_good(matching, demands.name)
    except PolicyError as error:
        if not (reading.separately and signatures):
            raise
        claim = None  # a policy may ask for no more than a model signature
        doubts.append(error)
    said, by = (claim.training, claim) if claim else (None, signatures[-1])
    check_level(said, demands.require, by.where)
    seen = said is not None and said.run.provenance_outcome.exit_status is not None
    held(outcome_detail(said), skipped=not seen, notes=notes_on(claim, matching) if claim else ())
    declaration = declaration_of(() if reading.separately else matching, claim)
    declared = f"{declaration.name}, sha256 {declaration.digest[:16]}…" if declaration else ""
    held(declared or "none declared", skipped=declaration is None)
    index = check_log(claim, log) if log else None
    held(_log_detail(claim, log, index), skipped=log is None)
    name = said.model_name if said else signatures[-1].signature.model_name
    return Verified(
        root,
        name,
        manifest,
        claim,
        declaration,
        index,
        levels_of(matching, signatures, demands.name),
        contents.uncovered,
        (
            *_warnings(root, name, demands),
            *contents.unsigned,
            *cut([str(each) for each in doubts], SHOWN),
        ),
        tuple(steps),
        reading,
        claims=matching,
        signatures=signatures,
        key_changes=key_changes(received, keys, by.opened.payload),
    )


def verify_claims(path: Path, keys: Sequence[Trusted]) -> tuple[Claim, Declaration | None]:
    """Return the claim in the file *path*, and the equality that it declares, without any files.

    Every step but *manifest* and *log proof* held. Claims about several models are refused: which
    of them is meant, only the files tell.
    """
    if not keys:
        raise UsageError("nothing is trusted by default", hint=_WHOM)
    stated = understand(open_all(read_claims(path), keys))
    matching = stated.matching(stated.claims[0].training.manifest) if stated.claims else ()
    if len(matching) < len(stated.claims):
        hint = "name the folder of the one that you mean"
        raise PolicyError("claims about several models", where=str(path), hint=hint)
    claim = first_good(matching)
    if claim is None:
        raise PolicyError("says nothing of how the model was made", where=str(path))
    return claim, declaration_of(matching, claim)


def _files_of(root: Path, stated: Statements) -> Iterator[Stated]:
    """Yield the files that each statement names; a model signature counts beside no claim."""
    yield from map(claimed_files, stated.claims)
    yield from () if stated.claims else (_signed_files(root, it) for it in stated.signatures)


def claimed_files(claim: Claim) -> Stated:
    """Return the files that *claim* is about."""
    entries = claim.training.manifest.entries
    digests = {entry.name: entry.sha256 for entry in entries}
    return Stated(claim.where, digests, {entry.name: entry.size for entry in entries})


def _signed_files(root: Path, signed: Signed) -> Stated:
    """Return the files that were *signed*: a model that is one file has the name of *root*."""
    said = signed.signature
    if ONE_FILE in said.files:
        if root.is_dir():
            hint = f"name the file: {root}/{said.model_name}"
            what = "is the signature of one file, and this is a folder"
            raise ContentError(what, where=signed.where, hint=hint)
        files, sizes = {root.name: said.files[ONE_FILE]}, {root.name: said.sizes[ONE_FILE]}
        return Stated(signed.where, files, sizes, hashing=said.hashing)
    return Stated(signed.where, said.files, said.sizes, said.left_out, said.hashing)


class _Contents(NamedTuple):
    """The files in a folder, what lies beside them, and what is stated about them."""

    manifest: Manifest
    uncovered: dict[str, int]
    unsigned: tuple[str, ...]
    matching: tuple[Claim, ...]
    signatures: tuple[Signed, ...]


def _check_contents(
    root: Path, stated: Statements, reading: Reading, progress: Callable[[int], None] | None
) -> _Contents:
    """Step 5: what of *stated* is about the files in *root*."""
    try:
        named = list(_files_of(root, stated))
        names = {name for each in named for name in each.digests}
        uncovered = not_covered(root, names, link_roots=reading.link_roots)
        sharded = [it for it in stated.signatures if it.signature.hashing != SHA256]
        odd = [_signed_files(root, each) for each in sharded]
        found = hash_stated(root, named, reading, progress, odd)
        matching, signatures = _select(root, found, stated, separately=reading.separately)
    except ContentError:  # of the claims; a policy may ask for no more than a model signature
        if reading.separately and stated.claims and stated.signatures:
            with suppress(ContentError):
                alone = Statements((), stated.signatures)
                return _check_contents(root, alone, reading, progress)
        raise
    uncovered |= counted(found.left_out)
    unsigned = tuple(_unsigned(found.left_out, names))
    return _Contents(found.manifest, uncovered, unsigned, matching, signatures)


def _select(
    root: Path, found: Found, stated: Statements, *, separately: bool
) -> tuple[tuple[Claim, ...], tuple[Signed, ...]]:
    """Return the training claims and the model signatures that are about the files *found*."""
    matching = stated.matching(found.manifest)
    if stated.claims and not matching:
        check_files(root, found.digests[SHA256], claimed_files(stated.claims[-1]))
        raise ContentError("the files differ from the manifest", where=str(root))
    fitting, refusal = [], None
    for signed in stated.signatures:
        try:
            digests = found.digests.get(signed.signature.hashing, {})
            check_files(root, digests, _signed_files(root, signed))
            fitting.append(signed)
        except ContentError as error:
            refusal = refusal or error
    if refusal and not (separately and (matching or fitting)):
        raise refusal
    return matching, tuple(fitting)


def claim_that_counts(root: Path, manifest: Manifest, keys: Sequence[PublicKey]) -> Claim | None:
    """Return the claim beside *root* by which :func:`verify_model` would go; None: it refuses."""
    try:
        stated = understand(open_all(read_beside(root), keys))
        return first_good(stated.matching(manifest))
    except ProvenanceError:
        return None


def _warnings(root: Path, name: str, demands: Demands) -> Iterator[str]:
    known = folder_names(root)
    if name not in known and demands.name is None and demands.root_digest is None:
        kind = "file" if root.is_file() else "folder"
        what = f"the {kind} is called {known[0]}, and its files were signed as {name}"
        yield f"{what}: --name or --root-digest says which model is expected"


def _unsigned(left_out: Iterable[str], signed: Iterable[str]) -> Iterator[str]:
    beside = frozenset(left_out).union(signed)
    opened = {name: opened_by(name, beside) for name in sorted(left_out)}
    shown = [f"{name} ({loader} would open it)" for name, loader in opened.items() if loader]
    if shown:
        yield f"nobody signed {some_of(shown)}"


def declaration_of(matching: Sequence[Claim], claim: Claim | None) -> Declaration | None:
    """Step 7. Claims about the same files that declare different equalities are refused."""
    declared = claim.training.recipe.equality if claim else None
    if claim is None or declared is None:
        return None
    for other in matching:
        theirs = other.training.recipe.equality
        if theirs and declared.sha256 != theirs.sha256:
            both = f"{claim.where} and {other.where}"
            what = f"{both} declare different equalities for the same files"
            raise PolicyError(what, hint="remove the claim that came later")
    where = f"{claim.where}: equality"
    declaration = declarations.from_document(declared.declaration, where=where)
    if declaration.digest != declared.sha256:
        raise MalformedError("the declaration has another digest than stated", where=where)
    if declaration.name != declared.name or declaration.axes != claim.training.recipe.axes:
        raise MalformedError("name or axes differ from the declaration's own", where=where)
    return declaration


def check_log(
    claim: Claim | None,
    log: VerifierKey,
    check: Callable[[bytes], None] = lambda _: None,
) -> int:
    """Step 8. A claim can carry proofs of several logs; those of others prove nothing here.

    *check* raises where the checkpoint has not the cosignatures that it needs.
    """
    if claim is None:
        raise LogProofError("only training statements are logged, and there is none")
    opened = claim.opened
    body = rekor.format_body(claim.bundle.envelope.pae, opened.signature, opened.key)
    failures: list[MalformedError | LogProofError] = []
    for value in claim.bundle.log_entries:
        try:
            entry = log_entries.parse_entry(value, where=claim.where)
            if entry.log_id == log.log_id:
                log_entries.check_entry(entry, body=body, vkey=log)
                check(entry.proof.checkpoint)
                return entry.index
        except (MalformedError, LogProofError) as error:
            failures.append(error)
    if failures:
        raise failures[0].inside(claim.where) from failures[0]
    what = "the claim carries no proof of any log"
    hint = "ask for a published claim, or run 'provenance publish'"
    if claim.bundle.log_entries:
        what = f"the claim carries no proof of the log {log.name}, only of others"
        hint = "give the key of the log in which it was published"
    raise LogProofError(what, where=claim.where, hint=hint)


def _signature_detail(
    trusted: Sequence[tuple[str, Bundle, Opened]], received: Sequence[tuple[str, Bundle]]
) -> str:
    proofs = {opened.signer: opened.proof for _, _, opened in reversed(trusted)}
    ids = [f"{signer}, {proof}" if proof else signer for signer, proof in sorted(proofs.items())]
    ours = {where for where, _, _ in trusted}
    others = [where for where, _ in received if where not in ours]
    more = f"; {len(others)} by others, not counted: {some_of(others)}" if others else ""
    return f"{count(len(trusted), 'bundle')} signed by {', '.join(ids)}{more}"


def _silent(
    trusted: Sequence[tuple[str, Bundle, Opened]], keys: Sequence[Trusted]
) -> Iterator[str]:
    signers = {opened.key for _, _, opened in trusted}
    given = [key for key in keys if isinstance(key, PublicKey)]
    if silent := [key.key_id for key in given if key not in signers]:
        yield f"no bundle is signed by {some_of(silent)}"
    if len(given) < len(keys) and not any(opened.subject for _, _, opened in trusted):
        yield "no bundle is signed with a certificate"


def _subject_detail(stated: Statements, demands: Demands, *, separately: bool) -> str:
    """Step 4, what is expected: before any file is hashed."""
    alone = Statements((), stated.signatures if separately else ())
    names, roots = zip(*alone.models, *stated.models, strict=True)
    if demands.name not in (None, *names):
        called = some_of(list(dict.fromkeys(names)))
        raise PolicyError(f"is called {called}, and {demands.name} is expected")
    if stated.by_sha256:
        _check_root(roots, demands)
    return f"{names[-1]}, root sha256 {roots[-1][:16]}…"


def _check_root(roots: Sequence[str], demands: Demands) -> None:
    if demands.root_digest not in (None, *roots):
        expected = f"sha256:{demands.root_digest} is expected"
        raise PolicyError(f"the root digest is sha256:{roots[-1]}, and {expected}")


def _log_detail(claim: Claim | None, log: VerifierKey | None, index: int | None) -> str:
    if log is not None:
        return f"entry {index} of {log.name}, proven offline"
    held = len(claim.bundle.log_entries) if claim else 0
    carried = f"{count(held, 'log entry', 'log entries')} carried, " if held else ""
    return f"{carried}not asked for (--log)"
