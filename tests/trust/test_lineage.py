from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import provenance
from provenance.errors import UsageError
from provenance.files.manifest import FileEntry, Manifest, hash_folder, hash_path
from provenance.files.names import RESERVED
from provenance.statement.training import Input, Outcome, TrainingStatement, describe_input
from provenance.trust import lineage
from provenance.trust.lineage import trace
from provenance.trust.opening import Claim
from tests import world
from tests.world import RECIPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.envelope.dsse import Opened
    from tests.world import Person, Shell


def base_of(path: Path, name: str = "") -> Input:
    """Return what ``--base-model`` states of *path*."""
    whole = path.is_dir()
    manifest = hash_folder(path, ignore=RESERVED) if whole else hash_path(path)
    return describe_input(name or path.name, manifest)[0]


def made(
    folder: Path, person: Person, *, base: Input | None = None, outcome: Outcome | None = None
) -> Path:
    """Return a model in *folder* that *person* attested to have made from *base*."""
    for name in ("weights", "checkpoint-1/weights", "checkpoint-1/optimizer"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{folder.name} {name}")
    recipe = msgspec.structs.replace(RECIPE, base_model=base)
    return world.attest(folder, person, recipe=recipe, outcome=outcome)


def ancestors(model: Path, person: Person, *bases: Path, others: tuple[Person, ...] = ()) -> Any:  # noqa: ANN401
    keys = [each.public for each in (person, *others)]
    found = provenance.verify(model, keys=keys, bases=bases).ancestors
    return [(it.name, it.signer, it.part, it.problem) for it in found]


NOT_HERE = "no trusted claim about it is here"


def test_a_chain_goes_back_to_where_it_began(tmp_path: Path, alice: Person, bob: Person) -> None:
    one = made(tmp_path / "one", alice)
    two = made(tmp_path / "two", bob, base=base_of(one))
    three = made(tmp_path / "three", alice, base=base_of(two))
    both = [("two", bob.key_id, "", ""), ("one", alice.key_id, "", "")]
    assert ancestors(three, alice, two, one, others=(bob,)) == both
    assert ancestors(three, alice, two, others=(bob,)) == [both[0], ("one", "", "", NOT_HERE)]
    assert ancestors(three, alice, two, one) == [("two", "", "", NOT_HERE)]
    assert ancestors(three, alice) == [("two", "", "", NOT_HERE)]


def test_claims_are_enough_and_may_lie_with_the_model(tmp_path: Path, alice: Person) -> None:
    one = made(tmp_path / "one", alice)
    two = made(tmp_path / "two", alice, base=base_of(one))
    expected = [("one", alice.key_id, "", "")]
    assert ancestors(two, alice, one / "claims.jsonl") == expected
    claims = [(each / "claims.jsonl").read_bytes() for each in (two, one)]
    (two / "claims.jsonl").write_bytes(b"".join(claims))
    assert ancestors(two, alice) == expected


def test_a_training_goes_on_from_a_checkpoint_of_one_that_was_killed(
    tmp_path: Path, alice: Person
) -> None:
    killed = made(tmp_path / "killed", alice, outcome=Outcome(signal="SIGTERM"))
    problem = "the training command was killed by SIGTERM"
    for part in ("checkpoint-1", "checkpoint-1/weights"):
        name = part.replace("/", "-")
        later = made(tmp_path / f"from-{name}", alice, base=base_of(killed / part))
        last = part.rpartition("/")[2]
        assert ancestors(later, alice, killed) == [(last, alice.key_id, part, problem)]


@pytest.mark.parametrize("how", ["file", "name", "extra", "moved"])
def test_a_base_that_is_not_what_was_claimed_breaks_the_chain(
    tmp_path: Path, alice: Person, how: str
) -> None:
    one = made(tmp_path / "one", alice)
    if how == "file":
        (one / "weights").write_text("other")
    elif how == "extra":
        (one / "extra").write_text("x")
    else:
        (one / "weights").rename(one / ("weights2" if how == "name" else "checkpoint-1/x"))
    two = made(tmp_path / "two", alice, base=base_of(one))
    assert ancestors(two, alice, one) == [("one", "", "", NOT_HERE)]


def test_the_digests_of_a_base_must_be_of_the_same_files(tmp_path: Path, alice: Person) -> None:
    one, other = made(tmp_path / "one", alice), made(tmp_path / "other", alice)
    mixed = msgspec.structs.replace(base_of(one), digest=base_of(other).digest)
    two = made(tmp_path / "two", alice, base=mixed)
    assert ancestors(two, alice, one, other) == [("one", "", "", NOT_HERE)]


def test_a_good_claim_counts_before_one_of_a_failed_training(tmp_path: Path, alice: Person) -> None:
    one = made(tmp_path / "one", alice, outcome=Outcome(1))
    world.attest(one, alice)
    two = made(tmp_path / "two", alice, base=base_of(one))
    assert ancestors(two, alice, one) == [("one", alice.key_id, "", "")]


def test_another_origin_of_the_same_files_is_said(
    tmp_path: Path, alice: Person, bob: Person
) -> None:
    origin = made(tmp_path / "origin", alice)
    one = made(tmp_path / "one", alice, base=base_of(origin))
    world.attest(one, bob)  # as if it had begun with nothing
    two = made(tmp_path / "two", alice, base=base_of(one))
    differ = "trusted claims differ in its origin"
    found = ancestors(two, alice, one, origin, others=(bob,))
    assert found == [("one", alice.key_id, "", differ), ("origin", alice.key_id, "", "")]
    assert ancestors(two, alice, one, origin)[0] == ("one", alice.key_id, "", "")


def test_a_checkpoint_is_of_the_job_that_wrote_it(tmp_path: Path, alice: Person) -> None:
    """The next job goes on in the same folder, and leaves it there."""
    first = made(tmp_path / "z/model", alice)
    checkpoint = base_of(first / "checkpoint-1")
    second = tmp_path / "a/model"
    shutil.copytree(first, second)
    (second / "weights").write_text("later")
    world.attest(second, alice, recipe=msgspec.structs.replace(RECIPE, base_model=checkpoint))
    third = made(tmp_path / "third", alice, base=checkpoint)
    expected = [("checkpoint-1", alice.key_id, "checkpoint-1", "")]
    assert ancestors(third, alice, second, first) == expected


def _counted(calls: list[str]) -> Callable[[str, Manifest], tuple[Input, bytes]]:
    def describe(name: str, manifest: Manifest) -> tuple[Input, bytes]:
        calls.append(name)
        return describe_input(name, manifest)

    return describe


def test_parts_of_deep_folders_are_bounded(
    model: Path, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = claims_of([(1, 2)], model, alice)
    entries = tuple(FileEntry("a/" * 1500 + str(n), 1, "0" * 64) for n in range(300))
    deep = msgspec.structs.replace(one.training, manifest=Manifest(entries))
    described: list[str] = []
    monkeypatch.setattr(lineage, "describe_input", _counted(described))
    (found,) = trace(one, [Claim("x", deep, one.opened, one.bundle)])
    assert found.problem == NOT_HERE
    assert len(described) == 1 + 300 + lineage.MAX_DEPTH


def test_a_line_that_is_not_understood_hides_no_other(
    tmp_path: Path, alice: Person, bob: Person
) -> None:
    one = made(tmp_path / "one", alice)
    two = made(tmp_path / "two", alice, base=base_of(one))
    later = world.statement_document(world.state(one))
    later["predicate"]["buildDefinition"]["externalParameters"]["of a later version"] = 1
    lines = (one / "claims.jsonl").read_bytes()
    for strange in (
        world.sign_document(later, alice),
        world.edit_bundle(
            world.sign_document(later, bob),
            lambda it: it["verificationMaterial"]["publicKey"].update(hint=alice.key_id),
        ),
    ):
        (one / "claims.jsonl").write_bytes(strange + b"\n" + lines)
        assert ancestors(two, alice, one) == [("one", alice.key_id, "", "")]
        (one / "claims.jsonl").write_bytes(strange + b"\n")
        assert ancestors(two, alice, one / "claims.jsonl") == [("one", "", "", NOT_HERE)]


def test_claims_of_no_base_model_are_refused(tmp_path: Path, alice: Person) -> None:
    one = made(tmp_path / "one", alice)
    with pytest.raises(UsageError, match="no base model"):
        ancestors(one, alice, one)


def stated(number: int, base: int | None, like: TrainingStatement) -> TrainingStatement:
    recipe = msgspec.structs.replace(
        RECIPE, base_model=None if base is None else describe_input(f"m{base}", files(base))[0]
    )
    build = msgspec.structs.replace(like.build, external_parameters=recipe)
    return msgspec.structs.replace(like, manifest=files(number), build=build)


def files(number: int) -> Manifest:
    return Manifest((FileEntry("weights", 1, f"{number:064x}"),))


def claims_of(pairs: list[tuple[int, int | None]], model: Path, person: Person) -> list[Claim]:
    found = provenance.verify(model, keys=[person.public]).claim
    assert found is not None
    opened: Opened = found.opened
    states = (stated(number, base, found.training) for number, base in pairs)
    return [Claim("x", each, opened, found.bundle) for each in states]


def test_a_loop_ends(model: Path, alice: Person) -> None:
    claims = claims_of([(1, 2), (2, 3), (3, 1)], model, alice)
    found = trace(claims[0], claims)
    assert [(it.name, it.problem) for it in found] == [
        ("m2", ""),
        ("m3", ""),
        ("m1", NOT_HERE),
    ]
    later = claims_of([(1, 2), (2, 3), (3, 2)], model, alice)
    assert [it.problem for it in trace(later[0], later)] == ["", "", "an ancestor twice"]
    own = claims_of([(1, 1)], model, alice)
    assert [it.problem for it in trace(own[0], own)] == [NOT_HERE]


def test_a_training_may_leave_the_files_that_it_began_with(tmp_path: Path, alice: Person) -> None:
    one = made(tmp_path / "a/one", alice)
    two = made(tmp_path / "b/one", alice, base=base_of(one))
    assert base_of(one) == base_of(two)
    assert ancestors(two, alice, one) == [("one", alice.key_id, "", "")]


def test_ten_thousand_links_describe_each_claim_once(
    model: Path, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 10_000
    pairs = [(n, n + 1 if n + 1 < number else None) for n in range(number)]
    claims = claims_of(pairs, model, alice)
    described: list[str] = []
    monkeypatch.setattr(lineage, "describe_input", _counted(described))
    found = trace(claims[0], claims)
    assert len(found) == number - 1
    assert found[-1].problem == ""
    assert len(described) == number - 1  # all but the model's own


def test_the_chain_is_shown(tmp_path: Path, alice: Person, bob: Person, provenance: Shell) -> None:
    one = made(tmp_path / "one", bob)
    two = made(tmp_path / "two", alice, base=base_of(one))
    key = ("--key", alice.public)
    ran = provenance("verify", two, *key, "--base", one, "--json")
    (link,) = ran.document["ancestors"]
    assert link == {"name": "one", "rootDigest": link["rootDigest"], "problem": NOT_HERE}
    lines = provenance("verify", two, *key, "--base", one).out.splitlines()
    assert NOT_HERE in next(line for line in lines if "made from" in line)
    ran = provenance("verify", two, *key, "--key", bob.public, "--base", one)
    line = next(line for line in ran.out.splitlines() if "made from" in line)
    assert "recorded (as bob.pub says); that began with no base model" in line
