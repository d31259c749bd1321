"""What a program's text says, as hints: its syntax tree is read, and nothing is imported or run.

Read are the files that the command names and the modules beside them that these import. A call
that is not seen may be made elsewhere; one that is seen may never be reached.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from provenance.doctor.catalogue import CATALOGUE
from provenance.errors import UnreadableError, some_of
from provenance.files.reading import read_file

MAX_FILES, MAX_FILE_BYTES = 256, 2**20
"""Most files read of a program, and the longest."""


class Call(NamedTuple):
    """A call by its full name, as imports make it: a method of something else is ``.name``."""

    name: str
    place: str
    bare: bool
    keywords: Mapping[str, object]


class Program(NamedTuple):
    """The names of the files read, the calls, and the attributes that are set to True."""

    files: tuple[str, ...]
    calls: tuple[Call, ...]
    switched_on: tuple[tuple[str, str], ...]

    def volatile(self) -> Iterator[str]:
        """Yield what was seen that no seed or setting makes repeat, and where."""
        yield from (f"{it.name} ({it.place})" for it in self.calls if it.name in CATALOGUE.volatile)

    def hints(self) -> Iterator[tuple[str, str]]:
        """Yield what the program does, or does not seem to do, and the remedy."""
        given = {f".{each.name}" for each in self.calls if not each.bare}
        given |= {f":{keyword}" for each in self.calls for keyword in each.keywords}
        for hint in CATALOGUE.hints:
            uses = any(each.name.startswith(hint.uses) for each in self.calls)
            if uses and not any(each.endswith(hint.unless) for each in given):
                yield f"{hint.text} in {some_of(self.files)}", hint.remedy
        for name, place in self.switched_on:
            if name.endswith("cudnn.benchmark"):
                yield f"cudnn.benchmark chooses kernels by speed ({place})", f"{name} = False"
        for name, place, _, keywords in self.calls:
            workers = name.endswith("DataLoader") and keywords.get("num_workers")
            if workers and not keywords.keys() & {"generator", "worker_init_fn"}:
                remedy = "generator=torch.Generator().manual_seed(0), and a worker_init_fn"
                yield f"a DataLoader has workers and no generator ({place})", remedy
            known = {name, f".{name.rpartition('.')[2]}"} & CATALOGUE.without_deterministic_path
            if known:
                text = f"{known.pop().strip('.')} may have no deterministic path on CUDA ({place})"
                yield text, "use another operation, or do it on the CPU"


def read_program(files: Iterable[Path]) -> Program:
    """Return what the Python files among *files* say."""
    waiting = [path for path in files if path.suffix == ".py"]
    done: dict[Path, None] = {}
    calls: list[Call] = []
    switched_on: list[tuple[str, str]] = []
    while waiting and len(done) < MAX_FILES:
        path = waiting.pop(0)
        try:
            tree = ast.parse(read_file(path, MAX_FILE_BYTES))
        except (UnreadableError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        done[path] = None
        names = dict(_imported(tree))
        for full in names.values():
            stem = path.parent.joinpath(*full.split("."))
            for each in (f"{stem}.py", f"{stem.parent}.py", f"{stem}/__init__.py"):
                if os.path.isfile(each) and Path(each) not in (*done, *waiting):  # noqa: PTH113 - raises nothing
                    waiting.append(Path(each))
        for node in ast.walk(tree):
            place = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call):
                found = {it.arg: getattr(it.value, "value", ...) for it in node.keywords if it.arg}
                bare = not node.args and not node.keywords
                calls.append(Call(_full(node.func, names), place, bare, found))
            elif isinstance(node, ast.Assign) and getattr(node.value, "value", None) is True:
                switched_on += [(_full(to, names), place) for to in node.targets]
    return Program(tuple(each.name for each in done), tuple(calls), tuple(switched_on))


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield each name that an import binds, and what it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                first = each.name.partition(".")[0]
                yield (each.asname, each.name) if each.asname else (first, first)
        elif isinstance(node, ast.ImportFrom):
            for each in node.names:
                yield each.asname or each.name, ".".join(filter(None, (node.module, each.name)))


def _full(node: ast.AST, names: Mapping[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(names.get(node.id, node.id) if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))
