"""Declarations and models: does one fit, and which one would two or more rebuilds agree under."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from provenance.api.arguments import PathLike, Progress, declaration, open_models, several, silent
from provenance.errors import UsageError
from provenance.weights import check_numpy

if TYPE_CHECKING:
    from provenance.equality.declaration import Declaration
    from provenance.judge.calibration import Calibration
    from provenance.judge.coverage import Reached, Selection
    from provenance.judge.suggestion import Suggestion


class Fit(NamedTuple):
    """What a declaration selects and excepts in a model, and why weight files are not read."""

    selections: Sequence[Selection]
    excepted: Sequence[Reached]
    unread: Sequence[str]


def check(
    equality: PathLike | Declaration,
    model: PathLike,
    *,
    link_roots: Sequence[PathLike] = (),
) -> Fit:
    """Return how *equality* fits *model*: every rule selects something, and all are covered."""
    check_numpy()
    from provenance.judge import coverage  # noqa: PLC0415 - needs numpy
    from provenance.judge.measured import MeasuredWeights  # noqa: PLC0415
    from provenance.weights.pairs import SideBySide  # noqa: PLC0415

    declared = declaration(equality)
    (found,) = open_models([model], link_roots)
    sides = SideBySide(found, found)
    excepted = [coverage.find_reached(each, found) for each in declared.exceptions]
    selections = coverage.check_coverage(declared, MeasuredWeights(sides, declared))
    return Fit(selections, excepted, coverage.unread_files(sides))


def suggest(
    left: PathLike,
    right: PathLike,
    *,
    link_roots: Sequence[PathLike] = (),
    progress: Progress = silent,
) -> Suggestion:
    """Return what could be declared of *left* and *right*, rebuilds with equal weights."""
    check_numpy()
    from provenance.judge import suggestion  # noqa: PLC0415 - needs numpy
    from provenance.judge.measured import MeasuredWeights  # noqa: PLC0415
    from provenance.weights.pairs import SideBySide  # noqa: PLC0415

    sides = SideBySide(*open_models((left, right), link_roots))
    with progress("comparing") as advance:
        return suggestion.suggest(MeasuredWeights(sides, None, on_bytes=advance))


def calibrate(
    rebuilds: Sequence[PathLike],
    *,
    others: Sequence[PathLike] = (),
    name: str = "mine",
    initial: str | None = None,
    link_roots: Sequence[PathLike] = (),
    progress: Progress = silent,
) -> Calibration:
    """Return how far *rebuilds* are apart, the one to publish first, and limits for a declaration.

    *others* followed another recipe. *name* is the declaration's, and *initial* the file in each
    folder with the weights before training, by which distances are measured.
    """
    check_numpy()
    from provenance.judge import calibration  # noqa: PLC0415 - needs numpy

    number, tried = len(several(rebuilds, "rebuilds")), calibration.trial(name, initial)
    if number < 2:  # noqa: PLR2004
        raise UsageError("one rebuild has no distance", hint="name two or more")
    paths = [*rebuilds, *several(others, "others")]
    names = [*map(str, paths)]
    if len({*names}) < len(names):
        raise UsageError("a model is named twice", where=", ".join(names))
    models = dict(zip(names, open_models(paths, link_roots), strict=True))
    with progress("comparing") as advance:
        return calibration.calibrate(models, number, tried, on_bytes=advance)
