"""Attacks on what is judged by evidence: weights hidden behind reported numbers, and by rounding.

Each shows the unchanged pair too, accepted under the same declaration. A declaration that leaves
tensors to nobody is refused for every pair.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from provenance.equality.declaration import parse
from provenance.equality.lattice import AGREES
from provenance.errors import PolicyError
from provenance.judge.measured import MAX_FORMS
from tests.forgeries.test_equality_attacks import CLOSE, NEGATED, W, declare
from tests.judge.judging import model as tensors_of
from tests.weights.onnx_writing import model as onnx_model
from tests.weights.onnx_writing import tensor as onnx_tensor
from tests.weights.onnx_writing import written
from tests.weights.torch_writing import checkpoint, floats, ordered, storage, tensor
from tests.weights.writing import archive, npy, simple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from provenance.equality.declaration import Declaration
    from provenance.measure.findings import Outcome
    from tests.judge.models import Content

    Array = np.ndarray[Any, Any]
    Files = dict[str, Content]
    Given = Mapping[str, Content]
    Judge = Callable[[Declaration, Given, Given], Outcome]

OUTPUTS = np.linspace(0, 1, 900, dtype="<f4").reshape(300, 3)
NEAR = OUTPUTS + np.float32(1e-3)
SCORES = np.linspace(0, 1, 400)
EXACT = "equality = 'tensors'\n"


def outputs(*files: str, more: str = "", kind: str = "values", limit: float = 1e30) -> str:
    return (
        f"equality = 'behaviour'\nkind = '{kind}'\nmax_difference = {limit}\nreason = 'a test'\n"
        f"outputs = {list(files)}\n{more}\n"
    )


def samples(*files: str, more: str = "") -> str:
    return (
        f"equality = 'metrics'\nmargin = 1.0\nreason = 'a test'\nsamples = {list(files)}\n{more}\n"
    )


def curves(*files: str) -> str:
    return (
        "equality = 'curves'\ncurves = ['loss']\npointwise = 1.0\npoints = 1\nterminal = 1.0\n"
        f"reason = 'a test'\nsources = {list(files)}\n"
    )


def arrays(**named: Array) -> bytes:
    return archive({f"{name}.npy": npy(array) for name, array in named.items()})


def torch_file(**named: Array) -> bytes:
    """Return a checkpoint of torch."""
    stored = {name: storage(str(n), array.size) for n, (name, array) in enumerate(named.items())}
    state = ordered({name: tensor(stored[name], array.shape) for name, array in named.items()})
    values = enumerate(named.values())
    return checkpoint(state, {str(n): floats(*array.ravel()) for n, array in values})


def safetensors(**named: Array) -> bytes:
    return simple(named)


# --- What else is in a file of evidence -----------------------------------------------------------

HIDING: dict[str, tuple[str, Callable[..., bytes], str]] = {
    "outputs in the weights": (
        "model.safetensors",
        safetensors,
        outputs("model.safetensors", more="tensors = ['y']"),
    ),
    "outputs in any weights": ("other.safetensors", safetensors, outputs("*.safetensors")),
    "outputs in torch's weights": ("pytorch_model.bin", torch_file, outputs("*")),
    "outputs in a folder": ("unet/w.safetensors", safetensors, outputs("unet/*", "!*.json")),
    "all arrays of weights in numpy": ("model.npz", arrays, outputs("model.npz")),
    "a star that selects weights in numpy": ("w.npz", arrays, outputs("*.npz")),
    "a star beside the name of one array": (
        "w.npz",
        arrays,
        outputs("w.npz", more="tensors = ['y']") + "[[any.all]]\n" + outputs("*.npz"),
    ),
    "a name of weights in numpy": ("weights.npz", arrays, outputs("weights.npz")),
    "a name that Keras looks for": ("model.weights.npz", arrays, outputs("model.weights.npz")),
    "one array of many in numpy": ("y.npz", arrays, outputs("y.npz", more="tensors = ['y']")),
    "scores in numpy": ("y.npz", arrays, samples("y.npz", more="metrics = ['y']")),
    "scores in weights": ("model.safetensors", safetensors, samples("*", more="metrics = ['y']")),
    "curves in weights": ("model.safetensors", safetensors, curves("*.safetensors")),
}


@pytest.mark.parametrize("case", HIDING)
def test_a_file_of_evidence_hides_no_weights(judge: Judge, case: str) -> None:
    name, form, evidence = HIDING[case]
    y = SCORES if "metrics" in evidence else OUTPUTS
    beside: Files = {"tiny.safetensors": {"t": np.ones(1, "<f4")}}
    published = beside | {name: form(y=y, w=W["w"])}
    for hidden in (NEGATED["w"], np.ones((2, 2), "<f4")):
        rebuilt = beside | {name: form(y=y, w=hidden)}
        for strict in (EXACT, CLOSE):
            rules = declare(strict, evidence)
            assert judge(rules, published, published).conclusion == "match"
            outcome = judge(rules, published, rebuilt)
            assert outcome.conclusion in ("mismatch", "inconclusive")
            assert outcome.strongest is None
    longer = beside | {name: form(y=y, w=W["w"], extra=NEGATED["w"])}
    assert judge(declare(EXACT, evidence), published, longer).strongest is None


@pytest.mark.parametrize("evidence", [
    outputs("y.npz", more="tensors = ['y']"),
    samples("y.npz", more="metrics = ['y']"),
    curves("y.npz"),
])  # fmt: skip
def test_arrays_that_nobody_judges_are_refused(judge: Judge, evidence: str) -> None:
    files: Files = {"model.safetensors": W, "y.npz": arrays(y=SCORES, w=W["w"])}
    only = declare(EXACT + "files = ['model.safetensors']\n", evidence)
    with pytest.raises(PolicyError, match="no rule covers"):
        judge(only, files, files)
    if "curves" in evidence:
        return
    rest = EXACT + "files = ['y.npz']\ntensors = ['w']\n"
    covered = declare(EXACT + "files = ['model.safetensors']\n", rest, evidence)
    moved = files | {"y.npz": arrays(y=SCORES + 1e-3, w=W["w"])}
    assert judge(covered, files, moved).conclusion == "consistent"
    hidden = files | {"y.npz": arrays(y=SCORES, w=NEGATED["w"])}
    assert judge(covered, files, hidden).conclusion == "mismatch"


def test_arrays_that_settings_name_are_weights(judge: Judge) -> None:
    rules = declare(EXACT, outputs("backbone.npz"))
    config = json.dumps({"pretrained_cfg": {"file": "backbone.npz"}}).encode()
    published: Files = {
        "model.safetensors": W,
        "backbone.npz": arrays(w=W["w"]),
        "config.json": config,
    }
    evil = published | {"backbone.npz": arrays(w=NEGATED["w"])}
    assert judge(rules, published, published).conclusion == "match"
    assert judge(rules, published, evil).conclusion == "mismatch"
    unnamed = [files | {"config.json": b"{}"} for files in (published, evil)]
    assert judge(rules, *unnamed).conclusion == "consistent"  # outputs, as far as anybody knows


@pytest.mark.parametrize("name", ["m.pkl_01.npy", "m.joblib_02.npy", "a/m.pickle_01.npy"])
def test_arrays_beside_a_pickle_are_weights(judge: Judge, name: str) -> None:
    """joblib before 0.10 wrote them so, and it still loads them."""
    rules = declare(EXACT, outputs(name))
    published: Files = {"model.safetensors": W, name: npy(W["w"])}
    evil = published | {name: npy(NEGATED["w"])}
    assert judge(rules, published, published).conclusion == "match"
    assert judge(rules, published, evil).strongest is None
    other = declare(EXACT, outputs("y.npy"))
    held: Files = {"model.safetensors": W, "y.npy": npy(W["w"])}
    assert judge(other, held, held | {"y.npy": npy(NEGATED["w"])}).conclusion == "consistent"


def test_the_state_of_a_training_is_no_evidence(judge: Judge) -> None:
    rules = declare(EXACT, outputs("optimizer.pt", more="tensors = ['y']"))
    published: Files = {"m.safetensors": W, "optimizer.pt": torch_file(y=OUTPUTS, w=W["w"])}
    other = published | {"optimizer.pt": torch_file(y=OUTPUTS, w=NEGATED["w"])}
    assert judge(rules, published, published).conclusion == "match"
    assert judge(rules, published, other).conclusion == "mismatch"


def test_outputs_do_not_dilute_the_share_of_a_wide_limit(judge: Judge) -> None:
    wide = CLOSE.replace("1e-6", "10") + "tensors = ['w']\nmax_share = 0.1\n"
    rules = declare(wide, EXACT + "tensors = ['*', '!w']\n", outputs("y.npz", more="tensors=['y']"))
    rest = np.arange(1000, dtype="<f4")
    files: Files = {"y.npz": arrays(y=OUTPUTS, w=W["w"], rest=rest)}
    near = files | {"y.npz": arrays(y=NEAR, w=W["w"] * np.float32(1.5), rest=rest)}
    assert judge(rules, files, near).conclusion == "consistent"
    few: Files = {"y.npz": arrays(y=OUTPUTS, w=W["w"], rest=rest[:64])}
    planted = few | {"y.npz": arrays(y=NEAR, w=W["w"] * np.float32(1.5), rest=rest[:64])}
    assert judge(rules, few, few).conclusion == "match"
    assert judge(rules, few, planted).conclusion == "mismatch"


# --- What reported numbers conclude ---------------------------------------------------------------

THROUGH = "files = ['m.safetensors']\n"
TINY = EXACT + "files = ['tiny.safetensors']\n"
NOTHING = EXACT + "tensors = ['nothing']\noptional = true\nfiles = ['tiny.safetensors']\n"

REPORTED: dict[str, tuple[str, ...]] = {
    "through outputs": (outputs("y.npy", more=THROUGH), TINY),
    "through scores": (samples("y.npy", more=THROUGH), TINY),
    "with bytes for the rest": (
        outputs("y.npy", more=THROUGH),
        "equality = 'bytes'\nfiles = ['tiny.safetensors', 'config.json']\n",
    ),
    "with another rule that selects nothing": (outputs("y.npy", more=THROUGH), NOTHING, TINY),
    "as outputs themselves": (outputs("m.safetensors", "y.npy"), TINY),
    "as outputs by a star": (outputs("*", "!config.json", "!tiny.*"), TINY),
    "through a rule for another file": (
        outputs("y.npy"),
        samples("y.npy", more=THROUGH),
        TINY,
    ),
}


@pytest.mark.parametrize("case", REPORTED)
def test_weights_of_which_only_numbers_are_reported_are_plausible(judge: Judge, case: str) -> None:
    rules = declare(*REPORTED[case])
    y = npy(SCORES if "metrics" in str(REPORTED[case]) else OUTPUTS)
    published: Files = {
        "m.safetensors": W,
        "tiny.safetensors": {"t": np.ones(1, "<f4")},
        "y.npy": y,
        "config.json": b"{}",
    }
    replaced = published | {"m.safetensors": NEGATED}
    assert judge(rules, published, published).conclusion == "match"
    outcome = judge(rules, published, replaced)
    assert outcome.conclusion == "plausible"
    reported = [f.file for f in outcome.alternatives[0].findings if f.measure == "reported"]
    assert reported == ["m.safetensors"]


def test_weights_that_are_nothing_but_evidence_are_plausible(judge: Judge) -> None:
    for evidence in (outputs, samples):
        rules = declare(evidence("held.npz"))
        one, other = ({"held.npz": arrays(w=SCORES + by)} for by in (0.0, 1e-3))
        assert judge(rules, one, one).conclusion == "match"
        assert judge(rules, one, other).conclusion == "plausible"


def test_a_model_that_is_run_vouches_for_itself_alone(judge: Judge) -> None:
    pytest.importorskip("onnxruntime")
    run = outputs().replace("outputs = []", "run = 'm.onnx'\nprobes = 'probes.safetensors'")
    row = np.array([1, 2, 3], "<f4")
    published: Files = {
        "m.onnx": written(onnx_model([onnx_tensor("w", row)])),
        "probes.safetensors": {"x": np.ones((40, 1, 3), "<f4")},
    }
    drifted = published | {"m.onnx": written(onnx_model([onnx_tensor("w", row + 1)]))}
    assert judge(declare(run), published, drifted).conclusion == "consistent"
    both = declare(run, outputs("m.onnx"))  # its tensors as outputs, too
    assert judge(both, published, drifted).conclusion == "consistent"
    other = declare(run + "files = ['model.safetensors']\n")
    one, evil = ({**published, "model.safetensors": w} for w in (W, NEGATED))
    assert judge(other, one, one).conclusion == "match"
    assert judge(other, one, {**drifted, "model.safetensors": W}).conclusion == "consistent"
    assert judge(other, one, evil).conclusion == "plausible"


def test_an_alternative_of_evidence_does_not_lift_another(judge: Judge) -> None:
    text = "format = 1\nversion = 1\nname = 'x'\n"
    for rule in (EXACT, outputs("m.safetensors", more=THROUGH)):
        text += f"[[any]]\n[[any.all]]\n{rule}\n"
    rules = parse(text.encode())
    published: Files = {"m.safetensors": W}
    assert judge(rules, published, published).conclusion == "match"
    outcome = judge(rules, published, {"m.safetensors": NEGATED})
    assert (outcome.conclusion, outcome.strongest) == ("plausible", "behaviour")


# --- Rounding -------------------------------------------------------------------------------------

WIDE = np.linspace(-1, 1, 200, dtype="<f8").reshape(10, 20)
DRIFT = WIDE * (1 + 1e-12)
NARROW = WIDE.astype("<f4")


def rounded(to: str = "F32", more: str = "") -> Declaration:
    return declare(f"equality = 'rounded'\nto = '{to}'\nreason = 'a test'\n{more}")


def test_rounded_is_a_match_where_the_narrower_form_is_shipped(judge: Judge) -> None:
    for rules in (rounded(), rounded(more="ships = 'model.safetensors'\n")):
        one: Files = {"wide.safetensors": {"w": WIDE}, "model.safetensors": {"w": NARROW}}
        other = one | {"wide.safetensors": {"w": DRIFT}}
        outcome = judge(rules, one, other)
        assert (outcome.conclusion, outcome.strongest) == ("match", "rounded")
        (found,) = outcome.alternatives[0].findings
        assert (found.measure, found.note) == ("differing-elements-as-F32", "shipped")
    named = rounded(more="ships = 'other.safetensors'\n")
    assert judge(named, one, other).conclusion == "consistent"


DECOYS: dict[str, Files] = {
    "none": {},
    "other values": {"model.safetensors": {"w": np.zeros_like(NARROW)}},
    "one other value": {
        "model.safetensors": {"w": np.where(NARROW.max() == NARROW, np.float32(2), NARROW)}
    },
    "another shape": {"model.safetensors": {"w": NARROW.reshape(20, 10)}},
    "another name": {"model.safetensors": {"v": NARROW}},
    "another type": {"model.safetensors": {"w": WIDE.astype("<f2")}},
    "the wide one again": {"model.safetensors": {"w": WIDE}},
    "no weights": {"decoy.json": b"{}"},
    "not what its name says": {"model.safetensors": arrays(w=NARROW)},
    "malformed": {"model.safetensors": b"junk"},
}


@pytest.mark.parametrize("case", DECOYS)
def test_rounded_is_no_match_where_something_else_is_shipped(judge: Judge, case: str) -> None:
    one: Files = {"wide.safetensors": {"w": WIDE}, **DECOYS[case]}
    other = one | {"wide.safetensors": {"w": DRIFT}}
    assert judge(rounded(), one, one).conclusion == "match"
    outcome = judge(rounded(), one, other)
    assert (outcome.conclusion, outcome.strongest) == ("consistent", "rounded")


def test_what_is_shipped_is_looked_for_in_a_few_weights(judge: Judge) -> None:
    few: Files = {f"{number}.safetensors": {"v": NARROW} for number in range(MAX_FORMS - 2)}
    for more, conclusion in (
        (few, "match"),
        ({**few, "more.safetensors": {"v": NARROW}}, "consistent"),
    ):
        one: Files = {"wide.safetensors": {"w": WIDE}, "model.safetensors": {"w": NARROW}, **more}
        assert (
            judge(rounded(), one, one | {"wide.safetensors": {"w": DRIFT}}).conclusion == conclusion
        )


def test_each_tensor_that_differs_must_be_shipped(judge: Judge) -> None:
    half: Files = {"n.safetensors": {"w": NARROW}}
    one, other = ({"m.safetensors": {"w": a, "v": a}, **half} for a in (WIDE, DRIFT))
    assert judge(rounded(), one, other).conclusion == "consistent"
    whole = one | {"n.safetensors": {"w": NARROW, "v": NARROW}}
    drifted = other | {"n.safetensors": {"w": NARROW, "v": NARROW}}
    assert judge(rounded(), whole, drifted).conclusion == "match"
    differs = drifted | {"n.safetensors": {"w": NARROW, "v": -NARROW}}
    assert judge(rounded(), whole, differs).conclusion == "mismatch"
    # A sign of zero that the rule drops is in one of both forms alone.
    zeros = [np.where(np.arange(20) == 3, zero, 1.0) for zero in (0.0, -0.0)]
    shipped: Files = {"n.safetensors": {"w": np.where(np.arange(20) == 3, 0, 1).astype("<f4")}}
    one, other = ({"m.safetensors": {"w": zero}, **shipped} for zero in zeros)
    assert judge(rounded(more="signed_zero = 'equal'\n"), one, other).conclusion == "consistent"


def test_what_loaders_take_is_what_is_shipped(judge: Judge) -> None:
    """The narrower form lies beside wide weights that loaders take: those are not the same."""
    for wide, narrow in (
        ("model.safetensors", "shipped.safetensors"),
        ("pytorch_lora_weights.safetensors", "model.safetensors"),
        ("unet/model.safetensors", "model.safetensors"),
        ("Model.safetensors", "narrow.safetensors"),
    ):
        for more in ("", f"ships = '{narrow}'\n"):
            one: Files = {wide: {"w": WIDE}, narrow: {"w": NARROW}}
            other = one | {wide: {"w": DRIFT}}
            assert judge(rounded(more=more), one, one).conclusion == "match"
            assert judge(rounded(more=more), one, other).conclusion == "consistent"
            aside, drifted = (
                {"master.safetensors": x[wide], narrow: one[narrow]} for x in (one, other)
            )
            assert judge(rounded(more=more), aside, drifted).conclusion == "match"


TINY_VALUES: dict[str, tuple[str, Array, Array]] = {
    "tiny for eight bits": ("F8_E4M3", WIDE * 1e-4, -WIDE * 2e-4),
    "scaled down": ("F16", WIDE * 1e-9, WIDE[::-1] * 1e-9),
    "to the least number alone": ("F8_E4M3", 2.0**-9 * (1 + WIDE / 4), 2.0**-9 * (1 - WIDE / 4)),
    "but for a few": (
        "F16",
        np.where(np.arange(200) < 90, 1.0, 1e-12),
        np.where(np.arange(200) < 90, 1.0, 2e-12),
    ),
    "beside many zeros": (
        "F16",
        np.where(np.arange(200) < 190, 0.0, 1e-12),
        np.where(np.arange(200) < 190, 0.0, 2e-12),
    ),
    "on one side": (
        "F16",
        np.where(np.arange(200) < 90, 1.0, 1e-12),
        np.where(np.arange(200) < 90, 1.0, 0.0),
    ),
}


@pytest.mark.parametrize("case", TINY_VALUES)
def test_a_type_into_which_most_values_vanish_is_refused(judge: Judge, case: str) -> None:
    to, left, right = TINY_VALUES[case]
    rest = {"b": np.ones(10_000)}  # however much else there is
    rules = rounded(to, "signed_zero = 'equal'\n")
    one, other = ({"m.safetensors": {"w": w, **rest}} for w in (left, right))
    outcome = judge(rules, one, other)
    assert outcome.conclusion == "mismatch"
    (found,) = (f for f in outcome.alternatives[0].findings if not f.held)
    assert (found.tensor, found.measure, found.limit) == ("w", f"lost-as-{to}", 0.5)
    assert found.value is not None
    assert 0.5 < found.value <= 1
    whole: Files = {"m.safetensors": {"w": WIDE, **rest}}
    near = {"m.safetensors": {"w": WIDE * (1 + 1e-9), **rest}}
    assert judge(rules, whole, near).conclusion == "consistent"


def test_half_of_the_values_may_vanish(judge: Judge) -> None:
    left, right = (np.where(np.arange(200) < 100, 1.0, tiny) for tiny in (1e-12, 2e-12))
    one, other = ({"m.safetensors": {"w": w}} for w in (left, right))
    assert judge(rounded("F16"), one, other).conclusion == "consistent"


def test_what_bfloat16_ships(judge: Judge) -> None:
    wide = {"w": np.float32(1) + np.arange(64, dtype="<f4") / 64}
    near = {"w": wide["w"] + np.float32(1e-6)}
    shipped = tensors_of({"w": wide["w"].astype(ml_dtypes.bfloat16)})
    one: Files = {"model.safetensors": shipped, "master.safetensors": wide}
    outcome = judge(rounded("BF16"), one, one | {"master.safetensors": near})
    assert (outcome.conclusion, outcome.strongest) == ("match", "rounded")
    assert outcome.conclusion in AGREES
