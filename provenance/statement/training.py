"""The training statement: SLSA Provenance v1 with our ``buildType`` (docs/spec/training.md).

The recipe is a closed set: an unknown name is refused. The manifest states every file of the model,
because the root digest does not cover names. Integers beyond 2^53 are decimal strings. What is
absent is not claimed.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace

from provenance.encoding import strict_base64, strict_json
from provenance.errors import MalformedError, SubjectError, some_of
from provenance.files.manifest import FileEntry, Manifest, manifest_of
from provenance.keys import PublicKey
from provenance.statement import intoto
from provenance.statement.intoto import ResourceDescriptor, Statement, Subject
from provenance.statement.uris import BUILD_TYPE, SLSA_PROVENANCE

Count = Annotated[int, msgspec.Meta(ge=0)]

REDACTION = re.compile(r"(?<!\$)\$\{redacted(?::[a-z0-9-]{1,40})?\}")
"""The mark in place of a redacted value, with its type."""


ELSEWHERE = "…/"
"""Begins the name of code that was read outside of the repositories: its name in its package."""

MODEL = "${model}/"
"""Begins the name of a file that the run read in the model's folder, where it lay before."""


class About(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"
):
    """What is said of data, so that others can get it: a description, which identifies nothing.

    ``license`` is an SPDX expression, or what a Croissant file has there. ``source`` is a URL or
    identifier. Data are ``open`` (to anybody, under a licence that allows all use), ``public`` (to
    anybody), ``obtainable`` (on conditions) or ``unshareable``. ``files`` counts those of a
    Croissant file: ``checked`` by its digests, ``unchecked`` for want of them, and ``absent``.
    """

    title: str = ""
    version: str = ""
    license: str = ""
    source: str = ""
    availability: Literal["", "open", "public", "obtainable", "unshareable"] = ""
    notices: tuple[str, ...] = ()
    citation: str = ""
    files: dict[str, Count] = {}


class Input(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"
):
    """A file or folder that went in, by content.

    ``digest`` holds the OpenSSF root digest (sha256) over its files, which ignores their names, and
    ``manifest`` the SHA-256 of the JCS of ``[[name, size, sha256], …]``, which binds them.
    ``files`` counts them, ``size`` is in bytes. ``role`` is the trainer's word, as ``train``.
    """

    name: str
    digest: dict[str, str]
    manifest: str
    files: Count
    size: Count
    role: str = ""
    about: About | None = None


class ProgramFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the code: its SHA-256 in hexadecimal, "" if it is secret, or too large to hash."""

    name: str
    sha256: str


class Source(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The code. ``tree`` is the git tree of the tracked files as they were, changes included.

    ``dirty`` says that ``tree`` is not the commit's. ``folder`` is where in the repository the
    command ran. ``files`` are the files that the command line names: all that is known of the code
    outside a repository. ``read`` are the untracked and ignored files of the repositories that the
    run was seen to read, by their names below the outermost one; and code from elsewhere
    (:data:`ELSEWHERE`) and what lay in the model's folder (:data:`MODEL`), if it was read.
    """

    commit: str = ""
    tree: str = ""
    dirty: bool = False
    folder: str = ""
    uri: str = ""
    files: tuple[ProgramFile, ...] = ()
    read: tuple[ProgramFile, ...] = ()


class DeclaredEquality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole equality declaration, as an object, and the SHA-256 of its canonical form (JCS)."""

    name: str
    sha256: str
    declaration: dict[str, Any]


class Recipe(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"
):
    """What determines the training (``externalParameters``)."""

    command: tuple[str, ...] = ()
    source: Source | None = None
    config: tuple[Input, ...] = ()
    data: tuple[Input, ...] = ()
    base_model: Input | None = None
    seeds: dict[str, str] = {}
    axes: tuple[str, ...] = ()
    equality: DeclaredEquality | None = None


class Collected(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one collector found. ``reason`` says why where the status is not ``ok``."""

    status: Literal["ok", "absent", "denied", "error"]
    values: dict[str, Any] = {}
    reason: str = ""


class Drift(msgspec.Struct, frozen=True):
    """A value that was another at the end of the run than at its start; null: not there."""

    collector: str
    name: str
    start: Any
    end: Any


class Environment(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Everything else that may decide bits (``internalParameters``).

    ``observed`` says when it was looked at; the values are those of the first time.
    """

    observed: tuple[Literal["start", "end"], ...]
    collectors: dict[str, Collected] = {}
    drift: tuple[Drift, ...] = ()


class ChangedInput(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"
):
    """An input that was another after the run than before, by its files.

    ``name`` is the input's key (``data:train``, ``config:NAME``, ``baseModel``), or ``source`` or
    ``editable/NAME`` for code. ``problem`` says why the files cannot be told: the input is gone, or
    its link leads elsewhere. ``more`` counts the changed and removed files beyond those listed,
    ``more_added`` the added ones.
    """

    name: str
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    added: tuple[FileEntry, ...] = ()
    problem: str = ""
    more: Count = 0
    more_added: Count = 0

    @property
    def only_added(self) -> bool:
        """Whether every file that was there before the run is as it was."""
        return not (self.changed or self.removed or self.problem or self.more)


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """How the command ended: its exit status, or the signal that killed it. Neither: not seen.

    Of the model's files, ``untouched`` were there before the run, which did not write them;
    ``rewritten`` were written with the bytes that they had; ``unseen`` are not as they were when
    the command ended, so nobody saw that the run made them.
    """

    exit_status: int | None = None
    signal: str = ""
    changed_inputs: tuple[ChangedInput, ...] = ()
    untouched: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the command is known to have failed."""
        return bool(self.signal) or self.exit_status not in (None, 0)

    @property
    def spoiled_inputs(self) -> tuple[ChangedInput, ...]:
        """The inputs of which nobody can tell what the run read; added files spoil none."""
        return tuple(item for item in self.changed_inputs if not item.only_added)


class Builder(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who ran it, in SLSA's sense: the kind of platform and its versions."""

    id: str
    version: dict[str, str] = {}


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The run's id and its times, RFC 3339 in UTC."""

    invocation_id: str = ""
    started_on: str = ""
    finished_on: str = ""


class RunDetails(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the run went.

    ``provenance_signer`` is the signer's own public key (SubjectPublicKeyInfo, base64). It proves
    nothing: trust comes from outside. It lets anybody publish the claim, whose entry in a log holds
    the key.
    """

    builder: Builder
    metadata: Metadata = Metadata()
    byproducts: tuple[ResourceDescriptor, ...] = ()
    provenance_outcome: Outcome = Outcome()
    provenance_signer: str = ""

    @property
    def end_not_seen(self) -> bool:
        """Whether a run began, and how it ended is unknown."""
        outcome = self.provenance_outcome
        ended = outcome.exit_status is not None or outcome.signal
        return bool(self.metadata.started_on) and not ended


class BuildDefinition(msgspec.Struct, frozen=True, rename="camel"):
    """What went in."""

    build_type: str
    external_parameters: Recipe
    internal_parameters: Environment
    resolved_dependencies: tuple[ResourceDescriptor, ...]


class TrainingPredicate(
    msgspec.Struct,
    frozen=True,
    rename={"build_definition": "buildDefinition", "run_details": "runDetails"},
):
    """The predicate of a training statement."""

    build_definition: BuildDefinition
    run_details: RunDetails
    provenance_manifest: tuple[FileEntry, ...]


class TrainingStatement(msgspec.Struct, frozen=True):
    """A training statement: the model's name, its files, how it was made, and where it is from."""

    model_name: str
    manifest: Manifest
    build: BuildDefinition
    run: RunDetails
    model_uri: str = ""

    @property
    def level(self) -> Literal["attested", "recorded"]:
        """The evidence level: ``recorded`` only if a recorder saw the run end and make the files.

        A run that began and whose end was not seen has an unknown outcome, and one that wrote none
        of the files did not make them: they are ``attested``.
        """
        outcome, started = self.run.provenance_outcome, bool(self.run.metadata.started_on)
        made = not outcome.unseen and any(
            entry.name not in outcome.untouched for entry in self.manifest.entries
        )
        seen = started and not self.run.end_not_seen
        return "recorded" if seen and made else "attested"

    @property
    def recipe(self) -> Recipe:
        """What determines the training."""
        return self.build.external_parameters

    def with_run(self, **changes: Any) -> TrainingStatement:  # noqa: ANN401 - fields of a run
        """Return this with *changes* in how the run went."""
        return replace(self, run=replace(self.run, **changes))


def describe_input(name: str, manifest: Manifest, *, role: str = "") -> tuple[Input, bytes]:
    """Return *manifest* as an input called *name*, and the list that its ``manifest`` binds.

    The list is the JCS of names, sizes and contents.
    """
    rows = [[entry.name, entry.size, entry.sha256] for entry in manifest.entries]
    listed = strict_json.format(rows)
    digest, sha256 = {"sha256": manifest.root_digest}, hashlib.sha256(listed).hexdigest()
    return Input(name, digest, sha256, len(rows), manifest.size, role), listed


def changed_text(item: ChangedInput) -> str:
    """Describe how an input changed during the run, for a terminal."""
    if item.problem:
        return f"{item.name}: {item.problem}"
    kinds = {"changed": item.changed, "removed": item.removed}
    named = [f"{name} was {what}" for what, names in kinds.items() for name in names]
    added = [entry.name for entry in item.added]
    parts = [some_of(named, item.more)] if named or item.more else []
    parts += [f"added {some_of(added, item.more_added)}"] if added or item.more_added else []
    return f"{item.name}: {'; '.join(parts)}"


def name_signer(statement: TrainingStatement, signer: PublicKey) -> TrainingStatement:
    """Return *statement* with the public key of its *signer* in it."""
    return statement.with_run(provenance_signer=strict_base64.format(signer.spki))


def to_statement(training: TrainingStatement) -> Statement:
    """Return *training* as an in-toto Statement."""
    predicate = TrainingPredicate(training.build, training.run, training.manifest.entries)
    digest = {"sha256": training.manifest.root_digest}
    return Statement(
        subject=(Subject(digest, training.model_name, training.model_uri),),
        predicate_type=SLSA_PROVENANCE,
        predicate=msgspec.to_builtins(predicate),
    )


def from_statement(statement: Statement, *, where: str | None = None) -> TrainingStatement:
    """Return the training statement that *statement* is.

    A SubjectError (and not just a MalformedError) says that its subject does not match its files.
    """
    if statement.predicate_type != SLSA_PROVENANCE:
        what = f"not a training statement but {statement.predicate_type}"
        raise MalformedError(what, where=where)
    predicate = strict_json.convert(statement.predicate, TrainingPredicate, where=where)
    build = predicate.build_definition
    if build.build_type != BUILD_TYPE:
        raise MalformedError(f"not a training: the build type is {build.build_type!r}", where=where)
    if len(statement.subject) != 1:
        raise MalformedError("a training statement has exactly one subject", where=where)
    _check_digests(predicate, where)
    manifest = manifest_of(predicate.provenance_manifest, where=where)
    if not manifest.entries:
        raise MalformedError("the manifest names no file", where=where)
    subject = statement.subject[0]
    if subject.digest.get("sha256") != manifest.root_digest:
        raise SubjectError("the subject is not the root digest of the manifest", where=where)
    return TrainingStatement(subject.name, manifest, build, predicate.run_details, subject.uri)


def _check_digests(predicate: TrainingPredicate, where: str | None) -> None:
    recipe = predicate.build_definition.external_parameters
    base_model = () if recipe.base_model is None else (recipe.base_model,)
    sets: list[dict[str, str]] = []
    for item in (*recipe.data, *recipe.config, *base_model):
        intoto.require_sha256(item.digest, f"the input {item.name!r}", where=where)
        sets.append({"sha256": item.manifest})
    if recipe.equality is not None:
        sets.append({"sha256": recipe.equality.sha256})
    if recipe.source is not None:
        code = (*recipe.source.files, *recipe.source.read)
        sets += [{"sha256": file.sha256} for file in code if file.sha256]
        git = {"gitCommit": recipe.source.commit, "gitTree": recipe.source.tree}
        sets += [{algorithm: value} for algorithm, value in git.items() if value]
    described = predicate.build_definition.resolved_dependencies, predicate.run_details.byproducts
    sets += [resource.digest for group in described for resource in group if resource.digest]
    changed = predicate.run_details.provenance_outcome.changed_inputs
    added = (entry for item in changed for entry in item.added)
    sets += [{"sha256": entry.sha256} for entry in (*predicate.provenance_manifest, *added)]
    for digests in sets:
        intoto.check_digests(digests, where=where)
