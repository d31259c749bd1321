from __future__ import annotations

import inspect
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import provenance
from provenance.capture import run
from provenance.capture.python import inside, records
from provenance.capture.run import (
    MAX_NAME_BYTES,
    MAX_SEED_BITS,
    RECORDS,
    VARIABLE,
    Run,
    is_of_signal,
)
from provenance.integrations import quietly

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    records.prepare(tmp_path)
    return tmp_path


def said(directory: Path) -> list[dict[str, object]]:
    lines = directory.joinpath(RECORDS).read_text().splitlines()
    found = [json.loads(line) for line in lines if line]
    return [record for record in found if "reports" not in record]


def in_a_program(directory: Path, program: str) -> subprocess.CompletedProcess[bytes]:
    environ = {**os.environ, VARIABLE: str(directory), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environ, check=True, capture_output=True
    )


def test_outside_a_recorder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    current = provenance.current_run()
    assert not current.is_recorded
    current.metric("loss", "no number")  # type: ignore[arg-type]
    current.seed("numpy", 1)
    assert provenance.current_run() is current


def test_metrics_and_seeds_are_lines(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(directory))
    current = provenance.current_run()
    assert current.is_recorded
    current.metric("loss", 0.25, step=10)
    current.metric("loss", 1)
    current.seed("numpy", 2**64 + 1)
    assert said(directory) == [
        {"metric": "loss", "value": 0.25, "step": 10},
        {"metric": "loss", "value": 1.0},
        {"seed": "numpy", "value": "18446744073709551617"},
    ]


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ("RANK=1 WORLD_SIZE=2", {"rank": 1}),
        ("RANK=0 WORLD_SIZE=4 TORCHELASTIC_RESTART_COUNT=2", {"rank": 0, "restart": 2}),
        ("OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4", {"rank": 3}),
        ("PMI_RANK=3 PMI_SIZE=4", {"rank": 3}),
        ("MV2_COMM_WORLD_RANK=3 MV2_COMM_WORLD_SIZE=4", {"rank": 3}),
        ("SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=8", {"rank": 1}),
        ("SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=8 RANK=5 WORLD_SIZE=16", {"rank": 5}),
        # One process alone, a batch script without srun, and what cannot be.
        ("RANK=0 WORLD_SIZE=1 TORCHELASTIC_RESTART_COUNT=0", {}),
        ("RANK=0 WORLD_SIZE=1 SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2", {}),
        ("SLURM_PROCID=0 SLURM_NTASKS=4", {}),
        ("RANK=1", {}),
        ("WORLD_SIZE=2", {}),
        ("RANK=2 WORLD_SIZE=2", {}),
        ("RANK=-1 WORLD_SIZE=2", {}),
        ("RANK=x WORLD_SIZE=2", {}),
        ("RANK=1000000000 WORLD_SIZE=1000000001", {}),
        ("RANK=1 WORLD_SIZE=1048577", {}),
        (f"RANK={'9' * 5000} WORLD_SIZE=2 TORCHELASTIC_RESTART_COUNT={'9' * 5000}", {}),
        ("RANK=x WORLD_SIZE=2 PMI_RANK=1 PMI_SIZE=2", {"rank": 1}),
    ],
)
def test_a_record_says_of_which_rank_it_is(
    directory: Path, monkeypatch: pytest.MonkeyPatch, variables: str, place: dict[str, int]
) -> None:
    for name in {name for names in run.LAUNCHERS.values() for name in names} | {run.RESTARTS}:
        monkeypatch.delenv(name, raising=False)
    for each in variables.split():
        monkeypatch.setenv(*each.split("="))
    current = Run(str(directory))
    current.metric("loss", 0.5, step=1)
    current.seed("numpy", 7)
    assert said(directory) == [
        {"metric": "loss", "value": 0.5, "step": 1} | place,
        {"seed": "numpy", "value": "7"} | place,
    ]


def test_each_process_says_first_that_it_reports(directory: Path) -> None:
    run = Run(str(directory))
    run.metric("loss", 1.0)
    run.metric("loss", 2.0)
    first, *rest = directory.joinpath(RECORDS).read_text().split()
    assert json.loads(first) == {"reports": os.getpid()}
    assert len(rest) == 2
    assert records.read_records(directory).strangers == 1


def test_scalars_of_numpy_are_numbers(directory: Path) -> None:
    current = Run(str(directory))
    current.metric("loss", np.float32(0.5), np.int64(3))
    current.seed("numpy", np.uint64(2**64 - 1))
    assert said(directory) == [
        {"metric": "loss", "value": 0.5, "step": 3},
        {"seed": "numpy", "value": str(2**64 - 1)},
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")],
)
def test_what_json_cannot_hold_is_a_string(directory: Path, value: float, text: str) -> None:
    Run(str(directory)).metric("loss", value)
    assert said(directory) == [{"metric": "loss", "value": text}]


@pytest.mark.parametrize("name", ["é", 'quo"te', "line\nfeed", "\x00", "\u2028", "a/b c"])
def test_a_name_may_hold_anything(directory: Path, name: str) -> None:
    Run(str(directory)).metric(name, 1.0)
    assert said(directory) == [{"metric": name, "value": 1.0}]


class Hostile:
    def __float__(self) -> float:
        raise RuntimeError

    def __index__(self) -> int:
        raise KeyError


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.metric("loss", "a word"),
        lambda run: run.metric("loss", None),
        lambda run: run.metric("loss", Hostile()),
        lambda run: run.metric("loss", 1j),
        lambda run: run.metric("loss", 10**400),
        lambda run: run.metric("loss", 1.0, step=0.5),
        lambda run: run.metric("loss", 1.0, step=2**53),
        lambda run: run.metric("", 1.0),
        lambda run: run.metric("x" * (MAX_NAME_BYTES + 1), 1.0),
        lambda run: run.metric("\ud800", 1.0),
        lambda run: run.metric(3, 1.0),
        lambda run: run.metric(None, 1.0),
        lambda run: run.seed("numpy", 0.5),
        lambda run: run.seed("numpy", Hostile()),
        lambda run: run.seed("numpy", 1 << MAX_SEED_BITS),
        lambda run: run.seed(["list"], 1),
    ],
)
def test_what_cannot_be_kept_is_counted_and_never_raised(
    directory: Path, call: Callable[[Run], None]
) -> None:
    current = Run(str(directory))
    call(current)
    current.metric("loss", 1.0)
    current.metric("loss", 2.0)
    assert said(directory) == [
        {"dropped": 1},
        {"metric": "loss", "value": 1.0},
        {"metric": "loss", "value": 2.0},
    ]


def interrupted(*_: object) -> None:
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize("where", ["value", "writing", "callback", "probe"])
@pytest.mark.parametrize("kind", [TimeoutError, RuntimeError])
def test_what_a_signal_raises_inside_it_arrives(
    directory: Path, where: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alarm of a training is not ours to swallow; what else is raised in there is."""

    def alarm(_number: int, _frame: object) -> None:
        raise kind

    def call() -> None:
        if where == "callback":
            quietly(act)()
        elif where == "probe":
            monkeypatch.setattr(inside, "_write", act)
            assert not inside.Watch(str(directory / RECORDS), ([], [], ["/m"]), None).append("{}")
        elif where == "value":
            monkeypatch.setattr(Hostile, "__float__", act)
            Run(str(directory)).metric("loss", Hostile())
        else:
            monkeypatch.setattr(os, "open", act)
            Run(str(directory)).metric("loss", 1.0)

    before = signal.signal(signal.SIGUSR1, alarm)
    try:
        act: Callable[..., Any] = interrupted
        with pytest.raises(kind):
            call()
        act = broken
        call()
    finally:
        signal.signal(signal.SIGUSR1, before)


def broken(*_: object) -> None:
    raise RuntimeError


def test_both_tell_the_errors_of_signals_alike() -> None:
    ours = inspect.getsource(inside._is_of_signal)  # noqa: SLF001
    assert ours.replace("_is_of", "is_of") == inspect.getsource(is_of_signal)


def test_the_longest_name_and_seed_are_kept(directory: Path) -> None:
    current = Run(str(directory))
    current.seed("\x01" * MAX_NAME_BYTES, -(1 << (MAX_SEED_BITS - 1)))
    read = records.read_records(directory)
    assert read.seeds == {"\x01" * MAX_NAME_BYTES: str(-(1 << (MAX_SEED_BITS - 1)))}
    assert read.dropped == 0


def test_a_missing_run_directory_is_no_error(tmp_path: Path) -> None:
    Run(str(tmp_path / "gone")).metric("loss", 1.0)
    Run("nul\0byte").metric("loss", 1.0)


def test_a_full_disk_is_no_error_and_is_told_at_the_end(directory: Path) -> None:
    program = """
import resource, provenance
run = provenance.current_run()
for step in range(100):
    run.metric("loss", 0.5, step)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
for step in range(1000):
    run.metric("loss", 0.5, 100 + step)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
    in_a_program(directory, program)
    read = records.read_records(directory)
    assert read.damaged == 1  # the one that the limit tore
    assert read.count + read.dropped == 1100
    assert 100 < read.count < 400


def test_a_device_without_space_is_no_error(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RECORDS", "../../../../../../../../../../dev/full")
    current = Run(str(directory))
    current.metric("loss", 1.0)
    current._tell_dropped()  # noqa: SLF001 - what runs at exit
    assert current._dropped == 1  # noqa: SLF001


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "weights"
    victim.touch()
    tmp_path.joinpath(RECORDS).symlink_to(victim)
    Run(str(tmp_path)).metric("loss", 1.0)
    assert victim.read_bytes() == b""


def test_a_fork_does_not_tell_the_losses_of_its_parent(directory: Path) -> None:
    program = """
import os, provenance
run = provenance.current_run()
run.metric("", 1.0)
if os.fork() == 0:
    run.metric("loss", 2.0)
    os._exit(0)
os.wait()
run.metric("loss", 3.0)
"""
    in_a_program(directory, program)
    assert said(directory) == [
        {"metric": "loss", "value": 2.0},
        {"dropped": 1},
        {"metric": "loss", "value": 3.0},
    ]


def test_a_program_that_closes_everything_keeps_its_files_clean(directory: Path) -> None:
    program = f"""
import os, provenance
run = provenance.current_run()
run.metric("loss", 1.0)
os.closerange(3, 256)
file = open({str(directory / "weights")!r}, "w")
run.metric("loss", 2.0)
file.close()
"""
    in_a_program(directory, program)
    assert directory.joinpath("weights").read_bytes() == b""
    assert len(said(directory)) == 2


def test_processes_and_threads_do_not_tear_each_other(directory: Path) -> None:
    program = """
import threading, provenance
def work(name):
    for step in range(500):
        provenance.current_run().metric(name * 50, 0.5, step)
threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    workers = [threading.Thread(target=in_a_program, args=(directory, program)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    read = records.read_records(directory)
    assert (read.count, read.damaged, read.dropped) == (3 * 4 * 500, 0, 0)


def test_importing_it_loads_nothing_heavy(directory: Path) -> None:
    program = """
import sys, provenance
run = provenance.current_run()
run.metric("loss", 1.0, 1)
heavy = {"msgspec", "numpy", "rfc8785", "subprocess", "pathlib", "asyncio", "click"}
import json
print(json.dumps(sorted(heavy & set(sys.modules) - set(sys.stdlib_module_names))))
"""
    assert json.loads(in_a_program(directory, program).stdout) == []
