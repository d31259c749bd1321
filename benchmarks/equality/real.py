"""Train five networks again and again, and measure how far what comes out is apart.

    python -m benchmarks.equality.real --torch PYTHON KEEP

From the root of the repository. PYTHON is an interpreter that has what ``trainings`` need; KEEP
holds the weights, and what it has is not trained again. The distances go to ``real.json``, from
which :mod:`benchmarks.equality.limits` makes the tables. It is an error if a second run in one
environment varies any bit, or fewer than four other environments do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from safetensors.numpy import load_file, save_file

from benchmarks.equality.limits import STORED, answered, distances, shapes
from provenance.equality.declaration import builtin
from provenance.equality.rules import Close, takes

ROOT: Final = Path(__file__).parents[2]
NETWORKS: Final[dict[str, tuple[str, ...]]] = {
    "float32": ("keras", "lstm", "lora", "resnet", "gpt"),
    "bf16-mixed": ("keras", "lstm", "lora", "gpt"),
    "float64": ("lstm", "lora", "resnet", "gpt"),
}

PLANTED: Final = (
    *(("lstm", part) for part in (1.0, 0.01, 0.001)),
    *(("resnet", part) for part in (1.0, 0.1)),
    ("gpt", 1.0),
)
"""Networks with a backdoor, and how much of the limits it uses."""

_AVX2: Final = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"}
_SSE: Final = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}
_TWO: Final = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
_WIDE: Final = {
    "t2": _TWO,
    "avx2": _AVX2 | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx2_t2": _AVX2 | {"ONEDNN_MAX_CPU_ISA": "AVX2"} | _TWO,
    "sse": _SSE,
    "mkl": {"MKL_CBWR": "COMPATIBLE"},
    "aten": {"ATEN_CPU_CAPABILITY": "default"},
}
_NO_AMX: Final = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
_NARROW: Final = {
    "t2": _TWO,
    "no_amx": _NO_AMX,
    "no_amx_aten_avx2": _NO_AMX | _AVX2,
    "no_amx_aten_avx2_t2": _NO_AMX | _AVX2 | _TWO,
    "no_amx_mkl": _NO_AMX | {"MKL_CBWR": "COMPATIBLE"},
    "mkl": {"MKL_CBWR": "COMPATIBLE"},
}
ENVIRONMENTS: Final = {"float32": _WIDE, "bf16-mixed": _NARROW, "float64": _WIDE}
"""Of each precision, what differs from one thread with all that the processor has: as many are
tried as give bits of their own to :data:`ENOUGH`. In bf16-mixed oneDNN keeps AVX-512, without which
it emulates bfloat16, ten times slower."""

ENOUGH: Final = 4

_RECIPES: Final[dict[str, dict[str, Any]]] = {
    "rate": {"rate": 1.1},
    "order1": {"order": 1},
    "accum": {"accum": True},
    "decay": {"decay": 2.0},
}
RECIPES: Final = {
    "float32": _RECIPES,
    "bf16-mixed": _RECIPES,
    "float64": {name: _RECIPES[name] for name in ("rate", "decay")},
}
"""Of each precision, other recipes; arithmetic in another precision is one more."""

OTHER_PRECISION: Final = {"float32": "bf16-mixed", "bf16-mixed": "float32", "float64": "float32"}

_ESTIMATORS: Final = {
    "repeat": {},
    "two threads": {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "JOBS": "2"},
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "Prescott": {"OPENBLAS_CORETYPE": "Prescott"},
    "numpy without X86_V3, V4": {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"},
}


def train_all(python: str, keep: Path) -> None:
    """Train what *keep* lacks."""
    train(python, "pretrain", {}, {keep / "lora" / "pretrain": {}})
    for precision, environments in ENVIRONMENTS.items():
        for network in NETWORKS[precision]:
            at = keep / network
            recipe = {"precision": precision}
            named = {"base": recipe} | {n: recipe | it for n, it in RECIPES[precision].items()}
            train(python, network, {}, {at / f"{precision}-{n}": it for n, it in named.items()})
            train(python, network, {}, {at / f"{precision}-repeat": recipe})
            for run, variables in environments.items():
                if len(own_bits(at, precision)) < ENOUGH:
                    train(python, network, variables, {at / f"{precision}-{run}": recipe})


def own_bits(at: Path, precision: str) -> set[bytes]:
    """Return the weights that are not those of the base."""
    files = [at / f"{precision}-{run}" / "model.safetensors" for run in ENVIRONMENTS[precision]]
    base = (at / f"{precision}-base" / "model.safetensors").read_bytes()
    return {file.read_bytes() for file in files if file.exists()} - {base}


def train(
    python: str, network: str, variables: dict[str, str], wanted: dict[Path, dict[str, Any]]
) -> None:
    """Train *network* by each recipe in *wanted* of which there are no weights."""
    lacking = {o: it for o, it in wanted.items() if not (o / "model.safetensors").exists()}
    if lacking:
        pairs = [text for out, recipe in lacking.items() for text in (str(out), json.dumps(recipe))]
        ask(python, "train", variables, network, *pairs)


def ask(python: str, module: str, variables: dict[str, str], *arguments: str) -> str:
    """Run *module* of this folder in an environment, with one thread unless it says otherwise."""
    command = [python, "-W", "ignore", "-m", f"benchmarks.equality.trainings.{module}", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | variables
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def planted(python: str, keep: Path) -> dict[str, Any]:
    """Return what backdoors do within parts of the limits of ``close-float32``."""
    rules = [rule for rule in builtin("close-float32").any[-1].all if isinstance(rule, Close)]
    found = {}
    for network, part in PLANTED:
        base, out = keep / network / "float32-base", keep / network / f"planted-{part}"
        limits = {}
        for name, shape in shapes(base / "model.safetensors").items():
            rule = next(rule for rule in rules if takes(rule, name, len(shape)))
            each = rule.relative_l2, rule.relative_linf, rule.relative_l2_rows or 0
            limits[name] = [part * limit for limit in each]
        if not (out / "does.json").exists():
            ask(python, "backdoor", {}, network, str(base), str(out), json.dumps(limits))
        does = json.loads((out / "does.json").read_text("utf-8"))
        found[f"backdoor {network} {part}"] = does | distances(
            base / "model.safetensors", out / "model.safetensors"
        )
    return found


def measured(keep: Path) -> dict[str, Any]:
    """Return how far each run in *keep* is from its base."""
    found: dict[str, Any] = {}
    for precision, environments in ENVIRONMENTS.items():
        for network in NETWORKS[precision]:
            at = keep / network
            base = at / f"{precision}-base"
            named = [*environments, "repeat", *RECIPES[precision]]
            there = {run: at / f"{precision}-{run}" for run in named}
            each = {run: apart(base, it) for run, it in there.items() if it.exists()}
            if each.pop("repeat")["distances"] or len(own_bits(at, precision)) < ENOUGH:
                raise SystemExit(f"{network} {precision}: a repeat varies bits, or too few runs do")
            other = OTHER_PRECISION[precision]
            if (at / f"{other}-base").exists():
                each[other] = apart(base, widened(at / f"{other}-base", base))
            found[f"{network} {precision}"] = {
                "shapes": shapes(base / "model.safetensors"),
                "runs": each,
            }
    return found


def widened(run: Path, base: Path) -> Path:
    """Return *run*, its weights in float64 where those of *base* are."""
    if "float64" not in base.name:
        return run
    out = base.with_name(f"{base.name}-of-{run.name}")
    out.mkdir(exist_ok=True)
    narrow = load_file(run / "model.safetensors")
    wide = {n: t.astype("f8") if t.dtype.kind == "f" else t for n, t in narrow.items()}
    save_file(wide, out / "model.safetensors")
    (out / "answers.npy").write_bytes((run / "answers.npy").read_bytes())
    return out


def apart(base: Path, other: Path) -> dict[str, Any]:
    """Return how far the weights and the answers in two folders are apart."""
    weights = distances(base / "model.safetensors", other / "model.safetensors")
    return weights | answered(base / "answers.npy", other / "answers.npy")


def estimators(python: str) -> dict[str, dict[str, bool]]:
    """Return of each estimator of scikit-learn whether its bits are those of the base."""
    base = json.loads(ask(python, "estimators", {}))
    asked = {run: json.loads(ask(python, "estimators", it)) for run, it in _ESTIMATORS.items()}
    return {name: {run: asked[run][name] == base[name] for run in asked} for name in base}


def main() -> int:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", metavar="PYTHON", required=True)
    parser.add_argument("keep", type=Path)
    arguments = parser.parse_args()
    keep = arguments.keep.resolve()
    train_all(arguments.torch, keep)
    found = measured(keep) | planted(arguments.torch, keep)
    found["estimators"] = estimators(arguments.torch)
    lines = ",\n".join(
        f"{json.dumps(key)}: {json.dumps(it, ensure_ascii=False)}" for key, it in found.items()
    )
    STORED.write_text(f"{{{lines}}}\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
