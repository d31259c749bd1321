"""macOS: what Linux keeps in files, asked of ``sysctl`` and ``sw_vers``."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from provenance.capture.processor import describe_flags

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_SECONDS = 10

_FLAGS = ("machdep.cpu.features", "machdep.cpu.leaf7_features", "hw.optional")


def ask(*command: str) -> str:
    """Return what *command* writes.

    Raises:
        OSError: it is not there, fails, or takes too long.
    """
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_SECONDS)
    except subprocess.SubprocessError as error:
        raise OSError(f"{command[0]} failed") from error
    return done.stdout.decode("utf-8", "replace")


def collect_processor(ask: Callable[..., str] = ask) -> dict[str, Any]:
    """Return the processor's name, its instruction sets and its number of cores.

    Raises:
        OSError: ``sysctl`` cannot be asked.
    """
    values: dict[str, Any] = {
        "name": ask("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string").strip()[:128],
        "count": int(ask("/usr/sbin/sysctl", "-n", "hw.ncpu").strip() or 0),
    }
    flags: list[str] = []
    for name in _FLAGS:
        try:
            text = ask("/usr/sbin/sysctl", name)
        except OSError:  # Intel and ARM have different ones
            continue
        for line in text.splitlines():
            key, _, value = line.partition(": ")
            if key.startswith("hw.optional."):
                flags += [key.removeprefix("hw.optional.")] if value.strip() == "1" else []
            else:
                flags += value.split()
    return values | (describe_flags(flags) if flags else {})


def collect_memory(ask: Callable[..., str] = ask) -> dict[str, Any]:
    """Return the memory of the machine, in bytes.

    Raises:
        OSError: ``sysctl`` cannot be asked.
    """
    return {"totalBytes": int(ask("/usr/sbin/sysctl", "-n", "hw.memsize").strip() or 0)}


def collect_version(ask: Callable[..., str] = ask) -> dict[str, Any]:
    """Return the version of the system.

    Raises:
        OSError: ``sw_vers`` cannot be asked.
    """
    version = ask("/usr/bin/sw_vers", "-productVersion").strip()
    build = ask("/usr/bin/sw_vers", "-buildVersion").strip()
    return {"distribution": {"id": "macos", "version": version, "build": build}}
