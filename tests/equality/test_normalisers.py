from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from provenance.equality.normalisers import NORMALISERS, effects
from provenance.tensors.opening import open_tensors
from tests.tensors.writing import archive, npy, simple

if TYPE_CHECKING:
    from pathlib import Path


def test_every_fact_of_every_reader_has_a_normaliser(tmp_path: Path) -> None:
    array = np.ones(2, "<f4")
    files = {
        "m.safetensors": simple({"a": array}),
        "m.npz": archive({"a.npy": npy(array)}),
        "m.npy": npy(array),
    }
    facts: set[str] = set()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with open_tensors(tmp_path / name) as file:
            facts |= file.container.keys()
    assert facts == NORMALISERS.keys() - {"npz-compressed-bytes"}


def test_what_no_normaliser_explains_is_not_normalised() -> None:
    assert effects("m", {"unknown": "1"}, {"unknown": "2"}, content_equal=True) is None
    assert effects("m", {"a": "1"}, {"b": "1"}, content_equal=True) is None
    assert effects("m", {"a": "1"}, {"a": "1"}, content_equal=True) is None
    assert effects("m", {"a": "1"}, {"a": "1"}, content_equal=False) == ()


def test_an_effect_carries_its_reason() -> None:
    left, right = {"npz-member-order": "1"}, {"npz-member-order": "2"}
    (effect,) = effects("m.npz", left, right, content_equal=True) or ()
    assert (effect.file, effect.name, effect.version) == ("m.npz", "npz-member-order", 1)
    assert effect.reason == NORMALISERS["npz-member-order"].reason


def test_deflate_streams_of_one_length() -> None:
    facts = {"npz-compression": "same"}
    (effect,) = effects("m.npz", facts, facts, content_equal=True) or ()
    assert effect.name == "npz-compressed-bytes"
