"""Limits proposed from rebuilds: what they are, what they refuse, and when there are none."""

from __future__ import annotations

import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.api.declaring import calibrate
from provenance.equality.declaration import parse
from provenance.equality.rules import Close, Tensors
from provenance.errors import MalformedError, PolicyError, UsageError
from tests.judge.models import compare_models, write

if TYPE_CHECKING:
    from provenance.judge.calibration import Calibration
    from tests.judge.models import Content

VECTORS = Path(__file__).parent / "vectors"
RANDOM = np.random.default_rng(0)
WEIGHT, BIAS, LONG = (RANDOM.normal(size=size) for size in ((40, 40), 8, 3000))


def away(array: np.ndarray[Any, Any], part: float, seed: int) -> np.ndarray[Any, Any]:
    """Return *array*, moved by *part* of its L2 norm."""
    step = np.random.default_rng(seed).normal(size=array.shape)
    moved: np.ndarray[Any, Any] = array + step * part * np.linalg.norm(array) / np.linalg.norm(step)
    return moved


def rebuilds(
    root: Path, number: int = 3, more: dict[str, tuple[Any, float]] | None = None, **parts: float
) -> list[Path]:
    """Return folders of models, whose tensors are moved each by its part: ``weight``, ``bias``.

    *more* are other tensors, each with its part.
    """
    moved = {"weight": (WEIGHT, parts.get("weight", 1e-6)), "bias": (BIAS, parts.get("bias", 1e-6))}
    folders = []
    for seed in range(number):
        files: dict[str, Content] = {
            "model.safetensors": {
                name: away(array, part, seed).astype("f4")
                for name, (array, part) in (moved | (more or {})).items()
            }
        }
        folders.append(write(root / f"run{seed}", files).root)
    return folders


def close(found: Calibration) -> list[Close]:
    """Return the rules by distance of the declaration that was proposed."""
    assert found.against == ()
    same, near = parse(found.toml.encode()).any
    assert same.all == (Tensors(),)
    return [rule for rule in near.all if isinstance(rule, Close)]


@pytest.mark.parametrize("network", ["", "tfm_"])
def test_real_rebuilds_have_limits_that_refuse_other_recipes(network: str) -> None:
    honest = ("base_t1", "aten_default", "aten_avx2", "t2")
    others = ("amp_bf16", "accum2", "order_seed1", "seed1")
    paths = {who: VECTORS / f"{network}{who}.safetensors" for who in (*honest, *others)}
    found = calibrate([paths[who] for who in honest], others=[paths[who] for who in others])
    main, wide = close(found)
    noise = {"1.bias", "2.running_mean"}
    if network:
        noise = {f"t.layers.{number}.self_attn.in_proj_bias" for number in (0, 1)}
    assert {*found.without_gradient} == {*wide.tensors} == noise
    assert (wide.max_rank, wide.max_share) == (1, 0.01)
    largest = max(each.distances["relative_l2"] for each in found.rebuilds)
    assert 3 * largest <= main.relative_l2 <= 3.3 * largest
    assert main.relative_l2 < min(each.distances["relative_l2"] for each in found.others)
    assert len(found.rebuilds) == 6  # each with each, not with the first alone
    assert found.warnings == ()
    declared = parse(found.toml.encode())
    for one in honest:
        for two in honest:
            assert compare_models(paths[one], paths[two], declared).conclusion in (
                "match",
                "consistent",
            )
    for who in others:
        assert compare_models(paths["base_t1"], paths[who], declared).conclusion == "mismatch"
    nearest = min(found.others, key=lambda each: each.distances["relative_l2"])
    for words in (
        "4 rebuilds",
        f"L2 {largest:.2g}",
        nearest.right,
        f"L2 {nearest.distances['relative_l2']:.2g}",
    ):
        assert words in main.reason


def test_another_recipe_among_honest_distances_leaves_no_limit(tmp_path: Path) -> None:
    honest = rebuilds(tmp_path / "honest", weight=1e-3)
    near = rebuilds(tmp_path / "other", 4, weight=2e-3)[3]
    far = rebuilds(tmp_path / "far", 4, weight=2e-2)[3]
    found = calibrate(honest, others=[near, far])
    (why,) = found.against
    assert str(near) in why
    assert "farthest in weight" in why
    assert "[[any]]" not in found.toml
    assert calibrate(honest, others=[far]).against == ()


def test_a_recipe_that_differs_beside_its_weights_is_told_by_them_alone(tmp_path: Path) -> None:
    honest = rebuilds(tmp_path / "honest")
    equal = shutil.copytree(honest[0], tmp_path / "equal")
    near = rebuilds(tmp_path / "near", 4)[3]
    for folder in (equal, near):
        (folder / "data.json").write_text("[2]")
    assert calibrate(honest, others=[equal]).against == ()
    (why,) = calibrate(honest, others=[equal, near]).against
    assert str(near) in why


def test_the_limit_admits_any_rebuild_and_not_those_near_the_first_alone(tmp_path: Path) -> None:
    """Two that are on either side of the first are twice as far from each other."""
    step = RANDOM.normal(size=WEIGHT.shape)
    paths = []
    for number, way in enumerate((0.0, 1e-3, -1e-3)):
        tensors = {"weight": (WEIGHT + way * step).astype("f4")}
        paths.append(write(tmp_path / str(number), {"model.safetensors": tensors}).root)
    found = calibrate(paths)
    star = max(each.distances["relative_l2"] for each in found.rebuilds[:2])
    (rule,) = close(found)
    assert rule.relative_l2 >= 3 * 1.9 * star
    assert re.search(
        r"^# \S+ \| \S+: L2 \S+, L∞ \S+, rows \S+ \(weight\)$", found.toml, re.MULTILINE
    )


def test_equal_rebuilds_need_no_limit_and_show_nothing_of_other_machines(tmp_path: Path) -> None:
    first, other = rebuilds(tmp_path, 2)
    copies = [shutil.copytree(first, tmp_path / f"copy{number}") for number in range(3)]
    found = calibrate([first, *copies[1:]], others=[other])
    (alternative,) = parse(found.toml.encode()).any
    assert alternative.all == (Tensors(),)
    (warning,) = found.warnings
    assert "show nothing about other machines" in warning
    (why,) = calibrate([first, copies[0], copies[1]], others=[copies[2]]).against
    assert "equal" in why


def test_what_weakens_the_figures_is_said(tmp_path: Path) -> None:
    first, second, _ = rebuilds(tmp_path)
    said = " ".join(calibrate([first, second]).warnings)
    assert "make a third" in said
    assert "--other" in said
    same = shutil.copytree(second, tmp_path / "same")
    assert "varies nothing" in " ".join(calibrate([first, second, same]).warnings)


def test_a_matrix_without_gradient_leaves_no_limit(tmp_path: Path) -> None:
    def made(root: str, part: float) -> list[Path]:
        return rebuilds(tmp_path / root, more={"noise": (WEIGHT, part), "more": (WEIGHT, 1e-6)})

    found = calibrate(made("noise", 0.1))
    (why,) = found.against
    assert why.startswith("noise: ")
    assert "'behaviour'" in why
    assert "[[any]]" not in found.toml
    assert calibrate(made("none", 1e-6)).against == ()
    assert calibrate(rebuilds(tmp_path / "far", weight=0.3)).against[0].startswith("weight: ")


def test_vectors_without_gradient_have_a_rule_while_they_are_small(tmp_path: Path) -> None:
    main, wide = close(calibrate(rebuilds(tmp_path / "small", bias=0.02)))
    assert wide.tensors == ("bias",)
    assert main.tensors == ("*", "!bias")
    assert main.relative_l2 < 1e-4
    assert wide.relative_l2 > 0.02
    long = calibrate(rebuilds(tmp_path / "long", more={"long": (LONG, 0.02)}))
    assert long.against[0].startswith("long: ")
    assert "'behaviour'" in long.against[0]
    whole = calibrate(rebuilds(tmp_path / "whole", bias=1.5))
    assert len(close(whole)) == 2
    assert any("a limit of 1 or more" in each for each in whole.warnings)


@pytest.mark.parametrize(
    "name", ["a*b[0]", "a?", "!a", "a\\b", "a//b", "é😀", "x" * 400, "..", '"']
)
def test_a_name_that_no_pattern_holds_is_selected_all_the_same(name: str, tmp_path: Path) -> None:
    _, wide = close(calibrate(rebuilds(tmp_path, more={name: (BIAS, 0.02)})))
    assert len(wide.tensors) == 1


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"steps": np.array([3])}, "model.safetensors: steps"),
        ({"weight": WEIGHT[:3].astype("f4")}, "weight"),
        ({"weight": np.full((40, 40), np.nan, "f4")}, "weight (not-finite)"),
    ],
)
def test_what_no_limit_is_about_must_be_equal(
    files: dict[str, Any], what: str, tmp_path: Path
) -> None:
    weights = {"weight": WEIGHT.astype("f4"), "steps": np.array([2])}
    honest = [write(tmp_path / str(n), {"model.safetensors": weights}).root for n in range(2)]
    changed: Content = {**weights, **files}
    third = write(tmp_path / "third", {"model.safetensors": changed}).root
    assert calibrate(honest).against == ()
    with pytest.raises(PolicyError, match="differ in what no limit is about") as caught:
        calibrate([*honest, third])
    assert what in caught.value.what


def test_what_differs_beside_the_weights_is_refused(tmp_path: Path) -> None:
    folders = rebuilds(tmp_path)
    for number, folder in enumerate(folders):
        state = f'{{"log_history": [{{"train_runtime": {number}}}]}}'
        (folder / "trainer_state.json").write_text(state)
    with pytest.raises(PolicyError, match=r"trainer_state\.json: bytes") as caught:
        calibrate(folders)
    assert "weight files alone" in (caught.value.hint or "")
    assert calibrate([folder / "model.safetensors" for folder in folders]).against == ()


def test_so_many_vectors_have_patterns_that_a_rule_can_hold(tmp_path: Path) -> None:
    vectors = {f"layers.{number}.key.bias": (BIAS, 0.02) for number in range(64)}
    big = {"big": (RANDOM.normal(size=(300, 300)), 1e-6)}
    main, wide = close(calibrate(rebuilds(tmp_path, more=vectors | big)))
    assert wide.tensors == ("layers.*.key.bias",)
    assert main.relative_l2 < 1e-4


def test_the_name_of_a_folder_cannot_leave_its_comment(tmp_path: Path) -> None:
    first, second, third = rebuilds(tmp_path)
    other = rebuilds(tmp_path / 'x"\n[[unsafe_except]]\n', 4, weight=0.5)[3]
    found = calibrate([first, second, third], others=[other])
    assert len(close(found)) == 1
    assert "\n[[unsafe_except]]" not in found.toml


def test_updates_are_measured_from_the_initial_weights(tmp_path: Path) -> None:
    start: Content = {"weight": WEIGHT.astype("f4")}
    folders = []
    for seed in range(3):
        end = {"weight": away(WEIGHT * 1.001, 1e-6, seed).astype("f4")}
        files = {"model.safetensors": end, "initial.safetensors": start}
        folders.append(write(tmp_path / str(seed), files).root)
    (rule,) = close(calibrate(folders, initial="initial.safetensors"))
    assert (rule.initial, rule.relative_to) == ("initial.safetensors", "update")
    (weights,) = close(calibrate([folder / "model.safetensors" for folder in folders]))
    assert rule.relative_l2 > 100 * weights.relative_l2
    with pytest.raises(PolicyError, match="not a file of the model"):
        calibrate(folders, initial="none.safetensors")


def test_the_bytes_that_are_read_are_reported(tmp_path: Path) -> None:
    read: list[int] = []
    calibrate(rebuilds(tmp_path, 2), progress=lambda _: nullcontext(read.append))
    assert sum(read) == 4 * (WEIGHT.size + BIAS.size)


def test_what_is_refused_at_once(tmp_path: Path) -> None:
    first, second = rebuilds(tmp_path, 2)
    with pytest.raises(UsageError, match="one rebuild"):
        calibrate([first])
    with pytest.raises(UsageError, match="named twice"):
        calibrate([first, second, second])
    with pytest.raises(MalformedError, match="name"):
        calibrate([first, second], name="My model")
    with pytest.raises(UsageError, match="a folder and a file"):
        calibrate([first, second], others=[second / "model.safetensors"])
