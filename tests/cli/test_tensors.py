"""``record --tensors`` and what follows from it: forms of a model, by hand and by others."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.capture.test_tensors import WEIGHTS, half
from tests.cli.test_finish import command_in, statement
from tests.weights.writing import simple
from tests.world import refused, write_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.world import Person, Ran, Shell

TRAIN = "mkdir -p model; cp made/* model/"

pytestmark = pytest.mark.usefixtures("runs")


@pytest.fixture(autouse=True)
def _made(work: Path) -> None:
    write_files(work / "made", {"model.safetensors": simple(WEIGHTS)})


def described(root: Path) -> dict[str, Any]:
    """Return the byproduct in the one claim about the model in *root*."""
    [found] = [it for it in statement(root)["runDetails"]["byproducts"] if it["name"] == "tensors"]
    return dict(found)


def test_the_tensors_of_a_training(record: Callable[..., Ran]) -> None:
    ran = record(TRAIN, "--tensors")
    assert ran.status == 0
    assert "weights  model.safetensors: F32=3, I64=1" in ran.err
    data = base64.b64decode(described(Path("model"))["content"])
    assert [json.loads(line)["name"] for line in data.splitlines()] == [*WEIGHTS]


def test_a_long_list_lies_beside_the_weights(record: Callable[..., Ran]) -> None:
    many = {f"layer.{number}": np.full(3, number, "<f4") for number in range(20)}
    write_files(Path("made"), {"model.safetensors": simple(many)})
    assert record(TRAIN, "--tensors").status == 0
    said = described(Path("model"))
    data = Path("model/provenance", said["digest"]["sha256"]).read_bytes()
    assert len(data.splitlines()) == said["annotations"]["count"] == 20


def test_without_the_option_no_tensor_is_read(record: Callable[..., Ran]) -> None:
    assert record().status == 0
    names = {it["name"] for it in statement(Path("model"))["runDetails"].get("byproducts", ())}
    assert "tensors" not in names


def test_who_has_the_form_sees_what_it_is_a_form_of(
    record: Callable[..., Ran], alice: Person, bob: Person, provenance: Shell
) -> None:
    """Alice trains; Bob casts her model, and ships that with a claim of his own."""
    assert record(TRAIN, "--tensors").status == 0
    write_files(Path("casts"), {"model.safetensors": half(WEIGHTS)})
    convert = ("--model", "bf16", "--base-model", "model", "--key", bob.private, "--tensors")
    ran = provenance("record", *convert, "--", "sh", "-c", "mkdir bf16; cp casts/* bf16")
    assert ran.status == 0
    keys = ("--key", alice.public, "--key", bob.public)
    seen = provenance("verify", "bf16", *keys, "--base", "model")
    assert seen.status == 0
    assert "cast:BF16 of baseModel://model.safetensors: 1 the same, 3 cast" in seen.out
    assert "made from  model" in seen.out
    assert "recorded (as" in seen.out
    assert "cast:BF16 of baseModel://" in provenance("show", "bf16").out


def test_a_form_that_is_one_file_is_verified_alone(
    record: Callable[..., Ran], alice: Person, bob: Person, provenance: Shell
) -> None:
    assert record(TRAIN, "--tensors").status == 0
    Path("m.safetensors").write_bytes(half(WEIGHTS))
    attested = provenance(
        "attest", "m.safetensors", "--base-model", "model", "--key", bob.private, "--tensors"
    )
    assert attested.status == 0, attested.err
    Path("model/claims.jsonl").rename("published.jsonl")
    shutil.rmtree("model")
    keys = ("--key", alice.public, "--key", bob.public)
    seen = provenance("verify", "m.safetensors", *keys, "--base", "published.jsonl")
    assert seen.status == 0, seen.err
    assert "cast:BF16 of baseModel://model.safetensors: 1 the same, 3 cast" in seen.out
    assert "made from  model" in seen.out
    assert "recorded (as" in seen.out


def test_a_form_of_which_one_tensor_was_changed(
    record: Callable[..., Ran], bob: Person, provenance: Shell
) -> None:
    assert record(TRAIN).status == 0
    planted = dict(WEIGHTS) | {"norm": WEIGHTS["norm"] + np.float32(1)}
    write_files(Path("casts"), {"model.safetensors": half(planted)})
    convert = ("--base-model", "model", "--key", bob.private, "--tensors")
    assert provenance("attest", "casts", *convert).status == 0
    seen = provenance("verify", "casts", "--key", bob.public)
    assert "tensors of baseModel://model.safetensors: 1 the same, 2 cast, 1 not found" in seen.out
    assert "cast:" not in seen.out


def test_a_name_that_holds_a_secret_is_refused_and_can_be_redacted(
    record: Callable[..., Ran], provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", secret := "kiwi-4711-papaya-0815")
    write_files(Path("made"), {"model.safetensors": simple({f"w {secret}": WEIGHTS["norm"]})})
    ran = record(TRAIN, "--tensors")
    refused(ran, 125, "the byproduct tensors", "SOME_TOKEN")
    words = command_in(ran)
    assert words[-2:] == ["--redact", "byproducts/tensors"]
    refused(provenance(*words[:-2]), 125, "held a secret", "byproducts/tensors")
    assert provenance(*words).status == 0
    assert described(Path("model"))["annotations"] == {"redacted": True}
    assert secret not in Path("model/claims.jsonl").read_text()


def test_a_run_that_is_finished_later_has_its_tensors(
    record: Callable[..., Ran], provenance: Shell
) -> None:
    write_files(Path("base"), {"model.safetensors": simple(WEIGHTS)})
    ran = record(f"{TRAIN}; mkfifo model/pipe", "--tensors", "--base-model", "base")
    refused(ran, 125, "pipe")
    Path("model/pipe").unlink()
    words = command_in(ran)
    assert provenance(*words).status == 0
    [said] = described(Path("model"))["annotations"]["files"]
    assert said["conversion"] == "copy"
    assert said["from"] == "baseModel://model.safetensors"


def test_finish_may_ask_for_it(record: Callable[..., Ran], provenance: Shell) -> None:
    refused(ran := record(f"{TRAIN}; mkfifo model/pipe"), 125, "pipe")
    Path("model/pipe").unlink()
    assert provenance(*command_in(ran), "--tensors").status == 0
    assert described(Path("model"))["annotations"]["count"] == len(WEIGHTS)
