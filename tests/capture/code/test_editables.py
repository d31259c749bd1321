"""Each way in which code outside of the library is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from provenance.capture.code.editables import editable_folders
from provenance.capture.python.packages import observe_software

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The library of a new environment, beside which there is ``mylib/src/mylib``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    package = tmp_path / "mylib" / "src" / "mylib"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text("V = 1\n")
    [found] = tmp_path.glob("venv/lib/python3*/site-packages")
    return found


def found(tmp_path: Path, **environ: str) -> dict[str, Path]:
    python = str(tmp_path / "venv" / "bin" / "python")
    software = observe_software([python, "t.py"], tmp_path, {**os.environ, **environ})
    assert software.interpreter.status == "ok", software.interpreter.reason
    return dict(software.editable)


def test_a_path_file_adds_a_folder(library: Path, tmp_path: Path) -> None:
    assert found(tmp_path) == {}
    library.joinpath("some.pth").write_text(f"# a comment\n{tmp_path}/mylib/src\n")
    assert found(tmp_path) == {"mylib": tmp_path / "mylib" / "src"}


def test_the_variable_adds_a_folder(library: Path, tmp_path: Path) -> None:
    assert library.is_dir()
    assert found(tmp_path, PYTHONPATH=f"{tmp_path}/mylib") == {"mylib": tmp_path / "mylib"}


def test_an_egg_link_adds_a_folder(library: Path, tmp_path: Path) -> None:
    library.joinpath("mylib.egg-link").write_text(f"{tmp_path}/mylib/src\n..\n")
    library.joinpath("easy-install.pth").write_text(f"{tmp_path}/mylib/src\n")
    assert found(tmp_path) == {"mylib": tmp_path / "mylib" / "src"}


def test_a_finder_of_setuptools_leads_to_a_folder(library: Path, tmp_path: Path) -> None:
    mapping = {"mylib": f"{tmp_path}/mylib/src/mylib"}
    library.joinpath("__editable___mylib_0_1_finder.py").write_text(
        f"import sys\nMAPPING: dict[str, str] = {mapping!r}\nNAMESPACES = {{}}\n"
    )
    assert found(tmp_path) == {"mylib": tmp_path / "mylib" / "src"}


def test_the_name_of_a_distribution_counts_before_that_of_its_folder(
    library: Path, tmp_path: Path
) -> None:
    metadata = library / "my_lib-0.1.dist-info"
    metadata.mkdir()
    metadata.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: my-lib\nVersion: 1\n")
    metadata.joinpath("direct_url.json").write_text(
        f'{{"url": "file://{tmp_path}/mylib", "dir_info": {{"editable": true}}}}'
    )
    library.joinpath("__editable__.my_lib-0.1.pth").write_text(f"{tmp_path}/mylib/src\n")
    assert found(tmp_path) == {"my-lib": tmp_path / "mylib"}


@pytest.mark.parametrize(
    "text",
    ["MAPPING = {", "MAPPING = {1: 2, 'a': 3, 'b': 'relative'}", "MAPPING = {**open('x')}", "\0"],
)
def test_a_finder_that_is_none_adds_nothing(tmp_path: Path, text: str) -> None:
    tmp_path.joinpath("__editable___x_finder.py").write_text(text + "\n")
    assert editable_folders([], [str(tmp_path / "nowhere"), "relative", "/\0"]) == ()
    os.mkfifo(tmp_path / "__editable___fifo_finder.py")
    assert [name for name, _ in editable_folders([], [str(tmp_path)])] == [tmp_path.name]


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / one / "lib" / "x" for one in "ab"]
    for path in paths:
        path.mkdir(parents=True)
    assert editable_folders([], list(map(str, paths))) == (("x", paths[0]), ("x (2)", paths[1]))
