"""A training, recorded by the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.world import Person, payload_of, run_program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def record(
    folder: Path,
    person: Person,
    environ: Mapping[str, str],
    *words: str,
    model: str = "model",
    options: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Record the command *words* in *folder* and return the predicate of the claim."""
    own: tuple[str | Path, ...] = (
        "--model",
        model,
        "--key",
        person.private,
        "--data",
        "rows=data/rows.csv",
    )
    ran = run_program("record", *own, *options, "--", *words, cwd=folder, environ=environ)
    assert ran.status == 0, ran.err
    [made] = folder.glob(f"{model}/claims.jsonl")
    [line] = made.read_bytes().splitlines()
    predicate: dict[str, Any] = json.loads(payload_of(line))["predicate"]
    return predicate
