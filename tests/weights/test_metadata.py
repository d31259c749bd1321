"""Metadata, compared key by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from provenance.weights.beside import Difference, Value
from provenance.weights.metadata import metadata_differences

if TYPE_CHECKING:
    from provenance.weights.view import TensorFile


class Said:
    """A weight file of which nothing but the metadata is known."""

    def __init__(self, format: str = "safetensors", **metadata: str) -> None:  # noqa: A002
        self.format = format
        self.metadata = metadata

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


def test_only_the_name_of_a_framework_is_left_out() -> None:
    npz = Said("npz")

    def says(**metadata: str) -> Said:
        said = Said()
        said.metadata = metadata
        return said

    assert between(says(format="pt"), npz) == ()
    assert between(npz, says(format="pt")) == ()
    assert [d.key for d in between(says(format="what the model is told to do"), npz)] == ["format"]
    assert [d.key for d in between(says(format="pt", licence="none"), npz)] == ["licence"]
    assert [d.key for d in between(says(format="other", licence="none"), npz)] == [
        "format", "licence",
    ]  # fmt: skip


def test_within_one_format_the_framework_counts() -> None:
    """accelerate loads what says `tf` in another way, and refuses what says nothing."""
    said = [Said(), Said(), Said()]
    for each, metadata in zip(said, ({"format": "pt"}, {"format": "tf"}, {}), strict=True):
        each.metadata = metadata
    for other in said[1:]:
        assert [d.key for d in between(said[0], other)] == ["format"]
