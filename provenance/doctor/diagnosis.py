"""The diagnosis of one command: what will make it hard to repeat, and what running it twice showed.

Looked at is what the recorder observes before a run, and the program's text.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from provenance.capture.code.git import GitError, find_root, open_git
from provenance.capture.draft import Before
from provenance.capture.process import ended_as_interrupted
from provenance.capture.remarks import remarks
from provenance.doctor.catalogue import CATALOGUE
from provenance.doctor.program import read_program
from provenance.errors import UnreadableError, some_of
from provenance.files.reading import read_file
from provenance.weights import check_numpy

if TYPE_CHECKING:
    from provenance.doctor.twice import Repetition

_PINNED = re.compile(r"\s*(?:#.*|-.*|[^#;]*(?:==|@).*)?")


@dataclass(frozen=True, slots=True)
class Advice:
    """What is so, and its remedy; a ``hint`` is about the program's text, which was not run."""

    text: str
    remedy: str
    about: Literal["recording", "environment", "hint"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What makes a command hard to repeat, and calls seen that no seed or setting makes repeat.

    ``twice`` is there if it was run.
    """

    advice: tuple[Advice, ...]
    volatile: tuple[str, ...]
    twice: Repetition | None


def diagnose(before: Before, *, on_run: Callable[[str], None] | None = None) -> Diagnosis:
    """Return the diagnosis of what was observed *before* a run.

    With *on_run*, which is told what is run, the command runs in copies of the working tree, as
    often as it takes: nothing of the folder itself changes.
    """
    program = read_program(before.source.named)
    said = [(it.text, it.way_out) for it in remarks(before, by_default=False, key=None)]
    around = (*_packages(before), *_outputs(before), *_variables(before))
    kinds: dict[Literal["recording", "environment", "hint"], Iterable[tuple[str, str]]]
    kinds = {"recording": said, "environment": around, "hint": dict.fromkeys(program.hints())}
    advice = tuple(Advice(*each, about) for about, them in kinds.items() for each in them)
    return Diagnosis(advice, tuple(program.volatile()), on_run and _run_twice(before, on_run))


def _run_twice(before: Before, on_run: Callable[[str], None]) -> Repetition:
    check_numpy()
    from provenance.doctor.copies import Tree  # noqa: PLC0415
    from provenance.doctor.twice import run_twice  # noqa: PLC0415 - needs numpy

    environ = before.inputs.without_secrets(os.environ)
    tree = Tree.of(before, environ)
    with (
        ended_as_interrupted(),
        tempfile.TemporaryDirectory(prefix="provenance-", ignore_cleanup_errors=True) as place,
    ):
        return run_twice(tree, Path(os.path.realpath(place)), environ, on_run)


def _packages(before: Before) -> Iterator[tuple[str, str]]:
    folder = before.inputs.located(Path())
    places = {folder, find_root(folder) or folder}
    if any((place / name).is_file() for place in places for name in CATALOGUE.locks):
        return
    lists = sorted(path for place in places for path in place.glob("requirements*.txt"))
    loose: list[str] = []
    for path in lists:
        with contextlib.suppress(UnreadableError):
            lines = read_file(path, 2**20).decode("utf-8", "replace").splitlines()
            loose += [f"{path.name}: {it.strip()}" for it in lines if not _PINNED.fullmatch(it)]
    if loose:
        yield f"not pinned: {some_of(loose)}", "pip freeze > requirements.txt"
    elif not lists:
        yield "no lock file", "uv lock, or pip freeze > requirements.txt"


def _outputs(before: Before) -> Iterator[tuple[str, str]]:
    """Yield the model and data that git would take for changes of the code."""
    root = find_root(before.inputs.located(Path()))
    named = {"the model": before.model, **{it.place.key: it.place.path for it in before.hashed}}
    inside = {what: path for what, path in named.items() if root in path.parents}
    if root is None or not inside:
        return
    with contextlib.suppress(GitError):
        git = open_git(root, before.source.around.environ)
        other = {n: v for n, v in git.variables.items() if n != "GIT_LITERAL_PATHSPECS"}
        for what, path in inside.items():
            name = os.path.relpath(path, root)
            below = name if path.is_file() else f"{name}/x"
            ignored = replace(git, variables=other).ask("check-ignore", "--", below, expect=(0, 1))
            if not ignored and not git.ask("ls-files", "-z", "--", name):
                text = f"{what} is inside the repository, and not ignored by git: {name}"
                yield text, f"add /{name} to .gitignore"


def _variables(before: Before) -> Iterator[tuple[str, str]]:
    known = before.collectors["variables"].values.get("variables", {})
    installed = {each.name for each in before.software.distributions}
    if before.software.interpreter.status == "ok":
        installed.add("")
    gpus = "gpus" in before.collectors and before.collectors["gpus"].values.get("gpus")
    for each in CATALOGUE.variables:
        value = known.get(each.name)
        fine = value == each.export if each.exactly else value
        if not fine and installed & {*each.of} and (gpus or not each.gpu):
            what = f"{each.name} is {'not set' if value is None else value}"
            yield f"{what}: {each.why}", f"export {each.name}={each.export}"
