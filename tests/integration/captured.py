"""The checklist of docs/captured.md: what decides the bits of a training, and where a claim has it.

A place is a pattern over the names in the predicate, from the sections of :func:`places`. ``*``
stands for anything.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ITEMS: dict[str, tuple[str, ...]] = {
    "code: commit and tree, files named, files read": (
        "recipe/source/tree",
        "recipe/source/files/*",
    ),
    "command, start, end, exit": ("recipe/command/*", "run/metadata/startedOn", "run/*/exitStatus"),
    "config: files": ("recipe/config/*",),
    "config: resolved arguments": ("collectors/arguments/*",),
    "data by digest": ("recipe/data/*", "dependencies/data:*"),
    "data order by digest": ("byproducts/dataOrder*",),
    "seeds declared": ("recipe/seeds/*",),
    "seeds in effect": (
        "collectors/program/*/torch.initial_seed",
        "collectors/program/*/*random_seed",
    ),
    "states of generators": (
        "collectors/program/*/*random.state",
        "collectors/program/*/torch.rng",
    ),
    "torch: deterministic algorithms": (
        "collectors/program/*/torch.are_deterministic_algorithms_*",
    ),
    "torch: filling of new memory": ("collectors/program/*/torch.utils.deterministic.*",),
    "torch: cuDNN": ("collectors/program/*/torch.backends.cudnn.*",),
    "torch: precision of products": ("collectors/program/*/torch.get_float32_matmul_precision",),
    "torch: cuBLAS reductions": ("collectors/program/*/torch.backends.cuda.matmul.*",),
    "torch: oneDNN": ("collectors/program/*/torch.backends.mkldnn.*",),
    "torch: attention kernels": ("collectors/program/*/torch.backends.cuda.*sdp*",),
    "torch: preferred BLAS, cuDNN, NCCL (with CUDA)": ("collectors/program/*/torch.cuda.*",),
    "torch: default type, autocast": ("collectors/program/*/torch.get_default_dtype",),
    "processor: model and instruction sets": ("collectors/processor/flagsDigest",),
    "processor: what torch uses": ("collectors/program/*/torch.backends.cpu.get_cpu_capability",),
    "processor: what numpy uses": ("collectors/program/*/numpy.cpu_features",),
    "threads: affinity and quota": ("collectors/processor/usable", "collectors/processor/quota"),
    "threads: of torch": ("collectors/program/*/torch.get_num*_threads",),
    "threads: of each BLAS and OpenMP": ("collectors/program/*/threadpoolctl.*",),
    "native libraries": ("collectors/libraries/*",),
    "GPUs and driver": ("collectors/gpus/*",),
    "distribution: world size, ranks": ("collectors/distribution/worldSize",),
    "loop: optimizer and its options": ("collectors/program/*/optimizer*",),
    "loop: initial weights by digest": (
        "collectors/program/*/optimizer.initialWeights",
        "byproducts/initialWeights",
    ),
    "loop: checkpoints by digest": ("byproducts/checkpoints",),
    "loop: processes of data loading": ("collectors/program/*/multiprocessing.*",),
    "variables of the environment": ("collectors/variables/variables/*",),
    "variables set inside": ("collectors/program/*/environ.*",),
    "JAX and TensorFlow": ("collectors/program/*/jax.*", "collectors/program/*/tensorflow.*"),
    "packages by RECORD": ("dependencies/torch", "dependencies/numpy"),
    "interpreter by digest": ("collectors/interpreter/executableDigest",),
    "metrics": ("byproducts/metrics",),
    "tensors of the result by digest": ("byproducts/tensors",),
    "cost": ("collectors/cost/*",),
}
"""What the checklist names, and the places where a claim may have it."""


def places(predicate: Mapping[str, Any]) -> set[str]:
    """Return the places of *predicate* that hold something, by section."""
    build, run = predicate["buildDefinition"], predicate["runDetails"]
    collectors = build["internalParameters"]["collectors"]
    sections = {
        "recipe": build["externalParameters"],
        "collectors": {name: found.get("values", {}) for name, found in collectors.items()},
        "dependencies": {item["name"]: 1 for item in build["resolvedDependencies"]},
        "byproducts": {item["name"]: 1 for item in run["byproducts"]},
        "run": {name: value for name, value in run.items() if name != "byproducts"},
    }
    return set(_flat("", sections))


def _flat(at: str, value: Any) -> Iterator[str]:  # noqa: ANN401 - a JSON value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{at}/{name}", inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flat(f"{at}/{number}", inner)
    elif value is not None:
        yield at.removeprefix("/")


def has(found: set[str], item: str) -> bool:
    """Tell whether *item* of the checklist is among the places *found*."""
    return any(fnmatchcase(place, pattern) for pattern in ITEMS[item] for place in found)


def columns(text: str) -> dict[str, list[str]]:
    """Return the columns of docs/captured.md by their heads."""
    table = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    return {
        head.strip(): [cell.strip() for cell in cells] for head, *cells in zip(*table, strict=True)
    }


def document(found: Mapping[str, set[str]]) -> str:
    """Return docs/captured.md for the claims of trainings, their places by the training's name."""
    head = "| what decides bits | where the claim has it | " + " | ".join(found) + " |"
    lines = [INTRODUCTION, head, "|---|---|" + "---|" * len(found)]
    for item, patterns in ITEMS.items():
        where = ", ".join(f"`{pattern}`" for pattern in patterns)
        marks = ["yes" if has(claim, item) else "–" for claim in found.values()]
        lines.append(f"| {item} | {where} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"


INTRODUCTION = (
    "# What a claim has of a training\n\n"
    "Each row is something that decides the bits of what a training produces. The places "
    "are names in the claim's predicate: `recipe` is "
    "`buildDefinition.externalParameters`, `collectors` are the values in "
    "`buildDefinition.internalParameters.collectors`, `dependencies` and `byproducts` go "
    "by their names, and `run` is `runDetails`. `*` stands for anything. A dash: that "
    "training has none (no GPU, no second process, no torch), was given none "
    "(`--config`), did not tell it (`current_run().arguments`), or has a framework of which the "
    "recorder does not ask that. What each place means "
    "is in [the statement](spec/training.md).\n\n"
    "Made from real trainings on a machine without a GPU, by "
    "`tests/integration/test_captured.py`; with `PROVENANCE_WRITE=1` it writes this file. JAX and "
    "TensorFlow are too large for every check: it trains with them where `PROVENANCE_JAX` names "
    "a Python that has them.\n"
)
