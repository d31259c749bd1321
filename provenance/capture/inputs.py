"""What goes in: the model's folder, data, configuration, base model; hashed before and after.

Before, because a run must not vouch for what was put there later; after, because an input that was
edited meanwhile is not what the run read. A changed input is named, with both digests.

Each input has a key that stands for it in the recorded command and in the list of changes:
``data:ROLE``, ``config:NAME``, ``baseModel``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from provenance.errors import ProvenanceError, UnreadableError, UsageError
from provenance.files.manifest import Manifest, hash_folder, hash_path
from provenance.files.names import RESERVED
from provenance.statement.training import Input, describe_input

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from provenance.statement.training import DeclaredEquality

_KEY = re.compile(r"[\w][\w .,/+@-]{0,199}")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the trainer declares.

    ``model`` is the folder that the training fills. ``data`` are pairs of a role, which may be
    empty, and a path. ``seeds`` are decimal strings under the names of the generators. ``axes`` are
    the differences that a rebuild may have. ``interpreter`` is the Python that the training uses,
    where the command does not tell. ``secret_variables`` hold passwords that are not for the
    training: it is not given them. Relative paths are relative to ``working_folder``, in which the
    command runs.
    """

    model: Path
    working_folder: Path
    data: tuple[tuple[str, Path], ...] = ()
    config: tuple[Path, ...] = ()
    base_model: Path | None = None
    equality: DeclaredEquality | None = None
    axes: tuple[str, ...] = ()
    seeds: Mapping[str, str] = field(default_factory=dict)
    interpreter: Path | None = None
    secret_variables: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class InputPath:
    """One input: its key, its name in the statement, its role, where it is."""

    key: str
    name: str
    role: str
    path: Path


@dataclass(frozen=True, slots=True)
class HashedInput:
    """One input and its files."""

    place: InputPath
    manifest: Manifest

    @property
    def description(self) -> Input:
        """The input as the recipe names it."""
        return describe_input(self.place.name, self.manifest, role=self.place.role)


def input_paths(inputs: Inputs) -> tuple[InputPath, ...]:
    """Return the inputs under their keys: data, configuration, base model.

    Raises:
        UsageError: two have the same key, or a key cannot stand in a command line.
    """
    found = []
    for role, path in inputs.data:
        name = role or _name(inputs, path)
        found.append(InputPath(f"data:{name}", name, role, located(inputs, path)))
    names = [_name(inputs, path) for path in inputs.config]
    for name, path in zip(names, inputs.config, strict=True):
        if names.count(name) > 1:
            name = os.path.relpath(located(inputs, path), located(inputs, Path()))  # noqa: PLW2901
        found.append(InputPath(f"config:{name}", name, "", located(inputs, path)))
    if inputs.base_model is not None:
        name = _name(inputs, inputs.base_model)
        found.append(InputPath("baseModel", name, "", located(inputs, inputs.base_model)))
    keys = [place.key for place in found]
    for place in found:
        kind, _, name = place.key.partition(":")
        if name and not _KEY.fullmatch(name):
            raise UsageError(
                f"the name {name!r} cannot be recorded",
                where=str(place.path),
                hint="use letters, digits and ._-",
            )
        if keys.count(place.key) > 1:
            hint = "give each its own role: --data ROLE=PATH" if kind == "data" else "rename one"
            raise UsageError(f"two inputs are called {place.key}", where=str(place.path), hint=hint)
    return tuple(found)


def without_secrets(inputs: Inputs, environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* as the training gets it: without ``inputs.secret_variables``."""
    return {name: environ[name] for name in environ.keys() - inputs.secret_variables}


def located(inputs: Inputs, path: Path) -> Path:
    """Return where *path* really is, links resolved."""
    return Path(os.path.realpath(inputs.working_folder / path))


def _name(inputs: Inputs, path: Path) -> str:
    """Return the last name of *path* as given, of where it is for one such as ``.``."""
    last = Path(os.path.normpath(path)).name
    return last if last not in ("", "..") else located(inputs, path).name


def check_model_folder(inputs: Inputs) -> Path:
    """Return the model's folder, which may not exist yet.

    Raises:
        UsageError: it lies in an input, which the training would then change.
        UnreadableError: it is not a folder, or cannot be written or created.
    """
    model = located(inputs, inputs.model)
    for place in input_paths(inputs):
        if model == place.path or (place.path.is_dir() and model.is_relative_to(place.path)):
            raise UsageError(
                f"the model's folder is in the input {place.key}, which would change",
                where=str(inputs.model),
                hint="put the model elsewhere",
            )
    if model.exists() and not model.is_dir():
        raise UnreadableError(
            "is not a folder",
            where=str(inputs.model),
            hint="--model names the folder that the training fills",
        )
    existing = model
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UnreadableError("not writable", where=str(inputs.model))
    return model


def hash_input(place: InputPath, progress: Callable[[int], None] | None = None) -> HashedInput:
    """Return *place* with its files."""
    if place.key == "baseModel":
        # Without what stands beside the weights: its digest is then the one attested for it.
        return HashedInput(place, hash_folder(place.path, ignore=RESERVED, progress=progress))
    return HashedInput(place, hash_path(place.path, progress=progress))


def hash_again(
    inputs: tuple[HashedInput, ...], progress: Callable[[int], None] | None = None
) -> dict[str, str]:
    """Return the digests of those of *inputs* that are others now, under their keys.

    The digest is empty where the input is gone or cannot be read any more.
    """
    changed: dict[str, str] = {}
    for before in inputs:
        try:
            after = hash_input(before.place, progress)
        except ProvenanceError:
            changed[before.place.key] = ""
            continue
        if after.manifest != before.manifest:
            changed[before.place.key] = after.manifest.root_digest
    return changed
