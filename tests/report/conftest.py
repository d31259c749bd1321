"""A trainer's folder with every kind of file in it, made once by the program itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from provenance import cli
from provenance.encoding import strict_json
from provenance.files.manifest import hash_folder
from provenance.files.names import RESERVED
from provenance.folder import claims
from provenance.folder.attach import attach, sign_claim
from provenance.keys import load_private
from provenance.statement import intoto, training
from provenance.statement.intoto import ResourceDescriptor
from tools.schemas.examples import CLOSE, training_example

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = strict_json.format([["digits.npz", 270_000, hashlib.sha256(b"data").hexdigest()]])
METRICS = b"".join(
    strict_json.format({"name": "loss", "step": step, "value": 1 / (step + 1)}) + b"\n"
    for step in range(4)
)
NOTES = b"what the trainer wrote down"


@dataclass(frozen=True, slots=True)
class World:
    """Where things are. *model* was published and *rebuild* made by another builder."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def rebuild(self) -> Path:
        return self.root / "rebuild"

    @property
    def log(self) -> Path:
        return self.root / "log"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    root = made.root
    patch = pytest.MonkeyPatch()
    patch.setenv("PASSWORD", "open sesame")
    for name, *options in (
        ("builder",),
        ("second",),
        ("log.key", "--algorithm", "ed25519"),
        ("pq.key", "--algorithm", "ml-dsa-65"),
        ("locked", "--password-env", "PASSWORD"),
    ):
        assert cli.run(["keygen", str(root / name), *options]) == 0
    patch.undo()
    for folder, key in ((made.model, "builder"), (made.rebuild, "second")):
        _make_model(folder, root / key)
    run("log", "init", str(made.log), "--origin", "example.org/log", "--key", str(root / "log.key"))
    run("publish", str(made.model), "--log", str(made.log))
    run("sign", str(made.model), "--key", str(root / "builder"))
    keys = [f"--key={root / name}.pub" for name in ("builder", "second")]
    verdict = ["--sign-with", str(root / "second"), "--out", str(root / "verdict.json")]
    run("agree", str(made.model), str(made.rebuild), *keys, *verdict)
    (root / "equality.toml").write_bytes(CLOSE)
    (root / "statement.json").write_bytes(_statement(made.model))
    return made


def run(*arguments: str) -> None:
    assert cli.run(list(arguments)) == 0


def _make_model(folder: Path, key_path: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(7)
    for name in ("initial.safetensors", "model.safetensors"):
        weights = {"hidden.weight": rng.standard_normal((4, 3), np.float32)}
        save_file(weights, folder / name, metadata={"format": "np"})
    np.savez(folder / "scaler.npz", mean=np.zeros(3), scale=np.float32(2))
    np.save(folder / "classes.npy", np.arange(10))
    (folder / "config.json").write_text('{"hidden": 3}')
    byproducts = {sha256(data): data for data in (MANIFEST, METRICS, NOTES)}
    example = training_example()
    described = (
        ResourceDescriptor(name="manifest/data:train", digest={"sha256": sha256(MANIFEST)}),
        ResourceDescriptor(name="metrics", digest={"sha256": sha256(METRICS)}),
        ResourceDescriptor(name="notes", digest={"sha256": sha256(NOTES)}, media_type="text/plain"),
    )
    run_details = msgspec.structs.replace(
        example.run,
        byproducts=described,
        provenance_outcome=training.Outcome(0),
        metadata=msgspec.structs.replace(example.run.metadata, invocation_id=folder.name),
    )
    statement = msgspec.structs.replace(
        example,
        manifest=hash_folder(folder, ignore=RESERVED),
        run=run_details,
    )
    key = load_private(key_path)
    statement = training.name_signer(statement, key.public)
    payload = intoto.format(training.to_statement(statement))
    attach(folder, sign_claim(folder, statement, payload, byproducts, key))
    (folder / "model.sig").unlink()


def _statement(model: Path) -> bytes:
    return claims.read_bundles(model / "claims.jsonl")[0].envelope.payload
