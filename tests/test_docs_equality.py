"""The tables of ``docs/equality.md`` are what the programs answer."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.equality.answers import DIFFER, SAME, our_answers
from benchmarks.equality.limits import (
    HONEST,
    STORED,
    VECTOR_RUNS,
    VECTORS,
    Run,
    honest,
    networks,
    others,
    runs,
    separates,
)
from benchmarks.equality.page import DECLARED, KEPT, PAGE, PRECISIONS, ask_torch, blocks, filled
from benchmarks.equality.traps import TRAPS, Trap
from provenance.equality.declaration import builtin, parse
from provenance.weights.names import READABLE, UNREAD
from tests.judge.models import compare_models, write
from tests.weights.onnx_writing import model, tensor, written
from tests.world import write_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Shell

TEXT = PAGE.read_text("utf-8")
DECLARATIONS = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_the_tables_are_what_the_programs_answer() -> None:
    kept = json.loads(KEPT.read_text("utf-8"))
    assert f"torch {kept['version']}" in TEXT
    assert filled(TEXT, blocks(kept["answers"])) == TEXT


@pytest.mark.integration
@pytest.mark.skipif(
    "PROVENANCE_TORCH" not in os.environ, reason="PROVENANCE_TORCH names no Python with torch"
)
def test_torch_answers_what_was_kept() -> None:
    assert ask_torch(os.environ["PROVENANCE_TORCH"]) == json.loads(KEPT.read_text("utf-8"))


def test_a_table_that_was_edited_by_hand_is_noticed() -> None:
    edited = TEXT.replace("| 1e-9 and 5e-9 | differ |", "| 1e-9 and 5e-9 | same |")
    kept = json.loads(KEPT.read_text("utf-8"))
    assert edited != TEXT
    assert filled(edited, blocks(kept["answers"])) != edited


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.text)
def test_we_fall_into_none_of_the_traps(trap: Trap) -> None:
    answers = [answer.partition(":")[0] for answer in our_answers(trap).values()]
    assert answers == [SAME if truth else DIFFER for truth in (trap.same, trap.close)]


@pytest.mark.parametrize("network", ["cnn", "tfm"])
@pytest.mark.parametrize("run", VECTOR_RUNS)
def test_the_declarations_of_the_page_judge_the_rebuilds(
    tmp_path: Path, network: str, run: str
) -> None:
    models = []
    for name in ("base_t1", run):
        files = {
            "model.safetensors": VECTORS / f"{'tfm_' * (network == 'tfm')}{name}.safetensors",
            "logits.npy": VECTORS / f"{network}_logits_{name}.npy",
        }
        models.append(write(tmp_path / name, {to: path.read_bytes() for to, path in files.items()}))
    _, _, joined, _ = DECLARATIONS
    outcome = compare_models(models[0], models[1], parse(joined.encode()))
    judged = "consistent" if VECTOR_RUNS[run] in HONEST else "mismatch"
    assert outcome.conclusion == judged
    (stored,) = [r for r in runs("float32") if (r.network, r.name) == (network, VECTOR_RUNS[run])]
    assert (stored.used(builtin("close-float32")) <= 1) == (judged == "consistent")


@pytest.mark.parametrize("precision", DECLARED)
def test_where_recipes_are_far_honest_rebuilds_stay_well_inside_what_is_built_in(
    precision: str,
) -> None:
    declared = builtin(DECLARED[precision])
    kept = {name: found for name, found in networks(precision).items() if separates(found)}
    outside = {"float32": {"keras", "resnet"}}
    assert set(networks(precision)) - set(kept) == outside.get(precision, set())
    for found in kept.values():
        assert max(run.used(declared) for run in honest(found)) < 0.6
        assert min(run.used(declared) for run in others(found)) > 1
    astray = [run for found in networks(precision).values() for run in others(found)]
    assert all(run.used(declared) > 1 for run in astray)


@pytest.mark.parametrize("precision", set(PRECISIONS) - set(DECLARED))
def test_nothing_is_built_in_where_recipes_are_near(precision: str) -> None:
    near = [name for name, found in networks(precision).items() if not separates(found)]
    assert len(near) > len(networks(precision)) / 2


def test_the_backdoors_are_within_the_limits_that_they_are_said_to_use() -> None:
    stored = json.loads(STORED.read_text("utf-8"))
    planted = [key for key in stored if key.startswith("backdoor ")]
    assert planted
    for key in planted:
        _, network, part = key.split()
        of = stored[key]
        shapes = stored[f"{network} float32"]["shapes"]
        run = Run(network, key, shapes, of["distances"], of["as_bfloat16"], 0, 0)
        assert 0 < run.used(builtin("close-float32")) <= float(part)


def test_the_page_asks_an_onnx_model_on_probes_from_outside(
    tmp_path: Path, provenance: Shell
) -> None:
    for name, last in (("a", 3), ("b", 3.001)):
        data = written(model([tensor("w", np.array([1, 2, last], "<f4"))]))
        write_files(tmp_path / name, {"model.onnx": data})
    (tmp_path / "asked.toml").write_text(DECLARATIONS[3])
    np.savez(tmp_path / "fresh.npz", x=np.linspace(-1, 1, 1500, dtype="<f4").reshape(500, 1, 3))
    options = ("--equality", tmp_path / "asked.toml", "--probes", tmp_path / "fresh.npz")
    ran = provenance("compare", tmp_path / "a", tmp_path / "b", *options)
    assert ran.status == 0
    assert "consistent by behaviour" in ran.out


def test_the_page_says_of_every_suffix_of_weights_what_is_read() -> None:
    table = TEXT.partition("## What is read")[2].partition("\n- **")[0]
    assert not {suffix for suffix in READABLE | UNREAD if f"`{suffix}`" not in table}
