"""The scene of an attack: Alice's model, and what the attacker can reach."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from provenance.folder.attach import Log, publish
from provenance.statement import intoto, training
from provenance.transparency import note
from tests.world import edit_bundle, edit_lines, make_log, payload_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.statement.training import TrainingStatement
    from provenance.transparency.note import SignerKey, VerifierKey
    from tests.world import Person


@dataclass
class Scene:
    """Alice's attested model in *root*; the victim trusts her key, and the log in ``log.vkey``."""

    root: Path
    alice: Person
    bob: Person
    mallory: Person
    larry: Person

    @property
    def stated(self) -> TrainingStatement:
        """What Alice's last claim states."""
        payload = payload_of(self.lines[-1])
        return training.from_statement(intoto.parse(payload))

    @property
    def lines(self) -> list[bytes]:
        return (self.root / "claims.jsonl").read_bytes().splitlines()

    def write(self, *lines: bytes) -> None:
        """Put *lines* in the place of the claims."""
        edit_lines(self.root, lambda _: list(lines))

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Edit the last claim's JSON; its signature stays as it is."""
        self.write(*self.lines[:-1], edit_bundle(self.lines[-1], change))

    def trust(self, log: VerifierKey) -> None:
        """Have the victim trust *log*, and no other."""
        (self.root.parent / "log.vkey").write_text(f"{note.format_vkey(log)}\n")

    def publish(self, name: str = "log", keeper: Person | None = None) -> SignerKey:
        """Publish the claims in a new log, whose key the victim trusts from now on."""
        folder = self.root.parents[1] / name
        signer = make_log(folder, keeper or self.larry, f"example.org/{name}")
        publish(self.root, Log(folder, signer))
        self.trust(signer.verifier)
        return signer

    def edit_entry(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Edit the last log entry of the last claim."""
        self.edit(lambda bundle: change(bundle["verificationMaterial"]["tlogEntries"][-1]))

    @property
    def entry(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lines[-1])["verificationMaterial"]["tlogEntries"][
            -1
        ]
        return found


def foreign_checkpoint(entry: dict[str, Any], keeper: Person, origin: str) -> str:
    """Return the checkpoint of *entry*, signed anew by *keeper* under the name *origin*."""
    text = entry["inclusionProof"]["checkpoint"]["envelope"].partition("\n\n")[0] + "\n"
    return note.sign(text, note.signer_key(origin, keeper.key)).decode()
