"""Attacks on claims. Each changes the scene."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import msgspec

from provenance.encoding import strict_json
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
    from tests.forgeries.scene import Scene


def honest(scene: Scene) -> None:
    """Leave the claim as it is."""


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


def signed_without_its_type(scene: Scene) -> None:
    # Alice's key signed the payload, and not DSSE's encoding of it and its type.
    signature = base64.b64encode(scene.alice.key.sign(payload_of(scene.lines[0]))).decode()
    scene.edit(lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig=signature))


def an_empty_signature(scene: Scene) -> None:
    scene.edit(lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig=""))


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


def a_claim_of_another_model(scene: Scene) -> None:
    other = write_files(scene.root.parents[1] / "other", {"model.bin": b"other weights"})
    scene.write((attest(other, scene.alice) / "claims.jsonl").read_bytes().rstrip())


def _with_manifest(scene: Scene, number: int, **fields: Any) -> None:  # noqa: ANN401 - JSON values
    document = statement_document(scene.stated)
    document["predicate"]["provenance_manifest"][number] |= fields
    _resign(scene, document)


def other_names_under_the_same_root(scene: Scene) -> None:
    _with_manifest(scene, 1, name="model.old")  # names are not in the root digest


def other_sizes_under_the_same_root(scene: Scene) -> None:
    _with_manifest(scene, 1, size=65)


def a_manifest_that_is_not_the_subjects(scene: Scene) -> None:
    _with_manifest(scene, 1, sha256="44" * 32)


def a_subject_by_sha1(scene: Scene) -> None:
    document = statement_document(scene.stated)
    document["subject"][0]["digest"] = {"sha1": "a9" * 20}
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


def recorded_by_a_run_that_wrote_nothing(scene: Scene) -> None:
    names = [entry.name for entry in scene.stated.manifest.entries]
    _with_outcome(scene, untouched=names)


def recorded_by_a_finish_time_alone(scene: Scene) -> None:
    document = statement_document(state(scene.root))
    del document["predicate"]["runDetails"]["provenance_outcome"]["exitStatus"]
    scene.write(sign_document(document, scene.alice))


def recorded_in_another_signers_claim(scene: Scene) -> None:
    attested = state(scene.root, outcome=Outcome(), run=Metadata())
    both = (attested, scene.alice), (state(scene.root), scene.bob)
    scene.write(*(sign_document(statement_document(each), person) for each, person in both))


# --- On the bytes of the claims -------------------------------------------------------------------


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


def a_name_in_another_normal_form(scene: Scene) -> None:
    write_files(scene.root, {"caf\u00e9": b"x\n"})
    _resign(scene, statement_document(state(scene.root)))
    (scene.root / "caf\u00e9").unlink()
