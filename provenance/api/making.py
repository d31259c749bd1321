"""Stating how a model was made: ``record`` and ``attest``."""

from __future__ import annotations

import os
import shlex
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import msgspec

from provenance.api.arguments import (
    PathLike,
    a_path,
    check_word,
    declaration,
    link_roots,
    optional_path,
    several,
)
from provenance.api.finishing import Claimant, Given, Part, Recorded, complete
from provenance.api.weaknesses import misfit
from provenance.capture import cost, made, process, recorder, remarks, run_folder
from provenance.capture.checkpoints import Watcher
from provenance.capture.datasets import read_info
from provenance.capture.draft import Before, Recording
from provenance.capture.inputs import Inputs
from provenance.capture.python import startup
from provenance.capture.remarks import Remark
from provenance.capture.run_folder import PLAN, Plan, RunFolder
from provenance.capture.trace import tracer
from provenance.equality.declaration import Declaration
from provenance.errors import CommandError, PolicyError, ProvenanceError, UsageError
from provenance.folder import attach as beside
from provenance.folder.claims import model_name, require_model
from provenance.keys import PrivateKey
from provenance.keys.elsewhere import scheme_of
from provenance.sigstore.signing import SIGNING_VARIABLES, Identity
from provenance.statement.training import DeclaredEquality

DEFAULT_EQUALITY = "bytes"


class Stated(Given, total=False):
    """What a trainer states in :func:`record` and :func:`attest`.

    ``data`` are files or folders, with roles (``{"train": "data.csv"}``) or without; ``data_info``
    is a TOML file that says more of them, as their licences, by role; ``seeds`` are
    integers by the names of their generators, or a single one. ``secret_variables`` are environment
    variables that are secret and kept from the training; ``allowed_secrets``, those whose values
    may be published. The claim is published at once to the log in the folder ``log``. Without an
    ``equality``, ``bytes`` is declared. ``on_warning`` is told what weakens the claim before the
    command starts; ``strict`` refuses all of it but the default equality. ``trace`` is how the
    files that the command opens are seen, one of :mod:`~provenance.capture.trace.tracer`'s.
    """

    data: Mapping[str, PathLike] | Sequence[PathLike | tuple[str, PathLike]]
    data_info: PathLike | None
    config: Sequence[PathLike]
    base_model: PathLike | None
    equality: PathLike | Declaration | None
    seeds: Mapping[str, int | str] | int
    dry_run: bool
    strict: bool
    trace: str
    on_warning: Callable[[Remark], None]


def record(
    command: Sequence[str],
    *,
    model: PathLike | Sequence[PathLike],
    key: PathLike | PrivateKey | None = None,
    check: Callable[[Before], None] | None = None,
    **stated: Unpack[Stated],
) -> Recorded:
    """Run *command*, which trains a model into the folder *model*, and sign how it was made.

    Of several models each gets a claim of its own, of the same run. The first is returned, and has
    the ``others``.

    *check* is told what was observed before the command starts, and may raise.

    Raises:
        CommandError: it did not start, or failed and left no model; ``status`` is its exit status.
        UnfinishedError: it has ended, and its claim could not be made; :func:`finish` makes it.
    """
    if isinstance(command, str):
        raise UsageError("the command is one text", hint="give its words: shlex.split(command)")
    if not command:
        raise UsageError("there is no command")
    for word in command:
        check_word(word)

    mechanism = stated.get("trace", "auto")

    def run(kept: RunFolder, environ: Mapping[str, str], before: Before) -> process.CommandResult:
        result = process.run(
            tracer.around(mechanism, kept, command, environ),
            folder=before.inputs.working_folder,
            environ=environ,
            run_directory=kept.program,
            on_start=kept.started,
        )
        if not result.started:
            kept.remove()
            name, hint = shlex.quote(command[0]), _how_to_start(command[0])
            raise CommandError(result.problem, where=name, hint=hint, status=result.status)
        return result

    return Making.of(model, key, stated).around(tuple(command), run, check)


def _how_to_start(word: str) -> str | None:
    """Return what a user who gave *word* as the program may have meant."""
    if " " in word.strip():
        return f"leave out the quotes around the command: -- {word}"
    if word.endswith(".py"):
        return f"name the interpreter: -- python3 {word}"
    return None


def attest(
    model: PathLike, *, key: PathLike | PrivateKey | None = None, **stated: Unpack[Stated]
) -> Recorded:
    """Sign how the model in the folder *model* was made, as the caller states it.

    Nothing is run: the statement says that the run was not observed. Code and machine are recorded
    as they are now; packages and interpreter are not recorded.
    """
    making = Making.of(model, key, stated)
    root, claimant = making.inputs.model, making.claimant
    require_model(root)
    before = making.observe(None, "")
    with claimant.progress("hashing the model") as advance:
        found = made.look_now(before.model, advance, link_roots=making.inputs.link_roots)
    recording = claimant.about(recorder.plan(before), found, making.inputs.base)
    if not making.inputs.dry_run and (problem := misfit(root, recording.statement)) is not None:
        raise problem
    said = making.remark(before)
    if making.inputs.dry_run:
        return making.planned(recording).after(said)
    return claimant.claim(root, recording).after(said)


@dataclass(frozen=True, slots=True)
class Making:
    """The arguments of :func:`record`, ``recording`` and :func:`attest`, read."""

    inputs: Inputs
    claimant: Claimant
    stated: Stated
    key_file: Path | None

    @classmethod
    def of(
        cls,
        model: PathLike | Sequence[PathLike],
        key: PathLike | PrivateKey | None,
        stated: Stated,
    ) -> Making:
        """Read the arguments."""
        if unknown := stated.keys() - Stated.__annotations__.keys():
            raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")
        if key is None:
            secret = several(stated.get("secret_variables", ()), "secret_variables")
            scheme, _, token = (stated.get("identity_token") or "").partition(":")
            secret = [*secret, *SIGNING_VARIABLES, *[token] * (scheme == "env")]
            stated = {**stated, "secret_variables": secret}
        models = [model] if isinstance(model, str | os.PathLike) else model
        if not models:
            raise UsageError("no model is named")
        first, *others = models
        inputs, claimant = inputs_of(first, stated), Claimant.of(key, stated)
        for each in others:
            model_name(a_path(each))
        inputs = replace(inputs, others=tuple(map(Path, others)))
        if isinstance(claimant.key, Identity) and not inputs.dry_run:
            claimant.key.check()
        elsewhere = key is None or isinstance(key, PrivateKey) or scheme_of(key)
        return cls(inputs, claimant, stated, None if elsewhere else Path(str(key)))

    def around(
        self,
        command: tuple[str, ...],
        run: Callable[[RunFolder, Mapping[str, str], Before], process.CommandResult],
        check: Callable[[Before], None] | None = None,
    ) -> Recorded:
        """Return the claim about what *run* waits for, observed before it and afterwards."""
        mechanism = self.stated.get("trace", "auto")
        tracer.check(mechanism)
        before = self.observe(command, str(uuid.uuid4()))
        said = self.remark(before)
        if check is not None:
            check(before)
        claimant, names = self.claimant, (self.inputs.model, *self.inputs.others)
        each = [recorder.about_model(before, name, claimant.environ) for name in names]
        if self.inputs.dry_run:
            first, *others = [self.planned(recorder.plan(before)) for before in each]
            return replace(first, others=tuple(others)).after(said)
        with claimant.progress("hashing the model before the run") as advance:
            here, roots = self.inputs.working_folder, self.inputs.link_roots
            places = [made.look_before(it, here, advance, link_roots=roots) for it in names]
        with self.run_folder(each, places[0].began) as (kept, environ):
            parts = [
                Part(part, about, at, Watcher(part.place, kept.program, at.target, here))
                for part, about, at in zip(kept.parts(), each, places, strict=True)
            ]
            tracing = tracer.tracing(mechanism, before, kept)
            with cost.Meter(before.root) as meter, ExitStack() as watching, tracing:
                for part in parts:
                    watching.enter_context(part.watcher)
                result = run(kept, environ, before)
            return complete(claimant, kept, parts, meter.priced(result)).after(said)

    def observe(self, command: tuple[str, ...] | None, invocation_id: str) -> Before:
        """Observe what is there before *command*, and refuse what could never be attached."""
        for model in (self.inputs.model, *self.inputs.others):
            beside.check_claims(model, self.inputs.link_roots)
        with self.claimant.progress("hashing inputs") as advance:
            before = recorder.observe_before(
                self.inputs,
                command,
                environ=self.claimant.environ,
                invocation_id=invocation_id,
                progress=advance,
            )
        self.claimant.ready(recorder.plan(before))
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

    @contextmanager
    def run_folder(
        self, models: Sequence[Before], began: int
    ) -> Iterator[tuple[RunFolder, Mapping[str, str]]]:
        """Write down what is known before the run; give its folder and its environment."""
        here, claimant, before = self.inputs.located(Path()), self.claimant, models[0]
        apart = [*(each.model for each in models), *(item.place.path for item in before.hashed)]
        apart += [each for each in (here, *here.parents) if os.path.lexists(each / ".git")]
        log, config = self.stated.get("log"), self.stated.get("trust_config")
        plan = Plan(
            recording=recorder.plan(before),
            model=here / self.inputs.model,
            key=self.key_file and Path(os.path.realpath(here / self.key_file)),
            log=None if log is None else here / log,
            secrets=tuple(sorted({secret.variable for secret in claimant.secrets()})),
            started_on=process.timestamp(),
            began=began,
            link_roots=self.inputs.link_roots,
            link=claimant.link,
            tensors=claimant.tensors,
            base=self.inputs.base,
            keyless=isinstance(claimant.key, Identity),
            trust_config=None if config is None else here / config,
        )
        with run_folder.create(before.invocation_id, claimant.environ, apart) as kept:
            try:
                environ = self.inputs.without_secrets(claimant.environ)
                environ = startup.install(kept.program, environ, **recorder.heard(before))
                for part, each in zip(kept.divide(len(models)), models, strict=True):
                    model = here / each.inputs.model
                    part.write(
                        PLAN,
                        msgspec.structs.replace(plan, recording=recorder.plan(each), model=model),
                    )
                kept.make_room()
            except ProvenanceError:
                kept.remove()
                raise
            yield kept, environ

    def planned(self, recording: Recording) -> Recorded:
        """Return what would be signed."""
        statement, _ = self.claimant.ready(recording)
        key = self.claimant.key
        key_id = key.public.key_id if isinstance(key, PrivateKey) else ""
        return Recorded(statement, recording.files, key_id)


def inputs_of(model: PathLike, stated: Stated) -> Inputs:
    """Return what a trainer states of the training of *model*, read."""
    model_name(a_path(model))  # refuses a path that is not UTF-8
    named = stated.get("equality")
    declared = declaration(DEFAULT_EQUALITY if named is None else named)
    data, seeds = stated.get("data", ()), stated.get("seeds", {})
    roles = data.items() if isinstance(data, Mapping) else several(data, "data")
    seeds = {"seed": seeds} if isinstance(seeds, int) else seeds
    placed = [_role_and_path(item) for item in roles]
    info = optional_path(stated.get("data_info"))
    about = read_info(info) if info else {}
    names = {role or Path(path).name: path for role, path in placed}
    for role, (path, _) in about.items():
        if role not in names and path is None:
            hint = f"--data {role}=PATH, or path = PATH there"
            raise UsageError(f"{role} is no data of this run", where=str(info), hint=hint)
        if path and role in names and os.path.realpath(path) != os.path.realpath(names[role]):
            what = f"{role} is {path} here, and {names[role]} in --data"
            raise UsageError(what, where=str(info), hint="leave one of them out")
        placed += [(role, path)] if role not in names and path else []
    return Inputs(
        model=Path(model),
        working_folder=Path.cwd(),
        data=tuple(placed),
        about={role: said for role, (_, said) in about.items()},
        info=info,
        config=tuple(map(a_path, several(stated.get("config", ()), "config"))),
        base_model=optional_path(stated.get("base_model")),
        equality=DeclaredEquality(declared.name, declared.digest, declared.document),
        axes=declared.axes,
        seeds={name: _decimal(seed) for name, seed in seeds.items()},
        dry_run=stated.get("dry_run", False),
        secret_variables=frozenset(several(stated.get("secret_variables", ()), "secret_variables")),
        link_roots=link_roots(stated.get("link_roots", ())),
    )


def _role_and_path(item: PathLike | tuple[str, PathLike]) -> tuple[str, Path]:
    return (item[0], a_path(item[1])) if isinstance(item, tuple) else ("", a_path(item))


def _decimal(seed: int | str) -> str:
    try:
        return str(seed)
    except ValueError as error:  # Python's limit of digits
        raise UsageError("a seed is too long") from error
