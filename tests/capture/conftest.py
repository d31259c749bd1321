from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from provenance.capture.secrecy.scan import find_secret
from provenance.errors import SecretError

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.capture.secrecy.scan import LiveSecret


@dataclass(frozen=True)
class Repository:
    """A real git repository, with an author and a configuration of its own."""

    path: Path
    home: Path

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@example.org",
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=self.environ, check=True, capture_output=True
        )
        return os.fsdecode(done.stdout).strip()

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, files: dict[str, str]) -> str:
        self.write(files)
        self.git("add", "--all", "--force", *files)
        self.git("commit", "--quiet", "--message", "a commit")
        return self.git("rev-parse", "HEAD")

    def add_submodule(self, other: Repository, name: str) -> None:
        allowed = ("-c", "protocol.file.allow=always")
        self.git(*allowed, "submodule", "--quiet", "add", str(other.path), name)
        self.git("commit", "--quiet", "--message", "a submodule")

    def tree_by_git(self) -> str:
        """Return the tree that ``git add --update`` would give, made in a copy of the index."""
        index = self.path / ".git" / "index-of-the-test"
        shutil.copy(self.path / ".git" / "index", index)
        environ = {**self.environ, "GIT_INDEX_FILE": str(index)}
        subprocess.run(
            ["git", "add", "--update"], cwd=self.path, env=environ, check=True, capture_output=True
        )
        done = subprocess.run(
            ["git", "write-tree"], cwd=self.path, env=environ, check=True, capture_output=True
        )
        index.unlink()
        return done.stdout.decode().strip()


def make_repository(path: Path) -> Repository:
    home = path.parent / "home"
    home.mkdir(exist_ok=True)
    path.mkdir(parents=True)
    repository = Repository(path, home)
    repository.git("-c", "init.defaultBranch=main", "init", "--quiet")
    return repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with one commit: ``train.py`` and a ``.gitignore`` for ``*.log``."""
    repository = make_repository(tmp_path / "repository")
    repository.commit({"train.py": "print(1)\n", ".gitignore": "*.log\n"})
    return repository


@pytest.fixture
def other_repository(tmp_path: Path) -> Repository:
    """Another repository with one commit, beside the first."""
    repository = make_repository(tmp_path / "other")
    repository.commit({"library.py": "x = 1\n"})
    return repository


@pytest.fixture
def empty_repository(tmp_path: Path) -> Repository:
    """A repository without commits."""
    return make_repository(tmp_path / "empty")


def refuse_secrets(payload: bytes, secrets: tuple[LiveSecret, ...]) -> None:
    """Raise SecretError if *payload* contains one of *secrets*, or what looks like one."""
    if (found := find_secret(payload, secrets)) is not None:
        raise SecretError(f"holds {found.what} at {found.pointer}")
