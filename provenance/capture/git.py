"""Asking git, in a repository that nobody vouches for.

git runs programs that a repository's own configuration names: hooks, filters, a file-system
monitor. Here it runs none of them, takes no variable that redirects it (``GIT_DIR`` …), asks
nothing over a network, takes no lock, and has a time limit.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from provenance.errors import UnavailableError, reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TIMEOUT_SECONDS = 900
"""Longest that one git command may take: git hashes some 300 MB/s, so this allows 250 GB."""

_SETTINGS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "core.splitIndex=false",
    "core.attributesFile=/dev/null",  # these three are not in the tree: .gitattributes is
    "core.excludesFile=/dev/null",
    "core.autocrlf=false",
    "core.checkStat=default",  # a repository may ask git to overlook changes
    "core.trustctime=true",
    "core.ignoreStat=false",
    "core.quotePath=false",
    "core.pager=cat",
    "core.sshCommand=false",
    "credential.helper=",
    "protocol.allow=never",
    "submodule.recurse=false",
)


class GitError(UnavailableError):
    """git refused; ``denied`` where it does not trust the repository's owner."""

    @property
    def denied(self) -> bool:
        """Whether git refused because the repository belongs to somebody else."""
        return "dubious ownership" in self.what


class NoGitError(UnavailableError):
    """git is not installed."""


@dataclass(frozen=True, slots=True)
class Git:
    """git in *folder*, with the environment *variables* and additional *settings*."""

    folder: Path
    variables: Mapping[str, str]
    settings: tuple[str, ...] = ()
    timeout_seconds: float = field(default=TIMEOUT_SECONDS)

    def ask(self, *arguments: str, stdin: bytes = b"", expect: tuple[int, ...] = (0,)) -> bytes:
        """Return what ``git ARGUMENTS`` writes to its standard output.

        Raises:
            NoGitError: git is not installed.
            GitError: its exit status is none of *expect*, or it takes too long.
        """
        options = [part for setting in (*_SETTINGS, *self.settings) for part in ("-c", setting)]
        try:
            # S603, S607: no shell; which git is found is the user's choice, by PATH.
            done = subprocess.run(
                ["git", *options, *arguments],  # noqa: S607
                cwd=self.folder,
                env=dict(self.variables),
                input=stdin,
                capture_output=True,
                check=False,
                timeout=self.timeout_seconds,
            )
        except FileNotFoundError as error:
            raise NoGitError("git is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise GitError(f"git took longer than {self.timeout_seconds:g} s") from error
        except OSError as error:
            raise GitError(f"git cannot be run: {reason(error)}") from error
        if done.returncode not in expect:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason"]
            raise GitError(f"git {arguments[0]} failed: {lines[0].removeprefix('fatal: ')[:300]}")
        return done.stdout

    def line(self, *arguments: str, expect: tuple[int, ...] = (0,)) -> str:
        """Return the output of ``git ARGUMENTS`` as text, less the line feed at its end."""
        return os.fsdecode(self.ask(*arguments, expect=expect)).removesuffix("\n")

    def names(self, *arguments: str) -> list[bytes]:
        """Return the output of ``git ARGUMENTS`` as names that end in NUL."""
        return self.ask(*arguments).split(b"\0")[:-1]

    def with_variables(self, **variables: str) -> Git:
        """Return the same with *variables* added to the environment."""
        return Git(
            self.folder, {**self.variables, **variables}, self.settings, self.timeout_seconds
        )


def open_git(folder: Path, environ: Mapping[str, str]) -> Git:
    """Return git in *folder*, with every filter that its configuration names switched off.

    Raises:
        NoGitError, GitError: as :meth:`Git.ask`.
    """
    variables = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
    variables |= {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",  # else a local replacement could stand in for the commit
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_ATTR_NOSYSTEM": "1",
    }
    git = Git(folder, variables)
    found = git.ask(
        "config", "-z", "--name-only", "--get-regexp", r"^filter\..*", expect=(0, 1)
    ).split(b"\0")[:-1]
    names = {os.fsdecode(name).removeprefix("filter.") for name in found}
    drivers = sorted({name.rpartition(".")[0] for name in names})
    if any("=" in driver for driver in drivers):  # "-c" cannot name it
        raise GitError("a filter in the git configuration has '=' in its name")
    switched_off = tuple(
        f"filter.{driver}.{setting}"
        for driver in drivers
        for setting in ("clean=", "smudge=", "process=", "required=false")
    )
    return Git(folder, variables, switched_off)
