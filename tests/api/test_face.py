"""The face of the package: what `import provenance` offers, and what that costs."""

from __future__ import annotations

import ast
import doctest
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import provenance
from provenance import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[2]
VERBS = {
    "agree",
    "attest",
    "compare",
    "keygen",
    "publish",
    "rebuild",
    "record",
    "resign",
    "sign",
    "verify",
}


def test_the_sessions_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs/api.md").read_text("utf-8")
    session = doctest.DocTestParser().get_doctest(page, {}, "docs/api.md", "docs/api.md", 0)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    problems: list[str] = []
    ran = doctest.DocTestRunner(optionflags=options).run(session, out=problems.append)
    assert (ran.failed, problems) == (0, [])
    assert all(f"\n## {verb}\n" in page for verb in VERBS | {"current_run"})


def test_importing_loads_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import provenance\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"__future__", "provenance"}


CALLS: dict[str, Callable[[Path], object]] = {
    "agree": lambda path: provenance.agree([path, path], keys=[path]),
    "attest": lambda path: provenance.attest(path, key=path),
    "compare": lambda path: provenance.compare(path, path),
    "keygen": lambda path: provenance.keygen(path / "a"),
    "publish": lambda path: provenance.publish(path, log=path),
    "rebuild": lambda path: provenance.rebuild(
        path, publisher_keys=[path], model="m", key=path, confirm=lambda _: False
    ),
    "record": lambda path: provenance.record(["true"], model=path, key=path),
    "resign": lambda path: provenance.resign(path, old_key=path, new_key=path),
    "sign": lambda path: provenance.sign(path, key=path),
    "verify": lambda path: provenance.verify(path, keys=[path]),
}


def test_no_module_hides_a_verb(tmp_path: Path) -> None:
    for module in pkgutil.walk_packages(provenance.__path__, "provenance."):
        # One runs as a program, one in a process of its own, one needs transformers.
        if not module.name.endswith(("__main__", ".huggingface")) and "_start" not in module.name:
            import_module(module.name)
    for verb in VERBS:
        with pytest.raises(provenance.ProvenanceError, match=r"no such (file|folder)|/a: cannot"):
            CALLS[verb](tmp_path / "missing")
    assert not provenance.current_run().is_recorded
    assert set(CALLS) == VERBS
    assert set(provenance.__all__) <= set(dir(provenance))
    with pytest.raises(AttributeError, match="no attribute 'verfy'"):
        _ = provenance.verfy


# --- Each command parses, makes one call, renders -------------------------------------------------

LIBRARY = {  # what a command may call: its one verb, or the function that does its job
    "keygen": "signing.keygen",
    "record": "making.record",
    "attest": "making.attest",
    "sign": "signing.sign",
    "verify": "checking.verify",
    "compare": "checking.compare",
    "agree": "checking.agree",
    "publish": "signing.publish",
    "show": "explain",
}
FACE = ("click", "provenance.cli", "provenance.report", "provenance.errors", "provenance.api")
VALUES = {"ALGORITHMS", "AGREES", "begun"}
"""Constants of the library in which options and exit statuses are put; and what a command's Python
is asked while the library is loaded."""


def calls(tree: ast.AST, name: str) -> int:
    return sum(isinstance(n, ast.Call) and ast.unparse(n.func) == name for n in ast.walk(tree))


def of_the_library(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a command imports from below its face."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(FACE):
            yield from (a.name for a in node.names if (node.module or "").startswith("provenance"))


@pytest.mark.parametrize("verb", LIBRARY)
def test_a_command_makes_one_call(verb: str) -> None:
    tree = ast.parse((REPOSITORY / f"provenance/cli/{verb}.py").read_text("utf-8"))
    assert calls(tree, LIBRARY[verb]) == 1
    below = set(of_the_library(tree)) - VALUES
    assert {name for name in below if name[0].islower()} == set()  # types alone, for annotations
    assert verb in cli.COMMANDS
