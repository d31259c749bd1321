"""What a program's text says, without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from provenance.doctor import program
from provenance.doctor.program import read_program

if TYPE_CHECKING:
    from pathlib import Path

SEEDED = "import torch\ntorch.manual_seed(0)\ntorch.use_deterministic_algorithms(True)\n"


def hints(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [text for text, _ in read_program([path]).hints()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import numpy as np\nnp.random.rand(3)\n", "no seed of numpy is seen in train.py"),
        ("from numpy.random import default_rng\ndefault_rng()\n", "no seed of numpy is seen"),
        ("import random\nrandom.random()\n", "no seed of random is seen in train.py"),
        ("import torch\ntorch.rand(1)\n", "no seed of torch is seen in train.py"),
        ("import torch\ntorch.rand(1)\n", "use_deterministic_algorithms is not seen in train.py"),
        ("from sklearn.svm import SVC\nSVC()\n", "no random_state is seen in train.py"),
        ("import keras\nkeras.Sequential()\n", "no seed of TensorFlow or Keras is seen"),
        (
            f"{SEEDED}torch.backends.cudnn.benchmark = True\n",
            "cudnn.benchmark chooses kernels by speed (train.py:4)",
        ),
        (
            f"{SEEDED}from torch.utils import data\ndata.DataLoader([], num_workers=2)\n",
            "a DataLoader has workers and no generator (train.py:5)",
        ),
        (
            f"{SEEDED}import torch.nn as nn\nnn.CTCLoss()\n",
            "torch.nn.CTCLoss may have no deterministic path on CUDA (train.py:5)",
        ),
        (f"{SEEDED}torch.ones(2).put_(0, 1)\n", "put_ may have no deterministic path on CUDA"),
    ],
)
def test_a_hint(tmp_path: Path, text: str, expected: str) -> None:
    assert any(hint.startswith(expected) for hint in hints(tmp_path / "train.py", text))


@pytest.mark.parametrize(
    "text",
    [
        "import random, numpy\nrandom.seed(1)\nnumpy.random.seed(1)\nnumpy.random.rand()\n",
        "import numpy as np\nrng = np.random.default_rng(seed=1)\nrng.random()\n",
        "import random\nprint(1)\n",
        f"{SEEDED}torch.backends.cudnn.benchmark = False\n",
        f"{SEEDED}from torch.utils.data import DataLoader as D\nD([], num_workers=0)\n",
        (
            f"{SEEDED}from torch.utils.data import DataLoader\n"
            "DataLoader([], num_workers=2, generator=torch.Generator())\n"
        ),
        "import lightning as L\nL.seed_everything(1)\nL.Trainer(deterministic=True)\n",
        "from transformers import enable_full_determinism\nenable_full_determinism(1)\n",
        "from sklearn.svm import SVC\nSVC(random_state=1)\n",
    ],
)
def test_nothing_to_hint_at(tmp_path: Path, text: str) -> None:
    assert hints(tmp_path / "train.py", text) == []


def test_a_module_beside_the_program_seeds(tmp_path: Path) -> None:
    (tmp_path / "set_up.py").write_text("import numpy\ndef all():\n    numpy.random.seed(0)\n")
    text = "import numpy, set_up\nset_up.all()\nnumpy.random.rand()\n"
    assert hints(tmp_path / "train.py", text) == []
    assert read_program([tmp_path / "train.py"]).files == ("train.py", "set_up.py")


def test_the_clock_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import time\nfrom datetime import datetime\ndatetime.now()\n")
    assert [*read_program([tmp_path / "a.py"]).volatile()] == ["datetime.datetime.now (a.py:3)"]


@pytest.mark.parametrize(
    "data",
    [b"\0", b"def", b"\xff\xfe", b"(" * 10_000, b"-" * 100_000 + b"1", b"a." * 200_000 + b"b"],
    ids=["null", "syntax", "encoding", "parentheses", "minus", "attributes"],
)
def test_a_text_that_is_no_program_says_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.py").write_bytes(data)
    (tmp_path / "b.py").write_text("import random\nrandom.random()\n")
    said = read_program([tmp_path / "a.py", tmp_path / "b.py", tmp_path / "none.py"])
    assert said.files[-1] == "b.py"
    assert len([*said.hints()]) == 1


def test_nothing_is_run_and_modules_that_import_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f"import b\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "b.py").write_text("import a\nraise SystemExit\n")
    assert read_program([tmp_path / "a.py"]).files == ("a.py", "b.py")
    assert not (tmp_path / "ran").exists()


def test_so_many_files_and_no_more_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "MAX_FILES", 2)
    for number in range(4):
        (tmp_path / f"m{number}.py").write_text(f"import m{number + 1}\n")
    assert read_program([tmp_path / "m0.py"]).files == ("m0.py", "m1.py")


def test_imports_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name longer than any file's, and a program at the top of a machine, as in containers."""
    text = f"import {'a' * 5000}, {'b.' * 5000}c, model\nimport random\nrandom.random()\n"
    assert hints(tmp_path / "train.py", text) == ["no seed of random is seen in train.py"]
    monkeypatch.setattr(program, "read_file", lambda *_: text.encode())
    assert read_program([type(tmp_path)("/train-of-nobody.py")]).files == ("train-of-nobody.py",)
