"""One training statement that uses every field, and ways to alter it."""

from __future__ import annotations

import copy
import hashlib
from typing import Any, Final

from provenance.files.manifest import FileEntry, Manifest, manifest_of
from provenance.statement import training
from provenance.statement.intoto import ResourceDescriptor, Statement
from provenance.statement.training import (
    BuildDefinition,
    Builder,
    Collected,
    DeclaredEquality,
    Drift,
    Environment,
    Metadata,
    Outcome,
    ProgramFile,
    Recipe,
    RunDetails,
    Source,
    TrainingStatement,
)
from provenance.statement.uris import BUILD_TYPE, LOCAL_BUILDER

MISSING: Final = object()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest(files: dict[str, bytes]) -> Manifest:
    return manifest_of(FileEntry(name, len(data), sha256(data)) for name, data in files.items())


MODEL = manifest({"config.json": b"{}", "sub/tok.txt": b"t", "weights.bin": b"w"})
DATA = manifest({"train.csv": b"1,2", "labels/a": b""})

TRAINING = TrainingStatement(
    model_name="digits",
    manifest=MODEL,
    build=BuildDefinition(
        build_type=BUILD_TYPE,
        external_parameters=Recipe(
            command=("python", "train.py", "--seed=1"),
            source=Source(
                commit="a" * 40,
                tree="b" * 40,
                dirty=True,
                folder="training",
                uri="git+https://example.com/digits",
                files=(ProgramFile("train.py", sha256(b"import numpy")),),
            ),
            config=(training.describe_input("config", DATA)[0],),
            data=(training.describe_input("data", DATA, role="train")[0],),
            base_model=training.describe_input("base", MODEL)[0],
            seeds={"numpy": "1"},
            axes=("threads",),
            equality=DeclaredEquality("bytes", sha256(b'{"name":"bytes"}'), {"name": "bytes"}),
        ),
        internal_parameters=Environment(
            collectors={
                "cpu": Collected("ok", {"flags": ["avx2"], "cores": 2}),
                "gpu": Collected("absent", reason="no driver"),
            },
            drift=(Drift("knobs", "OMP_NUM_THREADS", None, "1"),),
            observed=("start",),
        ),
        resolved_dependencies=(
            ResourceDescriptor(name="code", uri="git+file:.", digest={"gitTree": "b" * 40}),
            ResourceDescriptor(name="numpy", annotations={"version": "2.0"}),
        ),
    ),
    run=RunDetails(
        builder=Builder(LOCAL_BUILDER, {"provenance": "0.1.0"}),
        metadata=Metadata("id", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
        byproducts=(
            ResourceDescriptor(
                name="metrics",
                digest={"sha256": sha256(b"")},
                media_type="application/jsonl",
                annotations={"last": {"loss": 0.25, "exploded": 1e16}},
            ),
        ),
        provenance_outcome=Outcome(exit_status=0),
        provenance_signer="AAAA",
    ),
)


def altered(statement: Statement, path: str, value: object) -> Statement:
    """Return *statement* with *value* at the dotted *path* of its predicate."""
    predicate = copy.deepcopy(statement.predicate)
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place: Any = predicate
    for part in parents:
        if isinstance(place[part], tuple):
            place[part] = list(place[part])
        place = place[part]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return Statement(statement.subject, statement.predicate_type, predicate)
