"""A program that describes the Python interpreter that runs it.

The training often uses another interpreter than the recorder, so this file's text is run by the
training's own (``python -c``), in the training's environment. It needs Python 3.8 and imports
nothing of ours; it writes one line of JSON after :data:`MARK`.

The *canonical digest of a RECORD* (the list of files of an installed distribution) is the same for
a wheel and for what pip or uv install from it: the SHA-256 of the rows that have a hash, without
those that the installer adds or that are outside the library folder, as ``path,hash,size``, sorted
by code point, each with a line feed.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import platform
import re
import sys
import sysconfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MARK = "provenance-probe:"

ADDED_BY_INSTALLERS = frozenset(
    "INSTALLER REQUESTED direct_url.json provenance_url.json uv_build.json uv_cache.json".split()
)
"""Files in ``*.dist-info`` that are not in the wheel."""

_HEADER = re.compile(r"(?im)^(name|version):(.*)$")  # a parser of all headers takes half the time


def record_digest(record: str) -> str:
    """Return the canonical digest of the RECORD *record*."""
    rows = []
    for row in csv.reader(record.splitlines()):
        path = _installed_path(row[0]) if row[1:] and row[1] else None
        if path is not None:
            rows.append(",".join([path, row[1], row[2] if len(row) > 2 else ""]))  # noqa: PLR2004
    text = "".join(row + "\n" for row in sorted(rows))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _installed_path(path: str) -> str | None:
    """Return the place of *path* below the library folder, or None."""
    parts = path.replace("\\", "/").split("/")
    if parts[0].endswith(".data") and len(parts) > 2:  # noqa: PLR2004 - name.data/purelib/path
        if parts[1] not in ("purelib", "platlib"):
            return None
        parts = parts[2:]
    if parts[0] in ("..", "") or "__pycache__" in parts:
        return None
    if parts[0].endswith(".dist-info") and parts[-1] in ADDED_BY_INSTALLERS:
        return None
    return "/".join(parts)


def distributions(installed: Iterable[Any]) -> list[dict[str, object]]:
    """Describe each of the *installed* distributions once: the one that an import finds."""
    found: dict[str, dict[str, object]] = {}
    for distribution in installed:
        texts = (distribution.read_text(name) for name in ("METADATA", "PKG-INFO", ""))
        head = re.split(r"\r?\n\r?\n", next(filter(None, texts), ""), maxsplit=1)[0]
        about = {name.lower(): text.strip() for name, text in reversed(_HEADER.findall(head))}
        key = re.sub(r"[-_.]+", "-", about.get("name", "")).lower()
        if not key or key in found:
            continue
        entry: dict[str, object] = {"name": key, "version": about.get("version", "None")}
        record = distribution.read_text("RECORD")
        if record:
            entry["recordDigest"] = record_digest(record)
        direct_url = distribution.read_text("direct_url.json")
        if direct_url:
            with contextlib.suppress(ValueError):
                entry["directUrl"] = json.loads(direct_url)
        found[key] = entry
    return [found[key] for key in sorted(found)]


def interpreter() -> dict[str, object]:
    """Describe this interpreter."""
    executable = os.path.realpath(sys.executable) if sys.executable else ""
    return {
        "implementation": platform.python_implementation(),
        "version": platform.python_version(),
        "build": list(platform.python_build()),
        "compiler": platform.python_compiler(),
        "cacheTag": sys.implementation.cache_tag or "",
        "pointerBits": 64 if sys.maxsize > 2**32 else 32,
        "executable": executable,
        "prefix": os.path.realpath(sys.prefix),
        "path": [path for path in sys.path if os.path.isabs(path)],  # noqa: PTH117 - light
        "executableDigest": _digest(executable),
        "library": _shared_library(),
        "libraryDigest": _digest(_shared_library()),
        "virtualEnvironment": sys.prefix != sys.base_prefix,
        "optimize": sys.flags.optimize,
        "hashRandomization": bool(sys.flags.hash_randomization),
    }


def _shared_library() -> str:
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return ""
    folder = sysconfig.get_config_var("LIBDIR") or ""
    name = sysconfig.get_config_var("INSTSONAME") or ""
    return os.path.realpath(os.path.join(folder, name)) if name else ""  # noqa: PTH118 - light


def _digest(path: str) -> str:
    hasher = hashlib.sha256()
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as light as can be
            for chunk in iter(lambda: file.read(1 << 20), b""):
                hasher.update(chunk)
    except OSError:
        return ""
    return hasher.hexdigest()


def main() -> None:
    """Write the description of this interpreter and its distributions."""
    answer: dict[str, object] = {"interpreter": interpreter(), "distributions": []}
    try:
        from importlib import metadata  # noqa: PLC0415 - absent before Python 3.8

        answer["distributions"] = distributions(metadata.distributions())
    except Exception as error:  # noqa: BLE001 - a broken distribution; the recorder tells of it
        answer["problem"] = f"{type(error).__name__}: {error}"
    sys.stdout.write("\n" + MARK + json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
