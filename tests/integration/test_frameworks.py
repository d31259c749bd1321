"""Real trainings, each recorded by two people in two folders, most under launchers.

What is recorded must be of the process that trained, and the two must have followed one recipe.
`make test-integrations` sets the environment up: PROVENANCE_TORCH is its Python, and nothing of
ours is installed there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from tests.frameworks.train import ALONE
from tests.integration.recording import SKLEARN, TRAININGS, Recorded, record
from tests.world import run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.world import Person

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_TORCH"), reason="PROVENANCE_TORCH names no Python with torch"
    ),
]


PACKAGES = {
    "torch": "torch numpy",
    "torch under bash -c": "torch",
    "torchrun": "torch",
    "scikit-learn": "scikit-learn",
    "scikit-learn under uv run": "scikit-learn",
    "HF Trainer": "transformers accelerate torch",
    "Lightning": "pytorch-lightning torchmetrics torch",
    "notebook": "torch ipykernel",
}
"""The packages that do each training."""

METRICS = {
    "scikit-learn": "accuracy",
    "scikit-learn under uv run": "accuracy",
    "notebook": "residual",
}
DIFFERENT_BYTES = ("HF Trainer", "Lightning")


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


def installed(run: Recorded) -> dict[str, str]:
    """Return the versions of the distributions that the training saw, which must be known."""
    for name in ("interpreter", "packages"):
        assert run.collectors[name]["status"] == "ok", run.collectors[name]
    dependencies = run.predicate["buildDefinition"]["resolvedDependencies"]
    uris = (item.get("uri", "") for item in dependencies)
    named = (uri.removeprefix("pkg:pypi/").split("@") for uri in uris if uri.startswith("pkg:"))
    return {name.lower(): unquote(version) for name, version in named}


def reported(predicate: Mapping[str, Any]) -> dict[str, float]:
    """Return the last value of each metric that the training reported."""
    [metrics] = (
        item for item in predicate["runDetails"]["byproducts"] if item["name"] == "metrics"
    )
    last: dict[str, float] = metrics["annotations"]["last"]
    return last


# --- Two runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACKAGES)
def test_two_people_follow_one_recipe(
    name: str, recorded: Callable[..., Recorded], environ: dict[str, str], versions: dict[str, str]
) -> None:
    training = TRAININGS[name]
    launcher = training.words(out="model")[0]
    if shutil.which(launcher, path=environ["PATH"]) is None:
        pytest.skip(f"there is no {launcher} here")
    both = recorded(name), recorded(name, "bob")
    metric = METRICS.get(name, "loss")
    for each in both:
        verified = run_program(
            "verify", each.model, "--key", each.person.public, "--require", "recorded"
        )
        assert verified.status == 0, verified.err
        assert each.predicate["runDetails"]["provenance_outcome"] == {"exitStatus": 0}
        assert metric in reported(each.predicate)
        found = installed(each)
        assert {package: found.get(package) for package in PACKAGES[name].split()} == {
            package: versions[package] for package in PACKAGES[name].split()
        }
        assert "pytest" not in found  # that is in the recorder's environment
        assert each.collectors["program"]["status"] == "ok"
    if metric == "loss":  # torch took steps
        states = [each.collectors["program"]["values"] for each in both]
        first, other = (state["step"] for state in states)
        for it in ("torch.initial_seed", "torch.get_num_threads", "optimizer.initialWeights"):
            assert first[it] == other[it]
        if name == "torchrun":
            [ranks] = {state["processes"] for state in states}
            assert (ranks, states[0]["others"]["1"]["environ.RANK"]) == (2, "1")
    keys = (f"--key={each.person.public}" for each in both)
    ran = run_program("agree", *(each.model for each in both), *keys, "--json")
    assert "verdict" in ran.document, ran
    judged = ran.document["verdict"]
    [rebuild] = judged["rebuilds"]
    assert rebuild["recipeDifferences"] == []
    unknown = [f"perhaps read: {training.stray}"] if training.stray else []
    assert rebuild["recipeUnknown"] == unknown
    assert rebuild["recipe"] == ("unknown" if unknown else "same")
    if name not in DIFFERENT_BYTES:
        assert judged["conclusion"] == "match"
        assert rebuild["outcome"]["strongest"] == "bytes"


# --- What else real runs do -----------------------------------------------------------------------


def test_torch_computes_the_same_bits_with_and_without_the_recorder(
    recorded: Callable[..., Recorded], clone: Callable[[str], Path], environ: dict[str, str]
) -> None:
    folder = clone("work")
    words = TRAININGS["torch"].words(out="model")[1:]
    without = [os.environ["PROVENANCE_TORCH"], "-c", ALONE, *words]
    subprocess.run(without, cwd=folder, env={**os.environ, **environ}, check=True)
    made = (folder / "model" / "net.pt").read_bytes()
    assert made == (recorded("torch").model / "net.pt").read_bytes()


def test_a_checkpoint_that_is_a_link(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    words = ("python", "lightning_fit.py", "data/rows.csv", "logs", "model", "link")
    folder = clone("work")
    made = record(folder, alice, environ, *words)
    assert (folder / "model" / "last.ckpt").is_symlink()
    names = {entry["name"] for entry in made.predicate["provenance_manifest"]}
    assert {"last.ckpt", "epoch=1-step=8.ckpt"} & names


def test_a_folder_that_the_run_names(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    """`lightning_logs/version_1`, beside the one of an earlier run."""
    folder = clone("work")
    earlier = folder / "runs/lightning_logs/version_0"
    earlier.mkdir(parents=True)
    (earlier / "metrics.csv").write_text("loss\n1\n")
    words = ("python", "lightning_fit.py", "data/rows.csv", "runs")
    record(folder, alice, environ, *words, model="runs/lightning_logs/*/")
    assert [path.name for path in earlier.iterdir()] == ["metrics.csv"]
    verified = run_program(
        "verify", "runs/lightning_logs/version_1", "--key", alice.public, cwd=folder
    )
    assert verified.status == 0, verified.err


def test_a_folder_that_is_named_by_the_date(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    folder = clone("work")
    train = "python sklearn_fit.py data/rows.csv model/$(date +%F/%H-%M-%S)"
    made = record(folder, alice, environ, "bash", "-c", train, model="model/*/*/")
    assert [each["name"] for each in made.predicate["provenance_manifest"]] == ["fitted.pickle"]


def test_workers_that_are_spawned_are_heard(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    """What only a worker of the DataLoader reads is known, git-ignored as it is."""
    folder = clone("work")
    (folder / "data" / "more.csv").write_text("1,2,3,4,5\n" * 8)
    made = record(folder, alice, environ, "python", "loaded.py", "data/more.csv", "model")
    assert made.collectors["reads"]["values"]["processes"] >= 3
    source = made.predicate["buildDefinition"]["externalParameters"]["source"]
    assert [file["name"] for file in source["read"]] == ["data/more.csv"]


def test_a_module_that_is_edited_while_the_run_sleeps(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    folder = clone("work")
    edit = "sleep 1; echo 'SCALE = 2' >> rows.py"
    train = SKLEARN.format(out="model")
    made = record(folder, alice, environ, "bash", "-c", f"{edit}; python {train}")
    [changed] = made.predicate["runDetails"]["provenance_outcome"]["changedInputs"]
    assert changed["name"] == "source"
    assert changed["changed"] == ["rows.py"]
    assert run_program("verify", "model", "--key", alice.public, cwd=folder).status == 1
