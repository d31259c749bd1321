"""Whether a short training repeats, what brings equal files back, and what would change them.

1. The command runs twice, each time in a fresh copy. What made the difference is found by trying:
   with every generator seeded from outside and every setting, both runs again, and then with less
   and less, until nothing can be left out. The last set must hold for a third run.
2. With what was found, the command runs once for each of the things that other machines vary.
   Rebuilds with these differences are what a declaration is calibrated by.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from provenance.capture.python.records import Records
from provenance.doctor.catalogue import CATALOGUE
from provenance.doctor.copies import Tree
from provenance.errors import PolicyError, RefusedError
from provenance.judge import calibration, suggestion
from provenance.judge.measured import MeasuredWeights
from provenance.judge.side_by_side import FileComparison, list_differences
from provenance.judge.suggestion import Suggestion
from provenance.weights.model import model_of_folder
from provenance.weights.pairs import SideBySide

_OF_X86: Final = ("MKL_CBWR", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES")
_OF_TORCH: Final = ("ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG")
_MOVES: Final = {
    "other threads": "torch.get_num_threads",
    "other instruction sets": "torch.backends.cpu.get_cpu_capability",
}
"""What a variation should change, by its name in the probe."""


class Varied(msgspec.Struct, frozen=True):
    """A run with the ``environment`` of another machine: whether the model is the same, how far.

    ``unmoved`` is what the program had all the same, such as a number of threads of its own.
    """

    what: str
    environment: dict[str, str]
    same: bool
    unmoved: dict[str, Any]
    farthest: calibration.Farthest | None = None


class Repetition(msgspec.Struct, frozen=True):
    """Whether two runs of the command made the same model, and by which built-in equality.

    ``files`` are those of both; ``unseeded`` and ``environment`` what, seeded and set, makes them
    repeat. ``pins`` are to be set everywhere for equal files on other machines, and
    ``declaration``, as TOML, is for who does not set them.
    """

    repeats: bool
    runs: int
    equality: str | None
    files: tuple[FileComparison, ...]
    unseeded: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    varied: tuple[Varied, ...] = ()
    pins: dict[str, str] = {}
    declaration: str | None = None


class _Trials:
    """The runs; generators and settings are *chosen* by their names in the catalogue."""

    def __init__(
        self, tree: Tree, place: Path, environ: Mapping[str, str], on_run: Callable[[str], None]
    ) -> None:
        self.tree, self.place, self.environ, self.on_run = tree, place, environ, on_run
        self.runs, self.said = 0, Records()

    def run(self, chosen: Sequence[str] = (), changes: Mapping[str, str] | None = None) -> Path:
        """Return the model of one more run, in which each of *chosen* is seeded or set."""
        self.runs += 1
        seeded = [name for name in chosen if name in CATALOGUE.seeds]
        settings = _settings(chosen) | dict(changes or {})
        words = [*(f"{name} seeded" for name in seeded), *(f"{n}={v}" for n, v in settings.items())]
        self.on_run(f"run {self.runs}{': ' * bool(words)}{', '.join(words)}")
        environ = {**self.environ, **settings}
        if seeded:
            folder = self.place / f"seeds-{self.runs}"
            folder.mkdir()
            text = "".join(CATALOGUE.seeds[name].start for name in seeded)
            (folder / "sitecustomize.py").write_text(text, "ascii")
            paths = (str(folder), environ.get("PYTHONPATH", ""))
            environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        model, self.said = self.tree.run(self.place, self.runs, environ)
        return model

    def repeat(self, chosen: Sequence[str], times: int = 2) -> bool:
        """Tell whether *times* runs with *chosen* make the same model; the last is kept."""
        models: list[Path] = []
        try:
            models += (self.run(chosen) for _ in range(times))
        except RefusedError as error:
            self.on_run(str(error))
            return False
        same = all(_agree(models[-1], each) for each in models[:-1])
        for each in models[:-1]:
            shutil.rmtree(each)
        return same

    def smallest(self, seeds: Sequence[str], settings: Sequence[str]) -> list[str]:
        """Return those of which none can be left out for runs to repeat; [] if nothing helps."""
        chosen = [*seeds, *settings]
        if not self.repeat(chosen):
            return []
        chosen = next((list(it) for it in (seeds, settings) if it and self.repeat(it)), chosen)
        if len(chosen) > 1:
            chosen = next(([one] for one in chosen if self.repeat([one])), chosen)
        for each in tuple(chosen):
            rest = [it for it in chosen if it != each]
            if rest and self.repeat(rest):
                chosen = rest
        return chosen


def run_twice(
    tree: Tree, place: Path, environ: Mapping[str, str], on_run: Callable[[str], None]
) -> Repetition:
    """Return whether the command in *tree* repeats, run in copies below the empty folder *place*.

    *on_run* is told what is run. Raises RefusedError where the command fails.
    """
    trials = _Trials(tree, place, environ, on_run)
    first, second = trials.run(), trials.run()
    found = _suggested(first, second)
    equality = found.equality if found else None
    text = suggestion.to_toml(found) if found and not equality else None
    files = list_differences(MeasuredWeights(_beside(first, second), None, view=True))
    told = Repetition(equality is not None, 2, equality, files, declaration=text)
    loaded = {name for values in _values(trials.said) for name in values}
    seeds = [name for name, each in CATALOGUE.seeds.items() if each.state in loaded]
    torch = CATALOGUE.seeds["torch"].state in loaded

    def counts(variable: str) -> bool:
        of_x86 = platform.machine() in ("x86_64", "AMD64")
        return (torch or variable not in _OF_TORCH) and (of_x86 or variable not in _OF_X86)

    chosen: list[str] = []
    here = second
    if not equality:
        chosen = trials.smallest(seeds, [name for name in CATALOGUE.settings if counts(name)])
        if not chosen or not trials.repeat(chosen, 3):
            return msgspec.structs.replace(told, runs=trials.runs)
        here = place / f"model-{trials.runs}"
    pairs = {
        what: {n: v for n, v in each.items() if n not in chosen and counts(n)}
        for what, each in CATALOGUE.machines.items()
    }
    if _threads(environ) == 1 and "OMP_NUM_THREADS" not in chosen:
        pairs["other threads"] = dict.fromkeys(pairs["other threads"], "2")
    return _vary(trials, told, chosen, here, pairs)


def _vary(
    trials: _Trials,
    told: Repetition,
    chosen: Sequence[str],
    here: Path,
    machines: Mapping[str, dict[str, str]],
) -> Repetition:
    """Return *told* with what other *machines* would change of the model *here*."""
    models, before = {"here": here}, trials.said
    pins: dict[str, str] = {}
    varied: list[Varied] = []
    for what, changes in machines.items():
        if not changes:
            continue
        try:
            model = trials.run(chosen, changes)
        except RefusedError as error:  # a library that does not take this setting
            trials.on_run(str(error))
            continue
        value = _told(trials.said, _MOVES.get(what, ""))
        still = value is not None and value == _told(before, _MOVES[what])
        unmoved = {_MOVES[what]: value} if still else {}
        varied.append(Varied(what, changes, _agree(here, model), unmoved))
        if not varied[-1].same:
            models[what] = model
            pins |= changes
    toml = told.declaration
    if len(models) > 1:
        opened = {name: model_of_folder(path) for name, path in models.items()}
        try:
            made = calibration.calibrate(opened, len(opened), calibration.trial("mine", None))
        except PolicyError as error:  # it is not tensors alone that differ
            trials.on_run(str(error))
        else:
            rows = {each.right: each for each in made.rebuilds if each.left == "here"}
            varied = [msgspec.structs.replace(it, farthest=rows.get(it.what)) for it in varied]
            toml = None if made.against else made.toml
    return msgspec.structs.replace(
        told,
        runs=trials.runs,
        unseeded=tuple(name for name in chosen if name in CATALOGUE.seeds),
        environment=_settings(chosen),
        varied=tuple(varied),
        pins=pins,
        declaration=toml,
    )


def _settings(chosen: Sequence[str]) -> dict[str, str]:
    return {name: value for name, value in CATALOGUE.settings.items() if name in chosen}


def _beside(left: Path, right: Path) -> SideBySide:
    return SideBySide(model_of_folder(left), model_of_folder(right))


def _agree(left: Path, right: Path) -> bool:
    found = _suggested(left, right)
    return found is not None and found.equality is not None


def _suggested(left: Path, right: Path) -> Suggestion | None:
    """Return what could be declared of two runs; None: their weights differ."""
    try:
        return suggestion.suggest(MeasuredWeights(_beside(left, right), None))
    except PolicyError:
        return None


def _values(said: Records) -> list[dict[str, Any]]:
    """Return what each process had set, at each time."""
    states = (states for each in said.processes for states in each.states.values())
    return [values for each in states for values in each.values()]


def _told(said: Records, name: str) -> object:
    """Return the last value of *name* that a process had set."""
    return next((values.get(name) for values in reversed(_values(said))), None)


def _threads(environ: Mapping[str, str]) -> int:
    stated = environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(stated) if stated.isdecimal() else os.cpu_count() or 1
