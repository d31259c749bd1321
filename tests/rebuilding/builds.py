"""Models of a few numbers, trained by whoever is asked, attested and verified."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from tests.world import attest, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.statement.training import DeclaredEquality
    from provenance.trust.verification import Verified
    from tests.world import Person

CLOSE = b"""
format = 1
version = 1
name = "numbers"
axes = ["thread-count"]

[[any]]
[[any.all]]
equality = "bytes"

[[any]]
[[any.all]]
equality = "close"
files = ["model.safetensors"]
relative_l2 = 1e-3
relative_linf = 1e-2
initial = "initial.safetensors"
reason = "made up"
"""

LAX = CLOSE.replace(b"relative_l2 = 1e-3", b"relative_l2 = 1.0").replace(b"1e-2", b"1.0")

INITIAL = np.random.default_rng(1).standard_normal(100).astype(np.float32)
TRAINED = np.random.default_rng(2).standard_normal(100).astype(np.float32)


def files(noise: float = 0.0) -> dict[str, bytes]:
    """Return the files of a model whose weights are *noise* (relative) from :data:`TRAINED`."""
    weights = TRAINED * np.float32(1 + noise)
    return {
        "initial.safetensors": save({"w": INITIAL}),
        "model.safetensors": save({"w": weights}),
    }


def padded(contents: dict[str, bytes]) -> dict[str, bytes]:
    """Return *contents* with more padding in the header of the weights: another container."""
    data = contents["model.safetensors"]
    end = 8 + int.from_bytes(data[:8], "little")
    wider = (end - 8 + 16).to_bytes(8, "little") + data[8:end] + b" " * 16 + data[end:]
    return {**contents, "model.safetensors": wider}


@dataclass
class Builds:
    """The builds in *folder*, each in a folder of its own."""

    folder: Path
    check: Callable[[Path], Verified]
    declared: DeclaredEquality | None = None
    """What the first declared; who rebuilds names the same, unless told otherwise."""

    def __call__(
        self,
        name: str,
        person: Person,
        contents: dict[str, bytes] | None = None,
        **stated: Any,  # noqa: ANN401 - as state has them
    ) -> Verified:
        """Return what *person* built, attested and verified."""
        self.declared = stated.setdefault("equality", self.declared) or self.declared
        root = write_files(self.folder / name / "model", contents or files())
        return self.check(attest(root, person, **stated))


def payload_digest(verified: Verified) -> str:
    assert verified.claim is not None
    return hashlib.sha256(verified.claim.opened.payload).hexdigest()
