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
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import provenance
from tests.frameworks.forging import FORGERIES, UNREAD

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.rebuilding.verdict import Verdict
    from tests.integration.recording import Recorded
    from tests.world import Person

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_TORCH"), reason="PROVENANCE_TORCH names no Python with torch"
    ),
]

NAMES = ("HF Trainer", "Lightning", "Keras", "skops", "PEFT", "kohya")
REVISION = "0123456789abcdef0123456789abcdef01234567"


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


@pytest.fixture(scope="module", params=NAMES)
def runs(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    recorded: Callable[..., Recorded],
) -> tuple[Recorded, Recorded]:
    """What Alice and Bob recorded under the declaration of one framework."""
    name: str = request.param
    if name != "PEFT":
        return recorded(name), recorded(name, "bob")
    files: Path = request.getfixturevalue("base_files")
    hubs = tmp_path_factory.mktemp("hub-of-alice"), tmp_path_factory.mktemp("hub-of-bob")
    bases = as_cached(files, hubs[0]), as_downloaded(files, hubs[1])
    return recorded(name, "alice", bases[0]), recorded(name, "bob", bases[1])


def judge(published: Recorded, model: Path, person: Person) -> Verdict:
    """Return the verdict about the *model* that *person* attested."""
    keys = [published.person.public, person.public]
    return provenance.agree([published.model, model], keys=keys)


def test_two_honest_runs_agree(runs: tuple[Recorded, Recorded], bob: Person) -> None:
    published, rebuilt = runs
    verdict = judge(published, rebuilt.model, bob)
    [rebuild] = verdict.rebuilds
    assert verdict.conclusion == "match"
    assert rebuild.outcome.strongest == "tensors"
    assert rebuild.recipe_differences == ()
    assert not any(it.unsafe for it in rebuild.outcome.exceptions)


def test_what_is_forged_does_not(
    runs: tuple[Recorded, Recorded], bob: Person, tmp_path: Path
) -> None:
    published, rebuilt = runs
    recipe = rebuilt.predicate["buildDefinition"]["externalParameters"]
    equality = recipe["equality"]["name"]
    unread = UNREAD if equality == "sklearn" else {}
    forgeries = {"nothing": lambda _: None, **FORGERIES[equality], **unread}
    found = {}
    for number, (what, forge) in enumerate(forgeries.items()):
        folder = shutil.copytree(rebuilt.model, tmp_path / str(number))
        for ours in ("claims.jsonl", "model.sig"):
            (folder / ours).unlink()
        shutil.rmtree(folder / "provenance", ignore_errors=True)
        forge(folder)
        provenance.attest(folder, key=bob.private, equality=equality, base_model=rebuilt.base)
        [judged] = judge(published, folder, bob).rebuilds
        found[what] = judged.outcome.conclusion  # of the files alone: no command was attested
    expected = dict.fromkeys(forgeries, "mismatch")
    expected |= {"nothing": "match", **dict.fromkeys(unread, "inconclusive")}
    assert found == expected
