"""Steps 10 to 12: an in-toto layout over links, each refused for its own reason."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from in_toto.models.link import Link

import provenance as api
from provenance.errors import ContentError, MalformedError, PolicyError, ProvenanceError, UsageError
from provenance.files.manifest import hash_folder
from provenance.files.names import RESERVED
from provenance.trust.layout import CHAIN_STEPS
from provenance.trust.verification import STEPS
from tests.chains import ALLOWED, key_of, layout, name_of, put, signed, step
from tests.world import make_person

if TYPE_CHECKING:
    from tests.world import Person, Shell


@dataclass
class Scene:
    """A model that alice attested, a layout that larry owns, and the links in ``links``."""

    model: Path
    alice: Person
    larry: Person
    links: Path
    held: list[str] = field(default_factory=list)

    @property
    def products(self) -> dict[str, Any]:
        found = hash_folder(self.model, ignore=RESERVED)
        return {entry.name: {"sha256": entry.sha256} for entry in found.entries}

    def link(self, name: str, *signers: Person, place: str = "", **said: Any) -> Path:  # noqa: ANN401 - in-toto's
        """Put a link about the model's files where one by the first of *signers* is looked for."""
        document = Link(name=name, **{"products": self.products, **said})
        path = self.links / (place or f"{name_of(name, signers[0])}.link")
        return put(path, signed(document, *signers))

    def verify(self, data: bytes, **given: Any) -> Any:  # noqa: ANN401 - as verify takes them
        self.held.clear()
        path = put(self.links.parent / "root.layout", data)
        arguments = {"layout_keys": [self.larry.public], "links": self.links, **given}
        return api.verify(
            self.model,
            keys=[self.alice.public],
            layout=path,
            on_step=lambda it: self.held.append(it.name),
            **arguments,
        )

    def refuses(self, data: bytes, *words: str, step: str = "links", **given: Any) -> str:  # noqa: ANN401 - as above
        """Return the message with which *step* refuses."""
        with pytest.raises(ProvenanceError) as caught:
            self.verify(data, **given)
        assert type(caught.value) in {ContentError, MalformedError, PolicyError, UsageError}
        text = str(caught.value)
        assert all(word in text for word in words), text
        assert len(text) < 5000
        assert (*STEPS, *CHAIN_STEPS)[len(self.held)] == step
        return text


@pytest.fixture
def scene(model: Path, tmp_path: Path, alice: Person, larry: Person) -> Scene:
    (tmp_path / "links").mkdir()
    return Scene(model, alice, larry, tmp_path / "links")


@pytest.mark.parametrize("dsse", [True, False])
def test_it_holds(scene: Scene, bob: Person, dsse: bool) -> None:
    scene.link("train", scene.alice)
    scene.link("train", bob)
    both = layout((scene.alice, bob), step("train", scene.alice, bob, threshold=2))
    verified = scene.verify(signed(both, scene.larry, dsse=dsse))
    assert scene.held == [*STEPS, *CHAIN_STEPS]
    assert [each.number for each in verified.steps] == list(range(1, 13))
    details = [each.detail for each in verified.steps[-3:]]
    assert details == [
        f"signed by {scene.larry.key_id}, expires 2999-01-01T00:00:00Z",
        "2 links for 1 step",
        "the products of train are the files of this model",
    ]


def test_without_a_layout_nothing_is_said_of_one(scene: Scene) -> None:
    verified = api.verify(scene.model, keys=[scene.alice.public])
    assert [each.name for each in verified.steps] == list(STEPS)
    given: dict[str, Any]
    for given in (
        {"links": scene.links},
        {"layout_keys": [scene.larry.public]},
        {"unsafe_run_inspections": True},
    ):
        with pytest.raises(UsageError, match="--layout"):
            api.verify(scene.model, keys=[scene.alice.public], **given)


def test_whose_layout(scene: Scene, bob: Person, tmp_path: Path) -> None:
    scene.link("train", scene.alice)
    data = signed(layout((scene.alice,), step("train", scene.alice)), scene.larry)
    scene.refuses(data, "trusted by default", "--layout-key", step="parse", layout_keys=[])
    why = ("SignatureVerificationError", "each --layout-key must have signed")
    scene.refuses(data, *why, step="layout", layout_keys=[bob.public])
    both = [scene.larry.public, bob.public]
    scene.refuses(data, "SignatureVerificationError", step="layout", layout_keys=both)
    new = make_person(tmp_path, "new", "ml-dsa-65")
    scene.refuses(data, "ml-dsa-65", step="layout", layout_keys=[new.public])
    signed_by_both = signed(layout((scene.alice,), step("train", scene.alice)), scene.larry, bob)
    scene.verify(signed_by_both, layout_keys=both)


def test_a_layout_that_was_changed_or_expired(scene: Scene) -> None:
    scene.link("train", scene.alice)
    whole = layout((scene.alice,), step("train", scene.alice), expires="2020-01-01T00:00:00Z")
    scene.refuses(signed(whole, scene.larry), "LayoutExpiredError", step="layout")
    document = json.loads(signed(whole, scene.larry, dsse=False))
    document["signed"]["expires"] = "2999-01-01T00:00:00Z"
    changed = json.dumps(document).encode()
    scene.refuses(changed, "SignatureVerificationError", step="layout")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"signed": 1}',
        b'{"payload": 1, "payloadType": "application/vnd.in-toto+json", "signatures": []}',
        b'{"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": []}',
        b'{"signed": {"_type": "layout"}, "signatures": []}',
        b'{"signed": {"_type": "link"}, "signatures": []}',
    ],
)
def test_what_is_no_layout(scene: Scene, data: bytes) -> None:
    scene.refuses(data, "root.layout", step="layout")


def test_a_link_is_no_layout(scene: Scene) -> None:
    data = signed(Link(name="train", products=scene.products), scene.larry)
    scene.refuses(data, step="layout")


def test_links_that_do_not_count(scene: Scene, bob: Person, mallory: Person) -> None:
    """Missing, of another person, under another's name, of one twice: each for its own reason."""
    both = layout((scene.alice, bob), step("train", scene.alice, bob, threshold=2))
    data = signed(both, scene.larry)
    scene.refuses(data, "LinkNotFoundError", "found '0'")
    scene.link("train", scene.alice)
    scene.refuses(data, "LinkNotFoundError", "found '1'")
    scene.link("train", mallory)
    scene.refuses(data, "LinkNotFoundError", "found '1'")
    place = f"{name_of('train', bob)}.link"
    scene.link("train", mallory, place=place)
    scene.refuses(data, "ThresholdVerificationError", "Only found '1'")
    scene.link("train", scene.alice, place=place)
    scene.refuses(data, "ThresholdVerificationError", "Only found '1'")
    scene.link("train", bob, products={"model.bin": {"sha256": "00" * 32}})
    scene.refuses(data, "ThresholdVerificationError", "different artifacts")


def test_one_key_under_two_ids_counts_once(scene: Scene) -> None:
    """in-toto's library would take one signer's two links for those of two."""
    twice = layout((scene.alice,), step("train", scene.alice, threshold=2))
    other = "ab" * 32
    twice.keys[other] = {**key_of(scene.alice), "keyid": other}
    twice.steps[0].pubkeys.append(other)
    scene.link("train", scene.alice)
    scene.refuses(signed(twice, scene.larry), "one key", "twice", step="layout")


def test_kinds_of_keys_that_reach_outside(scene: Scene) -> None:
    odd = layout((scene.alice,), step("train", scene.alice))
    odd.keys["cd" * 32] = {
        "keyid": "cd" * 32,
        "keytype": "sigstore-oidc",
        "scheme": "Fulcio",
        "keyval": {"identity": "a", "issuer": "b"},
    }
    scene.refuses(signed(odd, scene.larry), step="layout")


def test_a_link_of_another_step(scene: Scene) -> None:
    """in-toto's library goes by the file's name alone."""
    data = signed(layout((scene.alice,), step("train", scene.alice)), scene.larry)
    scene.link("test", scene.alice, place=f"{name_of('train', scene.alice)}.link")
    scene.refuses(data, "no link of the step train")


def test_rules(scene: Scene) -> None:
    strict = step("train", scene.alice, expected_products=[["REQUIRE", "other"], *ALLOWED])
    data = signed(layout((scene.alice,), strict), scene.larry)
    scene.link("train", scene.alice)
    text = scene.refuses(data, "RuleVerificationError", "REQUIRE other")
    assert "Full trace" not in text


def test_the_last_step_made_another_model(scene: Scene) -> None:
    data = signed(layout((scene.alice,), step("train", scene.alice)), scene.larry)
    real = scene.products
    first = next(iter(real))
    for products, name in (
        ({}, first),
        (real | {first: {"sha256": "00" * 32}}, first),
        (real | {first: {"sha512": real[first]["sha256"]}}, first),
        (real | {"more.bin": {"sha256": "00" * 32}}, "more.bin"),
        ({f"model/{key}": value for key, value in real.items()}, first),
    ):
        scene.link("train", scene.alice, products=products)
        text = scene.refuses(data, name, step="products")
        assert "not the files of this model" in text
    scene.link("train", scene.alice, products=real | {"claims.jsonl": {"sha256": "00" * 32}})
    scene.verify(data)


def test_only_the_last_step_counts(scene: Scene, bob: Person) -> None:
    steps = (step("train", scene.alice), step("pack", bob))
    scene.link("train", scene.alice)
    scene.link("pack", bob, products={})
    scene.refuses(
        signed(layout((scene.alice, bob), *steps), scene.larry), "products of pack", step="products"
    )
    scene.verify(signed(layout((scene.alice, bob), *reversed(steps)), scene.larry))
    scene.refuses(signed(layout(()), scene.larry), "no products", step="products")


@pytest.mark.parametrize("name", ["../x", "a/b", "/abs", "..", "x\0y"])
def test_names_of_steps_that_lead_elsewhere(scene: Scene, name: str) -> None:
    put(scene.links.parent / f"x.{name_of('', scene.alice)[1:]}.link", b"{}")
    data = signed(layout((scene.alice,), step(name, scene.alice)), scene.larry)
    scene.refuses(data)


def test_links_that_are_no_files(scene: Scene) -> None:
    data = signed(layout((scene.alice,), step("train", scene.alice)), scene.larry)
    path = scene.links / f"{name_of('train', scene.alice)}.link"
    os.mkfifo(path)
    scene.refuses(data, str(path), "no file")
    path.unlink()
    path.mkdir()
    scene.refuses(data)
    path.rmdir()
    path.symlink_to("/dev/zero")
    scene.refuses(data, "no file")
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**28 + 1)
    scene.refuses(data, "more than 268435456 bytes")
    for content in (b"", b"{}", b"[" * 100_000, b'{"signed": {"_type": "link"}}'):
        put(path, content)
        scene.refuses(data)


def test_inspections_are_commands(scene: Scene) -> None:
    mark = scene.links.parent / "ran"
    scene.link("train", scene.alice)
    with_one = layout((scene.alice,), step("train", scene.alice), inspect=("touch", str(mark)))
    data = signed(with_one, scene.larry)
    scene.refuses(data, "inspections", "look", "--unsafe-run-inspections", step="layout")
    assert not mark.exists()
    scene.verify(data, unsafe_run_inspections=True)
    assert mark.exists()
    failing = layout((scene.alice,), step("train", scene.alice), inspect=("false",))
    data = signed(failing, scene.larry)
    scene.refuses(data, "BadReturnValueError", unsafe_run_inspections=True)


def test_the_library_runs_in_a_folder_of_links(scene: Scene) -> None:
    seen = scene.links.parent / "seen"
    scene.link("train", scene.alice)
    put(scene.links / "other", b"")
    command = ("sh", "-c", f"find . -type f | sort >{seen}; pwd >>{seen}")
    with_one = layout((scene.alice,), step("train", scene.alice), inspect=command)
    scene.verify(signed(with_one, scene.larry), unsafe_run_inspections=True)
    *files, folder = seen.read_text().splitlines()
    assert files == [f"./{name_of('train', scene.alice)}.link"]
    assert not Path(folder).exists()


def _with_sublayout(scene: Scene, bob: Person, inspect: tuple[str, ...] = ()) -> bytes:
    """Have bob hand his step on to alice, by a layout of his own."""
    sub = layout((scene.alice,), step("fit", scene.alice), inspect=inspect)
    put(scene.links / f"{name_of('train', bob)}.link", signed(sub, bob))
    place = f"{name_of('train', bob)}/{name_of('fit', scene.alice)}.link"
    scene.link("fit", scene.alice, place=place)
    return signed(layout((bob,), step("train", bob)), scene.larry)


def test_a_layout_in_place_of_a_link(scene: Scene, bob: Person) -> None:
    data = _with_sublayout(scene, bob)
    scene.verify(data)
    (scene.links / f"{name_of('train', bob)}" / f"{name_of('fit', scene.alice)}.link").unlink()
    scene.refuses(data, "LinkNotFoundError", "fit")


def test_inspections_of_a_layout_in_place_of_a_link(scene: Scene, bob: Person) -> None:
    mark = scene.links.parent / "ran"
    data = _with_sublayout(scene, bob, ("touch", str(mark)))
    place = str(scene.links / f"{name_of('train', bob)}.link")
    scene.refuses(data, "inspections", "look", place)
    assert not mark.exists()
    scene.verify(data, unsafe_run_inspections=True)
    assert mark.exists()


def test_layouts_in_one_another(scene: Scene) -> None:
    """A link of folders that leads round would never end."""
    data = signed(layout((scene.alice,), step("a", scene.alice)), scene.larry)
    name = name_of("a", scene.alice)
    inner = signed(layout((scene.alice,), step("a", scene.alice)), scene.alice)
    put(scene.links / f"{name}.link", inner)
    (scene.links / name).symlink_to(".")
    scene.refuses(data)


def test_many_links(scene: Scene) -> None:
    names = [f"s{number}" for number in range(1024)]
    data = signed(layout((scene.alice,), *(step(n, scene.alice) for n in names)), scene.larry)
    for name in names:
        put(scene.links / f"{name_of(name, scene.alice)}.link", signed(Link(name=name)))
    scene.refuses(data, "or 1024 files")


def test_no_error_of_anothers_escapes(scene: Scene) -> None:
    """Whatever a link or a layout says, the error is one of ours, in one line."""
    scene.link("train", scene.alice)
    whole = layout((scene.alice,), step("train", scene.alice))
    keyid = key_of(scene.alice)["keyid"]
    for public in ("", "x", "\ud7ff", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"):
        whole.keys[keyid] = {**key_of(scene.alice), "keyval": {"public": public}}
        text = scene.refuses(signed(whole, scene.larry), step="layout")
        assert "\n" not in text


def test_names_that_are_no_text(scene: Scene) -> None:
    """JSON spells a lone surrogate, which no file system and no UTF-8 takes."""
    document = layout((scene.alice,), step("train", scene.alice))
    path = scene.link("train", scene.alice)
    link = Link(name="train", products={"SOME": {"sha256": "00" * 32}})
    put(path, signed(link, scene.alice, dsse=False).replace(b"SOME", rb"\ud800"))
    scene.refuses(signed(document, scene.larry), "UnicodeEncodeError")
    put(path, signed(Link(name="SOME"), scene.alice, dsse=False).replace(b"SOME", rb"\ud800"))
    scene.refuses(signed(document, scene.larry), "UnicodeEncodeError")
    odd = signed(document, scene.larry, dsse=False).replace(b'"train"', rb'"\ud800"')
    scene.refuses(odd, "UnicodeEncodeError", step="layout")


def test_what_a_killed_writer_left(scene: Scene) -> None:
    put(scene.model / "provenance" / f"{name_of('train', scene.alice)}.link.tmp", b"{")
    verified = api.verify(scene.model, keys=[scene.alice.public])
    assert verified.not_covered == {f"provenance/{name_of('train', scene.alice)}.link.tmp": 1}


def test_beside_the_model(scene: Scene, provenance: Shell) -> None:
    """By default the links are those in ``provenance/``, which are no files of the model."""
    scene.links = scene.model / "provenance"
    scene.links.mkdir(exist_ok=True)
    scene.link("train", scene.alice)
    path = scene.model.parent / "root.layout"
    put(path, signed(layout((scene.alice,), step("train", scene.alice)), scene.larry))
    asked = ("verify", scene.model, "--key", scene.alice.public, "--layout", path)
    ran = provenance(*asked, "--layout-key", scene.larry.public)
    assert ran.status == 0
    assert "1 in-toto link" in ran.out
    assert "✓ 12 products" in ran.out
    found = provenance(*asked, "--layout-key", scene.larry.public, "--json").document
    assert [each["name"] for each in found["steps"]] == [*STEPS, *CHAIN_STEPS]
    put(scene.links / "x.txt", b"")
    ran = provenance(*asked, "--layout-key", scene.larry.public)
    assert (ran.status, "is extra" in ran.err) == (1, True)


def test_the_step_that_fails_is_named(scene: Scene, provenance: Shell) -> None:
    path = scene.model.parent / "root.layout"
    put(path, signed(layout((scene.alice,), step("train", scene.alice)), scene.larry))
    asked = ("verify", scene.model, "--key", scene.alice.public, "--layout", path)
    ran = provenance(*asked, "--layout-key", scene.larry.public, "--links", scene.links)
    assert "✗ 11 links" in ran.out
    assert "--links" in ran.err
    found = provenance(*asked, "--layout-key", scene.larry.public, "--json").document
    assert found["error"]["step"] == 11
