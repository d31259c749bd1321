"""How a diagnosis reads: a line for each finding, with its remedy below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from provenance.doctor.catalogue import CATALOGUE
from provenance.errors import as_typed, count, one_line
from provenance.report.comparison import comparison_lines
from provenance.report.terminal import bad, dim, good

if TYPE_CHECKING:
    from provenance.doctor.diagnosis import Diagnosis
    from provenance.doctor.twice import Repetition, Varied


def diagnosis_lines(found: Diagnosis) -> Iterator[str]:
    """Yield what makes a run hard to repeat, and whether two did."""
    for each in found.advice:
        yield f"{dim('?  hint:') if each.about == 'hint' else bad('✗ ')} {one_line(each.text)}"
        yield f"     {one_line(each.remedy)}"
    if not found.advice:
        yield f"{good('✓')}  nothing seen that makes a run hard to repeat"
    if (twice := found.twice) is None:
        return
    yield from _outcome_lines(twice)
    if not (twice.repeats or twice.unseeded or twice.environment):
        yield f"{bad('✗')}  neither seeds nor settings make the runs agree"
        yield from (f"     never the same: {one_line(each)}" for each in found.volatile)
    yield from (line for each in twice.varied for line in _varied_lines(each))
    if twice.pins:
        yield "   the environment to run with, on each machine:"
        yield f"     export {_typed({**twice.environment, **twice.pins})}"
    if twice.declaration is not None:
        yield f"   {'or ' * bool(twice.pins)}a declaration (record --equality FILE):"
        yield from (f"     {one_line(line)}" for line in twice.declaration.splitlines())
    elif twice.repeats and not twice.pins:
        yield f"   declare it: record --equality {twice.equality}"


def _outcome_lines(twice: Repetition) -> Iterator[str]:
    ran = count(twice.runs, "run")
    if twice.repeats:
        yield f"{good('✓')}  two runs made the same model, by '{twice.equality}' ({ran})"
        return
    yield f"{bad('✗')}  two runs made different models, A and B ({ran})"
    yield from (f"   {line}" for line in comparison_lines(twice.files))
    for name in twice.unseeded:
        yield f"{bad('✗')}  the cause: {name} has no seed; with one, the runs agree"
        yield f"     {CATALOGUE.seeds[name].remedy}"
    if twice.environment:
        yield f"{bad('✗')}  the cause is in the environment: with this one, the runs agree"
        yield f"     export {_typed(twice.environment)}"


def _varied_lines(each: Varied) -> Iterator[str]:
    kept = ", ".join(f"{name} {one_line(str(value))}" for name, value in each.unmoved.items())
    kept = dim(f" (unmoved: {kept})") if kept else ""
    if each.same:
        yield f"{good('✓')}  the same with {each.what}{kept}"
        return
    yield f"{bad('✗')}  will differ on a machine with {each.what}{kept}"
    if each.farthest is not None and each.farthest.tensor is not None:
        far = ", ".join(f"{n} {value:.2g}" for n, value in each.farthest.distances.items())
        yield f"     farthest: {one_line(each.farthest.tensor)}, {far}"


def _typed(settings: Mapping[str, str]) -> str:
    return " ".join(f"{name}={as_typed([value])}" for name, value in settings.items())
