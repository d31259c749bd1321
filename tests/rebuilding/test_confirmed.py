"""``agree`` confirms every digest by what it read, before it answers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from provenance.api.checking import agree, verify
from provenance.errors import ContentError, ProvenanceError
from provenance.measure.contents import read_contents
from provenance.weights.source import Source
from tests.rebuilding.builds import CLOSE, files
from tests.world import declared

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.rebuilding.verdict import Verdict
    from tests.rebuilding.builds import Builds
    from tests.world import Person

MODEL = "model.safetensors"


@pytest.fixture
def folders(builds: Builds, alice: Person, bob: Person) -> list[Path]:
    made = [builds("a", alice, equality=declared(CLOSE)), builds("b", bob, files(1e-4))]
    return [each.root for each in made]


@pytest.fixture
def judge(alice: Person, bob: Person) -> Callable[[list[Path]], Verdict]:
    return lambda models: agree(models, keys=[alice.key.public, bob.key.public])


def flipped(path: Path, at: int = -1) -> None:
    """Change one bit of the file *path*, and nothing else that shows."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", [MODEL, "initial.safetensors"])
@pytest.mark.parametrize("at", [-1, 9])
def test_another_file_than_the_one_stated_is_refused_as_verify_refuses_it(
    folders: list[Path],
    judge: Callable[[list[Path]], Verdict],
    alice: Person,
    bob: Person,
    side: int,
    name: str,
    at: int,
) -> None:
    assert judge(folders).conclusion == "consistent"
    flipped(folders[side] / name, at)
    with pytest.raises(ContentError) as refused:
        verify(folders[side], keys=[alice.key.public, bob.key.public])
    with pytest.raises(ContentError) as other:
        judge(folders)
    assert str(other.value) == str(refused.value)
    assert name in str(other.value)


def test_an_extra_file_is_refused(
    folders: list[Path], judge: Callable[[list[Path]], Verdict]
) -> None:
    (folders[1] / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ContentError, match=r"pytorch_model\.bin is extra"):
        judge(folders)


@pytest.mark.parametrize("when", ["before", "after", "between"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_file_that_changes_during_the_pass_is_refused(
    folders: list[Path],
    judge: Callable[[list[Path]], Verdict],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    side: int,
) -> None:
    def read(*given: Any, **options: Any) -> object:  # noqa: ANN401 - those of the original
        if when != "after":
            flipped(folders[side] / MODEL)
        found = read_contents(*given, **options)
        if when != "before":
            flipped(folders[side] / MODEL)
        return found

    monkeypatch.setattr("provenance.judge.measured.read_contents", read)
    with pytest.raises(ProvenanceError) as refused:
        judge(folders)
    assert MODEL in str(refused.value)


@pytest.mark.parametrize("side", [0, 1])
def test_the_digest_is_that_of_the_bytes_compared(
    folders: list[Path],
    judge: Callable[[list[Path]], Verdict],
    monkeypatch: pytest.MonkeyPatch,
    side: int,
) -> None:
    """What is read is not what the file holds, whatever its times say."""
    assert judge(folders).conclusion == "consistent"
    shown = f"{MODEL} ({['left', 'right'][side]})"
    original = Source.read_into

    def read_into(self: Source, offset: int, buffer: memoryview) -> None:
        original(self, offset, buffer)
        if self.name == shown and len(buffer) == 400:
            buffer[17] ^= 1

    monkeypatch.setattr(Source, "read_into", read_into)
    with pytest.raises(ContentError, match=rf"{MODEL}.*no longer"):
        judge(folders)


def test_a_declaration_that_does_not_fit_hides_no_other_file(
    builds: Builds, alice: Person, bob: Person, judge: Callable[[list[Path]], Verdict]
) -> None:
    names = declared(CLOSE.replace(b'initial = "initial', b'initial = "other'))
    folders = [builds(name, who, equality=names).root for name, who in (("a", alice), ("b", bob))]
    with pytest.raises(ProvenanceError, match="which is not a file of the model"):
        judge(folders)
    flipped(folders[1] / MODEL)
    with pytest.raises(ContentError, match=MODEL):
        judge(folders)
