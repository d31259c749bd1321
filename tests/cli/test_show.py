"""``provenance show``: what it prints, and its exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from provenance import cli
from provenance.report.explain import NOT_VERIFIED

EXAMPLES = Path(__file__).parent.parent.parent / "schemas/examples/valid"

LOADED = """
import sys
from provenance import cli
cli.run(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "name",
    ["bundle/claim.json", "training-statement/recorded.json", "equality/close.toml"],
)
def test_it_says_first_and_last_that_nothing_is_verified(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert cli.run(["show", str(EXAMPLES / name)]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.endswith("(not verified)")
    assert last == NOT_VERIFIED
    assert last.startswith("not verified")


def test_json_says_that_nothing_is_verified(capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / "bundle/claim.json"
    assert cli.run(["show", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verified"] is False
    assert document["kind"] == "bundles"
    statement = document["content"]["bundles"][0]["statement"]
    assert statement["subject"][0]["name"] == "digits"


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_not_understood_is_shown_and_refused(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    path = EXAMPLES.parent / "invalid/training-statement/unknown-external-parameter.json"
    assert cli.run(["show", str(path), *(["--json"] if as_json else [])]) == 3
    output = capsys.readouterr()
    assert "learningRate" in output.out
    assert output.err.startswith(f"provenance: {path}: ")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("name", ["none", "empty", "folder"])
def test_what_cannot_be_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    assert cli.run(["show", str(tmp_path / name)]) == 3
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"provenance: {tmp_path / name}: ")
    assert output.err.count("\n") == 1


def test_it_needs_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["show"]) == 2
    assert "PATH" in capsys.readouterr().err


def test_claims_are_shown_without_numpy_and_rich() -> None:
    result = subprocess.run(
        [sys.executable, "-c", LOADED, "show", str(EXAMPLES / "bundle/claim.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"numpy", "rich", "ml_dtypes"} & set(result.stderr.split())
