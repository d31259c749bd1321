"""Attacks through names: the same tensors, laid out so that a loader takes others.

Both models may be the attacker's. Each shows the unchanged pair, which is accepted.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save

from provenance.api import checking
from provenance.equality.declaration import builtin, parse
from provenance.equality.lattice import AGREES
from provenance.errors import ContentError, UnreadableError
from provenance.report.comparison import comparison_lines
from tests.judge.models import both_ways, write
from tests.weights import gguf_writing as gguf
from tests.weights.torch_writing import saved as torch
from tests.weights.writing import npy, simple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from provenance.equality.declaration import Declaration
    from tests.judge.models import Content

    Arrays = Mapping[str, np.ndarray[Any, Any]]
    Files = Mapping[str, Content]

GOOD = {"w": np.linspace(-1, 1, 8, dtype="<f4")}
EVIL = {"w": -GOOD["w"]}
HEAD = "format = 1\nversion = 1\nname = 'x'\n[[any]]\n[[any.all]]\n"
ROUNDED = HEAD + "equality = 'rounded'\nto = 'BF16'\nreason = 'a test'\n"
BEHAVIOUR = (
    HEAD + "equality = 'behaviour'\nkind = 'logits'\nmax_difference = 0.1\nreason = 'a test'\n"
    "outputs = ['logits.npy']\nfiles = ['**']\n"
)
LOGITS = npy(np.linspace(0, 1, 9, dtype="<f4").reshape(3, 3))


def sharded(arrays: Arrays, name: str = "model.safetensors") -> Files:
    stem, _, suffix = name.partition(".")
    shard = f"{stem}-00001-of-00001.{suffix}"
    total = sum(array.nbytes for array in arrays.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict.fromkeys(arrays, shard)}
    whole = simple(arrays) if suffix == "safetensors" else torch(arrays)
    return {f"{name}.index.json": json.dumps(index).encode(), shard: whole}


SAFE, BIN = "model.safetensors", "pytorch_model.bin"
DIFFUSERS = "diffusion_pytorch_model"
ATTACKS: dict[str, tuple[Files, Files]] = {
    **{
        f"renamed to {name}": ({SAFE: GOOD, BIN: torch(EVIL)}, {name: GOOD, BIN: torch(EVIL)})
        for name in (
            "tf_model.safetensors",
            "adapter_model.safetensors",
            "model.fp16.safetensors",
            "flax_model.safetensors",
            "Model.safetensors",
            "MODEL.SAFETENSORS",
            "diffusion_pytorch_model.safetensors",
            "pytorch_model.safetensors",
            "model-00001-of-00001.safetensors",
        )
    },
    "below an index": (
        {**sharded(GOOD), BIN: torch(EVIL)},
        {**sharded(GOOD, "tf_model.safetensors"), BIN: torch(EVIL)},
    ),
    "another part hides the model": (
        {f"unet/{DIFFUSERS}.safetensors": GOOD, f"{DIFFUSERS}.safetensors": EVIL},
        {
            **{
                f"unet/{name}": data
                for name, data in sharded(GOOD, f"{DIFFUSERS}.safetensors").items()
            },
            f"{DIFFUSERS}.safetensors": EVIL,
        },
    ),
    "an index hides a whole file": (
        {f"{DIFFUSERS}.safetensors": GOOD},
        {f"{DIFFUSERS}.safetensors": GOOD, **sharded(EVIL, f"{DIFFUSERS}.safetensors")},
    ),
    "a whole file hides an index": (sharded(GOOD), {**sharded(GOOD), SAFE: EVIL}),
    "preferred by accelerate": ({SAFE: GOOD}, {SAFE: GOOD, BIN: torch(EVIL)}),
    "preferred by timm where there are shards": (
        {SAFE: GOOD, BIN: torch(EVIL)},
        {**sharded(GOOD), BIN: torch(EVIL)},
    ),
    "one of several that LoRA would take": (
        {"pytorch_lora_weights.safetensors": GOOD, "x.safetensors": EVIL},
        {"pytorch_lora_weights.bin": torch(GOOD), "x.safetensors": EVIL},
    ),
    "one of several that timm would take": (
        {f"{DIFFUSERS}.safetensors": GOOD, "x.safetensors": EVIL},
        {f"{DIFFUSERS}.bin": torch(GOOD), "x.safetensors": EVIL},
    ),
    "an adapter below another": (
        {"adapter_model.safetensors": GOOD, "adapter_model.bin": torch(EVIL)},
        {SAFE: GOOD, "adapter_model.bin": torch(EVIL)},
    ),
    "found where capitals are not told apart": (
        {"Model.safetensors": EVIL, BIN: torch(GOOD)},
        {"Model.safetensors": EVIL, SAFE: GOOD},
    ),
    "on one side only": ({SAFE: GOOD, "x.bin": b""}, {"tf_model.h5": simple(GOOD), "x.bin": b""}),
    "in a folder of a part": (
        {"unet/model.safetensors": GOOD, f"unet/{BIN}": torch(EVIL)},
        {"unet/tf_model.safetensors": GOOD, f"unet/{BIN}": torch(EVIL)},
    ),
    "moved to another folder": ({SAFE: GOOD}, {"sub/model.safetensors": GOOD}),
    "read by TensorFlow's classes of transformers": (
        {SAFE: GOOD, BIN: torch(GOOD), "tf_model.h5": b"evil"},
        {BIN: torch(GOOD), "tf_model.h5": b"evil"},
    ),
    **{
        f"a state of a training is the first *.pth beside {stem}": (
            {f"{stem}.safetensors": GOOD, "rng_state.pth": torch(EVIL)},
            {f"{stem}.bin": torch(GOOD), "rng_state.pth": torch(EVIL)},
        )
        for stem in ("adapter_model", DIFFUSERS)
    },
    **{
        f"found as {twin!a} is": (
            {twin: EVIL, f"{folder}{BIN}": torch(GOOD)},
            {twin: EVIL, f"{folder}{SAFE}": GOOD},
        )
        for folder, twin in (
            ("unet/", "Unet/model.safetensors"),
            ("a/b/", "A/b/Model.safetensors"),
            ("", "model\u200d.safetensors"),
            ("", "m\u00adodel.safetensors"),
            ("", "mo\u034fdel.safetensors"),
            ("", "model\u3164.safetensors"),
        )
    },
    "Keras": (
        {"model.weights.h5": simple(GOOD), "model.weights.npz": simple(EVIL)},
        {"weights.h5": simple(GOOD), "model.weights.npz": simple(EVIL)},
    ),
}
UNREAD: dict[str, Files] = {
    "model.safe\u200dtensors": {},
    "model.\u017fafetensor\u017f": {},
    "model.safetensors\u2060": {},
    "model.safetensors.INDEX.json": {"x.safetensors": EVIL},
    "model.safetensors.index.j\u017fon": {"x.safetensors": EVIL},
}
"""What other file systems find as weights, and nothing here reads, and what is beside it."""
DECLARED: dict[str, Declaration] = {
    "tensors": builtin("tensors"),
    "close-float32": builtin("close-float32"),
    "rounded": parse(ROUNDED.encode()),
}


def _padded(files: Files) -> Files:
    """Return *files* with other bytes and the same tensors."""
    return {
        name: data if isinstance(data, bytes) else _pad(simple(data))
        for name, data in files.items()
    }


def _pad(content: bytes) -> bytes:
    end = 8 + int.from_bytes(content[:8], "little")
    return end.to_bytes(8, "little") + content[8:end] + b" " * 8 + content[end:]


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_match_means_that_loaders_take_the_same(attack: str, name: str, tmp_path: Path) -> None:
    left, right = ATTACKS[attack]
    for number, files in enumerate((left, right)):
        sound = both_ways(tmp_path / f"sound-{number}", DECLARED[name], files, _padded(files))
        assert sound.conclusion in ("match", "consistent")
    forged = both_ways(tmp_path / "forged", DECLARED[name], left, right)
    assert forged.conclusion == "mismatch"
    loaded = [it for it in forged.alternatives[0].findings if it.measure.startswith("loaded by ")]
    assert all(it.left or it.right for it in loaded)


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("twin", UNREAD)
def test_nor_is_it_one_where_names_are_found_otherwise(
    twin: str, name: str, tmp_path: Path
) -> None:
    index = json.dumps({"metadata": {}, "weight_map": {"w": "x.safetensors"}}).encode()
    shared: Files = {twin: index if UNREAD[twin] else simple(EVIL), **UNREAD[twin]}
    left, right = {**shared, SAFE: GOOD}, {**shared, BIN: torch(GOOD)}
    for number, files in enumerate((left, right)):
        sound = both_ways(tmp_path / f"sound-{number}", DECLARED[name], files, _padded(files))
        assert sound.conclusion in AGREES
    assert both_ways(tmp_path / "forged", DECLARED[name], left, right).conclusion not in AGREES
    assert not checking.compare(tmp_path / "forged" / "left", tmp_path / "forged" / "right").same


@pytest.mark.parametrize("attack", sorted(ATTACKS.keys() - {"a whole file hides an index"}))
def test_outputs_do_not_speak_for_weights_under_another_name(attack: str, tmp_path: Path) -> None:
    left, right = ({**files, "logits.npy": LOGITS} for files in ATTACKS[attack])
    declared = parse(BEHAVIOUR.encode())
    other = {name: data if isinstance(data, bytes) else EVIL for name, data in left.items()}
    assert both_ways(tmp_path / "sound", declared, left, other).conclusion != "mismatch"
    assert both_ways(tmp_path / "forged", declared, left, right).conclusion == "mismatch"


@pytest.mark.parametrize("attack", ATTACKS)
def test_people_are_shown_what_loaders_take(attack: str, tmp_path: Path) -> None:
    left, right = ATTACKS[attack]
    for name, files in {"left": left, "right": right, "sound": _padded(left)}.items():
        write(tmp_path / name, files)
    assert checking.compare(tmp_path / "left", tmp_path / "sound").same
    shown = checking.compare(tmp_path / "left", tmp_path / "right")
    assert not shown.same
    text = "\n".join(comparison_lines(shown.files, shown.not_compared, shown.apart))
    assert "≠" in text
    for each in shown.apart:
        assert "" not in (each.left, each.right)
        taken = f"{each.left or 'nothing'} from A, {each.right or 'nothing'} from B"
        assert f"{taken}: {', '.join(each.loaders)}\n" in text


CROSSING: dict[str, tuple[Files, Files]] = {
    "transformers and timm": ({SAFE: GOOD}, {BIN: torch(GOOD)}),
    "shards": (sharded(GOOD), {SAFE: GOOD}),
    "shards of torch": (sharded(GOOD, BIN), {SAFE: GOOD}),
    "shards of both": (sharded(GOOD, BIN), sharded(GOOD)),
    "PEFT": ({"adapter_model.safetensors": GOOD}, {"adapter_model.bin": torch(GOOD)}),
    "diffusers": (
        {f"unet/{DIFFUSERS}.safetensors": GOOD, f"vae/{DIFFUSERS}.safetensors": EVIL},
        {f"unet/{DIFFUSERS}.bin": torch(GOOD), **{
            f"vae/{name}": data for name, data in sharded(EVIL, f"{DIFFUSERS}.safetensors").items()
        }},
    ),
    "LoRA": ({"pytorch_lora_weights.safetensors": GOOD}, {"pytorch_lora_weights.bin": torch(GOOD)}),
    "a file for one loader, and one for another": (
        {SAFE: GOOD, BIN: torch(GOOD)}, {BIN: torch(GOOD)}
    ),
    "another beside them": (
        {SAFE: GOOD, "x.ckpt": torch(EVIL)}, {BIN: torch(GOOD), "x.ckpt": torch(EVIL)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CROSSING)
def test_formats_are_compared_where_loaders_take_one_for_the_other(
    case: str, tmp_path: Path
) -> None:
    left, right = CROSSING[case]
    outcome = both_ways(tmp_path, builtin("tensors"), left, right)
    assert (outcome.conclusion, outcome.strongest) == ("match", "tensors")
    changed: Files = {name: EVIL if data is GOOD else data for name, data in left.items()}
    if any(data is GOOD for data in left.values()):
        forged = both_ways(tmp_path / "forged", builtin("tensors"), changed, right)
        assert forged.conclusion == "mismatch"


def test_a_finding_names_loaders_and_files(tmp_path: Path) -> None:
    outcome = both_ways(
        tmp_path, builtin("tensors"), *ATTACKS["one of several that LoRA would take"]
    )
    findings = outcome.alternatives[0].findings
    (finding,) = (it for it in findings if "diffusers" in it.measure)
    assert (finding.left, finding.right) == (
        "pytorch_lora_weights.safetensors",
        "x.safetensors",
    )


FORMATS = ("tf", "flax", "np", "mlx", "jax", "obey")


def said(metadata: dict[str, str] | None) -> bytes:
    return save(dict(GOOD), metadata=metadata)


@pytest.mark.parametrize("value", FORMATS)
@pytest.mark.parametrize("name", DECLARED)
def test_a_key_does_not_choose_another_loader(name: str, value: str, tmp_path: Path) -> None:
    declared, pt = DECLARED[name], {SAFE: said({"format": "pt"})}
    for number, sound in enumerate(({SAFE: said(None)}, {BIN: torch(GOOD)})):
        assert both_ways(tmp_path / f"sound-{number}", declared, pt, sound).conclusion in AGREES
    for number, other in enumerate(({"format": value}, {})):
        forged = {SAFE: said(other)}
        for number_2, published in enumerate((pt, {SAFE: said(None)}, {BIN: torch(GOOD)})):
            root = tmp_path / f"forged-{number}-{number_2}"
            outcome = both_ways(root, declared, published, forged)
            assert outcome.conclusion == "mismatch"
            findings = outcome.alternatives[0].findings
            assert {it.measure for it in findings if not it.held} == {"metadata: format"}
            assert not checking.compare(root / "left", root / "right").same


def test_an_index_that_is_passed_over_may_be_named(tmp_path: Path) -> None:
    """An index beside the whole file is asked where settings or callers name it."""
    shard, other = "model-00001-of-00001.safetensors", "model-000001-of-000001.safetensors"
    named = json.dumps({"transformers_weights": f"{SAFE}.index.json"}).encode()
    shared: Files = {"config.json": named, SAFE: GOOD, shard: simple(GOOD), other: simple(EVIL)}

    def model(shown: str, **weights: str) -> Files:
        return {
            **shared,
            f"{SAFE}.index.json": json.dumps(
                {"metadata": {"x": shown}, "weight_map": weights}
            ).encode(),
        }

    stale = model("1", v=shard)  # of another model, and the same on both sides
    for number, (name, declared) in enumerate(DECLARED.items()):
        for sound in (model("1", w=shard), stale):
            root = tmp_path / f"{name}-{number}-{len(sound)}"
            repadded = {**sound, shard: _pad(simple(GOOD))}
            assert both_ways(root / "sound", declared, sound, repadded).conclusion == "match"
            for forged in (model("1", w=other), model("1", v=other)):
                assert both_ways(root / "forged", declared, sound, forged).conclusion == "mismatch"


@pytest.mark.parametrize("inside", ["x.safetensors", "config.json", "a/pytorch_model.bin", "x.py"])
def test_what_is_no_part_of_the_model_is_not_loaded(inside: str, tmp_path: Path) -> None:
    """An index, modules.json or auto_map can name any file, that of the byproducts' folder too."""
    index = {"metadata": {}, "weight_map": {"w": f"provenance/{inside}"}}
    modules = [{"path": "provenance", "type": "sentence_transformers.models.Transformer"}]
    named: Files = {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "modules.json": json.dumps(modules).encode(),
    }
    byproduct = {f"provenance/{hashlib.sha256(b'log').hexdigest()}": b"log"}
    for side, content in (("left", b"good"), ("right", b"evil")):
        write(tmp_path / side, {**named, **byproduct})
        write(tmp_path / "forged" / side, {**named, f"provenance/{inside}": content})
    assert checking.compare(tmp_path / "left", tmp_path / "right").same
    with pytest.raises(ContentError, match=r"no claim covers provenance/"):
        checking.compare(tmp_path / "forged" / "left", tmp_path / "forged" / "right")


def test_nor_is_what_a_link_among_the_books_of_git_leads_to(tmp_path: Path) -> None:
    modules = [{"path": ".git/x", "type": "sentence_transformers.models.Transformer"}]
    named: Files = {"modules.json": json.dumps(modules).encode(), ".git/HEAD": b"ref"}
    for side in ("left", "right"):
        write(tmp_path / side, named)
        write(tmp_path / f"{side}-weights", {"hook": b"#!/bin/sh"})
        (tmp_path / side / ".git" / "x").symlink_to(tmp_path / f"{side}-weights")
    assert checking.compare(tmp_path / "left", tmp_path / "right").same
    write(tmp_path / "right-weights", {SAFE: EVIL})
    with pytest.raises(ContentError, match=r"no claim covers \.git/"):
        checking.compare(tmp_path / "left", tmp_path / "right")


@pytest.mark.parametrize(
    "name", ["m-00001-of-00002.gguf", "M-00001-of-00002.GGUF", "model.weights.json", ".metadata"]
)
def test_a_file_is_not_compared_without_those_that_it_brings(name: str, tmp_path: Path) -> None:
    beside = {
        "m-00002-of-00002.gguf",
        "M-00002-of-00002.GGUF",
        "model_00000.weights.h5",
        "_.distcp",
    }
    content = gguf.File(gguf.KEYS, gguf.TENSORS).written()
    for side in ("left", "right"):
        others = dict.fromkeys(beside, side.encode())
        write(tmp_path / side, {name: content, "m-00001-of-00001.gguf": content, **others})
    left, right = tmp_path / "left", tmp_path / "right"
    assert not checking.compare(left, right).same
    assert checking.compare(left / "m-00001-of-00001.gguf", right / "m-00001-of-00001.gguf").same
    with pytest.raises(UnreadableError, match="loaded together"):
        checking.compare(left / name, right / name)
