"""The built wheel, installed with the core dependencies alone (`make test-integrations`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from provenance import __version__

REPOSITORY = Path(__file__).parent.parent
KERNEL = "provenance/measure/_kernel.lib"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        "PROVENANCE_WHEEL" not in os.environ, reason="run by `make test-integrations`"
    ),
]

PROGRAMS = (
    "provenance.__main__", "provenance.cli.demo_files.", "provenance.measure.onnx_child",
    "provenance.sigstore.signing_child", "provenance.weights.hdf5.probe",
    "provenance.integrations.huggingface", "provenance.integrations.lightning",
    "provenance.integrations.mlflow",
)  # fmt: skip
"""Scripts that run in a process of their own, and callbacks, with packages of other extras."""

NUMBERS = (
    "provenance.weights.", "provenance.measure.", "provenance.judge.",
    "provenance.capture.tensors.", "provenance.rebuilding.agreement", "provenance.doctor.twice",
)  # fmt: skip
"""Modules that need the extra `weights`."""

OTHERS = ("h5py", "onnx", "onnxruntime", "scipy", "sklearn", "safetensors")
"""What other extras than `weights` install."""

IMPORT = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({absent!r}))
import provenance
for module in pkgutil.walk_packages(provenance.__path__, "provenance."):
    if not f"{{module.name}}.".startswith({left!r}):
        importlib.import_module(module.name)
assert {numpy} == ("numpy" in sys.modules)
print(provenance.__file__)
"""


@pytest.fixture
def wheel() -> zipfile.ZipFile:
    [path] = Path(os.environ["PROVENANCE_WHEEL"]).glob("*.whl")
    return zipfile.ZipFile(path)


def installed(program: str, *arguments: str, cwd: Path) -> str:
    """Return what *program* of the wheel's environment prints; *cwd* must not be the checkout."""
    path = Path(os.environ["PROVENANCE_WHEEL_VENV"], "bin", program)
    result = subprocess.run(
        [str(path), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_it_holds_every_file_of_the_package_and_the_licence(wheel: zipfile.ZipFile) -> None:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "provenance"]
    try:
        output = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    files = {name for name in output.decode().split("\0") if name and (REPOSITORY / name).exists()}
    metadata = f"training_provenance-{__version__}.dist-info"
    held = set(wheel.namelist()) - {KERNEL}
    assert {name for name in held if not name.startswith(metadata)} == files
    assert "provenance/py.typed" in held
    assert f"{metadata}/licenses/LICENSE" in held


def test_it_holds_the_compiled_kernel_where_there_is_a_compiler(wheel: zipfile.ZipFile) -> None:
    about = wheel.read(f"training_provenance-{__version__}.dist-info/WHEEL").decode()
    (tag,) = (line for line in about.splitlines() if line.startswith("Tag: "))
    has = shutil.which("cc") is not None
    assert (KERNEL in wheel.namelist()) == has
    assert tag.startswith("Tag: py3-none-")
    assert tag.endswith("-any") != has


def test_every_module_that_reads_no_tensors_imports_with_the_core_dependencies(
    tmp_path: Path,
) -> None:
    script = IMPORT.format(absent=(), left=PROGRAMS + NUMBERS, numpy=False)
    installed("python", "-c", script, cwd=tmp_path)


def test_every_module_imports_with_the_extra_weights(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path)
    script = IMPORT.format(absent=OTHERS, left=PROGRAMS, numpy=True)
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(tmp_path)


def test_the_command_runs(tmp_path: Path) -> None:
    assert installed("provenance", "--version", cwd=tmp_path).split()[-1] == __version__
    assert "verify" in installed("provenance", "--help", cwd=tmp_path)


def test_its_dependencies_agree(tmp_path: Path) -> None:
    installed("python", "-m", "pip", "check", cwd=tmp_path)
