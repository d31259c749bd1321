from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.judge.models import RUN
from tests.rebuilding.builds import CLOSE, files, padded
from tests.weights.onnx_writing import WEIGHT, model, tensor, written
from tests.weights.writing import simple
from tests.world import Ran, Shell, refused, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def compare(tmp_path: Path, provenance: Shell) -> Callable[..., Ran]:
    """Compare a model with the files of another."""

    def run(other: dict[str, bytes], *options: str | Path) -> Ran:
        left = write_files(tmp_path / "a", files())
        return provenance("compare", left, write_files(tmp_path / "b", other), *options)

    return run


def test_weights_behind_links_are_compared(
    tmp_path: Path, provenance: Shell, compare: Callable[..., Ran]
) -> None:
    assert compare(files(1e-4)).status == 1
    for folder in (tmp_path / "a", tmp_path / "b"):
        (folder / "kept").mkdir()
        (folder / "model.safetensors").rename(folder / "kept/weights")
        (folder / "model.safetensors").symlink_to("kept/weights")
    ran = provenance("compare", tmp_path / "a", tmp_path / "b")
    assert (ran.status, "w       F32   [100]  100 of 100" in ran.out) == (1, True)
    ran = provenance("compare", *(tmp_path / name / "model.safetensors" for name in "ab"))
    assert (ran.status, "w       F32   [100]  100 of 100" in ran.out) == (1, True)


def test_equal_models(compare: Callable[..., Ran]) -> None:
    ran = compare(files())
    assert ran.status == 0
    assert "= model.safetensors  equal" in ran.out
    assert "2 of 2 files equal\n" in ran.out


def test_a_changed_tensor_with_its_distances(compare: Callable[..., Ran]) -> None:
    ran = compare(files(1e-4))
    assert ran.status == 1
    assert "≠ model.safetensors  changed" in ran.out
    for line in (
        "tensor  type  shape      differ      L2      L∞  worst at  ",
        "w       F32   [100]  100 of 100  0.0001  0.0001  [",
        "L2 = ‖A-B‖ / the smaller of ‖A‖ and ‖B‖; L∞ the same of the largest",
        "they begin to differ at model.safetensors: w[0]",
        "0 of 1 tensor equal",
    ):
        assert line in ran.out, line


def test_missing_and_extra_files(compare: Callable[..., Ran]) -> None:
    other = files()
    del other["initial.safetensors"]
    ran = compare(other | {"extra\nfile": b""} if os.name == "nt" else other | {"extra": b""})
    assert ran.status == 1
    assert "≠ extra  only in B" in ran.out
    assert "≠ initial.safetensors  only in A" in ran.out


def test_only_the_container_differs(compare: Callable[..., Ran]) -> None:
    ran = compare(padded(files()))
    assert ran.status == 0
    assert "= model.safetensors  same tensors, another file" in ran.out
    assert "the containers differ: " in ran.out
    assert "1 of 1 tensor equal" in ran.out
    assert "1 of 2 files equal, 1 with the same tensors\n" in ran.out
    assert compare(padded(files()), "--equality", "tensors").status == 0
    assert compare(padded(files()), "--equality", "bytes").status == 1


def test_by_a_declaration(compare: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "close.toml").write_bytes(CLOSE)
    close = compare(files(1e-4), "--equality", tmp_path / "close.toml")
    assert close.status == 0
    assert "consistent by close" in close.out
    far = compare(files(0.1), "--equality", tmp_path / "close.toml")
    assert far.status == 1
    assert "mismatch" in far.out
    assert "limit 0.001" in far.out


def test_one_document(compare: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "close.toml").write_bytes(CLOSE)
    document = compare(files(1e-4), "--json").document
    assert document["outcome"] is None
    assert {item["name"]: item["state"] for item in document["files"]} == {
        "initial.safetensors": "equal",
        "model.safetensors": "changed",
    }
    judged = compare(files(1e-4), "--json", "--equality", tmp_path / "close.toml").document
    assert judged["outcome"]["conclusion"] == "consistent"


def test_two_files(compare: Callable[..., Ran], tmp_path: Path, provenance: Shell) -> None:
    compare(files(1e-4))
    one, other = (tmp_path / name / "model.safetensors" for name in "ab")
    assert provenance("compare", one, one).status == 0
    assert provenance("compare", one, other).status == 1
    judged = provenance("compare", one, other, "--equality", "close-float32")
    assert (judged.status, "consistent by close" in judged.out) == (0, True)
    assert provenance("compare", one, other, "--equality", "tensors").status == 1
    refused(provenance("compare", one, tmp_path / "b"), 2, "a folder and a file")


def test_what_cannot_be_compared(
    compare: Callable[..., Ran], tmp_path: Path, provenance: Shell
) -> None:
    compare(files())
    refused(provenance("compare", tmp_path / "a", tmp_path / "none"), 3, "none: no such file")
    refused(provenance("compare", tmp_path / "a", "x" * 5000), 3, "no such file or folder")
    refused(compare(files(), "--equality", "none"), 2, "no equality 'none' is built in")
    (tmp_path / "bad.toml").write_text("version = 2")
    refused(compare(files(), "--equality", tmp_path / "bad.toml"), 3, "bad.toml")
    (tmp_path / "b" / "link").symlink_to("/etc/passwd")
    refused(compare(files()), 3, "b/link", "symbolic link")


def test_a_weight_file_that_cannot_be_read(compare: Callable[..., Ran]) -> None:
    ran = compare(files() | {"model.safetensors": b"junk"})
    assert ran.status == 1
    assert "not read: " in ran.out


# --- Models that are run --------------------------------------------------------------------------


@pytest.fixture
def compare_run(tmp_path: Path, provenance: Shell) -> Callable[..., Ran]:
    """Compare two ONNX models that add rows half apart, by what they do."""
    (tmp_path / "run.toml").write_bytes(RUN)
    rows = (WEIGHT[0], WEIGHT[0] + np.float32(0.5))
    for name, row in zip("ab", rows, strict=True):
        write_files(tmp_path / name, {"m.onnx": written(model([tensor("w", row)]))})

    def run(*options: str | Path) -> Ran:
        return provenance(
            "compare", tmp_path / "a", tmp_path / "b", "--equality", tmp_path / "run.toml", *options
        )

    return run


def test_models_are_run_on_the_given_probes(
    compare_run: Callable[..., Ran], tmp_path: Path
) -> None:
    probes = tmp_path / "probes.safetensors"
    probes.write_bytes(simple({"x": np.zeros((7, 1, 3), "<f4")}))
    ran = compare_run("--probes", probes)
    assert (ran.status, ran.err) == (0, "")
    assert "consistent by behaviour" in ran.out
    assert "at most: m.onnx: y: max-difference 0.5 (limit 0.6), worst at [" in ran.out
    outcome = compare_run("--probes", probes, "--json").document["outcome"]
    (said,) = (f for f in outcome["alternatives"][0]["findings"] if f["file"] == probes.name)
    digest = hashlib.sha256(probes.read_bytes()).hexdigest()
    assert (said["measure"], said["left"]) == ("probes-from-outside", digest)


def test_without_probes_the_models_are_not_run(compare_run: Callable[..., Ran]) -> None:
    ran = compare_run()
    assert ran.status == 1
    assert "inconclusive" in ran.out
    assert "missing: m.onnx: no probes: " in ran.out
    assert "(give a file of probes (--probes))" in ran.out


def test_probes_that_are_not_there(
    compare_run: Callable[..., Ran], tmp_path: Path, provenance: Shell
) -> None:
    refused(compare_run("--probes", tmp_path / "none.npz"), 3, "none.npz")
    a, b = tmp_path / "a", tmp_path / "b"
    refused(provenance("compare", a, b, "--probes", a / "m.onnx"), 2, "--probes needs --equality")


def test_what_was_excepted_is_told_with_its_reason(provenance: Shell, tmp_path: Path) -> None:
    def model(side: str, time: int) -> Path:
        state = f'{{"log_history": [{{"train_runtime": {time}, "step": 1}}]}}'.encode()
        args = b"\x80\x02}X\x0a\0\0\0output_dirX\x01\0\0\0" + side[:1].encode() + b"s."
        folder = {"trainer_state.json": state, "training_args.bin": args, **files()}
        return write_files(tmp_path / side, folder)

    left, right = model("left", 1), model("right", 2)
    declared = tmp_path / "mine.toml"
    declared.write_text(
        'format = 1\nname = "mine"\nversion = 1\n[[any]]\n[[any.all]]\nequality = "tensors"\n'
        '[[except]]\nfile = "trainer_state.json"\nkeys = ["log_history[].train_runtime"]\n'
        'reason = "wall time"\n'
    )
    without = provenance("compare", left, right, "--equality", "tensors")
    assert without.status == 1
    assert "all weights are equal, bit for bit" in without.out
    ran = provenance("compare", left, right, "--equality", declared)
    assert ran.status == 1
    assert "  excepted: trainer_state.json: log_history[].train_runtime (wall time)" in ran.out
    whole = '[[unsafe_except]]\nfile = "training_args.bin"\nreason = "a path"\n'
    declared.write_text(declared.read_text() + whole)
    both = provenance("compare", left, right, "--equality", declared)
    assert "match by tensors, apart from trainer_state.json, training_args.bin (UNSAFE)" in both.out
    assert "  excepted: training_args.bin (a path, UNSAFE)" in both.out
    assert "inconclusive" not in both.out
    (right / "training_args.bin").write_bytes((left / "training_args.bin").read_bytes())
    one = provenance("compare", left, right, "--equality", declared)
    said = "apart from trainer_state.json: log_history[].train_runtime (wall time)"
    assert f"match by tensors, {said}" in one.out
    outcome = provenance("compare", left, right, "--equality", declared, "--json").document[
        "outcome"
    ]
    assert [(each["left"], each["right"]) for each in outcome["exceptions"]] == [("1", "2")]
    assert outcome["loaders"] >= 1
