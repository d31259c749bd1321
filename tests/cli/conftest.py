"""What the tests of ``record`` and of ``record --finish`` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.world import Person, Ran, Shell


@pytest.fixture
def record(
    request: pytest.FixtureRequest, work: Path, provenance: Shell, alice: Person
) -> Callable[..., Ran]:
    """Record a shell script (the module's ``TRAIN``) that trains into ``model``, in *work*."""
    train: str = request.module.TRAIN
    assert work == Path.cwd()

    def run(script: str = train, *options: str | Path) -> Ran:
        arguments = ("--model", "model", "--key", alice.private, *options)
        return provenance("record", *arguments, "--", "sh", "-c", script)

    return run
