"""The folders outside of the library from which a Python imports code.

A distribution is installed for editing by an entry of PEP 610 (``direct_url.json``), by a path in
a ``.pth`` file or ``.egg-link`` (which puts the folder on ``sys.path``, as ``PYTHONPATH`` does), or
by a finder of setuptools (``__editable___NAME_VERSION_finder.py``, whose ``MAPPING`` leads from
names to paths). Nothing is imported or run here; every path may be a stranger's word.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from provenance.capture.code.git import free_name
from provenance.errors import ProvenanceError
from provenance.files.reading import read_file

MAX_FOLDERS = 64
"""Most folders that are looked at."""

_MAX_FINDER_BYTES = 2**20
_FINDER = re.compile(r"__editable__.*_finder\.py")
_MAPPING = re.compile(r"^MAPPING\b[^=\n]*= *(\{.*\})$", re.MULTILINE)
_GENERIC = frozenset({"src", "lib", "python", "source"})


def editable_folders(
    named: Iterable[tuple[str, Path]], path: Sequence[str]
) -> tuple[tuple[str, Path], ...]:
    """Return the *named* folders of distributions, and those that ``sys.path`` and finders add.

    The latter have the name of the folder, or of what is above a ``src``.
    """
    named = ((name, place) for name, place in named if _is_place(str(place)))
    path = list(filter(_is_place, path))
    found = {Path(os.path.realpath(place)): name for name, place in named}
    taken = set(found.values())
    for name, place in (*_on_the_path(path), *_of_finders(path)):
        real = Path(os.path.realpath(place))
        known = any(real.is_relative_to(other) for other in found)
        if known or len(found) >= MAX_FOLDERS or not os.path.isdir(real):  # noqa: PTH112 - never raises
            continue
        found[real] = free_name(name, taken)
    return tuple((name, place) for place, name in found.items())


def _on_the_path(path: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for entry in path:
        place = Path(os.path.realpath(entry))
        library = all(os.path.exists(place / name) for name in ("os.py", "site.py", "encodings"))  # noqa: PTH110 - never raises
        if library or place.name in ("site-packages", "dist-packages", "lib-dynload"):
            continue
        yield (place.parent.name if place.name in _GENERIC else place.name), place


def _is_place(path: str) -> bool:
    return path.startswith("/") and "\0" not in path


def _of_finders(path: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for entry in path:
        try:
            names = sorted(filter(_FINDER.fullmatch, os.listdir(entry)))  # noqa: PTH208 - of names
        except OSError:  # an archive, or a folder that is not there
            continue
        for name in names[:MAX_FOLDERS]:
            try:
                text = read_file(Path(entry, name), _MAX_FINDER_BYTES).decode("utf-8", "replace")
                match = _MAPPING.search(text)
                mapping = ast.literal_eval(match[1]) if match else {}
            except (ProvenanceError, ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            for module, place in mapping.items() if isinstance(mapping, dict) else ():
                if isinstance(module, str) and isinstance(place, str) and _is_place(place):
                    yield module.partition(".")[0], Path(place).parent
