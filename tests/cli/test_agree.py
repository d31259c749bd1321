from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
import numpy as np
import pytest

from provenance.capture.draft import describe_bytes
from provenance.envelope import bundle
from provenance.rebuilding import agreement
from provenance.rebuilding.verdict import from_statement
from provenance.statement import intoto, uris
from provenance.statement.training import Collected, Outcome
from tests.judge.models import RUN
from tests.rebuilding.builds import CLOSE, LAX, files, padded
from tests.weights.onnx_writing import WEIGHT, model, tensor, written
from tests.weights.writing import simple
from tests.world import (
    RECIPE,
    Ran,
    Shell,
    attach,
    attest,
    declared,
    refused,
    state,
    tree,
    write_files,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.rebuilding.verdict import Verdict
    from tests.world import Person


CURVES = b"""
format = 1
version = 1
name = "curves"

[[any]]
[[any.all]]
equality = "curves"
files = ["*.safetensors"]
curves = ["loss"]
pointwise = 1e-3
points = 2
terminal = 1e-2
reason = "made up"
"""


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """Have a person build and attest a model in a folder of their own."""

    declared: list[object] = []

    def make(name: str, person: Person, noise: float = 0.0, **stated: object) -> Path:
        # Who rebuilds names what was declared, unless told otherwise.
        if "equality" in stated:
            declared.append(stated["equality"])
        elif declared:
            stated["equality"] = declared[0]
        return attest(write_files(tmp_path / name, files(noise)), person, **stated)

    return make


@pytest.fixture
def agree(provenance: Shell, alice: Person, bob: Person) -> Callable[..., Ran]:
    def run(*arguments: str | Path) -> Ran:
        return provenance("agree", *arguments, "--key", alice.public, "--key", bob.public)

    return run


def test_a_match(
    build: Callable[..., Path], agree: Callable[..., Ran], alice: Person, bob: Person
) -> None:
    ran = agree(build("a", alice, equality=declared(CLOSE)), build("b", bob))
    assert (ran.status, ran.err) == (0, "")
    assert "match: same model by bytes" in ran.out
    assert "builders  2 keys, 2 needed" in ran.out
    assert "equality  numbers (declared by the first attestation)" in ran.out


def test_consistent_says_what_that_does_not_mean(
    build: Callable[..., Path], agree: Callable[..., Ran], alice: Person, bob: Person
) -> None:
    ran = agree(build("a", alice, equality=declared(CLOSE)), build("b", bob, 1e-4))
    assert ran.status == 0
    assert "consistent by close" in ran.out
    assert "a change that small can hide a backdoor" in ran.out
    assert "L2/update" in ran.out
    assert "reproduced" not in ran.out.lower()


def test_a_container_that_differs(
    tmp_path: Path, agree: Callable[..., Ran], alice: Person, bob: Person
) -> None:
    strict = attest(write_files(tmp_path / "a", files()), alice, equality=declared("tensors"))
    other = attest(write_files(tmp_path / "b", padded(files())), bob)
    assert "match by tensors" in agree(strict, other).out


def test_the_diameter_of_several(
    build: Callable[..., Path], agree: Callable[..., Ran], alice: Person, bob: Person
) -> None:
    published = build("a", alice, equality=declared(CLOSE))
    ran = agree(published, build("b", bob, 3e-4), build("c", bob, -3e-4))
    assert ran.status == 0
    assert "diameter  L2/update 0.000" in ran.out


@pytest.mark.parametrize(
    ("noise", "same_builder", "conclusion"),
    [(0.1, False, "mismatch"), (0.0, True, "inconclusive")],
)
def test_refusals_are_status_1_and_can_be_signed(
    noise: float,
    same_builder: bool,
    conclusion: str,
    build: Callable[..., Path],
    agree: Callable[..., Ran],
    tmp_path: Path,
    alice: Person,
    bob: Person,
) -> None:
    published = build("a", alice, equality=declared(CLOSE))
    rebuilt = build("b", alice if same_builder else bob, noise)
    out = tmp_path / "verdict.json"
    ran = agree(published, rebuilt, "--sign-with", bob.private, "--out", out)
    assert ran.status == 1
    assert f"verdict   {conclusion}" in ran.out
    assert f"signed    {out}" in ran.out
    opened = bundle.open_bundle(bundle.parse(out.read_bytes()), [bob.key.public])
    statement = intoto.from_opened(opened)
    assert statement.predicate_type == uris.VERDICT
    assert from_statement(statement).conclusion == conclusion


def test_what_no_reader_would_take_is_not_signed(
    build: Callable[..., Path],
    agree: Callable[..., Ran],
    tmp_path: Path,
    alice: Person,
    bob: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bent(*arguments: object, **options: object) -> Verdict:
        verdict = judged(*arguments, **options)
        return msgspec.structs.replace(verdict, builders=(alice.key_id,))

    judged: Callable[..., Verdict] = agreement.agree
    monkeypatch.setattr(agreement, "agree", bent)
    out = tmp_path / "verdict.json"
    models = build("a", alice, equality=declared(CLOSE)), build("b", bob)
    ran = agree(*models, "--sign-with", bob.private, "--out", out)
    assert ran.status == 70
    assert "a verdict that no reader takes" in ran.err
    assert not out.exists()


def test_the_last_line_answers_two_questions(
    build: Callable[..., Path], agree: Callable[..., Ran], alice: Person, bob: Person
) -> None:
    published = build("a", alice, equality=declared(CLOSE))
    fast = msgspec.structs.replace(RECIPE, command=(*RECIPE.command, "--fast"))
    ran = agree(published, build("b", bob, recipe=fast))
    last = "verdict   mismatch: same model by bytes; the recipe differs: command"
    assert (ran.status, ran.out.splitlines()[-1]) == (1, last)
    stray = {"untracked": Collected("ok", {"count": 1, "files": {"err.txt": "55" * 32}})}
    ran = agree(published, build("c", bob, collectors=stray))
    last = "verdict   match: same model by bytes; the recipe is unknown: perhaps read: err.txt"
    assert (ran.status, ran.out.splitlines()[-1]) == (0, last)
    ran = agree(published, build("d", bob, 0.1, collectors=stray))
    last = "verdict   mismatch: another model; the recipe is unknown: perhaps read: err.txt"
    assert (ran.status, ran.out.splitlines()[-1]) == (1, last)
    document = agree(published, build("e", bob, 1e-4, collectors=stray), "--json").document
    assert document["verdict"]["conclusion"] == "inconclusive"
    (rebuild,) = document["verdict"]["rebuilds"]
    assert (rebuild["recipe"], rebuild["recipeUnknown"]) == ("unknown", ["perhaps read: err.txt"])


def test_only_who_signs_can_say_that_builders_are_independent(
    build: Callable[..., Path],
    agree: Callable[..., Ran],
    provenance: Shell,
    tmp_path: Path,
    alice: Person,
    bob: Person,
) -> None:
    models = build("a", alice, equality=declared(CLOSE)), build("b", bob)
    refused(agree(*models, "--independent"), 2, "--independent", "--sign-with")
    for name, *options in (("plain",), ("vsa", "--independent")):
        out = tmp_path / f"{name}.json"
        ran = agree(*models, "--sign-with", bob.private, "--out", out, *options)
        assert ran.status == 0
        shown = provenance("show", out).out
        assert ("SLSA_BUILD_REPRODUCED" in shown) is bool(options)
        assert ("independently operated" in shown) is bool(options)
        assert "the recipe is the same" in shown
        assert quote(bob.key_id, safe="") in shown


def test_one_document(
    build: Callable[..., Path], agree: Callable[..., Ran], alice: Person, bob: Person
) -> None:
    published, rebuilt = build("a", alice, equality=declared(CLOSE)), build("b", bob, 1e-4)
    document = agree(published, rebuilt, "--json").document
    assert document["models"] == [str(published), str(rebuilt)]
    assert document["verdict"]["conclusion"] == "consistent"
    assert document["verdict"]["builders"] == sorted([alice.key_id, bob.key_id])


# --- Equalities -----------------------------------------------------------------------------------


def test_another_equality_needs_the_unsafe_option(
    build: Callable[..., Path],
    agree: Callable[..., Ran],
    tmp_path: Path,
    alice: Person,
    bob: Person,
) -> None:
    published, rebuilt = build("a", alice, equality=declared(CLOSE)), build("b", bob, 0.1)
    lax = tmp_path / "lax.toml"
    lax.write_bytes(LAX)
    refused(
        agree(published, rebuilt, "--equality", lax),
        1,
        "lax.toml: the first attestation declared another equality",
        "--unsafe-other-equality",
    )
    ran = agree(published, rebuilt, "--equality", lax, "--unsafe-other-equality")
    assert ran.status == 0
    assert "equality  numbers (NOT declared by the first attestation)" in ran.out
    refused(agree(published, rebuilt, "--unsafe-other-equality"), 2, "needs --equality")


def test_the_declared_equality_may_be_named(
    build: Callable[..., Path],
    agree: Callable[..., Ran],
    tmp_path: Path,
    alice: Person,
    bob: Person,
) -> None:
    published, rebuilt = build("a", alice, equality=declared(CLOSE)), build("b", bob, 1e-4)
    (tmp_path / "close.toml").write_bytes(CLOSE)
    ran = agree(published, rebuilt, "--equality", tmp_path / "close.toml")
    assert "(declared by the first attestation)" in ran.out
    refused(agree(published, rebuilt, "--equality", "bytes"), 1, "declared another equality")


def test_a_file_cannot_stand_in_for_a_built_in_equality(
    build: Callable[..., Path],
    agree: Callable[..., Ran],
    tmp_path: Path,
    alice: Person,
    bob: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published, rebuilt = build("a", alice, equality=declared("bytes")), build("b", bob, 0.1)
    (tmp_path / "bytes").write_bytes(LAX)
    monkeypatch.chdir(tmp_path)
    ran = agree(published, rebuilt, "--equality", "bytes", "--unsafe-other-equality")
    assert ran.status == 1
    assert "verdict   mismatch" in ran.out


def test_nothing_declared(
    build: Callable[..., Path], agree: Callable[..., Ran], alice: Person, bob: Person
) -> None:
    published, rebuilt = build("a", alice), build("b", bob)
    refused(agree(published, rebuilt), 1, "declares no equality", "record with --equality")
    refused(agree(published, rebuilt, "--equality", "bytes"), 1, "declared no equality")


# --- What the models do ---------------------------------------------------------------------------


def test_models_are_run_on_probes_that_were_drawn_afterwards(
    agree: Callable[..., Ran], tmp_path: Path, alice: Person, bob: Person
) -> None:
    rows = {"a": WEIGHT[0], "b": WEIGHT[0] + np.float32(0.5)}
    for (name, row), person in zip(rows.items(), (alice, bob), strict=True):
        root = write_files(tmp_path / name, {"m.onnx": written(model([tensor("w", row)]))})
        attest(root, person, equality=declared(RUN))
    folders = tmp_path / "a", tmp_path / "b"
    without = agree(*folders)
    assert without.status == 1
    assert "because   rebuild 1: m.onnx: no probes: " in without.out
    probes = tmp_path / "probes.safetensors"
    probes.write_bytes(simple({"x": np.zeros((7, 1, 3), "<f4")}))
    out = tmp_path / "verdict.json"
    ran = agree(*folders, "--probes", probes, "--sign-with", bob.private, "--out", out)
    assert (ran.status, ran.err) == (0, "")
    assert "verdict   consistent: within the declared tolerance by behaviour" in ran.out
    opened = bundle.open_bundle(bundle.parse(out.read_bytes()), [bob.key.public])
    verdict = from_statement(intoto.from_opened(opened))
    findings = verdict.rebuilds[0].outcome.alternatives[0].findings
    digest = hashlib.sha256(probes.read_bytes()).hexdigest()
    assert [f.left for f in findings if f.measure == "probes-from-outside"] == [digest]
    refused(agree(*folders, "--probes", tmp_path / "none.npz"), 3, "none.npz")


@pytest.mark.parametrize(
    ("last", "status", "line"),
    [
        (1.0, 0, "verdict   plausible: what was reported looks alike by curves"),
        (1.1, 1, "verdict   mismatch"),
        (None, 1, "because   rebuild 1: recorded metrics (right): not at hand"),
    ],
)
def test_recorded_curves(
    last: float | None,
    status: int,
    line: str,
    agree: Callable[..., Ran],
    tmp_path: Path,
    alice: Person,
    bob: Person,
) -> None:
    for name, person, noise, end in (("a", alice, 0.0, 1.0), ("b", bob, 0.1, last)):
        root = write_files(tmp_path / name, files(noise))
        stated = state(root, equality=declared(CURVES))
        if end is not None:
            values = "".join(f'{{"name":"loss","value":{v!r}}}\n' for v in (3.0, 2.0, end))
            item, _ = describe_bytes("metrics", values.encode(), "application/jsonl")
            run = msgspec.structs.replace(stated.run, byproducts=(item,))
            stated = msgspec.structs.replace(stated, run=run)
        attach(root, stated, person)
    out = tmp_path / "verdict.json"
    ran = agree(tmp_path / "a", tmp_path / "b", "--sign-with", bob.private, "--out", out)
    assert (ran.status, ran.err) == (status, "")
    assert line in ran.out
    statement = intoto.from_opened(
        bundle.open_bundle(bundle.parse(out.read_bytes()), [bob.key.public])
    )
    assert statement.predicate_type == uris.VERDICT


# --- Refused --------------------------------------------------------------------------------------


def test_a_model_that_is_not_verified_is_named(
    build: Callable[..., Path],
    agree: Callable[..., Ran],
    alice: Person,
    bob: Person,
    mallory: Person,
) -> None:
    published = build("a", alice, equality=declared("bytes"))
    stranger = build("m", mallory)
    refused(agree(published, stranger), 1, f"{stranger}: ", "signed by another key")
    failed = build("f", bob, outcome=Outcome(1))
    refused(agree(published, failed), 1, f"{failed}: ", "ended with status 1")
    changed = build("c", bob)
    write_files(changed, {"model.safetensors": b"x"})
    refused(agree(published, changed), 1, f"{changed}: not the files")


def test_a_copy_of_the_published_model_is_no_second_builder(
    build: Callable[..., Path], agree: Callable[..., Ran], alice: Person
) -> None:
    published = build("a", alice, equality=declared("bytes"))
    ran = agree(published, published)
    assert ran.status == 1
    assert "1 of 2 builders: models by one signer count once" in ran.out
    assert "builders  1 key, 2 needed" in ran.out


def test_the_same_key_given_twice_is_one(
    build: Callable[..., Path], provenance: Shell, alice: Person
) -> None:
    published = build("a", alice, equality=declared("bytes"))
    keys = ("--key", alice.public) * 2
    ran = provenance("agree", published, build("b", alice), *keys)
    assert ran.status == 1
    assert "inconclusive" in ran.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sign-with", "KEY"], "--sign-with and --out go together"),
        (["--out", "new"], "--sign-with and --out go together"),
        (["--sign-with", "KEY", "--out", "TAKEN"], "taken: exists already"),
    ],
)
def test_a_verdict_that_could_not_be_written_is_not_computed(
    options: list[str],
    words: str,
    build: Callable[..., Path],
    agree: Callable[..., Ran],
    tmp_path: Path,
    alice: Person,
    bob: Person,
) -> None:
    (tmp_path / "taken").write_text("mine")
    published, rebuilt = build("a", alice, equality=declared("bytes")), build("b", bob)
    replace = {"KEY": str(bob.private), "TAKEN": str(tmp_path / "taken")}
    before = tree(tmp_path)
    refused(agree(published, rebuilt, *(replace.get(word, word) for word in options)), 2, words)
    assert tree(tmp_path) == before


def test_one_model(build: Callable[..., Path], agree: Callable[..., Ran], alice: Person) -> None:
    refused(agree(build("a", alice, equality=declared("bytes"))), 2, "two models or more")


def test_without_a_key(build: Callable[..., Path], provenance: Shell, alice: Person) -> None:
    published = build("a", alice, equality=declared("bytes"))
    refused(provenance("agree", published, published), 2, "nothing is trusted by default")
    document = provenance("agree", published, published, "--json").document
    assert "nothing is trusted" in json.dumps(document)
