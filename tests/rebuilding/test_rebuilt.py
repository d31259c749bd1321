"""When ``verify`` says *rebuilt*: by a verdict about this very claim, and by nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from provenance.api import checking
from provenance.errors import (
    MalformedError,
    PolicyError,
    ProvenanceError,
    SignatureError,
    UnreadableError,
)
from provenance.rebuilding.agreement import agree
from provenance.rebuilding.verdict import Verifier, to_statement
from provenance.statement.training import Metadata, Outcome
from tests.rebuilding.builds import CLOSE, files
from tests.world import declared, refused, sign_verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.rebuilding.verdict import Verdict
    from provenance.trust.verification import Verified
    from tests.rebuilding.builds import Builds
    from tests.world import Person, Shell


class Told(NamedTuple):
    """Alice's model, a verdict that two built it, and who signs verdicts."""

    published: Verified
    verdict: Verdict
    path: Path
    keys: list[Any]

    def write(self, signer: Person, verdict: Verdict | None = None, names: str = "") -> None:
        verifier = Verifier(names or signer.key_id, "0.1", "2026-01-01T00:00:00Z")
        statement = to_statement(verdict or self.verdict, verifier)
        self.path.write_bytes(sign_verdict(statement, signer) + b"\n")

    def verify(self, require: Any = "rebuilt") -> Verified:  # noqa: ANN401 - a level
        root = self.published.root
        return checking.verify(root, keys=self.keys, verdict=self.path, require=require)


@pytest.fixture
def told(builds: Builds, alice: Person, bob: Person, larry: Person, tmp_path: Path) -> Told:
    models = [builds("a", alice, equality=declared(CLOSE)), builds("b", bob)]
    told = Told(
        models[0],
        agree(models, independent=True),
        tmp_path / "verdict.json",
        [alice.key.public, larry.key.public],
    )
    told.write(larry)
    return told


def levels(verified: Verified) -> list[tuple[str, str]]:
    return [(word.signer, word.level) for word in verified.levels]


def test_each_signers_word(told: Told, alice: Person, larry: Person) -> None:
    verified = told.verify()
    assert levels(verified) == [(alice.key_id, "recorded"), (larry.key_id, "rebuilt")]
    step = verified.steps[-1]
    assert (step.number, step.name, step.skipped) == (9, "verdict", False)
    assert step.detail == "same model by bytes; 2 builders, 2 needed"


def test_without_a_verdict_nothing_is_rebuilt(told: Told, alice: Person) -> None:
    verified = checking.verify(told.published.root, keys=told.keys)
    assert levels(verified) == [(alice.key_id, "recorded")]
    assert verified.steps[-1].skipped


def test_a_verdict_stands_for_no_other_level(
    told: Told, builds: Builds, alice: Person, bob: Person, larry: Person
) -> None:
    (told.published.root / "claims.jsonl").unlink()  # a bare model signature is left
    with pytest.raises(PolicyError, match="is about another claim"):
        told.verify()
    unseen: dict[str, Any] = {"outcome": Outcome(), "run": Metadata()}
    models = [builds("c", alice, equality=declared(CLOSE), **unseen), builds("d", bob)]
    told = told._replace(published=models[0])
    told.write(larry, agree(models))
    assert levels(told.verify()) == [(alice.key_id, "attested"), (larry.key_id, "rebuilt")]
    with pytest.raises(PolicyError, match="recorded is required"):
        told.verify("recorded")


def test_what_a_downloader_sees(
    told: Told, alice: Person, larry: Person, provenance: Shell
) -> None:
    keys = ("--key", alice.public, "--key", larry.public)
    command = ("verify", told.published.root, *keys, "--verdict", told.path)
    ran = provenance(*command, "--require", "rebuilt")
    assert ran.status == 0
    assert ran.out.splitlines()[-2:] == [
        "  level      recorded (as alice.pub says)",
        "             rebuilt (as larry.pub says)",
    ]
    assert "✓ 9 verdict              same model by bytes; 2 builders, 2 needed" in ran.out
    assert provenance(*command, "--json").document["levels"][1]["level"] == "rebuilt"
    ran = provenance("verify", told.published.root, *keys, "--require", "rebuilt")
    refused(ran, 2, "--verdict")
    told.write(alice, names=larry.key_id)
    ran = provenance(*command)
    refused(ran, 1, "names another verifier")
    assert "✗ 9 verdict" in ran.out
    assert "level" not in ran.out


class Forgery(NamedTuple):
    """What is wrong with the verdict, and how it is refused."""

    verdict: Callable[[Verdict], Verdict]
    error: type[ProvenanceError]
    words: str


def change(**fields: Any) -> Callable[[Verdict], Verdict]:  # noqa: ANN401 - of a verdict
    return lambda verdict: msgspec.structs.replace(verdict, **fields)


def published(**fields: Any) -> Callable[[Verdict], Verdict]:  # noqa: ANN401 - of a party
    return lambda verdict: msgspec.structs.replace(
        verdict, published=msgspec.structs.replace(verdict.published, **fields)
    )


def equality(**fields: Any) -> Callable[[Verdict], Verdict]:  # noqa: ANN401 - of an equality
    def changed(verdict: Verdict) -> Verdict:
        applied = msgspec.structs.replace(verdict.equality, **fields)
        (rebuild,) = verdict.rebuilds
        outcome = msgspec.structs.replace(rebuild.outcome, declaration=applied.sha256)
        rebuilds = (msgspec.structs.replace(rebuild, outcome=outcome),)
        return msgspec.structs.replace(verdict, equality=applied, rebuilds=rebuilds)

    return changed


FORGERIES = {
    "another claim of the same signer about the same files": Forgery(
        published(attestation={"sha256": "ab" * 32}), PolicyError, "is about another claim"
    ),
    "another signer of the claim": Forgery(
        published(key_id="other"), MalformedError, "builders are not those"
    ),
    "other files": Forgery(
        published(root_digest={"sha256": "ab" * 32}), MalformedError, "root digests differ"
    ),
    "a negative verdict": Forgery(
        change(conclusion="inconclusive"), PolicyError, "concludes inconclusive, not a match"
    ),
    "a conclusion that its parts do not allow": Forgery(
        change(quorum=3), MalformedError, "its parts allow inconclusive at best"
    ),
    "an equality that was chosen afterwards": Forgery(
        equality(declared=False), PolicyError, "applied another equality than the claim declares"
    ),
    "a laxer equality that is called declared": Forgery(
        equality(sha256="ab" * 32), PolicyError, "applied another equality than the claim declares"
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgery(told: Told, larry: Person, name: str) -> None:
    forgery = FORGERIES[name]
    told.write(larry, forgery.verdict(told.verdict))
    with pytest.raises(forgery.error, match=forgery.words) as caught:
        told.verify(None)
    assert type(caught.value) is forgery.error


def test_a_verdict_by_a_key_that_is_not_trusted(told: Told, mallory: Person, larry: Person) -> None:
    told.write(mallory)
    with pytest.raises(SignatureError, match=r"verdict\.json: signed by another key"):
        told.verify(None)
    told.write(mallory, names=larry.key_id)
    with pytest.raises(SignatureError, match=r"verdict\.json: signed by another key"):
        told.verify(None)


def test_a_verdict_about_a_rebuild_says_nothing_of_it(
    told: Told, builds: Builds, bob: Person
) -> None:
    rebuilt = builds.folder / "b" / "model"
    with pytest.raises(PolicyError, match="is about another claim"):
        checking.verify(rebuilt, keys=[*told.keys, bob.key.public], verdict=told.path)


def test_files_that_are_no_verdict(told: Told) -> None:
    told.path.write_bytes(told.path.read_bytes() * 2)
    with pytest.raises(MalformedError, match="several documents"):
        told.verify(None)
    told.path.write_bytes((told.published.root / "claims.jsonl").read_bytes())
    with pytest.raises(MalformedError, match="not a verdict"):
        told.verify(None)
    told.path.unlink()
    with pytest.raises(UnreadableError, match="no such file"):
        told.verify(None)


def test_a_verdict_about_other_files(told: Told, builds: Builds, alice: Person) -> None:
    other = builds("e", alice, files(0.5)).root
    with pytest.raises(PolicyError, match=r"another model: .*, root sha256 [0-9a-f]{16}…"):
        checking.verify(other, keys=told.keys, verdict=told.path)
