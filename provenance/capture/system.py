"""The operating system, memory, container and batch system, from the files that tell of them.

*root* is the folder under which ``proc``, ``sys`` and ``etc`` stand: ``/``, or a test's. Nothing
here names the host or the user: the machine is told from others by a keyed digest of its id.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from typing import TYPE_CHECKING, Any

from provenance.capture.redact import readable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_FILE_BYTES = 2**20
"""Most that is read of one such file, in bytes; the largest, /proc/cpuinfo, is read elsewhere."""

_LOCALE = ("LANG", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_NUMERIC", "TZ")
_PURPOSE = b"training-provenance machine v1"
_CONTAINER_FILES = {"docker": ".dockerenv", "podman": "run/.containerenv"}
_CONTAINER_VARIABLES = {
    "apptainer": ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"),
    "kubernetes": ("KUBERNETES_SERVICE_HOST",),
    "slurm": ("SLURM_JOB_ID",),
    "ci": ("CI",),
}
_CONTAINER_WORDS = ("docker", "kubepods", "containerd", "libpod", "lxc")


def read_text(path: Path, limit: int = MAX_FILE_BYTES) -> str:
    """Return at most *limit* bytes of the file at *path*, as text.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(limit).decode("utf-8", "replace")


def collect_system(root: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return kernel, C library, distribution, locale and time zone."""
    kernel = os.uname()
    values: dict[str, Any] = {
        "system": kernel.sysname,
        "kernel": kernel.release,
        "machine": kernel.machine,
        "locale": {name: readable(environ[name])[:64] for name in _LOCALE if name in environ},
    }
    if library := _c_library():
        values["libc"] = library
    if distribution := _distribution(root):
        values["distribution"] = distribution
    if machine := _machine_digest(root):
        values["machineDigest"] = machine
    return values


def _c_library() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # another C library
        return ""


def _distribution(root: Path) -> dict[str, str]:
    """Return the id and the version of os-release(5)."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = read_text(root / name)
        except OSError:
            continue
        found = dict(re.findall(r"(?m)^([A-Z_]+)=[\"']?(.*?)[\"']?$", text))
        wanted = {"ID": "id", "VERSION_ID": "version", "BUILD_ID": "build"}
        return {key: found[field][:64] for field, key in wanted.items() if field in found}
    return {}


def _machine_digest(root: Path) -> str:
    """Return a digest that tells this machine from others and leads to no other service.

    machine-id(5) asks that the id itself be kept secret and only a keyed digest be shown.
    """
    try:
        machine = read_text(root / "etc/machine-id").strip()
    except OSError:
        return ""
    if not re.fullmatch(r"[0-9a-f]{32}", machine):
        return ""
    return hmac.new(bytes.fromhex(machine), _PURPOSE, hashlib.sha256).hexdigest()


def collect_memory(root: Path) -> dict[str, Any]:
    """Return the memory of the machine and what the control group allows, in bytes."""
    text = read_text(root / "proc/meminfo")
    sizes = dict(re.findall(r"(?m)^(MemTotal|SwapTotal): +(\d+) kB$", text))
    values: dict[str, Any] = {}
    if "MemTotal" in sizes:
        values["totalBytes"] = int(sizes["MemTotal"]) * 1024
    if "SwapTotal" in sizes:
        values["swapBytes"] = int(sizes["SwapTotal"]) * 1024
    limit = control_group_value(root, "memory.max", "memory/memory.limit_in_bytes")
    if limit is not None and limit.isdecimal():
        values["limitBytes"] = limit  # a string: without a limit version 1 says almost 2^63
    return values


def control_group_value(root: Path, name: str, name_v1: str) -> str | None:
    """Return the value *name* of the control group of this process; None: there is none.

    In version 2 the process's own group stands in /proc/self/cgroup (seen from a container it is
    often ``/``); in version 1 each controller has its folder.
    """
    own = ""
    try:
        for line in read_text(root / "proc/self/cgroup").splitlines():
            if line.startswith("0::/"):
                own = line[4:]
    except OSError:
        pass
    base = root / "sys/fs/cgroup"
    for path in (base / own / name, base / name, base / name_v1):
        try:
            if ".." not in path.parts:
                return read_text(path, 256).strip()
        except OSError:
            continue
    return None


def collect_container(root: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what hints at a container, a batch system or continuous integration."""
    hints = {name for name, file in _CONTAINER_FILES.items() if (root / file).exists()}
    for hint, variables in _CONTAINER_VARIABLES.items():
        if any(environ.get(variable) for variable in variables):
            hints.add(hint)
    try:
        groups = read_text(root / "proc/self/cgroup")
    except OSError:
        groups = ""
    hints |= {f"cgroup:{word}" for word in _CONTAINER_WORDS if word in groups}
    return {"hints": sorted(hints)}
