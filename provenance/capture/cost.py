"""What a run costs, as measured: energy, beside the times that :mod:`process` takes.

Energy is that of a whole device while the command ran, whatever else used it: of processors by the
counters of RAPL (Linux, ``/sys/class/powercap``; since CVE-2020-8694 mostly readable by root only),
of NVIDIA's GPUs by NVML. A counter of RAPL begins anew after ``max_energy_range_uj``, some minutes
under load, so it is read once a minute.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from provenance.capture.environment import collected, load_nvml, open_gpus, open_nvml, read_text
from provenance.capture.process import CommandResult, blocked

SECONDS_BETWEEN_READINGS = 60.0
"""At 4 kW the smallest range of a package, 262 kJ, lasts longer."""

_ZONES = "sys/class/powercap"
_SECONDS_PER_HOUR = 3600


class Meter:
    """Reads the counters before and after a command; :meth:`priced` tells the difference."""

    def __init__(self, root: Path, load: Callable[[], Any] = load_nvml) -> None:
        """Read what is in ``sys`` in the folder *root*; a reading that fails is the answer."""
        self._root, self._load = root, load
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._gpus = collected(lambda: read_gpus(self._load))
        self._zones = collected(lambda: read_zones(self._root))
        self._spent = dict.fromkeys(self._zones.values, 0)
        if self._spent:
            with contextlib.suppress(RuntimeError), blocked():
                self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._read()
        self._gpus_after = collected(lambda: read_gpus(self._load))

    def priced(self, result: CommandResult) -> CommandResult:
        """Return *result* with what was measured beside its times."""
        zones = {name: round(spent / 1e6, 3) for name, spent in self._spent.items()}
        energy = {"status": self._zones.status, "reason": self._zones.reason, "joules": zones}
        cost = result.cost | {"processorEnergy": {key: it for key, it in energy.items() if it}}
        if (begin := self._gpus).status == "ok":
            count, hours = len(begin.values["energy"]), cost["wallSeconds"] / _SECONDS_PER_HOUR
            after = self._gpus_after.values.get("energy", ())
            pairs = zip(begin.values["energy"], after, strict=False)
            told = [(a, b) for a, b in pairs if a is not None and b is not None]
            known = [round((b - a) / 1000, 3) for a, b in told if b >= a]  # else it is a new driver
            cost["gpus"] = {"present": count, "presentHours": round(count * hours, 4)}
            cost["gpus"] |= {"joules": known} if known else {}
        return replace(result, cost=cost)

    def _follow(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_READINGS):
            self._read()

    def _read(self) -> None:
        before, now = self._zones, collected(lambda: read_zones(self._root))
        if before.status != "ok":
            return
        for name in self._spent.keys() - now.values.keys():
            del self._spent[name]  # a part of it is unknown
        for name in [*self._spent]:
            (was, span), (is_now, _) = before.values[name], now.values[name]
            spent = is_now - was if is_now >= was else is_now - was + span
            self._spent[name] += spent
            if spent < 0:  # the counter had left its own range
                del self._spent[name]
        self._zones = now


def read_zones(root: Path) -> dict[str, list[int]]:
    """Return the counter of each zone of RAPL and its range, in microjoules; empty: there are none.

    A part of a zone (``core``, ``dram``) is named behind it: ``package-0/dram``.
    """
    found = {}
    for zone in sorted((root / _ZONES).glob("intel-rapl:*"))[:64]:
        package, _, part = zone.name.removeprefix("intel-rapl:").partition(":")
        names = [f"intel-rapl:{package}", *([zone.name] if part else [])]
        name = "/".join(read_text(root / _ZONES / each / "name", 64).strip() for each in names)
        counters = ("energy_uj", "max_energy_range_uj")
        found[name] = [int(read_text(zone / counter, 64)) for counter in counters]
    return found


def read_gpus(load: Callable[[], Any] = load_nvml) -> dict[str, list[int | None]]:
    """Return the energy that each GPU has used since its driver began, in mJ; None: not told."""
    with open_nvml(load) as ask:
        asked, gpus = "nvmlDeviceGetTotalEnergyConsumption", open_gpus(ask)
        return {"energy": [ask(asked, gpu) for gpu in gpus]} if gpus else {}
