"""Weights that loaders may not find as they are read: they are shown, and never judged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save

from provenance.equality.declaration import builtin
from provenance.weights.model import model_of_folder
from provenance.weights.torch.pickle_program import Made
from tests.judge.models import compare_models
from tests.weights.torch_writing import checkpoint, named, storage, tensor
from tests.world import Shell, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.measure.findings import Outcome

    Files = dict[str, bytes]

W = np.arange(6, dtype="<f4").reshape(2, 3)
RIGHT = save({"w": W})
WRONG = checkpoint({"w": tensor(storage("0", 6), (2, 3))}, {"0": W.tobytes()})
"""The same as a torch archive."""


def outcome(tmp_path: Path, left: Files, right: Files, equality: str = "tensors") -> Outcome:
    one, other = (
        model_of_folder(write_files(tmp_path / side, files))
        for side, files in (("a", left), ("b", right))
    )
    return compare_models(one, other, builtin(equality))


@pytest.mark.parametrize("right", [RIGHT, save({"w": W + 1})], ids=["equal", "another"])
def test_a_wrong_container_is_never_a_match(tmp_path: Path, right: bytes) -> None:
    name = "model.safetensors"
    found = outcome(tmp_path, {name: WRONG}, {name: right})
    assert found.conclusion == "inconclusive"
    assert "is a torch archive by its content" in found.missing[0]
    assert found.same_weights is None


def test_so_it_is_on_both_sides_and_under_two_names(tmp_path: Path) -> None:
    other = WRONG.replace(b"archive/", b"another/")
    found = outcome(tmp_path, {"model.safetensors": WRONG}, {"model.safetensors": other})
    assert (found.conclusion, len(found.missing)) == ("inconclusive", 2)
    found = outcome(tmp_path / "two", {"model.safetensors": WRONG}, {"pytorch_model.bin": WRONG})
    assert (found.conclusion, len(found.missing)) == ("inconclusive", 1)
    found = outcome(tmp_path / "right", {"model.safetensors": RIGHT}, {"pytorch_model.bin": WRONG})
    assert found.conclusion == "match"


def test_a_wrong_container_of_the_same_bytes_is_equal(tmp_path: Path) -> None:
    files = {"model.safetensors": WRONG}
    assert outcome(tmp_path, files, files).strongest == "bytes"


def test_what_it_holds_is_shown(tmp_path: Path, provenance: Shell) -> None:
    left = write_files(tmp_path / "a", {"m.safetensors": WRONG})
    right = write_files(tmp_path / "b", {"m.safetensors": save({"w": W + 1})})
    ran = provenance("compare", left, right)
    assert ran.status == 1
    assert "not judged: m.safetensors (left): is a torch archive by its content" in ran.out
    assert "6 of 6" in ran.out
    (file,) = provenance("compare", left, right, "--json").document["files"]
    assert len(file["doubts"]) == 1
    assert file["tensors"][0]["state"] == "changed"
    same = write_files(tmp_path / "c", {"m.safetensors": RIGHT})
    ran = provenance("compare", left, same)
    assert ran.status == 1
    assert "same tensors" not in ran.out


@pytest.mark.parametrize("name", ["m.onnx", "m.safetensors.index.json"])
def test_a_file_that_names_no_others_is_compared_alone(
    tmp_path: Path, provenance: Shell, name: str
) -> None:
    write_files(tmp_path, {f"a/{name}": RIGHT, f"b/{name}": save({"w": W + 1})})
    ran = provenance("compare", tmp_path / "a" / name, tmp_path / "b" / name)
    assert ran.status == 1
    assert "is a safetensors file by its content" in ran.out
    assert "6 of 6" in ran.out


SHARDS = {
    "model-00001-of-00002.safetensors": {"a": W},
    "model-00002-of-00002.safetensors": {"b": W + 1},
}
INDEX = "model.safetensors.index.json"


def sharded(weight_map: dict[str, str] | None = None, add: float = 0, **metadata: int) -> Files:
    placed = {name: shard for shard, held in SHARDS.items() for name in held}
    index = {"metadata": metadata, "weight_map": placed if weight_map is None else weight_map}
    shards = {
        shard: save({name: array + np.float32(add) for name, array in held.items()})
        for shard, held in SHARDS.items()
    }
    return {INDEX: json.dumps(index).encode(), **shards}


FIRST, SECOND = SHARDS
STALE: dict[str, dict[str, str]] = {
    "of another model": {"t": "model-00005-of-00005.safetensors"},
    "a missing shard": {"a": FIRST, "b": SECOND, "c": "model-00003-of-00003.safetensors"},
    "a tensor in another shard": {"a": SECOND, "b": FIRST},
    "a shard that is not listed": {"a": FIRST},
    "a path": {"a": FIRST, "b": SECOND, "c": f"../other/{FIRST}"},
    "the whole": {"a": FIRST, "b": SECOND, "c": "model.safetensors"},
}


@pytest.mark.parametrize("weight_map", STALE.values(), ids=STALE)
@pytest.mark.parametrize("add", [0, 1e-5])
def test_weights_behind_an_index_that_does_not_fit_are_not_judged(
    tmp_path: Path, weight_map: dict[str, str], add: float, provenance: Shell
) -> None:
    left, right = sharded(weight_map, size=1), sharded(weight_map, add, size=2)
    found = outcome(tmp_path, left, right, "close-float32")
    assert found.conclusion == "inconclusive"
    assert "the index does not fit" in found.missing[0]
    found = outcome(tmp_path / "fitting", sharded(), right, "close-float32")
    assert found.conclusion == "inconclusive"
    shown = provenance("compare", tmp_path / "a", tmp_path / "b").out
    assert shown.count("not judged: model.safetensors") == 2
    assert "the index does not fit" in shown
    assert f"{0 if add else 2} of 2 tensors equal" in shown


def test_a_size_that_is_not_that_of_the_tensors_is_a_finding(tmp_path: Path) -> None:
    found = outcome(tmp_path, sharded(total_size=999), sharded(total_size=48))
    assert found.conclusion == "mismatch"
    (finding,) = found.alternatives[0].findings
    assert (finding.measure, finding.left, finding.right) == (
        "metadata: index.total_size",
        "999",
        None,
    )
    same = outcome(tmp_path / "same", sharded(total_size=999), sharded(total_size=999))
    assert same.conclusion == "match"


@pytest.mark.parametrize("name", ["model.safetensors", "unknown.safetensors"])
def test_an_index_that_no_loader_consults_is_judged_by_what_is_there(
    tmp_path: Path, name: str
) -> None:
    """Loaders take the whole before they look for an index."""
    stale = STALE["of another model"]
    whole = {name: save({"w": W})}
    found = outcome(tmp_path, {**sharded(stale), **whole}, {**sharded(stale, 1.0), **whole})
    assert found.conclusion == ("mismatch" if name == "model.safetensors" else "inconclusive")


# --- Tied weights ---------------------------------------------------------------------------------

EMBEDDING = np.arange(12, dtype="<f4").reshape(4, 3)
HEAD = "lm_head.weight"


def tied(head: Any = None, *, tie: object = True, **changed: Any) -> Files:  # noqa: ANN401 - arrays
    arrays = {"model.embed_tokens.weight": EMBEDDING, "model.norm.weight": W, **changed}
    config = {"model_type": "llama", "tie_word_embeddings": tie}
    config = config if tie is not None else {"model_type": "llama"}
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": save(arrays if head is None else {**arrays, HEAD: head}),
    }


def test_an_output_layer_that_is_left_out_counts_as_tied(tmp_path: Path, provenance: Shell) -> None:
    for number, sides in enumerate([(tied(EMBEDDING), tied()), (tied(), tied(EMBEDDING))]):
        found = outcome(tmp_path / str(number), *sides)
        assert found.conclusion == "match"
        assert "tied-weights" in {each.name for each in found.normalisers}
    shown = provenance("compare", tmp_path / "0/a", tmp_path / "0/b").out
    assert "same tensors, another file" in shown
    far = outcome(tmp_path / "far", tied(EMBEDDING), tied(**{"model.norm.weight": W + 1}))
    assert far.conclusion == "mismatch"


UNTIED: dict[str, tuple[Files, Files]] = {
    "of other bits": (tied(EMBEDDING + 1), tied()),
    "of another type": (tied(EMBEDDING.astype("<f2")), tied()),
    "of another shape": (tied(EMBEDDING[:2]), tied()),
    "by no configuration": (tied(EMBEDDING, tie=None), tied(tie=None)),
    "by the left alone": (tied(EMBEDDING), tied(tie=None)),
    "by the right alone": (tied(EMBEDDING, tie=False), tied()),
    "by a text": (tied(EMBEDDING, tie="true"), tied(tie="true")),
    "by a number": (tied(EMBEDDING, tie=1), tied(tie=1)),
    "with another embedding": (
        tied(EMBEDDING), tied(**{"model.embed_tokens.weight": EMBEDDING + 1}),
    ),
    "with another embedding of its name": (
        tied(EMBEDDING, **{"wte.weight": EMBEDDING}), tied(**{"wte.weight": EMBEDDING}),
    ),
    "with another tensor": (tied(W), tied()),
    "another tensor": (tied(**{"head.weight": EMBEDDING}), tied()),
}  # fmt: skip


@pytest.mark.parametrize(("left", "right"), UNTIED.values(), ids=UNTIED)
def test_any_other_tensor_that_is_left_out_is_missing(
    tmp_path: Path, left: Files, right: Files
) -> None:
    for number, sides in enumerate([(left, right), (right, left)]):
        found = outcome(tmp_path / str(number), *sides)
        assert found.conclusion == "mismatch"
        assert any(finding.measure == "presence" for finding in found.alternatives[0].findings)


@pytest.mark.parametrize(
    "config",
    [
        b'{"tie_word_embeddings": true, "text_config": {"tie_word_embeddings": false}}',
        b'{"tie_word_embeddings": true, "text_config": {"tie\\u005fword_embeddings": null}}',
        b'{"text_config": {"tie_word_embeddings": true}}',
        b'{"tie_word_embeddings": true, "tie_word_embeddings": true}',
        b'["tie_word_embeddings"]',
        b"{",
        b"",
    ],
)
def test_a_configuration_that_does_not_tie_for_certain(tmp_path: Path, config: bytes) -> None:
    left, right = ({**files, "config.json": config} for files in (tied(EMBEDDING), tied()))
    assert outcome(tmp_path, left, right).conclusion == "mismatch"


def test_of_the_state_of_a_training_the_values_are_shown(tmp_path: Path, provenance: Shell) -> None:
    for side, folder in (("a", "out"), ("b", "rebuilt")):
        value = Made(named("transformers.training_args TrainingArguments"), (), {}, [{"o": folder}])
        write_files(tmp_path / side, {"training_args.bin": checkpoint(value, {})})
    shown = provenance("compare", tmp_path / "a", tmp_path / "b").out
    assert '≠ metadata o: "out" ≠ "rebuilt"' in shown
    assert "not read" not in shown
    (tmp_path / "b/training_args.bin").write_bytes(b"other")
    assert "not read" in provenance("compare", tmp_path / "a", tmp_path / "b").out
