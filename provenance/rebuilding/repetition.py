"""Repeating a published training: its command here, and what could never agree.

The command comes from a claim whose signature holds, and is a stranger's all the same: whoever runs
it sees it first, exactly as it is run. Its placeholders stand for paths that the user gives. What
the comparison of recipes will call a difference, and is known before the run, is refused by then.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from provenance.capture.command import fill
from provenance.capture.draft import Before
from provenance.capture.inputs import Inputs, changed_input, input_paths
from provenance.capture.process import find_program
from provenance.capture.python.records import parse_seed
from provenance.capture.recorder import plan
from provenance.encoding import strict_json
from provenance.equality.declaration import Declaration
from provenance.errors import MalformedError, PolicyError, UnreadableError, UsageError, count
from provenance.files.digest import hash_file
from provenance.files.manifest import FileEntry, Manifest, manifest_of
from provenance.files.names import is_plain
from provenance.folder.claims import read_byproduct
from provenance.rebuilding import recipe
from provenance.statement.training import (
    REDACTION,
    Collected,
    Input,
    ProgramFile,
    Recipe,
    Source,
    TrainingStatement,
    changed_text,
)
from provenance.trust.verification import verify_claims, verify_model

if TYPE_CHECKING:
    from provenance.envelope.bundle import Trusted

_LEAVES = re.compile(r"\$\{[^{}]*\}(?:.*/)?\.\.(?:/|$)", re.DOTALL)
"""A path that leaves what its placeholder stands for: none is recorded so."""

_Rows = list[tuple[str, int, str]]
_OPTIONS = {"data": "--data {}=PATH", "config": "--config FILE", "baseModel": "--base-model DIR"}


@dataclass(frozen=True, slots=True)
class Published:
    """A verified training statement to repeat; ``folder`` holds its byproducts."""

    where: str
    folder: Path
    training: TrainingStatement
    declaration: Declaration

    @property
    def recipe(self) -> Recipe:
        """What is to be repeated."""
        return self.training.recipe

    @property
    def seeds(self) -> dict[str, str]:
        """The seeds that can be stated: several of one name are what the program told."""
        return {name: n for name, n in self.recipe.seeds.items() if parse_seed(n) is not None}

    @property
    def inputs(self) -> dict[str, Input]:
        """Data, configuration and base model, by their keys."""
        found = {f"data:{item.name}": item for item in self.recipe.data}
        found |= {f"config:{item.name}": item for item in self.recipe.config}
        base = self.recipe.base_model
        return found if base is None else found | {"baseModel": base}

    def manifest(self, key: str) -> Manifest | None:
        """Return the files of the input *key*, if they were published, too."""
        data = read_byproduct(self.folder, self.training, f"manifest/{key}")
        if data is None or hashlib.sha256(data).hexdigest() != self.inputs[key].manifest:
            return None
        try:
            rows = strict_json.convert(strict_json.parse(data), _Rows)
            return manifest_of(FileEntry(*row) for row in rows)
        except MalformedError:
            return None


def read_published(
    path: Path, keys: Sequence[Trusted], progress: Callable[[int], None] | None = None
) -> Published:
    """Return the training that *path*, a model's folder or a file of claims, states.

    It is verified with *keys* first, and must be one that can be repeated.
    """
    where = str(path)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it may not look
        verified = verify_model(path, keys, progress=progress)
        folder, claim, declaration = path, verified.claim, verified.declaration
    else:
        folder = path.parent
        claim, declaration = verify_claims(path, keys)
    if claim is None or not claim.training.recipe.command:
        raise PolicyError("states no command, so there is nothing to repeat", where=where)
    if declaration is None:
        raise PolicyError("declares no equality, so nothing could agree with it", where=where)
    return Published(where, folder, claim.training, declaration)


def place_inputs(published: Published, given: Inputs) -> Inputs:
    """Return *given* with every input of the published recipe, under its name there.

    One that is not given is a path of the same name in the working folder.
    """
    places = zip(input_paths(given), _paths(given), strict=True)
    here = {place.key: (place.role, path) for place, path in places}
    problems = [f"no {key} was published" for key in here.keys() - published.inputs.keys()]
    for key, item in published.inputs.items():
        if key in here:
            continue
        path = _same_name(published, key, given.working_folder)
        if path is not None:
            here[key] = (item.role, path)
            continue
        size = f"{count(item.files, 'file')}, {count(item.size, 'byte')}"
        option = _OPTIONS[key.partition(":")[0]].format(item.name)
        problems.append(f"{key} ({size}) is not here: {option}")
    if problems:
        raise PolicyError(f"other inputs than published: {'; '.join(problems)}")
    return replace(
        given,
        data=tuple(here[key] for key in published.inputs if key.startswith("data:")),
        config=tuple(here[key][1] for key in published.inputs if key.startswith("config:")),
        base_model=here["baseModel"][1] if "baseModel" in here else None,
    )


def _paths(inputs: Inputs) -> tuple[Path, ...]:
    base = () if inputs.base_model is None else (inputs.base_model,)
    return (*(path for _, path in inputs.data), *inputs.config, *base)


def _same_name(published: Published, key: str, folder: Path) -> Path | None:
    """Return a path below *folder* that is called as the published input *key* was."""
    item, manifest = published.inputs[key], published.manifest(key)
    names = [item.name]
    if item.role and manifest is not None and len(manifest.entries) == 1:
        names.insert(0, manifest.entries[0].name)  # of a single file with a role
    return next((Path(n) for n in names if is_plain(n) and os.path.lexists(folder / n)), None)


def command_here(
    published: Published, inputs: Inputs, environ: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the published command with the paths of *inputs*, exactly as it is to be run."""
    recorded = published.recipe.command
    if any(REDACTION.search(word) for word in recorded):
        what = "an argument was redacted, so nobody can repeat the command"
        raise PolicyError(what, where=published.where)
    values = {"model": str(inputs.model)}
    paths = zip(published.inputs, _paths(inputs), strict=True)
    values |= {key: str(path) for key, path in paths}
    try:
        command = fill(recorded, values)
    except UsageError as error:
        hint = "such a command can only be recorded by hand"
        raise PolicyError(error.what, where=published.where, hint=hint) from error
    program = command[0]
    problem = ""
    if left := next((word for word in recorded if _LEAVES.search(word)), ""):
        problem = f"leaves the folder that it names: {left}"
    elif any("\0" in word for word in command):
        problem = "holds a null byte"
    elif not program or program.startswith("-") or not _is_inside(program, inputs):
        problem = f"starts no program of its repository: {program!r}"
    elif find_program(program, environ, inputs.located(Path())) is None:
        problem = f"starts a program that is not here: {program!r}"
    if problem:
        raise PolicyError(f"the command {problem}", where=published.where)
    return command


def _is_inside(program: str, inputs: Inputs) -> bool:
    """Tell whether *program* is found by the PATH, in the repository here, or in an input."""
    if "/" not in program:
        return True
    folder = inputs.located(Path())
    above = (each for each in (folder, *folder.parents) if os.path.lexists(each / ".git"))
    roots = [next(above, folder), *(place.given for place in input_paths(inputs))]
    path = os.path.normpath(folder / program)
    return any(Path(path).is_relative_to(os.path.normpath(root)) for root in roots)


def refuse_difference(published: Published, before: Before) -> None:
    """Raise PolicyError if what was observed *before* the run could never agree with *published*.

    Unknown as yet are seeds that the program tells, and editable distributions where nothing is
    known of the interpreter: those are left to the comparison afterwards.
    """
    theirs, ours = published.training.build, plan(before).statement.build
    by_recipe = msgspec.structs.replace(published.recipe, seeds=published.seeds)
    dependencies = theirs.resolved_dependencies
    if before.software.interpreter.status != "ok":
        dependencies = tuple(x for x in dependencies if not x.name.startswith("editable/"))
    theirs = msgspec.structs.replace(
        theirs, external_parameters=by_recipe, resolved_dependencies=dependencies
    )
    if (source := ours.external_parameters.source) is not None:
        source = msgspec.structs.replace(source, read=_read_here(published, before))
        mine = msgspec.structs.replace(ours.external_parameters, source=source)
        # All that the published run read was looked for here: what is missing is not just unseen.
        seen = {**ours.internal_parameters.collectors, "reads": Collected("ok")}
        observed = msgspec.structs.replace(ours.internal_parameters, collectors=seen)
        ours = msgspec.structs.replace(ours, external_parameters=mine, internal_parameters=observed)
    named: dict[str, list[str]] = {}
    for key, text in _other_files(published, before):
        named.setdefault(recipe.KINDS[key.partition(":")[0]], []).append(text)
    found = [
        text
        for difference in recipe.compare(theirs, ours).differences
        for text in named.get(difference.part, [difference.text])
    ]
    if found:
        what = f"could never agree with {published.where}: {'; '.join(found)}"
        raise PolicyError(what, hint=_way_out(published.recipe.source, source))


def _read_here(published: Published, before: Before) -> tuple[ProgramFile, ...]:
    """Return the files beside the tracked ones that the published run read, as they are here."""
    read = published.recipe.source.read if published.recipe.source else ()
    if not before.source.repositories:
        return ()
    found = []
    for file in read:
        with suppress(UnreadableError):
            if is_plain(file.name):
                sha256 = hash_file(before.source.repositories[0].root / file.name)[0]
                found.append(ProgramFile(file.name, sha256 if file.sha256 else ""))
    return tuple(found)


def _other_files(published: Published, before: Before) -> Iterator[tuple[str, str]]:
    """Yield the inputs with other files than published, and which, where those were published."""
    for item in before.hashed:
        key = item.place.key
        theirs = published.manifest(key) if key in published.inputs else None
        if theirs is not None and theirs != item.manifest:
            changed = changed_text(changed_input(key, theirs, item.manifest))
            yield key, f"{changed}, compared with what was published"


def _way_out(theirs: Source | None, ours: Source | None) -> str | None:
    """Return how to get the published code."""
    if theirs is None or ours is None or (theirs.tree, theirs.folder) == (ours.tree, ours.folder):
        return None
    if theirs.tree == ours.tree:
        return f"run it in the folder {theirs.folder or 'at the root'} of the repository"
    if theirs.dirty or not theirs.commit:
        return "the published code was not committed as it ran: ask for it"
    if ours.commit == theirs.commit:
        return "undo the changes that are not committed"
    return f"git checkout {theirs.commit}"
