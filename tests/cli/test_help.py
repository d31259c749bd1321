"""Help: how it ends, what its examples are worth, how it wraps; and completion in a shell."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

import click
import pytest

from provenance import cli
from provenance.cli.help import Command
from tests.sessions.session import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.world import Shell


def walk(command: click.Command, *words: str) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Yield *command* and every command below it, with the words that call it."""
    assert isinstance(command, Command)
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from walk(below, *words, name)


EVERY = dict(walk(cli.cli))
EACH = pytest.mark.parametrize("words", EVERY, ids=" ".join)


def test_every_command_is_walked() -> None:
    equality = {"list", "show", "check", "suggest", "calibrate"}
    groups = {"equality": equality, "log": {"init", "audit"}, "trust": {"check", "init"}}
    assert {words[0] for words in EVERY if words} == set(cli.COMMANDS)
    for name, below in groups.items():
        assert {words[1] for words in EVERY if words[:1] == (name,) and words[1:]} == below


@EACH
def test_help_ends_with_two_examples_and_the_next_step(
    words: tuple[str, ...], provenance: Shell
) -> None:
    ran = provenance(*words, "--help")
    assert ran.status == 0
    assert f"Usage: {' '.join(('provenance', *words))}" in ran.out
    ending = ran.out.partition("\nExamples:\n")[2]
    examples, _, after = ending.partition("\n\n")
    assert len(EVERY[words].examples) == 2
    assert examples == "\n".join(
        f"  {line}" for example in EVERY[words].examples for line in example.splitlines()
    )
    assert " ".join(after.split()) == f"Next: {EVERY[words].next_step}"


@EACH
def test_examples_are_calls_that_the_program_takes(words: tuple[str, ...]) -> None:
    for example in EVERY[words].examples:
        program, *arguments = shlex.split(example.partition(" > ")[0])
        assert program == "provenance"
        context = cli.cli.make_context("provenance", arguments)
        command: click.Command = cli.cli
        while isinstance(command, click.Group):
            rest = [*context._protected_args, *context.args]  # noqa: SLF001 - click has no other way
            name, found, rest = command.resolve_command(context, rest)
            assert found is not None
            context, command = found.make_context(name, rest, parent=context), found


@EACH
@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_word_is_broken(
    words: tuple[str, ...], width: int, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    whole = provenance(*words, "--help").out
    monkeypatch.setenv("COLUMNS", str(width))
    wrapped = provenance(*words, "--help").out
    assert sorted(wrapped.split()) == sorted(whole.split())
    assert max(map(len, wrapped.splitlines())) <= max(width, 78)


def test_completion_in_bash(tmp_path: Path) -> None:
    """As docs/README.md says to set it up; the two words are what a user has typed."""
    (folder := tmp_path / "session").mkdir()
    script = """
        eval "$(_PROVENANCE_COMPLETE=bash_source provenance)"
        complete -p provenance > /dev/null || exit 1
        COMP_WORDS=(provenance "$@"); COMP_CWORD=$#
        _provenance_completion provenance
        echo "${COMPREPLY[*]}"
    """

    def complete(*words: str) -> str:
        done = subprocess.run(
            ["bash", "-c", script, "bash", *words],
            env={**os.environ, **environment(folder)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.strip()

    assert complete("ver") == "verify"
    assert complete("log", "") == "init audit"
    assert complete("verify", "--cl") == "--claims"
