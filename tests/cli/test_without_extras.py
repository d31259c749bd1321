"""What each command does where a package that an extra brings is not installed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import h5py
import numpy as np
import pytest
from onnx import TensorProto, helper, save

from tests.world import Ran, attest, declared, make_log, refused, run_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.world import Person

WEIGHTS = "reading tensors needs numpy and ml-dtypes (pip install 'training-provenance[weights]')"

SIGNED = Path(__file__).parents[1] / "vectors/openssf-model-signing"

Run: TypeAlias = "Callable[..., Ran]"


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., Run]:
    """Return the command line of an environment without the given packages."""

    def lacking(*packages: str) -> Run:
        folder = tmp_path / "not-installed"
        folder.mkdir(exist_ok=True)
        for name in packages:
            text = f"raise ModuleNotFoundError('No module named {name}', name={name!r})\n"
            (folder / f"{name}.py").write_text(text)
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))

        def run(*arguments: str | Path) -> Ran:
            return run_program(*arguments, cwd=tmp_path, environ={"PYTHONPATH": path})

        return run

    return lacking


@pytest.fixture
def bare(without: Callable[..., Run]) -> Run:
    return without("numpy", "ml_dtypes", "scipy", "h5py", "onnx", "onnxruntime")


@pytest.fixture
def folder(tmp_path: Path, alice: Person) -> Path:
    root = tmp_path / "model"
    root.mkdir()
    np.save(root / "w.npy", np.ones(3, np.float32))
    return attest(root, alice, equality=declared("bytes"))


def test_what_needs_tensors_says_so(bare: Run, folder: Path, alice: Person, tmp_path: Path) -> None:
    before = sorted(folder.iterdir())
    for arguments in (
        ("compare", folder, folder),
        ("compare", folder / "w.npy", folder / "w.npy", "--equality", "tensors"),
        ("agree", folder, folder, "--key", alice.public),
        ("equality", "check", "tensors", folder),
        ("attest", folder, "--key", alice.private, "--equality", "tensors"),
        ("show", folder / "w.npy"),
    ):
        ran = bare(*arguments)
        refused(ran, 4, WEIGHTS)
        assert ran.out == ""
    assert sorted(folder.iterdir()) == before
    assert not (tmp_path / "verdict.json").exists()


def test_what_needs_no_tensors_works(
    bare: Run, folder: Path, alice: Person, larry: Person, tmp_path: Path
) -> None:
    make_log(tmp_path / "log", larry)
    key = ("--key", alice.private)
    for arguments in (
        ("verify", folder, "--key", alice.public),
        ("sign", folder, *key),
        ("attest", folder, *key, "--equality", "bytes"),
        ("publish", folder, "--log", tmp_path / "log"),
        ("verify", folder, "--key", alice.public, "--log", tmp_path / "log/vkey"),
        ("log", "audit", tmp_path / "log", "--key", tmp_path / "log/vkey"),
        ("equality", "list"),
        ("equality", "show", "tensors"),
        ("equality", "check", "close-float32"),
        ("show", folder),
        ("show", folder / "claims.jsonl"),
        ("show", tmp_path / "log"),
        ("show", alice.public),
    ):
        ran = bare(*arguments)
        assert (ran.status, "Traceback" in ran.err) == (0, False), ran


@pytest.mark.parametrize("equality", ["bytes", "tensors"])
def test_record_makes_the_claim(equality: str, bare: Run, alice: Person, tmp_path: Path) -> None:
    stated = ("--model", "made", "--key", alice.private, "--equality", equality)
    ran = bare("record", *stated, "--", "sh", "-c", "mkdir made && echo 1 > made/w")
    assert ran.status == 0
    assert bare("verify", tmp_path / "made", "--key", alice.public).status == 0
    warning = f"warning: whether the equality fits this model was not checked: {WEIGHTS}"
    assert (warning in ran.err) == (equality == "tensors")


def test_hdf5_without_h5py(without: Callable[..., Run], tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["w"] = np.full(3, ord(name[0]), np.float32)
    run, needed = without("h5py"), "needs h5py (pip install 'training-provenance[hdf5]')"
    refused(run("show", "a.h5"), 4, f"a.h5: {needed}")
    refused(run("compare", "a.h5", "b.h5"), 4, "a.h5", needed)


def test_onnx_without_onnx(without: Callable[..., Run], tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [float(ord(name[0]))])
        graph = helper.make_graph([], "g", [], [], [weight])
        save(helper.make_model(graph), tmp_path / name)
    run, needed = without("onnx"), "needs onnx (pip install 'training-provenance[onnx]')"
    refused(run("show", "a.onnx"), 4, f"a.onnx: reading ONNX {needed}")
    refused(run("compare", "a.onnx", "b.onnx"), 4, "a.onnx", needed)


def test_scores_without_scipy(without: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "scores.toml").write_text(
        'format = 1\nname = "scores"\nversion = 1\n[[any]]\n[[any.all]]\nequality = "metrics"\n'
        'samples = ["scores.npz"]\nmargin = 0.01\nreason = "measured"\n'
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w").write_text(name)
        np.savez(tmp_path / name / "scores.npz", accuracy=np.ones(40))
    ran = without("scipy")("compare", "a", "b", "--equality", "scores.toml")
    refused(ran, 4, "needs scipy (pip install 'training-provenance[stats]')")


def test_a_gate_that_lacks_what_it_needs(without: Callable[..., Run], tmp_path: Path) -> None:
    model = shutil.copytree(SIGNED / "model", tmp_path / "tiny")
    shutil.copy(SIGNED / "made/1.1.1-blake3.sig", model / "model.sig")
    key = json.dumps(str(SIGNED / "made/key.pub"))
    (tmp_path / "policy.toml").write_text(
        f'format = 1\n[[party]]\nname = "a"\norganisation = "a"\nkeys = [{key}]\n'
        '[[rule]]\nstatement = "signature"\n'
    )
    ran = without("blake3")("verify", model, "--trust", "policy.toml", "--json")
    refused(ran, 4, "BLAKE3, which needs a package", "training-provenance[blake3]")
    assert ran.document["verified"] is False
    assert "BLAKE3" in ran.document["error"]["message"]
    assert "policy" not in ran.document
