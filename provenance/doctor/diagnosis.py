"""The diagnosis of one command: the advice, and what running it twice showed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from provenance.capture.draft import Before
from provenance.capture.process import ended_as_interrupted
from provenance.doctor.advice import Advice, advise
from provenance.doctor.program import read_program
from provenance.weights import check_numpy

if TYPE_CHECKING:
    from provenance.doctor.twice import Repetition


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What makes a command hard to repeat, and calls seen that no seed or setting makes repeat.

    ``twice`` is there if it was run.
    """

    advice: tuple[Advice, ...]
    volatile: tuple[str, ...]
    twice: Repetition | None = None


def diagnose(before: Before, *, on_run: Callable[[str], None] | None = None) -> Diagnosis:
    """Return the diagnosis of what was observed *before* a run.

    With *on_run*, which is told what is run, the command runs in copies of the working tree, as
    often as it takes: nothing of the folder itself changes.
    """
    program = read_program(before.source.named)
    advice, volatile = advise(before, program), tuple(program.volatile())
    if on_run is None:
        return Diagnosis(advice, volatile)
    check_numpy()
    from provenance.doctor.copies import Tree  # noqa: PLC0415
    from provenance.doctor.twice import run_twice  # noqa: PLC0415 - needs numpy

    environ = before.inputs.without_secrets(os.environ)
    tree = Tree.of(before, environ)
    with (
        ended_as_interrupted(),
        tempfile.TemporaryDirectory(prefix="provenance-", ignore_cleanup_errors=True) as place,
    ):
        found = run_twice(tree, Path(os.path.realpath(place)), environ, on_run)
    return Diagnosis(advice, volatile, found)
