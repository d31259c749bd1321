"""Real trainings, each recorded by two people in two folders under a launcher of its own.

What is recorded must be of the process that trained, and the two must have followed one recipe.
`make test-integrations` sets the environment up: PROVENANCE_TORCH is its Python, and nothing of
ours is installed there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from tests.integration.recording import record
from tests.world import Person, run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_TORCH"), reason="PROVENANCE_TORCH names no Python with torch"
    ),
]


@dataclass(frozen=True)
class Training:
    """How somebody trains, which packages do it, and whether two runs give the same bytes.

    ``stray`` is a file that only the second folder has: it must not make the recipe another one.
    """

    command: str
    packages: str
    metric: str = "loss"
    same_bytes: bool = True
    stray: str = ""

    @property
    def words(self) -> list[str]:
        """The command, a word each; what stands in quotes is one."""
        first, quote, quoted = self.command.partition("'")
        return [*first.split(), *([quoted.rstrip("'")] if quote else [])]


TORCH = "torch_cpu.py data/rows.csv model"
SKLEARN = "sklearn_fit.py data/rows.csv model"
TRAININGS = {
    "torch under python": Training(f"python {TORCH}", "torch numpy", stray="err.txt"),
    "torch under bash -c": Training(f"bash -c 'python {TORCH}'", "torch"),
    "two processes under torchrun": Training(
        "torchrun --nproc-per-node 2 ddp.py data/rows.csv model", "torch", "loss"
    ),
    "scikit-learn under uv run": Training(
        f"uv run --no-sync --offline {SKLEARN}", "scikit-learn", "accuracy"
    ),
    "scikit-learn under nice and timeout": Training(
        f"nice -n 5 timeout 600 python {SKLEARN}", "scikit-learn", "accuracy"
    ),
    "scikit-learn under nohup and taskset": Training(
        f"nohup taskset -c 0 python {SKLEARN}", "scikit-learn", "accuracy"
    ),
    "HF Trainer under make": Training(
        "make train", "transformers accelerate torch", same_bytes=False, stray="err.txt"
    ),
    "Lightning under bash": Training(
        "bash run.sh lightning_fit.py data/rows.csv model",
        "pytorch-lightning torchmetrics torch",
        same_bytes=False,
    ),
    "a notebook": Training("jupyter execute notebook.ipynb", "torch ipykernel", "residual"),
}


# --- What was installed, and what the claims say --------------------------------------------------


@pytest.fixture(scope="session")
def versions() -> dict[str, str]:
    """What is installed in the trainer's environment, as it says itself."""
    done = subprocess.run(
        [os.environ["PROVENANCE_TORCH"], "-c", VERSIONS], capture_output=True, check=True
    )
    return {name.lower(): version for name, version in json.loads(done.stdout).items()}


VERSIONS = """
import importlib.metadata, json
print(json.dumps({each.name: each.version for each in importlib.metadata.distributions()}))
"""


def installed(predicate: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of the distributions that the training saw, which must be known."""
    build = predicate["buildDefinition"]
    for name in ("interpreter", "packages"):
        collected = build["internalParameters"]["collectors"][name]
        assert collected["status"] == "ok", collected
    uris = (item.get("uri", "") for item in build["resolvedDependencies"])
    named = (uri.removeprefix("pkg:pypi/").split("@") for uri in uris if uri.startswith("pkg:"))
    return {name.lower(): unquote(version) for name, version in named}


def reported(predicate: Mapping[str, Any]) -> dict[str, float]:
    """Return the last value of each metric that the training reported."""
    [metrics] = (
        item for item in predicate["runDetails"]["byproducts"] if item["name"] == "metrics"
    )
    last: dict[str, float] = metrics["annotations"]["last"]
    return last


def had_set(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the program that trained had set."""
    collectors = predicate["buildDefinition"]["internalParameters"]["collectors"]
    assert collectors["program"]["status"] == "ok"
    values: dict[str, Any] = collectors["program"]["values"]
    return values


# --- Two runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
def test_two_people_follow_one_recipe(
    training: Training,
    clone: Callable[[str], Path],
    alice: Person,
    bob: Person,
    environ: dict[str, str],
    versions: dict[str, str],
) -> None:
    if shutil.which(training.words[0], path=environ["PATH"]) is None:
        pytest.skip(f"there is no {training.words[0]} here")
    folders = clone("alice"), clone("elsewhere/deeper/bob")
    if training.stray:
        (folders[1] / training.stray).write_text("nothing reads this\n")
    states = []
    for folder, person in zip(folders, (alice, bob), strict=True):
        predicate = record(folder, person, environ, *training.words)
        verified = run_program(
            "verify", "model", "--key", person.public, "--require", "recorded", cwd=folder
        )
        assert verified.status == 0, verified.err
        assert predicate["runDetails"]["provenance_outcome"] == {"exitStatus": 0}
        assert training.metric in reported(predicate)
        found = installed(predicate)
        assert {name: found.get(name) for name in training.packages.split()} == {
            name: versions[name] for name in training.packages.split()
        }
        assert "pytest" not in found  # that is in the recorder's environment
        states.append(had_set(predicate))
    if training.metric.startswith("loss"):  # torch took steps
        first, other = (state["step"] for state in states)
        for name in ("torch.initial_seed", "torch.get_num_threads", "optimizer.initialWeights"):
            assert first[name] == other[name]
    if "torchrun" in training.words:
        [ranks] = {state["processes"] for state in states}
        assert (ranks, states[0]["others"]["1"]["environ.RANK"]) == (2, "1")
    keys = (f"--key={person.public}" for person in (alice, bob))
    models = [folder / "model" for folder in folders]
    ran = run_program("agree", *models, *keys, "--json")
    assert "verdict" in ran.document, ran
    judged = ran.document["verdict"]
    [rebuild] = judged["rebuilds"]
    assert rebuild["recipeDifferences"] == []
    unknown = [f"perhaps read: {training.stray}"] if training.stray else []
    assert rebuild["recipeUnknown"] == unknown
    assert rebuild["recipe"] == ("unknown" if unknown else "same")
    if training.same_bytes:
        assert judged["conclusion"] == "match"
        assert rebuild["outcome"]["strongest"] == "bytes"


# --- What else real runs do -----------------------------------------------------------------------


def test_torch_computes_the_same_bits_with_and_without_the_recorder(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    folder = clone("work")
    record(folder, alice, environ, "python", *TORCH.split())
    recorded = (folder / "model" / "net.pt").read_bytes()
    shutil.rmtree(folder / "model")
    without = [os.environ["PROVENANCE_TORCH"], "-c", ALONE, *TORCH.split()]
    subprocess.run(without, cwd=folder, env={**os.environ, **environ}, check=True)
    assert (folder / "model" / "net.pt").read_bytes() == recorded


ALONE = """
import runpy, sys, types
silent = types.SimpleNamespace(metric=lambda *a, **k: None, seed=lambda *a: None)
sys.modules["provenance"] = types.SimpleNamespace(current_run=lambda: silent)
del sys.argv[0]
sys.path[0] = "."
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a training that nobody records, in an environment without `provenance`."""


def test_a_checkpoint_that_is_a_link(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    words = ("python", "lightning_fit.py", "data/rows.csv", "logs", "model", "link")
    folder = clone("work")
    predicate = record(folder, alice, environ, *words)
    assert (folder / "model" / "last.ckpt").is_symlink()
    names = {entry["name"] for entry in predicate["provenance_manifest"]}
    assert {"last.ckpt", "epoch=1-step=8.ckpt"} & names


def test_a_folder_that_the_run_names(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    """`lightning_logs/version_1`, beside the one of an earlier run."""
    folder = clone("work")
    words = ("python", "lightning_fit.py", "data/rows.csv", "runs")
    subprocess.run(
        [os.environ["PROVENANCE_TORCH"], "-c", ALONE, *words[1:]],
        cwd=folder,
        env={**os.environ, **environ},
        check=True,
    )
    record(folder, alice, environ, *words, model="runs/lightning_logs/*/")
    assert not (folder / "runs/lightning_logs/version_0/claims.jsonl").exists()
    verified = run_program(
        "verify", "runs/lightning_logs/version_1", "--key", alice.public, cwd=folder
    )
    assert verified.status == 0, verified.err


def test_a_folder_that_is_named_by_the_date(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    folder = clone("work")
    train = "python sklearn_fit.py data/rows.csv model/$(date +%F/%H-%M-%S)"
    predicate = record(folder, alice, environ, "bash", "-c", train, model="model/*/*/")
    assert [entry["name"] for entry in predicate["provenance_manifest"]] == ["fitted.pickle"]


def test_workers_that_are_spawned_are_heard(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    """What only a worker of the DataLoader reads is known, git-ignored as it is."""
    folder = clone("work")
    (folder / "data" / "more.csv").write_text("1,2,3,4,5\n" * 8)
    predicate = record(folder, alice, environ, "python", "loaded.py", "data/more.csv", "model")
    build = predicate["buildDefinition"]
    assert build["internalParameters"]["collectors"]["reads"]["values"]["processes"] >= 3
    assert [file["name"] for file in build["externalParameters"]["source"]["read"]] == [
        "data/more.csv"
    ]


def test_a_module_that_is_edited_while_the_run_sleeps(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    folder = clone("work")
    edit = "sleep 1; echo 'SCALE = 2' >> rows.py"
    predicate = record(folder, alice, environ, "bash", "-c", f"{edit}; python {TORCH}")
    [changed] = predicate["runDetails"]["provenance_outcome"]["changedInputs"]
    assert changed["name"] == "source"
    assert changed["changed"] == ["rows.py"]
    assert run_program("verify", "model", "--key", alice.public, cwd=folder).status == 1
