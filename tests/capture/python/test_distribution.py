"""Ranks of a distributed run, by what its processes said and did not say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from provenance.capture.python.distribution import describe_distribution, in_ranges
from provenance.capture.python.inside import LAUNCHED
from provenance.capture.python.records import MAX_PROCESSES, read_records
from provenance.capture.run import LAUNCHERS, MAX_RANKS, RECORDS, RESTARTS
from provenance.statement.training import Collected

if TYPE_CHECKING:
    from pathlib import Path

    from tests.capture.python.scene import Scene

TORCH = {"torch.distributed.get_backend": "gloo"}


def process(pid: int, parent: int = 0, *, forked: Any = False, **launched: Any) -> dict[str, Any]:  # noqa: ANN401 - numbers
    """Return how a process introduces itself."""
    texts = dict.fromkeys(
        "executable prefix basePrefix version implementation cacheTag".split(), ""
    )
    rest = {"path": [], "pointerBits": 64, "optimize": 0, "hashRandomization": True}
    told = {name: str(number) for name, number in launched.items()}
    who = {"pid": pid, "parent": parent, "forked": forked, "launched": told}
    return {"process": {**who, **texts, **rest}}


def rank(number: int, size: int, pid: int = 0, restart: int = 0, parent: int = 0) -> dict[str, Any]:
    """Return how a rank that torchrun started introduces itself; its id is 100 and its number."""
    launched = {"RANK": number, "WORLD_SIZE": size, RESTARTS: restart, "LOCAL_RANK": number}
    return process(pid or 100 + number, parent, **launched)


def ended(pid: int) -> dict[str, Any]:
    return {"ended": True, "pid": pid}


def state(pid: int, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"state": "step", "values": values, "pid": pid}


def group(number: Any, size: Any) -> dict[str, Any]:  # noqa: ANN401 - as the test says
    """Return what torch says of its process group."""
    return TORCH | {"torch.distributed.get_rank": number, "torch.distributed.get_world_size": size}


def described(folder: Path, *lines: dict[str, Any]) -> dict[str, Any]:
    collected = collect(folder, *lines)
    assert collected.status == "ok"
    return collected.values


def collect(folder: Path, *lines: dict[str, Any]) -> Collected:
    text = "".join(f"\n{json.dumps(line, separators=(',', ':'))}\n" for line in lines)
    folder.joinpath(RECORDS).write_text(text)
    records = read_records(folder)
    assert records.damaged == 0
    return describe_distribution(records)


def test_every_variable_of_a_launcher_is_told() -> None:
    assert {name for names in LAUNCHERS.values() for name in names} | {RESTARTS} <= LAUNCHED


def test_a_whole_world(tmp_path: Path) -> None:
    lines = [rank(0, 2), rank(1, 2), state(100, **group(0, 2)), ended(101), ended(100)]
    seeds = [{"seed": "torch", "value": str(n), "rank": n} for n in (1, 0)]
    assert described(tmp_path, process(9), *lines, *seeds) == {
        "launcher": "torchrun",
        "worldSize": 2,
        "backend": "gloo",
        "restarts": 0,
        "ranks": "0-1",
        "places": {n: {"localRank": int(n), "node": 0} for n in ("0", "1")},
        "seeds": {"torch": {"0": "0", "1": "1"}},
    }


def test_one_process_alone_is_no_world(tmp_path: Path) -> None:
    assert collect(tmp_path, process(1), rank(0, 1)).status == "absent"
    assert collect(tmp_path).status == "absent"


def test_a_rank_that_never_spoke_and_one_that_did_not_end(tmp_path: Path) -> None:
    found = described(tmp_path, rank(0, 4), rank(2, 4), ended(100))
    assert (found["ranks"], found["missing"], found["withoutEnd"]) == ("0, 2", "1, 3", "2")


def test_after_a_restart_the_last_attempt_counts(tmp_path: Path) -> None:
    first = [rank(n, 3) for n in range(3)]
    again = [rank(0, 2, 200, 1), rank(1, 2, 201, 1), ended(200), ended(201)]
    found = described(tmp_path, *first, *again)
    assert (found["restarts"], found["worldSize"], found["ranks"]) == (1, 2, "0-1")
    assert not {"missing", "withoutEnd", "repeated", "otherWorldSizes"} & found.keys()


@pytest.mark.parametrize("names", LAUNCHERS.values(), ids=LAUNCHERS)
def test_every_launcher_is_understood(tmp_path: Path, names: tuple[str, str]) -> None:
    lines = [process(n, **dict(zip(names, (n, 3), strict=True))) for n in (1, 2)]
    found = described(tmp_path, *lines, ended(1))
    assert (found["worldSize"], found["ranks"], found["missing"]) == (3, "1-2", "0")
    assert found["withoutEnd"] == "2"
    assert LAUNCHERS[found["launcher"]] == names


def test_torchrun_in_the_tasks_of_slurm(tmp_path: Path) -> None:
    def task(pid: int, parent: int = 0, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - numbers
        node = {"SLURM_PROCID": pid % 2, "SLURM_STEP_NUM_TASKS": 2, "SLURM_NODEID": pid % 2}
        return process(pid, parent, **node, **more)

    ranks = [task(10 + n, n % 2, RANK=n, WORLD_SIZE=4, GROUP_RANK=n % 2) for n in range(4)]
    found = described(tmp_path, task(0), task(1), *ranks, *map(ended, (0, 1, 10, 11, 12)))
    assert (found["worldSize"], found["ranks"], found["withoutEnd"]) == (4, "0-3", "3")
    assert [found["places"][str(n)]["node"] for n in range(4)] == [0, 1, 0, 1]
    # One a node: the agent, which ends, does not stand for its worker, which was killed.
    ranks = [task(10 + n, n, RANK=n, WORLD_SIZE=2) for n in range(2)]
    found = described(tmp_path, task(0), task(1), *ranks, *map(ended, (0, 1, 10)))
    assert (found["worldSize"], found["withoutEnd"]) == (2, "1")


def test_workers_that_load_data_are_not_ranks(tmp_path: Path) -> None:
    workers = [rank(0, 2, 300 + n, parent=100) for n in range(2)]
    found = described(tmp_path, rank(0, 2), *workers, rank(1, 2), ended(100), ended(101))
    assert not {"repeated", "withoutEnd", "missing"} & found.keys()


def test_of_a_wrapper_and_the_training_it_starts_the_training_counts(tmp_path: Path) -> None:
    lines = [rank(0, 2), rank(0, 2, 300, parent=100), state(300), rank(1, 2), ended(101)]
    assert described(tmp_path, *lines, ended(100))["withoutEnd"] == "0"


def test_ranks_that_a_fork_made_are_known_by_what_torch_said(tmp_path: Path) -> None:
    forks = [process(n, 9, forked=True) for n in (20, 21)]
    states = [state(20, **group(0, 2)), state(21, **group(1, 2))]
    found = described(tmp_path, process(9), *forks, *states, ended(9))
    assert (found["ranks"], found["backend"]) == ("0-1", "gloo")
    assert "withoutEnd" not in found  # they end by os._exit, which says nothing


def test_ranks_that_only_metrics_name(tmp_path: Path) -> None:
    metrics = [{"metric": "loss", "value": 1, "rank": n} for n in (1, 2, 7)]
    found = described(tmp_path, rank(0, 4), ended(100), *metrics)
    assert (found["ranks"], found["missing"]) == ("0-2", "3")


def test_metrics_of_no_rank_are_of_none(tmp_path: Path) -> None:
    metrics = [{"metric": "loss", "value": 1}, {"metric": "loss", "value": 1, "restart": 3}]
    found = described(tmp_path, rank(0, 2), ended(100), *metrics)
    assert (found["ranks"], found["missing"], found["restarts"]) == ("0", "1", 0)


def test_a_job_that_slurm_began_again(tmp_path: Path) -> None:
    slurm = {"SLURM_PROCID": 0, "SLURM_STEP_NUM_TASKS": 2, "SLURM_RESTART_COUNT": 3}
    assert described(tmp_path, process(1, **slurm))["requeued"] == 3


def test_devices_where_torch_tells_them(tmp_path: Path) -> None:
    cuda = {"torch.cuda.current_device": 1, "torch.cuda.get_device_name": "NVIDIA H100"}
    found = described(tmp_path, rank(1, 2), state(101, **cuda))
    place = {"localRank": 1, "node": 0, "device": 1, "deviceName": "NVIDIA H100"}
    assert found["places"] == {"1": place}


@pytest.mark.parametrize("names", LAUNCHERS.values(), ids=LAUNCHERS)
def test_plain_processes_with_the_variables_of_a_launcher(
    scene: Scene, names: tuple[str, str]
) -> None:
    program = """
        import provenance, sys
        provenance.current_run().metric("loss", 1, step=0)
        provenance.current_run().seed("numpy", 3)
    """
    for number in (2, 0):
        done = scene.run(program, **dict(zip(names, (str(number), "3"), strict=True)))
        assert (done.returncode, done.stderr) == (0, "")
    said = scene.said()
    assert said.metrics.splitlines() == [
        b'{"name":"loss","rank":%d,"step":0,"value":1}' % number for number in (0, 2)
    ]
    found = describe_distribution(said).values
    assert (found["ranks"], found["missing"]) == ("0, 2", "1")
    assert found["seeds"] == {"numpy": {"0": "3", "2": "3"}}
    assert "withoutEnd" not in found


# --- Ranks that lie -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "launched",
    [
        {"RANK": 10**6, "WORLD_SIZE": 10**6},
        {"RANK": 5, "WORLD_SIZE": 2},
        {"RANK": 0, "WORLD_SIZE": MAX_RANKS + 1},
        {"RANK": 0},
    ],
)
def test_what_cannot_be_is_no_rank(tmp_path: Path, launched: dict[str, int]) -> None:
    assert collect(tmp_path, process(1, **launched)).status == "absent"


@pytest.mark.parametrize(("number", "size"), [(-1, 2), (2, 2), (0, 2**50), ("0", "2"), (True, 2)])
def test_what_torch_cannot_say_is_no_rank(tmp_path: Path, number: Any, size: Any) -> None:  # noqa: ANN401
    assert collect(tmp_path, process(1), state(1, **group(number, size))).status == "absent"


def test_settings_that_look_like_variables_are_no_error(tmp_path: Path) -> None:
    names = (
        LAUNCHED
        | {f"environ.{name}" for name in LAUNCHED}
        | {"host", "torch.distributed.get_backend"}
    )
    for value in (True, -1, 2**53 - 1, "x", ""):
        lies = state(100, **dict.fromkeys(names, value))
        assert described(tmp_path, process(100), rank(0, 2), lies, rank(1, 2))["worldSize"] == 2


def test_two_processes_of_one_rank_are_said(tmp_path: Path) -> None:
    found = described(tmp_path, rank(0, 2), rank(0, 2, 300), rank(1, 2), ended(100), ended(101))
    assert (found["repeated"], found["withoutEnd"]) == ("0", "0")


def test_worlds_that_differ_are_said(tmp_path: Path) -> None:
    found = described(tmp_path, rank(0, 2), rank(1, 8), rank(0, 4, 300))
    assert (found["worldSize"], found["otherWorldSizes"]) == (4, [2, 8])
    assert (found["ranks"], found["missing"]) == ("0", "1-3")


def test_floods_are_bounded(tmp_path: Path) -> None:
    lines = [rank(2 * n, MAX_RANKS, 10**6 + n) for n in range(MAX_PROCESSES + 5)]
    metrics = [{"metric": "loss", "value": 1, "rank": 2 * n} for n in range(5000)]
    seeds = [{"seed": "s", "value": "1", "rank": n} for n in range(5000)]
    found = described(tmp_path, *lines, *metrics, *seeds)
    assert found["worldSize"] == MAX_RANKS
    assert len(json.dumps(found)) < 10_000
    assert found["ranks"].endswith("…")
    assert "missing" not in found  # more processes spoke than are kept
    assert described(tmp_path, *lines[:70])["missing"].endswith("…")


def test_ranks_as_a_text() -> None:
    assert in_ranges([]) == ""
    assert in_ranges([7, 0, 2, 1, 9]) == "0-2, 7, 9"
    assert in_ranges(range(1000)) == "0-999"
