"""Models that are not here whole: pointers of Git LFS, and downloads that ended early."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.world import FILES, Person, Shell, refused, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAID = "is a Git LFS pointer, and the data were not hashed"


def pointer(data: bytes) -> bytes:
    oid = hashlib.sha256(data).hexdigest()
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n"
    return text.encode()


@pytest.fixture
def signed(tmp_path: Path, provenance: Shell, alice: Person) -> Path:
    root = write_files(tmp_path / "model")
    assert provenance("sign", root, "--key", alice.private).status == 0
    return root


def test_a_file_in_whose_place_a_pointer_to_it_lies(
    signed: Path, provenance: Shell, alice: Person
) -> None:
    name, data = next(iter(FILES.items()))
    verify = ("verify", signed, "--key", alice.public)
    (signed / name).write_bytes(pointer(data))
    refused(provenance(*verify), 1, f"{name} is a Git LFS pointer to it", "run 'git lfs pull'")
    (signed / name).write_bytes(pointer(data + b"x"))
    refused(provenance(*verify), 1, f"{name} is a Git LFS pointer to another file")
    (signed / name).write_bytes(pointer(data) + b" " * 1024)
    refused(provenance(*verify), 1, f"{name} was changed")


def test_signing_a_pointer_is_warned_of(tmp_path: Path, provenance: Shell, alice: Person) -> None:
    root = write_files(tmp_path / "model", {**FILES, "model.bin": pointer(b"weights")})
    ran = provenance("sign", root, "--key", alice.private)
    assert ran.status == 0
    assert ran.err == f"provenance: warning: model.bin {SAID}: run 'git lfs pull'\n"
    document = provenance("sign", root, "--key", alice.private, "--json").document
    assert document["warnings"] == [f"model.bin {SAID}: run 'git lfs pull'"]
    ran = provenance("attest", root, "--key", alice.private)
    assert f"warning: model.bin {SAID}: run 'git lfs pull'" in ran.err


BOTH = "a.bin, b.bin are Git LFS pointers, and the data were not hashed (run 'git lfs pull')"


@pytest.mark.parametrize(
    ("option", "path", "said"),
    [
        ("--data", "data", f"data:data: {BOTH}"),
        ("--base-model", "data", f"baseModel: {BOTH}"),
        ("--data", "data/a.bin", f"data:a.bin: a.bin {SAID}"),
    ],
)
def test_an_input_that_is_a_pointer_is_warned_of_before_the_run(
    tmp_path: Path, provenance: Shell, alice: Person, option: str, path: str, said: str
) -> None:
    write_files(tmp_path / "data", {"a.bin": pointer(b"1"), "b.bin": pointer(b"2")})
    model = write_files(tmp_path / "model")
    ran = provenance("attest", model, "--key", alice.private, option, tmp_path / path)
    assert ran.status == 0
    assert f"warning: {said}" in ran.err


def test_what_only_looks_like_a_pointer_is_none(
    tmp_path: Path, provenance: Shell, alice: Person
) -> None:
    text = b"version https://git-lfs.github.com/spec/v1\nno more of it, this is a note\n"
    root = write_files(tmp_path / "model", {"notes.txt": text, "long.txt": text * 20})
    assert provenance("sign", root, "--key", alice.private).err == ""


def shorter(root: Path) -> None:
    (root / "model.bin").write_bytes(FILES["model.bin"][:-1])


def unfinished(root: Path) -> None:
    (root / "model.bin").rename(root / "model.bin.incomplete")


@pytest.mark.parametrize(
    ("spoil", "status", "said"),
    [
        (shorter, 1, ("model.bin was changed", " of ", " bytes")),
        (unfinished, 1, ("model.bin is missing", "model.bin.incomplete is extra")),
    ],
)
def test_a_download_that_ended_early(
    tmp_path: Path, provenance: Shell, alice: Person, spoil: Callable[[Path], None],
    status: int, said: tuple[str, ...],
) -> None:  # fmt: skip
    root = write_files(tmp_path / "model")
    assert provenance("attest", root, "--key", alice.private).status == 0
    spoil(root)
    ran = provenance("verify", root, "--key", alice.public)
    refused(ran, status, *said, "Download it again")


def test_a_cache_into_which_not_all_was_downloaded(
    tmp_path: Path, provenance: Shell, alice: Person
) -> None:
    root = write_files(tmp_path / "model")
    assert provenance("attest", root, "--key", alice.private).status == 0
    cache = tmp_path / "models--org--model"
    snapshot = cache / "snapshots" / "main"
    for path in [each for each in root.rglob("*") if each.is_file()]:
        blob = cache / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        write_files(blob.parent, {blob.name: path.read_bytes()})
        link = snapshot / path.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    verify = ("--key", alice.public)
    assert provenance("verify", snapshot, *verify).status == 0
    refused(provenance("verify", cache, *verify), 3, "name a snapshot of this cache", str(snapshot))
    (snapshot / "model.bin").resolve().unlink()
    ran = provenance("verify", snapshot, *verify)
    refused(ran, 3, "is a symbolic link to nothing", "Download it again")
