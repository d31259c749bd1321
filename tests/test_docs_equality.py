"""The tables of ``docs/equality.md`` are what the programs answer."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from benchmarks.equality.answers import DIFFER, SAME, our_answers
from benchmarks.equality.page import KEPT, PAGE, ask_torch, blocks, filled
from benchmarks.equality.rebuilds import RUNS, VECTORS, weights
from benchmarks.equality.traps import TRAPS, Trap
from provenance.equality.comparators import compare_models
from provenance.equality.declaration import parse
from tests.equality.models import write

if TYPE_CHECKING:
    from pathlib import Path

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
@pytest.mark.parametrize("run", RUNS)
def test_the_declarations_of_the_page_judge_the_rebuilds(
    tmp_path: Path, network: str, run: str
) -> None:
    models = []
    for name in ("base_t1", run):
        files = {
            "model.safetensors": VECTORS / f"{weights(network, name)}.safetensors",
            "logits.npy": VECTORS / f"{network}_logits_{name}.npy",
        }
        models.append(write(tmp_path / name, {to: path.read_bytes() for to, path in files.items()}))
    _, joined = DECLARATIONS
    outcome = compare_models(models[0], models[1], parse(joined.encode()))
    honest = run in ("aten_default", "aten_avx2", "t2")
    assert outcome.conclusion == ("consistent" if honest else "mismatch")
