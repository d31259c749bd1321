from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.world import Shell, refused, tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Person


@pytest.fixture
def log(tmp_path: Path, provenance: Shell, larry: Person) -> Path:
    log = tmp_path / "log"
    ran = provenance("log", "init", log, "--origin", "example.org/log", "--key", larry.private)
    assert ran.status == 0, ran
    assert "log key  example.org/log+" in ran.out
    return log


def test_the_key_of_a_log_is_shown_and_kept(
    tmp_path: Path, provenance: Shell, larry: Person
) -> None:
    ran = provenance(
        "log", "init", tmp_path / "log", "--origin", "x", "--key", larry.private, "--json"
    )
    assert ran.document["vkey"] == (tmp_path / "log" / "vkey").read_text().strip()
    assert larry.private.read_bytes() not in tree(tmp_path).values()


def test_audit(log: Path, model: Path, provenance: Shell) -> None:
    empty = provenance("log", "audit", log, "--key", log / "vkey", "--json")
    assert (empty.status, empty.document["entries"]) == (0, 0)
    assert provenance("publish", model, "--log", log).status == 0
    ran = provenance("log", "audit", log, "--key", log / "vkey")
    assert ran.status == 0
    assert "entries  1, root sha256 " in ran.out


def test_audit_finds_a_changed_entry(log: Path, model: Path, provenance: Shell) -> None:
    assert provenance("publish", model, "--log", log).status == 0
    (entries,) = (log / "tile" / "entries").rglob("*p/1")
    data = bytearray(entries.read_bytes())
    data[-1] ^= 1
    entries.write_bytes(data)
    ran = provenance("log", "audit", log, "--key", log / "vkey", "--json")
    assert ran.status in (1, 3)
    refused(ran, ran.status)
    assert "message" in ran.document["error"]


def test_audit_with_another_key(
    log: Path, tmp_path: Path, provenance: Shell, alice: Person, model: Path
) -> None:
    assert provenance("keygen", tmp_path / "k", "--algorithm", "ed25519").status == 0
    other = tmp_path / "other"
    made = provenance("log", "init", other, "--origin", "example.org/log", "--key", tmp_path / "k")
    assert made.status == 0
    assert provenance("publish", model, "--log", log).status == 0
    refused(provenance("log", "audit", log, "--key", other / "vkey"), 1, "checkpoint")
    refused(
        provenance("log", "audit", log, "--key", alice.public),
        3,
        "is a signing key, not a log's key",
    )


def test_logs_that_cannot_be_made(
    log: Path, tmp_path: Path, provenance: Shell, alice: Person, larry: Person
) -> None:
    before = tree(tmp_path)
    init = ("log", "init")
    refused(
        provenance(*init, log, "--origin", "x", "--key", larry.private), 2, "folder is not empty"
    )
    new = tmp_path / "new"
    refused(provenance(*init, new, "--origin", "x", "--key", alice.private), 2, "Ed25519")
    for origin in ("", "a b", "a+b", "a\nb"):
        refused(provenance(*init, new, "--origin", origin, "--key", larry.private), 2, "name a log")
    refused(provenance(*init, new, "--origin", "x", "--key", tmp_path / "none"), 3, "no such file")
    assert tree(tmp_path) == before
