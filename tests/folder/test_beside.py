"""What stands beside a model and is not part of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from provenance.errors import ContentError, UnreadableError
from provenance.statement.intoto import ResourceDescriptor
from provenance.trust.verification import verify_model
from tests.world import attach, state, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.world import Person

DATA = b'{"metric":"loss","value":0.5}\n'
NAME = hashlib.sha256(DATA).hexdigest()


def manifest_detail(root: Path, person: Person) -> str:
    verified = verify_model(root, (person.key.public,))
    return next(step.detail for step in verified.steps if step.name == "manifest")


def with_byproduct(root: Path, person: Person) -> Path:
    """Attest *root* with one byproduct beside it and one inline."""
    stated = state(root)
    byproducts = (
        ResourceDescriptor(name="metrics", digest={"sha256": NAME}),
        ResourceDescriptor(name="inline", digest={"sha256": "ab" * 32}, content="YQ=="),
    )
    run = msgspec.structs.replace(stated.run, byproducts=byproducts)
    attach(root, msgspec.structs.replace(stated, run=run), person, {NAME: DATA})
    return root


def test_a_byproduct_that_is_there(tmp_path: Path, alice: Person) -> None:
    root = with_byproduct(write_files(tmp_path / "model"), alice)
    assert manifest_detail(root, alice) == "4 files, 87 bytes"


def test_a_byproduct_that_is_not_there_is_told(tmp_path: Path, alice: Person) -> None:
    root = with_byproduct(write_files(tmp_path / "model"), alice)
    (root / "provenance" / NAME).unlink()
    assert "1 byproduct not here" in manifest_detail(root, alice)


def test_a_redacted_byproduct_is_not_missed(tmp_path: Path, alice: Person) -> None:
    root = write_files(tmp_path / "model")
    stated = state(root)
    redacted = ResourceDescriptor(name="metrics", annotations={"redacted": True})
    run = msgspec.structs.replace(stated.run, byproducts=(redacted,))
    attach(root, msgspec.structs.replace(stated, run=run), alice)
    assert manifest_detail(root, alice) == "4 files, 87 bytes"


def test_byproducts_of_older_claims_stay(tmp_path: Path, alice: Person) -> None:
    root = with_byproduct(write_files(tmp_path / "model"), alice)
    write_files(root, {"model.bin": b"trained again"})
    attach(root, state(root), alice)
    assert manifest_detail(root, alice).startswith("4 files, 36 bytes")
    assert "names" not in manifest_detail(root, alice)


def test_a_file_that_no_claim_names_is_told(model: Path, alice: Person) -> None:
    write_files(model, {f"provenance/{NAME}": DATA})
    assert "(1 file in provenance/ that no such claim names)" in manifest_detail(model, alice)


def test_a_deep_folder_of_another_tool_is_refused(
    model: Path, alice: Person, deepen: Callable[[Path], None]
) -> None:
    deepen(model / ".git")
    with pytest.raises(UnreadableError, match="is deeper than"):
        verify_model(model, (alice.key.public,))


def test_many_files_of_a_killed_writer_are_cut(model: Path, alice: Person) -> None:
    names = [f"provenance/{number:064x}.tmp" for number in range(200)]
    write_files(model, {**dict.fromkeys(names, b""), ".gitignore": b"x"})
    detail = manifest_detail(model, alice)
    assert "not covered: .gitignore, provenance/" in detail
    assert len(detail) < 2000
    assert "more" in detail


def test_what_a_killed_writer_left_is_told(model: Path, alice: Person) -> None:
    write_files(model, {"claims.jsonl.tmp": b"{", f"provenance/{NAME}.tmp": b"{"})
    detail = manifest_detail(model, alice)
    assert f"(not covered: claims.jsonl.tmp, provenance/{NAME}.tmp)" in detail


def test_what_git_keeps_is_told(model: Path, alice: Person) -> None:
    write_files(model, {".git/hooks/post-checkout": b"#!/bin/sh\n", ".gitattributes": b"*\n"})
    assert "not covered: .git/ (1 file), .gitattributes" in manifest_detail(model, alice)
    write_files(model, {".git/refs/heads/fix.py": b"", ".git/logs/refs/heads/fix.py": b""})
    assert "not covered: .git/ (3 files), .gitattributes" in manifest_detail(model, alice)


@pytest.mark.parametrize("name", [".git/x.py", ".git/hooks/model.safetensors", ".git/a/b/net.pt"])
def test_code_and_weights_beside_what_git_keeps_are_refused(
    model: Path, alice: Person, name: str
) -> None:
    write_files(model, {name: b"evil"})
    with pytest.raises(ContentError, match=r"is code or weights, and no claim covers \.git/"):
        manifest_detail(model, alice)


def test_git_names_count_below_the_top(model: Path, alice: Person) -> None:
    write_files(model, {"tokenizer/.git/config": b""})
    with pytest.raises(Exception, match=r"tokenizer/\.git/config is extra"):
        manifest_detail(model, alice)


def test_the_folder_of_byproducts_is_a_file(model: Path, alice: Person) -> None:
    write_files(model, {"provenance": b""})
    with pytest.raises(ContentError, match="provenance is extra"):
        manifest_detail(model, alice)


def test_a_byproduct_that_is_too_large_is_refused_before_it_is_hashed(
    model: Path, alice: Person
) -> None:
    (model / "provenance").mkdir(exist_ok=True)
    with (model / "provenance" / ("0" * 64)).open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(ContentError, match="too large for a byproduct"):
        verify_model(model, (alice.key.public,))
