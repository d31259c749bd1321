"""What the table says, and that it does not contradict itself."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.loaders import keys
from provenance.loaders.choice import differing
from provenance.loaders.table import Free, Opened, table
from tests.loaders.test_globs import alone

FREE = [(free, pattern) for free in table().free for pattern in free.keys]


def names_of(pattern: str) -> list[str]:
    """Return names for which a pattern stands, at the top and in a folder."""
    name = pattern.replace("[0-9]", "0").replace("*", "x")
    return [name] if "/" in pattern else [name, f"unet/{name}", f"checkpoint-10/{name}"]


def paths_of(pattern: str) -> list[keys.Path]:
    """Return paths that a pattern selects."""
    parts = re.findall(r'\[\]|"(?:[^"\\]|\\.)+"|[^.\[\]]+', pattern)
    inside: list[list[str | int]] = [[], ["inner", 3]] if parts[-1] == keys.EVERYTHING else [[]]
    steps = [_steps_of(part) for part in parts if part != keys.EVERYTHING]
    return [(*each, *more) for each in product(*steps) for more in inside if (*each, *more)]


def _steps_of(part: str) -> list[str | int]:
    if part == "[]":
        return [0, 7]
    plain = part.strip('"')
    return [plain.replace("*", "x"), plain.replace("*", "")] if "*" in plain else [plain]


def test_every_pattern_is_one() -> None:
    found = table()
    opens = [each for loader in found.loader for each in loader.opens]
    patterns = [key for each in opens for key in (*each.obeys, *each.ignores, *each.executes)]
    patterns += [key for free in found.free for key in free.keys]
    patterns += [key for reading in (*found.set, *found.base) for key in reading.keys]
    assert patterns
    for pattern in patterns:
        keys.parse(pattern)


@pytest.mark.parametrize(("free", "pattern"), FREE, ids=lambda it: getattr(it, "file", it))
def test_what_is_called_free_is_obeyed_by_no_loader(free: Free, pattern: str) -> None:
    for name in names_of(free.file):
        for path in paths_of(pattern):
            assert table().is_free(name, path), (name, path)


@pytest.mark.parametrize("free", [it for it in table().free if it.keys == ("**",)])
def test_what_is_free_as_a_whole_is_free_alone_in_its_folder(free: Free) -> None:
    for name in names_of(free.file):
        assert table().is_free(name, None, {name}), name


def test_what_a_loader_opens_beside_another_file_is_free_where_that_is_not() -> None:
    assert table().is_free("README.md", None, {"README.md", "unet/model_index.json"})
    assert not table().is_free("README.md", None, {"README.md", "Model_Index.json"})
    assert not table().is_free("a/README.md", None, {"a/README.md", "a/model_index.json"})
    assert not table().is_free("README.md", None)


@pytest.mark.parametrize(
    "name", [name for free in table().free if free.state for name in names_of(free.file)]
)
def test_the_state_of_a_training_is_opened_by_no_loader(name: str) -> None:
    assert table().is_state(name)
    assert table().opened_by(name) == {}
    assert not table().opens_as_code_or_weights(name)
    for loader in table().loader:
        for each in loader.opens:
            found = alone(each.file, name, paths=True)
            assert not found or each.file.startswith("*."), (loader.name, each)


def test_sets_and_names_of_bases_are_in_files_that_loaders_open() -> None:
    for reading in (*table().set, *table().base):
        for name in names_of(reading.file):
            assert table().opened_by(name), name
            for path in (path for key in reading.keys for path in paths_of(key)):
                assert not table().is_free(name, path), path


@pytest.mark.parametrize("name", ["unknown.json", "config.json", "model.safetensors", "train.py"])
def test_what_is_unknown_or_obeyed_is_not_free(name: str) -> None:
    assert not table().is_free(name, ("auto_map",))
    assert not table().is_free(name, None)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "pytorch_model.bin", "a/modeling.py", "m.joblib.xz", "m.pkl.z"]
)
def test_weights_and_code_are_known_by_their_names(name: str) -> None:
    assert table().opens_as_code_or_weights(name)


def test_a_file_system_may_not_tell_capitals_apart() -> None:
    assert table().opens_as_code_or_weights("MODEL.SafeTensors")
    assert not table().is_free("Trainer_State.json", ("log_history", 0, "train_runtime"))


def test_of_names_that_differ_in_capitals_a_loader_takes_its_own_or_the_last() -> None:
    def taken(names: list[str]) -> set[str]:
        found = differing({name: name for name in names}, {})
        return {left.name for _, left, _ in found if left.known}

    names = ["MODEL.safetensors", "Model.safetensors", "model.safetensors"]
    assert taken(names) == taken(names[::-1]) == {"model.safetensors"}
    assert taken(names[:2]) == taken(names[1::-1]) == {"Model.safetensors"}


def test_what_lies_above_a_part_changes_nothing_that_is_taken_from_the_part() -> None:
    part, above = "unet/diffusion_pytorch_model.safetensors", "other.bin"
    taken = differing({part: part, above: above}, {part: part})
    assert all(part not in (left.name, right.name) for _, left, right in taken)


def test_an_index_is_consulted_where_a_loader_looks_for_its_name() -> None:
    index = "a/model.safetensors.index.json"
    assert table().consults_index(index)
    assert table().consults_index(index, {index, "a/model-00001-of-00002.safetensors"})
    assert table().consults_index(index, {index, "model.safetensors", "a/Model.safetensors"})
    assert not table().consults_index(index, {index, "a/model.safetensors"})
    assert not table().consults_index("weight_map.json")


def test_a_member_of_an_archive_is_no_file_of_that_name() -> None:
    assert table().is_free("model.keras!metadata.json", ("date_saved",))
    assert not table().is_free("metadata.json!date_saved", ("date_saved",))
    assert not table().is_free("model.keras!config.json", ("registered_name",))


def opened_alone(name: str) -> dict[str, Opened]:
    """Return what opens the file *name*, entry by entry."""
    found: dict[str, Opened] = {}
    free = [it for it in table().free if alone(it.file, name, paths=True)]
    for loader in table().loader:
        for each in loader.opens:
            stands = alone(each.file.casefold(), name.casefold(), paths=True)
            if stands and not (each.file.startswith("*.") and any(it.state for it in free)):
                found.setdefault(loader.name, each)
    return found


OPENED = [name for it in table().loader for each in it.opens for name in names_of(each.file)]
FREED = [name for free in table().free for name in names_of(free.file)]
PARTS = sorted({part for name in OPENED + FREED for part in re.split(r"([./_!-])", name)})


@pytest.mark.parametrize("name", sorted({*OPENED, *FREED}))
def test_a_file_is_found_as_by_its_entry_alone(name: str) -> None:
    assert table().opened_by(name) == opened_alone(name)
    assert table().opened_by(name.upper()) == opened_alone(name.upper())


@given(st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=9).map("".join))
def test_any_name_is_found_as_by_each_entry_alone(name: str) -> None:
    assert table().opened_by(name) == opened_alone(name)
    states = [it for it in table().free if it.state and alone(it.file, name, paths=True)]
    assert table().is_state(name) is bool(states)


def test_a_file_is_found_by_its_name_in_any_folder_and_by_its_path_in_one() -> None:
    assert "transformers" in table().opened_by("unet/config.json")
    assert "transformers" in table().opened_by("model-00001-of-00002.safetensors")
    assert table().opened_by("custom_generate/requirements.txt")
    assert not table().opened_by("x/custom_generate/requirements.txt")
    assert not table().opened_by("config.jsonx")
