"""The native libraries of the processes that trained, by digest.

A process says which it has mapped (:mod:`~provenance.capture.python.inside`): paths, a stranger's
word. One that the RECORD of a distribution on its ``sys.path`` lists goes by that digest, without
being read; any other is hashed here, if it is a library at all. Extension modules that a RECORD
lists are only counted: the distribution's ``recordDigest`` has them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from provenance.capture.code.git import free_name
from provenance.capture.python.packages import digest_of_program, installed
from provenance.capture.python.records import Process
from provenance.capture.secrecy.redact import readable, redact_text
from provenance.encoding import strict_base64
from provenance.errors import MalformedError
from provenance.statement.training import Collected

MAX_LIBRARIES, MAX_HASHED_BYTES = 1024, 4 * 2**30
"""Most libraries that a statement names, and most of their bytes that are hashed."""

_ROW = re.compile(r"([^\n,\"]{1,1024}\.so[^\n,\"/]{0,99}),sha256=([\w-]{43}),")
_MODULE = re.compile(r"\.(?:cpython|pypy|abi3)[^/]*\.so\Z")


def describe_libraries(processes: Iterable[Process]) -> Collected:
    """Return the libraries of *processes*: ``recorded`` by RECORD and ``hashed``, by name.

    Those of other hosts are not here.
    """
    processes = [each for each in processes if each.host == 0]
    paths = sorted({path for each in processes for path in each.libraries})
    if not paths:
        return Collected("absent", reason="no process said which libraries it has; Linux tells it")
    known = _recorded({path for each in processes for path in each.said.path})
    found: dict[str, dict[str, str]] = {"recorded": {}, "hashed": {}}
    modules = unhashed = 0
    left = MAX_HASHED_BYTES
    for path in paths:
        name, digest = known.get(path, (os.path.basename(path), ""))  # noqa: PTH119 - a word
        how = found["recorded" if digest else "hashed"]
        if digest and _MODULE.search(path):
            modules += 1
            continue
        if not digest:
            left -= _size(path)
            digest = digest_of_program(path) if left >= 0 and len(how) < MAX_LIBRARIES else ""
        if not digest or len(how) >= MAX_LIBRARIES:
            unhashed += 1
            continue
        how[free_name(redact_text(readable(name)), set(how))] = digest
    values: dict[str, Any] = {**found, "modules": modules}
    return Collected("ok", values | ({"unhashed": unhashed} if unhashed else {}))


def _recorded(folders: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return name and digest of each library that a distribution in *folders* lists, by path."""
    found: dict[str, tuple[str, str]] = {}
    for distribution in installed(folders):
        top = os.path.realpath(distribution.folder.parent)
        lines = (distribution.read_text("RECORD") or "").split("\n")
        for row in filter(None, (_ROW.match(line) for line in lines if ".so" in line)):
            name = os.path.normpath(row[1])
            if name.startswith("/"):
                continue
            try:
                digest = strict_base64.parse(row[2].translate(_URL_SAFE) + "=").hex()
            except MalformedError:
                continue
            found.setdefault(os.path.normpath(f"{top}/{name}"), (name, digest))
    return found


_URL_SAFE: Final = str.maketrans("-_", "+/")


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
