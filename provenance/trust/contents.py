"""Whether the files in a folder are those that a statement names: step 5 of a verification."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from provenance.errors import ContentError, some_of
from provenance.files.digest import hash_file
from provenance.files.manifest import Differences, compare_sizes
from provenance.files.names import RESERVED, is_within

if TYPE_CHECKING:
    from provenance.files.manifest import Manifest


def check_sizes(root: Path, statements: Sequence[tuple[str, Mapping[str, int | None]]]) -> None:
    """Return if one of *statements* can be about the files in *root*, by names and sizes alone.

    Each is its place and its files' sizes (None: not stated). Hashing would let an extra file of
    any size keep the verifier busy.
    """
    for where, sizes in statements:
        comparable = {name: size for name, size in sizes.items() if not is_within(name, RESERVED)}
        found = compare_sizes(root, comparable, ignore=RESERVED)
        if not found:
            return
        refusal = _other_files(root, where, found)
    raise refusal


def check_files(root: Path, manifest: Manifest, stated: Mapping[str, str], where: str) -> None:
    """Return if *stated*, SHA-256 by name, are exactly the files of *manifest*."""
    actual = {entry.name: entry.sha256 for entry in manifest.entries}
    for name in stated:
        if is_within(name, RESERVED):  # signed by a tool that has other reserved names
            path = root / name
            actual[name] = hash_file(path)[0] if os.path.lexists(path) else ""
    found = Differences(
        changed=tuple(n for n in stated if actual.get(n) not in (None, "", stated[n])),
        missing=tuple(name for name in stated if actual.get(name, "") == ""),
        extra=tuple(name for name in actual if name not in stated),
    )
    if found:
        raise _other_files(root, where, found)


def _other_files(root: Path, where: str, found: Differences) -> ContentError:
    kinds = {"was changed": found.changed, "is missing": found.missing, "is extra": found.extra}
    problems = [f"{name} {what}" for what, names in kinds.items() for name in names]
    return ContentError(f"not the files that {where} states: {some_of(problems)}", where=str(root))
