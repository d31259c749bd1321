"""What the table says, and that it does not contradict itself."""

from __future__ import annotations

import pytest

from provenance.loaders import keys
from provenance.loaders.table import is_file, table


def test_every_pattern_is_one() -> None:
    found = table()
    opens = [each for loader in found.loader for each in loader.opens]
    patterns = [key for each in opens for key in (*each.obeys, *each.executes)]
    patterns += [key for free in found.free for key in free.keys]
    patterns += [key for reading in (*found.set, *found.base) for key in reading.keys]
    assert patterns
    for pattern in patterns:
        keys.parse(pattern)


@pytest.mark.parametrize("name", ["unknown.json", "config.json", "model.safetensors", "train.py"])
def test_what_is_unknown_or_obeyed_is_not_free(name: str) -> None:
    assert not table().is_free(name, ("auto_map",))
    assert not table().is_free(name, None)


def test_a_file_is_found_by_its_name_in_any_folder_and_by_its_path_in_one() -> None:
    assert is_file("config.json", "unet/config.json")
    assert is_file("*.safetensors", "model-00001-of-00002.safetensors")
    assert is_file("1_Pooling/config.json", "1_Pooling/config.json")
    assert not is_file("1_Pooling/config.json", "x/1_Pooling/config.json")
    assert not is_file("config.json", "config.jsonx")
