"""Which ranks of a distributed training spoke, where they ran, and which did not end.

A process is of a rank by what torch said inside, else by its launcher's variables
(:data:`provenance.capture.run.LAUNCHERS`). Under several launchers (``srun torchrun``) the first of
that table decides. After torchrun's restarts the last attempt counts. Of a rank's processes those
count that trained, else those above the others: workers that load data inherit the variables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from typing import Any, Final, NamedTuple

from provenance.capture.python.records import MAX_PROCESSES, Process, Records
from provenance.capture.run import LAUNCHERS, MAX_RANKS, RESTARTS, number_of, place_of
from provenance.capture.secrecy.redact import readable, redact_text
from provenance.statement.training import Collected

MAX_LISTED: Final = 64
"""Most ranks that are described one by one, and most parts of a list of ranks."""

_TORCH: Final = "torch.distributed.get_"
_PLACES: Final = {
    "localRank": "LOCAL_RANK OMPI_COMM_WORLD_LOCAL_RANK MV2_COMM_WORLD_LOCAL_RANK SLURM_LOCALID",
    "node": "GROUP_RANK SLURM_NODEID host",
    "device": "torch.cuda.current_device",
    "deviceName": "torch.cuda.get_device_name",
}
"""What is said of a rank, and the variables or settings that tell it, the first that is there."""


class _Member(NamedTuple):
    """A process as a member of the world; ``ended`` is None of one that a fork made."""

    process: int
    launcher: str
    rank: int
    size: int
    restart: int
    ended: bool | None
    said: Mapping[str, Any]


def describe_distribution(records: Records) -> Collected:
    """Return what is known of the ranks of the run."""
    members = [each for n, it in enumerate(records.processes) for each in _members(n, it)]
    if not members:
        why = "no process of the run said that it is one of several"
        return Collected("absent", reason=why)
    order = list(LAUNCHERS)
    first = min((each.launcher for each in members), key=order.index)
    restart = max(each.restart for each in members if each.launcher == first)
    deciding = [each for each in members if (each.launcher, each.restart) == (first, restart)]
    size = deciding[-1].size
    ranks: dict[int, list[_Member]] = defaultdict(list)
    for each in sorted(members, key=lambda each: order.index(each.launcher)):
        if (each.size, each.restart) == (size, restart):
            known = ranks[each.rank]
            if not known or known[0].launcher == each.launcher:
                known.append(each)
    trained = {rank: _trained(known, records.processes) for rank, known in ranks.items()}
    told = {n for n, attempt in records.ranks if 0 <= n < size and attempt == restart}
    seen = trained.keys() | told
    all_kept = len(records.processes) < MAX_PROCESSES  # else some may be forgotten, not missing
    said = {name: value for each in deciding for name, value in each.said.items()}
    backend = said.get(f"{_TORCH}backend")
    lists = {
        "ranks": seen,
        "missing": set(range(size)) - seen if all_kept else (),
        "withoutEnd": [n for n, them in trained.items() if any(it.ended is False for it in them)],
        "repeated": [n for n, them in trained.items() if len(them) > 1],
    }
    values = {
        "launcher": "torchrun" if RESTARTS in said else first,
        "worldSize": size,
        "otherWorldSizes": sorted({each.size for each in deciding} - {size})[:MAX_LISTED],
        "backend": _text(backend) if isinstance(backend, str) else "",
        "restarts": restart,
        "requeued": max(0, number_of(str(said.get("SLURM_RESTART_COUNT", "")))),
        **{name: in_ranges(found) for name, found in lists.items()},
        "places": {str(n): _place(trained[n]) for n in sorted(trained)[:MAX_LISTED]},
        "seeds": records.seeds_of_ranks,
    }
    return Collected(
        "ok", {name: value for name, value in values.items() if value or name == "restarts"}
    )


def _members(number: int, process: Process) -> Iterator[_Member]:
    """Yield *process* and those that it forked, as far as they are of a rank."""
    for pid, states in process.states.items():
        values = {name: value for state in states.values() for name, value in state.items()}
        inside = {n[8:]: str(v) for n, v in values.items() if n.startswith("environ.")}
        environ = {**process.said.launched, **inside}
        place = place_of(environ)
        rank, size = values.get(f"{_TORCH}rank"), values.get(f"{_TORCH}world_size")
        if type(rank) is type(size) is int and 0 <= rank < size <= MAX_RANKS and size > 1:
            place = next(iter(LAUNCHERS)), rank, size
        if place is not None:
            restart = max(0, number_of(environ.get(RESTARTS, "")))
            ended = process.ended if pid == process.said.pid else None
            said = {**environ, **values, "host": process.host}
            yield _Member(number, *place, restart, ended, said)


def _trained(members: list[_Member], processes: tuple[Process, ...]) -> list[_Member]:
    """Return those of the *members*, all of one rank, that count."""
    numbers = {each.process for each in members}
    made = {number: processes[number] for number in numbers}
    stepped = {n for n, it in made.items() if any("step" in each for each in it.states.values())}
    above = {number for number, it in made.items() if it.parent not in numbers}
    return [each for each in members if each.process in (stepped or above)]


def _place(members: list[_Member]) -> dict[str, Any]:
    """Return where the rank of *members* ran."""
    found = {}
    for name, sources in _PLACES.items():
        for source in sources.split():
            value = members[0].said.get(source)
            if value is not None:
                text = _text(str(value))
                found[name] = text if number_of(text) < 0 else number_of(text)
                break
    return found


def _text(said: str) -> str:
    return redact_text(readable(said))[:MAX_LISTED]


def in_ranges(ranks: Collection[int]) -> str:
    """Return *ranks* as a text like ``0-3, 7``."""
    runs = groupby(enumerate(sorted(ranks)), lambda pair: pair[1] - pair[0])
    parts = [[rank for _, rank in run] for _, run in runs]
    shown = [str(it[0]) if len(it) == 1 else f"{it[0]}-{it[-1]}" for it in parts[:MAX_LISTED]]
    return ", ".join(shown + ["…"] * (len(parts) > MAX_LISTED))
