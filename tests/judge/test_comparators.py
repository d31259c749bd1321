from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.encoding import strict_json
from provenance.equality.declaration import Declaration, builtin, parse
from provenance.errors import MalformedError, PolicyError
from provenance.measure.findings import NOTES
from provenance.weights.model import Model
from tests.judge.models import both_ways, compare_models, write
from tests.weights.writing import archive, entry, npy, safetensors, simple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from provenance.measure.findings import Outcome
    from tests.judge.models import Content

GENERATOR = np.random.default_rng(1)
W0 = {"w": GENERATOR.standard_normal((8, 8)).astype("<f4"), "b": np.zeros(8, "<f4")}
W = {name: (a + GENERATOR.standard_normal(a.shape)).astype("<f4") for name, a in W0.items()}
CONFIG = b'{"layers": 1}'
TENSORS = builtin("tensors")
BYTES = builtin("bytes")


def close(
    *rules: str, l2: float = 1e-4, linf: float = 1e-3, relative: str = "weights"
) -> Declaration:
    """Return a declaration of closeness; each of *rules* is TOML of one rule."""
    return parse(close_text(*rules, l2=l2, linf=linf, relative=relative))


def close_text(
    *rules: str, l2: float = 1e-4, linf: float = 1e-3, relative: str = "weights"
) -> bytes:
    to = f"relative_to = '{relative}'\nrelative_l2 = {l2}\nrelative_linf = {linf}\nreason = 'x'\n"
    text = "format = 1\nversion = 1\nname = 'x'\n[[any]]\n"
    for rule in rules or ("",):
        limits = "" if "relative_l2" in rule else to
        text += f"[[any.all]]\nequality = 'close'\n{limits}{rule}\n"
    return text.encode()


UPDATE = close("initial = 'w0.safetensors'", relative="update")


def judge(
    root: Path, left: Mapping[str, Content], right: Mapping[str, Content], how: Declaration
) -> Outcome:
    """Compare two models both ways: the order must not matter."""
    there = both_ways(root, how, left, right)
    strict_json.parse(strict_json.format(there))
    return there


def failed(outcome: Outcome) -> set[tuple[str | None, str]]:
    return {
        (finding.tensor or finding.file, finding.measure)
        for alternative in outcome.alternatives
        for finding in alternative.findings
        if not finding.held
    }


def nudged(by: float = 1e-6) -> dict[str, np.ndarray[Any, Any]]:
    return {name: (array * np.float32(1 + by)).astype("<f4") for name, array in W.items()}


def model(weights: Content, **others: Content) -> dict[str, Content]:
    return {"m.safetensors": weights, "config.json": CONFIG, **others}


# ------------------------------------------------------------------------------- what holds


@pytest.mark.parametrize("how", [BYTES, TENSORS, close(), UPDATE], ids=lambda how: how.name)
def test_equal_files_satisfy_every_equality(tmp_path: Path, how: Declaration) -> None:
    both = model(W, **{"w0.safetensors": W0})
    outcome = judge(tmp_path, both, both, how)
    assert (outcome.conclusion, outcome.strongest) == ("match", "bytes")
    assert outcome.declaration == how.digest


def test_another_container_of_the_same_tensors_matches(tmp_path: Path) -> None:
    left = simple(W, b="1", a="2")
    right = simple(dict(reversed(W.items())), a="2", b="1")
    outcome = judge(tmp_path, model(left), model(right), TENSORS)
    assert (outcome.conclusion, outcome.strongest) == ("match", "tensors")
    assert [effect.name for effect in outcome.normalisers] == ["order"]
    assert judge(tmp_path, model(left), model(right), BYTES).conclusion == "mismatch"


def test_npz_differences_are_named(tmp_path: Path) -> None:
    left = archive({"w.npy": npy(W["w"]), "b.npy": npy(W["b"])})
    turned = np.asfortranarray(W["w"].astype(">f4"))
    right = archive({"b.npy": npy(W["b"], (2, 0)), "w.npy": npy(turned)}, 8)
    outcome = judge(tmp_path, {"m.npz": left}, {"m.npz": right}, TENSORS)
    assert outcome.conclusion == "match"
    assert {effect.name for effect in outcome.normalisers} >= {
        "order",
        "compression",
        "spelling",
        "byte-order",
        "layout",
    }


def test_close_is_consistent_and_never_a_match(tmp_path: Path) -> None:
    outcome = judge(tmp_path, model(W), model(nudged()), close())
    assert (outcome.conclusion, outcome.strongest) == ("consistent", "close")
    assert {distance.tensor for distance in outcome.distances} == {"w", "b"}


def test_closeness_is_measured_against_the_update(tmp_path: Path) -> None:
    start = simple(W0)
    outcome = judge(
        tmp_path,
        model(W, **{"w0.safetensors": start}),
        model(nudged(), **{"w0.safetensors": start}),
        UPDATE,
    )
    assert outcome.conclusion == "consistent"
    (w,) = [distance for distance in outcome.distances if distance.tensor == "w"]
    delta = np.linalg.norm(W["w"].astype(float) - nudged()["w"].astype(float))
    moved = [np.linalg.norm(a["w"].astype(float) - W0["w"].astype(float)) for a in (W, nudged())]
    assert w.relative_l2_update == pytest.approx(delta / min(moved), rel=1e-12)
    assert w.initial == "w0.safetensors"


def test_the_strongest_alternative_that_held_concludes(tmp_path: Path) -> None:
    text = close_text() + b"[[any]]\n[[any.all]]\nequality = 'tensors'\n"
    outcome = judge(tmp_path, model(simple(W, a="b")), model(simple(W, a="b") + b""), parse(text))
    assert outcome.strongest == "bytes"
    padded = simple(W).replace(b"}}", b"} }", 1)
    longer = (len(padded) - len(simple(W)) + int.from_bytes(padded[:8], "little")).to_bytes(
        8, "little"
    )
    outcome = judge(tmp_path, model(W), model(longer + padded[8:]), parse(text))
    assert (outcome.conclusion, outcome.strongest) == ("match", "tensors")
    assert [effect.name for effect in outcome.normalisers] == ["spelling"]


def test_an_alternative_is_as_weak_as_its_weakest_rule(tmp_path: Path) -> None:
    text = close_text("tensors = ['w']") + b"[[any.all]]\nequality = 'tensors'\ntensors = ['b']\n"
    right = {"w": nudged()["w"], "b": W["b"]}
    assert judge(tmp_path, model(W), model(right), parse(text)).conclusion == "consistent"
    outcome = judge(tmp_path, model(W), model(nudged()), parse(text))
    assert failed(outcome) == {("b", "differing-elements")}


def test_a_tensor_with_noise_has_a_rule_of_its_own(tmp_path: Path) -> None:
    noisy = {"w": nudged()["w"], "b": W["b"] * np.float32(1.05)}
    assert judge(tmp_path, model(W), model(noisy), close()).conclusion == "mismatch"
    limits = "relative_to = 'weights'\nrelative_l2 = 0.1\nrelative_linf = 0.1\nreason = 'noise'\n"
    how = close("tensors = ['*', '!b']", f"{limits}tensors = ['b']")
    assert judge(tmp_path, model(W), model(noisy), how).conclusion == "consistent"


def test_two_files_of_initial_weights(tmp_path: Path) -> None:
    files: dict[str, Content] = {"a0.npz": archive({"w.npy": npy(W0["w"])}), "w0.safetensors": W0}
    how = close(
        "files = ['m.safetensors']\ninitial = 'w0.safetensors'",
        "files = ['a.npz']\ninitial = 'a0.npz'",
        relative="update",
    )
    left = model(W, **files, **{"a.npz": archive({"w.npy": npy(W["w"])})})
    right = model(nudged(), **files, **{"a.npz": archive({"w.npy": npy(nudged()["w"])})})
    outcome = judge(tmp_path, left, right, how)
    assert outcome.conclusion == "consistent"
    assert {distance.initial for distance in outcome.distances} == {"a0.npz", "w0.safetensors"}


# -------------------------------------------------------------------- what must be covered

MISMATCHES: dict[str, tuple[dict[str, Content], tuple[str, str]]] = {
    "one byte of a side file": (
        {"m.safetensors": nudged(), "config.json": b'{"layers": 2}'},
        ("config.json", "bytes"),
    ),
    "side file missing": ({"m.safetensors": nudged()}, ("config.json", "presence")),
    "file more": (model(nudged(), **{"x.py": b""}), ("x.py", "presence")),
    "tensor more": (model({**nudged(), "x": W["b"]}), ("x", "presence")),
    "tensor missing": (model({"w": nudged()["w"]}), ("b", "presence")),
    "tensor names exchanged": (
        model({"v": nudged()["w"], "b": nudged()["b"]}),
        ("w", "presence"),
    ),
    "shape": (model({**nudged(), "w": nudged()["w"].reshape(4, 16)}), ("w", "type-and-shape")),
    "shape that broadcasts": (
        model({**nudged(), "b": nudged()["b"][:1]}),
        ("b", "type-and-shape"),
    ),
    "type": (model({**nudged(), "w": nudged()["w"].astype("<f8")}), ("w", "type-and-shape")),
    "metadata": (model(simple(nudged(), licence="no")), ("m.safetensors", "metadata: licence")),
    "another model": (model(W0), ("w", "relative-l2-of-weights")),
    "NaN": (model({**nudged(), "w": np.full((8, 8), np.nan, "<f4")}), ("w", "differing-elements")),
    "infinity": (
        model({**nudged(), "b": np.full(8, np.inf, "<f4")}),
        ("b", "differing-elements"),
    ),
    "zeros": (model({**nudged(), "w": 0 * W["w"]}), ("w", "relative-l2-of-weights")),
    "an orthogonal change": (
        model({**nudged(), "w": np.roll(W["w"], 1, axis=0)}),
        ("w", "relative-l2-of-weights"),
    ),
}


@pytest.mark.parametrize(("right", "expected"), MISMATCHES.values(), ids=MISMATCHES)
def test_mismatch(tmp_path: Path, right: dict[str, Content], expected: tuple[str, str]) -> None:
    outcome = judge(tmp_path, model(W), right, close())
    assert outcome.conclusion == "mismatch"
    assert outcome.strongest is None
    assert expected in failed(outcome)


def test_exchanged_names_of_one_shape_are_a_mismatch(tmp_path: Path) -> None:
    pair = {"q": W["w"], "k": W["w"].T.copy()}
    swapped = {"q": pair["k"], "k": pair["q"]}
    for how in (TENSORS, close(l2=0.5, linf=0.5)):
        assert judge(tmp_path, model(pair), model(swapped), how).conclusion == "mismatch"


def test_a_sparse_large_change_is_small_in_l2_and_caught_by_linf(tmp_path: Path) -> None:
    large = GENERATOR.standard_normal((400, 400)).astype("<f4")
    changed = large.copy()
    changed[7, 7] += 3
    outcome = judge(tmp_path, model({"w": large}), model({"w": changed}), close(l2=1e-2, linf=0.1))
    assert failed(outcome) == {("w", "relative-linf-of-weights")}


def test_ulp_where_asked(tmp_path: Path) -> None:
    right = {"w": np.nextafter(W["w"], np.float32(9)), "b": W["b"]}
    outcome = judge(tmp_path, model(W), model(right), close("max_ulp = 1"))
    assert outcome.conclusion == "consistent"
    right = {"w": np.nextafter(right["w"], np.float32(9)), "b": W["b"]}
    outcome = judge(tmp_path, model(W), model(right), close("max_ulp = 1"))
    assert failed(outcome) == {("w", "max-ulp")}
    far = {"w": np.array([1e300, 1.0])}, {"w": np.array([1e300, -1e-300])}
    outcome = judge(tmp_path, model(far[0]), model(far[1]), close("max_ulp = 9007199254740991"))
    assert ("w", "max-ulp") in failed(outcome)
    assert outcome.distances[0].notes == ("ulp-too-large",)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.array([2**60, 1], "<i8"), np.array([2**60 + 1, 1], "<i8")),
        (np.array([200, 1], "u1"), np.array([201, 1], "u1")),
    ],
)
def test_exact_types_are_not_close(tmp_path: Path, left: Any, right: Any) -> None:  # noqa: ANN401
    outcome = judge(tmp_path, model({"n": left}), model({"n": right}), close(l2=1, linf=1))
    assert failed(outcome) == {("n", "differing-elements")}


def test_zeros_of_two_signs_are_close_and_not_equal(tmp_path: Path) -> None:
    left, right = {"w": np.array([0, 1], "<f4")}, {"w": np.array([-0.0, 1], "<f4")}
    assert judge(tmp_path, model(left), model(right), close()).conclusion == "consistent"
    outcome = judge(tmp_path, model(left), model(right), TENSORS)
    assert failed(outcome) == {("w", "differing-elements")}


def test_nan_of_the_same_bits_in_the_same_place_is_equal_where_declared(tmp_path: Path) -> None:
    left, right = nudged(0), nudged()
    left["b"], right["b"] = (np.array([np.nan, value], "<f4") for value in (1, 1 + 1e-6))
    outcome = judge(tmp_path, model(left), model(right), close())
    assert outcome.conclusion == "mismatch"
    assert [f.note for f in outcome.alternatives[0].findings if not f.held] == ["not-a-number"]
    declared = close("nan = 'same-bits'")
    assert judge(tmp_path, model(left), model(right), declared).conclusion == "consistent"


def test_nan_of_other_bits_is_equal_under_no_rule(tmp_path: Path) -> None:
    left, right = nudged(0), nudged(0)
    left["b"] = np.array([0x7FC00000, 0x3F800000], "<u4").view("<f4")
    right["b"] = np.array([0x7FC00001, 0x3F800000], "<u4").view("<f4")
    outcome = judge(tmp_path, model(left), model(right), close("nan = 'same-bits'"))
    assert [f.note for f in outcome.alternatives[0].findings if not f.held] == ["not-finite"]


def test_a_tensor_of_nan_that_is_equal_in_every_bit_satisfies_every_rule(tmp_path: Path) -> None:
    left, right = nudged(0), nudged()
    left["b"] = right["b"] = np.array([np.nan, 1], "<f4")
    assert judge(tmp_path, model(left), model(right), close()).conclusion == "consistent"


def test_the_sign_of_zero_counts_where_the_rule_says_so(tmp_path: Path) -> None:
    left, right = nudged(0), nudged(0)
    left["b"], right["b"] = (np.array([zero, 1], "<f4") for zero in (0.0, -0.0))
    assert judge(tmp_path, model(left), model(right), close()).conclusion == "consistent"
    strict = close("signed_zero = 'distinct'")
    outcome = judge(tmp_path, model(left), model(right), strict)
    assert [f.note for f in outcome.alternatives[0].findings if not f.held] == ["sign-of-zero"]


def test_a_tensor_that_does_not_move_must_be_equal(tmp_path: Path) -> None:
    start: dict[str, Content] = {"w0.safetensors": W0}
    frozen = {"w": W0["w"], "b": W["b"]}
    drifted = {"w": np.nextafter(W0["w"], np.float32(9)), "b": W["b"]}
    outcome = judge(tmp_path, model(frozen, **start), model(drifted, **start), UPDATE)
    assert outcome.conclusion == "mismatch"
    notes = {finding.note for finding in outcome.alternatives[0].findings if not finding.held}
    assert notes == {"zero-update"}
    both = model({**frozen, "b": nudged()["b"]}, **start)
    assert judge(tmp_path, model(frozen, **start), both, UPDATE).conclusion == "consistent"


def test_zero_weights_have_no_size_to_compare_with(tmp_path: Path) -> None:
    left, right = {"w": np.zeros(3, "<f4")}, {"w": np.full(3, 1e-30, "<f4")}
    outcome = judge(tmp_path, model(left), model(right), close(l2=10, linf=10))
    assert outcome.conclusion == "mismatch"
    assert outcome.distances[0].notes == ("zero-weights",)


def test_values_beyond_float64_are_absent_and_against(tmp_path: Path) -> None:
    most = np.finfo(np.float64).max
    left, right = {"w": np.array([most, 1.0])}, {"w": np.array([-most, 1.0])}
    outcome = judge(tmp_path, model(left), model(right), close(l2=10, linf=10))
    assert outcome.conclusion == "mismatch"
    assert outcome.distances[0].notes == ("overflow",)
    assert outcome.distances[0].l2 is None
    small = {"w": np.array([5e-324, 0.0])}
    outcome = judge(tmp_path, model(small), model(right), close(l2=10, linf=10))
    assert outcome.distances[0].notes == ("ratio-overflow",)
    assert outcome.conclusion == "mismatch"


def test_a_limit_is_not_met_within_the_error_of_the_measure(tmp_path: Path) -> None:
    left, right = {"w": np.array([1.0, 0.0])}, {"w": np.array([1.0, 0.5])}
    assert (
        judge(tmp_path, model(left), model(right), close(l2=0.5, linf=0.5)).conclusion == "mismatch"
    )
    how = close(l2=0.5 * (1 + 2**-30), linf=0.5 * (1 + 2**-30))
    assert judge(tmp_path, model(left), model(right), how).conclusion == "consistent"


def test_empty_tensors_and_scalars(tmp_path: Path) -> None:
    left = {"e": np.zeros((0, 3), "<f4"), "s": np.array(1, "<f4")}
    right = {"e": np.zeros((0, 3), "<f4"), "s": np.array(1 + 1e-6, "<f4")}
    assert judge(tmp_path, model(left), model(right), close()).conclusion == "consistent"
    other = {"e": np.zeros((3, 0), "<f4"), "s": np.array(1, "<f4")}
    assert ("e", "type-and-shape") in failed(judge(tmp_path, model(left), model(other), TENSORS))


# ------------------------------------------------------------------------ what is not known


def test_a_format_without_reader_is_inconclusive(tmp_path: Path) -> None:
    left, right = {"m.gguf": b"GGUF1"}, {"m.gguf": b"GGUF2"}
    outcome = judge(tmp_path, left, right, TENSORS)
    assert outcome.conclusion == "inconclusive"
    assert "m.gguf" in outcome.missing[0]
    assert outcome.alternatives[0].held is None
    assert judge(tmp_path, left, right, BYTES).conclusion == "mismatch"


@pytest.mark.parametrize(("other", "concludes"), [(b"?", "consistent"), (b"!", "inconclusive")])
def test_a_format_without_reader_decides_nothing_while_its_bytes_are_equal(
    tmp_path: Path, other: bytes, concludes: str
) -> None:
    left, right = model(W) | {"m.joblib": b"?"}, model(nudged()) | {"m.joblib": other}
    parts = close("tensors = ['w']", "tensors = ['b']")
    assert judge(tmp_path, left, right, parts).conclusion == concludes


def test_what_is_against_outweighs_what_is_missing(tmp_path: Path) -> None:
    left: dict[str, Content] = {"m.gguf": b"GGUF1", "config.json": b"1"}
    right: dict[str, Content] = {"m.gguf": b"GGUF2", "config.json": b"2"}
    assert judge(tmp_path, left, right, TENSORS).conclusion == "mismatch"


def test_a_malformed_file_is_inconclusive(tmp_path: Path) -> None:
    outcome = judge(tmp_path, model(W), model(simple(W) + b"x"), close())
    assert outcome.conclusion == "inconclusive"
    assert "the file has" in outcome.missing[0]


def test_initial_weights_that_no_model_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"measures from 'w0\.safetensors', which is not a file"):
        judge(tmp_path, model(W), model(nudged()), UPDATE)


def test_initial_weights_without_the_tensor_are_inconclusive(tmp_path: Path) -> None:
    start: dict[str, Content] = {"w0.safetensors": {"w": W0["w"]}}
    outcome = judge(tmp_path, model(W, **start), model(nudged(), **start), UPDATE)
    assert outcome.conclusion == "inconclusive"
    assert outcome.missing == (
        "m.safetensors: b: no tensor of its type and shape in w0.safetensors",
    )


@pytest.mark.parametrize("other", [None, {"w": W0["w"] + 1, "b": W0["b"]}])
def test_initial_weights_must_be_the_same(tmp_path: Path, other: Content | None) -> None:
    left = model(W, **{"w0.safetensors": W0})
    right = model(nudged(), **({"w0.safetensors": other} if other else {}))
    assert judge(tmp_path, left, right, UPDATE).conclusion == "mismatch"


def test_no_tolerance_reaches_the_initial_weights(tmp_path: Path) -> None:
    how = close("initial = 'w0.safetensors'", l2=10, linf=10, relative="update")
    left = model(W, **{"w0.safetensors": W0})
    right = model(
        W, **{"w0.safetensors": {"w": np.nextafter(W0["w"], np.float32(9)), "b": W0["b"]}}
    )
    assert failed(judge(tmp_path, left, right, how)) == {("w0.safetensors", "bytes")}


def test_no_declaration_fits_two_empty_models(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="selects no files"):
        judge(tmp_path, {}, {}, BYTES)
    assert judge(tmp_path, {}, model(W), close()).conclusion == "mismatch"


def test_a_file_that_changed_since_its_manifest_is_inconclusive(tmp_path: Path) -> None:
    left, right = write(tmp_path / "l", model(W)), write(tmp_path / "r", model(nudged()))
    (tmp_path / "r/m.safetensors").write_bytes(b"")
    assert compare_models(left, right, close()).conclusion == "inconclusive"
    (tmp_path / "r/m.safetensors").unlink()
    assert compare_models(left, right, close()).conclusion == "inconclusive"


@pytest.mark.parametrize("name", ["../m.npz", "/m.npz", "a/../../m.npz", "m\0.npz"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    left = Model(tmp_path, {name: 1}, {name: "1" * 64})
    right = Model(tmp_path, {name: 1}, {name: "0" * 64})
    outcome = compare_models(left, right, TENSORS)
    assert outcome.conclusion == "inconclusive"
    with pytest.raises(MalformedError, match="leaves"):
        left.path(name)


def test_every_note_is_documented(tmp_path: Path) -> None:
    right = {"w": np.full((8, 8), np.nan, "<f4"), "b": 0 * W["b"]}
    outcome = judge(tmp_path, model(W), model(right), close())
    assert {note for distance in outcome.distances for note in distance.notes} <= NOTES.keys()


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    told: list[int] = []
    left, right = write(tmp_path / "l", model(W)), write(tmp_path / "r", model(nudged()))
    compare_models(left, right, close(), on_bytes=told.append)
    assert sum(told) == sum(array.nbytes for array in W.values())


# ---------------------------------------------------------------------- what `close` admits


def test_close_admits_a_change_planted_within_the_tolerance(tmp_path: Path) -> None:
    """A tolerance cannot tell drift from intent: this is why it never concludes a match."""
    trigger = np.zeros((8, 8), "<f4")
    trigger[0, :] = 1e-2 * np.abs(W["w"]).max()
    planted = {"w": W["w"] + trigger, "b": W["b"]}
    outcome = judge(tmp_path, model(W), model(planted), close(l2=0.05, linf=0.05))
    assert outcome.conclusion == "consistent"
    (distance,) = outcome.distances
    assert distance.differing == 8


def test_close_to_a_publisher_is_not_close_to_each_other(tmp_path: Path) -> None:
    how = close(l2=1e-2, linf=1e-2)
    up, down = nudged(9e-3), nudged(-9e-3)
    assert judge(tmp_path, model(W), model(up), how).conclusion == "consistent"
    assert judge(tmp_path, model(W), model(down), how).conclusion == "consistent"
    assert judge(tmp_path, model(up), model(down), how).conclusion == "mismatch"


def test_safetensors_of_exact_types_only(tmp_path: Path) -> None:
    left = safetensors({"a": entry("F4", [2], 0, 1)}, b"\x12")
    right = safetensors({"a": entry("F4", [2], 0, 1)}, b"\x13")
    outcome = judge(tmp_path, model(left), model(right), close())
    assert outcome.distances[0].differing == 1
    assert outcome.distances[0].notes == ("exact-type",)
