"""What is said where the files are not those that were signed: what changed, and what holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from provenance.errors import ContentError
from provenance.folder.attach import sign
from provenance.trust.verification import verify_model
from tests.world import attest, refused, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Person, Shell

HOLDS = "every other file is as signed"
KNOWN = f"no loader opens that, and {HOLDS}"

FILES = {
    "README.md": b"A model.\n",
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "notes.log": b"1",
    "sub/README.md": b"Part of it.\n",
    "tokenizer.json": b"{}",
}


@pytest.fixture(params=["claims.jsonl", "model.sig"])
def said_by(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path, alice: Person, said_by: str) -> Path:
    root = write_files(tmp_path / "model", FILES)
    if said_by == "model.sig":
        sign(root, alice.key)
        return root
    attest(root, alice)
    (root / "model.sig").unlink()
    return root


def refusal(root: Path, alice: Person) -> str:
    with pytest.raises(ContentError) as caught:
        verify_model(root, [alice.key.public])
    return caught.value.what


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"README.md": b"A better model.\n"}, f"README.md was changed; {KNOWN}"),
        ({"README.md": b"a model.\n"}, f"README.md was changed; {KNOWN}"),  # of the same size
        ({"sub/README.md": b"x"}, f"sub/README.md was changed; {KNOWN}"),
        ({"notes.log": b"22"}, f"notes.log was changed; {HOLDS}"),
        ({"other.log": b"22"}, f"other.log is extra; {HOLDS}"),
        ({"sub/other.log": b"22"}, f"sub/other.log is extra; {HOLDS}"),
        (
            {"README.md": b"x", "notes.log": b"22"},
            f"README.md was changed, notes.log was changed; {HOLDS}",
        ),
    ],
)
def test_a_file_that_no_loader_opens(
    root: Path, alice: Person, said_by: str, files: dict[str, bytes], said: str
) -> None:
    write_files(root, files)
    assert refusal(root, alice) == f"not the files that {said_by} states: {said}"


def test_a_missing_readme(root: Path, alice: Person) -> None:
    (root / "README.md").unlink()
    assert refusal(root, alice).endswith(f"README.md is missing; {KNOWN}")


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer.json", "modeling.py", "adapter_config.json"],
)
@pytest.mark.parametrize("beside", ["README.md", None])
def test_it_never_holds_where_a_loader_opens_what_differs(
    root: Path, alice: Person, name: str, beside: str | None
) -> None:
    write_files(root, {name: b"[]other"})
    if beside:
        write_files(root, {beside: b"x"})
    said = refusal(root, alice)
    assert name in said
    assert "as signed" not in said


def test_weights_of_the_same_size_that_changed_too_are_found(root: Path, alice: Person) -> None:
    write_files(root, {"README.md": b"x", "model.safetensors": b"WEIGHTS"})
    said = refusal(root, alice)
    assert "README.md was changed" in said
    assert "model.safetensors was changed" in said
    assert "as signed" not in said


def test_a_readme_that_a_loader_opens(tmp_path: Path, alice: Person) -> None:
    root = write_files(tmp_path / "model", {**FILES, "model_index.json": b"{}"})
    attest(root, alice)
    write_files(root, {"README.md": b"x"})
    assert "as signed" not in refusal(root, alice)
    write_files(root, {"README.md": FILES["README.md"], "sub/README.md": b"x"})
    assert refusal(root, alice).endswith(KNOWN)


def test_many_that_differ_are_not_weighed(root: Path, alice: Person) -> None:
    write_files(root, {f"{n}.log": b"" for n in range(6)})
    assert "as signed" not in refusal(root, alice)


def test_nothing_else_is_left(tmp_path: Path, alice: Person) -> None:
    root = attest(write_files(tmp_path / "model", {"notes.log": b"1"}), alice)
    write_files(root, {"notes.log": b"2"})
    assert "as signed" not in refusal(root, alice)


def test_it_is_still_no(root: Path, alice: Person, provenance: Shell) -> None:
    write_files(root, {"README.md": b"x"})
    ran = provenance("verify", root, "--key", alice.public)
    refused(ran, 1, KNOWN)
    assert "verified" not in ran.out
