"""Telling an honest byte-compiled file from one that holds other code than its source.

The header of a ``.pyc`` holds a time and its code a path, so that two honest ones differ in bytes.
Equality of code objects ignores the path. The comparison runs in a child process, because what
``marshal`` reads there may have been made to crash it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import MAGIC_NUMBER
from pathlib import Path

MAX_BYTES = 2**24
"""Largest byte-compiled file that is compared."""

TIMEOUT_SECONDS = 120

_COMPARE = f"""
import json, marshal, re, sys
from importlib.util import MAGIC_NUMBER
for line in sys.stdin:
    compiled, source = json.loads(line)
    try:
        with open(compiled, "rb") as file:
            data = file.read({MAX_BYTES} + 1)
        with open(source, "rb") as file:
            text = file.read({MAX_BYTES} + 1)
        level = re.search(r"[.]opt-([12])[.]pyc$", compiled)
        level = int(level[1]) if level else 0
        code = compile(text, source, "exec", dont_inherit=True, optimize=level)
        same = data[:4] == MAGIC_NUMBER and marshal.loads(data[16:]) == code
    except Exception:
        same = False
    print(int(same), flush=True)
"""


def source_of(path: Path) -> Path | None:
    """Return the source of which *path* is the byte-compiled form in a ``__pycache__``."""
    if path.suffix != ".pyc" or path.parent.name != "__pycache__":
        return None
    return path.parent.parent / f"{path.name.partition('.')[0]}.py"


def honest(
    pairs: Sequence[tuple[Path, Path]], interpreter: str, environ: Mapping[str, str]
) -> frozenset[Path]:
    """Return which byte-compiled files of *pairs* hold what their source compiles to.

    *interpreter* compares those that the recorder's own Python cannot read; "" for none.
    """
    own: list[tuple[Path, Path]] = []
    foreign: list[tuple[Path, Path]] = []
    for pair in pairs:
        try:
            with pair[0].open("rb") as file:
                (own if file.read(4) == MAGIC_NUMBER else foreign).append(pair)
        except OSError:
            continue
    found: set[Path] = set()
    for python, some in ((sys.executable, own), (interpreter, foreign)):
        if python and some:
            found |= _compare(python, some, environ)
    return frozenset(found)


def _compare(
    python: str, pairs: Sequence[tuple[Path, Path]], environ: Mapping[str, str]
) -> set[Path]:
    lines = "".join(json.dumps([str(compiled), str(source)]) + "\n" for compiled, source in pairs)
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
