"""Small models, written and described."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from provenance.equality.model import Model, SideBySide, model_of_file
from provenance.equality.readings import Readings, wanted_by
from provenance.equality.side_by_side import list_differences
from provenance.files.manifest import FileEntry
from tests.tensors.writing import simple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from provenance.equality.side_by_side import FileComparison

    Content = bytes | Mapping[str, np.ndarray[Any, Any]]


def describe(data: bytes, name: str = "") -> FileEntry:
    return FileEntry(name, len(data), hashlib.sha256(data).hexdigest())


def side_by_side(left: Model | Path, right: Model | Path) -> tuple[FileComparison, ...]:
    """Return two models, or two files, as a person is shown them."""
    one = left if isinstance(left, Model) else model_of_file(left)
    other = right if isinstance(right, Model) else model_of_file(right)
    return list_differences(Readings(SideBySide(one, other), wanted_by(None, view=True)))


def write(root: Path, files: Mapping[str, Content]) -> Model:
    """Write *files*, each bytes or the arrays of a safetensors file, below *root*."""
    described = {}
    for name, content in files.items():
        data = content if isinstance(content, bytes) else simple(content)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        described[name] = describe(data)
    return Model(root, described)
