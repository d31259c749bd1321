from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.weights.names import WeightSet, carries_tensors, suffix_of, weight_sets

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"

CASES: dict[str, tuple[list[str], list[WeightSet]]] = {
    "nothing": ([], []),
    "no weights": (["config.json", "README.md", "tokens.index.json"], []),
    "single files": (
        ["b.npz", "a.safetensors"],
        [
            WeightSet("a.safetensors", None, ("a.safetensors",)),
            WeightSet("b.npz", None, ("b.npz",)),
        ],
    ),
    "an index and its shards": (
        [TWO, INDEX, ONE, "config.json"],
        [WeightSet("model.safetensors", INDEX, (ONE, TWO))],
    ),
    "in a folder": (
        [f"unet/{ONE}", f"unet/{INDEX}"],
        [WeightSet("unet/model.safetensors", f"unet/{INDEX}", (f"unet/{ONE}",))],
    ),
    "shards without an index": (
        [ONE, TWO],
        [WeightSet(ONE, None, (ONE,)), WeightSet(TWO, None, (TWO,))],
    ),
    "the index in another folder": (
        [ONE, f"unet/{INDEX}"],
        [
            WeightSet(ONE, None, (ONE,)),
            WeightSet("unet/model.safetensors", f"unet/{INDEX}", ()),
        ],
    ),
    "shards of another name": (
        [INDEX, ONE, "other-00001-of-00002.safetensors", "model-1-of-2.safetensors"],
        [
            WeightSet("model-1-of-2.safetensors", None, ("model-1-of-2.safetensors",)),
            WeightSet("model.safetensors", INDEX, (ONE,)),
            WeightSet(
                "other-00001-of-00002.safetensors", None, ("other-00001-of-00002.safetensors",)
            ),
        ],
    ),
    "two formats": (
        [INDEX, ONE, "model-00001-of-00002.bin", "model.bin.index.json"],
        [
            WeightSet("model.bin", "model.bin.index.json", ("model-00001-of-00002.bin",)),
            WeightSet("model.safetensors", INDEX, (ONE,)),
        ],
    ),
    "the whole beside the shards": (
        [INDEX, ONE, "model.safetensors"],
        [
            WeightSet("model.safetensors", None, ("model.safetensors",)),
            WeightSet(INDEX, INDEX, (ONE,)),
        ],
    ),
}


@pytest.mark.parametrize(("names", "expected"), CASES.values(), ids=CASES)
def test_sets(names: list[str], expected: list[WeightSet]) -> None:
    assert list(weight_sets(names)) == expected


PARTS = st.sampled_from(["model", "a", ONE, TWO, INDEX, "x.npz", "model.safetensors", "t.json"])
NAMES = st.lists(PARTS | st.tuples(PARTS, PARTS).map("/".join), unique=True)


@given(NAMES)
def test_every_weight_file_is_in_one_set_and_names_are_unique(names: list[str]) -> None:
    sets = weight_sets(names)
    held = [name for found in sets for name in (*found.files, *filter(None, [found.index]))]
    assert sorted(held) == sorted(filter(carries_tensors, names))
    assert len({found.name for found in sets}) == len(sets)


@given(st.text(alphabet="ab.NPZ", min_size=1, max_size=8).filter(lambda name: name.strip(".")))
def test_a_suffix_is_what_pathlib_calls_so(name: str) -> None:
    assert suffix_of(f"a.b/{name}") == PurePosixPath(name).suffix.lower()
