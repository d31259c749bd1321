from __future__ import annotations

from typing import TYPE_CHECKING

from tests.world import Shell, make_log, refused, tree, vkey_text, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Person


def test_publish_and_publish_again(
    model: Path, tmp_path: Path, provenance: Shell, larry: Person
) -> None:
    signer = make_log(tmp_path / "log", larry)
    ran = provenance("publish", model, "--log", tmp_path / "log")
    vkey = vkey_text(signer.verifier)
    assert ran.out == f"claim 1 published as entry 0 of example.org/log\nlog key  {vkey}\n"
    ran = provenance("publish", model, "--log", tmp_path / "log")
    assert ran.out.startswith("claim 1 is already entry 0 of example.org/log\n")


def test_one_document(model: Path, tmp_path: Path, provenance: Shell, larry: Person) -> None:
    signer = make_log(tmp_path / "log", larry)
    ran = provenance("publish", model, "--log", tmp_path / "log", "--json")
    assert ran.document == {
        "claims": [{"index": 0, "line": 1, "new": True}],
        "log": "example.org/log",
        "vkey": vkey_text(signer.verifier),
    }


def test_what_cannot_be_published(
    model: Path, tmp_path: Path, provenance: Shell, larry: Person, alice: Person
) -> None:
    publish = ("publish", model, "--log", tmp_path / "log")
    refused(provenance(*publish), 3, "log: there is no log here", "provenance log init")
    make_log(tmp_path / "log", larry)
    before = tree(tmp_path)
    refused(provenance("publish", tmp_path / "none", "--log", tmp_path / "log"), 3, "no such")
    bare = write_files(tmp_path / "bare")
    assert provenance("sign", bare, "--key", alice.private).status == 0
    refused(provenance("publish", bare, "--log", tmp_path / "log"), 3, "holds no claims")
    assert {name: before[name] for name in before} == {
        name: data for name, data in tree(tmp_path).items() if not name.startswith("bare")
    }


def test_a_log_whose_key_moved(
    model: Path, tmp_path: Path, provenance: Shell, larry: Person
) -> None:
    key = tmp_path / "key"
    key.write_bytes(larry.private.read_bytes())
    assert provenance("log", "init", tmp_path / "log", "--origin", "x", "--key", key).status == 0
    key.unlink()
    before = tree(tmp_path)
    refused(provenance("publish", model, "--log", tmp_path / "log"), 3, "key: no such file")
    key.write_bytes((larry.private.parent / "alice").read_bytes())
    refused(provenance("publish", model, "--log", tmp_path / "log"), 2, "Ed25519")
    key.unlink()
    assert tree(tmp_path) == before
