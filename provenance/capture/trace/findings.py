"""What the files that a run opened say beside the claim: the collector ``trace``.

Names are of files below the working folder or a repository; of others only the last name. Files in
hidden folders elsewhere (a user's settings and caches) and secret ones are counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from provenance.capture.code.reread import ARCHIVES, CODE, state_now
from provenance.capture.code.worktrees import is_installed, text_of
from provenance.capture.draft import Before
from provenance.capture.python.records import Reads, Records
from provenance.capture.secrecy.redact import readable, redact_text
from provenance.capture.secrecy.secrets import is_secret_file
from provenance.keys import is_private_key
from provenance.statement.training import Collected

STOPPING = ("seccomp", "strace")
"""Mechanisms that see all that any process opens, and stop it for that."""

MAX_NAMED = 100
"""Most files of a list in the statement."""

SYSTEM = "/proc /sys /dev /run /etc /usr /bin /sbin /lib /lib32 /lib64 /var/cache".split()
"""What the system brings."""


class Trace(msgspec.Struct, frozen=True):
    """Which files are what when a run begins ``at`` (ns since 1970), and what was seen of it.

    ``roots`` are the working folder and the repositories, each with the prefix of its names and
    with those of its tracked files. ``left_out`` is declared, or recorded otherwise. ``unopened``
    and ``written`` have keys of declared inputs, the first with how many of its files that is.
    """

    mechanisms: tuple[str, ...] = ()
    roots: dict[str, tuple[str, tuple[str, ...]]] = {}
    left_out: tuple[str, ...] = ()
    model: str = "/nowhere"
    secret: tuple[str, ...] = ()
    at: int = 0
    unopened: dict[str, dict[str, int]] = {}
    written: tuple[str, ...] = ()
    problem: str = ""

    @classmethod
    def of(cls, mechanisms: tuple[str, ...], before: Before) -> Trace:
        """Return what is known *before* the run."""
        source, folder = before.source, before.inputs.located(Path())
        roots: dict[str, tuple[str, tuple[str, ...]]] = {str(folder): ("", ())}
        for one in filter(lambda each: each.is_git, source.repositories):
            names = (text_of(name) for name in (one.entries if one.count else ()))
            roots[str(one.root)] = ("" if one.root == folder else one.prefix, (*names,))
        known = [path for item in before.hashed for path in (*item.paths(), *item.behind_links())]
        known += map(before.inputs.located, before.inputs.others)
        system = [name for name in (*SYSTEM, before.software.prefix) if name and name not in roots]
        left_out, secret = (*map(str, (*known, *source.named)), *system), (*source.around.secret,)
        return cls(mechanisms, roots, left_out, str(before.model), secret, source.at)

    def own_reads(self, records: Records) -> Reads:
        """Return what the run read, without what the environments of its Pythons have."""
        kinds, files = self._kinds(records), records.reads.files
        kept = {path: state for path, state in files.items() if _innermost(path, kinds) != ""}
        return replace(records.reads, files=kept)

    def described(self, records: Records) -> Collected:
        """Return what was seen of files."""
        if not self.mechanisms:
            return Collected("absent", reason="--trace off")
        values: dict[str, Any] = {
            "mechanism": ", ".join(self.mechanisms),
            "complete": False,
            "lost": records.reads.lost,
            "unopened": self.unopened,
            "writtenMeanwhile": [*self.written],
        }
        if self.mechanisms != ("inotify",):
            kinds = self._kinds(records) | dict.fromkeys((*self.left_out, self.model), "")
            read = [*self._undeclared(records.reads, kinds)]
            wrote = [self._name(path, kinds) for path in records.reads.written if path.is_file()]
            lists = {
                "undeclared": sorted(name for name, _ in read if name),
                "changed": sorted(name for name, is_same in read if name and not is_same),
                "outputs": sorted(filter(None, wrote)),
            }
            values |= {name: found[:MAX_NAMED] for name, found in lists.items()}
            values |= {f"{name}Files": len(found) for name, found in lists.items()}
            values["unnamed"] = sum(not name for name, _ in read)
        return Collected("ok", values, self.problem)

    def _kinds(self, records: Records) -> dict[str, str]:
        """Return the folders of which is known what they are: of an environment (""), or a root."""
        said = [one.said for one in records.processes]
        prefixes = {name.rstrip("/") for one in said for name in (one.prefix, one.base_prefix)}
        return dict.fromkeys(prefixes - {""}, "") | {root: root for root in self.roots}

    def _undeclared(self, reads: Reads, kinds: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
        """Yield the files that were read and that nothing declares or records, and which stayed so.

        What the run made is none, nor what was made meanwhile and perhaps by it.
        """
        tracked = {root: frozenset(names) for root, (_, names) in self.roots.items()}
        for path, state in reads.files.items():
            root = _innermost(path, kinds)
            made = path in reads.written or self.mechanisms[-1] not in STOPPING
            if root == "" or (made and state.ctime_ns >= self.at) or ".git" in path.parts:
                continue
            if path.suffix in (*CODE, *ARCHIVES) or ".so." in path.name or path.is_symlink():
                continue
            if is_installed(path):
                continue
            if root and text_of(os.fsencode(path.relative_to(root))) in tracked[root]:
                continue
            yield self._name(path, kinds), state_now(path) == state

    def _name(self, path: Path, kinds: Mapping[str, str]) -> str:
        """Return what *path* is called in the statement; "" if that is nobody's business."""
        root = _innermost(path, kinds)
        if root == "" or is_secret_file(str(path)) or str(path) in self.secret:
            return ""
        if root:
            name = self.roots[root][0] + text_of(os.fsencode(path.relative_to(root)))
        else:
            name = "" if any(part.startswith(".") for part in path.parts) else path.name
        return "" if is_private_key(path) else redact_text(readable(name))


def _innermost(path: Path, kinds: Mapping[str, str]) -> str | None:
    """Return the kind of the innermost known folder that holds *path*; None: there is none."""
    return next((kinds[p] for p in map(str, (path, *path.parents)) if p in kinds), None)
