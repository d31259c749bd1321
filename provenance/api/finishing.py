"""From what was seen to a claim beside the model: at once, or by ``finish`` when something failed.

The steps after the command has ended are those of :mod:`provenance.capture.run_folder`, each
written down before the next. Whatever fails leaves the run's folder, and the error says how to go
on from there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

import msgspec

from provenance.api.arguments import (
    Password,
    PathLike,
    Progress,
    a_path,
    link_roots,
    log_in,
    several,
    signer,
    silent,
)
from provenance.api.weaknesses import weaknesses
from provenance.capture import made, process, recorder, run_folder
from provenance.capture.checkpoints import Watcher, read_chain
from provenance.capture.draft import After, Before, Recording, draft, with_end, with_model
from provenance.capture.made import Candidates, Looks, Made
from provenance.capture.process import CommandResult
from provenance.capture.remarks import Remark
from provenance.capture.run_folder import ENDED, MADE, SEEN, SIGNED, Plan, RunFolder, Seen
from provenance.capture.secrecy import leaks
from provenance.capture.secrecy.scan import LiveSecret, live_secrets
from provenance.capture.trace.supervisor import TRACE
from provenance.capture.trace.tracer import Trace
from provenance.envelope import bundle
from provenance.errors import (
    CommandError,
    NotMadeError,
    ProvenanceError,
    SecretError,
    UnavailableError,
    UnfinishedError,
    UsageError,
    some_of,
)
from provenance.files.manifest import Manifest, hash_folder
from provenance.files.names import CLAIMS, RESERVED
from provenance.folder import attach as beside
from provenance.folder.attach import Log, Published, SignedClaim, Signer
from provenance.folder.claims import model_name
from provenance.folder.link import check_step, make_link
from provenance.keys import PrivateKey
from provenance.statement import intoto, training
from provenance.statement.training import TrainingStatement
from provenance.weights import check_numpy


@dataclass(frozen=True, slots=True)
class Recorded:
    """A claim: what it states, and what was written beside the model (by a dry run, nothing).

    ``identity`` is whose it is, if nobody's key; then ``key_id`` is of the key that it had once.
    ``files`` are the byproducts by SHA-256. ``status`` is the exit status of a recorded command.
    ``warnings`` say what weakens the claim; ``remarks`` are those from before the run.
    ``not_covered`` lies in the folder and is not part of the model. ``others`` are the claims about
    other models of the same run.
    """

    statement: TrainingStatement
    files: Mapping[str, bytes]
    key_id: str
    status: int = 0
    written: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    warnings: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    not_covered: Mapping[str, int] = field(default_factory=dict)
    others: tuple[Recorded, ...] = ()
    identity: str = ""

    @property
    def manifest(self) -> Manifest:
        """The files of the model."""
        return self.statement.manifest

    def document(self) -> dict[str, Any]:
        """Return the in-toto Statement."""
        return dict(msgspec.to_builtins(training.to_statement(self.statement)))

    def after(self, said: tuple[Remark, ...]) -> Recorded:
        """Return this with what was *said* before the run."""
        return replace(self, remarks=said, warnings=(*map(str, said), *self.warnings))


class Given(TypedDict, total=False):
    """What a signer gives beside the key. The log is the folder of one to publish to at once.

    Links in folders may lead to files below ``link_roots``, and into the caches that are known.
    An in-toto link says that the run is the step ``link`` of a supply chain. With ``tensors``, the
    claim has those of the model by digest, and says which of its files are forms of others.
    """

    password: Password
    identity_token: str | None
    trust_config: PathLike | None
    log: PathLike | None
    log_password: Password
    allowed_secrets: Sequence[str]
    secret_variables: Sequence[str]
    link_roots: Sequence[PathLike]
    link: str | None
    tensors: bool
    progress: Progress


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who signs a claim, where it is published, and what must not be in it."""

    key: Signer
    log: Log | None
    environ: Mapping[str, str]
    allowed_secrets: frozenset[str]
    secret_variables: frozenset[str]
    link_roots: tuple[Path, ...]
    link: str
    tensors: bool
    progress: Progress

    @classmethod
    def of(cls, key: PathLike | PrivateKey | None, given: Given) -> Claimant:
        """Return the signer with *key*, or by an identity."""
        allowed, secret = given.get("allowed_secrets", ()), given.get("secret_variables", ())
        named = given.get("identity_token"), given.get("trust_config")
        by, step = signer(key, given.get("password"), *named), given.get("link")
        if isinstance(by, PrivateKey):
            step = None if step is None else check_step(step, by.public)
        elif step is not None or given.get("log") is not None:
            hint = "name a --key; what an identity signs is in the log of its Sigstore"
            raise UsageError("--link and --log are for what a key signs", hint=hint)
        if tensors := given.get("tensors", False):
            check_numpy()
        return cls(
            key=by,
            log=_log(given),
            environ=os.environ,
            allowed_secrets=frozenset(several(allowed, "allowed_secrets")),
            secret_variables=frozenset(several(secret, "secret_variables")),
            link_roots=link_roots(given.get("link_roots", ())),
            link=step or "",
            tensors=tensors,
            progress=given.get("progress", silent),
        )

    def about(self, recording: Recording, model: Made, base: Path | None) -> Recording:
        """Return *recording* about *model*, which was made from *base*."""
        if self.tensors:
            from provenance.capture.tensors import with_tensors  # noqa: PLC0415 - needs numpy

            with self.progress("hashing tensors") as advance:
                recording = with_tensors(recording, model, base, advance)
        return with_model(recording, model)

    def ready(self, recording: Recording) -> tuple[TrainingStatement, bytes]:
        """Return the statement with its signer, and its bytes, if nothing in them is secret."""
        statement = recording.statement
        if isinstance(self.key, PrivateKey):
            statement = training.name_signer(statement, self.key.public)
        named = Recording(statement, recording.files)
        return statement, leaks.refuse_secrets_in(named, self.secrets())

    def claim(self, model: Path, recording: Recording, kept: RunFolder | None = None) -> Recorded:
        """Sign *recording*, put it beside *model*, and publish it where asked.

        The signed claim is in the folder *kept* first: no other one is made of that run.
        """
        statement, payload = self.ready(recording)
        signed = beside.sign_claim(
            model, statement, payload, recording.files, self.key, self.link_roots
        )
        # Where something failed there is no link, which could not say so.
        if self.link and isinstance(self.key, PrivateKey) and signed.signature is not None:
            name, link = make_link(self.link, Recording(statement, recording.files), self.key)
            signed = msgspec.structs.replace(signed, files={**signed.files, name: link})
        if kept is not None:
            kept.keep(SIGNED, signed)
        return attach(model, signed, self.log, kept, self.link_roots, self.secrets())

    def secrets(self) -> tuple[LiveSecret, ...]:
        """Return the secrets that nothing published may hold."""
        return live_secrets(self.environ, allowed=self.allowed_secrets, named=self.secret_variables)


def _log(given: Given) -> Log | None:
    log = given.get("log")
    return None if log is None else log_in(log, given.get("log_password"))


def attach(
    model: Path,
    signed: SignedClaim,
    log: Log | None,
    kept: RunFolder | None,
    link_roots: tuple[Path, ...],
    secrets: tuple[LiveSecret, ...],
) -> Recorded:
    """Put the claim *signed* beside *model*, and into *log*; then the run's folder is removed."""
    item = bundle.parse(signed.claim)
    statement = training.from_statement(intoto.parse(item.envelope.payload))
    [key], who = beside.signed_by(item, beside.named_signer(item))
    attached = beside.attach(model, signed, log, link_roots)
    if kept is not None:
        kept.remove()
    return Recorded(
        statement,
        signed.files,
        key.key_id,
        written=attached.written,
        published=attached.published,
        warnings=tuple(
            weaknesses(model, statement, key, secrets, kept_signature=attached.kept_signature)
        ),
        not_covered=attached.not_covered,
        identity=who or "",
    )


@dataclass(frozen=True, slots=True)
class Part:
    """One model of a run: what is kept and was observed of it."""

    kept: RunFolder
    before: Before
    at: Candidates
    watcher: Watcher


def complete(
    claimant: Claimant, kept: RunFolder, parts: Sequence[Part], result: CommandResult
) -> Recorded:
    """Return the claims about the command that has just ended with *result*."""
    kept.ended(result)
    with _unfinished(kept, result.status) as options:
        with claimant.progress("hashing the model") as advance:
            looks = [made.look_after(part.at, advance) for part in parts]
        for part, look in zip(parts, looks, strict=True):
            part.kept.keep(MADE, look)
            part.watcher.end({name: it for n in look.folders for name, it in n.files.items()})
        left = [any(each.written for each in look.folders) or not look.problem for look in looks]
        if result.status and not any(left) and (problem := looks[0].problem) is not None:
            kept.remove()
            how = f"the command failed ({result.signal or f'status {result.status}'})"
            what = f"{how} and left nothing to attest: {problem.what}"
            raise CommandError(what, where=_shown_text(problem.where), status=result.status)
        with claimant.progress("hashing inputs again") as advance:
            before, after = recorder.look_after(
                parts[0].before,
                environ=claimant.environ,
                run_directory=kept.program,
                trace=kept.read(TRACE, Trace),
                progress=advance,
            )
        seen = [_keep_seen(claimant, part, before, after, result) for part in parts]
        claims = []
        for part, it, look, wrote in zip(parts, seen, looks, left, strict=True):
            if result.status and not wrote:  # it left nothing of this model
                part.kept.remove()
            else:
                claims.append(partial(_claim_now, claimant, part, it, look, options))
        recorded = _together(claims)
    return replace(recorded, status=result.status)


def _together(claims: Sequence[Callable[[], Recorded]]) -> Recorded:
    """Make each of the *claims* that can be made; return them, or raise the first error."""
    recorded, errors = [], []
    for claim in claims:
        try:
            recorded.append(claim())
        except ProvenanceError as error:
            errors.append(error)
    if errors:
        if recorded:
            made = some_of([path for each in recorded for path in each.written])
            errors[0].what += f"; of the other models was written {made}"
        raise errors[0]
    return replace(recorded[0], others=tuple(recorded[1:]))


def _keep_seen(
    claimant: Claimant, part: Part, before: Before, after: After, result: CommandResult
) -> Seen:
    """Return what was seen of one model's run, written down, with its secrets."""
    about = recorder.about_model(before, part.before.inputs.model, claimant.environ)
    after = replace(after, checkpoints=read_chain(part.kept.place))
    seen = Seen(draft(about, after, result), {})
    try:
        claimant.ready(seen.recording)
    except SecretError as error:
        seen = Seen(seen.recording, error.fields)
    part.kept.keep(SEEN, seen)
    return seen


def _claim_now(
    claimant: Claimant, part: Part, seen: Seen, looks: Looks, options: list[str]
) -> Recorded:
    model = _chosen(looks, options)
    model_name(model.folder)  # refuses a path that is not UTF-8
    folder = part.before.inputs.model if part.at.target else _shown(model.folder)
    try:
        about = claimant.about(seen.recording, model, part.before.inputs.base)
        return claimant.claim(folder, about, part.kept)
    except SecretError as error:
        part.kept.keep(SEEN, Seen(seen.recording, seen.secrets | error.fields))
        raise


def finish(
    run: PathLike,
    *,
    model: PathLike | None = None,
    key: PathLike | PrivateKey | None = None,
    redact: Sequence[str] = (),
    **given: Unpack[Given],
) -> Recorded:
    """Complete the claim about a *run*, which could not be made when its command ended.

    *run* is the run's folder or its name. Key, log and model are those that were named for the run,
    unless they are given. *redact* are fields of the statement whose values are left out.

    Raises:
        UnfinishedError: that failed again; the run is kept.
    """
    if unknown := given.keys() - Given.__annotations__.keys():
        raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")
    fields = tuple(several(redact, "redact"))
    with run_folder.reopen(os.fspath(run), os.environ) as kept:
        parts = kept.parts()
        for part in parts:
            part.plan()
        if model is not None and len(parts) > 1:
            raise UsageError("this run made several models, each in its own folder")
        result = kept.read(ENDED, CommandResult)
        if result is None and (running := kept.running()) is not None:
            what, hint = f"the command still runs (process {running.pid})", "wait for its end"
            raise UnavailableError(what, where=str(kept.path), hint=hint)
        with _unfinished(kept, result.status if result else 0) as options:
            options += [word for field in fields for word in ("--redact", field)]
            if model is not None:
                options += ["--model", os.fspath(model)]
            claims = [partial(_finish, part, model, key, fields, given, options) for part in parts]
            recorded = _together(claims)
        return replace(recorded, status=result.status if result else 0)


def _finish(
    kept: RunFolder,
    model: PathLike | None,
    key: PathLike | PrivateKey | None,
    fields: tuple[str, ...],
    given: Given,
    options: list[str],
) -> Recorded:
    """Return the claim about one model of a run; add to the *options* what it lacks."""
    plan = kept.plan()
    place = plan.model if model is None else Path(_here()) / a_path(model)
    if model is None and not place.is_dir():
        options += ["--model", "DIR"]
    log = plan.log if given.get("log") is None else given["log"]
    roots = given.get("link_roots") or plan.link_roots
    named: Given = {**given, "log": log, "link_roots": roots, "link": plan.link or None}
    named["tensors"] = given.get("tensors") or plan.tensors
    if key is None and plan.key is not None and not os.path.isfile(plan.key):  # noqa: PTH113 - never raises
        options += ["--key", "KEY"]
    signed = kept.read(SIGNED, SignedClaim)
    if signed is None or not _fits(signed, plan, place, named):
        if key is None and plan.keyless:
            named["trust_config"] = given.get("trust_config") or plan.trust_config
        elif key is None and given.get("identity_token") is None and (key := plan.key) is None:
            raise UsageError("the key of this run was no file", hint="name it with --key")
        return _claim_later(Claimant.of(key, named), kept, place, fields)
    if fields:
        raise UsageError("this run's claim is signed: nothing can be redacted")
    live, roots = live_secrets(os.environ), link_roots(named["link_roots"])
    return attach(_shown(place), signed, _log(named), kept, roots, live)


def _fits(signed: SignedClaim, plan: Plan, place: Path, given: Given) -> bool:
    """Tell whether the claim *signed* is about the files in *place*, or lies beside them already.

    If not, they are not what was signed, and nobody has that claim yet: it is made anew.
    """
    if beside.line_of_run(place, plan.recording.statement.run.metadata.invocation_id):
        return True
    statement = training.from_statement(intoto.parse(bundle.parse(signed.claim).envelope.payload))
    roots = link_roots(given["link_roots"])
    with given.get("progress", silent)("hashing the model") as advance:
        found = hash_folder(place, ignore=RESERVED, link_roots=roots, progress=advance)
    return found == statement.manifest


def _claim_later(
    claimant: Claimant, kept: RunFolder, place: Path, redact: Sequence[str]
) -> Recorded:
    seen = kept.read(SEEN, Seen)
    recording = _resumed(claimant, kept) if seen is None else seen.recording
    late = {"byproducts/tensors"}.intersection(redact)
    recording = leaks.redact(recording, [field for field in redact if field not in late])
    if seen is not None:
        secrets = {
            field: variable
            for field, variable in seen.secrets.items()
            if field not in redact and variable not in claimant.allowed_secrets
        }
        in_names = secrets.pop(leaks.MODEL, "")
        if secrets:
            what = f"held a secret when the run ended: {', '.join(secrets)}"
            raise SecretError(what, where="the statement", fields=secrets)
        _require_set({in_names} - {""}, claimant)
    looks = kept.read(MADE, Looks) or Looks(())
    if len(looks.folders) == 1:  # it is the model's, wherever that is now
        moved = msgspec.structs.replace(looks.folders[0], folder=os.path.realpath(place))
        looks = Looks((moved,), looks.problem)
    with claimant.progress("hashing the model") as advance:
        began, roots = kept.plan().began, claimant.link_roots
        model = made.look_again(looks, place, advance, began=began, link_roots=roots)
    model_name(model.folder)
    if (line := beside.line_of_run(place, recording.statement.run.metadata.invocation_id)) > 0:
        what = f"line {line} claims this run already, which is finished once"
        raise UsageError(what, where=str(_shown(place / CLAIMS)))
    recording = leaks.redact(claimant.about(recording, model, kept.plan().base), late)
    recorded = claimant.claim(_shown(place), recording, kept)
    names = model.manifest.by_name()
    for look in looks.folders:
        missing = sorted(look.files.keys() - names.keys())
        if missing and look.folder == str(model.folder):
            text = f"not there any more since the command ended: {some_of(missing)}"
            recorded = replace(recorded, warnings=(*recorded.warnings, text))
    return recorded


def _require_set(variables: Iterable[str], claimant: Claimant) -> None:
    """Return if the *variables* are there, whose values are to be searched for."""
    missing = sorted({*variables} - {*claimant.environ} - claimant.allowed_secrets)
    if missing:
        what = f"secrets of the run are not set, and must not be signed: {', '.join(missing)}"
        options = " ".join(f"--unsafe-allow-secret {name}" for name in missing)
        raise UsageError(what, hint=f"export them, or publish them: {options}")


def _resumed(claimant: Claimant, kept: RunFolder) -> Recording:
    """Return what is known of the run *kept* whose recorder did not look again after it."""
    plan = kept.plan()
    _require_set(plan.secrets, claimant)
    records, said = recorder.read_said(kept.program)
    trace = kept.read(TRACE, Trace)
    after = After(
        records,
        said,
        checkpoints=read_chain(kept.place),
        trace=trace.described(records) if trace else None,
    )
    return with_end(plan.recording, after, kept.read(ENDED, CommandResult), plan.started_on)


@contextlib.contextmanager
def _unfinished(kept: RunFolder, status: int) -> Iterator[list[str]]:
    """Say of every error how the claim is completed; *options* for that are added to the list."""
    options: list[str] = []
    try:
        with process.ended_as_interrupted():
            yield options
    except CommandError:
        raise
    except KeyboardInterrupt as error:
        error.add_note(f"the run is kept; to go on: {kept.command_to_finish(*options)}")
        raise
    except Exception as error:
        if not kept.path.exists():  # it is finished, or the training removed it
            raise
        what, where, first = f"a defect: {type(error).__name__}: {error}", None, ""
        if isinstance(error, ProvenanceError):
            what, where = error.what, _shown_text(error.where)
            first = f"{error.hint}; " if error.hint else ""
        if isinstance(error, SecretError):
            fields = [field for field in error.fields if field != leaks.MODEL]
            options += [word for field in fields for word in ("--redact", field)]
        command = kept.command_to_finish(*options)
        hint = f"{first}the run is kept in {kept.path}; to go on: {command}"
        raise UnfinishedError(
            what, where=where, hint=hint, status=status, run=str(kept.path)
        ) from error


def _chosen(looks: Looks, options: list[str]) -> Made:
    """Return the model of *looks*; add to *options* that its folder is to be named, if it is."""
    try:
        return made.choose(looks)
    except NotMadeError as error:
        if sum(look.written for look in looks.folders) == 1:
            raise
        options += ["--model", "DIR"]
        what = f"the command has ended and left nothing to attest: {error.what}"
        hint = error.hint or "--model names the folder that it fills"
        raise NotMadeError(what, where=error.where, hint=hint) from error


def _shown(path: Path) -> Path:
    """Return *path* as it is written in the current folder, if it is below that."""
    here = Path(_here())
    return path.relative_to(here) if path != here and path.is_relative_to(here) else path


def _shown_text(where: str | None) -> str | None:
    return where.removeprefix(f"{_here()}/") if where else None


def _here() -> str:
    """Return the current folder; "/" if it is gone: the run may remove it."""
    try:
        return os.getcwd()  # noqa: PTH109 - as it is put before a "/"
    except FileNotFoundError:
        return "/"
