"""Every file that the program writes is explained, told by its content; nothing is verified."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.encoding import strict_json
from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.report import explain_files
from provenance.report.explain import explain
from provenance.transparency import note, tiles
from provenance.transparency.tiles import Tile
from tools.schemas.examples import CLOSE, TRAINER, example_key, valid_examples

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.conftest import World

KEY = example_key(TRAINER)


def text_of(path: Path) -> str:
    return "\n".join(explain(path).lines)


def kind_of(path: Path) -> str:
    return explain(path).kind


BESIDE = {
    "model": ("model", "model.safetensors"),
    "model/claims.jsonl": ("bundles", "training statement"),
    "model/model.sig": ("bundles", "model signature"),
    "model/provenance": ("byproducts", "manifest/data:train"),
    "model/model.safetensors": ("weights", "hidden.weight  F32    [4, 3]"),
    "model/scaler.npz": ("weights", "scale  F32    []"),
    "model/classes.npy": ("weights", "I64    [10]"),
    "verdict.json": ("bundles", "TRAINING_PROVENANCE_SAME_BYTES"),
    "statement.json": ("statement", "not signed"),
    "equality.toml": (
        "equality-declaration",
        "L2 ≤ 0.001 and L∞ ≤ 0.01 of the update from the initial",
    ),
    "builder": ("private-key", "ecdsa-p256"),
    "builder.pub": ("public-key", "ecdsa-p256"),
    "log.key.pub": ("public-key", "ed25519"),
    "pq.key.pub": ("public-key", "ml-dsa-65"),
    "locked": ("private-key", "encrypted"),
    "log": ("log", "example.org/log"),
    "log/checkpoint": ("checkpoint", "entries      1"),
    "log/vkey": ("vkey", "name         example.org/log\n  algorithm    ed25519"),
    "log/.state/version": ("log-state", "version      1"),
    "log/.state/treeState": ("log-state", "on disk\n    entries      1"),
    "log/.state/signer.json": ("log-state", "log.key"),
    "log/.state/treeState.lock": ("log-state", "on disk"),
    "log/tile/0/000.p/1": ("tile", "1 of 256 leaf hashes"),
    "log/tile/entries/000.p/1": ("entry-bundle", "hashedrekord 0.0.2"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_file_of_each_kind(world: World, name: str) -> None:
    kind, text = BESIDE[name]
    explained = explain(world.root / name)
    assert explained.problems == ()
    assert kind_of(world.root / name) == kind
    assert explained.lines[0].startswith(f"{world.root / name}: ")
    assert explained.lines[0].endswith("(not verified)")
    assert text in "\n".join(explained.lines)


def test_every_byproduct(world: World) -> None:
    found = {kind_of(path): text_of(path) for path in (world.model / "provenance").iterdir()}
    assert found.keys() == {"manifest", "metrics", "byproduct"}
    assert "digits.npz  270,000" in found["manifest"]
    assert re.search(r"loss +4 +1 +0.25 +0.25 +1\b", found["metrics"])
    assert "notes" in found["byproduct"]
    assert "text/plain" in found["byproduct"]
    assert "as its name says" in found["byproduct"]


# --- Keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["builder", "log.key", "pq.key", "locked"])
def test_no_key_material_is_shown(world: World, name: str) -> None:
    path = world.root / name
    explained = explain(path)
    shown = "\n".join(explained.lines) + msgspec.json.encode(explained.content).decode()
    for line in path.read_text().splitlines()[1:-1]:
        assert line not in shown
        assert line[:24] not in shown


def test_the_key_id_of_a_private_key_is_its_public_key_s(world: World) -> None:
    content = explain(world.root / "builder").content
    assert content["keyId"] == explain(world.root / "builder.pub").content["keyId"]
    assert not content["encrypted"]


def test_an_encrypted_key_hides_what_it_is(world: World) -> None:
    content = explain(world.root / "locked").content
    assert content["encrypted"]
    assert not {"algorithm", "keyId"} & content.keys()


def test_a_key_that_others_can_read_is_told(world: World, tmp_path: Path) -> None:
    copy = tmp_path / "key"
    shutil.copy(world.root / "builder", copy)
    copy.chmod(0o644)
    assert "0644" in text_of(copy)
    assert "others can use it: chmod 600" in text_of(copy)


def test_a_damaged_private_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(MalformedError, match="not a readable private key"):
        explain(path)


# --- Logs -----------------------------------------------------------------------------------------


def test_the_kind_is_told_by_content_not_name(world: World, tmp_path: Path) -> None:
    for name in ("model/claims.jsonl", "log/checkpoint", "log/vkey", "equality.toml", "builder"):
        copy = tmp_path / "copy"
        shutil.copy(world.root / name, copy)
        assert kind_of(copy) == BESIDE[name][0]
    copy = tmp_path / "weights.bin"
    shutil.copy(world.model / "model.safetensors", copy)
    assert kind_of(copy) == "weights"


def test_another_signed_note(tmp_path: Path) -> None:
    path = tmp_path / "note"
    path.write_bytes(note.sign("If you think\n", note.signer_key("PeterNeumann", KEY)))
    text = text_of(path)
    assert "signed note" in text
    assert "PeterNeumann" in text
    assert "If you think" in text


def test_a_tile_above_the_leaves(tmp_path: Path) -> None:
    path = tmp_path / "tile/1/000.p/2"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(64))
    assert "roots over 256 entries each" in text_of(path)
    assert "0 to 511" in text_of(path)


def test_entries_of_other_tools(tmp_path: Path) -> None:
    path = tmp_path / tiles.format_path(Tile(tiles.ENTRIES, 0, 2))
    path.parent.mkdir(parents=True)
    path.write_bytes(tiles.format_bundle([b"not JSON", b'{"kind":"other","apiVersion":"1"}']))
    assert "0  of an unknown kind" in text_of(path)
    assert "1  other 1" in text_of(path)


def test_an_interrupted_append_is_told(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log"
    shutil.copytree(world.log, log)
    (log / ".state/pending").write_bytes(strict_json.format({"from": 1, "to": 3}))
    (log / ".state/gcState").write_bytes(strict_json.format({"fromSize": 1}))
    for path in (log, log / ".state/pending", log / ".state/gcState"):
        assert re.search(r"append under way or killed\n +from +1\n +to +3\n", text_of(path))
        assert "partial tiles removed below 1" in text_of(path)


def test_a_log_with_a_damaged_state_shows_its_checkpoint(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log"
    shutil.copytree(world.log, log)
    (log / ".state/treeState").write_text("{}")
    explained = explain(log)
    assert "entries      1" in "\n".join(explained.lines)
    assert isinstance(explained.problems[0], MalformedError)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tile/0/000.p/2", bytes(63)),
        ("tile/entries/000.p/2", b"\x00\x05abc"),
        (".state/version", b"2"),
        (".state/treeState", b"{}"),
        (".state/other", b""),
    ],
)
def test_damaged_files_of_a_log(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises((MalformedError, UnreadableError)):
        explain(path)


# --- Models and what stands beside them -----------------------------------------------------------


def test_a_model_folder_with_only_a_signature(world: World, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    shutil.copy(world.model / "model.sig", model)
    text = text_of(model)
    assert "claims.jsonl: none" in text
    assert "model signature" in text


def test_a_model_folder_with_damaged_claims_shows_the_rest(world: World, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(world.model, model)
    (model / "claims.jsonl").write_bytes(b"{")
    (model / "link").symlink_to("/etc/passwd")
    explained = explain(model)
    assert len(explained.problems) == 2
    assert "model signature" in "\n".join(explained.lines)


def test_a_folder_about_which_nothing_is_signed(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="nothing in it is signed"):
        explain(tmp_path)


def test_a_byproduct_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    path = tmp_path / "provenance" / ("0" * 64)
    path.parent.mkdir()
    path.write_bytes(b"anything")
    assert "NOT what its name says" in text_of(path)
    assert "no claim beside the weights names it" in text_of(path)


@pytest.mark.parametrize(
    "data",
    [
        b'[["a",1]]',
        b'[["a",-1,"' + b"0" * 64 + b'"]]',
        b'[["a",1,"00"]]',
        b'[["../a",1,"' + b"0" * 64 + b'"]]',
        b'[["a",1,"' + b"0" * 64 + b'"],["a",1,"' + b"0" * 64 + b'"]]',
    ],
)
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(MalformedError):
        explain_files.explain_manifest(data, "manifest")


@pytest.mark.parametrize(
    "line",
    [
        b'{"name":"loss","value":true}\n',
        b'{"name":"loss","value":"banana"}\n',
        b'{"name":1,"value":1}\n',
        b'{"name":"loss","value":1,"step":"1"}\n',
        b'{"name":"loss","value":1,"other":1}\n',
        b'{"name":"loss","value":1}\n\n',
        b'{"name":"loss","value":1}',
        b'{"name":"loss","name":"loss","value":1}\n',
    ],
)
def test_what_are_no_metrics(line: bytes) -> None:
    with pytest.raises(MalformedError):
        explain_files.explain_metrics(line, "metrics")


def test_metrics_that_are_not_finite() -> None:
    explained = explain_files.explain_metrics(
        b'{"name":"loss","value":"NaN"}\n{"name":"loss","step":1,"value":2}\n', "metrics"
    )
    [metric] = explained.content["metrics"]
    assert [metric[name] for name in ("first", "last", "smallest", "largest")] == ["NaN", 2, 2, 2]


# --- What is none of ours -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("empty", b"", "not a file that this program writes"),
        ("text", b"hello\n", "not a file that this program writes"),
        ("binary", b"\x00\x01\x02", "not a file that this program writes"),
        ("config.json", b'{"hidden": 3}', "not a file that this program writes"),
        ("config.toml", b"epochs = 20\n", "not an equality declaration"),
        ("policy.toml", b"format = 1\n\n[[party]]\n", "policy .'provenance trust check'"),
        ("table.toml", b'[project]\nname = "x"\n', "not an equality declaration"),
        ("weights.gguf", b"GGUF\x03\x00\x00\x00", "cut off"),
        ("weights.pt", b"\x80\x02}q\x00.", "is a pickle"),
        ("weights.msgpack", b"\x81", "cannot be read by this version"),
        ("model.skops", b"PK\x03\x04" + bytes(60), "ZIP"),
        ("model.joblib", b"\x80\x04]", "never loads .save its arrays with numpy.savez"),
        ("banana", b'{"name":"loss","value":"banana"}\n', "not a metric"),
        ("cut.npz", b"PK\x03\x04", "ZIP"),
        ("model.pt", b"PK\x03\x04" + bytes(60), "ZIP"),
        ("cut.jsonl", b'{"mediaType":"x","verificationMaterial":{}', "not JSON"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises((MalformedError, UnreadableError), match=what) as caught:
        explain(path)
    assert str(caught.value).startswith(str(path))


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UnreadableError, match="is a FIFO, not a file"):
        explain(tmp_path / "fifo")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="no such file"):
        explain(tmp_path / "none")


SEEDS = [*valid_examples().values(), CLOSE, KEY.public.pem, KEY.pem(), b'[["a",1,"00"]]']


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data) - 1))
        data[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
        if not data:
            break
    return bytes(data)


@given(st.one_of(st.binary(max_size=200), damaged()))
def test_whatever_a_file_holds_only_our_errors_leave(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    try:
        explained = explain(path)
    except ProvenanceError:
        return
    assert all(line.isprintable() for line in explained.lines)
    json.loads(msgspec.json.encode(explained.content))
