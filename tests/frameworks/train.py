"""Make the stored runs: `python train.py PYTHON FOLDER [NAME…]`, PYTHON having the frameworks.

Each training of `tests/integration/trainings` runs twice, as two people would: in two folders, into
differently named ones, one after the other, with other seeds of Python's hashes.
"""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "integration" / "trainings"
TRAININGS = {
    "hf-trainer": "hf_trainer.py rows.csv {out}",
    "lightning": "lightning_fit.py rows.csv {out} {out}/checkpoints",
    "keras": "keras_fit.py rows.csv {out}",
    "sklearn": "skops_fit.py rows.csv {out}",
    "peft": "peft_lora.py rows.csv {base} {out}",
    "kohya": "kohya_lora.py rows.csv {out} lora",
}
ALONE = """
import runpy, sys, types
silent = types.SimpleNamespace(metric=lambda *a, **k: None, seed=lambda *a: None)
sys.modules["provenance"] = types.SimpleNamespace(current_run=lambda: silent)
del sys.argv[0]
sys.path[0] = "."
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a training where nobody records it, and there is no `provenance`."""


def train(python: str, place: Path, names: list[str], environ: dict[str, str]) -> None:
    """Run the trainings *names* in *place*."""
    shutil.copytree(SCRIPTS, place, ignore=shutil.ignore_patterns("__pycache__"))
    draw = random.Random(0).gauss
    rows = [",".join(f"{draw(0, 1):.4f}" for _ in range(5)) for _ in range(64)]
    (place / "rows.csv").write_text("\n".join(rows) + "\n")
    base = f"base-of-{place.name}"
    for words in (f"base_model.py {base}", *(TRAININGS[name] for name in names)):
        script, *given = words.split()
        out = f"{script.removesuffix('.py')}-of-{place.name}"
        given = [word.format(out=out, base=base) for word in given]
        subprocess.run([python, "-c", ALONE, script, *given], cwd=place, env=environ, check=True)


def main(python: str, folder: Path, names: list[str]) -> None:
    """Train as two people, and keep what each training left behind."""
    common = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for number, (who, kept) in enumerate({"alice": "published", "bob": "rebuilt"}.items()):
        place = folder / who / ("again" if number else "models")
        train(python, place, names, {**common, "PYTHONHASHSEED": str(number)})
        for name in names:
            made = place / f"{TRAININGS[name].split('.')[0]}-of-{place.name}"
            target = Path(__file__).parent / name / kept
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(made, target)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve(), sys.argv[3:] or [*TRAININGS])
