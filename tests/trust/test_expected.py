"""Which model is expected: another one of the same signer is warned of, or refused."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from provenance.api import checking
from provenance.errors import PolicyError, UsageError
from provenance.folder.attach import sign
from provenance.statement.training import Metadata, Outcome
from tests.world import attest, refused, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Person, Shell


@pytest.fixture
def classifier(tmp_path: Path, alice: Person) -> Path:
    return attest(write_files(tmp_path / "classifier"), alice)


@pytest.fixture
def toy(tmp_path: Path, alice: Person) -> Path:
    return attest(write_files(tmp_path / "toy", {"w": b"1"}), alice)


def root_digest(root: Path, *people: Person) -> str:
    keys = [person.key.public for person in people]
    return f"sha256:{checking.verify(root, keys=keys).manifest.root_digest}"


def test_another_model_under_the_folders_name(
    classifier: Path, toy: Path, alice: Person, provenance: Shell
) -> None:
    wanted = root_digest(classifier, alice)
    shutil.rmtree(classifier)
    toy.rename(classifier)
    ran = provenance("verify", classifier, "--key", alice.public)
    assert ran.status == 0
    warning = "the folder is called classifier, and its files were signed as toy: "
    assert f"warning: {warning}" in ran.out
    document = provenance("verify", classifier, "--key", alice.public, "--json").document
    assert document["name"] == "toy"
    assert [text.startswith(warning) for text in document["warnings"]] == [True]
    for demand in (("--name", "classifier"), ("--root-digest", wanted)):
        ran = provenance("verify", classifier, "--key", alice.public, *demand)
        refused(ran, 1, "is expected")
        assert "✗ 4 subject" in ran.out
    ran = provenance("verify", classifier, "--key", alice.public, "--name", "toy")
    assert (ran.status, "warning" in ran.out) == (0, False)


def test_an_older_model_of_the_same_name_is_told_by_its_root_digest(
    classifier: Path, tmp_path: Path, alice: Person, provenance: Shell
) -> None:
    shutil.copytree(classifier, tmp_path / "old" / "classifier")
    (classifier / "claims.jsonl").unlink()
    attest(write_files(classifier, {"model.bin": b"trained again"}), alice)
    wanted = root_digest(classifier, alice)
    for root, status in ((classifier, 0), (tmp_path / "old" / "classifier", 1)):
        options = ("--key", alice.public, "--name", "classifier")
        assert provenance("verify", root, *options).status == 0
        ran = provenance("verify", root, *options, "--root-digest", wanted)
        assert ran.status == status


def test_the_root_digest_that_is_printed_can_be_demanded(
    classifier: Path, alice: Person, provenance: Shell
) -> None:
    ran = provenance("verify", classifier, "--key", alice.public)
    (line,) = (line for line in ran.out.splitlines() if line.startswith("  root "))
    assert f"sha256:{line.split()[1]}" == root_digest(classifier, alice)
    ran = provenance("verify", classifier, "--key", alice.public, "--root-digest", line.split()[1])
    assert ran.status == 0
    ran = provenance("verify", classifier, "--key", alice.public, "--root-digest", "fa61")
    refused(ran, 2, "not a digest")


def test_claims_about_the_expected_and_another_model(
    classifier: Path, toy: Path, alice: Person
) -> None:
    # Every claim is a true one; the files are those of the model that is not expected.
    both = (classifier / "claims.jsonl").read_bytes() + (toy / "claims.jsonl").read_bytes()
    wanted = root_digest(classifier, alice)
    (toy / "claims.jsonl").write_bytes(both)
    keys = [alice.key.public]
    with pytest.raises(PolicyError, match="calls these files toy, and classifier is expected"):
        checking.verify(toy, keys=keys, name="classifier")
    with pytest.raises(PolicyError, match=r"root digest is sha256:.* is expected"):
        checking.verify(toy, keys=keys, root_digest=wanted)
    assert checking.verify(toy, keys=keys, name="toy").name == "toy"


def test_one_set_of_files_under_two_names(classifier: Path, alice: Person) -> None:
    renamed = classifier.rename(classifier.with_name("v2"))
    attest(renamed, alice, outcome=Outcome(), run=Metadata())
    for name, level in (("classifier", "recorded"), ("v2", "attested")):
        verified = checking.verify(renamed, keys=[alice.key.public], name=name)
        assert verified.name == name
        assert [word.level for word in verified.levels] == [level]


def test_the_name_in_a_model_signature(toy: Path, alice: Person) -> None:
    (toy / "claims.jsonl").unlink()
    sign(toy, alice.key)
    renamed = toy.rename(toy.with_name("classifier"))
    keys = [alice.key.public]
    assert len(checking.verify(renamed, keys=keys).warnings) == 1
    assert checking.verify(renamed, keys=keys, name="toy").warnings == ()
    with pytest.raises(PolicyError, match="is called toy, and classifier is expected"):
        checking.verify(renamed, keys=keys, name="classifier")


@pytest.mark.parametrize(
    ("signed", "place"),
    [
        ("model", "model"),
        ("name", "models--org--name/snapshots/0a1b"),
        ("org/name", "models--org--name/snapshots/0a1b"),
        ("0a1b", "models--org--name/snapshots/0a1b"),
        ("gpt2", "models--gpt2/snapshots/0a1b"),
    ],
)
def test_what_a_folder_is_called(
    tmp_path: Path, alice: Person, monkeypatch: pytest.MonkeyPatch, signed: str, place: str
) -> None:
    made = attest(write_files(tmp_path / "made" / signed.replace("/", "--")), alice)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    folder = made.rename(tmp_path / place)
    (tmp_path / "link").symlink_to(folder)
    if "/" not in signed:
        monkeypatch.chdir(folder)
        for root in (folder, tmp_path / "link", "."):
            assert checking.verify(root, keys=[alice.key.public]).warnings == ()
    monkeypatch.chdir(tmp_path)
    other = attest(write_files(tmp_path / "other", {"w": b"1"}), alice)
    shutil.rmtree(folder)
    other.rename(folder)
    assert len(checking.verify(folder, keys=[alice.key.public]).warnings) == 1


def test_a_digest_that_is_none(classifier: Path, alice: Person) -> None:
    with pytest.raises(UsageError, match="not a digest"):
        checking.verify(classifier, keys=[alice.key.public], root_digest="sha1:00")
