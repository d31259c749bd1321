"""Small models, written and described."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from provenance.equality.comparators import Model
from tests.tensors.writing import simple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    Content = bytes | Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Described:
    size: int
    sha256: str


def describe(data: bytes) -> Described:
    return Described(len(data), hashlib.sha256(data).hexdigest())


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
