from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from provenance.capture.environment import (
    _ask_mac,
    collect_environment,
    mac_memory,
    mac_processor,
    mac_version,
)

if TYPE_CHECKING:
    from pathlib import Path

ANSWERS = {
    "machdep.cpu.brand_string": "Apple M4 Max\n",
    "hw.ncpu": "16\n",
    "hw.memsize": "68719476736\n",
    "hw.optional": "hw.optional.arm.FEAT_BF16: 1\nhw.optional.arm.FEAT_SME: 0\n",
    "machdep.cpu.features": "machdep.cpu.features: FPU SSE\n",
    "-productVersion": "15.5\n",
    "-buildVersion": "24F74\n",
}


def fake_ask(*command: str) -> str:
    if command[-1] not in ANSWERS:
        raise OSError(command)
    return ANSWERS[command[-1]]


def test_a_mac_is_described_by_its_tools() -> None:
    found = mac_processor(fake_ask)
    assert (found["name"], found["count"]) == ("Apple M4 Max", 16)
    assert found["flags"] == "FPU SSE arm.FEAT_BF16"
    assert mac_memory(fake_ask) == {"totalBytes": 2**36}
    assert mac_version(fake_ask) == {
        "distribution": {"id": "macos", "version": "15.5", "build": "24F74"}
    }


def test_tools_that_fail_are_errors_of_the_system() -> None:
    assert _ask_mac("echo", "x") == "x\n"
    with pytest.raises(OSError, match="false failed"):
        _ask_mac("false")
    with pytest.raises(FileNotFoundError):
        _ask_mac("/no/such/tool")


def test_the_collectors_of_a_mac_do_not_break_elsewhere(tmp_path: Path) -> None:
    found = collect_environment({}, tmp_path, kernel="Darwin")
    assert {item.status for item in found.values()} <= {"ok", "absent", "error"}
    assert set(found) == {"system", "processor", "memory", "variables"}
