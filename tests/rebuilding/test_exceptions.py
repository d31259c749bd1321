"""A verdict over models that differ where their declaration says that they may."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from provenance.errors import MalformedError
from provenance.loaders.table import table
from provenance.rebuilding.agreement import agree
from provenance.rebuilding.verdict import (
    TENSORS_PROPERTY,
    Verifier,
    from_statement,
    to_statement,
)
from provenance.statement import intoto, uris
from provenance.statement.training import Input
from tests.rebuilding.builds import files
from tests.world import RECIPE, declared

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.rebuilding.verdict import Verdict
    from tests.rebuilding.builds import Builds
    from tests.world import Person

DECLARATION = """
format = 1
version = 1
name = "numbers"
exceptions = ["hf-trainer"]

[[any]]
[[any.all]]
equality = "bytes"
files = ["*.safetensors"]

[[except]]
file = "adapter_config.json"
keys = ["base_model_name_or_path"]
as = "base-model"
reason = "a path"
"""
BASE = Input("base", {"sha256": "44" * 32}, "55" * 32, 2, 9)
RUNTIME = "log_history[].train_runtime"


def model(runtime: float = 1, base: str = "base") -> dict[str, bytes]:
    trained = {"log_history": [{"train_runtime": runtime}]}
    return {
        **files(),
        "trainer_state.json": json.dumps(trained).encode(),
        "adapter_config.json": json.dumps({"base_model_name_or_path": base}).encode(),
    }


@pytest.fixture
def verdict(builds: Builds, alice: Person, bob: Person) -> Verdict:
    published = builds("a", alice, model(), equality=declared(DECLARATION.encode()))
    return agree([published, builds("b", bob, model(2))], independent=True)


def test_what_was_excepted_is_listed_and_nothing_is_reproduced(verdict: Verdict) -> None:
    assert (verdict.conclusion, verdict.strongest) == ("match", "tensors")
    (used,) = verdict.rebuilds[0].outcome.exceptions
    assert (used.file, used.key, used.set) == ("trainer_state.json", RUNTIME, "hf-trainer 1")
    assert verdict.rebuilds[0].outcome.loaders == table().version
    statement = to_statement(verdict, Verifier("k", "0", "2026-01-01T00:00:00Z"))
    data = intoto.format(statement)
    assert statement.predicate_type == uris.IN_TOTO_SVR
    assert statement.predicate["properties"] == [TENSORS_PROPERTY]
    assert b"REPRODUCED" not in data
    assert b"SAME_BYTES" not in data
    assert from_statement(intoto.parse(data)) == verdict


def test_the_same_files_are_reproduced_whatever_the_declaration_excepts(
    builds: Builds, alice: Person, bob: Person
) -> None:
    models = [builds("a", alice, model(), equality=declared(DECLARATION.encode()))]
    verdict = agree([*models, builds("b", bob, model())], independent=True)
    assert (verdict.conclusion, verdict.strongest) == ("match", "bytes")


def test_a_base_model_may_have_another_name_where_both_claims_name_it_by_its_digest(
    builds: Builds, alice: Person, bob: Person
) -> None:
    known = msgspec.structs.replace(RECIPE, base_model=BASE)
    other = msgspec.structs.replace(BASE, manifest="66" * 32)
    recipes = {
        "same": known,
        "moved": msgspec.structs.replace(
            RECIPE, base_model=msgspec.structs.replace(BASE, name="x")
        ),
        "other": msgspec.structs.replace(RECIPE, base_model=other),
        "none": RECIPE,
    }
    equality = declared(DECLARATION.encode())
    published = builds("a", alice, model(), equality=equality, recipe=known)
    found = {
        name: agree([published, builds(name, bob, model(base="/home/b"), recipe=each)])
        for name, each in recipes.items()
    }
    concluded = {name: each.rebuilds[0].outcome.conclusion for name, each in found.items()}
    assert concluded == {"same": "match", "moved": "match", "other": "mismatch", "none": "mismatch"}
    (against,) = found["other"].rebuilds[0].outcome.alternatives[0].findings
    assert (against.measure, against.note) == ("value: base_model_name_or_path", "other-base")
    (used,) = found["moved"].rebuilds[0].outcome.exceptions
    assert (used.left, used.right) == ('"base"', '"/home/b"')


def _used(body: dict[str, Any]) -> dict[str, Any]:
    used: dict[str, Any] = body["rebuilds"][0]["outcome"]["exceptions"][0]
    return used


def _another_key(body: dict[str, Any]) -> None:
    _used(body)["key"] = "log_history[].loss"


def _another_file(body: dict[str, Any]) -> None:
    _used(body)["file"] = "config.json"


def _the_whole_file(body: dict[str, Any]) -> None:
    _used(body)["key"] = None


def _another_reason(body: dict[str, Any]) -> None:
    _used(body)["reason"] = "harmless"


def _said_to_be_safe(body: dict[str, Any]) -> None:
    _used(body)["unsafe"] = True


def _of_no_set(body: dict[str, Any]) -> None:
    _used(body)["set"] = None


def _without_the_declaration(body: dict[str, Any]) -> None:
    del body["equality"]["declaration"]


def _a_laxer_declaration(body: dict[str, Any]) -> None:
    lax = DECLARATION + '[[unsafe_except]]\nfile = "config.json"\nreason = "all"\n'
    body["equality"]["declaration"] = declared(lax.encode()).declaration


def _called_bytes(body: dict[str, Any]) -> None:
    body["rebuilds"][0]["outcome"]["strongest"] = "bytes"
    body["rebuilds"][0]["outcome"]["alternatives"][0]["strength"] = "bytes"
    body["rebuilds"][0]["party"]["rootDigest"] = body["published"]["rootDigest"]


@pytest.mark.parametrize(
    "forge",
    [
        _another_key,
        _another_file,
        _the_whole_file,
        _another_reason,
        _said_to_be_safe,
        _of_no_set,
        _without_the_declaration,
        _a_laxer_declaration,
        _called_bytes,
    ],
)
def test_a_verdict_that_its_declaration_does_not_allow_contradicts_itself(
    verdict: Verdict, forge: Callable[[dict[str, Any]], None]
) -> None:
    statement = to_statement(verdict, Verifier("k", "0", "2026-01-01T00:00:00Z"))
    document = json.loads(intoto.format(statement))
    forge(document["predicate"]["provenance_verdict"])
    with pytest.raises(MalformedError, match="contradicts itself"):
        from_statement(intoto.parse(json.dumps(document).encode()))
