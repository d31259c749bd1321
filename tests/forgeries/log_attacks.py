"""Attacks on the proof that a claim is in a log. Each publishes first, then changes the scene."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from provenance.keys import generate
from provenance.transparency import note
from tests.forgeries.scene import foreign_checkpoint
from tests.world import attest, edit_bundle, edit_lines, write_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.forgeries.scene import Scene


def honest(scene: Scene) -> None:
    scene.publish()


def never_published(scene: Scene) -> None:
    scene.trust(note.VerifierKey("example.org/log", generate("ed25519").public))


def published_in_another_log(scene: Scene) -> None:
    wanted = scene.publish("wanted").verifier
    scene.edit(lambda bundle: bundle["verificationMaterial"].update(tlogEntries=[]))
    scene.publish("other", scene.larry)
    scene.trust(wanted)


def another_key_under_the_logs_name(scene: Scene) -> None:
    scene.publish()
    scene.trust(note.VerifierKey("example.org/log", generate("ed25519").public))


def strip_the_entry(scene: Scene) -> None:
    scene.publish()
    scene.edit(lambda bundle: bundle["verificationMaterial"].update(tlogEntries=[]))


def take_another_claims_entry(scene: Scene) -> None:
    attest(scene.root, scene.alice)
    scene.publish()
    entry = scene.entry

    def replace(bundle: dict[str, Any]) -> None:
        bundle["verificationMaterial"]["tlogEntries"] = [entry]

    edit_lines(scene.root, lambda lines: [edit_bundle(lines[0], replace), lines[1]])


def take_the_entry_of_other_weights(scene: Scene) -> None:
    scene.publish()
    entry = scene.entry
    (scene.root / "claims.jsonl").unlink()
    write_files(scene.root, {"model.bin": b"other weights"})
    attest(scene.root, scene.alice)
    scene.edit(lambda bundle: bundle["verificationMaterial"].update(tlogEntries=[entry]))


def _proof(change: Callable[[dict[str, Any]], None]) -> Callable[[Scene], None]:
    def attack(scene: Scene) -> None:
        attest(scene.root, scene.alice)  # two entries, so that a proof has a hash
        scene.publish()
        edit_lines(
            scene.root,
            lambda lines: [
                edit_bundle(
                    lines[0], lambda b: change(b["verificationMaterial"]["tlogEntries"][0])
                ),
                *lines[1:],
            ],
        )

    return attack


def _set_index(entry: dict[str, Any]) -> None:
    entry["logIndex"] = entry["inclusionProof"]["logIndex"] = "2"


def _set_other_index(entry: dict[str, Any]) -> None:
    entry["logIndex"] = entry["inclusionProof"]["logIndex"] = "1"


def _set_size(entry: dict[str, Any]) -> None:
    entry["inclusionProof"]["treeSize"] = "1"


def _set_root(entry: dict[str, Any]) -> None:
    entry["inclusionProof"]["rootHash"] = entry["inclusionProof"]["hashes"][0]


def _drop_hash(entry: dict[str, Any]) -> None:
    entry["inclusionProof"]["hashes"] = []


def _edit_checkpoint(entry: dict[str, Any]) -> None:
    envelope = entry["inclusionProof"]["checkpoint"]["envelope"]
    entry["inclusionProof"]["checkpoint"]["envelope"] = envelope.replace("\n2\n", "\n1\n", 1)


def _break_checkpoint(entry: dict[str, Any]) -> None:
    entry["inclusionProof"]["checkpoint"]["envelope"] = "nothing"


def _add_field(entry: dict[str, Any]) -> None:
    entry["note"] = "trust me"


index_at_the_size = _proof(_set_index)
index_of_another = _proof(_set_other_index)
smaller_tree = _proof(_set_size)
another_root = _proof(_set_root)
shorter_path = _proof(_drop_hash)
edited_checkpoint = _proof(_edit_checkpoint)
broken_checkpoint = _proof(_break_checkpoint)
unknown_field = _proof(_add_field)


def checkpoint_by_another_key(scene: Scene) -> None:
    signer = scene.publish()
    keeper = type(scene.larry)("stranger", generate("ed25519"), scene.larry.private)
    forged = foreign_checkpoint(scene.entry, keeper, signer.name)

    def replace(entry: dict[str, Any]) -> None:
        entry["inclusionProof"]["checkpoint"]["envelope"] = forged

    scene.edit_entry(replace)


def seventeen_entries(scene: Scene) -> None:
    scene.publish()
    entry = json.dumps(scene.entry)
    scene.edit(lambda b: b["verificationMaterial"].update(tlogEntries=[json.loads(entry)] * 17))
