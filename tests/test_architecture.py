"""Imports run one way: the order is the list in docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parent.parent
ROOT = "provenance"

EXEMPT = {(f"{ROOT}/__init__.py", f"{ROOT}.{name}") for name in ("api", "capture.run", "errors")}
"""The imports against the order: what ``provenance`` offers, loaded when it is first used."""

UNORDERED = {"__init__", "__main__"}
"""Modules directly in the root that are no package: the lazy re-export and the starter."""


def import_order(page: str) -> list[str]:
    """Return the packages in the block ``import-order`` of the architecture page, bottom-up."""
    _, fence, rest = page.partition("```import-order\n")
    block, end, _ = rest.partition("\n```")
    assert fence, "docs/architecture.md has no block ```import-order"
    assert end, "the block ```import-order has no end"
    return block.split()


def packages(folder: Path) -> set[str]:
    """Return the packages and single modules directly in *folder*."""
    files = [path.relative_to(folder) for path in folder.rglob("*.py")]
    return {path.with_suffix("").parts[0] for path in files} - UNORDERED


def modules(folder: Path) -> dict[str, Path]:
    """Return the modules under *folder* by name.

    A script in a folder without ``__init__.py`` is data, such as the program that the demo trains.
    """
    found = {}
    for path in sorted(folder.rglob("*.py")):
        if (path.parent / "__init__.py").exists():
            parts = path.relative_to(folder.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield each import of this project in *tree*: its line and the dotted name.

    Counts imports at any depth, relative ones, and ``import_module`` of a literal name. A name
    imported *from* a package is yielded with it: whether it is a module is decided later.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(level=0, module=str(base), names=names):
                found = [f"{base}.{alias.name}" for alias in names]
            case ast.ImportFrom(level=level, module=tail, names=names):
                parents = module.split(".")
                parents = parents[: len(parents) - level + is_package]
                base = ".".join([*parents, *([tail] if tail else [])])
                found = [f"{base}.{alias.name}" for alias in names]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                found = [name]
            case _:
                continue
        for name in found:
            if name.split(".")[0] == ROOT:
                yield node.lineno, name


def violations(folder: Path, order: list[str]) -> list[str]:
    """Return each import under *folder* that goes against *order*, as ``file:line: what``."""
    found = []
    for module, path in modules(folder).items():
        file = path.relative_to(folder.parent).as_posix()
        importer = module.split(".")[1] if "." in module else None
        if importer == "__main__":
            continue
        allowed = set(order[: order.index(importer) + 1]) if importer in order else set()
        tree = ast.parse(path.read_text("utf-8"), file)
        for line, name in imported(tree, module, is_package=path.name == "__init__.py"):
            target = name.split(".")[1] if "." in name else None
            if target in allowed or target == "__version__":
                continue
            if any(file == who and f"{name}.".startswith(f"{what}.") for who, what in EXEMPT):
                continue
            found.append(f"{file}:{line}: {importer or ROOT} imports {name}")
    return found


def module_graph(folder: Path) -> dict[str, set[str]]:
    """Return for each module under *folder* the modules of this project that it imports."""
    files = modules(folder)
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        tree = ast.parse(path.read_text("utf-8"))
        names = {n for _, n in imported(tree, module, is_package=path.name == "__init__.py")}
        targets = {name if name in files else name.rpartition(".")[0] for name in names}
        # The root is left out: it holds only the version and the lazy re-export.
        graph[module] = (targets & files.keys()) - {module, ROOT}
    del graph[ROOT]
    return graph


def unlisted(folder: Path) -> list[str]:
    """Return the modules of the packages in *folder* that their package's docstring does not name.

    The docstring is the map of the package. That of ``cli`` names none: it has the rule by which a
    command is in the module of its name.
    """
    found = []
    for module, path in modules(folder).items():
        package, _, name = module.rpartition(".")
        if path.name == "__init__.py" or package in (ROOT, f"{ROOT}.cli"):
            continue
        text = ast.get_docstring(ast.parse((path.parent / "__init__.py").read_text("utf-8"))) or ""
        if f"``{name}``" not in text:
            found.append(module)
    return found


ORDER = import_order((REPOSITORY / "docs/architecture.md").read_text("utf-8"))


def test_the_page_lists_each_package_once() -> None:
    assert len(ORDER) == len(set(ORDER))
    assert set(ORDER) == packages(REPOSITORY / ROOT)


def test_imports_run_one_way() -> None:
    assert violations(REPOSITORY / ROOT, ORDER) == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(module_graph(REPOSITORY / ROOT)).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_each_package_lists_its_modules() -> None:
    assert unlisted(REPOSITORY / ROOT) == []


def thawed(text: str) -> list[str]:
    """Return the records in a module whose values can be altered."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            said = [ast.unparse(it) for it in (*node.decorator_list, *node.bases, *node.keywords)]
            record = any(it.startswith(("dataclass", "msgspec.Struct")) for it in said)
            if record and not any("frozen=True" in it for it in said):
                found.append(node.name)
    return found


def test_records_are_frozen() -> None:
    for path in modules(REPOSITORY / ROOT).values():
        assert thawed(path.read_text("utf-8")) == [], path
    assert thawed("@dataclass\nclass A: ...\nclass B(msgspec.Struct): ...\n") == ["A", "B"]
    sound = "@dataclass(frozen=True)\nclass A: ...\nclass B(msgspec.Struct, frozen=True): ...\n"
    assert thawed(sound) == []


# --- The test of the test -------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a sound project of three packages: low, middle, high."""
    folder = tmp_path / ROOT
    for name, text in {
        "__init__.py": "def current_run():\n    from provenance.capture.run import current_run\n",
        "__main__.py": "from provenance.high import main\n",
        "low.py": "import os.path\n",
        "middle/__init__.py": "from . import inner\nfrom provenance.low import x\n",
        "middle/inner.py": "from provenance import __version__\nimport provenance.low\n",
        "high/__init__.py": "from ..middle.inner import x\n",
        "high/deep/__init__.py": "from ...low import x\nfrom .. import deep\n",
        "high/data/script.py": "import provenance\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_sound_project_passes(project: Path) -> None:
    assert violations(project, ["low", "middle", "high"]) == []
    assert packages(project) == {"low", "middle", "high"}


def test_a_module_that_its_package_does_not_name_is_caught(project: Path) -> None:
    (project / "middle/__init__.py").write_text('"""About ``inner``."""\n')
    assert unlisted(project) == []
    (project / "middle/other.py").write_text("")
    assert unlisted(project) == [f"{ROOT}.middle.other"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("low.py", "import provenance.middle"),
        ("low.py", "import provenance.middle.inner as name"),
        ("low.py", "from provenance import middle"),
        ("low.py", "from provenance.middle.inner import x"),
        ("low.py", "from . import middle"),
        ("low.py", "from .middle import inner"),
        ("middle/inner.py", "from .. import high"),
        ("middle/inner.py", "from ..high.deep import x"),
        ("middle/__init__.py", "from .. import high"),
        ("middle/inner.py", "def f():\n    from provenance.high import x"),
        ("middle/inner.py", "if TYPE_CHECKING:\n    from provenance.high import X"),
        ("middle/inner.py", "import importlib\nimportlib.import_module('provenance.high')"),
        ("middle/inner.py", "__import__('provenance.high')"),
        ("high/__init__.py", "import provenance"),
        ("high/__init__.py", "from provenance import current_run"),
        ("high/__init__.py", "from provenance.unlisted import x"),
        ("__init__.py", "from provenance.low import x"),
        ("__init__.py", "from provenance.capture.runner import x"),
        ("unlisted.py", "from provenance.low import x"),
    ],
)
def test_an_offending_module_is_caught(project: Path, file: str, text: str) -> None:
    (project / file).write_text(text)
    [violation] = violations(project, ["low", "middle", "high"])
    assert violation.startswith(f"{ROOT}/{file}:{text.count(chr(10)) + 1}: ")


def test_a_circle_of_modules_is_caught(project: Path) -> None:
    TopologicalSorter(module_graph(project)).prepare()
    (project / "middle/inner.py").write_text("from provenance.middle import x\n")
    with pytest.raises(CycleError):
        TopologicalSorter(module_graph(project)).prepare()


# --- Start-up -------------------------------------------------------------------------------------

LOADED = """
import sys
before = set(sys.modules)
from provenance.cli import main
try:
    main()
except SystemExit:
    pass
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print("\\n", *sorted(loaded - sys.stdlib_module_names), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_loads_no_package_but_click(arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True
    )
    loaded = set(result.stderr.split())
    assert "provenance" in loaded
    # `coverage` is there when this suite is measured.
    assert loaded - {"coverage"} == {"provenance", "click"}
