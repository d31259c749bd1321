"""Attacks on a policy that asks for two organisations. Each changes the scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.world import attest

if TYPE_CHECKING:
    from tests.forgeries.scene import Scene
    from tests.world import Person


def _sign(scene: Scene, *people: Person) -> None:
    """Have *people* sign, each a claim that is like none of the others."""
    (scene.root / "claims.jsonl").unlink()
    for number, person in enumerate(people):
        attest(scene.root, person, environment={"OMP_NUM_THREADS": str(number)})
    (scene.root / "model.sig").unlink()


def honest(scene: Scene) -> None:
    _sign(scene, scene.alice, scene.bob)
    parties = "".join(
        f'[[party]]\nname = "{each.name}"\norganisation = "of {each.name}"\n'
        f'keys = ["{each.name}.pub"]\n'
        for each in (scene.alice, scene.bob)
    )
    rule = '[[rule]]\nstatement = "training"\norganisations = 2\n'
    (scene.root.parent / "policy.toml").write_text(f"format = 1\n{parties}{rule}")


def one_key_twice(scene: Scene) -> None:
    _sign(scene, scene.alice, scene.alice)


def a_stranger_beside_alice(scene: Scene) -> None:
    _sign(scene, scene.alice, scene.mallory)
