"""Attacks on the judgement: a model that differs where it matters, and each time the answer.

Each shows the sound counterpart too, so that nothing is refused for another reason.
"""

from __future__ import annotations

import json
import mmap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.equality.declaration import builtin, parse
from provenance.measure.pieces import Digests
from tests.judge.models import compare_models, described, write
from tests.weights import gguf_writing as gguf
from tests.weights.gguf_writing import filled
from tests.weights.onnx_writing import model as onnx_model
from tests.weights.onnx_writing import tensor as onnx_tensor
from tests.weights.onnx_writing import written
from tests.weights.torch_writing import saved
from tests.weights.writing import archive, npy, simple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from provenance.equality.declaration import Declaration
    from provenance.weights.view import TensorFile
    from tests.judge.models import Content

    Files = dict[str, Content]

W = {"w": np.linspace(-1, 1, 64, dtype="<f4").reshape(8, 8)}
NEGATED = {"w": -W["w"]}
LOGITS = npy(np.linspace(0, 1, 900, dtype="<f4").reshape(300, 3))
CLOSE = (
    "equality = 'close'\nrelative_to = 'weights'\nrelative_l2 = 1e-6\nrelative_linf = 1e-6\n"
    "reason = 'a test'\n"
)
ANSWERS = (
    "equality = 'behaviour'\nkind = 'logits'\nmax_difference = 0.1\nreason = 'a test'\n"
    "outputs = ['logits.npy']\n"
)


def declare(*rules: str) -> Declaration:
    text = "format = 1\nversion = 1\nname = 'x'\n[[any]]\n"
    return parse((text + "".join(f"[[any.all]]\n{rule}\n" for rule in rules)).encode())


def test_evidence_does_not_switch_off_a_rule_for_the_weights(judge: Any) -> None:  # noqa: ANN401
    published: Files = {"m.safetensors": W, "logits.npy": LOGITS}
    replaced: Files = {"m.safetensors": NEGATED, "logits.npy": LOGITS}
    claimed = ANSWERS + "files = ['m.safetensors']\n"
    for strict in (CLOSE, "equality = 'tensors'\n"):
        rules = declare(strict + "files = ['m.safetensors']\n", claimed)
        assert judge(rules, published, published).conclusion == "match"
        assert judge(rules, published, replaced).conclusion == "mismatch"
        assert judge(declare(strict, claimed), published, replaced).conclusion == "mismatch"


def test_weights_that_are_renamed_to_evidence_do_not_escape(judge: Any) -> None:  # noqa: ANN401
    rules = declare(CLOSE, ANSWERS.replace("logits.npy", "logits.npz"))
    logits = archive({"logits.npy": LOGITS})
    published: Files = {"model.safetensors": W, "logits.npz": logits}
    hidden = archive({"w.npy": npy(NEGATED["w"])})
    rebuilt: Files = {"x/logits.npz": hidden, "logits.npz": logits}
    assert judge(rules, published, published).conclusion == "match"
    assert judge(rules, published, rebuilt).conclusion == "mismatch"


def test_evidence_rules_select_weights_and_nothing_else(judge: Any) -> None:  # noqa: ANN401
    rules = declare(ANSWERS + "files = ['**']\n")
    published: Files = {"m.safetensors": W, "logits.npy": LOGITS, "modeling.py": b"honest"}
    other: Files = {"m.safetensors": NEGATED, "logits.npy": LOGITS, "modeling.py": b"honest"}
    assert judge(rules, published, other).conclusion == "plausible"
    assert judge(rules, published, {**other, "modeling.py": b"evil"}).conclusion == "mismatch"
    assert judge(rules, published, {**other, "more.py": b"evil"}).conclusion == "mismatch"
    without = {name: data for name, data in other.items() if name != "m.safetensors"}
    assert judge(rules, published, without).conclusion == "mismatch"


def test_weights_judged_by_reported_numbers_alone_are_plausible_at_best(
    judge: Any,  # noqa: ANN401
) -> None:
    published: Files = {"m.safetensors": W, "logits.npy": LOGITS}
    replaced: Files = {"m.safetensors": {"other": np.ones(1, "<f8")}, "logits.npy": LOGITS}
    alone = declare(ANSWERS + "files = ['m.safetensors']\n")
    outcome = judge(alone, published, replaced)
    assert (outcome.conclusion, outcome.strongest) == ("plausible", "behaviour")
    near: Files = {"m.safetensors": {"w": W["w"] * np.float32(1 + 1e-7)}, "logits.npy": LOGITS}
    assert judge(declare(CLOSE, ANSWERS), published, near).conclusion == "consistent"


def test_a_file_called_as_a_pair_does_not_stand_in_for_it(judge: Any) -> None:  # noqa: ANN401
    posing = "model.safetensors | pytorch_model.bin"
    published: Files = {"model.safetensors": W, posing: W}
    rebuilt: Files = {
        "pytorch_model.bin": saved(NEGATED),
        posing: simple(W)[:8] + simple(W)[8:],
    }
    assert judge(builtin("tensors"), published, rebuilt).conclusion == "mismatch"
    honest: Files = {"pytorch_model.bin": saved(W), posing: W}
    outcome = judge(builtin("tensors"), published, honest)
    assert outcome.conclusion == "match"
    assert {n.name for n in outcome.normalisers} == {"weight-file-name", "container-format"}


def _padded(content: bytes) -> bytes:
    end = 8 + int.from_bytes(content[:8], "little")
    return (end).to_bytes(8, "little") + content[8:end] + b" " * 8 + content[end:]


def test_weights_may_not_move_to_another_folder_or_an_unusual_name(
    judge: Any,  # noqa: ANN401
) -> None:
    published: Files = {"model.safetensors": W, "checker/model.safetensors": NEGATED}
    moved = _padded(simple(NEGATED))
    for name in (
        "docs/unused.safetensors",
        "docs/model.safetensors",
        "checker/unused.safetensors",
        "checker/pytorch_model.safetensors",
    ):
        rebuilt: Files = {"model.safetensors": W, name: moved}
        assert judge(builtin("tensors"), published, rebuilt).conclusion == "mismatch", name
    usual: Files = {"model.safetensors": W, "checker/pytorch_model.bin": saved(NEGATED)}
    assert judge(builtin("tensors"), published, usual).conclusion == "match"


def test_an_index_does_not_hide_tensors_from_loaders_that_prefer_one_file(
    judge: Any,  # noqa: ANN401
) -> None:
    head = {"safety.head": np.ones(3, "<f4")}
    published: Files = {"model.safetensors": {**W, **head}}
    index = {
        "metadata": {},
        "weight_map": {"w": "model.safetensors", "safety.head": "rest.safetensors"},
    }
    rebuilt: Files = {
        "model.safetensors": W,
        "rest.safetensors": head,
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    assert judge(builtin("tensors"), published, rebuilt).conclusion in ("mismatch", "inconclusive")
    assert judge(builtin("close-float32"), published, rebuilt).conclusion != "consistent"


def test_onnx_does_not_take_weights_or_code_out_of_the_comparison(
    judge: Any,  # noqa: ANN401
) -> None:
    small = written(onnx_model([onnx_tensor("pad", np.ones(1, "<f4"))]))
    published: Files = {"decoy.onnx": small, "model.safetensors": W, "modeling.py": b"honest"}
    assert judge(builtin("tensors"), published, published).conclusion == "match"
    for name, data in (("model.safetensors", simple(NEGATED)), ("modeling.py", b"evil!!")):
        other: Files = {**published, name: data}
        assert judge(builtin("tensors"), published, other).conclusion == "mismatch", name
        assert judge(builtin("close-float32"), published, other).conclusion == "mismatch", name


def _spaced(content: bytes) -> bytes:
    """Return a safetensors file with other bytes in its header."""
    end = 8 + int.from_bytes(content[:8], "little")
    return end.to_bytes(8, "little") + content[8:end] + b" " * 8 + content[end:]


def _gguf(one: str, other: str, version: int = 2) -> bytes:
    tensors = (filled(one, "F32", [8], 1), filled(other, "F32", [8], 2))
    return gguf.File(tensors=tensors, version=version).written()


def _index(stated: str, shard: str = "model-00001-of-00001.safetensors") -> bytes:
    return json.dumps({"metadata": {"x": stated}, "weight_map": {"w": shard}}).encode()


NPY = npy(W["w"].reshape(-1))
HEADERS: dict[str, tuple[bytes, bytes, bytes]] = {
    "model.safetensors": (
        simple({"a": W["w"], "b": NEGATED["w"]}),
        _spaced(simple({"a": W["w"], "b": NEGATED["w"]})),
        _spaced(simple({"b": W["w"], "a": NEGATED["w"]})),
    ),
    "model.gguf": (_gguf("a", "b", 3), _gguf("a", "b"), _gguf("b", "a")),
    "model.npy": (
        NPY,
        NPY.replace(b"}  ", b" } "),
        NPY.replace(b"}  ", b" } ").replace(b"<f4", b"<i4"),
    ),
    "model.safetensors.index.json": (_index("1"), b" " + _index("1"), b" " + _index("2")),
}
"""A file, one that means the same, and one with the same bytes of tensors that does not."""


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_there_only_while_it_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write through a map to pages that are dirty moves no time: the digest must tell."""
    signed, shown, other = HEADERS[name]
    assert len({signed, shown, other}) == 3
    begin = Digests.begin
    for number, there in enumerate((shown, other)):
        models = []
        for side, content in (("left", signed), ("right", there)):
            files = {name: content}
            if "index" in name:
                files["model-00001-of-00001.safetensors"] = simple({"w": W["w"]})
            found = write(tmp_path / f"{side}-{number}", dict(files))
            models.append(described(found.root, files))
        with (models[1].root / name).open("r+b") as file:
            data = mmap.mmap(file.fileno(), 0)
        data[:] = there  # dirty before it is looked at
        data[:] = shown

        def restored(
            self: Digests,
            file: TensorFile,
            names: Sequence[str],
            data: mmap.mmap = data,
            there: bytes = there,
        ) -> None:
            data[:] = there
            begin(self, file, names)

        monkeypatch.setattr(Digests, "begin", restored)
        conclusion = compare_models(models[0], models[1], builtin("tensors")).conclusion
        assert conclusion == ("match" if number == 0 else "inconclusive")
        data.close()
