# ruff: noqa: N802 - the fake has the library's names
from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pynvml
import pytest

from provenance.capture import cost
from provenance.capture.cost import Meter, read_zones
from provenance.capture.process import CommandResult, run
from tests.capture.test_gpus import FakeNvml, absent

if TYPE_CHECKING:
    from collections.abc import Callable

RANGE = 262_143_328_850
ENDED = CommandResult(0, "", "", cost={"wallSeconds": 1800.0})


def zone(root: Path, name: str, says: str, energy: int) -> Path:
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in {"name": says, "energy_uj": energy, "max_energy_range_uj": RANGE}.items():
        folder.joinpath(file).write_text(f"{text}\n")
    return folder


def test_times_and_memory_are_those_of_the_command_and_its_children() -> None:
    # A command begins with the peak of its caller, here of all tests before: it takes more.
    unit = 1 if sys.platform == "darwin" else 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit + 300_000_000
    child = f"x = bytearray({size})\nfor n in range(3_000_000): pass"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    ended = run(
        [sys.executable, "-c", program],
        folder=Path(),
        environ=os.environ,
    )
    assert sum(ended.cost["cpuSeconds"].values()) > 0
    assert ended.cost["wallSeconds"] > 0
    assert size < ended.cost["peakMemoryBytes"] < size + 3_000_000_000


def test_what_the_recorder_itself_has_is_no_peak_of_the_command() -> None:
    ended = run(["true"], folder=Path(), environ=os.environ)
    assert "peakMemoryBytes" not in ended.cost
    assert {"wallSeconds", "cpuSeconds"} == ended.cost.keys()


def test_a_counter_that_begins_anew_goes_on(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 4_000_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 1_000_000)
    with Meter(tmp_path, absent) as meter:
        zone(tmp_path, "intel-rapl:0", "package-0", 6_000_000)
        zone(tmp_path, "intel-rapl:0:1", "dram", 1_500_000)
    joules = {"package-0": 10.0, "package-0/dram": 0.5}
    energy = {"status": "ok", "joules": joules}
    assert meter.priced(ENDED).cost == ENDED.cost | {"processorEnergy": energy}


def test_counters_that_count_what_cannot_be_tell_nothing(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 2 * RANGE)

    class Reloaded(FakeNvml):
        used = 5_000

        def nvmlDeviceGetTotalEnergyConsumption(self, _gpu: object) -> int:
            return self.used

    library = Reloaded()
    with Meter(tmp_path, lambda: library) as meter:
        zone(tmp_path, "intel-rapl:0", "package-0", 1)
        library.used = 1_000
    found = meter.priced(ENDED).cost
    assert "joules" not in found["processorEnergy"]
    assert "joules" not in found["gpus"]


def test_a_counter_that_begins_anew_twice_is_read_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, all_read = [0, RANGE // 2, 0, RANGE // 2, 0], threading.Event()

    def follow(_root: Path) -> dict[str, list[int]]:
        if len(readings) == 1:
            all_read.set()
            return {"package-0": [readings[0], RANGE]}
        return {"package-0": [readings.pop(0), RANGE]}

    monkeypatch.setattr(cost, "read_zones", follow)
    monkeypatch.setattr(cost, "SECONDS_BETWEEN_READINGS", 0.001)
    with Meter(tmp_path, absent) as meter:
        assert all_read.wait(120)
    found = meter.priced(ENDED).cost["processorEnergy"]["joules"]["package-0"]
    assert found == round(2 * RANGE / 1e6, 3)


def test_what_only_root_may_read_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, _limit: int = 0) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    monkeypatch.setattr(cost, "read_text", refuse)
    with Meter(tmp_path, absent) as meter:
        pass
    assert meter.priced(ENDED).cost["processorEnergy"]["status"] == "denied"


@pytest.mark.parametrize("change", ["remove", "damage"])
def test_a_counter_that_goes_is_no_energy(tmp_path: Path, change: str) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    with Meter(tmp_path, absent) as meter:
        if change == "remove":
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        else:
            folder.joinpath("energy_uj").write_text("much\n")
    assert "joules" not in meter.priced(ENDED).cost["processorEnergy"]


def test_energy_of_gpus_is_that_of_the_devices(tmp_path: Path) -> None:
    class Counting(FakeNvml):
        used = 5_000

        def nvmlDeviceGetTotalEnergyConsumption(self, gpu: int | None) -> int:
            if gpu is None:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
            self.used += 2_500
            return self.used

    library = Counting()
    with Meter(tmp_path, lambda: library) as meter:
        pass
    gpus = {"present": 2, "presentHours": 1.0, "joules": [2.5]}
    assert meter.priced(ENDED).cost["gpus"] == gpus
    assert library.open == 0


def test_gpus_without_a_counter_are_present_all_the_same(tmp_path: Path) -> None:
    with Meter(tmp_path, FakeNvml) as meter:
        pass
    assert meter.priced(ENDED).cost["gpus"] == {"present": 2, "presentHours": 1.0}


def test_a_driver_that_fails_costs_the_run_nothing(tmp_path: Path) -> None:
    def broken() -> Any:  # noqa: ANN401 - the library
        raise RuntimeError("defect")

    with Meter(tmp_path, broken) as meter:
        pass
    assert "gpus" not in meter.priced(ENDED).cost


def test_the_thread_that_reads_takes_no_signal(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    masks: list[set[int]] = []
    read: Callable[[Path], dict[str, list[int]]] = read_zones

    class Watched(Meter):
        def _follow(self) -> None:
            masks.append({int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, ())})

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with Watched(tmp_path, absent):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1} <= masks[0]
    assert read(tmp_path) == {"package-0": [1, RANGE]}
