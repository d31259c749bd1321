"""Which Python trained, and what it had set, by what the run's Pythons said of themselves.

Behind a launcher (``uv run``, ``make``, ``bash run.sh``, ``torchrun``, a Python that starts that of
another environment) the command does not tell. Of the environments that spoke it is

1. that of the processes that used ``current_run()`` or wrote into the model's folder;
2. else that of the leaves: processes that started no other Python which spoke.

It must be one environment, and no Python may have stayed silent: one that was started with ``-I``,
``-E``, ``-S`` or with other variables may be the one that trained. A started shell script or
launcher under which no Python spoke may have hidden one, so then only ``current_run()`` decides.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from provenance.capture.environment import MAX_VALUE, collect_variables
from provenance.capture.process import is_python
from provenance.capture.python.inside import LAUNCHERS, SHELLS
from provenance.capture.python.launchers import script_head
from provenance.capture.python.packages import Software
from provenance.capture.python.records import Introduction, Process, Records, Started
from provenance.capture.run import number_of
from provenance.capture.secrecy.redact import readable, redact_variable
from provenance.statement.training import Collected

MAX_DESCRIBED: Final = 64
"""Most processes of which the statement says what they had set."""

_VARIABLE: Final = "environ."


def who_trained(records: Records, model: Path, own: Software) -> Introduction | str:
    """Return the Python that trained *model*, or why nobody can tell.

    *own* is the interpreter that the command itself identifies, if it does.
    """
    processes = records.processes
    if not processes:
        return "no Python of the run reported: it has none, or one with -I, -E, -S or before 3.8"
    places = [environment_of(each.said.executable, each.said.prefix) for each in processes]
    if reason := _silent(records, places, own):
        return reason
    chosen = {
        number
        for number, each in enumerate(processes)  # the model may be a pattern of folders
        if each.reported
        or str(model) in each.wrote
        or any(fnmatchcase(path, f"{model}/*") for path in each.wrote)
    } or set(range(len(processes))) - {each.parent for each in processes}
    if len({places[number] for number in chosen}) != 1:
        return "Pythons of several environments may have trained"
    return processes[min(chosen)].said


def those_that_trained(records: Records) -> list[Process]:
    """Return the processes that took a step, else that wrote the model, else all that said much."""
    told = [it for it in records.processes if any(it.states.values()) or it.libraries]
    stepped = [it for it in told if any("step" in states for states in it.states.values())]
    return stepped or [each for each in told if each.reported or each.wrote] or told


def describe_states(
    records: Records, known: Mapping[str, str], environ: Mapping[str, str]
) -> Collected:
    """Return what the processes that trained had set.

    The first state of the lowest rank is there in full, its later one and the last of every other
    rank only where they differ from the one before and from its last. Of variables there are those
    that are not as *known* to the recorder, whose *environ* serves to redact them.
    """
    told = [states for it in those_that_trained(records) for states in it.states.values()]
    chosen = [states for states in told if "step" in states] or [*filter(None, told)]
    if not chosen:
        why = "no Python of the run was seen"
        if records.processes:
            why = "when it ended, no Python had anything loaded that is asked, or it was killed"
        return Collected("absent", reason=why)
    places = {name: environ[name] for name in ("HOME", "HOSTNAME") if name in environ}
    described = [
        {when: _described(values, known, places) for when, values in states.items()}
        for states in chosen[:MAX_DESCRIBED]
    ]
    described.sort(key=lambda states: _rank([*states.values()][-1]))
    values: dict[str, Any] = {"processes": len(chosen)}
    before: dict[str, Any] = {}
    for name, state in described[0].items():
        values[name], before = _others(state, before), state
    last = [[*states.values()][-1] for states in described]
    others = {str(n): _others(each, last[0]) for n, each in enumerate(last) if n}
    return Collected("ok", values | ({"others": others} if others else {}))


def _described(
    state: Mapping[str, Any], known: Mapping[str, str], places: Mapping[str, str]
) -> dict[str, Any]:
    """Return *state* as it is published, of its variables only those that are not as *known*."""
    values = {n: v for n, v in state.items() if not n.startswith(_VARIABLE)}
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = redact_variable(value, places.get("HOME", ""), ())[:MAX_VALUE]
    told = {n[len(_VARIABLE) :]: str(v) for n, v in state.items() if n.startswith(_VARIABLE)}
    found = collect_variables({**places, **told})["variables"]
    variables = {n: found.get(n) for n in sorted(found.keys() | known.keys())}
    return values | {
        _VARIABLE + name: value for name, value in variables.items() if value != known.get(name)
    }


def _rank(state: Mapping[str, Any]) -> int:
    """Return the rank that *state* tells, or a high number."""
    rank = str(state.get("torch.distributed.get_rank", state.get("environ.RANK", "")))
    return number_of(rank) if number_of(rank) >= 0 else 2**31


def _others(state: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what in *state* is another than *before*; null: no longer there.

    The optimizer is asked before its first step alone.
    """
    names = [*state, *(n for n in before if n not in state and not n.startswith("optimizer"))]
    return {n: state.get(n) for n in names if n not in before or state.get(n) != before[n]}


def environment_of(executable: str, prefix: str) -> tuple[str, str]:
    """Return what tells one Python environment from another."""
    return os.path.realpath(executable), os.path.realpath(prefix)


def _silent(records: Records, places: Sequence[tuple[str, str]], own: Software) -> str:
    """Return what may have trained and did not speak, or ""."""
    if records.strangers:
        return "a Python that calls current_run() was started with -I, -E, -S or other variables"
    if own.interpreter.status == "ok" and own.environment not in places:
        return "the command's Python did not report: -I, -E, -S or other variables"
    processes = records.processes
    below: defaultdict[int | None, list[Introduction]] = defaultdict(list)
    for each in processes:
        below[each.parent].append(each.said)
    hidden = ""
    for number, each in enumerate(processes):
        left = below[number]
        kinds = [(_kind(start), start) for start in each.started]
        for kind, start in sorted(kinds, key=lambda pair: pair[0] != "python"):
            spoke = next((child for child in left if _may_be(start, child, each.said)), None)
            name = readable(Path(start.started).name)[:80]
            if kind and spoke is not None:
                left.remove(spoke)
            elif kind == "python":
                return f"{name} was started and did not report: -I, -E, -S or other variables"
            elif kind:
                hidden = hidden or name
    if hidden and not any(each.reported for each in processes):
        hint = "call provenance.current_run().seed or .metric in the program that trains"
        return f"{hidden} was started and may have trained; {hint}"
    return ""


def _may_be(start: Started, child: Introduction, parent: Introduction) -> bool:
    """Tell whether *start* may have led to *child*.

    ``multiprocessing`` starts the parent's own Python without an event: such a child must not stand
    for another Python that stayed silent.
    """
    if not is_python(start.started) or child.executable != parent.executable:
        return True
    return os.path.dirname(start.started) == os.path.dirname(child.executable)  # noqa: PTH120 - words


def _kind(start: Started) -> str:
    """Return whether *start* is ``python``, a ``launcher`` or neither."""
    if any(map(is_python, (start.started, *start.words))):
        return "python"
    first = script_head(start.started).partition(b"\n")[0]
    if b"python" in first:
        return "python"
    if start.words or first or os.path.basename(start.started) in _OPAQUE:  # noqa: PTH119 - a word
        return "launcher"
    return ""


_OPAQUE = LAUNCHERS - SHELLS - set("env nice timeout nohup time".split())
"""Launchers that may start a Python which no word of theirs names."""
