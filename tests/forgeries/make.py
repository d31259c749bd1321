"""Writes what the attackers put down: ``python -m tests.forgeries.make [GROUP …]``.

All keys are new each time, so all folders of a group are written. What a shell can do to a file,
and what is expected, is in each folder's ``expected``, which is written by hand.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.forgeries import (
    certificate_attacks,
    claim_attacks,
    keyless_attacks,
    log_attacks,
    policy_attacks,
    signature_attacks,
)
from tests.forgeries.scene import Scene
from tests.world import attest, declared, make_person, tree, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.world import Person

MODULES = (
    claim_attacks, log_attacks, policy_attacks, signature_attacks, certificate_attacks,
    keyless_attacks,
)  # fmt: skip

HERE = Path(__file__).parent


def keep(group: Path, name: str, found: Path) -> None:
    """Write the folder *name* of *group*: what in *found* is not as in its ``honest``."""
    honest = tree(group / "honest") if name != "honest" else {}
    for each in tree(group / name):
        if each != "expected" and (group / name / each).is_file():
            (group / name / each).unlink()
    for each, data in tree(found).items():
        if isinstance(data, bytes) and honest.get(each) != data:
            write_files(group / name, {each: data})


def attacks_in(module: ModuleType) -> dict[str, Callable[[Scene], None]]:
    found = {
        name: value for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    }  # fmt: skip
    return {"honest": found.pop("honest"), **found}


def make(group: Path, module: ModuleType, people: dict[str, Person]) -> None:
    for name, attack in attacks_in(module).items():
        with TemporaryDirectory() as folder:
            at = Path(folder) / "scene"
            for who in ("alice", "bob"):
                write_files(at, {f"{who}.pub": people[who].public.read_bytes()})
            root = attest(write_files(at / "model"), people["alice"], equality=declared("bytes"))
            left_out = "model.sig" if group.name in ("claim", "log", "policy") else "claims.jsonl"
            (root / left_out).unlink()
            attack(Scene(root, **people))
            (root / left_out).unlink(missing_ok=True)
            keep(group, name, at)


def main() -> None:
    with TemporaryDirectory() as folder:
        names = ("alice", "bob", "mallory", "larry")
        kinds = dict.fromkeys(names, "ecdsa-p256") | {"larry": "ed25519"}
        people = {name: make_person(Path(folder), name, kind) for name, kind in kinds.items()}
        for module in MODULES:
            group = HERE / module.__name__.rpartition(".")[2].removesuffix("_attacks")
            if group.name in (sys.argv[1:] or [group.name]):
                make(group, module, people)


if __name__ == "__main__":
    main()
