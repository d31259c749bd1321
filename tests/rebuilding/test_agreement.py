"""When rebuilds agree, when they do not, and when nothing can be said."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from provenance.equality import declaration
from provenance.errors import PolicyError, UsageError
from provenance.files.manifest import FileEntry
from provenance.files.names import CLAIMS
from provenance.rebuilding.agreement import agree
from provenance.rebuilding.verdict import Verifier, from_statement, to_statement
from provenance.statement.training import ChangedInput, Collected, Metadata, Outcome, Recipe
from tests.rebuilding.builds import CLOSE, LAX, files, padded, payload_digest
from tests.world import RECIPE, declared, sign_payload, write_files

if TYPE_CHECKING:
    from provenance.trust.verification import Verified
    from tests.rebuilding.builds import Builds
    from tests.world import Person


def test_the_same_bytes_match(builds: Builds, alice: Person, bob: Person) -> None:
    models = [builds("a", alice, equality=declared(CLOSE)), builds("b", bob)]
    verdict = agree(models)
    assert (verdict.conclusion, verdict.strongest) == ("match", "bytes")
    assert verdict.equality.declared
    assert verdict.builders == tuple(sorted([alice.key_id, bob.key_id]))
    assert verdict.reasons == ()
    assert verdict.diameter is None
    assert verdict.published.attestation == {"sha256": payload_digest(models[0])}


def test_a_cache_that_one_run_added_to_its_data_changes_nothing(
    builds: Builds, alice: Person, bob: Person
) -> None:
    cache = ChangedInput("data:train", added=(FileEntry("labels.cache", 3, "44" * 32),))
    models = [
        builds("a", alice, equality=declared(CLOSE), outcome=Outcome(0, changed_inputs=(cache,))),
        builds("b", bob),
    ]
    verdict = agree(models)
    assert (verdict.conclusion, verdict.strongest, verdict.reasons) == ("match", "bytes", ())
    assert verdict.builders == tuple(sorted([alice.key_id, bob.key_id]))
    assert [rebuild.recipe_differences for rebuild in verdict.rebuilds] == [()]


def test_a_container_that_differs_matches_by_tensors(
    builds: Builds, alice: Person, bob: Person
) -> None:
    text = CLOSE.replace(b'equality = "bytes"', b'equality = "tensors"')
    models = [
        builds("a", alice, equality=declared(text)),
        builds("b", bob, padded(files())),
    ]
    verdict = agree(models)
    assert (verdict.conclusion, verdict.strongest) == ("match", "tensors")


def test_a_small_distance_is_consistent_and_never_a_match(
    builds: Builds, alice: Person, bob: Person
) -> None:
    models = [builds("a", alice, equality=declared(CLOSE)), builds("b", bob, files(1e-4))]
    verdict = agree(models)
    assert (verdict.conclusion, verdict.strongest) == ("consistent", "close")
    assert verdict.diameter is not None
    assert verdict.diameter.relative_l2_update is not None
    assert 0 < verdict.diameter.relative_l2_update < 1e-3


def test_a_large_distance_is_a_mismatch(builds: Builds, alice: Person, bob: Person) -> None:
    models = [builds("a", alice, equality=declared(CLOSE)), builds("b", bob, files(0.1))]
    assert agree(models).conclusion == "mismatch"


def test_each_rebuild_is_compared_with_the_published_model_and_the_diameter_told(
    builds: Builds, alice: Person, bob: Person, mallory: Person
) -> None:
    # Closeness is not transitive: both are near the published one, and twice as far apart.
    models = [
        builds("a", alice, equality=declared(CLOSE)),
        builds("b", bob, files(3e-4)),
        builds("c", mallory, files(-3e-4)),
    ]
    verdict = agree(models, quorum=3)
    assert verdict.conclusion == "consistent"
    one = verdict.rebuilds[0].outcome.distances[0].relative_l2_update
    assert verdict.diameter is not None
    assert verdict.diameter.relative_l2_update == pytest.approx(2 * (one or 0), rel=0.01)


def test_one_dissenter_is_not_outvoted(
    builds: Builds, alice: Person, bob: Person, mallory: Person
) -> None:
    models = [
        builds("a", alice, equality=declared("bytes")),
        builds("b", bob),
        builds("c", mallory, files(1.0)),
    ]
    assert agree(models, quorum=2).conclusion == "mismatch"


def test_one_key_counts_once(builds: Builds, alice: Person) -> None:
    models = [builds("a", alice, equality=declared("bytes")), builds("b", alice)]
    verdict = agree(models)
    assert verdict.conclusion == "inconclusive"
    assert verdict.reasons == ("1 of 2 builders: models by one signer count once",)


def test_the_same_model_twice_counts_once(builds: Builds, alice: Person) -> None:
    model = builds("a", alice, equality=declared("bytes"))
    assert agree([model, model]).conclusion == "inconclusive"


# --- Builders -------------------------------------------------------------------------------------


def countersigned(builds: Builds, model: Verified, name: str, person: Person) -> Verified:
    """Return a copy of *model* in which *person* signs the bytes that somebody attested."""
    assert model.claim is not None
    root = write_files(builds.folder / name / "model", files())
    (root / CLAIMS).write_bytes(sign_payload(model.claim.opened.payload, person) + b"\n")
    return builds.check(root)


@pytest.mark.parametrize("first", [True, False])
def test_an_attestation_is_one_builder_whoever_signs_it_again(
    first: bool, builds: Builds, alice: Person, bob: Person
) -> None:
    published = builds("a", alice, equality=declared("bytes"))
    again = countersigned(builds, published, "b", bob)
    verdict = agree([again, published] if first else [published, again])
    assert (verdict.conclusion, verdict.builders) == ("inconclusive", (alice.key_id,))
    who = "the published model" if first else "rebuild 1"
    assert verdict.reasons == (
        f"{who} does not count as a builder: it names another signer than the key that signed it",
        "1 of 2 builders",
    )
    assert [party.counted for party in verdict.parties] == [not first, first]
    assert from_statement(to_statement(verdict, Verifier("key", "0", ""))) == verdict


def test_a_key_that_signed_for_another_counts_with_a_run_of_its_own(
    builds: Builds, alice: Person, bob: Person
) -> None:
    published = builds("a", alice, equality=declared("bytes"))
    again = countersigned(builds, published, "b", bob)
    verdict = agree([published, again, builds("c", bob)])
    assert (verdict.conclusion, len(verdict.builders)) == ("match", 2)
    assert [party.counted for party in verdict.parties] == [True, False, True]
    assert from_statement(to_statement(verdict, Verifier("key", "0", ""))) == verdict


def test_one_run_is_one_builder_whoever_attests_it(
    builds: Builds, alice: Person, bob: Person
) -> None:
    models = [
        builds("a", alice, equality=declared("bytes"), run=Metadata("one")),
        builds("b", bob, run=Metadata("one")),
    ]
    verdict = agree(models)
    assert verdict.conclusion == "inconclusive"
    assert verdict.reasons == (
        "rebuild 1 does not count as a builder: another signer attested the same run",
        "1 of 2 builders",
    )
    assert agree([models[0], builds("c", bob, run=Metadata("two"))]).conclusion == "match"


def test_what_is_published_is_named_by_its_digest(
    builds: Builds, alice: Person, bob: Person
) -> None:
    verdict = agree([builds("a", alice, equality=declared("bytes")), builds("b", bob)])
    lines = [(builds.folder / name / "model" / CLAIMS).read_bytes().rstrip() for name in "ab"]
    assert [party.bundle for party in verdict.parties] == [
        {"sha256": hashlib.sha256(line).hexdigest()} for line in lines
    ]


# --- Files that were perhaps read -----------------------------------------------------------------

STRAY = {"untracked": Collected("ok", {"count": 1, "files": {"err.txt": "55" * 32}})}


@pytest.mark.parametrize(
    ("text", "contents", "conclusion", "strongest"),
    [
        (CLOSE, files(), "match", "bytes"),
        (CLOSE, files(1e-4), "inconclusive", "close"),
        (CLOSE.replace(b'"bytes"', b'"tensors"'), padded(files()), "inconclusive", "tensors"),
        (CLOSE, files(0.1), "mismatch", None),
    ],
)
def test_a_file_that_was_perhaps_read_costs_an_exact_rebuild_nothing(
    text: bytes,
    contents: dict[str, bytes],
    conclusion: str,
    strongest: str | None,
    builds: Builds,
    alice: Person,
    bob: Person,
) -> None:
    models = [
        builds("a", alice, equality=declared(text)),
        builds("b", bob, contents, collectors=STRAY),
    ]
    verdict = agree(models)
    assert (verdict.conclusion, verdict.strongest) == (conclusion, strongest)
    assert (verdict.recipe, verdict.rebuilds[0].recipe_differences) == ("unknown", ())
    assert "rebuild 1: the recipe is unknown: perhaps read: err.txt" in verdict.reasons
    assert verdict.rebuilds[0].environment_differences == ()
    assert from_statement(to_statement(verdict, Verifier("key", "0", ""))) == verdict


def test_a_quorum_of_three(builds: Builds, alice: Person, bob: Person, mallory: Person) -> None:
    models = [builds("a", alice, equality=declared("bytes")), builds("b", bob)]
    assert agree(models, quorum=3).conclusion == "inconclusive"
    assert agree([*models, builds("c", mallory)], quorum=3).conclusion == "match"


def test_too_few_to_agree(builds: Builds, alice: Person) -> None:
    model = builds("a", alice, equality=declared("bytes"))
    with pytest.raises(UsageError, match="two models"):
        agree([model])
    with pytest.raises(UsageError, match="below two"):
        agree([model, model], quorum=1)


def test_nothing_declared_proves_nothing(builds: Builds, alice: Person, bob: Person) -> None:
    models = [builds("a", alice), builds("b", bob, equality=declared("bytes"))]
    with pytest.raises(PolicyError, match="chosen afterwards proves nothing"):
        agree(models)  # the rebuilder's declaration does not count


def test_the_published_declaration_applies_whatever_the_rebuilder_declares(
    builds: Builds, alice: Person, bob: Person
) -> None:
    published = builds("a", alice, equality=declared(CLOSE))
    verdict = agree([published, builds("b", bob, files(0.1), equality=declared(LAX))])
    assert verdict.conclusion == "mismatch"
    assert verdict.equality.sha256 == declared(CLOSE).sha256


def test_a_rebuild_that_names_no_declaration_does_not_show_which_came_first(
    builds: Builds, alice: Person, bob: Person
) -> None:
    published = builds("a", alice, equality=declared(LAX))
    verdict = agree([published, builds("b", bob, files(0.1), equality=None)])
    assert verdict.conclusion == "inconclusive"
    assert verdict.reasons == (
        "rebuild 1 names no declaration: whether the published one is older is not known",
    )
    same = agree([published, builds("c", bob, equality=None)])
    assert (same.conclusion, same.reasons) == (
        "match",
        (),
    )  # no declaration is lax enough to matter


def test_another_equality_is_marked(builds: Builds, alice: Person, bob: Person) -> None:
    models = [builds("a", alice, equality=declared(CLOSE)), builds("b", bob, files(0.1))]
    verdict = agree(models, unsafe_equality=declaration.parse(LAX))
    assert verdict.conclusion == "consistent"
    assert not verdict.equality.declared


def test_a_model_that_only_has_a_signature(builds: Builds, alice: Person, bob: Person) -> None:
    published = builds("a", alice, equality=declared("bytes"))
    builds("b", bob)
    (builds.folder / "b" / "model" / "claims.jsonl").unlink()
    with pytest.raises(PolicyError, match="no training statement"):
        agree([published, builds.check(builds.folder / "b" / "model")])


OTHER_RECIPES: dict[str, dict[str, Any]] = {
    "the command has --fast": {"command": (*RECIPE.command, "--fast")},
    "the file train.py": {"source": None},
    "the configuration train": {"config": RECIPE.data},
    "the data train": {
        "data": (msgspec.structs.replace(RECIPE.data[0], digest={"sha256": "44" * 32}),)
    },
    "the base model train": {"base_model": RECIPE.data[0]},
    "the seed numpy": {"seeds": {"numpy": "1"}},
}


@pytest.mark.parametrize("part", OTHER_RECIPES)
def test_another_recipe_is_a_mismatch_even_where_the_bits_agree(
    part: str, builds: Builds, alice: Person, bob: Person
) -> None:
    other: Recipe = msgspec.structs.replace(RECIPE, **OTHER_RECIPES[part])
    models = [builds("a", alice, equality=declared("bytes")), builds("b", bob, recipe=other)]
    verdict = agree(models)
    assert verdict.conclusion == "mismatch"
    assert any(
        reason.startswith(f"rebuild 1 followed another recipe: {part} ")
        for reason in verdict.reasons
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"command": ()}, "no command"),
        ({"source": None}, "no code"),
        ({"command": ("train", "--token", "${redacted:token}")}, "a redacted argument"),
    ],
)
def test_a_recipe_that_nobody_can_repeat_is_inconclusive(
    changes: dict[str, Any], words: str, builds: Builds, alice: Person, bob: Person
) -> None:
    open_recipe = msgspec.structs.replace(RECIPE, **changes)
    models = [
        builds("a", alice, equality=declared("bytes"), recipe=open_recipe),
        builds("b", bob, recipe=open_recipe),
    ]
    verdict = agree(models)
    assert (verdict.conclusion, verdict.recipe) == ("inconclusive", "unknown")
    assert any(f"the recipe is unknown: it names {words}" in each for each in verdict.reasons)


@pytest.mark.parametrize(("noise", "conclusion"), [(0.0, "match"), (1e-4, "inconclusive")])
def test_a_recipe_without_data_can_match_by_bytes_alone(
    noise: float, conclusion: str, builds: Builds, alice: Person, bob: Person
) -> None:
    none = msgspec.structs.replace(RECIPE, data=())
    models = [
        builds("a", alice, equality=declared(CLOSE), recipe=none),
        builds("b", bob, files(noise), recipe=none),
    ]
    verdict = agree(models)
    assert verdict.conclusion == conclusion
    assert verdict.reasons == ("rebuild 1: the recipe is unknown: it names no data",)


def test_attested_after_the_fact_is_no_rebuild(builds: Builds, alice: Person, bob: Person) -> None:
    after = msgspec.structs.replace(RECIPE, command=())
    models = [
        builds("a", alice, equality=declared("bytes")),
        builds("b", bob, recipe=after, outcome=Outcome()),
    ]
    assert agree(models).conclusion == "mismatch"


def test_environments_that_differ_are_told_and_do_not_decide(
    builds: Builds, alice: Person, bob: Person
) -> None:
    models = [
        builds("a", alice, equality=declared("bytes")),
        builds("b", bob, environment={"OMP_NUM_THREADS": "8", "deep": {"x": 1}}),
    ]
    verdict = agree(models)
    assert verdict.conclusion == "match"
    assert verdict.rebuilds[0].environment_differences == (
        "variables.OMP_NUM_THREADS",
        "variables.deep",
    )


def test_weights_that_cannot_be_read_are_inconclusive(
    builds: Builds, alice: Person, bob: Person
) -> None:
    broken = files() | {"model.safetensors": b"not a weight file"}
    models = [builds("a", alice, equality=declared(CLOSE)), builds("b", bob, broken)]
    verdict = agree(models)
    assert verdict.conclusion in ("inconclusive", "mismatch")
    assert verdict.strongest is None


def test_the_bytes_that_are_compared_or_hashed_are_told(
    builds: Builds, alice: Person, bob: Person
) -> None:
    heard: list[int] = []
    models = [builds("a", alice, equality=declared(CLOSE)), builds("b", bob, files(1e-4))]
    agree(models, on_bytes=heard.append)
    again = (builds.folder / "b/model/initial.safetensors").stat().st_size
    assert sum(heard) == 400 + again  # a hundred float32 of each side; alice's start is bob's too


def test_a_declaration_laxer_than_the_one_that_was_rebuilt_under_is_inconclusive(
    builds: Builds, alice: Person, bob: Person
) -> None:
    models = [
        builds("a", alice, equality=declared(LAX)),
        builds("b", bob, files(1e-2), equality=declared(CLOSE)),
    ]
    verdict = agree(models)
    assert verdict.conclusion == "inconclusive"
    assert any("another declaration" in reason for reason in verdict.reasons)
