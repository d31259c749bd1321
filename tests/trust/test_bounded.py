"""Whoever can add files or claims cannot make a verification long, by operations and by bytes."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from provenance.envelope import bundle as bundles
from provenance.errors import ContentError, ProvenanceError
from provenance.files import manifest as manifests
from provenance.files.names import CLAIMS, MODEL_SIGNATURE
from provenance.keys import PublicKey, generate
from provenance.statement import training
from provenance.trust import contents
from provenance.trust.verification import verify_model
from tests.world import attest, edit_lines, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.world import Person


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often a folder is walked, a signature checked, a training statement parsed."""
    counted: Counter[str] = Counter()

    def count(place: Any, name: str) -> None:  # noqa: ANN401 - a module or a class
        original: Callable[..., Any] = getattr(place, name)

        def counting(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on
            counted[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(place, name, counting)

    count(contents, "walk")
    count(PublicKey, "verify")
    count(training, "from_statement")
    return counted


def with_log_entry(line: bytes, number: int) -> bytes:
    """Return another bundle around the same envelope."""
    document = json.loads(line)
    document["verificationMaterial"]["tlogEntries"] = [{"n": number}]
    return json.dumps(document).encode()


def test_copies_of_a_claim_about_another_model(
    model: Path, tmp_path: Path, alice: Person, calls: Counter[str]
) -> None:
    old = attest(write_files(tmp_path / "old", {"w": b"1"}), alice)
    shutil.copy(old / CLAIMS, model / CLAIMS)
    (model / MODEL_SIGNATURE).unlink()
    edit_lines(model, lambda lines: [with_log_entry(lines[0], n) for n in range(2000)])
    calls.clear()
    with pytest.raises(ContentError, match="not the files"):
        verify_model(model, [alice.key.public])
    assert calls["walk"] <= 2
    assert calls["verify"] == calls["from_statement"] == 1


def test_copies_of_the_claim_that_counts(model: Path, alice: Person, calls: Counter[str]) -> None:
    edit_lines(model, lambda lines: [with_log_entry(lines[0], n) for n in range(2000)])
    calls.clear()
    verified = verify_model(model, [alice.key.public])
    assert verified.claim is not None
    assert verified.claim.where == f"{CLAIMS}:1"
    assert calls["walk"] == 1
    assert calls["from_statement"] == 1
    assert calls["verify"] == 2


def test_copies_of_a_claim_that_no_key_made(
    model: Path, alice: Person, mallory: Person, calls: Counter[str]
) -> None:
    def stranger(line: bytes, number: int) -> bytes:
        document = json.loads(with_log_entry(line, number))
        document["verificationMaterial"]["publicKey"]["hint"] = ""
        document["dsseEnvelope"]["signatures"][0]["keyid"] = ""
        return json.dumps(document).encode()

    keys = [alice.key.public, *(generate("ed25519").public for _ in range(9))]
    attest(model, mallory)
    (model / MODEL_SIGNATURE).unlink()
    edit_lines(model, lambda lines: [lines[0], *(stranger(lines[1], n) for n in range(2000))])
    calls.clear()
    verify_model(model, keys)
    assert calls["verify"] <= 1 + len(keys)


def test_claims_about_as_many_models(
    model: Path, tmp_path: Path, alice: Person, calls: Counter[str]
) -> None:
    lines = []
    for number in range(50):
        root = attest(write_files(tmp_path / f"m{number}", {"w": str(number).encode()}), alice)
        lines += (root / CLAIMS).read_bytes().splitlines()
    edit_lines(model, lambda mine: [*lines, *mine])
    calls.clear()
    verify_model(model, [alice.key.public])
    assert calls["walk"] == 1


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the paths that are hashed."""
    found: list[str] = []
    original = manifests._hash  # noqa: SLF001 - the one place through which folders are hashed

    def hashing(path: str, *rest: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on
        found.append(path)
        return original(path, *rest, **options)

    monkeypatch.setattr(manifests, "_hash", hashing)
    return found


@pytest.mark.parametrize("said_by", [CLAIMS, MODEL_SIGNATURE])
@pytest.mark.parametrize("name", ["extra.safetensors", "extra", "modeling.py"])
def test_an_extra_file_is_not_hashed(
    model: Path, alice: Person, hashed: list[str], said_by: str, name: str
) -> None:
    (model / ({CLAIMS, MODEL_SIGNATURE} - {said_by}).pop()).unlink()
    with (model / name).open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(ContentError, match=f"{said_by} states: {name} is extra"):
        verify_model(model, [alice.key.public])
    assert str(model / name) not in hashed


def test_a_file_of_another_size_is_not_hashed(
    model: Path, alice: Person, hashed: list[str]
) -> None:
    with (model / "model.bin").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(ContentError, match=r"model\.bin was changed"):
        verify_model(model, [alice.key.public])
    assert str(model / "model.bin") not in hashed


def test_claims_beyond_the_limits_are_refused_by_name(model: Path, alice: Person) -> None:
    edit_lines(model, lambda lines: lines * (bundles.MAX_LINES + 1))
    with pytest.raises(ProvenanceError, match=f"more than {bundles.MAX_LINES} lines"):
        verify_model(model, [alice.key.public])


def test_values_of_bundles_are_not_kept(model: Path, alice: Person) -> None:
    """Log entries of anything, 40,000 values a line, would be gigabytes if they stayed parsed."""
    entry = json.dumps({"a": [[]] * 40_000})
    line = (model / CLAIMS).read_bytes().splitlines()[0]
    hostile = line.replace(b'"tlogEntries":[', b'"tlogEntries":[' + entry.encode(), 1)
    (model / CLAIMS).write_bytes((hostile + b"\n") * 40)
    size = (model / CLAIMS).stat().st_size
    tracemalloc.start()
    try:
        verify_model(model, [alice.key.public])
        assert tracemalloc.get_traced_memory()[1] < 6 * size
    finally:
        tracemalloc.stop()
