"""What the table of loaders says, asked of the loaders themselves.

`make test-integrations` names a Python with most of them: PROVENANCE_TORCH. What it lacks is
skipped; docs/loaders.md says how to make one that has all.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import struct
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provenance.loaders.choice import differing
from provenance.loaders.table import table
from provenance.weights.names import weight_sets

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_TORCH"), reason="PROVENANCE_TORCH names no Python with torch"
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="inotify tells what is opened"),
]

SCRIPT = Path(__file__).parent / "loads" / "loads.py"
CHOSEN = Path(__file__).parent / "loads" / "chosen.py"

Change = dict[str, Any]


def change(file: str, *path: str | int, to: object) -> Change:
    return {"file": file, "path": path, "value": to}


def write(file: str, text: str) -> Change:
    return {"file": file, "text": text}


@dataclass(frozen=True)
class Case:
    """A library, what must change what it loads, and what must not."""

    package: str
    obeyed: tuple[Change, ...]
    free: tuple[Change, ...] = ()
    reads_card: bool = False
    same: tuple[Change, ...] = field(default=())
    """Changes that are not free, yet change nothing."""


SBERT = "sentence_transformers"
KOHYA = (
    change("model.safetensors", "ss_session_id", to="1"),
    change("model.safetensors", "ss_training_started_at", to="1.5"),
    change("model.safetensors", "modelspec.title", to="x"),
)
CASES = {
    "transformers": Case(
        "transformers",
        obeyed=(
            change("config.json", "n_layer", to=2),
            change("config.json", "tie_word_embeddings", to=False),
            change("config.json", "transformers_weights", to="other.safetensors"),
            change("config.json", "_name_or_path", to="elsewhere"),
            change("config.json", "auto_map", to={"AutoModelForCausalLM": "custom.Other"}),
            change("generation_config.json", "temperature", to=0.9),
            change("tokenizer.json", "model", "unk_token", to="a"),
            change("tokenizer_config.json", "bos_token", to="c"),
            write("chat_template.jinja", "other"),
            write("additional_chat_templates/rag.jinja", "other"),
            write("additional_chat_templates/tool.jinja", "other"),
        ),
        free=(change("generation_config.json", "transformers_version", to="4.0.0"), *KOHYA),
        same=(write("model.safetensors.index.json", "not consulted"),),
    ),
    "mistral": Case(
        "transformers", obeyed=(change("config.json", "transformers_version", to="4.57.0"),)
    ),
    "sharded": Case(
        "transformers",
        obeyed=(
            change(
                "model.safetensors.index.json",
                "weight_map",
                "transformer.wpe.weight",
                to="model-00009-of-00005.safetensors",
            ),
        ),
    ),
    "accelerate": Case(
        "accelerate",
        obeyed=(write("any.index.json", "{}"), change("any.index.json", "weight_map", to={})),
    ),
    "peft": Case(
        "peft",
        obeyed=(
            change("adapter_config.json", "lora_alpha", to=9),
            change("adapter_config.json", "target_modules", to=["c_attn", "c_proj"]),
            change("adapter_config.json", "base_model_name_or_path", to="nowhere"),
        ),
        free=(change("adapter_model.safetensors", "ss_session_id", to="1"),),
        same=(change("adapter_config.json", "target_modules", to=["c_proj", "c_fc", "c_attn"]),),
    ),
    "keras": Case(
        "keras",
        obeyed=(
            change("model.keras!config.json", "config", "layers", 1, "config", "units", to=4),
            change("model.keras!config.json", "class_name", to="Functional"),
            change("folder/config.json", "config", "layers", 1, "config", "name", to="x"),
        ),
        free=(
            change("model.keras!metadata.json", "date_saved", to="2000-01-01@00:00:00"),
            change("folder/metadata.json", "date_saved", to="2000-01-01@00:00:00"),
        ),
    ),
    "lightning": Case(
        "pytorch_lightning",
        obeyed=(
            change("last.ckpt", "hyper_parameters", "width", to=5),
            change("last.ckpt", "hyper_parameters", "_instantiator", to="os.system"),
        ),
        free=(
            change("last.ckpt", "callbacks", "ModelCheckpoint*", "dirpath", to="/elsewhere"),
            change("last.ckpt", "callbacks", "ModelCheckpoint*", "best_model_path", to="/x"),
            change("last.ckpt", "callbacks", "Timer*", "time_elapsed", "train", to=9.5),
        ),
    ),
    "skops": Case(
        "skops",
        obeyed=(
            change("model.skops!schema.json", "__class__", to="Ridge"),
            change("model.skops!schema.json", "protocol", to=99),
        ),
        free=(change("model.skops!schema.json", "_skops_version", to="0"),),
    ),
    "gguf": Case(
        "gguf",
        obeyed=(
            change("model.gguf", "general.name", to="mistral 7 b"),
            change("model.gguf", "general.architecture", to="qwen2"),
            change("model.gguf", "tokenizer.chat_template", to="{{ messager }}"),
        ),
        free=(
            change("model.gguf", "general.author", to="bob"),
            change("model.gguf", "general.description", to="made in Mai"),
        ),
    ),
    "timm": Case(
        "timm",
        obeyed=(
            change("config.json", "num_classes", to=3),
            change("config.json", "architecture", to="test_resnet"),
        ),
    ),
    "sentence_transformers": Case(
        "sentence_transformers",
        obeyed=(
            change(
                "modules.json",
                2,
                "type",
                to="sentence_transformers.base.modules.normalize.Normalize",
            ),
            change("1_Pooling/config.json", "pooling_mode", to="max"),
            change("config_sentence_transformers.json", "prompts", "query", to="b "),
            change("config_sentence_transformers.json", "__version__", SBERT, to="x"),
        ),
        free=(
            write("README.md", "---\nprior: x\n---\nother"),
            change("config_sentence_transformers.json", "__version__", "pytorch", to="1"),
        ),
        reads_card=True,
    ),
    "diffusers": Case(
        "diffusers",
        obeyed=(
            change("model_index.json", "scheduler", to=["diffusers", "DDIMScheduler"]),
            change("scheduler/scheduler_config.json", "beta_end", to=0.5),
            change("unet/config.json", "sample_size", to=16),
        ),
    ),
    "onnxruntime": Case("onnxruntime", obeyed=(write("model.onnx_data", "1" * 2048),)),
}


@cache
def _packages() -> frozenset[str]:
    names = [case.package for case in CASES.values()]
    code = f"import importlib.util as u; print(*[n for n in {names} if u.find_spec(n)])"
    with _python("-c", code) as run:
        return frozenset(run.communicate()[0].split())


def _python(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [os.environ["PROVENANCE_TORCH"], *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _put_beside(root: Path) -> list[str]:
    """Put all that no loader opens beside the model; return the names of all files."""
    for free in table().free:
        file = root / free.file.replace("[0-9]*", "0").replace("*", "1")
        if free.keys == ("**",) and not file.exists():
            file.write_text("nobody opens this")
    return [each.relative_to(root).as_posix() for each in root.rglob("*") if each.is_file()]


@contextmanager
def _opened(root: Path) -> Iterator[set[str]]:
    """Collect the files below *root* that anybody opens, in whatever language."""
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0
    folders = {}
    found: set[str] = set()
    for folder in (root, *filter(Path.is_dir, root.rglob("*"))):
        folders[libc.inotify_add_watch(descriptor, os.fsencode(folder), 0x20)] = folder
    try:
        yield found
        events = os.read(descriptor, 2**24)
    finally:
        os.close(descriptor)
    place, header = 0, struct.Struct("iIII")
    while place < len(events):
        watch, mask, _, length = header.unpack_from(events, place)
        place += header.size + length
        assert not mask & 0x4000, "the queue of events overflowed"
        name = events[place - length : place].rstrip(b"\0").decode()
        if not mask & 0x40000000:
            found.add((folders[watch] / name).relative_to(root).as_posix())


@pytest.mark.parametrize("name", CASES)
def test_a_loader_does_as_the_table_says(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if case.package not in _packages():
        pytest.skip(f"{case.package} is not installed there")
    root = tmp_path / "model"
    changes = [*case.obeyed, *case.free, *case.same]
    with _python(SCRIPT, name, root) as run:
        assert run.stdin
        assert run.stdout
        assert run.stdout.readline() == "made\n"
        names = _put_beside(root)
        with _opened(root) as opened:
            run.stdin.write("load\n")
            run.stdin.flush()
            loaded = run.stdout.readline()
        results = run.communicate(json.dumps(changes) + "\n", timeout=600)[0].splitlines(
            keepends=True
        )

    assert loaded.startswith('{"loaded"'), loaded
    assert opened, "nothing was watched"
    cards = {"README.md"} if case.reads_card else set()
    for file in opened - cards:
        assert table().opened_by(file, names), file
        assert not table().is_free(file, None, names), file
    pairs = list(zip(changes, results, strict=True))
    for each, result in pairs[: len(case.obeyed)]:
        assert result != loaded, each
        assert not table().is_free(each["file"], each.get("path"), names), each
    for each, result in pairs[len(case.obeyed) :]:
        assert result == loaded, each
    for each in case.free:
        assert table().is_free(each["file"], each.get("path"), names), each


CHOOSING = {
    "transformers": "transformers",
    "accelerate": "accelerate",
    "diffusers": "diffusers",
    "diffusers (LoRA)": "diffusers",
    "PEFT": "peft",
    "timm": "timm",
    "sentence-transformers": "sentence_transformers",
}


@pytest.mark.parametrize("name", CHOOSING)
def test_a_loader_takes_the_weights_that_the_table_says(name: str, tmp_path: Path) -> None:
    """Of all, of what remains without those that it took, and so on."""
    package, (loader, _, part) = CHOOSING[name], name.partition(" ")
    if package not in _packages():
        pytest.skip(f"{package} is not installed there")
    version = next(each.version for each in table().loader if each.name == loader)
    with _python(CHOSEN, name, tmp_path / "model") as run:
        lines = [json.loads(line) for line in run.communicate(timeout=600)[0].splitlines()]
    assert len(lines) > 2
    for names, taken in lines:
        sets = {found.index or found.files[0]: found.name for found in weight_sets(names)}
        said = {who: left.name for who, left, _ in differing(sets, {}) if left.name}
        expected = said.get(f"{loader} {version}{part and ' '}{part}")
        assert (None if taken is None else sets[taken]) == expected, names
    assert lines[-1][1] is None
