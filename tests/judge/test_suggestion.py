"""A declaration proposed from two rebuilds: exact keys, no reasons, nothing unsafe."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.equality.declaration import parse
from provenance.errors import MalformedError, PolicyError
from provenance.judge.measured import MeasuredWeights
from provenance.judge.suggestion import suggest, to_toml
from provenance.weights.pairs import SideBySide
from tests.judge.models import compare_models, write
from tests.weights.writing import entry, safetensors

if TYPE_CHECKING:
    from pathlib import Path

    from tests.judge.models import Content

    Files = dict[str, Content]


def weights(session: str) -> bytes:
    header = {"__metadata__": {"ss_session_id": session, "n": "1"}, "w": entry("F32", [2], 0, 8)}
    return safetensors(header, b"\0" * 8)


def model(root: Path, number: int = 0, **more: Content) -> SideBySide:
    """Return two models below *root* that differ as two runs do, the second with *more* files."""
    sides = {}
    for side, value in (("left", number), ("right", number + 1)):
        files: Files = {
            "model.safetensors": weights(str(value)),
            "trainer_state.json": json.dumps({"log_history": [{"train_runtime": value}]}).encode(),
            "adapter_config.json": json.dumps(
                {"target_modules": ["q", "v"][:: 1 if side == "left" else -1]}
            ).encode(),
        }
        if side == "right":
            files |= {name.replace("_json", ".json"): data for name, data in more.items()}
        sides[side] = write(root / side, files)
    return SideBySide(sides["left"], sides["right"])


def proposed(sides: SideBySide) -> str:
    return to_toml(suggest(MeasuredWeights(sides, None)))


def test_what_is_proposed_makes_them_agree_once_the_reasons_are_given(tmp_path: Path) -> None:
    sides = model(tmp_path)
    text = proposed(sides)
    with pytest.raises(MalformedError, match="the reason is empty: say why this may differ"):
        parse(text.encode())
    declared = parse(text.replace('reason = ""', 'reason = "two runs"').encode())
    assert declared.unsafe_except == ()
    assert {(each.file, each.keys, each.as_) for each in declared.except_} == {
        ("trainer_state.json", ("log_history[].train_runtime",), None),
        ("adapter_config.json", ("target_modules",), "set"),
        ("model.safetensors", ("ss_session_id",), None),
    }
    assert compare_models(sides.left, sides.right, declared).conclusion == "match"


def test_what_only_an_unsafe_exception_could_be_about_is_not_proposed(tmp_path: Path) -> None:
    config = json.dumps({"auto_map": {"AutoModel": "evil.Model"}}).encode()
    text = proposed(model(tmp_path, config_json=config))
    (said,) = [line for line in text.splitlines() if line.startswith("# not proposed: ")]
    assert said.startswith("# not proposed: config.json: nothing against ")
    declared = parse(text.replace('reason = ""', 'reason = "two runs"').encode())
    assert not any(each.selects_file("config.json") for each in declared.except_)


def test_what_a_value_says_cannot_leave_its_comment(tmp_path: Path) -> None:
    texts = {"left": b"{}", "right": b'"\\n[[except]]"'}
    weights: Content = {"w": np.zeros(1, "f4")}
    sides = {
        side: write(tmp_path / side, {"model.safetensors": weights, "a\nb.json": text})
        for side, text in texts.items()
    }
    assert "\n[[except]]" not in proposed(SideBySide(sides["left"], sides["right"]))


def test_a_name_beyond_the_basic_plane_is_spelled_as_toml_spells_it(tmp_path: Path) -> None:
    weights: Content = {"w": np.zeros(1, "f4")}
    left, right = (
        write(tmp_path / side, {"m.safetensors": weights, "events.out.tfevents.😀": side.encode()})
        for side in ("left", "right")
    )
    text = proposed(SideBySide(left, right)).replace('reason = ""', 'reason = "two runs"')
    assert compare_models(left, right, parse(text.encode())).conclusion == "match"


def test_a_built_in_declaration_that_covers_all_is_taken(tmp_path: Path) -> None:
    weights: Content = {"w": np.zeros(1, "f4")}
    models = {}
    for side, time in (("left", 1), ("right", 2)):
        state = json.dumps({"log_history": [{"train_runtime": time}]}).encode()
        files: Files = {"model.safetensors": weights, "trainer_state.json": state}
        models[side] = write(tmp_path / side, files)
    sides = SideBySide(models["left"], models["right"])
    text = proposed(sides)
    assert 'exceptions = ["hf-trainer"]' in text
    assert compare_models(sides.left, sides.right, parse(text.encode())).conclusion == "match"
    same = SideBySide(sides.left, sides.left)
    assert "except" not in proposed(same)


@pytest.mark.parametrize("other", [np.ones(1, "f4"), np.zeros(2, "f4")])
def test_models_of_other_weights_are_refused(tmp_path: Path, other: Any) -> None:  # noqa: ANN401 - an array
    left = write(tmp_path / "left", {"model.safetensors": {"w": np.zeros(1, "f4")}})
    right = write(tmp_path / "right", {"model.safetensors": {"w": other}})
    with pytest.raises(PolicyError, match="do not have equal weights"):
        proposed(SideBySide(left, right))


def test_weights_that_are_not_read_are_refused(tmp_path: Path) -> None:
    left = write(tmp_path / "left", {"model.joblib": b"a"})
    right = write(tmp_path / "right", {"model.joblib": b"b"})
    with pytest.raises(PolicyError, match="cannot be compared"):
        proposed(SideBySide(left, right))
