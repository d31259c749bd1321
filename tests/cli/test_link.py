"""in-toto links of ``record`` and ``attest``, and what in-toto's own tool says of them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.chains import layout, name_of, put, signed, step
from tests.world import make_person, refused, tree, write_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.world import Person, Ran, Shell

TRAIN = "mkdir -p model && cat data/*.csv >model/weights.bin"


def payload(path: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))


def in_toto_verify(layout: Path, owner: Person, links: Path, folder: Path) -> tuple[int, str]:
    """Run the real tool in *folder*."""
    tool = Path(sys.executable).with_name("in-toto-verify")
    options = ("-l", layout, "--verification-keys", owner.public, "--link-dir", links)
    command = [str(it) for it in (tool, *options)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def data(work: Path) -> Path:
    return write_files(work / "data", {"a.csv": b"1\n", "b.csv": b"2\n"})


def test_what_a_link_says(
    data: Path, record: Callable[..., Ran], alice: Person, provenance: Shell
) -> None:
    put(Path("train.sh"), b"mkdir -p model && cat data/*.csv >model/weights.bin\n")
    options = ("--model", "model", "--key", alice.private, "--data", f"train={data}")
    ran = provenance("record", *options, "--link", "train", "--", "sh", "train.sh")
    assert ran.status == 0
    path = Path("model/provenance", f"{name_of('train', alice)}.link")
    assert f"written  {path}" in ran.err
    said = payload(path)
    products, materials = said.pop("products"), said.pop("materials")
    assert said == {
        "_type": "link",
        "byproducts": {"return-value": 0},
        "command": ["sh", "train.sh"],
        "environment": {},
        "name": "train",
    }
    shown = provenance("show", path)
    assert (shown.status, shown.err) == (0, "")
    assert "in-toto link of a step" in shown.out
    rows = {"name": "train", "command": "sh train.sh", "materials": "3", "products": "1"}
    rows["byproducts"] = "return-value=0"
    for label, text in rows.items():
        assert f"  {label:<12} {text}\n" in shown.out
    assert f"signed by    {name_of('train', alice).partition('.')[2]}" in shown.out
    shown = provenance("show", path, "--json").document
    assert (shown["kind"], shown["content"]["link"]) == (
        "link", {**said, "products": products, "materials": materials}
    )  # fmt: skip
    assert set(products) == {"weights.bin"}
    assert set(materials) == {"code/train.sh", "data:train/a.csv", "data:train/b.csv"}
    assert all(len(it["sha256"]) == 64 for it in (*materials.values(), *products.values()))
    assert provenance("verify", "model", "--key", alice.public).status == 0
    assert record is not None


def test_the_code_of_a_repository(work: Path, alice: Person, provenance: Shell) -> None:
    put(work / "train.sh", b"mkdir -p out/model && echo 1 >out/model/w\n")
    put(work / ".gitignore", b"out\n")
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm x"):
        subprocess.run(["git", *command.split()], check=True)
    options = ("--model", "out/model", "--key", alice.private, "--link", "train")
    assert provenance("record", *options, "--", "sh", "train.sh").status == 0
    said = payload(next(Path("out/model/provenance").glob("*.link")))
    tree_id = subprocess.check_output(["git", "rev-parse", "HEAD^{tree}"], text=True).strip()
    assert said["materials"]["source"] == {"gitTree": tree_id}


def test_two_of_two_rebuilders(
    data: Path, alice: Person, bob: Person, larry: Person, provenance: Shell
) -> None:
    """The real tool takes a layout that asks for the links of both."""
    links = Path("links")
    for person in (alice, bob):
        model = f"of-{person.name}"
        script = f"mkdir {model} && cat data/*.csv >{model}/weights.bin"
        options = ("--model", model, "--key", person.private, "--data", f"train={data}")
        ran = provenance("record", *options, "--link", "train", "--", "sh", "-c", script)
        assert ran.status == 0
        link = Path(model, "provenance", f"{name_of('train', person)}.link")
        put(links / link.name, link.read_bytes())
    rules = {
        "expected_materials": [["ALLOW", "data:train/*"], ["DISALLOW", "*"]],
        "expected_products": [["CREATE", "weights.bin"], ["DISALLOW", "*"]],
    }
    both = layout((alice, bob), step("train", alice, bob, threshold=2, **rules))
    path = put(Path("root.layout"), signed(both, larry))
    empty = Path("empty")
    empty.mkdir()
    arguments = (path.absolute(), larry, links.absolute(), empty)
    assert in_toto_verify(*arguments)[0] == 0
    asked = ("verify", "of-bob", "--key", bob.public, "--layout", path, "--layout-key")
    ran = provenance(*asked, larry.public, "--links", links)
    assert ran.status == 0
    assert "✓ 11 links               2 links for 1 step" in ran.out
    assert "✓ 12 products" in ran.out

    next(links.glob(f"{name_of('train', bob)}*")).unlink()
    assert in_toto_verify(*arguments)[0] == 1
    refused(provenance(*asked, larry.public, "--links", links), 1, "LinkNotFoundError", "train")


def test_the_layout_of_the_page(work: Path, provenance: Shell) -> None:
    """The example makes one that takes both links, in the real tool and here."""
    page = Path(__file__).parents[2].joinpath("docs/spec/verification.md").read_text("utf-8")
    section = page.partition("## in-toto layouts")[2]
    program = section.partition("```python\n")[2].partition("```")[0]
    people = {name: make_person(work, name) for name in ("alice", "bob", "owner")}
    exec(program, {})  # noqa: S102 - our own page
    model = write_files(work / "model")
    for name in ("alice", "bob"):
        ran = provenance("attest", model, "--key", people[name].private, "--link", "train")
        assert ran.status == 0
    layout = work / "root.layout"
    links = model / "provenance"
    assert in_toto_verify(layout, people["owner"], links, work) == (0, "")
    asked = ("verify", model, "--key", people["bob"].public, "--layout", layout)
    ran = provenance(*asked, "--layout-key", people["owner"].public)
    assert "✓ 12 products" in ran.out


def test_no_secret_in_a_link(record: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "opaque-value-1")
    script = 'mkdir model && echo 1 >model/w # --password hunter2hunter2 --hub-token "$MY_TOKEN"'
    assert record(f"{script} opaque-value-1", "--link", "train").status == 0
    said = json.dumps(payload(next(Path("model/provenance").glob("*.link"))))
    assert "hunter2" not in said
    assert "opaque-value" not in said
    assert "${redacted:" in said


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_keys_that_the_real_tool_takes(
    work: Path, tmp_path: Path, algorithm: str, larry: Person, provenance: Shell
) -> None:
    person = make_person(tmp_path, "worker", algorithm)
    model = write_files(work / "model")
    assert provenance("attest", model, "--key", person.private, "--link", "train").status == 0
    path = put(work / "root.layout", signed(layout((person,), step("train", person)), larry))
    assert in_toto_verify(path, larry, model / "provenance", tmp_path)[0] == 0


def test_refused_before_the_run(work: Path, tmp_path: Path, provenance: Shell) -> None:
    person = make_person(tmp_path, "worker", "ml-dsa-65")
    options = ("--model", "model", "--key", person.private, "--link")
    command = ("--", "touch", "ran")
    refused(provenance("record", *options, "train", *command), 125, "ml-dsa-65", "ecdsa-p256")
    for name in ("a/b", "../x", ".x", "", "a b", "a\n", "x" * 101):
        ran = provenance("record", *options, name, *command)
        refused(ran, 125, "not the name of a step")
    assert not (work / "ran").exists()


def test_no_link_of_a_run_that_failed(record: Callable[..., Ran]) -> None:
    assert record("mkdir model && echo 1 >model/w; exit 3", "--link", "train").status == 3
    assert Path("model/claims.jsonl").exists()
    assert not list(Path("model").rglob("*.link"))


def test_a_run_that_is_finished_later_has_its_link(
    record: Callable[..., Ran], runs: Path, provenance: Shell
) -> None:
    failing = "mkdir model && echo 1 >model/w && mkdir model/claims.jsonl"
    assert record(failing, "--link", "train").status != 0
    assert not list(Path("model").rglob("*.link"))
    Path("model/claims.jsonl").rmdir()
    run = next(path for path in runs.rglob("plan.json"))
    assert provenance("record", "--finish", run.parent).status == 0
    assert payload(next(Path("model/provenance").glob("*.link")))["name"] == "train"


def test_a_dry_run_writes_none(work: Path, provenance: Shell, alice: Person) -> None:
    model = write_files(work / "model")
    before = tree(model)
    ran = provenance("attest", model, "--key", alice.private, "--link", "train", "--dry-run")
    assert ran.status == 0
    assert "an in-toto link" in ran.err
    assert tree(model) == before
