from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.judge.models import both_ways

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from provenance.equality.declaration import Declaration
    from provenance.measure.findings import Outcome
    from tests.judge.models import Content

    Files = Mapping[str, Content]


@pytest.fixture
def judge(tmp_path: Path) -> Callable[[Declaration, Files, Files], Outcome]:
    """Judge a rebuild against what was published, both ways."""
    made = count()
    return lambda *given: both_ways(tmp_path / str(next(made)), *given)
