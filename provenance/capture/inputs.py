"""The inputs: data, configuration and base model, hashed before and after the run.

An input that was edited meanwhile is not what the run read: its files are reported. What was only
added to a folder was not there to be read when the run began, and is reported apart. A path may be
a link, or lead through one: it is resolved before the run and again afterwards. Each input has a
key for the recorded command and the list of changes: ``data:ROLE``, ``config:NAME``, ``baseModel``.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_in
from itertools import takewhile
from pathlib import Path

from msgspec.structs import asdict, replace

from provenance.capture.datasets import CROISSANT, Listed, read_croissant
from provenance.capture.secrecy.redact import readable, redact_text
from provenance.errors import ProvenanceError, UnreadableError, UsageError
from provenance.files.manifest import FileEntry, Manifest, hash_folder, hash_path
from provenance.files.names import RESERVED
from provenance.files.walking import caches_of, hub_uri, walk, walk_folders
from provenance.keys import refuse_private_keys
from provenance.statement.training import (
    About,
    ChangedInput,
    DeclaredEquality,
    Input,
    describe_input,
)

MAX_LISTED = 1000
"""Most files of a changed input in each list: a changed data set of millions stays a short text."""

_KEY = re.compile(r"[\w][\w .,/+@-]{0,199}")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the trainer declares.

    ``model`` is the training's output folder, and so are the ``others`` of the same run. ``data``
    are pairs of a role, which may be empty, and
    a path. ``seeds`` are decimal strings by the names of the generators. ``axes`` are the
    differences that a rebuild may have. A ``dry_run`` starts no Python. ``secret_variables`` hold
    passwords that the training does not get. The command runs in ``working_folder``, to which paths
    are relative. Links in folders may lead to files below ``link_roots``. ``about`` says more of
    data, by name; the file ``info`` says it. ``from_inside``: the program began to be recorded when
    it was running.
    """

    model: Path
    working_folder: Path
    data: tuple[tuple[str, Path], ...] = ()
    config: tuple[Path, ...] = ()
    base_model: Path | None = None
    equality: DeclaredEquality | None = None
    axes: tuple[str, ...] = ()
    seeds: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False
    secret_variables: frozenset[str] = frozenset()
    link_roots: tuple[Path, ...] = ()
    about: Mapping[str, About] = field(default_factory=dict)
    info: Path | None = None
    from_inside: bool = False
    others: tuple[Path, ...] = ()

    @property
    def base(self) -> Path | None:
        """The absolute path of the base model."""
        return self.base_model and self.working_folder.absolute() / self.base_model

    def located(self, path: Path) -> Path:
        """Return the absolute path of *path*, with links resolved."""
        return Path(os.path.realpath(self.working_folder / path))

    def without_secrets(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return *environ* without ``secret_variables``, as the training gets it."""
        return {name: environ[name] for name in environ.keys() - self.secret_variables}


@dataclass(frozen=True, slots=True)
class InputPath:
    """One input; ``name`` is its name in the statement.

    ``given`` is the absolute path as the user named it, ``path`` where it led before the run;
    ``link_roots`` are those of :class:`Inputs`.
    """

    key: str
    name: str
    role: str
    given: Path
    path: Path
    link_roots: tuple[Path, ...] = ()
    about: About | None = None

    @property
    def listed(self) -> Listed | None:
        """What the input's Croissant file lists; None: the input is no such file."""
        named = self.key.startswith("data:") and self.path.name.endswith(CROISSANT)
        return read_croissant(self.path, self.link_roots) if named and self.path.is_file() else None


@dataclass(frozen=True, slots=True)
class HashedInput:
    """One input, its files, and where a cache says that it is from.

    ``listed`` is what the digest ``described.manifest`` is of; ``croissant`` what the input lists,
    if it is such a file.
    """

    place: InputPath
    manifest: Manifest
    described: Input
    listed: bytes
    uri: str = ""
    croissant: Listed | None = None

    @property
    def root(self) -> Path:
        """What the names of the files are below; one file without others is its own root."""
        return self.place.path.parent if self.croissant else self.place.path

    def paths(self) -> Iterator[Path]:
        """Yield where it is: its path, and the files that it lists if it is a Croissant file."""
        yield self.place.path
        if self.croissant:
            yield from (self.root / name for name in self.croissant.paths)

    def behind_links(self) -> Iterator[str]:
        """Yield the paths of the files outside the input to which links in it may lead."""
        root = self.root
        if self.place.link_roots or any(map(os.path.isdir, caches_of(root))):
            for entry in self.manifest.entries:
                path = os.path.realpath(root / entry.name)
                if not Path(path).is_relative_to(root):
                    yield path


def input_paths(inputs: Inputs) -> tuple[InputPath, ...]:
    """Return data, configuration and base model; their keys are unique and valid in a command."""
    found = []

    def add(key: str, name: str, path: Path, role: str | None = None) -> None:
        given = inputs.working_folder.absolute() / path
        at, about = inputs.located(path), inputs.about.get(name) if role is not None else None
        found.append(InputPath(key, name, role or "", given, at, inputs.link_roots, about))

    for role, path in inputs.data:
        name = role or _name(inputs, path)
        add(f"data:{name}", name, path, role)
    names = [_name(inputs, path) for path in inputs.config]
    for name, path in zip(names, inputs.config, strict=True):
        if names.count(name) > 1:
            name = os.path.relpath(inputs.located(path), inputs.located(Path()))  # noqa: PLW2901
        add(f"config:{name}", name, path)
    if inputs.base_model is not None:
        add("baseModel", _name(inputs, inputs.base_model), inputs.base_model)
    keys = [place.key for place in found]
    for place in found:
        kind, _, name = place.key.partition(":")
        if name and not _KEY.fullmatch(name):
            hint = "use letters, digits and ._-"
            raise UsageError(f"invalid name {name!r}", where=str(place.path), hint=hint)
        if keys.count(place.key) > 1:
            hint = "give each its own role: --data ROLE=PATH" if kind == "data" else "rename one"
            raise UsageError(f"two inputs are called {place.key}", where=str(place.path), hint=hint)
    return tuple(found)


def _name(inputs: Inputs, path: Path) -> str:
    """Return the last name of *path*; of its absolute path if it is one such as ``.``."""
    last = Path(os.path.normpath(path)).name
    return last if last not in ("", "..") else inputs.located(path).name


def check_model_folders(inputs: Inputs) -> Path:
    """Return the model's folder; of several, each is apart from the others and begins empty."""
    names = (inputs.model, *inputs.others)
    models = [check_model_folder(replace_in(inputs, model=name)) for name in names]
    for number, path in enumerate(models if inputs.others else ()):
        where = str(names[number])
        if any(path.is_relative_to(other) for other in models[:number] + models[number + 1 :]):
            what = "is, or lies in, the folder of another model of the run"
            raise UsageError(what, where=where, hint="name folders side by side")
        if glob.has_magic(where) or (path.exists() and walk(path, ignore=RESERVED)):
            what = "of several models each begins in an empty folder, and is named by its path"
            raise UsageError(what, where=where, hint="name new folders")
    return models[0]


def check_model_folder(inputs: Inputs) -> Path:
    """Return the model's folder, which may not exist yet.

    It is writable, not in an input, and holds no private key, which the run would leave there.
    """
    model = inputs.located(inputs.model)
    for place in input_paths(inputs):
        if model == place.path or (place.path.is_dir() and model.is_relative_to(place.path)):
            what = f"the model's folder is in the input {place.key}, which would change"
            raise UsageError(what, where=str(inputs.model), hint="put the model elsewhere")
    if model.exists() and not model.is_dir():
        raise UnreadableError(
            "is not a folder",
            where=str(inputs.model),
            hint="--model names the folder that the training fills",
        )
    for path, _, names in walk_folders(model):
        refuse_private_keys(Path(path), names)
    existing = model
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UnreadableError("not writable", where=str(inputs.model))
    return model


def hash_input(place: InputPath, progress: Callable[[int], None] | None = None) -> HashedInput:
    """Return *place* with its files."""
    manifest, listed = _look(place, progress)
    described, rows = describe_input(place.name, manifest, role=place.role)
    about = listed.check(manifest, place.path) if listed else None
    if about and place.about:
        about = replace(about, **{k: v for k, v in asdict(place.about).items() if v})
    described = replace(described, about=about or place.about)
    return HashedInput(place, manifest, described, rows, hub_uri(place.given), listed)


def _look(
    place: InputPath, progress: Callable[[int], None] | None
) -> tuple[Manifest, Listed | None]:
    path, roots = place.path, place.link_roots
    if (listed := place.listed) is not None:
        return listed.hash(progress), listed
    if place.key == "baseModel" and not path.is_file():
        # Without the reserved files beside the weights, so that its digest is the attested one.
        return hash_folder(path, ignore=RESERVED, link_roots=roots, progress=progress), None
    name = os.path.normpath(place.given.name)  # of a link: what it leads to may be a digest
    return hash_path(path, name, link_roots=roots, progress=progress), None


def hash_again(
    inputs: tuple[HashedInput, ...], progress: Callable[[int], None] | None = None
) -> tuple[ChangedInput, ...]:
    """Return the *inputs* that changed since they were hashed, by file."""
    found = []
    for before in inputs:
        place = before.place
        if problem := _moved(place):
            found.append(ChangedInput(place.key, problem=problem))
            continue
        try:
            after, _ = _look(place, progress)
        except ProvenanceError as error:
            found.append(ChangedInput(place.key, problem=_problem(error, place)))
            continue
        if after != before.manifest:
            found.append(changed_input(place.key, before.manifest, after))
    return tuple(found)


def _moved(place: InputPath) -> str:
    """Return how the input's path leads elsewhere than before the run; "" if it does not."""
    now = Path(os.path.realpath(place.given))
    if now == place.path:
        return ""
    if not os.path.lexists(place.given):
        return "no such file or folder"
    new, old = (redact_text(readable(str(path))).split("/") for path in (now, place.path))
    pairs = zip(reversed(new), reversed(old), strict=False)
    shown = 1 + len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    tails = ("/".join(parts[-shown:]) for parts in (new, old))
    return "its link leads elsewhere: to {} instead of {}".format(*tails)


def _problem(error: ProvenanceError, place: InputPath) -> str:
    """Return *error* with the name of the file below the input, where it has one."""
    inside = (error.where or "").removeprefix(f"{place.path}/")
    return error.what if inside in (error.where, "") else f"{readable(inside)}: {error.what}"


def changed_input(name: str, before: Manifest, after: Manifest) -> ChangedInput:
    """Return how the files *after* differ from those *before*."""
    old, new = before.by_name(), after.by_name()
    return listed(
        name,
        [key for key in old if key in new and old[key] != new[key]],
        [key for key in old if key not in new],
        [entry for key, entry in new.items() if key not in old],
    )


def listed(
    name: str, changed: Sequence[str], removed: Sequence[str], added: Sequence[FileEntry]
) -> ChangedInput:
    """Return how the input *name* changed; the files beyond :data:`MAX_LISTED` are counted."""
    return ChangedInput(
        name,
        changed=tuple(changed[:MAX_LISTED]),
        removed=tuple(removed[:MAX_LISTED]),
        added=tuple(added[:MAX_LISTED]),
        more=len(changed[MAX_LISTED:]) + len(removed[MAX_LISTED:]),
        more_added=len(added[MAX_LISTED:]),
    )
