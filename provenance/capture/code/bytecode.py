"""Telling an honest byte-compiled file from one that holds other code than its source.

The header of a ``.pyc`` holds a time and its code a path, so that two honest ones differ in bytes.
Equality of code objects ignores the path. One whose header does not fit its source is stale: Python
runs the source, which it then opens. The comparison runs in a child process, because what
``marshal`` reads there may have been made to crash it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Container, Mapping, Sequence
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from provenance.errors import UnreadableError
from provenance.files.reading import read_file

MAX_BYTES = 2**24
"""Largest byte-compiled file that is compared."""

TIMEOUT_SECONDS = 120

_COMPARE = f"""
import json, marshal, os, re, struct, sys
from importlib.util import MAGIC_NUMBER, source_hash
for line in sys.stdin:
    compiled, source, opened = json.loads(line)
    try:
        with open(compiled, "rb") as file:
            data = file.read({MAX_BYTES} + 1)
        with open(source, "rb") as file:
            text = file.read({MAX_BYTES} + 1)
        level = re.search(r"[.]opt-([12])[.]pyc$", compiled)
        level = int(level[1]) if level else 0
        code = compile(text, source, "exec", dont_inherit=True, optimize=level)
        flags, status = data[4], os.stat(source)
        stated = struct.pack("<II", int(status.st_mtime) % 2**32, status.st_size % 2**32)
        stale = flags != 1 and data[8:16] != (source_hash(text) if flags else stated)
        same = data[:4] == MAGIC_NUMBER
        same = same and (opened and stale or marshal.loads(data[16:]) == code)
    except Exception:
        same = False
    print(int(same), flush=True)
"""


def source_of(path: Path) -> Path | None:
    """Return the source of which *path* is the byte-compiled form.

    It lies above ``__pycache__``, or below ``PYTHONPYCACHEPREFIX`` where the source is below ``/``.
    """
    name, tag, _ = path.name.partition(".cpython-")
    if path.suffix != ".pyc":
        return None
    if path.parent.name == "__pycache__":
        return path.parent.parent / f"{path.name.partition('.')[0]}.py"
    folders = (Path("/", *path.parts[skip:-1]) for skip in range(2, len(path.parts)))
    sources = (folder / f"{name}.py" for folder in folders if tag)
    return next((source for source in sources if source.is_file()), None)


def honest(
    pairs: Sequence[tuple[Path, Path]],
    interpreter: str,
    environ: Mapping[str, str],
    *,
    opened: Container[Path] = frozenset(),
) -> frozenset[Path]:
    """Return which byte-compiled files of *pairs* hold what their source compiles to.

    So do stale ones whose source is among the files *opened* by the run. *interpreter* compares
    those that the recorder's own Python cannot read; "" for none.
    """
    own: list[tuple[Path, Path]] = []
    foreign: list[tuple[Path, Path]] = []
    for pair in pairs:
        try:  # neither may be a FIFO, here or when they are compared
            head, _ = (read_file(path, MAX_BYTES)[:4] for path in pair)
        except UnreadableError:
            continue
        (own if head == MAGIC_NUMBER else foreign).append(pair)
    found: set[Path] = set()
    for python, some in ((sys.executable, own), (interpreter, foreign)):
        if python and some:
            found |= _compare(python, some, environ, opened)
    return frozenset(found)


def _compare(
    python: str,
    pairs: Sequence[tuple[Path, Path]],
    environ: Mapping[str, str],
    opened: Container[Path],
) -> set[Path]:
    rows = ([str(compiled), str(source), source in opened] for compiled, source in pairs)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    try:
        done = subprocess.run(
            [python, "-I", "-c", _COMPARE],
            input=lines.encode(),
            env=dict(environ),
            capture_output=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return set()
    # After a crash there are fewer answers than pairs: the rest counts with its bytes.
    return {pair[0] for pair, same in zip(pairs, done.stdout.split(), strict=False) if same == b"1"}
