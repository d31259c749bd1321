# ruff: noqa: N802 - the fake has the library's names
from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import pynvml
import pytest

from provenance.capture.environment import collect_environment, collect_gpus, collected

if TYPE_CHECKING:
    from pathlib import Path


class FakeNvml:
    """nvidia-ml-py: what a driver has it answers, for the rest it raises its own error."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_LIBRARY_NOT_FOUND = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    NVML_ERROR_DRIVER_NOT_LOADED = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    NVML_ERROR_NO_PERMISSION = pynvml.NVML_ERROR_NO_PERMISSION

    def __init__(self, error: int = 0) -> None:
        self.error = error
        self.open = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any function of the library
        def refuse(*_arguments: object) -> NoReturn:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)

        if not name.startswith("nvml"):
            raise AttributeError(name)
        return refuse

    def nvmlInit(self) -> None:
        if self.error:
            raise pynvml.NVMLError(self.error)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.1"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12080

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return 7

    def nvmlDeviceGetName(self, _gpu: int) -> bytes:
        return b"NVIDIA H200"  # as older versions give it

    def nvmlDeviceGetUUID(self, _gpu: int) -> str:
        return "GPU-00000000-1111-2222-3333-444444444444"

    def nvmlDeviceGetMemoryInfo(self, _gpu: int) -> SimpleNamespace:
        return SimpleNamespace(total=141 * 2**30)

    def nvmlDeviceGetCudaComputeCapability(self, _gpu: int) -> tuple[int, int]:
        return 9, 0

    def nvmlDeviceGetEccMode(self, _gpu: int) -> list[int]:
        return [1, 0]


def absent() -> FakeNvml:
    return FakeNvml(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)


@pytest.mark.parametrize(
    "error", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED]
)
def test_without_a_driver_there_is_nothing(tmp_path: Path, error: int) -> None:
    found = collected(lambda: collect_gpus(tmp_path, lambda: FakeNvml(error)))
    assert (found.status, found.values) == ("absent", {})


def test_gpus_are_described_without_their_identity(tmp_path: Path) -> None:
    tmp_path.joinpath("proc/driver/nvidia").mkdir(parents=True)
    tmp_path.joinpath("proc/driver/nvidia/version").write_text("NVRM version: 570.1\nGCC\n")
    library = FakeNvml()
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
    found = collected(lambda: collect_gpus(tmp_path, lambda: FakeNvml(pynvml.NVML_ERROR_UNKNOWN)))
    assert found.status == "error"
    assert "NVML error 999" in found.reason


def test_a_driver_that_answers_to_others_only_is_denied(tmp_path: Path) -> None:
    library = FakeNvml(pynvml.NVML_ERROR_NO_PERMISSION)
    assert collected(lambda: collect_gpus(tmp_path, lambda: library)).status == "denied"


def test_other_graphics_devices_are_listed(tmp_path: Path) -> None:
    for card, vendor in (("card0", "0x1002\n"), ("card1", None)):
        device = tmp_path / "sys/class/drm" / card / "device"
        device.mkdir(parents=True)
        if vendor:
            device.joinpath("vendor").write_text(vendor)
            device.joinpath("device").write_text("0x744c\n")
    assert collect_gpus(tmp_path, absent) == {"devices": ["0x1002:0x744c"]}


def test_the_library_of_this_machine_is_asked(tmp_path: Path) -> None:
    assert collect_environment({}, tmp_path)["gpus"].status in ("ok", "absent")
