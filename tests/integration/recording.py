"""Trainings, recorded by the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from provenance.encoding import strict_base64
from tests.world import Person, Ran, payload_of, run_program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TOKEN = "hf_" + "abcdefghijklmnopqrstuvwxyz012345"


@dataclass(frozen=True)
class Training:
    """How somebody trains: ``{out}`` stands for the model's folder, ``{base}`` for a base model's.

    ``equality`` is what is declared. ``stray`` is a file that only Bob's folder has. With ``ours``
    the program finds our package, and its entry points, without a recorder too.
    """

    command: str
    equality: str = ""
    stray: str = ""
    ours: bool = False

    def words(self, **places: object) -> list[str]:
        """The command, a word each; what stands in quotes is one."""
        first, quote, quoted = self.command.format(**places).partition("'")
        return [*first.split(), *([quoted.rstrip("'")] if quote else [])]


TORCH = "torch_cpu.py data/rows.csv {out}"
SKLEARN = "sklearn_fit.py data/rows.csv {out}"
TRAININGS = {
    "torch": Training(f"python {TORCH}", stray="err.txt"),
    "torch under bash -c": Training(f"bash -c 'python {TORCH}'"),
    "torchrun": Training("torchrun --nproc-per-node 2 ddp.py data/rows.csv {out}"),
    "scikit-learn": Training(f"nice -n 5 timeout 600 nohup taskset -c 0 python {SKLEARN}"),
    "scikit-learn under uv run": Training(f"uv run --no-sync --offline {SKLEARN}"),
    "HF Trainer": Training("make {out}", "hf-trainer"),
    "Lightning": Training(
        "bash run.sh lightning_fit.py data/rows.csv {out} {out}/checkpoints", "lightning"
    ),
    "notebook": Training("jupyter execute notebook.ipynb"),
    "Keras": Training("python keras_fit.py data/rows.csv {out}", "keras"),
    "skops": Training("python skops_fit.py data/rows.csv {out}", "sklearn"),
    "PEFT": Training("python peft_lora.py data/rows.csv {base} {out}", "peft"),
    "kohya": Training("python kohya_lora.py data/rows.csv {out} lora", "kohya"),
    "plain script": Training("python plain.py data/rows.csv {out}"),
    "HF, callback": Training(f"python hf_callback.py {{out}} {TOKEN}", ours=True),
    "Lightning, callback": Training(
        "python lightning_callback.py {out} hunter2222 line", ours=True
    ),
    "Lightning, variable": Training(
        "env PROVENANCE_LIGHTNING=1 python lightning_callback.py {out} hunter2222", ours=True
    ),
    "Lightning, not asked": Training("python lightning_callback.py {out} hunter2222", ours=True),
    "JAX": Training("python jax_fit.py data/rows.csv {out}"),
    "TensorFlow": Training("python tensorflow_fit.py data/rows.csv {out}"),
}


@dataclass(frozen=True)
class Recorded:
    """What *person* recorded: never changed, since many tests read it."""

    model: Path
    person: Person
    predicate: dict[str, Any]
    ran: Ran
    base: Path | None = None

    @property
    def payload(self) -> bytes:
        return payload_of((self.model / "claims.jsonl").read_bytes().splitlines()[0])

    @property
    def collectors(self) -> dict[str, Any]:
        found: dict[str, Any] = self.predicate["buildDefinition"]["internalParameters"]
        return dict(found["collectors"])

    def byproduct(self, name: str) -> bytes:
        """Return the byproduct *name*, from the claim or from beside it."""
        byproducts = self.predicate["runDetails"]["byproducts"]
        [found] = (each for each in byproducts if each["name"] == name)
        if "content" in found:
            return strict_base64.parse(found["content"])
        digest: str = found["digest"]["sha256"]
        return (self.model / "provenance" / digest).read_bytes()


def record(
    folder: Path,
    person: Person,
    environ: Mapping[str, str],
    *words: str,
    model: str = "model",
    options: tuple[str, ...] = (),
) -> Recorded:
    """Record the command *words* in *folder*."""
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
    return Recorded(made.parent, person, predicate, ran)
