from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization

import provenance as library
from provenance.envelope import bundle
from provenance.errors import ContentError, SignatureError, UnreadableError
from provenance.folder import attach, claims
from provenance.keys import generate, write_pair
from provenance.statement import intoto, uris
from provenance.trust.opening import KeyChange
from tests.keys.test_certificates import SIGNER, pem
from tests.sigstores import AUTHORITY, NOW, issue
from tests.world import refused, tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Shell


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(b"1")
    return folder


def test_claims_move_to_a_new_key(model: Path, tmp_path: Path, provenance: Shell) -> None:
    old, new, stranger = (generate() for _ in range(3))
    library.attest(model, key=stranger)
    (model / "model.sig").unlink()
    library.attest(model, key=old)
    for name, key in (("old", old), ("new", new)):
        write_pair(key, tmp_path / name)
    done = provenance(
        "resign", model, "--old-key", tmp_path / "old", "--new-key", tmp_path / "new", "--json"
    )
    assert done.status == 0, done.err
    assert json.loads(done.out)["statements"] == 2
    for key in (old, new):
        found = library.verify(model, keys=[key.public], require="attested")
        assert [word.signer for word in found.levels] == [key.public.key_id]
        assert found.key_changes == (KeyChange(old.public.key_id, new.public.key_id),)
    changes = []
    for item in claims.read_bundles(model / "claims.jsonl"):
        statement = intoto.parse(item.envelope.payload)
        if statement.predicate_type == uris.KEY_CHANGE:
            opened = bundle.open_bundle(item, [old.public, new.public])
            changes.append(opened.key)
            assert statement.predicate["from"]["keyId"] == old.public.key_id
            assert statement.predicate["to"]["keyId"] == new.public.key_id
            assert len(statement.subject) == 2
    assert changes == [old.public, new.public]
    with pytest.raises(SignatureError, match="by the old key alone"):
        library.resign(model, old_key=old, new_key=new)
    (model / "w.bin").write_bytes(b"2")
    with pytest.raises(ContentError, match=r"w\.bin was changed"):
        library.verify(model, keys=[new.public])


def test_of_a_stranger_nothing_moves(model: Path) -> None:
    signer, stranger, new = (generate() for _ in range(3))
    library.attest(model, key=signer)
    before = (model / "claims.jsonl").read_bytes()
    with pytest.raises(SignatureError, match="signed by the old key alone"):
        library.resign(model, old_key=stranger, new_key=new)
    assert (model / "claims.jsonl").read_bytes() == before
    library.resign(model, old_key=signer, new_key=new)
    with pytest.raises(SignatureError):
        library.verify(model, keys=[stranger.public])


def test_only_a_signature_moves(model: Path) -> None:
    old, new = generate(), generate()
    library.sign(model, key=old)
    assert library.resign(model, old_key=old, new_key=new).statements == 1
    assert library.verify(model, keys=[new.public]).claim is None


def test_what_is_said_of_other_files_is_left(
    model: Path, tmp_path: Path, provenance: Shell
) -> None:
    """Whoever can add lines beside the model gets no signature of the new key on another one."""
    old, new, other = generate(), generate(), tmp_path / "other"
    other.mkdir()
    (other / "w.bin").write_bytes(b"2")  # of the same name and size
    for each in (model, other):
        library.attest(each, key=old)
    paths = [each / "claims.jsonl" for each in (model, other)]
    paths[0].write_bytes(b"".join(each.read_bytes() for each in paths))
    (other / "model.sig").rename(model / "model.sig")
    for name, key in (("old", old), ("new", new)):
        write_pair(key, tmp_path / name)
    command = ("resign", model, "--old-key", tmp_path / "old", "--new-key", tmp_path / "new")
    done = provenance(*command)
    assert "signed   1 statement again" in done.out
    assert "left     2 statements of the old key, of other files" in done.out
    assert library.verify(model, keys=[new.public]).claim
    again = tmp_path / "again.jsonl"
    again.write_bytes((model / "claims.jsonl").read_bytes())
    with pytest.raises(ContentError, match=r"w\.bin was changed"):
        library.verify(other, keys=[new.public], claims=again)
    (model / "w.bin").write_bytes(b"3")
    refused(provenance(*command), 1, "nothing about the files here is signed by the old key")


def test_a_signature_that_leaves_files_out_moves(model: Path, tmp_path: Path) -> None:
    old, new = generate(), generate()
    (model / "notes.txt").touch()
    library.sign(model, key=old, ignore_paths=[model / "notes.txt"])
    assert library.resign(model, old_key=old, new_key=new).statements == 1
    assert library.verify(model, keys=[new.public]).not_covered == {"notes.txt": 1}
    one = tmp_path / "one.bin"
    one.write_bytes(b"1")
    library.sign(one, key=old)
    assert library.resign(one, old_key=old, new_key=new).statements == 1
    assert library.verify(one, keys=[new.public]).name == "one.bin"


@pytest.mark.parametrize("name", ["model.sig", "claims.jsonl"])
def test_a_link_out_of_the_folder_is_not_followed(model: Path, tmp_path: Path, name: str) -> None:
    old, new = generate(), generate()
    library.attest(model, key=old)
    (model / name).rename(tmp_path / name)
    (model / name).symlink_to(tmp_path / name)
    before = tree(model)
    with pytest.raises(UnreadableError, match=name):
        library.resign(model, old_key=old, new_key=new)
    assert tree(model) == before
    library.resign(model, old_key=old, new_key=new, link_roots=[tmp_path])


def test_a_signature_of_another_stays_beside_it(model: Path) -> None:
    old, new, other = (generate() for _ in range(3))
    path, lines = model / "model.sig", []
    for key in (old, other):
        library.sign(model, key=key)
        lines.append(path.read_bytes() + b"\n")
        path.unlink()
    path.write_bytes(b"".join(lines))
    library.resign(model, old_key=old, new_key=new)
    found = library.verify(model, keys=[new.public, other.public])
    assert {it.signer for it in found.levels} == {new.public.key_id, other.public.key_id}


def test_one_key_does_not_follow_itself(model: Path, tmp_path: Path, provenance: Shell) -> None:
    write_pair(generate(), tmp_path / "k")
    words = ("--old-key", tmp_path / "k", "--new-key", tmp_path / "k")
    refused(provenance("resign", model, *words), 2, "are the same")


def test_both_keys_say_that_one_follows_the_other(
    model: Path, tmp_path: Path, provenance: Shell
) -> None:
    first, second, third, mallory = (generate() for _ in range(4))
    ids = [key.public.key_id for key in (first, second, third)]
    library.attest(model, key=first)
    library.resign(model, old_key=first, new_key=second)
    library.resign(model, old_key=second, new_key=third)
    changes = (KeyChange(*ids[:2]), KeyChange(*ids[1:]))
    public = write_pair(third, tmp_path / "third")
    document = provenance("verify", model, "--key", public, "--json").document
    assert document["keyChanges"] == [{"from": it.old, "to": it.new} for it in changes]
    assert f"{ids[1]} in place of {ids[0]}" in provenance("verify", model, "--key", public).out
    # A stranger's own word for it is nothing, nor is one about another statement.
    library.attest(model, key=mallory)
    path = model / "claims.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    payload = claims.read_bundles(path)[-1].envelope.payload
    for old, new, about in ((first, mallory, payload), (mallory, first, payload)):
        said = attach._key_change([about], old, new)  # noqa: SLF001 - a forger may call it
        lines.append(attach.sign_payload(said, mallory) + b"\n")
    path.write_bytes(b"".join(lines))
    found = library.verify(model, keys=[mallory.public])
    assert found.key_changes == ()
    assert library.verify(model, keys=[third.public]).key_changes == changes
    assert library.verify(model, keys=[first.public]).key_changes == changes


def test_what_was_signed_with_a_certificate_stays(model: Path, tmp_path: Path) -> None:
    old, new = generate(), generate()
    years: Any = {"begin": NOW.replace(year=2020), "end": NOW.replace(year=2100)}
    root = issue("root", None, *AUTHORITY, **years)
    key = serialization.load_pem_private_key(old.pem(), None)
    chain, leaf = [tmp_path / "root.pem"], tmp_path / "leaf.pem"
    chain[0].write_bytes(pem(root))
    leaf.write_bytes(pem(issue("signer", root, *SIGNER, key=key, **years)))
    library.sign(model, key=old, signing_certificate=leaf, certificate_chain=chain)
    with pytest.raises(SignatureError, match="signed by the old key alone"):
        library.resign(model, old_key=old, new_key=new)
    (model / "model.sig").rename(tmp_path / "kept")
    library.attest(model, key=old)
    (tmp_path / "kept").rename(model / "model.sig")
    assert library.resign(model, old_key=old, new_key=new).statements == 1
    found = library.verify(model, keys=[new.public], certificate_chain=chain)
    signers = [(word.signer, word.kind) for word in found.levels]
    assert signers == [(new.public.key_id, "key"), ("CN=signer", "certificate")]
