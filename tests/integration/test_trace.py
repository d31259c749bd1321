"""A trace finds the data that real libraries read in native code, and that nobody declared."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.api.making import record
from provenance.capture.trace import tracer
from provenance.errors import UnavailableError

if TYPE_CHECKING:
    from tests.world import Person

PYTHON = os.environ.get("PROVENANCE_TORCH", "")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not PYTHON, reason="PROVENANCE_TORCH names no Python with these libraries"),
]

WRITING = {
    "safetensors": """
import numpy, safetensors.numpy
safetensors.numpy.save_file({"w": numpy.ones(5)}, "weights.safetensors")
""",
    "pyarrow": """
import pyarrow, pyarrow.parquet
table = pyarrow.table({"a": [1, 2]})
pyarrow.parquet.write_table(table, "table.parquet")
with pyarrow.OSFile("mapped.arrow", "wb") as file, pyarrow.ipc.new_file(file, table.schema) as to:
    to.write_table(table)
""",
}

READING = {
    "safetensors": """
from safetensors.numpy import load_file
load_file("weights.safetensors")
""",
    "pyarrow": """
import pyarrow, pyarrow.parquet
pyarrow.parquet.read_table("table.parquet")
with pyarrow.memory_map("mapped.arrow") as file:
    pyarrow.ipc.open_file(file).read_all()
""",
}

TRAINING = """
import pathlib, subprocess
subprocess.run(["cat", "child.bin"], stdout=subprocess.DEVNULL, check=True)
pathlib.Path("declared.csv").read_text()
pathlib.Path("model").mkdir()
pathlib.Path("model/weights.bin").write_text("x")
"""


@pytest.mark.parametrize("mechanism", ["seccomp", "strace"])
@pytest.mark.parametrize("library", READING)
def test_what_a_library_and_a_child_read_is_found(
    tmp_path: Path, alice: Person, monkeypatch: pytest.MonkeyPatch, mechanism: str, library: str
) -> None:
    try:
        tracer.check(mechanism)
    except UnavailableError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    subprocess.run([PYTHON, "-c", WRITING[library]], check=True)
    expected = ["child.bin", *(path.name for path in Path().iterdir())]
    Path("child.bin").write_text("x")
    Path("declared.csv").write_text("x")
    Path("train.py").write_text(READING[library] + TRAINING)
    recorded = record(
        [PYTHON, "train.py"],
        model="model",
        key=alice.private,
        data={"train": "declared.csv"},
        trace=mechanism,
    )
    values = recorded.statement.build.internal_parameters.collectors["trace"].values
    assert values["undeclared"] == sorted(expected)
    assert values["unopened"] == {}
    assert values["lost"] == 0
