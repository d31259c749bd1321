from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from provenance.encoding import strict_base64
from provenance.envelope import bundle
from provenance.errors import MalformedError, UnavailableError, UnreadableError, UsageError
from provenance.files.names import BYPRODUCTS, CLAIMS, MODEL_SIGNATURE
from provenance.folder import attach, claims
from provenance.keys import generate, write_pair
from provenance.statement import intoto, model_signature, training
from provenance.statement.training import Metadata, Outcome, TrainingStatement
from tests.statement.examples import MODEL, TRAINING, sha256

if TYPE_CHECKING:
    from pathlib import Path

KEY = generate("ed25519")  # signs alike each time


def statement(number: int) -> TrainingStatement:
    """Return the statement of a run that failed: one that gets no model signature."""
    run = msgspec.structs.replace(
        TRAINING.run,
        metadata=Metadata(invocation_id=str(number)),
        provenance_outcome=Outcome(exit_status=1),
    )
    return training.name_signer(msgspec.structs.replace(TRAINING, run=run), KEY.public)


def payload(number: int) -> bytes:
    return intoto.format(training.to_statement(statement(number)))


def claim(number: int) -> bytes:
    return attach.sign_payload(payload(number), KEY)


def put(model: Path, number: int, files: dict[str, bytes] | None = None) -> None:
    attach.attach(
        model, attach.sign_claim(model, statement(number), payload(number), files or {}, KEY)
    )


ONE, TWO, THREE = claim(1), claim(2), claim(3)


def test_a_signed_training_statement_names_its_signer() -> None:
    opened = bundle.open_bundle(bundle.parse(ONE), [KEY.public])
    found = training.from_statement(intoto.from_opened(opened))
    assert strict_base64.parse(found.run.provenance_signer) == KEY.public.spki
    assert (found.manifest, found.build) == (TRAINING.manifest, TRAINING.build)


def test_a_model_signature_has_the_reference_tools_hint() -> None:
    item = bundle.parse(attach.sign_model("digits", MODEL, KEY))
    assert item.hint == KEY.public.pem_digest
    assert item.envelope.keyid == ""
    opened = bundle.open_bundle(item, [KEY.public])
    found = model_signature.from_statement(intoto.from_opened(opened))
    assert (found.model_name, found.root_digest) == ("digits", MODEL.root_digest)


def test_claims_are_appended_in_order(tmp_path: Path) -> None:
    for number in (1, 2, 1):  # the very same claim is there once
        put(tmp_path, number)
    assert (tmp_path / CLAIMS).read_bytes() == b"\n".join([ONE, TWO, b""])
    assert [item.raw for item in claims.read_bundles(tmp_path / CLAIMS)] == [ONE, TWO]
    assert [path.name for path in tmp_path.iterdir()] == [CLAIMS]


def test_bytes_that_are_there_are_kept(tmp_path: Path) -> None:
    there = ONE.replace(b",", b" , ", 1) + b"\r\n" + TWO + b"\r\n"
    (tmp_path / CLAIMS).write_bytes(there)
    put(tmp_path, 3)
    assert (tmp_path / CLAIMS).read_bytes() == there + THREE + b"\n"


def test_one_line_without_an_end_gets_one(tmp_path: Path) -> None:
    (tmp_path / CLAIMS).write_bytes(ONE)
    put(tmp_path, 2)
    assert (tmp_path / CLAIMS).read_bytes() == ONE + b"\n" + TWO + b"\n"


THERE = {
    "damaged": (ONE[:-1] + b"\n", "not JSON"),
    "cut off": (ONE + b"\n" + TWO, "the last line has no newline"),
    "over several lines": (ONE.replace(b",", b",\n", 1), "not one line"),
    "empty": (b"", "not JSON"),
}


@pytest.mark.parametrize(("data", "message"), THERE.values(), ids=THERE)
def test_claims_that_cannot_be_read_are_left_alone(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / CLAIMS).write_bytes(data)
    with pytest.raises(MalformedError, match=message):
        put(tmp_path, 2)
    assert (tmp_path / CLAIMS).read_bytes() == data


def test_claims_behind_a_link_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(ONE + b"\n")
    model = tmp_path / "model"
    model.mkdir()
    (model / CLAIMS).symlink_to(tmp_path / "theirs")
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        put(model, 2)
    assert (tmp_path / "theirs").read_bytes() == ONE + b"\n"
    assert (model / CLAIMS).is_symlink()


def test_the_file_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "MAX_LINES", 1)
        with pytest.raises(MalformedError, match="more than 1 lines"):
            put(tmp_path, 2)
    with monkeypatch.context() as patch:
        patch.setattr(attach, "MAX_CLAIMS_BYTES", len(ONE) + len(TWO))
        with pytest.raises(MalformedError, match="longer than"):
            put(tmp_path, 2)
        patch.setattr(claims, "MAX_CLAIMS_BYTES", 10)
        with pytest.raises(UnreadableError, match="is longer than 10 bytes"):
            claims.read_bundles(tmp_path / CLAIMS)
    assert (tmp_path / CLAIMS).read_bytes() == ONE + b"\n"


APPEND = """
import sys
from pathlib import Path
from provenance.folder import attach
from provenance.keys import load_private
from provenance.statement import intoto, training
for line in sys.stdin.buffer:
    payload = line.rstrip(b"\\n")
    stated = training.from_statement(intoto.parse(payload))
    model = Path(sys.argv[1])
    signed = attach.sign_claim(model, stated, payload, {}, load_private(Path(sys.argv[2])))
    attach.attach(model, signed)
"""


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    model, key = tmp_path / "model", tmp_path / "key"
    model.mkdir()
    write_pair(KEY, key)
    each = [[10 * process + n for n in range(8)] for process in range(6)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, str(model), str(key)], stdin=subprocess.PIPE, bufsize=0
        )
        for _ in each
    ]
    for process, own in zip(processes, each, strict=True):
        assert process.stdin is not None
        process.stdin.write(b"".join(payload(number) + b"\n" for number in own))
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * len(each)
    found = [item.raw for item in claims.read_bundles(model / CLAIMS)]
    assert sorted(found) == sorted(claim(number) for own in each for number in own)
    for own in each:  # and each process's lines stand in its order
        assert [line for line in found if line in map(claim, own)] == list(map(claim, own))


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "missing", tmp_path / "fifo"):
        with pytest.raises(UnreadableError, match="cannot be locked"):
            put(place, 1)
        with pytest.raises(UnreadableError, match=r"is not a folder|no such folder"):
            attach.sign(place, KEY)
        with pytest.raises(UnreadableError, match=r"is not a folder|no such folder"):
            claims.require_folder(place)
    with pytest.raises(UnreadableError, match="no such file"):
        claims.read_bundles(tmp_path / CLAIMS)
    claims.require_folder(tmp_path)


def test_claims_that_are_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / CLAIMS)
    with pytest.raises(UnreadableError, match="is a FIFO"):
        put(tmp_path, 1)
    (tmp_path / CLAIMS).unlink()
    (tmp_path / CLAIMS).symlink_to("nowhere")
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        put(tmp_path, 1)
    assert (tmp_path / CLAIMS).is_symlink()


def test_only_ones_own_model_signature_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    attach.sign(tmp_path, KEY)
    (tmp_path / "weights").write_bytes(b"2")
    attach.sign(tmp_path, KEY)
    own = (tmp_path / MODEL_SIGNATURE).read_bytes()
    assert bundle.open_bundle(bundle.parse(own), [KEY.public]).key == KEY.public
    assert stat.S_IMODE((tmp_path / MODEL_SIGNATURE).stat().st_mode) & 0o133 == 0
    good = msgspec.structs.replace(
        TRAINING, run=msgspec.structs.replace(TRAINING.run, provenance_outcome=Outcome(0))
    )
    data = intoto.format(training.to_statement(good))
    stranger = generate()
    for kept in (
        own,
        own.replace(KEY.public.pem_digest.encode(), b""),  # a signature may have no hint
        own.replace(KEY.public.pem_digest.encode(), stranger.public.pem_digest.encode()),
        b"not a bundle",
        b"",
    ):
        (tmp_path / MODEL_SIGNATURE).write_bytes(kept)
        with pytest.raises(UsageError, match="another, or damaged, and is not replaced"):
            attach.sign(tmp_path, stranger)
        done = attach.attach(tmp_path, attach.sign_claim(tmp_path, good, data, {}, stranger))
        assert done.kept_signature
        assert done.written == (str(tmp_path / CLAIMS),)
        assert (tmp_path / MODEL_SIGNATURE).read_bytes() == kept


@pytest.mark.parametrize("status", [0, 1, None])
def test_what_is_put_beside_a_model(tmp_path: Path, status: int | None) -> None:
    run = msgspec.structs.replace(TRAINING.run, provenance_outcome=Outcome(exit_status=status))
    stated = msgspec.structs.replace(TRAINING, run=run)
    data = intoto.format(training.to_statement(stated))
    done = attach.attach(
        tmp_path, attach.sign_claim(tmp_path, stated, data, {sha256(b"log"): b"log"}, KEY)
    )
    [item] = claims.read_bundles(tmp_path / CLAIMS)
    assert item.envelope.payload == data
    names = {path.name for path in tmp_path.iterdir()}
    # A model signature could not say that the training failed, or may have.
    expected = {CLAIMS, MODEL_SIGNATURE} if status == 0 else {CLAIMS}
    assert names == {BYPRODUCTS, *expected}
    assert set(done.written) == {str(tmp_path / name) for name in expected}


def test_byproducts_are_named_by_their_digest(tmp_path: Path) -> None:
    put(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == [CLAIMS]
    contents = {sha256(data): data for data in (b"log", b"")}
    put(tmp_path, 2, contents)
    put(tmp_path, 3, {sha256(b"more"): b"more", **contents})
    found = {path.name: path.read_bytes() for path in (tmp_path / BYPRODUCTS).iterdir()}
    assert found == {sha256(b"more"): b"more", **contents}


def test_a_damaged_byproduct_is_replaced(tmp_path: Path) -> None:
    put(tmp_path, 1, {sha256(b"log"): b"log"})
    path = tmp_path / BYPRODUCTS / sha256(b"log")
    path.write_bytes(b"gol")
    put(tmp_path, 2, {sha256(b"log"): b"log"})
    assert path.read_bytes() == b"log"
    path.unlink()
    path.symlink_to(tmp_path / CLAIMS)
    put(tmp_path, 3, {sha256(b"log"): b"log"})
    assert not path.is_symlink()
    path.unlink()
    path.mkdir()
    with pytest.raises(UnavailableError, match="move the folder of that name away"):
        put(tmp_path, 1, {sha256(b"log"): b"log"})


def test_byproducts_do_not_leave_the_model(tmp_path: Path) -> None:
    model, outside = tmp_path / "model", tmp_path / "outside"
    model.mkdir()
    outside.mkdir()
    (model / BYPRODUCTS).symlink_to(outside)
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        put(model, 1, {sha256(b"log"): b"log"})
    assert list(outside.iterdir()) == []
    (model / BYPRODUCTS).unlink()
    (model / BYPRODUCTS).write_bytes(b"")
    with pytest.raises(UnavailableError, match="cannot be written: file exists"):
        put(model, 1, {sha256(b"log"): b"log"})


def test_a_full_disk_keeps_the_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "weights").write_bytes(b"1")
    put(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UnavailableError, match=r"no space left on device .free some space"):
            put(tmp_path, 2)
        with pytest.raises(UnavailableError):
            attach.sign(tmp_path, KEY)
    there = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert there == {CLAIMS: ONE + b"\n", "weights": b"1"}
    put(tmp_path, 3)
    assert [item.raw for item in claims.read_bundles(tmp_path / CLAIMS)] == [ONE, THREE]
