"""What `provenance doctor` knows of torch is so, and it finds what a real training lacks."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from provenance.doctor.catalogue import CATALOGUE
from tests.world import run_program

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = os.environ.get("PROVENANCE_TORCH", "")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not PYTHON, reason="PROVENANCE_TORCH names no Python with torch"),
]

TRAIN = """
import os, torch
{seed}
os.makedirs("model", exist_ok=True)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
rows = torch.linspace(0, 1, 256 * 64).reshape(256, 64).sin()
for _ in range(3):
    loss = torch.nn.functional.cross_entropy(model(rows), torch.arange(256) % 10)
    gradients = torch.autograd.grad(loss, [*model.parameters()])
    with torch.no_grad():  # an optimizer of torch takes as long to import as torch
        for weights, gradient in zip(model.parameters(), gradients):
            weights -= gradient
torch.save(model.state_dict(), "model/w.pt")
"""


def ask(text: str, **environ: str) -> str:
    done = subprocess.run(
        [PYTHON, "-c", text], env={**os.environ, **environ}, capture_output=True, check=True
    )
    return done.stdout.decode()


def test_torch_lists_each_operation() -> None:
    documented = ask("import torch; print(torch.use_deterministic_algorithms.__doc__)")
    raising = documented.partition("will throw a\n")[2]
    listed = set(re.findall(r"`torch\.([\w.]+)`", raising))
    for name in CATALOGUE.without_deterministic_path:
        known = f"Tensor{name}" if name.startswith(".") else name.removeprefix("torch.")
        assert known in listed, name


def test_torch_takes_each_remedy() -> None:
    code = ["import random, numpy, torch, torch.utils.data"]
    code += [re.split(", and|, before|, or", seed.remedy)[0] for seed in CATALOGUE.seeds.values()]
    code += [
        hint.remedy for hint in CATALOGUE.hints if "use_deterministic_algorithms(" in hint.remedy
    ]
    code += [
        "assert torch.are_deterministic_algorithms_enabled()",
        "torch.backends.cudnn.benchmark = False",
        "generator = torch.Generator().manual_seed(0)",
        "torch.utils.data.DataLoader([1], num_workers=1, generator=generator)",
        "torch.ones(9, 9) @ torch.ones(9, 9)",
        "print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())",
    ]
    assert ask("\n".join(code), **CATALOGUE.settings).split() == ["DEFAULT", "1"]


@pytest.mark.parametrize(("seed", "named"), [("", ["torch"]), ("torch.manual_seed(0)", [])])
def test_a_training_in_torch(tmp_path: Path, seed: str, named: list[str]) -> None:
    (tmp_path / "train.py").write_text(TRAIN.format(seed=seed))
    words = ("doctor", "--twice", "--json", "--", PYTHON, "train.py")
    ran = run_program(*words, cwd=tmp_path, environ={"OMP_NUM_THREADS": "1"})
    said: dict[str, Any] = ran.document["twice"]
    assert (ran.status, said["unseeded"]) == (1 if named else 0, named), ran.err
    assert said["environment"] == {}
    threads = next(each for each in said["varied"] if each["what"] == "other threads")
    assert (threads["environment"]["OMP_NUM_THREADS"], threads["unmoved"]) == ("2", {})
