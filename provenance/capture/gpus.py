"""GPUs: NVIDIA's through its management library (NVML), which comes with the driver.

The library is called directly, so nothing has to be installed and no GPU is woken (no CUDA
context). Functions that an older driver lacks, and values that a model does not have, are left out.
Serial numbers and UUIDs are never written; a digest of the UUID tells one GPU from another.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from provenance.capture.system import read_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIBRARIES = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
"""Where the library is found: by the loader, and under WSL."""

MAX_GPUS = 64
_SUCCESS = 0
_TEXT_BYTES = 96
_PURPOSE = b"training-provenance gpu v1:"


class Library(Protocol):
    """A loaded shared library: its functions are its attributes."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        """Return the function *name*."""


class _Memory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


@dataclass(frozen=True, slots=True)
class Nvml:
    """NVML, initialised. Each method gives None where the library has no answer."""

    library: Library

    def text(self, function: str, *handle: object) -> str | None:
        """Return what *function* writes into a buffer."""
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        if not self._call(function, *handle, buffer, ctypes.c_uint(_TEXT_BYTES)):
            return None
        return buffer.value.decode("utf-8", "replace")

    def integers(self, function: str, *handle: object, count: int = 1) -> list[int] | None:
        """Return the *count* integers that *function* sets."""
        found = [ctypes.c_int() for _ in range(count)]
        if not self._call(function, *handle, *(ctypes.byref(number) for number in found)):
            return None
        return [number.value for number in found]

    def handle(self, index: int) -> ctypes.c_void_p | None:
        """Return the GPU with *index*."""
        handle = ctypes.c_void_p()
        found = self._call(
            "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle)
        )
        return handle if found else None

    def memory(self, handle: ctypes.c_void_p) -> int | None:
        """Return the memory of a GPU, in bytes."""
        memory = _Memory()
        if not self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory)):
            return None
        return int(memory.total)

    def _call(self, function: str, *arguments: object) -> bool:
        try:
            return bool(getattr(self.library, function)(*arguments) == _SUCCESS)
        except AttributeError:  # the driver is older than the function
            return False


def load_nvml() -> Library | None:
    """Return the library; None: there is no driver."""
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def collect_gpus(root: Path, load: Callable[[], Library | None] = load_nvml) -> dict[str, Any]:
    """Return the driver and the GPUs; empty: there are none.

    Raises:
        OSError: there is a driver, and it does not answer.
    """
    values: dict[str, Any] = {}
    with contextlib.suppress(OSError, IndexError):
        lines = read_text(root / "proc/driver/nvidia/version").splitlines()
        values["kernelDriver"] = lines[0][:200]
    if displays := _display_devices(root):
        values["devices"] = displays
    library = load()
    if library is None:
        return values
    nvml = Nvml(library)
    status = library.nvmlInit_v2()
    if status != _SUCCESS:
        raise OSError(status, f"the NVIDIA driver does not answer (NVML error {status})")
    try:
        return values | _collect_nvidia(nvml)
    finally:
        library.nvmlShutdown()


def _collect_nvidia(nvml: Nvml) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if driver := nvml.text("nvmlSystemGetDriverVersion"):
        values["driver"] = driver
    if cuda := nvml.integers("nvmlSystemGetCudaDriverVersion_v2"):
        values["cuda"] = f"{cuda[0] // 1000}.{cuda[0] % 1000 // 10}"
    count = nvml.integers("nvmlDeviceGetCount_v2") or [0]
    handles = [nvml.handle(index) for index in range(min(count[0], MAX_GPUS))]
    values["gpus"] = [_describe(nvml, handle) for handle in handles if handle is not None]
    return values


def _describe(nvml: Nvml, handle: ctypes.c_void_p) -> dict[str, Any]:
    gpu: dict[str, Any] = {}
    if name := nvml.text("nvmlDeviceGetName", handle):
        gpu["name"] = name
    if uuid := nvml.text("nvmlDeviceGetUUID", handle):
        gpu["idDigest"] = hashlib.sha256(_PURPOSE + uuid.encode()).hexdigest()
    if (memory := nvml.memory(handle)) is not None:
        gpu["memoryBytes"] = memory
    if version := nvml.integers("nvmlDeviceGetCudaComputeCapability", handle, count=2):
        gpu["computeCapability"] = f"{version[0]}.{version[1]}"
    if vbios := nvml.text("nvmlDeviceGetVbiosVersion", handle):
        gpu["vbios"] = vbios
    for key, function in (("mig", "nvmlDeviceGetMigMode"), ("ecc", "nvmlDeviceGetEccMode")):
        if mode := nvml.integers(function, handle, count=2):  # now, and after a restart
            gpu[key] = bool(mode[0])
    return gpu


def _display_devices(root: Path) -> list[str]:
    """Return ``vendor:device`` of the PCI graphics devices that the kernel drives."""
    found = []
    for card in sorted((root / "sys/class/drm").glob("card[0-9]*")):
        try:
            vendor = read_text(card / "device/vendor", 64).strip()
            device = read_text(card / "device/device", 64).strip()
        except OSError:
            continue
        found.append(f"{vendor}:{device}")
    return found
