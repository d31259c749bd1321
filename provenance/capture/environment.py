"""The environment: what each collector found, and what drifted during the run.

A collector never fails a training. It reports ``ok``; ``absent``, where there is nothing to find;
``denied``, where it may not look; ``error``, with the reason. None imports a framework: what a
process holds in memory is for the process to tell.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from provenance.capture import gpus, macos, processor, system
from provenance.capture.knobs import collect_knobs
from provenance.capture.redact import readable
from provenance.errors import reason
from provenance.statement.training import Collected, Drift

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MAX_DRIFT = 1000
"""Most drifted values that are listed."""


def collect_environment(
    environ: Mapping[str, str], root: Path, *, kernel: str | None = None
) -> dict[str, Collected]:
    """Return what every collector finds, under the collectors' names. Never raises.

    *environ* are the variables that the training has. *root* holds ``proc``, ``sys`` and ``etc``.
    *kernel* is the system's name, as ``uname`` gives it.
    """
    if (kernel or os.uname().sysname) == "Darwin":
        collectors: dict[str, Callable[[], dict[str, Any]]] = {
            "system": lambda: system.collect_system(root, environ) | macos.collect_version(),
            "processor": macos.collect_processor,
            "memory": macos.collect_memory,
        }
    else:
        collectors = {
            "system": lambda: system.collect_system(root, environ),
            "processor": lambda: processor.collect_processor(root),
            "memory": lambda: system.collect_memory(root),
            "gpus": lambda: gpus.collect_gpus(root),
            "container": lambda: system.collect_container(root, environ),
        }
    found = {name: collected(collect) for name, collect in collectors.items()}
    return {**found, "variables": collect_knobs(environ, environ.get("HOME", ""))}


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
    if not values:
        return Collected("absent", reason="nothing found")
    return Collected("ok", _readable(values))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or ''}: {reason(error)}".removeprefix(": ")
    return f"{type(error).__name__}: {readable(str(error))[:200]}"


def _readable(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return value


def find_drift(start: Mapping[str, Collected], end: Mapping[str, Collected]) -> tuple[Drift, ...]:
    """Return the values that differ between *start* and *end*, of collectors that are in both.

    A value inside another is named by its path, with dots: ``variables.OMP_NUM_THREADS``.
    """
    found: list[Drift] = []
    for collector in sorted(start.keys() & end.keys()):
        before, after = _flat(start[collector]), _flat(end[collector])
        found += [
            Drift(collector, name, before.get(name), after.get(name))
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        ]
    return tuple(found[:MAX_DRIFT])


def _flat(found: Collected) -> dict[str, Any]:
    flat: dict[str, Any] = {"status": found.status}
    waiting: list[tuple[str, dict[str, Any]]] = [("", found.values)]
    while waiting:
        prefix, values = waiting.pop()
        for name, value in values.items():
            if isinstance(value, dict):
                waiting.append((f"{prefix}{name}.", value))
            else:
                flat[prefix + name] = value
    return flat
