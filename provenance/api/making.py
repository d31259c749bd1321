"""Stating how a model was made: ``record`` and ``attest``."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from provenance.api.arguments import (
    Password,
    PathLike,
    Progress,
    a_path,
    check_word,
    declaration,
    log_in,
    optional_path,
    private_key,
    several,
    silent,
)
from provenance.capture import made, process, recorder, records, remarks
from provenance.capture.draft import Recording, with_model
from provenance.capture.inputs import Inputs
from provenance.errors import (
    CommandError,
    MalformedError,
    PolicyError,
    ProvenanceError,
    UnavailableError,
    UnreadableError,
    UsageError,
    count,
    reason,
)
from provenance.files.names import CLAIMS, MODEL_SIGNATURE
from provenance.folder import attach as beside
from provenance.folder.claims import model_name, require_folder
from provenance.keys import PrivateKey
from provenance.statement import intoto, training
from provenance.statement.training import DeclaredEquality, TrainingStatement, changed_text
from provenance.weights import check_numpy

if TYPE_CHECKING:
    from typing import Unpack

    from provenance.capture.draft import Before
    from provenance.capture.made import Candidates
    from provenance.capture.process import CommandResult
    from provenance.capture.remarks import Remark
    from provenance.equality.declaration import Declaration
    from provenance.files.manifest import Manifest
    from provenance.folder.attach import Log, Published


DEFAULT_EQUALITY = "bytes"


class Stated(TypedDict, total=False):
    """What a trainer states in :func:`record` and :func:`attest`.

    ``data`` are files or folders, with roles (``{"train": "data.csv"}``) or without; ``seeds`` are
    integers by the names of their generators, or a single one. ``secret_variables`` are environment
    variables that are secret and kept from the training; ``allowed_secrets``, those whose values
    may be published. The claim is published at once to the log in the folder ``log``. Without an
    ``equality``, ``bytes`` is declared. ``on_warning`` is told what weakens the claim before the
    command starts; ``strict`` refuses all of it but the default equality.
    """

    password: Password
    data: Mapping[str, PathLike] | Sequence[PathLike | tuple[str, PathLike]]
    config: Sequence[PathLike]
    base_model: PathLike | None
    equality: PathLike | Declaration | None
    seeds: Mapping[str, int | str] | int
    log: PathLike | None
    log_password: Password
    allowed_secrets: Sequence[str]
    secret_variables: Sequence[str]
    dry_run: bool
    strict: bool
    on_warning: Callable[[Remark], None]
    progress: Progress


@dataclass(frozen=True, slots=True)
class Recorded:
    """A claim: what it states, and what was written beside the model (by a dry run, nothing).

    ``files`` are the byproducts by SHA-256. ``status`` is the exit status of a recorded command.
    ``warnings`` say what weakens the claim; ``remarks`` are those from before the run.
    """

    statement: TrainingStatement
    files: Mapping[str, bytes]
    key_id: str
    status: int = 0
    written: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    warnings: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def manifest(self) -> Manifest:
        """The files of the model."""
        return self.statement.manifest

    def document(self) -> dict[str, Any]:
        """Return the in-toto Statement."""
        return intoto.to_document(training.to_statement(self.statement))

    def after(self, said: tuple[Remark, ...]) -> Recorded:
        """Return this with what was *said* before the run."""
        return replace(self, remarks=said, warnings=(*map(str, said), *self.warnings))


def record(
    command: Sequence[str],
    *,
    model: PathLike,
    key: PathLike | PrivateKey,
    **stated: Unpack[Stated],
) -> Recorded:
    """Run *command*, which trains a model into the folder *model*, and sign how it was made.

    Raises:
        CommandError: it did not start, or failed and left no model; ``status`` is its exit status.
    """
    if isinstance(command, str):
        raise UsageError("the command is one text", hint="give its words: shlex.split(command)")
    if not command:
        raise UsageError("there is no command")
    for word in command:
        check_word(word)
    making = _Making.of(model, key, stated)
    before = making.observe(tuple(command), str(uuid.uuid4()))
    said = making.remark(before)
    if making.inputs.dry_run:
        return making.planned(recorder.plan(before)).after(said)
    candidates = making.look_before()
    with _run_directory() as directory:
        result = process.run(
            command,
            folder=making.inputs.working_folder,
            environ=recorder.listen(
                before, directory, making.inputs.without_secrets(making.environ)
            ),
            clock=lambda: datetime.now(UTC),
            run_directory=directory,
        )
        status = result.status
        if not result.started:
            name, hint = shlex.quote(command[0]), _how_to_start(command[0])
            raise CommandError(result.problem, where=name, hint=hint, status=status)
        try:
            recording = making.observe_after(before, result, directory)
            with making.progress("hashing the model") as advance:
                found = made.choose(made.look_after(candidates, advance))
        except (UnreadableError, MalformedError) as error:
            if status == 0:
                what = f"the command ended well, but left nothing to attest: {error.what}"
                hint = error.hint or "--model names the folder that it fills"
                raise UnreadableError(what, where=error.where, hint=hint) from error
            how = f"the command failed ({result.signal or f'status {status}'})"
            what = f"{how} and left nothing to attest: {error}"
            raise CommandError(what, status=status) from error
        if not candidates.target:  # a pattern: now it is known which folder it means
            folder = Path(os.path.relpath(found.folder))
            making = replace(making, inputs=replace(making.inputs, model=folder))
        recording = with_model(recording, found)
        return replace(making.attach(recording), status=status).after(said)


def _how_to_start(word: str) -> str | None:
    """Return what a user who gave *word* as the program may have meant."""
    if " " in word.strip():
        return f"leave out the quotes around the command: -- {word}"
    if word.endswith(".py"):
        return f"name the interpreter: -- python3 {word}"
    return None


def attest(model: PathLike, *, key: PathLike | PrivateKey, **stated: Unpack[Stated]) -> Recorded:
    """Sign how the model in the folder *model* was made, as the caller states it.

    Nothing is run: the statement says that the run was not observed. Code and machine are recorded
    as they are now; packages and interpreter are not recorded.
    """
    making = _Making.of(model, key, stated)
    require_folder(making.inputs.model)
    before = making.observe(None, "")
    recording = making.observe_after(before, None)
    with making.progress("hashing the model") as advance:
        recording = with_model(recording, made.look_now(before.model, advance))
    if not making.inputs.dry_run and (problem := making.misfit(recording)) is not None:
        raise problem
    said = making.remark(before)
    make = making.planned if making.inputs.dry_run else making.attach
    return make(recording).after(said)


@dataclass(frozen=True, slots=True)
class _Making:
    """The arguments of :func:`record` and :func:`attest`, read."""

    inputs: Inputs
    key: PrivateKey
    log: Log | None
    declared: Declaration
    stated: Stated
    key_file: Path | None
    allowed_secrets: frozenset[str]
    environ: Mapping[str, str]
    progress: Progress

    @classmethod
    def of(cls, model: PathLike, key: PathLike | PrivateKey, stated: Stated) -> _Making:
        if unknown := stated.keys() - Stated.__annotations__.keys():
            raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")
        model_name(a_path(model))  # refuses a path that is not UTF-8
        named, log = stated.get("equality"), stated.get("log")
        declared = declaration(DEFAULT_EQUALITY if named is None else named)
        data, seeds = stated.get("data", ()), stated.get("seeds", {})
        roles = data.items() if isinstance(data, Mapping) else several(data, "data")
        seeds = {"seed": seeds} if isinstance(seeds, int) else seeds
        inputs = Inputs(
            model=Path(model),
            working_folder=Path.cwd(),
            data=tuple(map(_role_and_path, roles)),
            config=tuple(map(a_path, several(stated.get("config", ()), "config"))),
            base_model=optional_path(stated.get("base_model")),
            equality=DeclaredEquality(declared.name, declared.digest, declared.document),
            axes=declared.axes,
            seeds={name: _decimal(seed) for name, seed in seeds.items()},
            dry_run=stated.get("dry_run", False),
            secret_variables=frozenset(
                several(stated.get("secret_variables", ()), "secret_variables")
            ),
        )
        return cls(
            inputs=inputs,
            key=private_key(key, stated.get("password")),
            log=None if log is None else log_in(log, stated.get("log_password")),
            declared=declared,
            stated=stated,
            key_file=None if isinstance(key, PrivateKey) else Path(key),
            allowed_secrets=frozenset(
                several(stated.get("allowed_secrets", ()), "allowed_secrets")
            ),
            environ=os.environ,
            progress=stated.get("progress", silent),
        )

    def look_before(self) -> Candidates:
        """Return the folders that may become the model's, as they are now."""
        inputs = self.inputs
        with self.progress("hashing the model before the run") as advance:
            return made.look_before(inputs.model, inputs.working_folder, advance)

    def observe(self, command: tuple[str, ...] | None, invocation_id: str) -> Before:
        """Observe what is there before *command*, and refuse what could never be attached."""
        beside.check_claims(self.inputs.model)
        environ = self.environ
        with self.progress("hashing inputs") as advance:
            before = recorder.observe_before(
                self.inputs, command, environ=environ, invocation_id=invocation_id, progress=advance
            )
        self.ready(recorder.plan(before))
        return before

    def remark(self, before: Before) -> tuple[Remark, ...]:
        """Say what weakens the claim that is to be; refuse its causes if that is asked for."""
        by_default = self.stated.get("equality") is None
        found = remarks.remarks(before, by_default=by_default, key=self.key_file)
        causes = [str(each) for each in found if each.is_cause]
        if causes and self.stated.get("strict"):
            raise PolicyError(f"refused as --strict: {'; '.join(causes)}")
        if (say := self.stated.get("on_warning")) is not None:
            for each in found:
                say(each)
        return found

    def observe_after(
        self, before: Before, result: CommandResult | None, directory: Path | None = None
    ) -> Recording:
        """Observe all but the model that the command left, and in *directory* what it said."""
        with self.progress("hashing inputs again") as advance:
            return recorder.observe_after(
                before, result, environ=self.environ, run_directory=directory, progress=advance
            )

    def ready(self, recording: Recording) -> tuple[TrainingStatement, bytes]:
        """Return the statement with its signer, and its bytes, if nothing in them is secret."""
        statement = training.name_signer(recording.statement, self.key.public)
        allowed, secret = self.allowed_secrets, self.inputs.secret_variables
        named = Recording(statement, recording.files)
        return statement, recorder.refuse_secrets_in(
            named, self.environ, allowed=allowed, secret_variables=secret
        )

    def planned(self, recording: Recording) -> Recorded:
        """Return what would be signed."""
        return Recorded(self.ready(recording)[0], recording.files, self.key.public.key_id)

    def attach(self, recording: Recording) -> Recorded:
        """Sign *recording*, put it beside the model, and publish it where asked."""
        statement, payload = self.ready(recording)
        try:
            attached = beside.attach(
                self.inputs.model, statement, payload, recording.files, self.key, self.log
            )
        except ProvenanceError as error:
            if statement.run.metadata.started_on:  # a run cannot be repeated for its claim
                raise self._kept(payload, error) from error
            raise
        return Recorded(
            statement,
            recording.files,
            self.key.public.key_id,
            written=attached.written,
            published=attached.published,
            warnings=tuple(self._warnings(recording, kept_signature=attached.kept_signature)),
        )

    def _kept(self, payload: bytes, error: ProvenanceError) -> ProvenanceError:
        """Return *error* with the place where the signed claim is kept, if one takes it."""
        first = "free some space" if isinstance(error, UnavailableError) else "fix that"
        hint = f"the claim of this run is in {CLAIMS}; {first}, then 'publish' or 'sign'"
        if not beside.has_claim(self.inputs.model, payload):
            try:
                descriptor, path = tempfile.mkstemp(prefix="provenance-claim-", suffix=".jsonl")
                with os.fdopen(descriptor, "wb") as file:
                    file.write(beside.sign_payload(payload, self.key) + b"\n")
            except OSError:
                return error
            hint = f"{first}, then append the claim of this run, {path}, to {CLAIMS}"
        return type(error)(error.what, where=error.where, hint=hint)

    def _warnings(self, recording: Recording, *, kept_signature: bool) -> Iterator[str]:
        statement = recording.statement
        if kept_signature:
            yield f"{MODEL_SIGNATURE} is not of this key and was left; the claim stands beside it"
        said = statement.build.internal_parameters.collectors.get("metrics")
        lost = sum(said.values.get(name, 0) for name in ("dropped", "damaged")) if said else 0
        if lost:
            yield f"{count(lost, 'metric or seed', 'metrics or seeds')} could not be kept"
        outcome = statement.run.provenance_outcome
        if outcome.failed:
            how = f"was killed by {outcome.signal}" if outcome.signal else "failed"
            yield f"the command {how}, so 'verify' will refuse this claim"
        for names, what in (
            (outcome.untouched, "were there before the run, which did not write them"),
            (outcome.rewritten, "were written with the bytes that they had"),
        ):
            if names:
                yield f"of the model's files, {len(names):,} {what}: {made.some_of(names)}"
        observed = statement.run.metadata.started_on  # else a misfit was refused beforehand
        problem = self.misfit(recording) if observed else None
        if isinstance(problem, UnavailableError):
            yield f"whether the equality fits this model was not checked: {problem}"
        elif problem is not None:
            yield f"the equality does not fit this model: {problem}"
            yield "'agree' will refuse it ('provenance equality check FILE MODEL' says why)"
        for item in outcome.changed_inputs:
            yield f"changed while the training ran: {changed_text(item)}"
        if outcome.spoiled_inputs:
            yield "'verify' will refuse this claim: nobody can tell what the training read"

    def misfit(self, recording: Recording) -> ProvenanceError | None:
        """Return why the declared equality does not fit the model, or cannot be judged here."""
        if self.declared.name == DEFAULT_EQUALITY:  # fits everything
            return None
        try:
            check_numpy()
            from provenance.judge.coverage import check_coverage  # noqa: PLC0415 - needs numpy
            from provenance.weights.model import Model, SideBySide  # noqa: PLC0415

            model = Model(self.inputs.model, recording.statement.manifest.by_name())
            check_coverage(self.declared, SideBySide(model, model))
        except (PolicyError, UnavailableError) as error:
            return error
        return None


@contextmanager
def _run_directory() -> Iterator[Path]:
    """Give a new folder for what the training program says of itself."""
    try:
        directory = Path(tempfile.mkdtemp(prefix="provenance-run-"))
        records.prepare(directory)
    except OSError as error:
        what = f"no temporary folder: {reason(error)}"
        raise UnavailableError(what, hint="name one in TMPDIR") from error
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _role_and_path(item: PathLike | tuple[str, PathLike]) -> tuple[str, Path]:
    return (item[0], a_path(item[1])) if isinstance(item, tuple) else ("", a_path(item))


def _decimal(seed: int | str) -> str:
    try:
        return str(seed)
    except ValueError as error:  # Python's limit of digits
        raise UsageError("a seed is too long") from error
