"""The lines for other libraries, with the real libraries and tiny models.

`make test-integrations` sets their environments up: nothing of ours is installed there, so entry
points are given by a distribution that says what ours does.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.recording import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.recording import Recorded

SCRIPTS = Path(__file__).parent / "trainings"
TORCH, MLFLOW = (os.environ.get(f"PROVENANCE_{name}", "") for name in ("TORCH", "MLFLOW"))

pytestmark = pytest.mark.integration
with_torch = pytest.mark.skipif(not TORCH, reason="PROVENANCE_TORCH names no Python with torch")


@pytest.fixture
def surroundings(environ: dict[str, str], ours: str) -> dict[str, str]:
    """The environment of a program that finds our package, and its entry points."""
    return {**os.environ, **environ, "PYTHONPATH": ours}


def run(words: list[str], folder: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(
        words, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(made: Recorded, name: str) -> list[dict[str, Any]]:
    return [json.loads(row) for row in made.byproduct(name).splitlines()]


def losses(made: Recorded) -> list[int]:
    return [row["step"] for row in rows(made, "metrics") if row["name"] == "loss"]


def seeds(made: Recorded) -> dict[str, str]:
    """Return the seeds that were declared, the first of them by the command line."""
    found: dict[str, str] = made.predicate["buildDefinition"]["externalParameters"]["seeds"]
    return found


@with_torch
def test_a_trainer_of_transformers(
    tmp_path: Path, recorded: Callable[..., Recorded], surroundings: dict[str, str]
) -> None:
    made = recorded("HF, callback")
    assert TOKEN not in made.payload.decode()
    arguments = made.collectors["arguments"]["values"]["TrainingArguments"]
    assert arguments["output_dir"] == "${model}"
    assert arguments["learning_rate"] == 5e-5
    assert arguments["hub_token"].startswith("${redacted:")
    # Its own file of arguments has the token, and is a file of the model.
    assert "training_args.bin" in made.ran.err
    assert "hold what looks like a credential (hugging-face)" in made.ran.err
    assert TOKEN not in made.ran.err
    assert arguments["run_name"].startswith("https://${redacted:")
    assert seeds(made) == {"seed": "0", "data": "7", "transformers": "42"}
    assert losses(made) == [*range(1, 9)]
    # The callback foretold the order in which the data set was then read.
    read = json.loads(made.ran.out.splitlines()[-1])
    epochs = ["".join(f"{index}\n" for index in read[at : at + 32]) for at in (0, 32)]
    digests = [hashlib.sha256(epoch.encode()).hexdigest() for epoch in epochs]
    assert [row["sha256"] for row in rows(made, "dataOrder")] == digests
    [first], [last] = rows(made, "initialWeights"), rows(made, "probe/finalWeights")
    assert (first["step"], last["step"]) == (0, 8)
    assert first["sha256"] != last["sha256"]
    # Without the callback the same bits come out.
    program = str(SCRIPTS / "hf_callback.py")
    alone = run([TORCH, program, "alone", TOKEN, "none"], tmp_path, surroundings)
    assert json.loads(alone.splitlines()[-1]) == read
    weights = [folder / "model.safetensors" for folder in (made.model, tmp_path / "alone")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@with_torch
def test_a_sampler_of_the_script_is_not_asked(tmp_path: Path, surroundings: dict[str, str]) -> None:
    program = """
import random, types, torch
from torch.utils.data import RandomSampler, SequentialSampler
from provenance.integrations.huggingface import order_of
class Own(RandomSampler):
    order = list(range(4))
    def __iter__(self):
        random.shuffle(self.order)  # draws, and moves what it shares with its copies
        return iter(self.order)
def of(sampler):
    return order_of(types.SimpleNamespace(batch_sampler=types.SimpleNamespace(sampler=sampler)))
before, generator = random.getstate(), torch.Generator()
print(of(Own(range(4), generator=generator)), Own.order, random.getstate() == before)
print(of(SequentialSampler(range(2**40))), of(RandomSampler(range(2**40), generator=generator)))
print(of(SequentialSampler(range(3))), sorted(of(RandomSampler(range(3), generator=generator))))
"""
    said = run([TORCH, "-c", program], tmp_path, surroundings).splitlines()
    assert said == ["None [0, 1, 2, 3] True", "None None", "[0, 1, 2] [0, 1, 2]"]


@with_torch
@pytest.mark.parametrize("asked", ["Lightning, callback", "Lightning, variable"])
def test_a_trainer_of_lightning(recorded: Callable[..., Recorded], asked: str) -> None:
    made = recorded(asked)
    arguments = made.collectors["arguments"]["values"]["arguments"]
    assert arguments["rate"] == 0.1
    assert arguments["password"].startswith("${redacted:")
    assert seeds(made) == {"seed": "0", "lightning": "3"}
    assert losses(made) == [*range(1, 9)]
    assert rows(made, "initialWeights")
    assert rows(made, "probe/finalWeights")


@with_torch
def test_a_trainer_of_lightning_that_is_not_asked(recorded: Callable[..., Recorded]) -> None:
    made = recorded("Lightning, not asked")
    assert "arguments" not in made.collectors
    byproducts = {each["name"] for each in made.predicate["runDetails"]["byproducts"]}
    assert not byproducts & {"metrics", "initialWeights"}


@pytest.mark.skipif(not MLFLOW, reason="PROVENANCE_MLFLOW names no Python with MLflow")
def test_a_run_of_mlflow_names_the_claim(tmp_path: Path, surroundings: dict[str, str]) -> None:
    program = """
import json, sys, types, mlflow
from provenance.integrations.mlflow import tag
metadata = types.SimpleNamespace(invocation_id="abc12345-6")
manifest = types.SimpleNamespace(root_digest="aa")
run = types.SimpleNamespace(metadata=metadata)
stated = types.SimpleNamespace(run=run, manifest=manifest, level="recorded")
mlflow.set_tracking_uri(sys.argv[1])
with mlflow.start_run() as active:
    if sys.argv[2:]:
        tag(types.SimpleNamespace(statement=stated, key_id="k"))
tags = mlflow.get_run(active.info.run_id).data.tags
print(json.dumps({name: tags[name] for name in tags if name.startswith("provenance.")}))
"""
    environ = {**surroundings, "MLFLOW_ALLOW_FILE_STORE": "true"}
    environ.pop("PROVENANCE_RUN", None)
    command = [MLFLOW, "-c", program, (tmp_path / "runs").as_uri()]
    assert json.loads(run(command, tmp_path, environ)) == {}
    environ["PROVENANCE_RUN"] = str(tmp_path / "abc12345" / "program")
    assert json.loads(run([*command, "tag"], tmp_path, environ)) == {
        "provenance.run": "abc12345",
        "provenance.invocationId": "abc12345-6",
        "provenance.model": "sha256:aa",
        "provenance.level": "recorded",
        "provenance.keyId": "k",
    }
