"""Metrics that a training statement recorded: where they are found, and what they may conclude."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from provenance.capture.draft import MAX_INLINE_BYTES, describe_bytes
from provenance.errors import MalformedError
from provenance.files.names import BYPRODUCTS
from provenance.folder.claims import read_byproduct
from provenance.rebuilding.agreement import agree
from provenance.rebuilding.verdict import Verifier, from_statement, to_statement
from provenance.statement import intoto, uris
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.metrics import MAX_BYTES
from tests.rebuilding.builds import files
from tests.world import attach, declared, state, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.rebuilding.verdict import Verdict
    from provenance.statement.training import TrainingStatement
    from provenance.trust.verification import Verified
    from tests.rebuilding.builds import Builds
    from tests.world import Person

    Build = Callable[..., Verified]

CURVES = b"""
format = 1
version = 1
name = "curves"

[[any]]
[[any.all]]
equality = "bytes"

[[any]]
[[any.all]]
equality = "curves"
files = ["*.safetensors"]
curves = ["loss"]
pointwise = 1e-3
points = 5
terminal = 1e-2
reason = "made up"
"""

SHORT = b'{"name":"loss","step":0,"value":2.0}\n'


def metrics(points: int = 50, end: float = 1.0) -> bytes:
    """Return a falling loss; the last ten points are *end* times as high."""
    return b"".join(
        b'{"name":"loss","step":%d,"value":%r}\n'
        % (step, 2 * 0.99**step * (end if step >= points - 10 else 1))
        for step in range(points)
    )


def stating(root: Path, *items: ResourceDescriptor) -> TrainingStatement:
    """Return a statement about *root* with *items* as its byproducts."""
    stated = state(root, equality=declared(CURVES))
    return msgspec.structs.replace(
        stated, run=msgspec.structs.replace(stated.run, byproducts=items)
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "model", files())


# --- Where they are found -------------------------------------------------------------------------


def test_metrics_in_the_statement_itself(root: Path) -> None:
    item, kept = describe_bytes("metrics", SHORT, "application/jsonl")
    assert not kept
    assert read_byproduct(root, stating(root, item), "metrics") == SHORT


def test_metrics_in_the_file_beside_the_weights(root: Path) -> None:
    data = metrics()
    item, kept = describe_bytes("metrics", data, "application/jsonl")
    assert len(data) > MAX_INLINE_BYTES
    assert kept == {item.digest["sha256"]: data}
    stated = stating(root, item)
    assert read_byproduct(root, stated, "metrics") is None
    name = f"{BYPRODUCTS}/{item.digest['sha256']}"
    path = write_files(root, {name: data}) / name
    assert read_byproduct(root, stated, "metrics") == data
    path.write_bytes(data + SHORT)
    assert read_byproduct(root, stated, "metrics") is None


def test_other_byproducts_are_no_metrics(root: Path) -> None:
    other, _ = describe_bytes("manifest/data", b"[]", "application/json")
    metric, _ = describe_bytes("metrics", SHORT, "application/jsonl")
    assert read_byproduct(root, stating(root), "metrics") is None
    assert read_byproduct(root, stating(root, other), "metrics") is None
    both = stating(root, other, metric)
    assert read_byproduct(root, both, "metrics") == SHORT


DIGEST = {"sha256": hashlib.sha256(SHORT).hexdigest()}
DOUBTFUL = {
    "content of another digest": ResourceDescriptor(name="metrics", digest=DIGEST, content="AAAA"),
    "content that is not base64": ResourceDescriptor(
        name="metrics", digest=DIGEST, content="not base64"
    ),
    "content without a digest": ResourceDescriptor(name="metrics", content="AAAA"),
    "another digest": ResourceDescriptor(name="metrics", digest={"sha512": "00" * 64}),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_what_has_no_digest_to_check_is_not_taken(root: Path, case: str) -> None:
    assert read_byproduct(root, stating(root, DOUBTFUL[case]), "metrics") is None


def test_a_file_that_is_too_long_is_not_read_and_one_behind_a_link_by_its_digest(
    root: Path, tmp_path: Path
) -> None:
    stated = stating(root, ResourceDescriptor(name="metrics", digest=DIGEST))
    path = write_files(root, {f"{BYPRODUCTS}/{DIGEST['sha256']}": SHORT}) / BYPRODUCTS
    path /= DIGEST["sha256"]
    assert read_byproduct(root, stated, "metrics") == SHORT
    with path.open("ab") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: nothing is written
    assert read_byproduct(root, stated, "metrics") is None
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(SHORT)
    path.symlink_to(tmp_path / "elsewhere")
    assert read_byproduct(root, stated, "metrics") == SHORT
    (tmp_path / "elsewhere").write_bytes(b"other")
    assert read_byproduct(root, stated, "metrics") is None


# --- What they conclude ---------------------------------------------------------------------------


@pytest.fixture
def build(builds: Builds) -> Build:
    """Have a person build a model with *noise* and record the metrics *data*."""

    def built(
        name: str, person: Person, data: bytes | None, noise: float = 0.1, *, keep: bool = True
    ) -> Verified:
        root = write_files(builds.folder / name / "model", files(noise))
        if data is None:
            attach(root, stating(root), person)
            return builds.check(root)
        item, beside = describe_bytes("metrics", data, "application/jsonl")
        attach(root, stating(root, item), person, beside if keep else {})
        return builds.check(root)

    return built


def sent(verdict: Verdict) -> intoto.Statement:
    """Return *verdict* as a reader gets it."""
    statement = to_statement(verdict, Verifier("key", "0.1", "2026-01-01T00:00:00Z"))
    return intoto.parse(intoto.format(statement))


def test_curves_that_agree_are_plausible_and_stated_as_nothing_more(
    build: Build, alice: Person, bob: Person
) -> None:
    verdict = agree([build("a", alice, metrics(), 0.0), build("b", bob, metrics(end=1.001))])
    assert (verdict.conclusion, verdict.strongest) == ("plausible", "curves")
    assert verdict.diameter is None
    assert verdict.reasons == ()
    statement = sent(verdict)
    assert statement.predicate_type == uris.VERDICT
    assert "properties" not in statement.predicate
    assert from_statement(statement) == verdict


def test_curves_that_agree_cannot_be_called_more(build: Build, alice: Person, bob: Person) -> None:
    verdict = agree([build("a", alice, metrics(), 0.0), build("b", bob, metrics())])
    for conclusion in ("match", "consistent"):
        whole = msgspec.structs.replace(verdict, conclusion=conclusion)
        with pytest.raises(MalformedError, match="its parts allow plausible at best"):
            from_statement(sent(whole))
        (rebuild,) = verdict.rebuilds
        outcome = msgspec.structs.replace(rebuild.outcome, conclusion=conclusion)
        rebuilds = (msgspec.structs.replace(rebuild, outcome=outcome),)
        with pytest.raises(MalformedError, match=f"a rebuild is called {conclusion} by curves"):
            from_statement(sent(msgspec.structs.replace(whole, rebuilds=rebuilds)))


def test_the_same_files_match_whatever_their_curves(
    build: Build, alice: Person, bob: Person
) -> None:
    verdict = agree([build("a", alice, metrics()), build("b", bob, None)])
    assert (verdict.conclusion, verdict.strongest) == ("match", "bytes")


def test_curves_of_another_end_are_a_mismatch(build: Build, alice: Person, bob: Person) -> None:
    verdict = agree([build("a", alice, metrics(), 0.0), build("b", bob, metrics(end=1.1))])
    assert (verdict.conclusion, verdict.strongest) == ("mismatch", None)


@pytest.mark.parametrize(
    ("left", "right", "side"),
    [(metrics(), None, "right"), (None, metrics(), "left"), (metrics(), b"junk\n", "right")],
)
def test_metrics_that_are_not_at_hand_are_inconclusive(
    build: Build,
    alice: Person,
    bob: Person,
    left: bytes | None,
    right: bytes | None,
    side: str,
) -> None:
    verdict = agree([build("a", alice, left, 0.0), build("b", bob, right)])
    assert (verdict.conclusion, verdict.strongest) == ("inconclusive", None)
    (reason,) = verdict.reasons
    assert reason.startswith(f"rebuild 1: recorded metrics ({side}):")
    assert from_statement(sent(verdict)) == verdict


def test_weights_copied_without_their_byproducts_are_inconclusive(
    build: Build, alice: Person, bob: Person
) -> None:
    models = [build("a", alice, metrics(), 0.0), build("b", bob, metrics(), keep=False)]
    assert agree(models).conclusion == "inconclusive"


def test_the_weakest_rebuild_decides(
    build: Build, alice: Person, bob: Person, mallory: Person
) -> None:
    models = [
        build("a", alice, metrics(), 0.0),
        build("b", bob, metrics(), 0.0),
        build("c", mallory, metrics()),
    ]
    verdict = agree(models, quorum=3)
    assert [rebuild.outcome.strongest for rebuild in verdict.rebuilds] == ["bytes", "curves"]
    assert (verdict.conclusion, verdict.strongest) == ("plausible", "curves")
    assert from_statement(sent(verdict)) == verdict
