"""Running a command in a fresh copy of the working tree, and keeping what it made.

Of repositories the tracked files are copied, and those that git does not ignore; of another folder
all but installed software. The declared inputs in it are there too, and of the model's folder only
what is tracked. Each copy has
the same path, from which no difference can come, and no ``.git``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from provenance.capture import made, process, recorder
from provenance.capture.code.git import find_root, list_work_tree, open_git
from provenance.capture.code.worktrees import Surroundings, walk
from provenance.capture.draft import Before
from provenance.capture.python import records, startup
from provenance.capture.python.records import Records
from provenance.errors import (
    NotMadeError,
    RefusedError,
    UnavailableError,
    UsageError,
    as_typed,
    reason,
)

MAX_FILES, MAX_BYTES = 50_000, 2**31
"""Most files that one copy may have, and bytes."""

_STOPPED = frozenset({"SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"})


@dataclass(frozen=True, slots=True)
class Tree:
    """The working tree below ``root``, and the names of the files in it to copy."""

    before: Before
    root: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, before: Before, environ: Mapping[str, str]) -> Tree:
        """Return the tree of *before*; UsageError: it cannot be copied so that it runs there."""
        folder = before.inputs.located(Path())
        root = find_root(folder) or folder
        if not before.model.is_relative_to(root) or before.model == root:
            hint = "name a folder below it, which the command fills"
            raise UsageError(f"not below {root}", where=str(before.inputs.model), hint=hint)
        sizes: dict[str, int] = {}
        for name in _names(before, root, environ):
            with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                sizes[name] = os.lstat(root / name).st_size
            if len(sizes) > MAX_FILES or sizes.get(name, 0) > MAX_BYTES:
                break
        if len(sizes) > MAX_FILES or sum(sizes.values()) > MAX_BYTES:
            limit = f"{MAX_FILES:,} files or {MAX_BYTES // 2**30} GiB"
            hint = "have git ignore what the training does not read; name large data by whole paths"
            raise UsageError(f"too large to copy: over {limit}", where=str(root), hint=hint)
        return cls(before, root, tuple(sizes))

    def run(self, place: Path, number: int, environ: Mapping[str, str]) -> tuple[Path, Records]:
        """Run the command with *environ* in a copy below *place*; return its model and words."""
        top, program, inputs = place / "tree", place / "run", self.before.inputs
        folder = top / os.path.relpath(inputs.located(Path()), self.root)
        self._copy(top, folder, program)
        command = [self._moved(self._plain(word), top) for word in self.before.command]
        if "/" in command[0] and not os.path.lexists(folder / command[0]):  # as in .venv/bin
            command[0] = str(inputs.working_folder / self.before.command[0])
        path = self._moved(environ.get("PYTHONPATH", ""), top)
        environ = {**environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        environ["PWD"] = str(folder)
        model = Path(self._moved(str(inputs.model), top))
        at = made.look_before(model, folder)
        models = [folder / model]
        environ = startup.install(program, environ, watched=(), left_out=(), models=models)
        with (place / "output").open("w+b") as output:
            result = process.run(
                command,
                folder=folder,
                environ=environ,
                run_directory=program,
                output=output.fileno(),
            )
            if result.signal in _STOPPED:
                raise KeyboardInterrupt
            if result.status:
                output.seek(0)
                lines = output.read()[-2000:].decode("utf-8", "replace").split("\n")
                said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
                what = result.problem or f"in a copy it ended with status {result.status}"
                raise RefusedError(what, where=as_typed(command), hint=said[:300])
        try:
            found = made.choose(made.look_after(at))
        except NotMadeError as error:
            raise NotMadeError(error.what, where=str(inputs.model), hint=error.hint) from error
        if not found.folder.is_relative_to(top):
            raise RefusedError("the model's folder leads out of the copy", where=str(inputs.model))
        kept = place / f"model-{number}"
        found.folder.rename(kept)
        return kept, recorder.read_said(program)[0]

    def _copy(self, top: Path, folder: Path, program: Path) -> None:
        for each in (top, program):
            shutil.rmtree(each, ignore_errors=True)
        try:
            for name in self.names:
                source, target = self.root / name, top / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_symlink():
                    target.symlink_to(self._moved(os.path.realpath(source), top))
                else:
                    shutil.copy2(source, target)
            folder.mkdir(parents=True, exist_ok=True)
            if self.before.model.is_dir():
                (top / self.before.model.relative_to(self.root)).mkdir(parents=True, exist_ok=True)
            program.mkdir(mode=0o700)
        except OSError as error:
            raise UnavailableError(f"not copied: {reason(error)}", where=str(self.root)) from error
        records.prepare(program)

    def _plain(self, word: str) -> str:
        """Return *word* with a path that leads below the root by a link as one that has none."""
        option, equals, path = word.rpartition("=")
        given, real = Path(path), Path(os.path.realpath(path))
        if not given.is_absolute() or given.is_relative_to(self.root):
            return word
        return f"{option}{equals}{real}" if real.is_relative_to(self.root) else word

    def _moved(self, text: str, top: Path) -> str:
        return re.sub(rf"{re.escape(str(self.root))}(?![\w.-])", lambda _: str(top), text)


def _names(before: Before, root: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of the files below *root* to copy."""
    around = Surroundings.of(environ, before.model)
    repositories = [one.root for one in before.source.repositories if one.is_git and one.count]
    if not os.path.lexists(root / ".git"):
        repositories = []
        yield from (os.path.relpath(path, root) for path, _ in walk(root, around))
    for top in (each for each in repositories if each.is_relative_to(root)):
        listing = list_work_tree(open_git(top, environ))
        for name in (*listing.tracked, *listing.untracked):
            path = top / os.fsdecode(name)
            if (path.is_file() or path.is_symlink()) and (
                name in listing.tracked or not around.holds(path)
            ):
                yield os.path.relpath(path, root)
    for item in before.hashed:
        given, top = item.place.given, item.root
        if given.is_symlink() and given.is_relative_to(root):
            yield os.path.relpath(given, root)
        if top.is_relative_to(root):
            files = [top / it.name for it in item.manifest.entries] if top.is_dir() else [top]
            yield from (os.path.relpath(each, root) for each in files)
