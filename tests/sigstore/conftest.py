"""A Sigstore on loopback, and an environment in which nobody's identity is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from provenance.sigstore.signing import SIGNING_VARIABLES
from tests.loopback import Loopback
from tests.world import write_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AMBIENT = (
    *SIGNING_VARIABLES, "BUILDKITE", "CIRCLECI", "GITHUB_ACTIONS", "GITLAB_CI",
    "GOOGLE_SERVICE_ACCOUNT_NAME",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AMBIENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=[1, 2])
def each(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Loopback]:
    """A Sigstore with a log of each version."""
    with Loopback(tmp_path / "sigstore", request.param) as sigstore:
        yield sigstore


@pytest.fixture
def sigstore(tmp_path: Path) -> Iterator[Loopback]:
    with Loopback(tmp_path / "sigstore") as sigstore:
        yield sigstore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "model")
