"""``record --tensors`` of a model in the forms that torch, safetensors and gguf write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.integration.recording import record
from tests.world import Person, run_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_TORCH"), reason="PROVENANCE_TORCH names no Python with torch"
    ),
]

FORMS = {
    "wide.safetensors": {"format": "safetensors", "count": 6, "types": {"F32": 6}},
    "m.safetensors": {
        "format": "safetensors", "count": 6, "types": {"BF16": 6},
        "from": "wide.safetensors", "cast": 6, "conversion": "cast:BF16",
    },
    "bf16.pt": {
        "format": "torch", "count": 6, "types": {"BF16": 6},
        "from": "wide.safetensors", "cast": 6, "conversion": "cast:BF16",
    },
    # One value is too large for a half.
    "f16.pt": {
        "format": "torch", "count": 6, "types": {"F16": 6},
        "from": "wide.safetensors", "cast": 5, "other": 1, "left": 1,
    },
    "BF16.gguf": {
        "format": "gguf", "count": 6, "types": {"BF16": 3, "F32": 3}, "fileType": "32",
        "from": "wide.safetensors", "renamed": 6,
    },
    "Q8_0.gguf": {
        "format": "gguf", "count": 6, "types": {"Q8_0": 3, "F32": 3}, "fileType": "7",
        "from": "BF16.gguf", "same": 3, "other": 3, "left": 3,
    },
    "Q4_0.gguf": {
        "format": "gguf", "count": 6, "types": {"Q4_0": 3, "F32": 3}, "fileType": "2",
        "from": "BF16.gguf", "same": 3, "other": 3, "left": 3,
    },
}  # fmt: skip


def test_each_form_is_told_for_what_it_is(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    folder = clone("forms")
    words = ("python", "forms.py", "model")
    made = record(folder, alice, environ, *words, options=("--tensors",))
    byproducts = {it["name"]: it for it in made.predicate["runDetails"]["byproducts"]}
    said = byproducts["tensors"]["annotations"]
    assert {it.pop("file"): it for it in said["files"]} == FORMS
    assert len(made.byproduct("tensors").splitlines()) == said["count"] == 6 * len(FORMS)
    shown = run_program("verify", "model", "--key", alice.public, cwd=folder)
    assert "bf16.pt: BF16=6; cast:BF16 of wide.safetensors: 6 cast" in shown.out


def test_a_form_that_was_downloaded_alone_leads_to_what_was_trained(
    clone: Callable[[str], Path], alice: Person, bob: Person, environ: dict[str, str]
) -> None:
    """Alice trains and publishes the wide file; Bob ships it for llama.cpp, with a claim of his."""
    folder = clone("alone")
    words = ("sh", "-c", "python forms.py forms && mkdir model && cp forms/wide* model")
    record(folder, alice, environ, *words)
    names = {"BF16": "6 under other names", "Q8_0": "3 under other names, 3 not found there"}
    keys = ("--key", alice.public, "--key", bob.public, "--base", "model/claims.jsonl")
    for name, found in names.items():
        form = (folder / "forms" / f"{name}.gguf").rename(folder / f"{name}.gguf").name
        options = ("--base-model", "model", "--key", bob.private, "--tensors")
        assert run_program("attest", form, *options, cwd=folder).status == 0
        shown = run_program("verify", form, *keys, cwd=folder)
        assert shown.status == 0, shown.err
        assert f"tensors of baseModel://wide.safetensors: {found}" in shown.out
        assert "made from  model" in shown.out
        assert "recorded (as" in shown.out
