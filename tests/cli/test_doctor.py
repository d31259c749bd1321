"""``provenance doctor``: what makes a run hard to repeat, and whether it repeats."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from provenance.doctor import copies
from tests.world import PROGRAM
from tools.schemas import __main__ as schemas

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.world import Ran, Shell

SCHEMA = {document.name: schemas.schema(document) for document in schemas.DOCUMENTS}
START = "import os, random, sys, numpy as np\nos.makedirs('model', exist_ok=True)\n"
SEEDED = START + "np.save('model/w.npy', np.random.RandomState(0).rand(50))\n"
UNSEEDED = START + "np.save('model/w.npy', np.random.default_rng().random(50))\n"
GLOBAL = START + "random.seed(0)\nnp.save('model/w.npy', np.random.rand(50))\n"
BY_RANDOM = START + "np.save('model/w.npy', [random.random() for _ in range(50)])\n"
BY_HASH = START + "np.save('model/w.npy', [hash(str(n)) % 9 for n in range(50)])\n"
BY_TIME = START + "import time\nnp.save('model/w.npy', [time.time_ns() % 2**50] * 3)\n"
BY_THREADS = (
    START
    + """
n = int(os.environ.get('OMP_NUM_THREADS') or 3)
x = np.random.RandomState(0).rand(64, 1003).astype('f4')
np.save('model/w.npy', sum(part.sum(axis=1, dtype='f4') for part in np.array_split(x, n, axis=1)))
"""
)
PYTHON = ("--", sys.executable, "train.py")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing of ours runs in the programs, so that to measure them would only take time.
    for name in ("OMP_NUM_THREADS", "PYTHONHASHSEED", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def repository(work: Path) -> Path:
    (work / ".gitignore").write_text("/model\n/ignored\n")
    (work / "requirements.txt").write_text("numpy==2.4.6 --hash=sha256:00\n# a remark\n")
    subprocess.run(["git", "init", "-q"], cwd=work, check=True)
    return work


@pytest.fixture
def twice(repository: Path, provenance: Shell) -> Callable[..., Any]:
    """Return what ``doctor --twice`` says of a program; nothing of the folder may change."""

    def run(text: str, *options: str, status: int = 1) -> Any:  # noqa: ANN401 - JSON
        (repository / "train.py").write_text(text)
        before = listed(repository)
        ran = provenance("doctor", "--twice", "--json", *options, *PYTHON)
        assert ran.status == status, ran.err
        assert listed(repository) == before
        jsonschema.Draft202012Validator(SCHEMA["doctor-output"]).validate(ran.document)
        assert f"provenance: run {ran.document['twice']['runs']}" in ran.err
        return ran.document["twice"]

    return run


def listed(folder: Path) -> dict[str, object]:
    """Return the files below *folder* but git's, with what tells that one was written."""
    found = {path: os.lstat(path) for path in folder.rglob("*") if ".git" not in path.parts}
    return {str(path): (it.st_size, it.st_mtime_ns, it.st_ctime_ns) for path, it in found.items()}


def advice(ran: Ran) -> list[str]:
    document = ran.document
    jsonschema.Draft202012Validator(SCHEMA["doctor-output"]).validate(document)
    return [f"{each['text']} | {each['remedy']}" for each in document["advice"]]


def test_what_is_wrong_before_a_run(repository: Path, provenance: Shell) -> None:
    (repository / "train.py").write_text(GLOBAL)
    ran = provenance("doctor", "--json", *PYTHON)
    said = advice(ran)
    assert ran.status == 0
    for expected in (
        "no data is named, so the recipe is incomplete | --data ROLE=PATH",
        (
            "OMP_NUM_THREADS is not set: sums depend on the number of threads | "
            "export OMP_NUM_THREADS=1"
        ),
        "PYTHONHASHSEED is not set: the order of sets changes | export PYTHONHASHSEED=0",
        (
            "no seed of numpy is seen in train.py | "
            "numpy.random.default_rng(0), or numpy.random.seed(0)"
        ),
    ):
        assert expected in said
    assert not any("pinned" in each or "lock" in each or "model is" in each for each in said)
    assert provenance("doctor", "--strict", *PYTHON).status == 1
    lines = provenance("doctor", *PYTHON).out.splitlines()
    assert "?  hint: no seed of numpy is seen in train.py" in lines


def test_what_is_mended_is_not_said(
    repository: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "train.py").write_text(SEEDED)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    said = advice(provenance("doctor", "--json", *PYTHON))
    assert not any("_NUM_THREADS" in each or "HASHSEED" in each for each in said)
    assert not any("seed of" in each for each in said)


def test_packages_and_outputs(repository: Path, provenance: Shell) -> None:
    (repository / "train.py").write_text(SEEDED)
    (repository / "data").mkdir()
    (repository / "data/rows.csv").write_text("1\n")
    (repository / ".gitignore").unlink()
    (repository / "requirements.txt").write_text("numpy>=2\nscipy == 1.0\n-r other.txt\ntorch\n")
    (repository / "ignored").mkdir()
    options = ("--json", "--data", "rows=data", *PYTHON)
    said = advice(provenance("doctor", *options))
    pinned = "not pinned: requirements.txt: numpy>=2, requirements.txt: torch"
    assert f"{pinned} | pip freeze > requirements.txt" in said
    outside = "is inside the repository, and not ignored by git"
    assert f"the model {outside}: model | add /model to .gitignore" in said
    assert f"data:rows {outside}: data | add /data to .gitignore" in said
    (repository / "requirements.txt").unlink()
    (repository / ".gitignore").write_text("model/\n")
    subprocess.run(["git", "add", "data"], cwd=repository, check=True)
    said = advice(provenance("doctor", *options))
    assert "no lock file | uv lock, or pip freeze > requirements.txt" in said
    assert not any(outside in each for each in said)
    (repository / "uv.lock").touch()
    assert not any("lock file" in each for each in advice(provenance("doctor", *options)))


def test_without_a_command_the_python_on_the_path_is_looked_at(
    repository: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not (repository / "train.py").exists()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    said = advice(provenance("doctor", "--json"))
    assert any(each.startswith("OMP_NUM_THREADS is not set") for each in said)
    assert not any("program" in each or "standard input" in each for each in said)


def test_a_training_that_repeats(twice: Callable[..., Any]) -> None:
    said = twice(SEEDED, status=0)
    assert (said["repeats"], said["equality"], said["runs"]) == (True, "bytes", 5)
    assert [each["what"] for each in said["varied"] if each["same"]] == [
        "other threads",
        "other instruction sets",
        "other hash seeds",
    ]
    assert said["pins"] == {}


@pytest.mark.parametrize(
    ("text", "generator"), [(UNSEEDED, "numpy"), (GLOBAL, "numpy"), (BY_RANDOM, "random")]
)
def test_the_generator_without_a_seed_is_named(
    twice: Callable[..., Any], text: str, generator: str
) -> None:
    said = twice(text)
    assert (said["repeats"], said["unseeded"], said["environment"]) == (False, [generator], {})
    [file] = said["files"]
    [tensor] = file["tensors"]
    assert tensor["distance"]["differing"] == 50
    assert all(each["same"] for each in said["varied"])


def test_the_order_of_hashes_is_named(twice: Callable[..., Any]) -> None:
    said = twice(BY_HASH)
    assert (said["unseeded"], said["environment"]) == ([], {"PYTHONHASHSEED": "0"})


def test_the_number_of_threads_is_named(
    twice: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = twice(BY_THREADS, status=0)
    threads, *others = said["varied"]
    assert (threads["what"], threads["same"]) == ("other threads", False)
    assert 0 < threads["farthest"]["distances"]["relative_l2"] < 1e-5
    assert all(each["same"] for each in others)
    assert said["pins"]["OMP_NUM_THREADS"] == "1"
    assert "relative_l2" in said["declaration"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert twice(BY_THREADS, status=0)["pins"]["OMP_NUM_THREADS"] == "2"


def test_what_reads_the_time_is_not_called_a_seed(
    twice: Callable[..., Any], repository: Path, provenance: Shell
) -> None:
    said = twice(BY_TIME)
    assert (said["unseeded"], said["environment"], said["varied"]) == ([], {}, [])
    assert (repository / "train.py").read_text() == BY_TIME
    out = provenance("doctor", "--twice", *PYTHON).out
    assert out.endswith(
        "✗  neither seeds nor settings make the runs agree\n     never the same: time.time_ns"
        " (train.py:4)\n"
    )


def test_a_time_beside_the_weights_is_proposed_as_an_exception(
    twice: Callable[..., Any],
) -> None:
    text = SEEDED + "import json, time\njson.dump({'at': time.time()}, open('model/a.json', 'w'))\n"
    said = twice(text)
    assert (said["repeats"], said["equality"]) == (False, None)
    assert 'equality = "tensors"' in said["declaration"]


def test_data_that_git_ignores_is_there_if_it_is_declared(
    twice: Callable[..., Any], repository: Path, provenance: Shell
) -> None:
    (repository / "ignored").mkdir()
    (repository / "ignored/rows.csv").write_text("3\n")
    (repository / "linked.csv").symlink_to("ignored/rows.csv")
    text = SEEDED + "open('ignored/rows.csv').read()\nopen('linked.csv').read()\n"
    assert twice(text, "--data", "ignored", status=0)["repeats"]
    ran = provenance("doctor", "--twice", *PYTHON)
    assert ran.status == 1
    assert "No such file or directory: 'ignored/rows.csv'" in ran.err


def test_a_folder_without_git_and_a_model_that_is_there(work: Path, provenance: Shell) -> None:
    (work / "train.py").write_text(SEEDED + "assert os.listdir('model') == ['w.npy']\n")
    (work / "model").mkdir()
    (work / "model/old").touch()
    before = listed(work)
    ran = provenance("doctor", "--twice", "--", sys.executable, str(work / "train.py"))
    assert ran.status == 0, ran.err
    assert listed(work) == before


def test_below_the_top_of_a_repository(
    repository: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "lib").mkdir()
    (repository / "lib/train.py").write_text(SEEDED + "open('../requirements.txt').read()\n")
    monkeypatch.chdir(repository / "lib")
    assert provenance("doctor", "--twice", *PYTHON).status == 0
    assert sorted(path.name for path in Path().iterdir()) == ["train.py"]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--", "sh", "-c", "echo; echo no disk >&2; exit 3"), 1, "with status 3 (no disk)"),
        (("--", "none"), 1, "none: command not found"),
        (("--", "true"), 3, "model: no such folder"),
        ((), 2, "there is no command to run twice"),
        (("--model", "../elsewhere", "--", "true"), 2, "../elsewhere: not below "),
        (("--data", "missing", "--", "true"), 3, "missing: no such file"),
    ],
)
def test_what_cannot_be_compared(
    repository: Path, provenance: Shell, options: tuple[str, ...], status: int, said: str
) -> None:
    ran = provenance("doctor", "--twice", *options)
    assert (ran.status, ran.out) == (status, "")
    assert said in ran.err
    assert repository.is_dir()


def test_a_tree_that_is_too_large_is_refused(
    repository: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "MAX_BYTES", 2**10)
    (repository / "train.py").write_bytes(b"#" * 2**11)
    ran = provenance("doctor", "--twice", *PYTHON)
    assert ran.status == 2
    assert "too large to copy" in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_diagnosis_leaves_nothing(
    repository: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (repository / "train.py").write_text(f"open({str(tmp_path / 'on')!r}, 'w')\n" * 2)
    text = f"import os, time\nos.mkfifo('fifo')\nopen({str(tmp_path / 'fifo')!r}, 'w').close()\n"
    (repository / "train.py").write_text(text + "time.sleep(600)\n")
    os.mkfifo(tmp_path / "fifo")
    place = tmp_path / "temporary"
    place.mkdir()
    words = [*PROGRAM, "doctor", "--twice", *PYTHON]
    environ = {**os.environ, "TMPDIR": str(place)}
    with subprocess.Popen(words, env=environ, stderr=subprocess.PIPE) as running:
        (tmp_path / "fifo").open().close()  # waits for the training
        assert [*place.iterdir()]
        running.send_signal(number)
        running.communicate(timeout=600)
    assert running.returncode == 130
    assert [*place.iterdir()] == []


def test_no_way_leads_back_into_the_folder(
    repository: Path, tmp_path: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to it, its path as an argument, or ``PWD``: a run fills its copy by each of them."""
    monkeypatch.setenv("PWD", str(repository))
    (repository / "here").symlink_to(".")
    (repository / "absolute").symlink_to(repository)
    text = "for at in (*sys.argv[1:], 'here', 'absolute', os.environ['PWD']):\n"
    text += "    open(f'{at.partition(\"=\")[2] or at}/written', 'w').close()\n"
    (repository / "train.py").write_text(SEEDED + text)
    (repository / ".gitignore").write_text("/model\n/written\n")
    before = listed(repository)
    (linked := tmp_path / "linked-to-it").symlink_to(repository)
    arguments = [str(repository), f"--root={repository}", f"{repository}/"]
    arguments += [str(linked), f"--root={linked}/model"]
    ran = provenance("doctor", "--twice", "--json", *PYTHON, *arguments)
    assert ran.document["twice"]["repeats"], ran.err
    assert listed(repository) == before
