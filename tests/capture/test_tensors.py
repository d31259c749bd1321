"""The byproduct ``tensors``: those of a model by digest, and which files are forms of others."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from provenance.capture import tensors
from provenance.capture.draft import Recording, describe_bytes
from provenance.capture.made import Made
from provenance.errors import MalformedError
from provenance.files.manifest import FileEntry, Manifest, hash_folder, manifest_of
from provenance.files.names import check_name
from provenance.report.verification import weights_texts
from provenance.statement.training import describe_input
from tests.statement.examples import TRAINING
from tests.weights import torch_writing
from tests.weights.gguf_writing import File, Tensor, filled, scalar
from tests.weights.writing import archive, entry, npy, safetensors, simple
from tests.world import write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Arrays = Mapping[str, np.ndarray[Any, Any]]

RANDOM = np.random.default_rng(7)
WEIGHTS = {
    "a.weight": RANDOM.standard_normal((6, 4)).astype("<f4"),
    "b.weight": RANDOM.standard_normal((6, 4)).astype("<f4"),
    "norm": RANDOM.standard_normal(4).astype("<f4"),
    "steps": np.arange(3),
}

KINDS = {
    "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}  # fmt: skip
NOTHING: Mapping[str, bytes] = {}


def half(arrays: Arrays, dtype: str = "BF16", raw: Mapping[str, bytes] = NOTHING) -> bytes:
    """Return safetensors of *arrays*, the floats cast to *dtype* by the library ml_dtypes."""
    header, data = {}, b""
    for name, array in arrays.items():
        stored = dtype if array.dtype == np.float32 else "I64"
        kind = KINDS[dtype] if array.dtype == np.float32 else array.dtype
        cast = raw[name] if name in raw else array.astype(kind).tobytes()
        header[name] = entry(stored, list(array.shape), len(data), len(data) + len(cast))
        data += cast
    return safetensors(header, data)


def look(
    root: Path,
    base: Path | None = None,
    manifest: Manifest | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]], Recording]:
    """Return what is said of the files in *root*, the list, and the recording."""
    before = Recording(TRAINING.with_run(byproducts=()), {})
    if base is not None:
        found = hash_folder(base) if base.is_dir() else _of_file(base)
        described, kept = describe_bytes("manifest/baseModel", describe_input("", found)[1], "")
        before = Recording(TRAINING.with_run(byproducts=(described,)), kept)
    manifest = manifest or hash_folder(root)
    recording = tensors.with_tensors(before, Made(root, manifest), base, progress)
    byproduct = recording.statement.run.byproducts[-1]
    assert byproduct.name == "tensors"
    data = recording.data_of(byproduct)
    assert hashlib.sha256(data).hexdigest() == byproduct.digest["sha256"]
    files = {each["file"]: each for each in byproduct.annotations["files"]}
    lines = [json.loads(line) for line in data.splitlines()]
    assert byproduct.annotations["count"] == len(lines)
    return files, lines, recording


def _of_file(path: Path) -> Manifest:
    data = path.read_bytes()
    entries = [FileEntry(path.name, len(data), hashlib.sha256(data).hexdigest())]
    return manifest_of(entries)


def forms(lines: Sequence[Mapping[str, Any]], file: str) -> dict[str, str | None]:
    return {line["name"]: line.get("form") for line in lines if line["file"] == file}


def test_each_tensor_has_the_digest_that_the_specification_spells(tmp_path: Path) -> None:
    array = np.array([[1, 2], [3, 4]], "<f4")
    write_files(tmp_path, {"m.safetensors": simple({"w": array}), "config.json": b"{}"})
    files, lines, _ = look(tmp_path)
    head = b'provenance tensor v1\n{"dtype":"F32","shape":[2,2]}\n'
    digest = hashlib.sha256(head + array.tobytes()).hexdigest()
    assert lines == [
        {"dtype": "F32", "file": "m.safetensors", "name": "w", "sha256": digest, "shape": [2, 2]}
    ]
    said = {"file": "m.safetensors", "format": "safetensors", "count": 1, "types": {"F32": 1}}
    assert files == {"m.safetensors": said}


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_a_cast_is_named_where_every_value_is_rounded_once(tmp_path: Path, dtype: str) -> None:
    write_files(
        tmp_path, {"wide.safetensors": simple(WEIGHTS), "m.safetensors": half(WEIGHTS, dtype)}
    )
    files, lines, recording = look(tmp_path)
    said = files["m.safetensors"]
    assert said["conversion"] == f"cast:{dtype}"
    assert (said["from"], said["cast"], said["same"]) == ("wide.safetensors", 3, 1)
    assert not {"renamed", "other", "left"} & said.keys()
    assert forms(lines, "m.safetensors") == {
        "a.weight": "cast", "b.weight": "cast", "norm": "cast", "steps": "same"
    }  # fmt: skip
    assert set(forms(lines, "wide.safetensors").values()) == {None}
    assert any(
        f"cast:{dtype} of wide.safetensors" in it for it in weights_texts(recording.statement)
    )


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_of_a_base_model_in_bf16_what_is_wider_is_found_too(tmp_path: Path, dtype: str) -> None:
    """As llama.cpp keeps the norms of such a model in F32, and makes F16 of all else."""
    base = write_files(tmp_path / "base", {"model.safetensors": half(WEIGHTS)})
    narrow = {
        name: it.astype(ml_dtypes.bfloat16).astype(it.dtype) if it.dtype == np.float32 else it
        for name, it in WEIGHTS.items()
    }
    form = simple(narrow) if dtype == "F32" else half(narrow, dtype)
    files, _, _ = look(write_files(tmp_path / "form", {"m.safetensors": form}), base)
    assert files["m.safetensors"]["conversion"] == f"cast:{dtype}"
    assert files["m.safetensors"]["cast"] == 3


@pytest.mark.parametrize("to", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("name", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_every_value_of_a_narrow_float_is_cast_as_by_ml_dtypes(
    tmp_path: Path, name: str, to: str
) -> None:
    bits = 8 * np.dtype(KINDS[name]).itemsize
    with np.errstate(all="ignore"):
        every = np.arange(2**bits, dtype=f"<u{bits // 8}").view(KINDS[name])
        cast = every.astype(np.float32).astype(KINDS[to])
        every, cast = (it[np.isfinite(cast.astype(np.float32))] for it in (every, cast))
    for folder, dtype, array in (("base", name, every), ("form", to, cast)):
        header = {"w": entry(dtype, [array.size], 0, array.nbytes)}
        write_files(tmp_path / folder, {"m.safetensors": safetensors(header, array.tobytes())})
    said = look(tmp_path / "form", tmp_path / "base")[0]["m.safetensors"]
    assert said["conversion"] == ("copy" if name == to else f"cast:{to}")


def test_one_bit_and_it_is_no_cast(tmp_path: Path) -> None:
    raw = bytearray(WEIGHTS["a.weight"].astype(ml_dtypes.bfloat16).tobytes())
    raw[6] ^= 1
    changed = half(WEIGHTS, raw={"a.weight": bytes(raw)})
    write_files(tmp_path, {"wide.safetensors": simple(WEIGHTS), "m.safetensors": changed})
    files, lines, recording = look(tmp_path)
    said = files["m.safetensors"]
    assert "conversion" not in said
    assert (said["cast"], said["same"], said["other"], said["left"]) == (2, 1, 1, 1)
    assert forms(lines, "m.safetensors")["a.weight"] is None
    [text] = [it for it in weights_texts(recording.statement) if it.startswith("m.safetensors")]
    assert "1 not found there" in text
    assert "cast:" not in text


def test_a_value_that_is_cut_or_rounded_twice_is_no_cast(tmp_path: Path) -> None:
    wide = {"w": np.array([1 + 2**-8 + 2**-40, 1.0], "<f8"), "v": np.array([1 + 3 * 2**-8], "<f4")}
    header = {"w": entry("BF16", [2], 0, 4), "v": entry("BF16", [1], 4, 6)}
    twice = wide["w"].astype(np.float32).astype(ml_dtypes.bfloat16).tobytes()
    cut = wide["v"].tobytes()[2:]
    write_files(
        tmp_path, {"w.safetensors": simple(wide), "m.safetensors": safetensors(header, twice + cut)}
    )
    files, _, _ = look(tmp_path)
    assert files["m.safetensors"] == {
        "file": "m.safetensors", "format": "safetensors", "count": 2, "types": {"BF16": 2}
    }  # fmt: skip


def test_tensors_under_each_others_names_are_no_conversion(tmp_path: Path) -> None:
    swapped = dict(WEIGHTS) | {"a.weight": WEIGHTS["b.weight"], "b.weight": WEIGHTS["a.weight"]}
    write_files(tmp_path, {"wide.safetensors": simple(WEIGHTS), "m.safetensors": half(swapped)})
    files, lines, _ = look(tmp_path)
    said = files["m.safetensors"]
    assert "conversion" not in said
    assert (said["renamed"], said["cast"], said["same"]) == (2, 1, 1)
    assert forms(lines, "m.safetensors")["a.weight"] == "renamed"


def test_what_a_form_leaves_out_is_counted(tmp_path: Path) -> None:
    fewer = {name: WEIGHTS[name] for name in ("a.weight", "norm")}
    write_files(tmp_path, {"wide.safetensors": simple(WEIGHTS), "m.safetensors": half(fewer)})
    said = look(tmp_path)[0]["m.safetensors"]
    assert said["left"] == 2
    assert "conversion" not in said


def test_a_tied_tensor_that_a_form_drops_is_not_left_out(tmp_path: Path) -> None:
    tied = dict(WEIGHTS) | {"lm_head": WEIGHTS["a.weight"]}
    write_files(tmp_path, {"wide.safetensors": simple(tied), "m.safetensors": half(WEIGHTS)})
    assert look(tmp_path)[0]["m.safetensors"]["conversion"] == "cast:BF16"


def test_another_container_is_a_copy(tmp_path: Path) -> None:
    arrays = {f"{name}.npy": npy(array) for name, array in WEIGHTS.items()}
    write_files(tmp_path, {"m.safetensors": simple(WEIGHTS), "n.npz": archive(arrays)})
    files, _, _ = look(tmp_path)
    assert files["n.npz"]["conversion"] == "copy"
    assert "from" not in files["m.safetensors"]


def test_a_checkpoint_is_a_copy_of_the_model_and_not_the_other_way(tmp_path: Path) -> None:
    names = ("checkpoint-4/model.safetensors", "model.safetensors")
    files, _, _ = look(write_files(tmp_path, dict.fromkeys(names, simple(WEIGHTS))))
    assert files[names[0]]["from"] == names[1]
    assert "from" not in files[names[1]]


@pytest.mark.parametrize("odd", [0x7FC00001, 0x7F800001, 0x7F7FFFFF])
def test_what_is_not_a_number_or_overflows_has_no_cast(tmp_path: Path, odd: int) -> None:
    """A converter chooses the bits of NaN, and whether what is too large becomes infinite."""
    array = np.array([0x3F800000, odd], "<u4").view("<f4")
    cast = half({"w": array}, raw={"w": np.array([0x3F80, odd >> 16], "<u2").tobytes()})
    write_files(tmp_path, {"a.safetensors": simple({"w": array}), "b.safetensors": cast})
    files, lines, _ = look(tmp_path)
    assert "from" not in files["b.safetensors"]
    assert len(lines) == 2
    write_files(tmp_path, {"b.safetensors": simple({"w": array}, note="the same bits")})
    assert look(tmp_path)[0]["b.safetensors"]["conversion"] == "copy"


def test_of_gguf_the_types_are_named_and_what_was_found(tmp_path: Path) -> None:
    arrays = {"norm": WEIGHTS["norm"], "a": WEIGHTS["a.weight"], "q": np.ones((3, 64), "<f4")}
    stored = [
        Tensor("norm", [4], arrays["norm"].tobytes()),
        Tensor("a", [4, 6], arrays["a"].astype(np.float16).tobytes(), "F16"),
        filled("q", "Q8_0", [64, 3]),
    ]
    quantised = File([scalar("general.file_type", "u32", 7)], stored).written()
    write_files(tmp_path, {"m.safetensors": simple(arrays), "m.gguf": quantised})
    files, lines, _ = look(tmp_path)
    assert files["m.gguf"] == {
        "file": "m.gguf", "format": "gguf", "count": 3, "types": {"F32": 1, "F16": 1, "Q8_0": 1},
        "fileType": "7", "from": "m.safetensors", "same": 1, "cast": 1, "other": 1, "left": 1,
    }  # fmt: skip
    assert forms(lines, "m.gguf") == {"norm": "same", "a": "cast", "q": None}


@pytest.mark.parametrize("single", [False, True])
def test_a_form_of_the_base_model(tmp_path: Path, *, single: bool) -> None:
    base = write_files(tmp_path / "base", {"model.safetensors": simple(WEIGHTS)})
    root = write_files(tmp_path / "form", {"m.safetensors": half(WEIGHTS)})
    files, lines, _ = look(root, base / "model.safetensors" if single else base)
    assert files["m.safetensors"]["conversion"] == "cast:BF16"
    assert files["m.safetensors"]["from"] == "baseModel://model.safetensors"
    assert list(files) == ["m.safetensors"]
    assert {line["file"] for line in lines} == {"m.safetensors"}


def test_no_file_of_the_model_passes_for_one_of_the_base_model(tmp_path: Path) -> None:
    base = write_files(tmp_path / "base", {"model.safetensors": simple({"w": WEIGHTS["norm"]})})
    posing = {"baseModel:/model.safetensors": simple(WEIGHTS), "m.safetensors": half(WEIGHTS)}
    files, lines, _ = look(write_files(tmp_path / "form", posing), base)
    assert files["m.safetensors"]["from"] == "baseModel:/model.safetensors"
    assert forms(lines, "baseModel:/model.safetensors").keys() == WEIGHTS.keys()
    with pytest.raises(MalformedError):
        check_name(f"{tensors.BASE}model.safetensors")


def test_what_a_fine_tuning_did_not_change(tmp_path: Path) -> None:
    base = write_files(tmp_path / "base", {"model.safetensors": simple(WEIGHTS)})
    tuned = dict(WEIGHTS) | {"norm": WEIGHTS["norm"] * 2}
    root = write_files(
        tmp_path / "out", {"model.safetensors": simple(tuned), "h.safetensors": half(tuned)}
    )
    files, _, _ = look(root, base)
    said = files["model.safetensors"]
    assert (said["from"], said["same"], said["other"]) == ("baseModel://model.safetensors", 3, 1)
    assert files["h.safetensors"]["from"] == "model.safetensors"
    assert files["h.safetensors"]["conversion"] == "cast:BF16"


def test_a_base_model_of_other_shapes_is_not_read(tmp_path: Path) -> None:
    base = write_files(tmp_path / "base", {"model.safetensors": simple(WEIGHTS)})
    root = write_files(
        tmp_path / "lora", {"a.safetensors": simple({"lora": np.ones((2, 9), "<f4")})}
    )
    files, _, recording = look(root, base)
    assert "from" not in files["a.safetensors"]
    assert weights_texts(recording.statement) == ["a.safetensors: F32=1"]


def test_a_base_model_that_changed_or_is_gone_is_said(tmp_path: Path) -> None:
    base = write_files(tmp_path / "base", {"model.safetensors": simple(WEIGHTS)})
    root = write_files(tmp_path / "form", {"m.safetensors": half(WEIGHTS)})
    found = hash_folder(base)
    described, kept = describe_bytes("manifest/baseModel", describe_input("", found)[1], "")
    before = Recording(TRAINING.with_run(byproducts=(described,)), kept)
    for change in (lambda it: it.write_bytes(simple(WEIGHTS)[:-1] + b"\7"), os.unlink):
        change(base / "model.safetensors")
        after = tensors.with_tensors(before, Made(root, hash_folder(root)), base)
        files = after.statement.run.byproducts[-1].annotations["files"]
        assert [it["file"] for it in files] == ["baseModel://model.safetensors", "m.safetensors"]
        assert files[0]["problem"]
        assert "from" not in files[1]


# What a model's folder may hold.


def test_a_file_that_changed_since_it_was_hashed_is_not_listed(tmp_path: Path) -> None:
    data = {"m.safetensors": simple(WEIGHTS), "n.safetensors": simple({"w": WEIGHTS["norm"]})}
    manifest = hash_folder(write_files(tmp_path, data))
    write_files(tmp_path, {"m.safetensors": simple(WEIGHTS)[:-1] + b"\7"})
    files, lines, _ = look(tmp_path, manifest=manifest)
    assert files["m.safetensors"] == {
        "file": "m.safetensors", "problem": "is no longer the file that was hashed"
    }  # fmt: skip
    assert {line["file"] for line in lines} == {"n.safetensors"}


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    write_files(tmp_path, {"m.safetensors": simple(WEIGHTS)})

    def meanwhile(_: int) -> None:
        with (tmp_path / "m.safetensors").open("ab") as file:
            file.write(b"\0")

    files, lines, _ = look(tmp_path, progress=meanwhile)
    assert files["m.safetensors"]["problem"] == "changed while it was read"
    assert not lines


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("twice.safetensors", safetensors(
            b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\1")),
        ("twice.gguf", File((), [filled("w", "F32", [4]), filled("w", "F32", [4])]).written()),
        ("holes.safetensors", safetensors({"w": entry("U8", [2**43], 0, 2**43)}, b"\1")),
        ("none.safetensors", b""),
        ("weights.pkl", b"\x80\x04."),
        ("pickle.pt", b"\x80\x04]q\0."),
        ("npz.safetensors", archive({"w.npy": npy(WEIGHTS["norm"])})),
        ("index.safetensors.index.json", b'{"weight_map":{"w":"../w.safetensors"}}'),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)  # fmt: skip
def test_what_cannot_be_read_is_said_and_costs_nothing(
    tmp_path: Path, name: str, data: bytes
) -> None:
    write_files(tmp_path, {name: data, "m.safetensors": simple(WEIGHTS)})
    files, lines, recording = look(tmp_path)
    problem = next(it for key, it in files.items() if key != "m.safetensors")["problem"]
    assert problem
    assert "a defect" not in problem
    assert str(tmp_path) not in problem
    assert len(lines) == len(WEIGHTS)
    assert any(problem in text for text in weights_texts(recording.statement))


def shared_storage() -> bytes:
    stored = torch_writing.storage("0", 2**10)
    many = {f"w{number}": torch_writing.tensor(stored, [2**10]) for number in range(2000)}
    return torch_writing.checkpoint(torch_writing.ordered(many), {"0": bytes(2**12)})


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.pt", shared_storage()),
        ("m.npz", archive({"w.npy": npy(np.zeros(2**21, "u1"))}, zipfile.ZIP_DEFLATED)),
    ],
    ids=["by shared storage", "by compression"],
)
def test_kilobytes_that_stand_for_petabytes_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes
) -> None:
    write_files(tmp_path, {name: data})
    assert "problem" not in look(tmp_path)[0][name]
    monkeypatch.setattr(tensors, "ROOM", 2**20)
    problem = look(tmp_path)[0][name]["problem"]
    assert problem == "left out: its tensors are far larger than its files"


def test_a_defect_of_a_reader_costs_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("/home/alice")

    monkeypatch.setattr(tensors, "_digest", fail)
    write_files(tmp_path, {"m.safetensors": simple(WEIGHTS)})
    assert look(tmp_path)[0]["m.safetensors"]["problem"] == "a defect: ZeroDivisionError"


def test_without_an_extra_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx.onnx_ml_pb2", None)
    write_files(tmp_path, {"m.onnx": b"\x08\x07", "m.safetensors": simple(WEIGHTS)})
    assert look(tmp_path)[0] == {"*": {"file": "*", "problem": "reading ONNX needs onnx"}}


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("b/a.safetensors", "c.safetensors", "d.safetensors")
    write_files(tmp_path, dict.fromkeys(names, simple(WEIGHTS)))
    monkeypatch.setattr(tensors, "MAX_FILES", 2)
    files, _, _ = look(tmp_path)
    assert files["b/a.safetensors"]["problem"] == "left out, the first of 1: too many files"
    assert {each["count"] for each in files.values() if "count" in each} == {len(WEIGHTS)}
    monkeypatch.setattr(tensors, "MAX_TENSORS", len(WEIGHTS))
    assert "too many tensors" in look(tmp_path)[0]["d.safetensors"]["problem"]
    monkeypatch.undo()
    monkeypatch.setattr(tensors, "MAX_LIST", 1000)
    files, lines, _ = look(tmp_path)
    assert sum("problem" in each for each in files.values()) == 2
    assert len(lines) == len(WEIGHTS)


def test_states_of_a_training_and_other_files_are_not_listed(tmp_path: Path) -> None:
    write_files(tmp_path, {"optimizer.pt": b"x", "config.json": b"{}"})
    before = Recording(TRAINING, {})
    assert tensors.with_tensors(before, Made(tmp_path, hash_folder(tmp_path)), None) is before


@pytest.mark.parametrize(
    "said", ["x", [1], [{}], [{"file": 1, "types": [], "from": {}, "same": "\x1b[2J"}]]
)
def test_what_others_claim_is_shown_as_it_is(said: Any) -> None:  # noqa: ANN401 - JSON
    described, _ = describe_bytes("tensors", b"", "", {"files": said})
    texts = weights_texts(TRAINING.with_run(byproducts=(described,)))
    assert len(texts) == (len(said) if isinstance(said, list) else 0)
