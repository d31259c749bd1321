"""The processor: model, instruction sets, and how much of it the training may use.

The instruction sets decide bits: the same program with and without AVX-512 differs in the last
digits (pytorch#155552), and so does another number of threads.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from provenance.capture.system import control_group_value, read_text

if TYPE_CHECKING:
    from pathlib import Path

_FIELDS = {
    "vendor_id": "vendor",
    "cpu family": "family",
    "model": "model",
    "model name": "name",
    "stepping": "stepping",
    "microcode": "microcode",
    "CPU implementer": "implementer",
    "CPU architecture": "architecture",
    "CPU variant": "variant",
    "CPU part": "part",
    "CPU revision": "revision",
}
"""Fields of /proc/cpuinfo, x86 and ARM."""

_FLAGS = ("flags", "Features")
_FIRST_PROCESSOR = 16 * 1024


def collect_processor(root: Path) -> dict[str, Any]:
    """Return the first processor of /proc/cpuinfo, and the counts that limit threads.

    Raises:
        OSError: /proc/cpuinfo cannot be read.
    """
    text = read_text(root / "proc/cpuinfo", _FIRST_PROCESSOR).partition("\n\n")[0]
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    values: dict[str, Any] = {
        key: fields[field][:128] for field, key in _FIELDS.items() if field in fields
    }
    for field in _FLAGS:
        if field in fields:
            values |= describe_flags(fields[field].split())
    return values | collect_limits(root)


def describe_flags(flags: list[str]) -> dict[str, Any]:
    """Return *flags* in order, and the SHA-256 of them with a space between."""
    ordered = sorted(set(flags))
    text = " ".join(ordered)
    return {"flags": text, "flagsDigest": hashlib.sha256(text.encode()).hexdigest()}


def collect_limits(root: Path) -> dict[str, Any]:
    """Return how many processors there are, and how many of them this process may use."""
    values: dict[str, Any] = {"count": os.cpu_count() or 0}
    if hasattr(os, "sched_getaffinity"):
        values["usable"] = len(os.sched_getaffinity(0))
    quota = control_group_value(root, "cpu.max", "cpu/cpu.cfs_quota_us")
    if quota is not None:
        values["quota"] = quota[:64]
    return values
