"""Make ``made/VERSION-CASE.sig`` with the model-signing that runs this, and ``made/key``'s key.

Run from this folder, once with each version: ``PYTHON make.py KEY``, KEY a private key in PEM.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from model_signing import hashing, signing

HERE = Path(__file__).parent
VERSION = version("model-signing")


def sign(case: str, config: hashing.Config, *, model: Path) -> None:
    target = HERE / f"made/{VERSION}-{case}.sig"
    signer = object.__new__(signing.Config)  # 1.0's own constructor asks for Sigstore's roots
    signer.use_elliptic_key_signer(private_key=Path(sys.argv[1]))
    signer.set_hashing_config(config).sign(model, target)


def config(*ignored: Path) -> hashing.Config:
    return hashing.Config().set_ignored_paths(paths=ignored)


with tempfile.TemporaryDirectory() as folder:
    model = Path(folder) / "tiny"
    shutil.copytree(HERE / "model", model)
    weights = model / "weights.bin"
    sign("files", config(), model=model)
    sign("shards", config().use_shard_serialization(shard_size=5), model=model)
    sign("blake2b", config().use_file_serialization(hashing_algorithm="blake2"), model=model)
    blake2 = config().use_shard_serialization(hashing_algorithm="blake2", shard_size=5)
    sign("shards-blake2b", blake2, model=model)
    sign("one-file", config(), model=weights)
    sign("one-file-shards", config().use_shard_serialization(shard_size=5), model=weights)
    sign("ignored", config(model / "notes.md", model / "sub"), model=model)
    if not VERSION.startswith("1.0."):
        blake3 = config().use_file_serialization(hashing_algorithm="blake3")
        sign("blake3", blake3, model=model)
        (model / "last.bin").symlink_to("weights.bin")
        (model / "linked").symlink_to("sub")
        sign("links", config().set_allow_symlinks(allow_symlinks=True), model=model)
