"""What the run made: the model's folder, looked at before the run and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from provenance.files.manifest import Manifest, hash_folder
from provenance.files.names import RESERVED


@dataclass(frozen=True, slots=True)
class Made:
    """The model in ``folder``, as :class:`~provenance.statement.training.Outcome` has its files."""

    folder: Path
    manifest: Manifest
    untouched: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


def look_after(folder: Path, progress: Callable[[int], None] | None = None) -> Made:
    """Return the model that is in *folder* now."""
    return Made(folder, hash_folder(folder, ignore=RESERVED, progress=progress))
