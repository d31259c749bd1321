"""The environment: what each collector finds on this machine, and what drifts during the run.

A collector never fails a training. It reports ``ok``, ``absent`` (nothing to find), ``denied`` (no
permission) or ``error``, with the reason. None imports a framework.

What affects bits is recorded in full: results differ in the last digits with and without AVX-512
(pytorch#155552), and with the number of threads. Nothing names the host or the user: machines and
GPUs are identified by keyed digests of their ids. Variables on an allow-list are kept; the others
are counted, because even their names can reveal customers and services.

*root* is the folder that contains ``proc``, ``sys`` and ``etc``: ``/``, or a test's.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import importlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from provenance.capture.python.state import NAMES, PREFIXES
from provenance.capture.secrecy.redact import readable, redact_variable
from provenance.capture.secrecy.secrets import is_suspect_name, kind_of_name
from provenance.errors import reason
from provenance.statement.training import Collected, Drift

MAX_DRIFT = 1000
"""Most drifted values listed."""

MAX_VALUE = 1024
"""Longest value of a variable kept, in characters."""

MAX_FILE_BYTES = 2**20
MAX_GPUS = 64
_TIMEOUT_SECONDS = 10
_FIRST_PROCESSOR = 16 * 1024
_MACHINE = b"training-provenance machine v1"
_GPU = b"training-provenance gpu v1:"

_TERRAFORM = ("TF_CLI_", "TF_DATA_", "TF_LOG", "TF_TOKEN_", "TF_VAR_", "TF_WORKSPACE")
"""Variables of Terraform, which shares TensorFlow's prefix and holds credentials."""

_HOSTS = re.compile(
    r"_(?:ADDR(?:ESS)?|COMM_ID|ENDPOINT|HOSTS?|HOSTNAME|BACKEND_TARGET|DIR)$|^TF_CONFIG$"
)
"""Names whose values name machines, or folders, and often users: ``JAX_COORDINATOR_ADDRESS``,
``TF_CONFIG``, ``TORCHINDUCTOR_CACHE_DIR``."""

_ANY_HOST = frozenset("localhost localhost.localdomain linux debian ubuntu host node vm".split())
"""Host names that do not identify a machine."""

_LOCALE = ("LANG", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_NUMERIC", "TZ")
_CONTAINER_FILES = {"docker": ".dockerenv", "podman": "run/.containerenv"}
_CONTAINER_VARIABLES = {
    "APPTAINER_CONTAINER": "apptainer", "SINGULARITY_CONTAINER": "apptainer",
    "KUBERNETES_SERVICE_HOST": "kubernetes", "SLURM_JOB_ID": "slurm", "CI": "ci",
}  # fmt: skip
_CONTAINER_WORDS = ("docker", "kubepods", "containerd", "libpod", "lxc")

_CPU_FIELDS = {
    "vendor_id": "vendor", "cpu family": "family", "model": "model", "model name": "name",
    "stepping": "stepping", "microcode": "microcode",
    "CPU implementer": "implementer", "CPU architecture": "architecture", "CPU variant": "variant",
    "CPU part": "part", "CPU revision": "revision",
}  # fmt: skip
"""Fields of /proc/cpuinfo, x86 and ARM."""

_MAC_FLAGS = ("machdep.cpu.features", "machdep.cpu.leaf7_features", "hw.optional")


def collect_environment(
    environ: Mapping[str, str], root: Path, *, kernel: str | None = None
) -> dict[str, Collected]:
    """Return what every collector finds, by its name. Never raises.

    *environ* is the training's. *kernel* is the system's name, as ``uname`` gives it.
    """
    collectors: dict[str, Callable[[], dict[str, Any]]] = {
        "system": lambda: collect_system(root, environ),
        "processor": lambda: collect_processor(root),
        "memory": lambda: collect_memory(root),
        "gpus": lambda: collect_gpus(root),
        "container": lambda: collect_container(root, environ),
    }
    if (kernel or os.uname().sysname) == "Darwin":
        collectors = {
            "system": lambda: collect_system(root, environ) | mac_version(),
            "processor": mac_processor,
            "memory": mac_memory,
        }
    collectors["variables"] = lambda: collect_variables(environ)
    return {name: collected(collect) for name, collect in collectors.items()}


def collected(collect: Callable[[], dict[str, Any]]) -> Collected:
    """Return what *collect* finds, or why it does not."""
    try:
        values = collect()
    except FileNotFoundError as error:
        return Collected("absent", reason=_reason(error))
    except PermissionError as error:
        return Collected("denied", reason=_reason(error))
    except Exception as error:  # noqa: BLE001 - a strange machine must not stop the training
        return Collected("error", reason=_reason(error))
    return (
        Collected("ok", _readable(values)) if values else Collected("absent", {}, "nothing found")
    )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or ''}: {reason(error)}".removeprefix(": ")
    return f"{type(error).__name__}: {readable(str(error))[:200]}"


def _readable(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    return [_readable(item) for item in value] if isinstance(value, list) else value


def find_drift(start: Mapping[str, Collected], end: Mapping[str, Collected]) -> tuple[Drift, ...]:
    """Return the values that differ between *start* and *end*, for collectors in both.

    A nested value is named by its path, with dots: ``variables.OMP_NUM_THREADS``.
    """
    found: list[Drift] = []
    for collector in sorted(start.keys() & end.keys()):
        both = ({"status": it.status, **it.values} for it in (start[collector], end[collector]))
        before, after = (dict(_flat(each, "")) for each in both)
        names = sorted(before.keys() | after.keys())
        all_values = (Drift(collector, name, before.get(name), after.get(name)) for name in names)
        found += (drift for drift in all_values if drift.start != drift.end)
    return tuple(found[:MAX_DRIFT])


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def collect_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the variables of the allow-list, and how many others are set.

    Those with a secret name, or that name machines, are left out.
    """
    named = {os.uname().nodename, environ.get("HOSTNAME", "")} - _ANY_HOST
    hosts = sorted({*named, *(name.partition(".")[0] for name in named)} - {""}, reverse=True)
    kept: dict[str, str] = {}
    secret = 0
    for name in sorted(environ):
        listed = name in NAMES or (name.startswith(PREFIXES) and not name.startswith(_TERRAFORM))
        if not listed or _HOSTS.search(name):
            continue
        if is_suspect_name(name) and kind_of_name(name, environ[name]):
            secret += 1
            continue
        kept[name] = redact_variable(environ[name], environ.get("HOME", ""), hosts)[:MAX_VALUE]
    values: dict[str, Any] = {"variables": kept, "others": len(environ) - len(kept)}
    return values | ({"leftOut": secret} if secret else {})


def read_text(path: Path, limit: int = MAX_FILE_BYTES) -> str:
    """Return at most *limit* bytes of the file at *path*, as text."""
    with path.open("rb") as file:
        return file.read(limit).decode("utf-8", "replace")


def _text_or_empty(path: Path) -> str:
    try:
        return read_text(path)
    except OSError:
        return ""


def collect_system(root: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the kernel, C library, distribution, locale and time zone."""
    kernel = os.uname()
    locale = {name: environ[name] for name in _LOCALE if name in environ}
    values: dict[str, Any] = {
        "system": kernel.sysname,
        "kernel": kernel.release,
        "machine": kernel.machine,
        "locale": {name: redact_variable(locale[name], "", ())[:64] for name in locale},
    }
    with contextlib.suppress(ValueError, OSError):  # another C library
        values["libc"] = os.confstr("CS_GNU_LIBC_VERSION")
    for name in ("usr/lib/os-release", "etc/os-release"):  # os-release(5): the second is preferred
        if text := _text_or_empty(root / name):
            found = dict(re.findall(r"(?m)^([A-Z_]+)=[\"']?(.*?)[\"']?$", text))
            wanted = {"ID": "id", "VERSION_ID": "version", "BUILD_ID": "build"}
            values["distribution"] = _renamed(found, wanted, 64)
    machine = _text_or_empty(root / "etc/machine-id").strip()
    if re.fullmatch(r"[0-9a-f]{32}", machine):  # machine-id(5): show only a keyed digest of it
        values["machineDigest"] = hmac.digest(bytes.fromhex(machine), _MACHINE, "sha256").hex()
    return {name: value for name, value in values.items() if value or name == "locale"}


def _renamed(found: Mapping[str, str], names: Mapping[str, str], limit: int) -> dict[str, Any]:
    return {key: found[name][:limit] for name, key in names.items() if name in found}


def collect_processor(root: Path) -> dict[str, Any]:
    """Return the first processor of /proc/cpuinfo, and the counts that limit threads."""
    text = read_text(root / "proc/cpuinfo", _FIRST_PROCESSOR).partition("\n\n")[0]
    lines = (line.partition(":") for line in text.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    values = _renamed(fields, _CPU_FIELDS, 128)
    for field in ("flags", "Features"):
        if field in fields:
            values |= _flags(fields[field].split())
    values["count"] = os.cpu_count() or 0
    if hasattr(os, "sched_getaffinity"):
        values["usable"] = len(os.sched_getaffinity(0))
    quota = control_group_value(root, "cpu.max", "cpu/cpu.cfs_quota_us")
    return values if quota is None else values | {"quota": quota[:64]}


def _flags(flags: list[str]) -> dict[str, Any]:
    text = " ".join(sorted(set(flags)))
    return {"flags": text, "flagsDigest": hashlib.sha256(text.encode()).hexdigest()}


def collect_memory(root: Path) -> dict[str, Any]:
    """Return the memory of the machine and what the control group allows, in bytes."""
    sizes = re.findall(r"(?m)^(Mem|Swap)Total: +(\d+) kB$", read_text(root / "proc/meminfo"))
    keys = {"Mem": "totalBytes", "Swap": "swapBytes"}
    values: dict[str, Any] = {keys[name]: int(size) * 1024 for name, size in sizes}
    limit = control_group_value(root, "memory.max", "memory/memory.limit_in_bytes")
    if limit is not None and re.fullmatch("[0-9]{1,15}", limit):
        values["limitBytes"] = int(limit)  # without a limit version 1 says almost 2^63, 2 "max"
    return values


def control_group_value(root: Path, name: str, name_v1: str) -> str | None:
    """Return the value *name* of this process's control group; None if there is none.

    In version 2 /proc/self/cgroup names the group (in a container it is often ``/``); in version 1
    each controller has its folder.
    """
    groups = _text_or_empty(root / "proc/self/cgroup").splitlines()
    own = next((line[4:] for line in reversed(groups) if line.startswith("0::/")), "")
    base = root / "sys/fs/cgroup"
    for path in (base / own / name, base / name, base / name_v1):
        with contextlib.suppress(OSError):
            if ".." not in path.parts:
                return read_text(path, 256).strip()
    return None


def collect_container(root: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what hints at a container, a batch system or continuous integration."""
    hints = {name for name, file in _CONTAINER_FILES.items() if (root / file).exists()}
    hints |= {hint for variable, hint in _CONTAINER_VARIABLES.items() if environ.get(variable)}
    groups = _text_or_empty(root / "proc/self/cgroup")
    hints |= {f"cgroup:{word}" for word in _CONTAINER_WORDS if word in groups}
    return {"hints": sorted(hints)}


# ----------------------------------------------------------------------------------------- GPUs


def load_nvml() -> Any:  # noqa: ANN401 - nvidia-ml-py has no types
    """Return nvidia-ml-py, which takes a while to import."""
    return importlib.import_module("pynvml")


def collect_gpus(root: Path, load: Callable[[], Any] = load_nvml) -> dict[str, Any]:
    """Return the driver and the GPUs; empty if there are none.

    NVIDIA's come from the driver's management library (NVML), which creates no CUDA context. What
    a driver or a GPU does not report is left out.
    """
    values: dict[str, Any] = {}
    if version := _text_or_empty(root / "proc/driver/nvidia/version"):
        values["kernelDriver"] = version.splitlines()[0][:200]
    devices = []
    for card in sorted((root / "sys/class/drm").glob("card[0-9]*")):
        with contextlib.suppress(OSError):
            ids = (read_text(card / "device" / name, 64).strip() for name in ("vendor", "device"))
            devices.append(":".join(ids))
    if devices:
        values["devices"] = devices
    with open_nvml(load) as ask:
        return values | _nvidia(ask)


@contextlib.contextmanager
def open_nvml(load: Callable[[], Any] = load_nvml) -> Iterator[Callable[..., Any]]:
    """Give what asks a function of NVML; None if this driver or GPU, or no driver, has no answer.

    Raises PermissionError or OSError where the driver does not answer.
    """
    nvml = load()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if error.value in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
            yield lambda *_: None
            return
        kind = PermissionError if error.value == nvml.NVML_ERROR_NO_PERMISSION else OSError
        raise kind(f"the NVIDIA driver does not answer (NVML error {error.value})") from error

    def ask(function: str, *arguments: object) -> Any:  # noqa: ANN401 - nvidia-ml-py has no types
        try:
            answer = getattr(nvml, function)(*arguments)
        except nvml.NVMLError:
            return None
        return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer

    try:
        yield ask
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def open_gpus(ask: Callable[..., Any]) -> list[Any] | None:
    """Return the handles of the GPUs, None for one that is lost; None: they cannot be counted."""
    if (count := ask("nvmlDeviceGetCount")) is None:
        return None
    return [ask("nvmlDeviceGetHandleByIndex", index) for index in range(min(count, MAX_GPUS))]


def _nvidia(ask: Callable[..., Any]) -> dict[str, Any]:
    def describe(gpu: object) -> dict[str, Any]:
        uuid, memory = ask("nvmlDeviceGetUUID", gpu), ask("nvmlDeviceGetMemoryInfo", gpu)
        version = ask("nvmlDeviceGetCudaComputeCapability", gpu)
        modes = ask("nvmlDeviceGetMigMode", gpu), ask("nvmlDeviceGetEccMode", gpu)
        mig, ecc = (None if mode is None else bool(mode[0]) for mode in modes)  # now, later
        found = {
            "name": ask("nvmlDeviceGetName", gpu),
            "idDigest": uuid and hashlib.sha256(_GPU + uuid.encode()).hexdigest(),
            "memoryBytes": memory and int(memory.total),
            "computeCapability": version and f"{version[0]}.{version[1]}",
            "vbios": ask("nvmlDeviceGetVbiosVersion", gpu),
        } | {"mig": mig, "ecc": ecc}
        return {name: value for name, value in found.items() if value not in (None, "")}

    cuda = ask("nvmlSystemGetCudaDriverVersion_v2")
    gpus = open_gpus(ask)
    values = {
        "driver": ask("nvmlSystemGetDriverVersion"),
        "cuda": cuda and f"{cuda // 1000}.{cuda % 1000 // 10}",
        "gpus": None if gpus is None else [describe(gpu) for gpu in gpus if gpu is not None],
    }
    return {name: value for name, value in values.items() if value is not None}


# ---------------------------------------------------------------------------------------- macOS


def _ask_mac(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_SECONDS)
    except subprocess.SubprocessError as error:
        raise OSError(f"{command[0]} failed") from error
    return done.stdout.decode("utf-8", "replace")


def mac_processor(ask: Callable[..., str] = _ask_mac) -> dict[str, Any]:
    """Return the processor's name, its instruction sets and its number of cores."""
    flags: list[str] = []
    for name in _MAC_FLAGS:
        with contextlib.suppress(OSError):  # Intel and ARM have different ones
            for line in ask("/usr/sbin/sysctl", name).splitlines():
                key, _, value = line.partition(": ")
                feature = key.removeprefix("hw.optional.")
                flags += value.split() if feature == key else [feature] * (value.strip() == "1")
    return {
        "name": ask("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string").strip()[:128],
        "count": int(ask("/usr/sbin/sysctl", "-n", "hw.ncpu").strip() or 0),
    } | (_flags(flags) if flags else {})


def mac_memory(ask: Callable[..., str] = _ask_mac) -> dict[str, Any]:
    """Return the memory of the machine, in bytes."""
    return {"totalBytes": int(ask("/usr/sbin/sysctl", "-n", "hw.memsize").strip() or 0)}


def mac_version(ask: Callable[..., str] = _ask_mac) -> dict[str, Any]:
    """Return the version of the system."""
    names = {"version": "-productVersion", "build": "-buildVersion"}
    found = {name: ask("/usr/bin/sw_vers", option).strip() for name, option in names.items()}
    return {"distribution": {"id": "macos"} | found}
