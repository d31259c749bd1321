"""Folders as caches, clients and other tools leave them, through every command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provenance.encoding import strict_json
from tests.world import payload_of, refused, write_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.world import Person, Shell

REVISION = "0123456789abcdef0123456789abcdef01234567"
TRAIN = [sys.executable, "-c", "import os; os.makedirs('out'); open('out/w', 'w').write('1')"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def link_into(folder: Path, cache: Path, source: Path) -> Path:
    """Put the files of *source* into *cache*, and links to them into *folder*."""
    for path in [each for each in source.rglob("*") if each.is_file()]:
        link = folder / path.relative_to(source)
        blob = cache / link.name.encode().hex()
        write_files(cache, {blob.name: path.read_bytes()})
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return folder


def snapshot(here: Path, source: Path) -> Path:
    repository = here / "hub" / "models--org--name"
    return link_into(repository / "snapshots" / REVISION, repository / "blobs", source)


def data_version_control(here: Path, source: Path) -> Path:
    write_files(here, {".dvc/config": b""})
    return link_into(here / "models" / "m", here / ".dvc" / "cache" / "files", source)


def statement(folder: Path) -> dict[str, Any]:
    line = (folder / "claims.jsonl").read_bytes().splitlines()[-1]
    document: dict[str, Any] = strict_json.parse(payload_of(line))
    return document


@pytest.mark.parametrize("lay", [snapshot, data_version_control])
def test_every_command_reads_a_folder_of_links(
    here: Path, provenance: Shell, alice: Person, lay: Callable[[Path, Path], Path]
) -> None:
    files = {"config.json": b"{}", "sub/weights": b"0.25", ".gitattributes": b"*\n"}
    source = write_files(here / "source", files)
    made = provenance("attest", source, "--key", alice.private)
    assert made.status == 0, made
    folder = lay(here, source)
    ran = provenance("verify", folder, "--key", alice.public)
    assert ran.status == 0, ran
    assert "not covered: .gitattributes" in ran.out
    assert provenance("compare", folder, source).status == 0
    key = ("--key", alice.private)
    for option in ("--base-model", "--data"):
        ran = provenance("record", "--model", "out", *key, option, folder, "--", *TRAIN)
        assert ran.status == 0, ran
        recipe = statement(here / "out")["predicate"]["buildDefinition"]
        told = {item.get("name"): item.get("uri") for item in recipe["resolvedDependencies"]}
        name = "baseModel" if option == "--base-model" else f"data:{folder.name}"
        uri = f"pkg:huggingface/org/name@{REVISION}" if lay is snapshot else None
        assert told[name] == uri
        for path in sorted((here / "out").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (here / "out").rmdir()
    assert provenance("attest", folder, *key).status == 0
    assert statement(folder)["subject"][0].get("uri") == uri
    assert provenance("sign", folder, *key).status == 0
    signed = strict_json.parse(payload_of((folder / "model.sig").read_bytes()))
    assert signed["predicate"]["serialization"]["allow_symlinks"] is True
    assert provenance("agree", source, folder, "--key", alice.public).status == 1  # one builder


def test_a_root_is_named_for_every_command(here: Path, provenance: Shell, alice: Person) -> None:
    source = write_files(here / "source", {"weights": b"0.25"})
    assert provenance("attest", source, "--key", alice.private).status == 0
    folder = link_into(here / "model", here / "store", source)
    key, root = ("--key", alice.private), ("--link-root", here / "store")
    commands: list[tuple[Any, ...]] = [
        ("compare", folder, source),
        ("verify", folder, "--key", alice.public),
        ("attest", folder, *key),
        ("sign", folder, *key),
        ("equality", "check", "bytes", folder),
    ]
    for command in commands:
        refused(provenance(*command), 3, "leaves the folder", "--link-root", "cp -rL")
        assert provenance(*command, *root).status == 0
    weights = write_files(here / "weights", {"w.safetensors": (2).to_bytes(8, "little") + b"{}"})
    linked = link_into(here / "linked", here / "store", weights)
    refused(provenance("equality", "suggest", weights, linked), 3, "leaves the folder")
    assert 'equality = "tensors"' in provenance("equality", "suggest", weights, linked, *root).out
    refused(provenance("agree", source, folder, "--key", alice.public), 3, "leaves the folder")
    assert provenance("agree", source, folder, "--key", alice.public, *root).status == 1
    refused(provenance("sign", folder, *key, "--link-root", "nowhere"), 3, "no such folder")
    options = ("--model", "out", *key, "--data", folder, *root)
    assert provenance("record", *options, "--", *TRAIN).status == 0


def test_a_private_key_behind_a_link_is_refused(
    here: Path, provenance: Shell, alice: Person
) -> None:
    source = write_files(here / "source", {"weights": b"0.25", "id": alice.private.read_bytes()})
    folder, key = snapshot(here, source), ("--key", alice.private)
    for command in ("sign", "attest"):
        refused(provenance(command, folder, *key), 1, "is a private key")
    code = (
        "import os; os.makedirs('out'); open('out/w', 'w').write('1');"
        f"os.symlink({str(source / 'id')!r}, 'out/id')"
    )
    record = ("record", "--model", "out", *key, "--link-root", source)
    refused(provenance(*record, "--", sys.executable, "-c", code), 125, "is a private key")


def test_a_run_that_leaves_links_is_finished_with_their_root(
    here: Path, provenance: Shell, alice: Person
) -> None:
    code = (
        "import os; os.makedirs('out'); os.makedirs('store'); open('store/w', 'w').write('1');"
        "os.symlink('../store/w', 'out/w')"
    )
    command = ("record", "--model", "out", "--key", alice.private)
    ran = provenance(*command, "--", sys.executable, "-c", code)
    refused(ran, 125, "out/w", "leaves the folder", "--link-root", "--finish")
    run = ran.err.split("--finish ")[1].split(")")[0].split()[0]
    ran = provenance("record", "--finish", run, "--link-root", "store")
    assert ran.status == 0, ran
    assert statement(here / "out")["predicate"]["provenance_manifest"][0]["name"] == "w"


# --- What is left out -----------------------------------------------------------------------------


def test_paths_that_the_signer_leaves_out(here: Path, provenance: Shell, alice: Person) -> None:
    files = {"weights": b"0.25", "notes.txt": b"a", "logs/1": b"b", "logs/sub/2": b"c"}
    model = write_files(here / "model", files)
    options = ("--ignore-paths", "notes.txt", "--ignore-paths", "logs/")
    ran = provenance("sign", model, "--key", alice.private, *options)
    assert ran.status == 0, ran
    assert "not covered  logs/ (2 files), notes.txt" in ran.out
    signed = strict_json.parse(payload_of((model / "model.sig").read_bytes()))
    assert {"logs", "notes.txt"} <= {*signed["predicate"]["serialization"]["ignore_paths"]}
    assert [item["name"] for item in signed["predicate"]["resources"]] == ["weights"]
    write_files(model, {"logs/3": b"d"})
    ran = provenance("verify", model, "--key", alice.public, "--json")
    assert ran.document["notCovered"] == {"logs/": 3, "notes.txt": 1}
    (model / "notes.txt").unlink()
    write_files(model, {"notes.txt/x": b"e"})
    assert provenance("verify", model, "--key", alice.public).status == 0


OPENED = {
    "code": "logs/hook.py", "a library": "logs/x.so", "weights": "logs/a.safetensors",
    "another case": "logs/CONFIG.JSON", "a configuration": "logs/config.json",
    "a checkpoint": "logs/x.ckpt", "a compressed pickle": "logs/model.pkl.gz",
}  # fmt: skip


@pytest.mark.parametrize("case", OPENED)
def test_a_path_that_is_left_out_hides_nothing_that_is_opened(
    here: Path, provenance: Shell, alice: Person, case: str
) -> None:
    model = write_files(here / "model", {"weights": b"0.25", "logs/1": b"b"})
    command = ("sign", model, "--key", alice.private, "--ignore-paths", "logs")
    assert provenance(*command).status == 0
    write_files(model, {OPENED[case]: b""})
    refused(provenance("verify", model, "--key", alice.public), 1, OPENED[case], "would open it")
    refused(provenance(*command), 1, OPENED[case], "cannot be left out")


@pytest.mark.parametrize("path", ["", ".", "/", "../x", "/etc"])
def test_a_path_outside_of_the_model_is_not_left_out(
    here: Path, provenance: Shell, alice: Person, path: str
) -> None:
    model = write_files(here / "model", {"weights": b"0.25"})
    command = ("sign", model, "--key", alice.private, "--ignore-paths", path)
    refused(provenance(*command), 2, "is no path below the model's folder")


@pytest.mark.parametrize("path", ["nots.txt", "notes.txt/x", "model/nots.txt"])
def test_a_path_that_is_not_there_is_not_left_out(
    here: Path, provenance: Shell, alice: Person, path: str
) -> None:
    model = write_files(here / "model", {"weights": b"0.25", "notes.txt": b""})
    command = ("sign", "model", "--key", alice.private, "--ignore-paths", path)
    refused(provenance(*command), 2, path, "is not there to be left out", "mend its name")
    assert not (model / "model.sig").exists()


@pytest.mark.parametrize("name", [".git", "model.sig", "claims.jsonl", "own.sig"])
def test_the_signature_and_reserved_names_need_not_be_there_to_be_left_out(
    here: Path, provenance: Shell, alice: Person, name: str
) -> None:
    model = write_files(here / "model", {"weights": b"0.25"})
    place = ("--signature", model / "own.sig") if name == "own.sig" else ()
    command = ("sign", model, "--key", alice.private, "--ignore-paths", model / name, *place)
    assert provenance(*command).status == 0


@pytest.mark.parametrize("name", [".DS_Store", "model.sig.tmp", ".cache/huggingface"])
def test_leaving_out_a_reserved_name_changes_nothing(
    here: Path, provenance: Shell, alice: Person, name: str
) -> None:
    model = write_files(here / "model", {"weights": b"0.25"})
    command = ("sign", model, "--key", alice.private, "--ignore-paths", name)
    assert provenance(*command).status == 0
    evil = f"{name}/evil" if "/" not in name else name
    write_files(model, {evil: b""})
    refused(provenance("verify", model, "--key", alice.public), 1, name, "is extra")


@pytest.mark.parametrize("command", ["sign", "attest"])
def test_files_that_nobody_signed(
    here: Path, provenance: Shell, alice: Person, command: str
) -> None:
    model = write_files(here / "model", {"weights": b"0.25"})
    assert provenance(command, model, "--key", alice.private).status == 0
    write_files(model, {"notes.txt": b"", "sub/a": b"", "sub/b": b""})
    verify = ("verify", model, "--key", alice.public)
    refused(provenance(*verify), 1, "notes.txt is extra")
    ran = provenance(*verify, "--unsafe-ignore-unsigned", "--json")
    assert ran.status == 0
    assert ran.document["notCovered"] == {"notes.txt": 1, "sub/": 2}
    write_files(model, {"modeling.py": b"import os"})
    ran = provenance(*verify, "--unsafe-ignore-unsigned")
    assert ran.status == 0
    assert "nobody signed modeling.py" in ran.out
    write_files(model, {"weights": b"0.50"})
    refused(provenance(*verify, "--unsafe-ignore-unsigned"), 1, "weights was changed")
    (model / "weights").unlink()
    refused(provenance(*verify, "--unsafe-ignore-unsigned"), 1, "weights is missing")


def test_a_link_to_other_bytes_is_refused(here: Path, provenance: Shell, alice: Person) -> None:
    source = write_files(here / "source", {"weights": b"0.25"})
    assert provenance("attest", source, "--key", alice.private).status == 0
    folder = snapshot(here, source)
    write_files(here, {"evil": b"0.50"})
    (folder / "weights").unlink()
    (folder / "weights").symlink_to(here / "evil")
    refused(provenance("verify", folder, "--key", alice.public), 3, "leaves the folder")
    (here / "evil").rename(folder.parent.parent / "blobs" / "evil")
    (folder / "weights").unlink()
    (folder / "weights").symlink_to("../../blobs/evil")
    refused(provenance("verify", folder, "--key", alice.public), 1, "weights was changed")


def test_what_a_client_leaves_is_told_and_not_signed(
    here: Path, provenance: Shell, alice: Person
) -> None:
    left = {
        ".cache/huggingface/.gitignore": b"*",
        ".cache/huggingface/download/model.safetensors.metadata": b"0123\nabcd\n1.0\n",
        ".cache/huggingface/download/model.safetensors.lock": b"",
        ".DS_Store": b"",
    }
    model = write_files(here / "model", {"weights": b"0.25", **left})
    key = ("--key", alice.private)
    told = "not covered  .DS_Store, .cache/huggingface/ (3 files)"
    for command in ("sign", "attest"):
        ran = provenance(command, model, *key)
        assert ran.status == 0
        assert told in ran.out + ran.err
        document = provenance(command, model, *key, "--json").document
        assert document["notCovered"] == {".DS_Store": 1, ".cache/huggingface/": 3}
        assert command == "attest" or document["files"] == 1
    ran = provenance("verify", model, "--key", alice.public, "--json")
    assert ran.document["notCovered"] == {".DS_Store": 1, ".cache/huggingface/": 3}
    write_files(model, {".cache/huggingface/modeling.py": b""})
    for command in ("sign", "attest"):
        refused(provenance(command, model, *key), 1, "modeling.py", "is code or weights")


def test_what_is_not_compared_is_told(
    here: Path, provenance: Shell, alice: Person, bob: Person
) -> None:
    files = {"weights": b"0.25", ".gitattributes": b"*\n"}
    one = write_files(here / "one", files)
    other = write_files(here / "other", files | {".gitattributes": b"", ".github/x.yml": b""})
    for root, person in ((one, alice), (other, bob)):
        assert provenance("attest", root, "--key", person.private).status == 0
    told = [".gitattributes", ".github/", "claims.jsonl", "model.sig"]
    ran = provenance("compare", one, other, "--equality", "bytes")
    assert ran.status == 0
    for name in told:
        assert f"– {name}  not compared" in ran.out
    compared = provenance("compare", one, other, "--equality", "bytes", "--json").document
    assert compared["not_compared"] == compared["outcome"]["not_compared"] == told
    keys = ("--key", alice.public, "--key", bob.public)
    verdict = provenance("agree", one, other, *keys, "--json").document["verdict"]
    assert verdict["rebuilds"][0]["outcome"]["not_compared"] == told
    write_files(other, {".github/hook.py": b""})
    refused(provenance("compare", one, other), 1, ".github/hook.py", "is code or weights")
    (other / ".github/hook.py").unlink()
    # modules.json can name this folder, and sentence-transformers then obeys what is in it.
    write_files(other, {".github/README.md": b"", ".cache/huggingface/1_Pooling/config.json": b""})
    for name in ("1_Pooling/config.json", "is opened by"):
        refused(provenance("compare", one, other), 1, name)


@pytest.mark.parametrize("lay", [snapshot, data_version_control])
def test_what_an_input_links_to_is_the_input_and_no_code_that_was_read(
    here: Path, provenance: Shell, alice: Person, lay: Callable[[Path, Path], Path]
) -> None:
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words], check=True
        )
    folder = lay(here, write_files(here.parent / "source", {"rows.csv": b"1,2\n"}))
    beside = (folder / "rows.csv").resolve().with_name("undeclared.csv")
    beside.write_bytes(b"3,4\n")
    read = f"open({str(folder / 'rows.csv')!r}).read(); open({str(beside)!r}).read()"
    train = [sys.executable, "-c", f"{read}; {TRAIN[-1]}"]
    key = ("--key", alice.private)
    ran = provenance("record", "--model", "out", *key, "--data", f"d={folder}", "--", *train)
    assert ran.status == 0, ran
    build = statement(here / "out")["predicate"]["buildDefinition"]
    read_by_run = [
        Path(file["name"]).name for file in build["externalParameters"]["source"]["read"]
    ]
    untracked = build["internalParameters"]["collectors"]["untracked"]["values"]["files"]
    assert {Path(name).name for name in (*read_by_run, *untracked)} >= {"undeclared.csv"}
    assert not {name for name in (*read_by_run, *untracked) if name.endswith(b"rows.csv".hex())}
