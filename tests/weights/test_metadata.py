"""Metadata, compared key by key."""

from __future__ import annotations

import json
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from safetensors.numpy import save

from provenance.weights.beside import Difference, Value, effects, metadata_differences
from provenance.weights.opening import open_tensors
from provenance.weights.safetensors import SafetensorsFile
from provenance.weights.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.weights.view import TensorFile


class Said:
    """A weight file of which nothing but the metadata is known."""

    def __init__(self, format: str = "safetensors", **metadata: str) -> None:  # noqa: A002
        self.format = format
        self.metadata = metadata
        self.frameworks = frozenset({""})

    def path_of(self, key: str) -> tuple[str]:
        return (key,)


def between(left: Said, right: Said) -> tuple[Difference, ...]:
    return metadata_differences(cast("TensorFile", left), cast("TensorFile", right))


def test_equal_metadata_have_no_difference() -> None:
    assert between(Said(a="1", b="2"), Said(b="2", a="1")) == ()


def test_each_key_that_differs_is_listed_with_both_sides() -> None:
    found = between(Said(a="1", b="2", c="3"), Said(b="2", c="4", d="5"))
    one, two, three, four, five = (Value("text", text) for text in "12345")
    assert two not in {value for each in found for value in (each.left, each.right)}
    assert found == (
        Difference("a", ("a",), one, None),
        Difference("c", ("c",), three, four),
        Difference("d", ("d",), None, five),
    )


def test_a_long_value_is_shown_by_its_digest() -> None:
    ((left, right),) = (each.shown for each in between(Said(a="x" * 999), Said(a="")))
    assert left is not None
    assert left.startswith("999 characters, sha256 ")
    assert right == ""


def test_every_key_is_compared_however_many_there_are() -> None:
    many = {f"key-{number}": "x" for number in range(2000)}
    assert len(between(Said(**many), Said())) == 2000


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (Said(format="npz"), Said(), True),
        (Said(), Said(format="npz"), True),
    ],
)
def test_two_formats_without_metadata(left: Said, right: Said, *, equal: bool) -> None:
    assert (between(left, right) == ()) is equal


FRAMEWORKS = {
    "pt": {"format": "pt"}, "tf": {"format": "tf"}, "flax": {"format": "flax"},
    "np": {"format": "np"}, "mlx": {"format": "mlx"}, "another": {"format": "obey"},
    "none": None, "no metadata in it": {}, "other metadata": {"licence": "mit"},
}  # fmt: skip
"""Metadata of a safetensors file."""


def opened(path: Path, metadata: dict[str, str] | None) -> SafetensorsFile:
    path.write_bytes(save({"w": np.zeros(2, "<f4")}, metadata=metadata))
    return SafetensorsFile(Source(path))


@pytest.mark.parametrize(("one", "other"), list(combinations_with_replacement(FRAMEWORKS, 2)))
def test_frameworks_are_alike_where_every_loader_takes_them_alike(
    one: str, other: str, tmp_path: Path
) -> None:
    with (
        opened(tmp_path / "one", FRAMEWORKS[one]) as left,
        opened(tmp_path / "other", FRAMEWORKS[other]) as right,
    ):
        found = [difference.key for difference in metadata_differences(left, right)]
        alike = one == other or {one, other} == {"pt", "none"}
        silent = {one, other} == {"no metadata in it", "other metadata"}
        assert ("format" in found) is not (alike or silent)
        effects_found = effects("m", left, right, content_equal=not found)
        named = {each.name for each in effects_found or ()}
        assert ("format-key" in named) is (alike and one != other)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_another_format_is_loaded_as_torch(name: str, tmp_path: Path) -> None:
    with opened(tmp_path / "m.safetensors", FRAMEWORKS[name]) as file:
        for sides in ((file, Said("npz")), (Said("npz"), file)):
            left, right = (cast("TensorFile", side) for side in sides)
            found = [difference.key for difference in metadata_differences(left, right)]
            assert ("format" not in found) is (name in ("pt", "none"))
            assert ("licence" in found) is (name == "other metadata")


def test_every_shard_is_asked_for_its_framework(tmp_path: Path) -> None:
    """A loader refuses the one that does not say it."""

    def written(name: str, *metadata: dict[str, str] | None) -> Path:
        names = [f"m-{number:05}-of-00002.safetensors" for number in (1, 2)]
        (tmp_path / name).mkdir()
        for number, (shard, said) in enumerate(zip(names, metadata, strict=True)):
            data = save({f"w{number}": np.zeros(2, "<f4")}, metadata=said)
            (tmp_path / name / shard).write_bytes(data)
        index = {"metadata": {}, "weight_map": {"w0": names[0], "w1": names[1]}}
        path = tmp_path / name / "m.safetensors.index.json"
        path.write_text(json.dumps(index))
        return path

    pt = {"format": "pt"}
    sound = written("sound", pt, pt)
    for name, second in (("alike", None), ("empty", {}), ("other", {"a": "b"})):
        with (
            open_tensors(sound) as left,
            open_tensors(written(name, pt, second)) as right,
        ):
            found = [difference.key for difference in metadata_differences(left, right)]
        assert ("format" in found) is (name != "alike"), name
    paths = (tmp_path / name / sound.name for name in ("alike", "empty"))
    with open_tensors(next(paths)) as left, open_tensors(next(paths)) as right:
        assert [difference.key for difference in metadata_differences(left, right)] == ["format"]
