"""The start-up folder: how every Python of a run is made to speak (docs/adr/0017).

The folder ``startup`` in the run's folder holds ``sitecustomize.py`` alone and is the first on the
child's ``PYTHONPATH``. Python imports that module when it starts, unless it is called with ``-I``,
``-E`` or ``-S``. The module takes its folder off ``sys.path``, runs
:mod:`~provenance.capture.python.inside`, and then the ``sitecustomize`` that would have been found
without it. Any Python parses it; those before 3.8 only step aside. To compile ``inside`` takes most
of the time, so it lies beside the folder, where Python keeps what it compiled; so do ``state``,
which :mod:`~provenance.capture.python.inside` runs when there is something to ask, and ``run``,
which it offers as ``provenance``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

from provenance.capture.run import RECORDS
from provenance.errors import UnavailableError
from provenance.files.atomic import storage_error

FOLDER = "startup"

_SITECUSTOMIZE = """\
# Put here by `provenance record`, which watches this run.
import sys

_here = __file__.rpartition("/")[0]
sys.path[:] = [_entry for _entry in sys.path if _entry != _here]
sys.path_importer_cache.pop(_here, None)
if sys.version_info >= (3, 8):
    try:
        _names = {{"__name__": "provenance_inside"}}
        _load = type(__spec__.loader)  # it keeps what it compiles
        _code = _load("provenance_inside", {inside}).get_code("provenance_inside")
        exec(_code, _names)
        _run, _state = _load("provenance", {run}), _load("provenance_state", {state})
        _names["start"]({records}, {folders}, {host}, _run, _state)
    except Exception:
        pass
_ours = sys.modules.pop("sitecustomize", None)
try:
    import sitecustomize
except ImportError as _error:
    _missing = "No module named sitecustomize"
    if getattr(_error, "name", None) != "sitecustomize" and str(_error) != _missing:
        raise
    sys.modules["sitecustomize"] = _ours
"""


def install(
    directory: Path,
    environ: Mapping[str, str],
    *,
    watched: Iterable[Path | str],
    left_out: Iterable[Path | str],
    models: Iterable[Path | str],
) -> dict[str, str]:
    """Make the start-up folder in the run's folder *directory*; return *environ* with it.

    Told is what is opened below the real paths *watched*, but not below *left_out* or *models*.
    """
    folder = directory.absolute() / FOLDER
    if os.pathsep in str(folder):
        hint = "name another in TMPDIR"
        raise UnavailableError(f"its path holds {os.pathsep!r}", where=str(directory), hint=hint)
    package = resources.files("provenance.capture")
    programs = {"inside": "python/inside.py", "state": "python/state.py", "run": "run.py"}
    values: dict[str, object] = {
        **{name: str(directory.absolute() / f"{name}.py") for name in programs},
        "records": str(directory.absolute() / RECORDS),
        "host": os.uname().nodename,
        "folders": [[*map(str, paths)] for paths in (watched, left_out, models)],
    }
    text = _SITECUSTOMIZE.format(**{name: ascii(value) for name, value in values.items()})
    try:
        for name, source in programs.items():
            copy = package.joinpath(source).read_text("utf-8")
            directory.joinpath(f"{name}.py").write_text(copy, "utf-8")
        folder.mkdir(mode=0o700)
        folder.joinpath("sitecustomize.py").write_text(text, "ascii")
    except OSError as error:
        raise storage_error(error, folder) from error
    behind = environ.get("PYTHONPATH", "")
    path = os.pathsep.join([str(folder), behind]) if behind else str(folder)
    return {**environ, "PYTHONPATH": path}
