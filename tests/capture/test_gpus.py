# ruff: noqa: ANN401, N802, SLF001 - the fake has the library's names and takes what ctypes passes
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import pytest

from provenance.capture.gpus import Library, collect_gpus, load_nvml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def absent() -> None:
    return None


class FakeLibrary:
    """NVML as seen through ctypes: pointers come in, values are put where they point."""

    def __init__(self, *, works: bool = True) -> None:
        self.works = works
        self.open = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        raise AttributeError(name)  # an older driver

    def nvmlInit_v2(self) -> int:
        self.open += 1
        return 0 if self.works else 999

    def nvmlShutdown(self) -> int:
        self.open -= 1
        return 0

    def nvmlSystemGetDriverVersion(self, buffer: Any, _size: Any) -> int:
        buffer.value = b"570.1"
        return 0

    def nvmlSystemGetCudaDriverVersion_v2(self, number: Any) -> int:
        number._obj.value = 12080
        return 0

    def nvmlDeviceGetCount_v2(self, number: Any) -> int:
        number._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        handle._obj.value = index.value + 1
        return 0 if index.value == 0 else 15  # the second one has fallen off the bus

    def nvmlDeviceGetName(self, _handle: Any, buffer: Any, _size: Any) -> int:
        buffer.value = b"NVIDIA H200"
        return 0

    def nvmlDeviceGetUUID(self, _handle: Any, buffer: Any, _size: Any) -> int:
        buffer.value = b"GPU-00000000-1111-2222-3333-444444444444"
        return 0

    def nvmlDeviceGetMemoryInfo(self, _handle: Any, memory: Any) -> int:
        memory._obj.total = 141 * 2**30
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, _h: Any, major: Any, minor: Any) -> int:
        major._obj.value, minor._obj.value = 9, 0
        return 0

    def nvmlDeviceGetEccMode(self, _h: Any, now: Any, later: Any) -> int:
        now._obj.value, later._obj.value = 1, 0
        return 0

    def nvmlDeviceGetMigMode(self, _h: Any, _now: Any, _later: Any) -> int:
        return 3  # not supported


def test_without_a_driver_there_is_nothing(tmp_path: Path) -> None:
    assert collect_gpus(tmp_path, absent) == {}


def test_gpus_are_described_without_their_identity(tmp_path: Path) -> None:
    tmp_path.joinpath("proc/driver/nvidia").mkdir(parents=True)
    tmp_path.joinpath("proc/driver/nvidia/version").write_text("NVRM version: 570.1\nGCC\n")
    library = FakeLibrary()
    found = collect_gpus(tmp_path, lambda: library)
    [gpu] = found["gpus"]
    assert len(gpu.pop("idDigest")) == 64
    assert found == {
        "kernelDriver": "NVRM version: 570.1",
        "driver": "570.1",
        "cuda": "12.8",
        "gpus": [
            {
                "name": "NVIDIA H200",
                "memoryBytes": 141 * 2**30,
                "computeCapability": "9.0",
                "ecc": True,
            }
        ],
    }
    assert "GPU-0000" not in str(found)
    assert library.open == 0


def test_a_driver_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="NVML error 999"):
        collect_gpus(tmp_path, lambda: FakeLibrary(works=False))


def test_other_graphics_devices_are_listed(tmp_path: Path) -> None:
    for card, vendor in (("card0", "0x1002\n"), ("card1", None)):
        device = tmp_path / "sys/class/drm" / card / "device"
        device.mkdir(parents=True)
        if vendor:
            device.joinpath("vendor").write_text(vendor)
            device.joinpath("device").write_text("0x744c\n")
    assert collect_gpus(tmp_path, absent) == {"devices": ["0x1002:0x744c"]}


def test_the_library_is_loaded_where_it_is() -> None:
    library: Library | None = load_nvml()
    assert library is None or isinstance(library, ctypes.CDLL)
