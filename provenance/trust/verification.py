"""Are these the weights that someone I trust attested? The numbered steps.

1. *parse*: the claims are bundles, each with one signed envelope.
2. *signature*: a given key signed at least one; where a claim names a given key, that key's
   signature holds. Claims by other keys do not count.
3. *statement*: each claim of a given key is a statement this version understands; an unknown
   external parameter is refused.
4. *subject*: its subject is the root digest of the manifest it carries.
5. *manifest*: the files are those of the manifest: none changed, missing, or extra. Of several
   claims, those about these files count.
6. *outcome*: the command that made them did not fail, and no input changed meanwhile (files that
   were only added to one are shown); the first claim for which this holds is *the* claim. Its
   evidence level (:mod:`~provenance.trust.outcome`) is at least the one that is required.
7. *equality declaration*: it has the digest that the statement gives, and can be parsed; no
   other claim about these files declares another one.
8. *log proof*: if a log's key is given, the claim is in that log.

A step either holds and is reported, or raises. Nothing here uses the clock or the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from provenance.envelope import bundle as bundles
from provenance.equality import declaration as declarations
from provenance.errors import (
    ContentError,
    LogProofError,
    MalformedError,
    PolicyError,
    ProvenanceError,
    SignatureError,
    SubjectError,
    UsageError,
    count,
)
from provenance.files.manifest import Manifest, hash_folder
from provenance.files.names import MODEL_SIGNATURE, RESERVED
from provenance.folder.claims import (
    check_beside,
    not_covered,
    read_beside,
    read_claims,
    require_folder,
)
from provenance.statement import intoto, model_signature, training, uris
from provenance.transparency import entry as log_entries
from provenance.transparency import rekor
from provenance.trust.contents import check_files, check_sizes
from provenance.trust.outcome import (
    Level,
    check_level,
    failure_of,
    notes_of,
    outcome_detail,
)

if TYPE_CHECKING:
    from provenance.envelope.bundle import Bundle
    from provenance.envelope.dsse import Opened
    from provenance.equality.declaration import Declaration
    from provenance.keys import PublicKey
    from provenance.statement.model_signature import ModelSignature
    from provenance.statement.training import TrainingStatement
    from provenance.transparency.note import VerifierKey

STEPS = (
    "parse",
    "signature",
    "statement",
    "subject",
    "manifest",
    "outcome",
    "equality declaration",
    "log proof",
)


class Step(msgspec.Struct, frozen=True):
    """One step of verification that held, or that there was nothing to do for.

    ``notes`` say what does not refuse the claim, but was not shown to hold either.
    """

    number: int
    name: str
    detail: str
    skipped: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A training statement that a given key signed."""

    where: str
    training: TrainingStatement
    opened: Opened
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Verified:
    """A model whose every step held.

    ``claim`` is the first claim about these files whose training did not fail; None where only an
    OpenSSF model signature says anything. ``manifest`` are the files as they are. ``levels`` has
    for each trusted signer of a claim about them, by key id, the level of its first good claim.
    ``not_covered`` is what lies there beside them, with numbers of files.
    """

    root: Path
    manifest: Manifest
    claim: Claim | None
    declaration: Declaration | None
    signature: ModelSignature | None
    log_index: int | None
    levels: Mapping[str, Level]
    steps: tuple[Step, ...]
    not_covered: Mapping[str, int]

    @property
    def level(self) -> Level:
        """The evidence level of what was verified."""
        return self.claim.training.level if self.claim else "signed"


@dataclass(frozen=True, slots=True)
class Request:
    """What to verify: the folder, the keys, and optionally claims that are not beside it.

    A claim of a lower level than *require* is refused.
    """

    root: Path
    keys: tuple[PublicKey, ...]
    claims: Path | None = None
    log: VerifierKey | None = None
    require: Level = "signed"


@dataclass(frozen=True, slots=True)
class _Opened:
    """The statements of the given keys."""

    trainings: tuple[Claim, ...]
    signatures: tuple[ModelSignature, ...]


def verify_model(
    request: Request,
    *,
    on_step: Callable[[Step], None] = lambda _: None,
    progress: Callable[[int], None] | None = None,
) -> Verified:
    """Return what *request* asks for, verified; *on_step* is called with each step that held.

    A step that does not hold is a RefusedError of its kind (errors.py); that something cannot be
    read or parsed is an UnreadableError or MalformedError.
    """
    if not request.keys:
        raise UsageError("nothing is trusted by default", hint="name a public key with --key")
    require_folder(request.root)
    steps: list[Step] = []

    def held(detail: str, *, skipped: bool = False, notes: Iterable[str] = ()) -> None:
        steps.append(Step(len(steps) + 1, STEPS[len(steps)], detail, skipped, tuple(notes)))
        on_step(steps[-1])

    received = read_claims(request.claims) if request.claims else read_beside(request.root)
    held(f"{count(len(received), 'bundle')} in {_sources(received)}")
    trusted = _open_all(received, request.keys)
    held(_signature_detail(trusted, len(received)))
    try:
        opened = _understand(trusted)
    except SubjectError:  # the statements are understood; what does not hold is the next step
        held(count(len(trusted), "statement"))
        raise
    found = {"training statement": opened.trainings, "model signature": opened.signatures}
    held(" and ".join(count(len(items), noun) for noun, items in found.items() if items))
    held(_subject_detail(opened))
    stated = _stated_sizes(opened)
    check_sizes(request.root, stated)
    uncovered = not_covered(request.root, {name for _, names in stated for name in names})
    manifest = hash_folder(request.root, ignore=RESERVED, progress=progress)
    matching, signature = _select(request.root, manifest, opened)
    others = [each.training for each in opened.trainings]
    left_out = check_beside(request.root, [each.training for each in matching], others, uncovered)
    held(f"{count(len(manifest.entries), 'file')}, {manifest.size:,} bytes{left_out}")
    claim = _first_good(matching)
    training_of = claim.training if claim else None
    check_level(training_of, request.require, claim.where if claim else MODEL_SIGNATURE)
    held(outcome_detail(training_of), notes=_notes(claim, matching) if claim else ())
    declaration = _declaration(matching, claim)
    declared = f"{declaration.name}, sha256 {declaration.digest[:16]}…" if declaration else ""
    held(declared or "none declared", skipped=declaration is None)
    index = _check_log(claim, request.log) if request.log else None
    held(_log_detail(claim, request.log, index), skipped=request.log is None)
    return Verified(
        request.root,
        manifest,
        claim,
        declaration,
        signature,
        index,
        _levels(matching),
        tuple(steps),
        uncovered,
    )


def verify_claims(path: Path, keys: Sequence[PublicKey]) -> tuple[Claim, Declaration | None]:
    """Return the claim in the file *path*, and the equality that it declares, without any files.

    Every step but *manifest* and *log proof* held. Claims about several models are refused: which
    of them is meant, only the files tell.
    """
    if not keys:
        raise UsageError("nothing is trusted by default", hint="name a public key")
    trainings = _understand(_open_all(read_claims(path), keys)).trainings
    if any(claim.training.manifest != trainings[0].training.manifest for claim in trainings):
        hint = "name the folder of the one that you mean"
        raise PolicyError("claims about several models", where=str(path), hint=hint)
    claim = _first_good(trainings)
    if claim is None:
        raise PolicyError("says nothing of how the model was made", where=str(path))
    return claim, _declaration(trainings, claim)


def _open_all(
    received: Sequence[tuple[str, Bundle]], keys: Sequence[PublicKey]
) -> list[tuple[str, Bundle, Opened]]:
    """Step 2."""
    known = {name for key in keys for name in (key.key_id, key.pem_digest)}
    trusted = []
    refusal: SignatureError | None = None
    for where, item in received:
        try:
            trusted.append((where, item, bundles.open_bundle(item, keys)))
        except SignatureError as error:
            hints = {item.hint, *(signature.keyid for signature in item.envelope.signatures)}
            if hints & known:
                what = (
                    "the signature does not fit: the claim was changed after it was signed,"
                    " or another key signed it in this one's name"
                )
                raise SignatureError(what, where=where) from error
            refusal = refusal or SignatureError(error.what, where=where, hint=error.hint)
    if not trusted:
        raise refusal or SignatureError("there is nothing signed")
    return trusted


def _understand(trusted: Sequence[tuple[str, Bundle, Opened]]) -> _Opened:
    """Return what was signed, parsed: steps 3 and 4."""
    trainings, signatures = [], []
    for where, item, opened in trusted:
        statement = intoto.from_opened(opened, where=where)
        if statement.predicate_type == uris.SLSA_PROVENANCE:
            parsed = training.from_statement(statement, where=where)
            trainings.append(Claim(where, parsed, opened, item))
        elif statement.predicate_type == uris.MODEL_SIGNATURE:
            signatures.append(model_signature.from_statement(statement, where=where))
    if not trainings and not signatures:
        raise PolicyError("the given keys signed only statements of other kinds")
    return _Opened(tuple(trainings), tuple(signatures))


def _stated_sizes(opened: _Opened) -> list[tuple[str, dict[str, int | None]]]:
    """Return the sizes of the files that each statement names; a model signature gives none."""
    if opened.trainings:
        return [
            (claim.where, {entry.name: entry.size for entry in claim.training.manifest.entries})
            for claim in opened.trainings
        ]
    return [(MODEL_SIGNATURE, dict.fromkeys(each.files)) for each in opened.signatures]


def _select(
    root: Path, manifest: Manifest, opened: _Opened
) -> tuple[tuple[Claim, ...], ModelSignature | None]:
    """Step 5: the training claims and the model signature that are about these files."""
    matching = tuple(c for c in opened.trainings if c.training.manifest == manifest)
    if opened.trainings and not matching:
        last = opened.trainings[-1]
        stated = {entry.name: entry.sha256 for entry in last.training.manifest.entries}
        check_files(root, manifest, stated, last.where)
        raise ContentError("the files differ from the manifest", where=str(root))
    signature = None
    for signature in opened.signatures:
        check_files(root, manifest, signature.files, MODEL_SIGNATURE)
    return matching, signature


def claim_that_counts(root: Path, manifest: Manifest, keys: Sequence[PublicKey]) -> Claim | None:
    """Return the claim beside *root* by which :func:`verify_model` would go; None: it refuses."""
    try:
        opened = _understand(_open_all(read_beside(root), keys))
        return _first_good([c for c in opened.trainings if c.training.manifest == manifest])
    except ProvenanceError:
        return None


def _first_good(matching: Sequence[Claim]) -> Claim | None:
    """Step 6: the first claim about these files whose training did not fail.

    The first, so that nobody who can add a claim can replace an equality that was declared earlier.
    """
    for claim in matching:
        if failure_of(claim.training) is None:
            return claim
    if matching:
        raise PolicyError(failure_of(matching[0].training) or "", where=matching[0].where)
    return None


def _levels(matching: Sequence[Claim]) -> dict[str, Level]:
    """Return the level of each signer's first good claim, by key id."""
    found: dict[str, Level] = {}
    for claim in matching:
        if failure_of(claim.training) is None:
            found.setdefault(claim.opened.key.key_id, claim.training.level)
    return found


def _notes(claim: Claim, matching: Sequence[Claim]) -> Iterator[str]:
    yield from notes_of(claim.training)
    for later in matching[matching.index(claim) + 1 :]:
        if failure := failure_of(later.training):
            yield f"a later claim about these files does not count, {later.where}: {failure}"
            return


def _declaration(matching: Sequence[Claim], claim: Claim | None) -> Declaration | None:
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


def _check_log(claim: Claim | None, log: VerifierKey) -> int:
    """Step 8. A claim can carry proofs of several logs; those of others prove nothing here."""
    if claim is None:
        raise LogProofError("only training statements are logged, and there is none")
    opened = claim.opened
    body = rekor.format_body(claim.bundle.envelope.pae, opened.signature, opened.key)
    failures: list[MalformedError | LogProofError] = []
    for value in claim.bundle.log_entries:
        try:
            entry = log_entries.parse_entry(value, where=claim.where)
            if entry.log_id == log.log_id:
                return log_entries.check_entry(entry, body=body, vkey=log).index
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


def _sources(received: Sequence[tuple[str, Bundle]]) -> str:
    names = dict.fromkeys(where.rpartition(":")[0] or where for where, _ in received)
    return " and ".join(names)


def _signature_detail(trusted: Sequence[tuple[str, Bundle, Opened]], received: int) -> str:
    ids = sorted({opened.key.key_id for _, _, opened in trusted})
    others = received - len(trusted)
    more = f"; {count(others, 'claim')} by other keys, not counted" if others else ""
    return f"{count(len(trusted), 'bundle')} signed by {', '.join(ids)}{more}"


def _subject_detail(opened: _Opened) -> str:
    if opened.trainings:
        training = opened.trainings[-1].training
        name, root = training.model_name, training.manifest.root_digest
    else:
        name, root = opened.signatures[-1].model_name, opened.signatures[-1].root_digest
    return f"{name}, root sha256 {root[:16]}…"


def _log_detail(claim: Claim | None, log: VerifierKey | None, index: int | None) -> str:
    if log is not None:
        return f"entry {index} of {log.name}, proven offline"
    held = len(claim.bundle.log_entries) if claim else 0
    carried = f"{count(held, 'log entry', 'log entries')} carried, " if held else ""
    return f"{carried}not asked for (--log)"
