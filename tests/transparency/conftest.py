from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from provenance.keys import generate, write_pair
from provenance.transparency import log as logs
from provenance.transparency import note

if TYPE_CHECKING:
    from provenance.transparency.note import SignerKey

VECTORS: Final = Path(__file__).parent / "vectors"

ORIGIN: Final = "example.com/log"


@pytest.fixture(scope="session")
def signer() -> SignerKey:
    return note.signer_key(ORIGIN, generate("ed25519"))


@pytest.fixture(scope="session")
def stranger() -> SignerKey:
    """Another key under the same name."""
    return note.signer_key(ORIGIN, generate("ed25519"))


@pytest.fixture
def log(tmp_path: Path, signer: SignerKey) -> Path:
    """An empty log that *signer* signs."""
    write_pair(signer.private, tmp_path / "log.key")
    logs.init(tmp_path / "log", ORIGIN, tmp_path / "log.key")
    return tmp_path / "log"


@pytest.fixture(scope="session")
def vectors() -> Path:
    return VECTORS
