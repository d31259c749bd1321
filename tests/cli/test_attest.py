from __future__ import annotations

import os
import pickle
import re
import shutil
from argparse import Namespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.weights.writing import simple
from tests.world import FILES, Shell, refused, tree, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Person


def test_after_the_fact(tmp_path: Path, provenance: Shell, alice: Person) -> None:
    root = write_files(tmp_path / "model")
    ran = provenance("attest", root, "--key", alice.private, "--equality", "bytes", "--seed", "3")
    assert (ran.status, ran.out) == (0, "")
    assert "attested 4 files" in ran.err
    verified = provenance("verify", root, "--key", alice.public)
    assert verified.status == 0
    assert "attested after the fact: the run itself was not observed" in verified.out
    assert "seeds      seed=3" in verified.out
    [root] = re.findall(r"  root       [0-9a-f]{64}\n", verified.out)
    assert len(root) <= 80  # columns, so that it can be copied
    assert "\n  command " not in verified.out


HEADS = """format = 1
name = "heads"
version = 1
[[any]]
[[any.all]]
equality = "close"
tensors = ["head.*"]
relative_to = "weights"
relative_l2 = 1e-6
relative_linf = 1e-6
reason = "to test"
[[any.all]]
equality = "bytes"
files = ["*"]
"""
"""An equality of models that have the tensors of a head."""


def test_an_equality_that_does_not_fit_is_not_signed(
    tmp_path: Path, provenance: Shell, alice: Person
) -> None:
    root = write_files(tmp_path / "model", {"m.safetensors": simple({"body": np.ones(3)})})
    before = tree(root)
    (tmp_path / "heads.toml").write_text(HEADS)
    command = ("attest", root, "--key", alice.private, "--equality", tmp_path / "heads.toml")
    ran = provenance(*command)
    refused(ran, 1, "rule 1 (close) selects no tensor")
    assert tree(root) == before
    assert provenance(*command, "--dry-run").status == 0


@pytest.mark.parametrize(("folder", "to"), [("", "kept.bin"), ("a", "../kept.bin"), ("b", "m.0")])
def test_a_link_to_a_file_is_a_model_under_its_own_name(
    tmp_path: Path, provenance: Shell, alice: Person, folder: str, to: str
) -> None:
    write_files(tmp_path, {"kept.bin": b"weights", "a/x": b"", "b/x": b""})
    (tmp_path / "b" / "m.0").symlink_to("../kept.bin")
    (tmp_path / "c").symlink_to("b")
    link = tmp_path / folder / "m.bin"
    link.symlink_to(to)
    for path in (link, *([tmp_path / "c" / "m.bin"] if folder == "b" else [])):
        for verb in ("attest", "sign"):
            assert provenance(verb, path, "--key", alice.private).status == 0
            assert provenance("verify", path, "--key", alice.public).status == 0
    shutil.copy(link, tmp_path / "copied")  # the bytes, as one gets them
    (tmp_path / "copied").replace(tmp_path / folder / "m.bin")
    assert provenance("verify", link, "--key", alice.public).status == 0


TOKEN = "hf_" + "aB3" * 12


def test_a_credential_in_a_file_of_the_model_is_said(
    tmp_path: Path, provenance: Shell, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "correct-horse")
    arguments = pickle.dumps(Namespace(lr=0.1, hub_token=TOKEN, seed=0))
    inside = {f"{name}training_args.bin": arguments for name in ("", "last/", "first/", "best/")}
    root = write_files(tmp_path / "model", {**FILES, **inside, "a.json": b'["correct-horse"]'})
    said = "training_args.bin hold what looks like a credential (hugging-face)"
    whose = "a.json holds the value of the environment variable MY_API_KEY"
    for verb in ("sign", "attest"):
        ran = provenance(verb, root, "--key", alice.private)
        assert ran.status == 0
        assert f"{said}: who gets the model gets it" in ran.err
        assert whose in ran.err
        assert not {TOKEN, "correct-horse"} & {*re.split(r"[\s'\"]", ran.err + ran.out)}
    ran = provenance("attest", root, "--key", alice.private, "--unsafe-allow-secret", "MY_API_KEY")
    assert (whose in ran.err, "(hugging-face)" in ran.err) == (False, True)
    # Of a run, too, that is recorded; the program wrote it.
    (tmp_path / "made").mkdir()
    (tmp_path / "kept").write_bytes(arguments)
    words = ("cp", tmp_path / "kept", tmp_path / "made" / "training_args.bin")
    ran = provenance("record", "--model", tmp_path / "made", "--key", alice.private, "--", *words)
    assert ran.status == 0
    assert "training_args.bin holds what looks like a credential (hugging-face)" in ran.err


def test_one_document(tmp_path: Path, provenance: Shell, alice: Person) -> None:
    root = write_files(tmp_path / "model")
    ran = provenance("attest", root, "--key", alice.private, "--json")
    outcome = ran.document["statement"]["predicate"]["runDetails"].get("provenance_outcome")
    assert not outcome
    assert ran.document["keyId"] == alice.key_id
    assert ran.document["written"] == [str(root / "claims.jsonl"), str(root / "model.sig")]


def test_a_dry_run_writes_nothing(tmp_path: Path, provenance: Shell, alice: Person) -> None:
    root = write_files(tmp_path / "model")
    before = tree(root)
    ran = provenance("attest", root, "--key", alice.private, "--dry-run")
    assert ran.status == 0
    assert len(ran.document["predicate"]["provenance_manifest"]) == 4
    assert tree(root) == before


def test_models_that_cannot_be_attested(tmp_path: Path, provenance: Shell, alice: Person) -> None:
    def attempt(root: Path, *words: str) -> None:
        before = tree(tmp_path)
        refused(provenance("attest", root, "--key", alice.private), 3, *words)
        assert tree(tmp_path) == before

    attempt(tmp_path / "none", "none: no such folder")
    (tmp_path / "empty").mkdir()
    attempt(tmp_path / "empty", "holds no files")
    os.mkfifo(tmp_path / "pipe")
    attempt(tmp_path / "pipe", "is not a folder")
    write_files(tmp_path / "link")
    (tmp_path / "link" / "x").symlink_to("/etc/passwd")
    attempt(tmp_path / "link", "link/x: is a symbolic link that leaves the folder")
    write_files(tmp_path / "fifo")
    os.mkfifo(tmp_path / "fifo" / "x")
    attempt(tmp_path / "fifo", "fifo/x: is a FIFO, not a file")
    write_files(tmp_path / "name", {"a\nb": b"1"})
    attempt(tmp_path / "name", "holds a control character")
    write_files(tmp_path / "claims", {"w": b"1", "claims.jsonl": b"garbage"})
    attempt(tmp_path / "claims", "claims.jsonl", "not JSON")
    write_files(tmp_path / "deep", {"/".join("d" * 70) + "/w": b"1"})
    attempt(tmp_path / "deep", "deeper than 64 folders")


def test_a_private_key_among_the_files_is_refused(
    model: Path, provenance: Shell, alice: Person
) -> None:
    (model / "id").write_bytes(alice.private.read_bytes())
    refused(provenance("attest", model, "--key", alice.private), 1, "id: is a private key")
