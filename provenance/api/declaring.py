"""Declarations and models: does one fit, and which one would two or more rebuilds agree under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from provenance.api.arguments import PathLike, Progress, declaration, open_models, silent
from provenance.weights import check_numpy

if TYPE_CHECKING:
    from provenance.equality.declaration import Declaration
    from provenance.judge.coverage import Reached, Selection
    from provenance.judge.suggestion import Suggestion


@dataclass(frozen=True, slots=True)
class Fit:
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
    from provenance.judge.coverage import (  # noqa: PLC0415 - needs numpy
        check_coverage,
        find_reached,
        unread_files,
    )
    from provenance.weights.model import SideBySide  # noqa: PLC0415

    declared = declaration(equality)
    (found,), folders = open_models([model], link_roots)
    sides = SideBySide(found, found, named=not folders)
    excepted = [find_reached(each, found) for each in declared.exceptions]
    return Fit(check_coverage(declared, sides), excepted, unread_files(sides))


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
    from provenance.weights.model import SideBySide  # noqa: PLC0415

    (mine, theirs), folders = open_models((left, right), link_roots)
    sides = SideBySide(mine, theirs, named=not folders)
    with progress("comparing") as advance:
        return suggestion.suggest(MeasuredWeights(sides, None, on_bytes=advance))
