"""``provenance demo``: the whole job on a small real model.

Every step is printed as the command that a user would type, then run. The demo fails if a step ends
with another status than it should.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import click

from provenance.cli.options import PATH, Command
from provenance.errors import RefusedError, UnavailableError, UsageError, one_line, reason

MARKER = ".provenance-demo"
"""A folder with this file was made by the demo and may be replaced."""

PROGRAM_FILES = ("train.py", "config.toml", "equality.toml", "data.py")

RECORD = "provenance record --model model --key ../keys/{key} --data train=data/digits.npz"
OPTIONS = "--config config.toml --equality equality.toml"
TRAIN = "python3 train.py --data data/digits.npz --config config.toml --seed {seed} --out model"

OTHER_ENVIRONMENT = "OMP_NUM_THREADS=2 OPENBLAS_CORETYPE=Prescott"
"""Two workers add the gradients in another order; on x86-64 another BLAS kernel computes them."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command line, the folder in the demo's that it runs in, and the status it ends with."""

    line: str
    folder: str = "."
    status: int = 0


def _record(folder: str, key: str, *, seed: int = 0, environment: str = "") -> Step:
    command = f"{RECORD.format(key=key)} {OPTIONS} -- {TRAIN.format(seed=seed)}"
    return Step(f"{environment} {command}".lstrip(), folder)


def _rebuild(folder: str, *, seed: int = 0, environment: str = "") -> tuple[Step, ...]:
    return (
        Step(f"git clone --quiet alice {folder}"),
        Step(f"cp -r alice/data {folder}/data"),
        _record(folder, "bob", seed=seed, environment=environment),
    )


BOTH_KEYS = "--key keys/alice.pub --key keys/bob.pub"

CHAPTERS: dict[str, tuple[Step, ...]] = {
    "Two builders who know nothing of each other, and a transparency log": (
        Step("provenance keygen keys/alice"),
        Step("provenance keygen keys/bob"),
        Step("provenance keygen keys/log --algorithm ed25519"),
        Step("provenance log init log --origin demo.example/log --key keys/log"),
    ),
    "Alice trains under the recorder; program, settings and equality are in her repository": (
        Step("git init --quiet", "alice"),
        Step("git add .", "alice"),
        Step(
            "git -c user.name=Alice -c user.email=alice@demo.example commit --quiet"
            " --message 'Digits'",
            "alice",
        ),
        Step("python3 data.py data/digits.npz", "alice"),
        _record("alice", "alice"),
    ),
    "Bob repeats it in the same environment": _rebuild("bob"),
    "Bob repeats it in another environment, which changes the bits": _rebuild(
        "bob-threads", environment=OTHER_ENVIRONMENT
    ),
    "Bob trains with another seed: another model": _rebuild("bob-seed", seed=1),
    "A downloader verifies each": (
        Step("provenance verify alice/model --key keys/alice.pub"),
        Step("provenance verify bob/model --key keys/bob.pub"),
        Step("provenance verify bob-threads/model --key keys/bob.pub"),
        Step("provenance verify bob-seed/model --key keys/bob.pub"),
    ),
    "Do they agree, in the sense that Alice declared beforehand?": (
        Step(
            f"provenance agree alice/model bob/model {BOTH_KEYS}"
            " --sign-with keys/bob --out verdict.json"
        ),
        Step(f"provenance agree alice/model bob-threads/model {BOTH_KEYS}"),
        Step(f"provenance agree alice/model bob-seed/model {BOTH_KEYS}", status=1),
    ),
    "One byte of the weights is changed, then one field of the claim: both are refused": (
        Step("cp -r alice/model tampered-weights"),
        Step("python3 tamper.py flip tampered-weights/model.safetensors"),
        Step("provenance verify tampered-weights --key keys/alice.pub", status=1),
        Step("cp -r alice/model tampered-claim"),
        Step("python3 tamper.py edit tampered-claim/claims.jsonl"),
        Step("provenance verify tampered-claim --key keys/alice.pub", status=1),
    ),
    "Alice publishes; anybody proves offline that her claim is in the log": (
        Step("provenance publish alice/model --log log"),
        Step("provenance verify alice/model --key keys/alice.pub --log log/vkey"),
        Step("provenance log audit log --key log/vkey"),
    ),
}


@click.command(
    cls=Command,
    short_help="Do the whole job on a small real model.",
    examples=(
        "provenance demo",
        "provenance demo --folder /tmp/demo",
    ),
    next_step="'provenance show demo/alice/model' explains what the demo made.",
)
@click.option(
    "--folder", type=PATH, default=Path("demo"), show_default=True, help="Where everything goes."
)
def command(folder: Path) -> None:
    """Train a small network on handwritten digits four times and prove what can be proven.

    Needs git and the extra 'demo' (scikit-learn, safetensors). Everything stays in the folder;
    'provenance show' explains any file in it.
    """
    _check_requirements()
    _lay_out(folder)
    for number, (title, steps) in enumerate(CHAPTERS.items(), 1):
        click.secho(f"\n{number}. {title}", bold=True)
        for step in steps:
            _run(step, folder)
    click.secho("\nEvery step ended as it should.", bold=True)
    click.echo(f"Look around in {one_line(str(folder))}/, for example:")
    for path in ("alice/model/claims.jsonl", "verdict.json", "log/checkpoint"):
        click.echo(f"  {_own_name()} show {shlex.quote(one_line(str(folder / path)))}")


def _own_name() -> str:
    """Return how the user calls this program from here."""
    if shutil.which("provenance") is not None:
        return "provenance"
    beside = Path(sys.executable).parent / "provenance"
    return os.path.relpath(beside) if beside.exists() else f"{sys.executable} -m provenance"


def _check_requirements() -> None:
    for module in ("sklearn", "safetensors"):
        if importlib.util.find_spec(module) is None:
            hint = "pip install 'training-provenance[demo]'"
            raise UsageError(f"the demo needs {module}", hint=hint)
    if shutil.which("git") is None:
        raise UsageError("the demo needs git", hint="install it")


def _lay_out(folder: Path) -> None:
    """Make the demo's folder with what Alice has before she starts."""
    if folder.exists() and not (folder / MARKER).is_file():
        what, hint = "exists, and was not made by the demo", "name another one with --folder"
        raise UsageError(what, where=str(folder), hint=hint)
    files = resources.files("provenance.cli") / "demo_files"
    try:
        if folder.exists():
            shutil.rmtree(folder)
        (folder / "keys").mkdir(parents=True)
        (folder / MARKER).touch()
        (folder / "alice").mkdir()
        copies = {f"alice/{name}": name for name in PROGRAM_FILES}
        copies |= {"alice/.gitignore": "gitignore", "tamper.py": "tamper.py"}
        for name, source in copies.items():
            (folder / name).write_bytes((files / source).read_bytes())
    except OSError as error:
        raise UnavailableError(f"cannot be made: {reason(error)}", where=str(folder)) from error


def _run(step: Step, folder: Path) -> None:
    place = click.style(f"{step.folder}", dim=True) if step.folder != "." else ""
    click.echo(f"\n{place}$ {click.style(step.line, fg='cyan')}")
    words = shlex.split(step.line)
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    if words[0] == "provenance":  # the one that runs now, wherever it is installed
        words[:1] = [sys.executable, "-m", "provenance"]
    sys.stdout.flush()
    done = subprocess.run(words, cwd=folder / step.folder, env=environment, check=False)
    if done.returncode != step.status:
        what = f"ended with status {done.returncode}, and should have with {step.status}"
        raise RefusedError(what, where=step.line)
    if step.status:
        click.echo(click.style(f"(exit status {step.status}, as it should be)", dim=True))
