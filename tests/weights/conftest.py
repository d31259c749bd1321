"""Opening bytes as a weight file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from provenance.weights.opening import open_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from provenance.weights.view import TensorFile


class Opener(Protocol):
    def __call__(self, data: bytes, name: str) -> TensorFile: ...


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opener]:
    """Open *data* under *name*; everything is closed at the end."""
    files: list[TensorFile] = []
    folder: Path = tmp_path_factory.mktemp("opened")

    def opened(data: bytes, name: str) -> TensorFile:
        while files:
            files.pop().close()
        path = folder / name
        path.write_bytes(data)
        file = open_tensors(path, name=name)
        files.append(file)
        return file

    yield opened
    for file in files:
        file.close()
