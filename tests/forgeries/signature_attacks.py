"""Attacks on a model signature (``model.sig``). Each changes the scene."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from provenance.encoding import strict_json
from provenance.files.manifest import hash_folder, root_digest
from provenance.files.names import RESERVED
from provenance.folder import attach
from tests.world import edit_bundle, payload_of, sign_payload

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.forgeries.scene import Scene


def _edited(change: Callable[[dict[str, Any]], object], *, fits: bool = True) -> Any:  # noqa: ANN401 - an attack
    """Return the attack in which Alice signed what *change* makes of the statement.

    Its subject is the digest of the resources, if it *fits*.
    """

    def attack(scene: Scene) -> None:
        path = scene.root / "model.sig"
        document = json.loads(payload_of(path.read_bytes()))
        change(document)
        if fits:
            digests = [it["digest"].lower() for it in document["predicate"]["resources"]]
            document["subject"][0]["digest"]["sha256"] = root_digest(digests)
        path.write_bytes(sign_payload(strict_json.format(document), scene.alice))

    return attack


def _first(**fields: str) -> Any:  # noqa: ANN401 - an attack
    return _edited(lambda document: document["predicate"]["resources"][0].update(fields))


def _serialization(**fields: Any) -> Any:  # noqa: ANN401 - an attack, JSON values
    return _edited(lambda document: document["predicate"]["serialization"].update(fields))


def _twice(document: dict[str, Any]) -> None:
    resources = document["predicate"]["resources"]
    resources.append(resources[0])


def _upper(document: dict[str, Any]) -> None:
    resource = document["predicate"]["resources"][0]
    resource["digest"] = resource["digest"].upper()


def _add(name: str) -> Any:  # noqa: ANN401 - an attack
    return _edited(
        lambda document: document["predicate"]["resources"].append(
            {"name": name, "algorithm": "sha256", "digest": "e3" * 32}
        )
    )


a_name_outside = _add("../outside")
an_absolute_name = _add("/etc/passwd")
a_name_with_a_dot = _add("./config.json")
a_resource_twice = _edited(_twice)
an_upper_case_digest = _edited(_upper)
another_root = _edited(
    lambda document: document["subject"][0]["digest"].update(sha256="00" * 32), fits=False
)
files_that_the_subject_does_not_cover = _edited(
    lambda document: document["predicate"]["resources"].pop(), fits=False
)
hashed_with_sha1 = _serialization(hash_type="sha1")
a_resource_with_sha1 = _first(algorithm="sha1", digest="a9" * 20)
weights_that_are_ignored = _serialization(ignore_paths=["evil.safetensors"])
shards_of_no_size = _serialization(method="shards", shard_size=0)


def honest(scene: Scene) -> None:
    """Leave the signature as it is."""


def another_key_under_alices_hint(scene: Scene) -> None:
    manifest = hash_folder(scene.root, ignore=RESERVED)
    forged = attach.sign_model("model", manifest, scene.mallory.key)
    hint = {"publicKey": {"hint": scene.alice.key.public.pem_digest}}
    forged = edit_bundle(forged, lambda bundle: bundle["verificationMaterial"].update(hint))
    (scene.root / "model.sig").write_bytes(forged)
