"""What ``--json`` prints fits its schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from provenance import cli
from tools.schemas import __main__ as schemas

if TYPE_CHECKING:
    from tests.report.conftest import World

SCHEMAS = {document.name: schemas.schema(document) for document in schemas.DOCUMENTS}


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:  # noqa: ANN401
    capsys.readouterr()
    assert cli.run([*arguments, "--json"]) == status
    output = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(SCHEMAS[f"{arguments[0]}-output"]).validate(output)
    return output


def test_verify(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    output = printed(capsys, "verify", str(world.model), f"--key={world.root / 'builder.pub'}")
    assert output["verified"] is True


def test_verify_of_a_model_signature_alone(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    key = f"--key={world.root / 'builder.pub'}"
    signature = f"--claims={world.model / 'model.sig'}"
    assert printed(capsys, "verify", str(world.model), key, signature)["recipe"] is None


def test_verify_refused(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    key = f"--key={world.root / 'second.pub'}"
    assert printed(capsys, "verify", str(world.model), key, status=1)["verified"] is False


def test_agree(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [f"--key={world.root / name}.pub" for name in ("builder", "second")]
    output = printed(capsys, "agree", str(world.model), str(world.rebuild), *keys)
    assert output["verdict"]["conclusion"] == "match"


def test_compare(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    equality = f"--equality={world.root / 'equality.toml'}"
    output = printed(capsys, "compare", str(world.model), str(world.rebuild), equality)
    assert output["outcome"]["strongest"] == "bytes"
    files = [str(world.model / f"{name}.safetensors") for name in ("initial", "model")]
    [compared] = printed(capsys, "compare", *files, status=1)["files"]
    assert compared["tensors"][0]["state"] == "changed"


def test_equality(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    listed = printed(capsys, "equality", "list")
    for each in listed["declarations"]:
        assert printed(capsys, "equality", "show", each["name"])["declaration"] == each
    checked = printed(
        capsys, "equality", "check", str(world.root / "equality.toml"), str(world.model)
    )
    assert [len(each["rules"]) for each in checked["selections"]] == [1, 2]


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "model/claims.jsonl",
        "model/provenance",
        "model/scaler.npz",
        "verdict.json",
        "statement.json",
        "equality.toml",
        "builder",
        "locked",
        "log.key.pub",
        "log",
        "log/checkpoint",
        "log/vkey",
        "log/.state/treeState",
        "log/tile/0/000.p/1",
        "log/tile/entries/000.p/1",
    ],
)
def test_show(world: World, capsys: pytest.CaptureFixture[str], name: str) -> None:
    output = printed(capsys, "show", str(world.root / name))
    assert output["verified"] is False
    assert output["path"] == str(world.root / name)


def test_show_of_byproducts(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (world.model / "provenance").iterdir():
        printed(capsys, "show", str(path))
