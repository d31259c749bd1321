"""Attacks on one model, what stands beside it, and its claims. Each changes the scene."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import msgspec

from provenance.encoding import strict_json
from provenance.files.manifest import hash_folder
from provenance.files.names import RESERVED
from provenance.folder import attach
from provenance.statement.training import ChangedInput, DeclaredEquality, Metadata, Outcome
from tests.world import (
    attest,
    declared,
    edit_bundle,
    payload_of,
    sign_document,
    sign_payload,
    state,
    statement_document,
    write_files,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.forgeries.scene import Scene

# --- On the files ---------------------------------------------------------------------------------


def flip_a_bit(scene: Scene) -> None:
    data = bytearray((scene.root / "model.bin").read_bytes())
    data[20] ^= 1
    (scene.root / "model.bin").write_bytes(data)


def rename_a_file(scene: Scene) -> None:
    before = hash_folder(scene.root, ignore=RESERVED).root_digest
    (scene.root / "model.bin").rename(scene.root / "model.old")
    assert hash_folder(scene.root, ignore=RESERVED).root_digest == before  # names are not in it


def swap_two_files(scene: Scene) -> None:
    config, weights = scene.root / "config.json", scene.root / "model.bin"
    one, other = config.read_bytes(), weights.read_bytes()
    config.write_bytes(other)
    weights.write_bytes(one)


def move_a_file_into_a_folder(scene: Scene) -> None:
    (scene.root / "tokenizer" / "vocab.txt").rename(scene.root / "vocab.txt")


def add_a_file(scene: Scene) -> None:
    (scene.root / "modeling.py").write_text("import os; os.system('id')")


def add_a_nested_claims_file(scene: Scene) -> None:
    # Reserved names are left out at the top level only.
    (scene.root / "tokenizer" / "claims.jsonl").write_text("{}")


def remove_a_file(scene: Scene) -> None:
    (scene.root / "tokenizer" / "vocab.txt").unlink()


def link_the_weights_elsewhere(scene: Scene) -> None:
    outside = scene.root.parent / "elsewhere.bin"
    (scene.root / "model.bin").rename(outside)
    (scene.root / "model.bin").symlink_to(outside)


def link_the_weights_to_a_twin(scene: Scene) -> None:
    (scene.root / "model.bin").rename(scene.root / "twin.bin")
    (scene.root / "model.bin").symlink_to("twin.bin")


def weights_as_a_fifo(scene: Scene) -> None:
    (scene.root / "model.bin").unlink()
    os.mkfifo(scene.root / "model.bin")


def replay_an_old_claim(scene: Scene) -> None:
    old = scene.lines
    write_files(scene.root, {"model.bin": b"new weights"})
    attest(scene.root, scene.mallory)
    scene.write(*old)


# --- Beside the files -----------------------------------------------------------------------------


def hide_a_file_among_the_byproducts(scene: Scene) -> None:
    write_files(scene.root, {"provenance/modeling.py": b"import os"})


def hide_a_file_under_a_digest(scene: Scene) -> None:
    write_files(scene.root, {f"provenance/{'ab' * 32}": b"import os"})


def hide_a_folder_among_the_byproducts(scene: Scene) -> None:
    write_files(scene.root, {f"provenance/{'ab' * 32}/modeling.py": b"import os"})


def link_the_byproducts_elsewhere(scene: Scene) -> None:
    (scene.root / "provenance").symlink_to(scene.root.parent)


def sparse(path: Path, size: int = 2**32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def hide_much_among_the_byproducts(scene: Scene) -> None:
    for number in range(8):
        sparse(scene.root / "provenance" / (f"{number}" * 64), 2**29)


def a_large_file_that_nobody_states(scene: Scene) -> None:
    sparse(scene.root / "model.safetensors")


def a_large_file_that_nobody_signed(scene: Scene) -> None:
    (scene.root / "claims.jsonl").unlink()
    sparse(scene.root / "model.safetensors")


def hide_code_in_a_cache(scene: Scene) -> None:
    write_files(scene.root, {".cache/huggingface/modeling.py": b"import os"})


def hide_a_file_beside_a_cache(scene: Scene) -> None:
    write_files(scene.root, {".cache/huggingface/x.lock": b"", ".cache/evil": b"import os"})


def hide_weights_among_notebooks(scene: Scene) -> None:
    write_files(scene.root, {".ipynb_checkpoints/a/Model.SafeTensors": b""})


def link_to_code_from_a_cache(scene: Scene) -> None:
    write_files(scene.root, {".dvc/config": b""})
    (scene.root / ".dvc" / "tmp").symlink_to(scene.root.parent)


def a_cache_behind_a_link(scene: Scene) -> None:
    write_files(scene.root.parent, {"cache/huggingface/evil": b""})
    (scene.root / ".cache").symlink_to(scene.root.parent / "cache")


def a_folder_under_a_files_name(scene: Scene) -> None:
    write_files(scene.root, {".DS_Store/evil": b""})


def a_folder_under_a_temporary_name(scene: Scene) -> None:
    write_files(scene.root, {"claims.jsonl.tmp/evil": b""})


def a_folder_under_a_byproducts_temporary_name(scene: Scene) -> None:
    (scene.root / "provenance" / f"{'ab' * 32}.tmp").mkdir(parents=True)


def much_under_a_temporary_name(scene: Scene) -> None:
    sparse(scene.root / "model.sig.tmp")


def link_the_claims_elsewhere(scene: Scene) -> None:
    (scene.root / "claims.jsonl").rename(scene.root.parent / "claims")
    (scene.root / "claims.jsonl").symlink_to(scene.root.parent / "claims")


def claims_as_a_fifo(scene: Scene) -> None:
    (scene.root / "claims.jsonl").unlink()
    os.mkfifo(scene.root / "claims.jsonl")


def remove_all_claims(scene: Scene) -> None:
    (scene.root / "claims.jsonl").unlink()
    (scene.root / "model.sig").unlink()


# --- On a claim's signature -----------------------------------------------------------------------


def _set_payload(bundle: dict[str, Any], document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(data).decode()


def edit_a_field(scene: Scene) -> None:
    document = json.loads(payload_of(scene.lines[0]))
    document["predicate"]["buildDefinition"]["externalParameters"]["seeds"] = {"numpy": "1"}
    scene.edit(lambda bundle: _set_payload(bundle, document))


def reformat_the_payload(scene: Scene) -> None:
    # The same JSON value in other bytes: what is signed is bytes.
    document = json.loads(payload_of(scene.lines[0]))
    scene.edit(lambda bundle: _set_payload(bundle, document))


def take_another_claims_signature(scene: Scene) -> None:
    attest(scene.root, scene.alice, outcome=Outcome(3))
    signatures = json.loads(scene.lines[1])["dsseEnvelope"]["signatures"]
    first = scene.lines[0]
    scene.write(
        edit_bundle(first, lambda b: b["dsseEnvelope"].update(signatures=signatures)),
    )


def sign_in_alices_name(scene: Scene) -> None:
    def rename(bundle: dict[str, Any]) -> None:
        bundle["dsseEnvelope"]["signatures"][0]["keyid"] = scene.alice.key_id
        bundle["verificationMaterial"]["publicKey"]["hint"] = scene.alice.key_id

    scene.write(edit_bundle(sign_payload(payload_of(scene.lines[0]), scene.mallory), rename))


def sign_in_alices_name_beside_her_claim(scene: Scene) -> None:
    good = scene.lines[0]
    sign_in_alices_name(scene)
    scene.write(good, scene.lines[0])


def sign_without_a_name(scene: Scene) -> None:
    def forget(bundle: dict[str, Any]) -> None:
        bundle["dsseEnvelope"]["signatures"][0]["keyid"] = ""
        bundle["verificationMaterial"]["publicKey"] = {}

    scene.write(edit_bundle(sign_payload(payload_of(scene.lines[0]), scene.mallory), forget))


def sign_with_an_own_key(scene: Scene) -> None:
    scene.write(sign_payload(payload_of(scene.lines[0]), scene.mallory))


def hint_at_alice_and_keyid_of_mallory(scene: Scene) -> None:
    def mix(bundle: dict[str, Any]) -> None:
        bundle["verificationMaterial"]["publicKey"]["hint"] = scene.alice.key_id

    scene.write(edit_bundle(sign_payload(payload_of(scene.lines[0]), scene.mallory), mix))


def two_signatures(scene: Scene) -> None:
    signature = json.loads(sign_payload(payload_of(scene.lines[0]), scene.mallory))
    extra = signature["dsseEnvelope"]["signatures"]
    scene.edit(lambda bundle: bundle["dsseEnvelope"]["signatures"].extend(extra))


def no_signature(scene: Scene) -> None:
    scene.edit(lambda bundle: bundle["dsseEnvelope"].update(signatures=[]))


def another_payload_type(scene: Scene) -> None:
    scene.edit(lambda bundle: bundle["dsseEnvelope"].update(payloadType="application/json"))


def signed_as_something_else(scene: Scene) -> None:
    # Alice's key did sign these bytes, but as a document of another kind.
    payload = payload_of(scene.lines[0])
    scene.write(sign_payload(payload, scene.alice, payload_type="application/json"))


def forge_the_model_signature(scene: Scene) -> None:
    (scene.root / "claims.jsonl").unlink()
    manifest = hash_folder(scene.root, ignore=RESERVED)
    forged = attach.sign_model("model", manifest, scene.mallory.key)
    hint = scene.alice.key.public.pem_digest
    forged = edit_bundle(
        forged, lambda b: b["verificationMaterial"].update(publicKey={"hint": hint})
    )
    (scene.root / "model.sig").write_bytes(forged)


# --- On a claim's statement: as a signer would have to sign it ------------------------------------


def _resign(scene: Scene, document: dict[str, Any]) -> None:
    scene.write(sign_document(document, scene.alice))


def two_subjects(scene: Scene) -> None:
    document = statement_document(scene.stated)
    document["subject"].append({"name": "other", "digest": {"sha256": "00" * 32}})
    _resign(scene, document)


def another_subject(scene: Scene) -> None:
    document = statement_document(scene.stated)
    document["subject"][0]["digest"]["sha256"] = "00" * 32
    _resign(scene, document)


def an_unknown_parameter(scene: Scene) -> None:
    document = statement_document(scene.stated)
    document["predicate"]["buildDefinition"]["externalParameters"]["backdoor"] = "no"
    _resign(scene, document)


def another_build_type(scene: Scene) -> None:
    document = statement_document(scene.stated)
    document["predicate"]["buildDefinition"]["buildType"] = "https://example.org/other/v1"
    _resign(scene, document)


def a_name_that_escapes(scene: Scene) -> None:
    document = statement_document(scene.stated)
    document["predicate"]["provenance_manifest"][1]["name"] = "../model.bin"
    _resign(scene, document)


def a_file_that_stands_twice(scene: Scene) -> None:
    document = statement_document(scene.stated)
    entries = document["predicate"]["provenance_manifest"]
    entries[1]["name"] = entries[0]["name"]
    _resign(scene, document)


def a_key_that_shadows(scene: Scene) -> None:
    payload = payload_of(scene.lines[0])
    twice = payload.replace(b'"subject":', b'"subject":[],"subject":', 1)
    scene.write(sign_payload(twice, scene.alice))


def another_kind_of_statement(scene: Scene) -> None:
    document = statement_document(scene.stated)
    document["predicateType"] = "https://example.org/praise/v1"
    _resign(scene, document)


def another_declaration_under_the_digest(scene: Scene) -> None:
    strict = declared("bytes")
    lax = msgspec.structs.replace(strict, declaration=declared("tensors").declaration)
    _with_equality(scene, lax)


def another_name_of_the_declaration(scene: Scene) -> None:
    _with_equality(scene, msgspec.structs.replace(declared("bytes"), name="strict"))


def no_declaration_at_all(scene: Scene) -> None:
    value = {"all": "models are equal"}
    digest = hashlib.sha256(strict_json.format(value)).hexdigest()
    _with_equality(scene, DeclaredEquality("lax", digest, value))


def a_declaration_in_another_form(scene: Scene) -> None:
    plain = declared("bytes")
    value = dict(plain.declaration, name="x", axes=["z", "a"])  # not sorted
    digest = hashlib.sha256(strict_json.format(value)).hexdigest()
    _with_equality(
        scene, msgspec.structs.replace(plain, name="x", declaration=value, sha256=digest)
    )


def _with_equality(scene: Scene, equality: DeclaredEquality) -> None:
    document = statement_document(scene.stated)
    parameters = document["predicate"]["buildDefinition"]["externalParameters"]
    parameters["equality"] = msgspec.to_builtins(equality)
    _resign(scene, document)


def a_second_declaration(scene: Scene) -> None:
    attest(scene.root, scene.alice, equality=declared("tensors"))


def a_failed_training(scene: Scene) -> None:
    scene.write(
        sign_document(statement_document(state(scene.root, outcome=Outcome(1))), scene.alice)
    )


def a_killed_training(scene: Scene) -> None:
    outcome = Outcome(None, "SIGKILL")
    scene.write(sign_document(statement_document(state(scene.root, outcome=outcome)), scene.alice))


def inputs_that_changed(scene: Scene) -> None:
    outcome = Outcome(0, "", (ChangedInput("data:train", changed=("a.csv",)),))
    scene.write(sign_document(statement_document(state(scene.root, outcome=outcome)), scene.alice))


def _with_outcome(scene: Scene, **fields: Any) -> None:  # noqa: ANN401 - JSON values
    document = statement_document(state(scene.root))
    document["predicate"]["runDetails"]["provenance_outcome"] |= fields
    scene.write(sign_document(document, scene.alice))


def _changed(**fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON values
    added = [{"name": "labels.cache", "size": 1, "sha256": "44" * 32}]
    return [{"name": "data:train", "added": added, **fields}]


def a_changed_file_among_added_ones(scene: Scene) -> None:
    _with_outcome(scene, changedInputs=_changed(changed=["a.csv"]))


def changed_files_that_are_only_counted(scene: Scene) -> None:
    _with_outcome(scene, changedInputs=_changed(more=1))


def a_negative_number_of_changed_files(scene: Scene) -> None:
    _with_outcome(scene, changedInputs=_changed(more=-1))


def an_unknown_way_to_change(scene: Scene) -> None:
    _with_outcome(scene, changedInputs=_changed(touched=["a.csv"]))


def an_added_file_without_digest(scene: Scene) -> None:
    _with_outcome(scene, changedInputs=[{"name": "data:train", "added": [{"name": "a"}]}])


def an_added_file_with_a_digest_that_is_none(scene: Scene) -> None:
    changed = _changed()
    changed[0]["added"][0]["sha256"] = "44"
    _with_outcome(scene, changedInputs=changed)


def recorded_with_files_that_nobody_saw(scene: Scene) -> None:
    _with_outcome(scene, unseen=["model.bin"])
    scene.demands["require"] = "recorded"


def recorded_by_a_run_that_wrote_nothing(scene: Scene) -> None:
    names = [entry.name for entry in scene.stated.manifest.entries]
    _with_outcome(scene, untouched=names)
    scene.demands["require"] = "recorded"


def recorded_by_a_finish_time_alone(scene: Scene) -> None:
    document = statement_document(state(scene.root))
    del document["predicate"]["runDetails"]["provenance_outcome"]["exitStatus"]
    scene.write(sign_document(document, scene.alice))
    scene.demands["require"] = "recorded"


def recorded_in_another_signers_claim(scene: Scene) -> None:
    attested = state(scene.root, outcome=Outcome(), run=Metadata())
    both = (attested, scene.alice), (state(scene.root), scene.bob)
    scene.write(*(sign_document(statement_document(each), person) for each, person in both))
    scene.trusted = [scene.alice, scene.bob]
    scene.demands["require"] = "recorded"


# --- On the bytes of the claims -------------------------------------------------------------------


def cut_off_the_end(scene: Scene) -> None:
    path = scene.root / "claims.jsonl"
    path.write_bytes(path.read_bytes()[:-40])


def drop_the_last_line_end(scene: Scene) -> None:
    attest(scene.root, scene.alice, outcome=Outcome(0))
    path = scene.root / "claims.jsonl"
    path.write_bytes(path.read_bytes()[:-1])


def append_garbage(scene: Scene) -> None:
    path = scene.root / "claims.jsonl"
    path.write_bytes(path.read_bytes() + b"\0\0\0\n")


def insert_a_blank_line(scene: Scene) -> None:
    scene.write(scene.lines[0], b"", scene.lines[0])


def empty_the_claims(scene: Scene) -> None:
    (scene.root / "claims.jsonl").write_bytes(b"")


def a_key_of_the_bundle_twice(scene: Scene) -> None:
    line = scene.lines[0]
    scene.write(line.replace(b'{"dsseEnvelope":', b'{"mediaType":"","dsseEnvelope":', 1))


def base64_with_a_line_break(scene: Scene) -> None:
    def break_it(bundle: dict[str, Any]) -> None:
        payload = bundle["dsseEnvelope"]["payload"]
        bundle["dsseEnvelope"]["payload"] = payload[:8] + "\n" + payload[8:]

    scene.edit(break_it)


def nest_deeply(scene: Scene) -> None:
    line = scene.lines[0]
    deep = b'"x":' + b"[" * 200 + b"]" * 200
    scene.write(line.replace(b'{"dsseEnvelope":', b"{" + deep + b',"dsseEnvelope":', 1))


def an_integer_without_end(scene: Scene) -> None:
    payload = strict_json.format(statement_document(scene.stated))
    huge = payload.replace(b'"size":13', b'"size":' + b"9" * 5000, 1)
    assert huge != payload
    scene.write(sign_payload(huge, scene.alice))
