"""What frameworks leave behind: recorded twice, by two people, into differently named folders.

Under the built-in declaration of the framework both are one model, and whatever changes what a
loader makes of the folder is still a mismatch. `tests/frameworks` has the same runs by older
versions. `make test-integrations` sets the environment up.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import provenance
from tests.frameworks.forging import FORGERIES, UNREAD
from tests.integration.recording import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.rebuilding.verdict import Verdict
    from tests.world import Person

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_TORCH"), reason="PROVENANCE_TORCH names no Python with torch"
    ),
]

COMMANDS = {
    "hf-trainer": "python hf_trainer.py data/rows.csv {out}",
    "lightning": "python lightning_fit.py data/rows.csv {out} {out}/checkpoints",
    "keras": "python keras_fit.py data/rows.csv {out}",
    "sklearn": "python skops_fit.py data/rows.csv {out}",
    "peft": "python peft_lora.py data/rows.csv {base} {out}",
    "kohya": "python kohya_lora.py data/rows.csv {out} lora",
}
REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Run:
    """A model that somebody recorded, and from which base model."""

    model: Path
    person: Person
    base: Path | None


# --- Two runs of each framework -------------------------------------------------------------------


@pytest.fixture(scope="module")
def base_files(
    tmp_path_factory: pytest.TempPathFactory,
    clone_to: Callable[[Path], Path],
    environ: dict[str, str],
) -> Path:
    """The base model of adapters, as its trainer saved it."""
    work = clone_to(tmp_path_factory.mktemp("made") / "base")
    python = os.environ["PROVENANCE_TORCH"]
    own = {**os.environ, **environ}
    subprocess.run([python, "base_model.py", "base"], cwd=work, env=own, check=True)
    return work / "base"


def as_cached(files: Path, root: Path) -> Path:
    """Lay *files* out as the cache of the Hugging Face Hub does: a snapshot of links to blobs."""
    cache = root / "models--somebody--base"
    snapshot = cache / "snapshots" / REVISION
    for place in (snapshot, cache / "blobs", cache / "refs"):
        place.mkdir(parents=True)
    (cache / "refs" / "main").write_text(REVISION)
    for file in files.iterdir():
        blob = cache / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs", blob.name))
    return snapshot


def as_downloaded(files: Path, root: Path) -> Path:
    """Lay *files* out as `hf download --local-dir` does, with its bookkeeping."""
    folder = shutil.copytree(files, root / "somebody" / "base")
    kept = folder / ".cache" / "huggingface"
    (kept / "download").mkdir(parents=True)
    (kept / ".gitignore").write_text("*")
    for file in files.iterdir():
        told = f"{REVISION}\n{hashlib.sha256(file.read_bytes()).hexdigest()}\n1795799633.2\n"
        (kept / "download" / f"{file.name}.metadata").write_text(told)
        (kept / "download" / f"{file.name}.lock").touch()
    return folder


@pytest.fixture(scope="module", params=COMMANDS)
def runs(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    clone_to: Callable[[Path], Path],
    environ: dict[str, str],
    people: dict[str, Person],
) -> tuple[str, Run, Run]:
    """The framework's declaration, and what Alice and Bob recorded under it."""
    name: str = request.param
    root = tmp_path_factory.mktemp(name)
    made = []
    for number, (who, place) in enumerate({"alice": "alice", "bob": "elsewhere/bob"}.items()):
        work = clone_to(root / place)
        base: Path | None = None
        options: tuple[str, ...] = ("--equality", name)
        if "{base}" in COMMANDS[name]:
            files: Path = request.getfixturevalue("base_files")
            base = (as_cached, as_downloaded)[number](files, root / f"hub-of-{who}")
            options += ("--base-model", str(base))
        out = f"{name}-of-{who}"
        words = COMMANDS[name].format(out=out, base=base).split()
        own = {**environ, "PYTHONHASHSEED": str(number)}
        record(work, people[who], own, *words, model=out, options=options)
        made.append(Run(work / out, people[who], base))
    return name, made[0], made[1]


def judge(published: Run, rebuilt: Run) -> Verdict:
    """Return the verdict about *rebuilt*."""
    return provenance.agree(
        [published.model, rebuilt.model], keys=[published.person.public, rebuilt.person.public]
    )


def test_two_honest_runs_agree(runs: tuple[str, Run, Run]) -> None:
    _, published, rebuilt = runs
    verdict = judge(published, rebuilt)
    [rebuild] = verdict.rebuilds
    assert verdict.conclusion == "match"
    assert rebuild.outcome.strongest == "tensors"
    assert rebuild.recipe_differences == ()
    assert not any(it.unsafe for it in rebuild.outcome.exceptions)


def test_what_is_forged_does_not(runs: tuple[str, Run, Run], tmp_path: Path) -> None:
    name, published, rebuilt = runs
    unread = UNREAD if name == "sklearn" else {}
    forgeries = {"nothing": lambda _: None, **FORGERIES[name], **unread}
    found = {}
    for number, (what, forge) in enumerate(forgeries.items()):
        folder = shutil.copytree(rebuilt.model, tmp_path / str(number))
        for ours in ("claims.jsonl", "model.sig"):
            (folder / ours).unlink()
        shutil.rmtree(folder / "provenance", ignore_errors=True)
        forge(folder)
        provenance.attest(
            folder, key=rebuilt.person.private, equality=name, base_model=rebuilt.base
        )
        [judged] = judge(published, Run(folder, rebuilt.person, rebuilt.base)).rebuilds
        found[what] = judged.outcome.conclusion  # of the files alone: no command was attested
    expected = dict.fromkeys(forgeries, "mismatch")
    expected |= {"nothing": "match", **dict.fromkeys(unread, "inconclusive")}
    assert found == expected
