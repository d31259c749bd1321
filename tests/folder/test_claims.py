from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from provenance.encoding import strict_base64
from provenance.envelope import bundle, dsse
from provenance.errors import MalformedError, UnavailableError, UnreadableError
from provenance.files.names import BYPRODUCTS, CLAIMS, MODEL_SIGNATURE
from provenance.folder import claims
from provenance.keys import generate
from provenance.statement import intoto, model_signature, training
from provenance.statement.training import Outcome
from tests.statement.examples import MODEL, TRAINING, sha256

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEY = generate()


def claim(number: int) -> bytes:
    payload = f'{{"number":{number}}}'.encode()
    return bundle.format(dsse.sign("application/json", payload, KEY), hint=KEY.public.key_id)


ONE, TWO, THREE = claim(1), claim(2), claim(3)


def test_a_signed_training_statement_names_its_signer() -> None:
    opened = bundle.open_bundle(bundle.parse(claims.sign_training(TRAINING, KEY)), [KEY.public])
    found = training.from_statement(intoto.from_opened(opened))
    assert strict_base64.parse(found.run.provenance_signer) == KEY.public.spki
    assert (found.manifest, found.build) == (TRAINING.manifest, TRAINING.build)


def test_a_model_signature_has_the_reference_tools_hint() -> None:
    item = bundle.parse(claims.sign_model("digits", MODEL, KEY))
    assert item.hint == KEY.public.pem_digest
    assert [signature.keyid for signature in item.envelope.signatures] == [""]
    opened = bundle.open_bundle(item, [KEY.public])
    found = model_signature.from_statement(intoto.from_opened(opened))
    assert (found.model_name, found.root_digest) == ("digits", MODEL.root_digest)


def test_claims_are_appended_in_order(tmp_path: Path) -> None:
    for item in (ONE, TWO, ONE):
        claims.append_claim(tmp_path, item)
    assert (tmp_path / CLAIMS).read_bytes() == b"\n".join([ONE, TWO, ONE, b""])
    assert [item.raw for item in claims.read_bundles(tmp_path / CLAIMS)] == [ONE, TWO, ONE]
    assert [path.name for path in tmp_path.iterdir()] == [CLAIMS]


def test_bytes_that_are_there_are_kept(tmp_path: Path) -> None:
    there = ONE.replace(b",", b" , ", 1) + b"\r\n" + TWO + b"\r\n"
    (tmp_path / CLAIMS).write_bytes(there)
    claims.append_claim(tmp_path, THREE)
    assert (tmp_path / CLAIMS).read_bytes() == there + THREE + b"\n"


def test_one_line_without_an_end_gets_one(tmp_path: Path) -> None:
    (tmp_path / CLAIMS).write_bytes(ONE)
    claims.append_claim(tmp_path, TWO)
    assert (tmp_path / CLAIMS).read_bytes() == ONE + b"\n" + TWO + b"\n"


THERE = {
    "damaged": (ONE[:-1] + b"\n", "not JSON"),
    "cut off": (ONE + b"\n" + TWO, "the last line has no newline"),
    "over several lines": (ONE.replace(b",", b",\n", 1), "over several lines"),
    "empty": (b"", "not JSON"),
}


@pytest.mark.parametrize(("data", "message"), THERE.values(), ids=THERE)
def test_claims_that_cannot_be_read_are_left_alone(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / CLAIMS).write_bytes(data)
    with pytest.raises(MalformedError, match=message):
        claims.append_claim(tmp_path, TWO)
    assert (tmp_path / CLAIMS).read_bytes() == data


def test_claims_behind_a_link_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(ONE + b"\n")
    model = tmp_path / "model"
    model.mkdir()
    (model / CLAIMS).symlink_to(tmp_path / "theirs")
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        claims.append_claim(model, TWO)
    assert (tmp_path / "theirs").read_bytes() == ONE + b"\n"
    assert (model / CLAIMS).is_symlink()


NO_CLAIM = {
    "two lines": ONE + b"\n" + TWO,
    "over several lines": ONE.replace(b",", b",\n", 1),
    "a line end": ONE + b"\n",
    "no bundle": b"{}",
    "nothing": b"",
    "damaged": ONE[:-1],
}


@pytest.mark.parametrize("data", NO_CLAIM.values(), ids=NO_CLAIM)
def test_what_could_not_be_read_again_is_not_appended(tmp_path: Path, data: bytes) -> None:
    claims.append_claim(tmp_path, ONE)
    with pytest.raises(MalformedError):
        claims.append_claim(tmp_path, data)
    assert (tmp_path / CLAIMS).read_bytes() == ONE + b"\n"


def test_the_file_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims.append_claim(tmp_path, ONE)
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "MAX_LINES", 1)
        with pytest.raises(MalformedError, match="more than 1 lines"):
            claims.append_claim(tmp_path, TWO)
    with monkeypatch.context() as patch:
        patch.setattr(claims, "MAX_CLAIMS_BYTES", len(ONE) + len(TWO))
        with pytest.raises(MalformedError, match="longer than"):
            claims.append_claim(tmp_path, TWO)
        patch.setattr(claims, "MAX_CLAIMS_BYTES", 10)
        with pytest.raises(UnreadableError, match="is longer than 10 bytes"):
            claims.read_bundles(tmp_path / CLAIMS)
    assert (tmp_path / CLAIMS).read_bytes() == ONE + b"\n"


def test_an_update_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    claims.append_claim(tmp_path, ONE)
    before = (tmp_path / CLAIMS).stat()
    claims.update_claims(tmp_path, lambda lines: lines)
    assert (tmp_path / CLAIMS).stat().st_ino == before.st_ino
    claims.update_claims(tmp_path, lambda lines: [TWO, *lines])
    assert [item.raw for item in claims.read_bundles(tmp_path / CLAIMS)] == [TWO, ONE]


def test_an_error_while_updating_changes_nothing_and_ends_the_lock(tmp_path: Path) -> None:
    claims.append_claim(tmp_path, ONE)

    def fail(_: tuple[bytes, ...]) -> Sequence[bytes]:
        raise UnavailableError("the log is away")

    with pytest.raises(UnavailableError):
        claims.update_claims(tmp_path, fail)
    claims.append_claim(tmp_path, TWO)
    assert [item.raw for item in claims.read_bundles(tmp_path / CLAIMS)] == [ONE, TWO]


APPEND = """
import sys
from pathlib import Path
from provenance.folder.claims import append_claim
for line in sys.stdin.buffer:
    append_claim(Path(sys.argv[1]), line.rstrip(b"\\n"))
"""


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    each = [[claim(10 * process + n) for n in range(8)] for process in range(6)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, str(tmp_path)], stdin=subprocess.PIPE, bufsize=0
        )
        for _ in each
    ]
    for process, own in zip(processes, each, strict=True):
        assert process.stdin is not None
        process.stdin.write(b"".join(line + b"\n" for line in own))
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * len(each)
    found = [item.raw for item in claims.read_bundles(tmp_path / CLAIMS)]
    assert sorted(found) == sorted(line for own in each for line in own)
    for own in each:  # and each process's lines stand in its order
        assert [line for line in found if line in own] == own


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UnreadableError, match="cannot be locked"):
            claims.append_claim(place, ONE)
        with pytest.raises(UnreadableError):
            claims.write_model_signature(place, ONE)
        with pytest.raises(UnreadableError, match=r"is not a folder|no such folder"):
            claims.require_folder(place)
    with pytest.raises(UnreadableError, match="no such file"):
        claims.read_bundles(tmp_path / CLAIMS)
    claims.require_folder(tmp_path)


def test_claims_that_are_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / CLAIMS)
    with pytest.raises(UnreadableError, match="is a FIFO"):
        claims.append_claim(tmp_path, ONE)
    (tmp_path / CLAIMS).unlink()
    (tmp_path / CLAIMS).symlink_to("nowhere")
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        claims.append_claim(tmp_path, ONE)
    assert (tmp_path / CLAIMS).is_symlink()


def test_the_model_signature_is_replaced(tmp_path: Path) -> None:
    claims.write_model_signature(tmp_path, ONE)
    claims.write_model_signature(tmp_path, TWO)
    assert (tmp_path / MODEL_SIGNATURE).read_bytes() == TWO
    assert stat.S_IMODE((tmp_path / MODEL_SIGNATURE).stat().st_mode) & 0o133 == 0


@pytest.mark.parametrize("status", [0, 1, None])
def test_what_is_put_beside_a_model(tmp_path: Path, status: int | None) -> None:
    run = msgspec.structs.replace(TRAINING.run, provenance_outcome=Outcome(exit_status=status))
    statement = msgspec.structs.replace(TRAINING, run=run)
    payload = intoto.format(training.to_statement(statement))
    done = claims.attach(tmp_path, statement, payload, {sha256(b"log"): b"log"}, KEY)
    assert [item.raw for item in claims.read_bundles(tmp_path / CLAIMS)] == [done.claim]
    names = {path.name for path in tmp_path.iterdir()}
    # A model signature could not say that the training failed.
    expected = {CLAIMS, MODEL_SIGNATURE} if status != 1 else {CLAIMS}
    assert names == {BYPRODUCTS, *expected}
    assert set(done.written) == {str(tmp_path / name) for name in expected}


def test_byproducts_are_named_by_their_digest(tmp_path: Path) -> None:
    claims.write_byproducts(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
    contents = {sha256(data): data for data in (b"log", b"")}
    claims.write_byproducts(tmp_path, contents)
    claims.write_byproducts(tmp_path, {sha256(b"more"): b"more", **contents})
    found = {path.name: path.read_bytes() for path in (tmp_path / BYPRODUCTS).iterdir()}
    assert found == {sha256(b"more"): b"more", **contents}


def test_byproducts_do_not_leave_the_model(tmp_path: Path) -> None:
    model, outside = tmp_path / "model", tmp_path / "outside"
    model.mkdir()
    outside.mkdir()
    (model / BYPRODUCTS).symlink_to(outside)
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        claims.write_byproducts(model, {sha256(b"log"): b"log"})
    assert list(outside.iterdir()) == []
    (model / BYPRODUCTS).unlink()
    (model / BYPRODUCTS).write_bytes(b"")
    with pytest.raises(UnavailableError, match="cannot be written: file exists"):
        claims.write_byproducts(model, {sha256(b"log"): b"log"})


def test_a_full_disk_keeps_the_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    claims.append_claim(tmp_path, ONE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UnavailableError, match=r"no space left on device .free some space"):
            claims.append_claim(tmp_path, TWO)
        with pytest.raises(UnavailableError):
            claims.write_model_signature(tmp_path, TWO)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {CLAIMS: ONE + b"\n"}
    claims.append_claim(tmp_path, THREE)
    assert [item.raw for item in claims.read_bundles(tmp_path / CLAIMS)] == [ONE, THREE]
