"""``verify --checkpoint``, and the chain of a recorder that is killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from provenance.capture.checkpoints import CHAIN
from tests.world import PROGRAM, edit_lines, payload_of, refused, sign_document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.world import Person, Ran, Shell

TRAIN = """
for step in 5 10; do
  mkdir -p model/checkpoint-$step
  printf $step > model/checkpoint-$step/model.safetensors
  printf rng > model/checkpoint-$step/rng_state.pth
done
printf 10 > model/model.safetensors
"""


@pytest.fixture
def kept(work: Path, record: Callable[..., Ran]) -> Path:
    """A copy of the first checkpoint of a recorded run, which somebody kept."""
    assert record().status == 0
    return shutil.copytree(work / "model/checkpoint-5", work / "kept")


def test_a_checkpoint_is_shown_to_be_of_the_run(
    kept: Path, provenance: Shell, alice: Person
) -> None:
    verify = ("verify", "model", "--key", alice.public)
    ran = provenance(*verify, "--checkpoint", "kept", "--checkpoint", "model/checkpoint-10")
    assert ran.status == 0, ran
    lines = [line for line in ran.out.splitlines() if " checkpoint " in line]
    assert [line.split()[1] for line in lines] == ["10", "11"]
    assert "kept is ${model}/checkpoint-5, step 5" in lines[0]
    assert "checkpoint-10, step 10" in lines[1]
    shown = " ".join(provenance("show", "model").out.split())
    assert "firstStep=5, lastStep=10, root=" in shown
    ran = provenance(*verify, "--checkpoint", kept / "model.safetensors")
    refused(ran, 1, "model.safetensors: is no checkpoint of the run")  # it is one with the others


@pytest.mark.parametrize("forged", ["changed", "more", "linked", "missing"])
def test_another_checkpoint_is_refused(
    kept: Path, provenance: Shell, alice: Person, forged: str
) -> None:
    kept = kept.rename(kept.with_name("checkpoint-5"))
    match forged:
        case "changed":
            (kept / "model.safetensors").write_bytes(b"6")
        case "more":
            (kept / "adapter_model.safetensors").write_bytes(b"more")
        case "linked":
            (kept / "pytorch_model.bin").symlink_to("model.safetensors")
        case "missing":
            (kept / "rng_state.pth").unlink()
    ran = provenance("verify", "model", "--key", alice.public, "--checkpoint", kept)
    names = {"more": "adapter_model", "linked": "1 link", "missing": "rng_state.pth"}
    refused(ran, 1, names.get(forged, "differs in model.safetensors"))
    assert "✗ 10 checkpoint" in ran.out


def test_a_chain_of_another_root_or_none_is_refused(
    kept: Path, work: Path, provenance: Shell, alice: Person
) -> None:
    verify = ("verify", "model", "--key", alice.public, "--checkpoint", kept)

    def edit(change: Callable[[dict[str, Any]], None]) -> None:
        def changed(lines: list[bytes]) -> list[bytes]:
            document = json.loads(payload_of(lines[-1]))
            change(document["predicate"]["runDetails"])
            return [sign_document(document, alice)]

        edit_lines(work / "model", changed)

    assert provenance(*verify).status == 0
    edit(lambda run: run["byproducts"][0]["annotations"].update(root="00" * 32))
    refused(provenance(*verify), 1, "is not the chain whose root was signed")
    edit(lambda run: run.update(byproducts=[]))
    refused(provenance(*verify), 1, "the claim lists no checkpoints")
    assert provenance(*verify[:-2]).status == 0


def test_a_killed_recorder_leaves_the_chain_of_what_it_hashed(
    work: Path, provenance: Shell, alice: Person, runs: Path
) -> None:
    (work / "train.py").write_text(
        "import pathlib, shutil, time\n"
        "def save(n):\n"
        "    at = pathlib.Path('new'); at.mkdir(); (at / 'model.pt').write_text(str(n))\n"
        "    pathlib.Path('model').mkdir(exist_ok=True); at.rename(f'model/checkpoint-{n}')\n"
        "def wait(name):\n"
        "    while not pathlib.Path(name).exists(): time.sleep(0.01)\n"
        "save(1); wait('hashed'); shutil.rmtree('model/checkpoint-1'); save(2); wait('killed')\n"
        "save(3); shutil.rmtree('model/checkpoint-2'); pathlib.Path('ended').touch()\n"
    )
    words = ("--model", "model", "--key", str(alice.private), "--", sys.executable, "train.py")
    with subprocess.Popen(
        [*PROGRAM, "record", *words], stderr=subprocess.DEVNULL, start_new_session=True
    ) as recorder:

        def wait_for(condition: Callable[[], object]) -> None:
            until = time.monotonic() + 300
            while not condition():
                assert time.monotonic() < until
                time.sleep(0.01)

        def listed() -> str:
            return "".join(each.read_text() for each in runs.glob(f"*/{CHAIN}"))

        wait_for(lambda: "checkpoint-1" in listed())
        shutil.copytree("model/checkpoint-1", "kept")
        (work / "hashed").touch()
        wait_for((work / "model/checkpoint-2").exists)
        recorder.kill()
    (work / "killed").touch()
    wait_for((work / "ended").exists)
    [name] = [each.name for each in runs.iterdir()]
    before = listed()
    wait_for(lambda: "still runs" not in provenance("record", "--finish", name).err)
    verify = ("verify", "model", "--key", alice.public)
    ran = provenance(*verify, "--checkpoint", "kept")
    assert ran.status == 0, ran
    assert "kept is ${model}/checkpoint-1, step 1" in ran.out
    listed_there = [json.loads(line)["name"] for line in before.splitlines()]
    assert listed_there in (
        ["${model}/checkpoint-1"],
        ["${model}/checkpoint-1", "${model}/checkpoint-2"],
    )
    refused(provenance(*verify, "--checkpoint", "model/checkpoint-3"), 1, "is no checkpoint")
