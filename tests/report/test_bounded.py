"""What ``show`` holds of a stranger's file stays within a few times its size."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from provenance.encoding import strict_base64
from provenance.errors import MalformedError
from provenance.report import explain_text
from provenance.report.explain import explain
from provenance.report.verification import seeds_text
from tests.world import edit_lines

if TYPE_CHECKING:
    from pathlib import Path

EMPTY = b"[],"
"""Three bytes of JSON that take 64 bytes of memory."""

MANY = EMPTY * 1_000_000 + b"[]"


def statement(body: bytes) -> bytes:
    return (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{"a":[' + body + b"]},"
        b'"predicateType":"https://example.org/x","subject":[{"digest":{"sha256":"'
        + b"ab" * 32
        + b'"},"name":"m"}]}'
    )


def bundle(payload: bytes, log_entries: bytes = b"") -> bytes:
    return (
        b'{"dsseEnvelope":{"payload":"'
        + strict_base64.format(payload).encode()
        + b'","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"YQ=="}]},'
        b'"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":'
        b'{"publicKey":{"hint":"x"},"tlogEntries":[' + log_entries + b"]}}\n"
    )


def safetensors(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


HOSTILE = {
    "claims.jsonl": bundle(statement(MANY)),
    "statement.json": statement(MANY),
    "manifest.json": b'[["a",1,""],' + MANY + b"]",
    "logged.jsonl": bundle(b"{}", b'{"a":[' + EMPTY * 8_000 + b"[]]}") * 40,
    "model.safetensors": safetensors(b'{"__metadata__":{"a":[' + MANY + b"]}}"),
}


def test_seeds_are_shown_in_part() -> None:
    text = seeds_text({f"s{number}": "9" * 10**6 for number in range(1000)})
    assert len(text) < 3000
    assert text.endswith("and 984 more")
    assert seeds_text({"torch": "1,2", "numpy": "3"}) == "numpy=3, torch=1,2"


@pytest.mark.parametrize("name", HOSTILE)
def test_values_that_take_more_memory_than_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        said = " ".join(map(str, explain(path).problems))
    except MalformedError as error:
        said = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "more than" in said or "field" in said, said
    assert peak < 16 * len(HOSTILE[name])  # about 9; unbounded, 64 for each 3


def test_many_documents_are_counted(model: Path) -> None:
    edit_lines(model, lambda lines: lines * 5000)
    found = explain(model)
    shown = explain_text.MAX_SHOWN_DOCUMENTS
    assert len(found.content["claims"]) == shown
    assert f"{5000 - shown:,} more documents are not shown" in str(found.problems[0])


def test_a_long_file_is_refused_unread(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (model / "claims.jsonl").open("r+b") as file:
        file.truncate(explain_text.MAX_SHOWN_BYTES + 1)
    found = explain(model)
    assert "is longer than" in str(found.problems[0])
    assert found.content["claims"] == []
    monkeypatch.undo()
