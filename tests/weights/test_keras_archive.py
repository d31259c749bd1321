from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from tests.weights.hdf5_writing import WEIGHT, hdf5, keras, plain, samples, unallocated
from tests.weights.writing import tensor_digests

if TYPE_CHECKING:
    from tests.weights.conftest import Opener

VECTORS = Path(__file__).with_name("vectors") / "keras"
SAMPLES = samples()
GOOD = SAMPLES["plain.h5"]


def test_a_keras_archive_is_weights_and_content(opened: Opener) -> None:
    file = opened(SAMPLES["model.keras"], "m.keras")
    assert b"".join(map(bytes, file.chunks("w", 256))) == WEIGHT.tobytes()
    assert file.metadata["config.json"] == '{"class_name": "Sequential"}'
    assert file.metadata["metadata.json"] == '{"keras_version": "3.9.0"}'
    assert len(file.metadata["assets/words.txt"]) == 64
    assert file.metadata["/@backend"] == 'text "tensorflow"'


def test_the_date_of_a_keras_archive_is_a_fact(opened: Opener) -> None:
    first = opened(keras(hdf5(plain)), "m.keras")
    facts, said = dict(first.container), dict(first.metadata)
    second = opened(keras(hdf5(plain), date="2026-01-02@00:00:00"), "m.keras")
    assert dict(second.metadata) == said
    differing = {key for key in facts if second.container[key] != facts[key]}
    assert differing == {"saved-date"}


def shared(*ids: object, beside: str = '"config": {}') -> bytes:
    """Return a configuration whose objects have these numbers, an empty list for none."""
    objects = [
        {"class_name": "L"} | ({} if each == [] else {"shared_object_id": each}) for each in ids
    ]
    text = json.dumps({"class_name": "M", "config": {"layers": objects}})
    return text.replace('"class_name": "L"', f'"class_name": "L", {beside}').encode()


def configured(opened: Opener, config: bytes) -> tuple[str, str]:
    """Return the content and the fact that a configuration makes."""
    file = opened(keras(GOOD, {"config.json": config}), "m.keras")
    return file.metadata["config.json"], file.container["object-ids"]


def test_addresses_of_shared_objects_are_a_fact(opened: Opener) -> None:
    one, two = shared(140_1, 7, 140_1), shared(9, 140_1, 9)
    (first, ids), (second, others) = configured(opened, one), configured(opened, two)
    assert first == second == shared(1, 2, 1).decode()
    assert ids != others


SHARED_OTHERWISE = {
    "others are the same": (shared(1, 2, 1), shared(1, 2, 2)),
    "one is no longer shared": (shared(1, 2, 1), shared(1, 2, 3)),
    "one side has no number": (shared(1, 1), shared(1, [])),
    "where it is another key": (
        shared(1, 1, beside='"rate": 1'), shared(2, 2, beside='"rate": 1')
    ),
    "no natural number": (shared(1.0, 1.0), shared(2.0, 2.0)),
    "a true value": (shared(1, *[True]), shared(2, *[True])),
    "a text": (shared("1", "1"), shared("2", "2")),
    "negative": (shared(-1, -1), shared(-2, -2)),
    "beyond exact numbers": (shared(2**64, 2**64), shared(2**64 + 1, 2**64 + 1)),
    "NaN elsewhere": (shared(1, float("nan")), shared(2, float("nan"))),
    "a key twice": (
        shared(1, beside='"config": {"a": 1, "a": 1}'),
        shared(2, beside='"config": {"a": 1, "a": 1}'),
    ),
    "the key in other letters": (
        shared(1).replace(b"d_o", rb"d\u005fo"), shared(2).replace(b"d_o", rb"d\u005fo")
    ),
    "one of two in other letters": (
        shared(1, 1).replace(b"d_o", rb"d\u005fo", 1), shared(2, 2).replace(b"d_o", rb"d\u005fo", 1)
    ),
    "in a text": (
        shared(beside="").replace(b'"M"', rb'"\"shared_object_id\": 1"'),
        shared(beside="").replace(b'"M"', rb'"\"shared_object_id\": 2"'),
    ),
    "another value beside": (
        shared(1, beside='"config": {"rate": 1}'), shared(1, beside='"config": {"rate": 2}')
    ),
    "other white space": (shared(1), shared(1).replace(b": ", b":")),
}  # fmt: skip


@pytest.mark.parametrize(("one", "two"), SHARED_OTHERWISE.values(), ids=SHARED_OTHERWISE)
def test_what_is_no_address_is_content(opened: Opener, one: bytes, two: bytes) -> None:
    assert one != two
    assert configured(opened, one)[0] != configured(opened, two)[0]


def test_an_asset_does_not_hide_an_attribute(opened: Opener) -> None:
    def fill(file: Any) -> None:  # noqa: ANN401
        plain(file)
        file.create_group("assets/words").attrs["language"] = "en"

    with pytest.raises(MalformedError, match="'assets/words@language' is a member and an attrib"):
        opened(keras(hdf5(fill), {"assets/words@language": b""}), "m.keras")


WITHOUT = io.BytesIO()
with zipfile.ZipFile(WITHOUT, "w") as archive:
    archive.writestr("config.json", "{}")
KERAS: dict[str, tuple[bytes, type[ProvenanceError], str]] = {
    "other member": (keras(GOOD, {"x.py": b""}), MalformedError, "'x.py' of no Keras model"),
    "no weights": (WITHOUT.getvalue(), MalformedError, "model.weights.h5 is missing"),
    "no HDF5": (keras(b"x" * 99), MalformedError, "does not begin as HDF5"),
    "compressed": (
        keras(GOOD, method=zipfile.ZIP_DEFLATED), UnreadableError, "the weights are compressed"
    ),
    "config not UTF-8": (keras(GOOD, {"config.json": b"\xff"}), MalformedError, "is not UTF-8"),
    "metadata a list": (keras(GOOD, {"metadata.json": b"[]"}), MalformedError, "is not an object"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "error", "what"), KERAS.values(), ids=KERAS)
def test_refuses_keras(
    opened: Opener, data: bytes, error: type[ProvenanceError], what: str
) -> None:
    with pytest.raises(error, match=what) as caught:
        opened(data, "m.keras")
    assert str(caught.value).startswith("m.keras")


def test_a_keras_archive_with_another_checksum_is_malformed(opened: Opener) -> None:
    data = bytearray(keras(hdf5(unallocated)))
    data[data.index(b"\x89HDF") + 100] ^= 1
    with pytest.raises(MalformedError, match="CRC-32"):
        opened(bytes(data), "m.keras")


def test_two_runs_of_keras_hold_the_same(opened: Opener) -> None:
    def read(name: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        file = opened((VECTORS / name).read_bytes(), "m.keras")
        return tensor_digests(file), dict(file.metadata), dict(file.container)

    tensors, said, facts = read("first.keras")
    others, the_same, differing = read("second.keras")
    assert (tensors, said) == (others, the_same)
    assert {key for key in facts if facts[key] != differing[key]} == {
        "archive-fields", "saved-date", "object-ids",
    }  # fmt: skip
    ids = re.findall(r'"shared_object_id": ([0-9]+)', said["config.json"])
    # The policy of four layers, and the second use of the penalty: Keras loses the first.
    assert ids == ["1", "1", "1", "1", "2"]


def test_a_legacy_model_with_layers_without_weights_is_read(opened: Opener) -> None:
    file = opened((VECTORS / "legacy.h5").read_bytes(), "m.h5")
    assert file.metadata["model_weights/dropout@weight_names"] == "F64 [0] "
    assert "model_weights/dense/sequential/dense/kernel" in file.tensors
