"""What ``record`` and ``attest`` share: the inputs that a trainer declares, and the claim made."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from provenance.capture.inputs import Inputs
from provenance.capture.recorder import Before, Recording, observe_before, plan, refuse_secrets_in
from provenance.cli.options import (
    PATH,
    check_model_name,
    json_option,
    read_equality,
    read_log_signer,
    read_password,
    read_signing_key,
    signing_options,
)
from provenance.errors import (
    PolicyError,
    ProvenanceError,
    UnavailableError,
    UsageError,
    count,
    one_line,
)
from provenance.files.names import CLAIMS
from provenance.folder import claims
from provenance.folder.publication import publish_claims
from provenance.report.progress import progress
from provenance.report.terminal import print_json
from provenance.statement import training
from provenance.statement.training import DeclaredEquality

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from provenance.folder.publication import Published
    from provenance.keys import PrivateKey
    from provenance.transparency.note import SignerKey

F = TypeVar("F", bound="Callable[..., Any]")

_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)

DEFAULT_SEED = "seed"


@dataclass(frozen=True, slots=True)
class Request:
    """The options of ``record`` and ``attest``, read."""

    inputs: Inputs
    key: PrivateKey
    log: Path | None
    log_signer: SignerKey | None
    allowed_secrets: frozenset[str]
    dry_run: bool
    as_json: bool


def recording_options(command: F) -> F:
    """Add the options that both commands have."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return signing_options(json_option(command))


_OPTIONS = (
    click.option(
        "--data", "data", multiple=True, metavar="[ROLE=]PATH",
        help="Training data: a file or folder, with its role ('train', 'eval'). Repeatable.",
    ),
    click.option(
        "--config", "config", type=PATH, multiple=True, metavar="FILE",
        help="Configuration file. Repeatable.",
    ),
    click.option("--base-model", type=PATH, metavar="DIR", help="Model that training starts from."),
    click.option(
        "--equality", metavar="FILE|NAME",
        help="What shall count as the same model: a declaration, or a built-in name.",
    ),
    click.option(
        "--seed", "seeds", multiple=True, metavar="[NAME=]N", help="A seed. Repeatable."
    ),
    click.option("--log", type=PATH, metavar="LOGDIR", help="Publish to this log at once."),
    click.option(
        "--log-password-env", metavar="VAR", help="Variable with the password of the log's key."
    ),
    click.option(
        "--dry-run", is_flag=True, help="Only show what would be published; run and write nothing."
    ),
    click.option(
        "--unsafe-allow-secret", "allowed_secrets", multiple=True, metavar="VAR",
        help="Sign although the value of this variable stands in the statement.",
    ),
)  # fmt: skip


def read_request(options: Mapping[str, Any], model: Path) -> Request:
    """Return *options*, as click passes them, read: keys, inputs and the equality."""
    check_model_name(model)
    declared, axes = _equality(options["equality"])
    inputs = Inputs(
        model=model,
        working_folder=Path.cwd(),
        data=tuple(_data(text) for text in options["data"]),
        config=options["config"],
        base_model=options["base_model"],
        equality=declared,
        axes=axes,
        seeds=_seeds(options["seeds"]),
    )
    log: Path | None = options["log"]
    log_password = read_password(options["log_password_env"])
    return Request(
        inputs=inputs,
        key=read_signing_key(options["key_path"], options["password_env"]),
        log=log,
        log_signer=read_log_signer(log, log_password) if log else None,
        allowed_secrets=frozenset(options["allowed_secrets"]),
        dry_run=options["dry_run"],
        as_json=options["as_json"],
    )


def observe(request: Request, command: tuple[str, ...] | None, invocation_id: str) -> Before:
    """Observe what is there before *command*, and refuse what could never be attached or published.

    Claims that are there already and cannot be read would only be found after the training.
    """
    claims_path = request.inputs.model / CLAIMS
    if os.path.lexists(claims_path):
        claims.read_bundles(claims_path)
    with progress("hashing inputs") as advance:
        before = observe_before(
            request.inputs,
            command,
            environ=os.environ,
            invocation_id=invocation_id,
            progress=advance,
        )
    refuse_secrets_in(plan(before), os.environ, allowed=request.allowed_secrets)
    return before


def show_plan(recording: Recording) -> None:
    """Print *recording* as it would be signed."""
    statement = training.to_statement(recording.statement)
    print_json(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": statement.subject,
            "predicateType": statement.predicate_type,
            "predicate": statement.predicate,
        }
    )
    for sha256, data in recording.files.items():
        click.echo(f"and beside the weights: provenance/{sha256} ({len(data):,} bytes)", err=True)


def attach(request: Request, recording: Recording) -> None:
    """Sign *recording*, put it beside the model, publish it where asked, and say so on stderr.

    Standard output belongs to the training program; only ``--json`` prints there.
    """
    named = claims.name_signer(recording.statement, request.key.public)
    recording = Recording(named, recording.files)
    payload = refuse_secrets_in(recording, os.environ, allowed=request.allowed_secrets)
    model = request.inputs.model
    try:
        attached = claims.attach(model, named, payload, recording.files, request.key)
    except ProvenanceError as error:
        if recording.statement.run.metadata.started_on:  # a run cannot be had again
            raise _kept(payload, request.key, error) from error
        raise
    published: tuple[Published, ...] = ()
    if request.log is not None and request.log_signer is not None:
        published = publish_claims(model, request.log, request.log_signer)
    manifest = recording.statement.manifest
    if request.as_json:
        print_json(
            {
                "keyId": request.key.public.key_id,
                "outcome": recording.statement.run.provenance_outcome,
                "published": published,
                "rootDigest": {"sha256": manifest.root_digest},
                "written": attached.written,
            }
        )
        return
    _say(f"attested {count(len(manifest.entries), 'file')}, root sha256 {manifest.root_digest}")
    for path in attached.written:
        _say(f"written  {one_line(path)}")
    for claim in published:
        _say(f"published claim {claim.line} as entry {claim.index}")
    _warn(request, recording)


def _warn(request: Request, recording: Recording) -> None:
    """Say what will make the claim worth less than it could be."""
    said = recording.statement.build.internal_parameters.collectors.get("metrics")
    lost = sum(said.values.get(name, 0) for name in ("dropped", "damaged")) if said else 0
    if lost:
        _say(f"warning: {count(lost, 'metric or seed', 'metrics or seeds')} could not be kept")
    outcome = recording.statement.run.provenance_outcome
    if outcome.failed:
        how = f"was killed by {outcome.signal}" if outcome.signal else "failed"
        _say(f"warning: the command {how}, so 'verify' will refuse this claim")
    observed = recording.statement.run.metadata.started_on  # else a misfit was refused beforehand
    if observed and (problem := misfit(request, recording)) is not None:
        _say(f"warning: the equality does not fit this model: {problem}")
        _say("warning: 'agree' will refuse it ('provenance equality check FILE MODEL' says why)")
    if outcome.changed_inputs:
        changed = one_line(", ".join(outcome.changed_inputs))
        _say(f"warning: inputs changed while the training ran: {changed}")
        _say("warning: 'verify' will refuse this claim: nobody can tell what the training read")


def misfit(request: Request, recording: Recording) -> PolicyError | None:
    """Return why the declared equality does not fit the model, if one is declared and does not."""
    declared = request.inputs.equality
    if declared is None:
        return None
    from provenance.equality import declaration
    from provenance.judge.coverage import check_coverage
    from provenance.weights.model import Model, SideBySide

    model = Model(request.inputs.model, recording.statement.manifest.by_name())
    try:
        check_coverage(declaration.from_document(declared.declaration), SideBySide(model, model))
    except PolicyError as error:
        return error
    return None


def _kept(payload: bytes, key: PrivateKey, error: ProvenanceError) -> ProvenanceError:
    """Return *error* with the place where the signed claim is kept, if one takes it."""
    claim = claims.sign_payload(payload, key) + b"\n"
    try:
        descriptor, path = tempfile.mkstemp(prefix="provenance-claim-", suffix=".jsonl")
        with os.fdopen(descriptor, "wb") as file:
            file.write(claim)
    except OSError:
        return error
    first = "free some space" if isinstance(error, UnavailableError) else "mend that"
    return type(error)(
        error.what,
        where=error.where,
        hint=f"{first}, then append the claim of this run, {path}, to {CLAIMS}",
    )


def _say(text: str) -> None:
    click.echo(f"provenance: {text}", err=True)


def _data(text: str) -> tuple[str, Path]:
    named = _NAMED.fullmatch(text)
    return (named[1], Path(named[2])) if named else ("", Path(text))


def _seeds(texts: tuple[str, ...]) -> dict[str, str]:
    seeds: dict[str, str] = {}
    for text in texts:
        named = _NAMED.fullmatch(text)
        name, value = (named[1], named[2]) if named else (DEFAULT_SEED, text)
        if name in seeds:
            raise UsageError(f"the seed {name!r} is given twice", hint="name them: --seed numpy=0")
        seeds[name] = value
    return seeds


def _equality(text: str | None) -> tuple[DeclaredEquality | None, tuple[str, ...]]:
    if text is None:
        return None, ()
    declaration = read_equality(text)
    declared = DeclaredEquality(declaration.name, declaration.digest, declaration.document)
    return declared, declaration.axes
