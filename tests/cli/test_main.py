"""What all commands share: statuses, errors, --json, colours, streams, and help without imports."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from provenance import cli, errors
from provenance.errors import ProvenanceError, RefusedError
from tests.world import PROGRAM, Shell, refused, run_program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Person

FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110


def on_a_terminal(*arguments: str, environ: dict[str, str] | None = None) -> str:
    """Return what the command line writes to a terminal."""
    leader, follower = pty.openpty()
    variables = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM")}
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdout=follower,
        stderr=follower,
        env={**variables, "TERM": "xterm", **(environ or {})},
    )
    os.close(follower)
    written = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # Linux's word for the end of a terminal
            break
        if not part:
            break
        written += part
    os.close(leader)
    process.wait()
    return written.decode()


def test_no_command_shows_the_help_and_is_a_usage_error(provenance: Shell) -> None:
    ran = provenance()
    assert ran.status == 2
    assert "Commands:" in ran.err


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(option: str, provenance: Shell) -> None:
    ran = provenance(option)
    assert ran.status == 0
    assert all(name in ran.out for name in cli.COMMANDS)


def test_each_listed_command_is_there() -> None:
    for name in cli.COMMANDS:
        assert cli.cli.get_command(click.Context(cli.cli), name) is not None


def test_version(provenance: Shell) -> None:
    assert provenance("--version").out.startswith("provenance ")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, runpy; sys.argv = ['provenance', '--help']\n"
        "try: runpy.run_module('provenance', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'rich', 'cryptography', 'msgspec', 'in_toto', 'cbor2'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_verify_imports_only_what_it_needs() -> None:
    code = (
        "import sys; before = set(sys.modules); from provenance.cli import verify\n"
        "other = {'provenance.api.making', 'provenance.capture', 'provenance.folder.attach',"
        " 'concurrent.futures', 'logging', 'numpy', 'subprocess', 'tomllib'}\n"
        "sys.exit(', '.join(other & (sys.modules.keys() - before)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verfy"], "No such command 'verfy'. Did you mean 'verify'?"),
        (["help"], "Did you mean '--help'?"),
        (["nothing-like-it"], "No such command 'nothing-like-it'."),
        (["x\x1b[31m\u202e"], "No such command 'x\\x1b[31m\\u202e'."),
        (["--json", "verify", "x"], "No such option '--json' here; options follow 'verify'."),
        (["--debgu"], "Did you mean '--debug'?"),
        (["verify"], "Missing argument 'DIR|FILE'"),
        (["verify", "x", "--kye", "y"], "No such option '--kye'. Did you mean '--key'?"),
        (["keygen", "x", "--algorithm", "rsa"], "rsa"),
        (["agree", "a", "b", "--quorum", "1"], "quorum"),
        (["log", "inti"], "No such command 'inti'. Did you mean 'init'?"),
        (["equality", "shwo"], "No such command 'shwo'. Did you mean 'show'?"),
    ],
)
def test_usage_errors_are_one_line_and_where_to_look(
    arguments: list[str], words: str, provenance: Shell
) -> None:
    ran = provenance(*arguments)
    refused(ran, 2, words)
    assert ran.err.splitlines()[-1].startswith("Try 'provenance")
    assert ran.out == ""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["keygen", "none/key"], 4),
        (["attest", "none", "--key", "none"], 3),
        (["sign", "none", "--key", "none"], 3),
        (["verify", "none", "--key", "none"], 3),
        (["verify", "none"], 2),
        (["compare", "none", "none"], 3),
        (["agree", "none", "none"], 2),
        (["publish", "none", "--log", "none"], 3),
        (["log", "init", "none", "--origin", "x", "--key", "none"], 3),
        (["log", "audit", "none", "--key", "none"], 3),
        (["show", "none"], 3),
        (["record", "--model", "none", "--key", "none", "--", "true"], 125),
        (["verify", "--bogus"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_every_command_fails_in_json_too(
    arguments: list[str],
    status: int,
    provenance: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    where = 2 if arguments[0] == "log" else 1
    ran = provenance(*arguments[:where], "--json", *arguments[where:])
    refused(ran, status)
    message = ran.document["error"]["message"]
    assert f"provenance: {message}" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_options_after_the_double_dash_are_the_commands_own(
    provenance: Shell, tmp_path: Path
) -> None:
    ran = provenance("record", "--model", tmp_path / "m", "--key", "none", "--", "x", "--json")
    assert ran.status == 125
    assert ran.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "none", "--key", "none"],
        ["verify", "none"],
        ["keygen", "none/key"],
        ["show", "none"],
        ["record", "--model", "m", "--key", "none", "--", "true"],
        ["record", "--model", "m", "--key", "KEY", "--", "no-such-program"],
        ["record", "--model", "m", "--key", "KEY", "--", "sh", "-c", "exit 7"],
        ["compare", "x" * 300, "x" * 300],
        ["verfy"],
        ["verify", "--bogus"],
        ["show", "x\x1b[31m\u202e"],
    ],
    ids=lambda words: " ".join(words)[:20].encode("ascii", "replace").decode(),
)
def test_debug_changes_no_status_and_no_message(
    arguments: list[str],
    provenance: Shell,
    alice: Person,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(alice.private) if word == "KEY" else word for word in arguments]
    plain, debug = provenance(*words), provenance("--debug", *words)
    assert plain.status != 0
    assert (debug.status, debug.out) == (plain.status, plain.out)
    assert debug.err.endswith(plain.err.splitlines(keepends=True)[-1])
    usage = "Try 'provenance" in plain.err
    assert ("Traceback (most recent call last):" in debug.err) == (not usage)
    assert all(line.isprintable() for line in debug.err.splitlines())


def test_debug_of_a_recorded_command_is_the_commands_own(provenance: Shell) -> None:
    ran = provenance("record", "--model", "m", "--key", "none", "x", "--debug")
    assert ran.status == 125
    assert "Traceback" not in ran.err


def test_a_defect_is_called_one(provenance: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(cli.cli, "main", fail)
    ran = provenance("verify", "x")
    assert ran.status == 70
    assert ran.err.count("\n") == 1
    assert "a defect: ZeroDivisionError: by\\nzero (run 'provenance --debug …'" in ran.err
    debug = provenance("--debug", "verify", "x")
    assert (debug.status, debug.err.splitlines()[0]) == (70, "Traceback (most recent call last):")
    assert provenance("record", "x").status == 125


def test_an_interrupt(provenance: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.cli, "main", interrupt)
    ran = provenance("verify", "x")
    assert (ran.status, ran.err) == (130, "provenance: interrupted\n")


def test_every_error_of_ours_has_a_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    ours = [kind for kind in kinds if issubclass(kind, ProvenanceError)]
    assert len(ours) > len(cli.STATUS)
    for kind in ours:
        if kind is not ProvenanceError:
            assert any(issubclass(kind, known) for known in cli.STATUS), kind
    assert cli.STATUS[RefusedError] == 1


def test_a_namesake_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "provenance-0.14.1.dist-info").mkdir()
    done = subprocess.run(
        [*PROGRAM, "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"another distribution, 'provenance', is installed in {tmp_path}" in done.stderr
    assert done.stdout.startswith("provenance ")


# --- Streams --------------------------------------------------------------------------------------


@FULL
@pytest.mark.parametrize("arguments", [["--help"], ["show", "."], ["keygen", "--help"]])
def test_standard_output_without_room(arguments: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - no path of ours
        done = subprocess.run(
            [*PROGRAM, *arguments], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, check=False
        )
    if arguments[0] != "show":
        expected = b"provenance: standard output cannot be written: no space left on device\n"
        assert (done.returncode, done.stderr) == (4, expected)
    assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_away(model: Path, alice: Person) -> None:
    line = f'{" ".join(PROGRAM)} verify "$0" --key "$1" | head -c 1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", line, model, alice.public], capture_output=True, check=False
    )
    assert done.stderr == b""
    assert done.stdout[-2:] in (b"0\n", b"1\n")


@pytest.mark.parametrize("lost", ["2>/dev/full", "2>&1 | true", "2>&1 | (head -n 1; sleep 0.5)"])
def test_errors_that_nobody_reads_cost_no_training(
    lost: str, tmp_path: Path, alice: Person
) -> None:
    training = "mkdir m; sleep 1; echo > m/w; exit 7"
    line = f'cd "$0"; ({" ".join(PROGRAM)} record --model m --key "$1" -- sh -c "$2"; echo $? >&9)'
    line = f"exec 9>&1; {line} {lost} >/dev/null"
    done = subprocess.run(
        ["bash", "-c", line, tmp_path, alice.private, training],
        capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path / "state")},
    )  # fmt: skip
    assert done.stdout == "7\n"
    assert (tmp_path / "m/claims.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams(closed: str, model: Path, alice: Person) -> None:
    line = f'{" ".join(PROGRAM)} verify "$0" --key "$1" {closed}'
    done = subprocess.run(
        ["bash", "-c", line, model, alice.public], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_has_no_check_mark(encoding: str, model: Path, alice: Person) -> None:
    done = subprocess.run(
        [*PROGRAM, "verify", model, "--key", alice.public],
        env={**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"1 parse" in done.stdout


def test_colours_on_a_terminal_only(model: Path, alice: Person) -> None:
    arguments = ("verify", str(model), "--key", str(alice.public))
    assert "\x1b[32m" in on_a_terminal(*arguments)
    assert "\x1b" not in on_a_terminal(*arguments, environ={"NO_COLOR": "1"})
    assert "\x1b" not in on_a_terminal(*arguments, environ={"TERM": "dumb"})
    assert "\x1b" not in run_program(*arguments).out


@pytest.mark.parametrize(
    "words",
    [
        "verify MODEL --key ALICE.pub",
        "verify MODEL --key BOB.pub",
        "agree MODEL MODEL --key ALICE.pub",
        "compare MODEL MODEL --equality bytes",
        "sign MODEL --key ALICE",
        "attest MODEL --key ALICE",
        "publish MODEL --log none",
        "equality check tensors MODEL",
        "log audit none --key ALICE",
        "keygen ALICE",
        "show MODEL",
    ],
)
def test_a_terminal_gets_what_it_can_show(
    words: str, model: Path, alice: Person, bob: Person
) -> None:
    places = {"MODEL": model, "ALICE": alice.private, "ALICE.pub": alice.public}
    places["BOB.pub"] = bob.public
    arguments = [str(places.get(word, word)) for word in words.split()]
    colour = "\x1b[3" in on_a_terminal(*arguments)
    assert "\x1b" not in on_a_terminal(*arguments, environ={"NO_COLOR": "1", "FORCE_COLOR": "1"})
    forced = run_program(*arguments, environ={"FORCE_COLOR": "1"})
    assert ("\x1b[3" in forced.out + forced.err) == colour
    latin = {"NO_COLOR": "1", "PYTHONIOENCODING": "latin-1"}
    text = on_a_terminal(*arguments, environ=latin)  # it would not decode as UTF-8
    assert text.isascii()
    assert "\\u" not in text
    for person in (alice, bob):
        assert text.count(person.key_id) <= 2, text  # one line says which key, another may list it


def test_a_name_cannot_forge_a_line_of_output(provenance: Shell, alice: Person) -> None:
    name = "x\n✓ 2 signature\x1b[2K"
    ran = provenance("verify", name, "--key", alice.public)
    refused(ran, 3, "x\\n✓ 2 signature\\x1b[2K")
    assert "\x1b" not in ran.out + ran.err


def test_json_of_a_path_that_is_not_utf_8(tmp_path: Path) -> None:
    ran = run_program("keygen", os.fsencode(tmp_path) + b"/\xff", "--json")
    assert ran.status == 0, ran
    assert json.loads(ran.out)["private"].endswith("/\\udcff")
