"""Attacks on the comparison itself, each refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from provenance.equality import declaration
from provenance.errors import ContentError, UnreadableError
from provenance.weights.source import Source
from tests.judge.models import compare_models, write
from tests.weights.writing import simple

if TYPE_CHECKING:
    from pathlib import Path

ROD = b"""
format = 1
version = 1
name = "tight"
[[any]]
[[any.all]]
equality = "close"
files = ["model.safetensors"]
initial = "initial.safetensors"
relative_l2 = 1e-20
relative_linf = 1e-20
reason = "looks strict"
"""


def weights(seed: int) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]:
    return {"w": np.random.default_rng(seed).standard_normal(1000).astype(np.float32)}


def test_initial_weights_far_away_widen_no_tolerance(tmp_path: Path) -> None:
    rod = {"w": np.full(1000, 1e30, np.float32)}
    left, right = (
        write(
            tmp_path / str(seed),
            {"initial.safetensors": rod, "model.safetensors": weights(seed)},
        )
        for seed in (1, 2)
    )
    outcome = compare_models(left, right, declaration.parse(ROD))
    assert outcome.conclusion == "mismatch"


def test_a_file_swapped_after_it_was_hashed_is_refused(tmp_path: Path) -> None:
    left = write(tmp_path / "left", {"model.safetensors": weights(1)})
    right = write(tmp_path / "right", {"model.safetensors": weights(2)})
    nearly = weights(1)
    nearly["w"][0] = np.nextafter(nearly["w"][0], np.float32(9))
    (tmp_path / "right" / "model.safetensors").write_bytes(simple(nearly))
    text = ROD.replace(b'initial = "initial.safetensors"', b'relative_to = "weights"')
    with pytest.raises(ContentError, match="no longer the file that was hashed"):
        compare_models(left, right, declaration.parse(text.replace(b"1e-20", b"1e-4")))


def test_a_change_whose_modification_time_is_put_back_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"before")
    before = path.stat()
    with Source(path) as source:
        path.write_bytes(b"after!")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(UnreadableError, match="changed while it was read"):
            source.check_unchanged()
