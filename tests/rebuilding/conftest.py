from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from provenance.trust.verification import Verified, verify_model
from tests.rebuilding.builds import Builds

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Person


@pytest.fixture
def builds(tmp_path: Path, people: dict[str, Person]) -> Builds:
    def check(root: Path) -> Verified:
        return verify_model(root, tuple(p.key.public for p in people.values()))

    return Builds(tmp_path, check)
