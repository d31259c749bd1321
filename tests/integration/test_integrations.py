"""The lines for other libraries, with the real libraries and tiny models.

`make test-integrations` sets their environments up: nothing of ours is installed there, so entry
points are given by a distribution that says what ours does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.world import payload_of

if TYPE_CHECKING:
    from tests.world import Person

ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "abcdefghijklmnopqrstuvwxyz012345"
TORCH, MLFLOW = (os.environ.get(f"PROVENANCE_{name}", "") for name in ("TORCH", "MLFLOW"))

pytestmark = pytest.mark.integration
with_torch = pytest.mark.skipif(not TORCH, reason="PROVENANCE_TORCH names no Python with torch")


@pytest.fixture
def surroundings(tmp_path: Path, environ: dict[str, str]) -> dict[str, str]:
    """The environment of a training that finds our package, and its entry points."""
    installed = tmp_path / "site" / "ours-1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1\n")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"[{group}]\n{n} = {v}\n" for group, all_ in groups.items() for n, v in all_.items()]
    (installed / "entry_points.txt").write_text("".join(lines))
    found = f"{ROOT}{os.pathsep}{installed.parent}"
    return {**os.environ, **environ, "PYTHONPATH": found}


def run(words: list[str], folder: Path, environ: dict[str, str]) -> tuple[str, str]:
    """Return what a command that succeeds says on its output, and beside it."""
    done = subprocess.run(
        words, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


class Claimed:
    """What the claim about a training by *script* says."""

    def __init__(
        self, script: str, folder: Path, person: Person, environ: dict[str, str], *words: str
    ) -> None:
        program = Path(__file__).parent / "trainings" / script
        key = ["--model", "model", "--key", str(person.private)]
        training = [TORCH, str(program), "model", *words]
        command = [sys.executable, "-m", "provenance", "record", *key, "--", *training]
        self.out, self.said = run(command, folder, environ)
        [line] = (folder / "model" / "claims.jsonl").read_bytes().splitlines()
        self.payload = payload_of(line).decode()
        predicate = json.loads(self.payload)["predicate"]
        build = predicate["buildDefinition"]
        self.seeds: dict[str, str] = build["externalParameters"].get("seeds", {})
        self.collectors: dict[str, Any] = build["internalParameters"]["collectors"]
        self.byproducts: dict[str, list[dict[str, Any]]] = {}
        for each in predicate["runDetails"]["byproducts"]:
            beside = folder / "model" / "provenance" / each["digest"]["sha256"]
            data = base64.b64decode(each.get("content", "")) or beside.read_bytes()
            if each["mediaType"] == "application/jsonl":
                self.byproducts[each["name"]] = [json.loads(row) for row in data.splitlines()]

    def arguments(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.collectors["arguments"]["values"][name]
        return found

    def metrics(self, name: str) -> list[int]:
        rows = self.byproducts["metrics"]
        return [row["step"] for row in rows if row["name"] == name]


@with_torch
def test_a_trainer_of_transformers(
    tmp_path: Path, alice: Person, surroundings: dict[str, str]
) -> None:
    claimed = Claimed("hf_callback.py", tmp_path, alice, surroundings, TOKEN)
    assert TOKEN not in claimed.payload
    arguments = claimed.arguments("TrainingArguments")
    assert arguments["output_dir"] == "${model}"
    assert arguments["learning_rate"] == 5e-5
    assert arguments["hub_token"].startswith("${redacted:")
    # Its own file of arguments has the token, and is a file of the model.
    assert "training_args.bin" in claimed.said
    assert "hold what looks like a credential (hugging-face)" in claimed.said
    assert TOKEN not in claimed.said
    assert arguments["run_name"].startswith("https://${redacted:")
    assert claimed.seeds == {"data": "7", "transformers": "42"}
    assert claimed.metrics("loss") == [*range(1, 9)]
    # The callback foretold the order in which the data set was then read.
    read = json.loads(claimed.out.splitlines()[-1])
    epochs = ["".join(f"{index}\n" for index in read[at : at + 32]) for at in (0, 32)]
    digests = [hashlib.sha256(epoch.encode()).hexdigest() for epoch in epochs]
    assert [row["sha256"] for row in claimed.byproducts["dataOrder"]] == digests
    [first], [last] = claimed.byproducts["initialWeights"], claimed.byproducts["probe/finalWeights"]
    assert (first["step"], last["step"]) == (0, 8)
    assert first["sha256"] != last["sha256"]
    # Without the callback the same bits come out.
    program = str(Path(__file__).parent / "trainings" / "hf_callback.py")
    alone, _ = run([TORCH, program, "alone", TOKEN, "none"], tmp_path, surroundings)
    assert json.loads(alone.splitlines()[-1]) == read
    weights = [tmp_path / name / "model.safetensors" for name in ("model", "alone")]
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
    said = run([TORCH, "-c", program], tmp_path, surroundings)[0].splitlines()
    assert said == ["None [0, 1, 2, 3] True", "None None", "[0, 1, 2] [0, 1, 2]"]


@with_torch
@pytest.mark.parametrize("asked", ["by a line", "by the variable", "not"])
def test_a_trainer_of_lightning(
    tmp_path: Path, alice: Person, surroundings: dict[str, str], asked: str
) -> None:
    if asked == "by the variable":
        surroundings["PROVENANCE_LIGHTNING"] = "1"
    words = ("hunter2222", "line") if asked == "by a line" else ("hunter2222",)
    claimed = Claimed("lightning_callback.py", tmp_path, alice, surroundings, *words)
    if asked == "not":
        assert "arguments" not in claimed.collectors
        assert not claimed.byproducts.keys() & {"metrics", "initialWeights"}
        return
    arguments = claimed.arguments("arguments")
    assert arguments["rate"] == 0.1
    assert arguments["password"].startswith("${redacted:")
    assert claimed.seeds == {"lightning": "3"}
    assert claimed.metrics("loss") == [*range(1, 9)]
    assert {"initialWeights", "probe/finalWeights"} <= claimed.byproducts.keys()


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
    assert json.loads(run(command, tmp_path, environ)[0]) == {}
    environ["PROVENANCE_RUN"] = str(tmp_path / "abc12345" / "program")
    assert json.loads(run([*command, "tag"], tmp_path, environ)[0]) == {
        "provenance.run": "abc12345",
        "provenance.invocationId": "abc12345-6",
        "provenance.model": "sha256:aa",
        "provenance.level": "recorded",
        "provenance.keyId": "k",
    }
