"""No control or bidirectional character of any name reaches a terminal, whatever the verb."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from provenance.statement.training import Input, ProgramFile, Source
from provenance.transparency import note
from tests.world import RECIPE, attach, attest, declared, make_person, state, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Ran, Shell

EVIL = "x\x1b[31m\x07\x9b2K\u202e\u2066\u200f\u2028\r\n✓ 9 forged"
"""A name that colours, rings, deletes, turns the direction of writing, and forges a line."""


def clean(ran: Ran) -> Ran:
    """Return *ran* if all that it wrote is printable: a name of two lines would make two."""
    for line in (ran.out + ran.err).split("\n"):
        assert line.isprintable(), ascii(line)
        assert not line.startswith("✓ 9 forged"), line
    assert "Traceback" not in ran.err
    assert "a defect" not in ran.err
    return ran


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which everything that a name can be given to has this one."""
    folder = tmp_path / EVIL
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["keygen", "new/{}"],
        ["sign", "{}", "--key", "{}"],
        ["attest", "{}", "--key", "{}"],
        ["attest", "model", "--key", "alice", "--data", "{}"],
        ["attest", "model", "--key", "alice", "--data", "{}="],
        ["attest", "model", "--key", "alice", "--config", "{}"],
        ["attest", "model", "--key", "alice", "--base-model", "{}"],
        ["attest", "model", "--key", "alice", "--equality", "{}"],
        ["attest", "model", "--key", "alice", "--equality", "./{}"],
        ["attest", "model", "--key", "alice", "--seed", "{}"],
        ["attest", "model", "--key", "alice", "--seed", "{}=1"],
        ["attest", "model", "--key", "alice", "--log", "{}"],
        ["attest", "model", "--key", "alice", "--password-env", "{}"],
        ["record", "--model", "{}", "--key", "alice", "--", "true"],
        ["record", "--model", "model", "--key", "alice", "--", "{}"],
        ["record", "--model", "model", "--key", "alice", "--", "./{}.py"],
        ["verify", "{}", "--key", "alice.pub"],
        ["verify", "model", "--key", "{}"],
        ["verify", "model", "--key", "alice.pub", "--claims", "{}"],
        ["verify", "model", "--key", "alice.pub", "--log", "{}"],
        ["verify", "model", "--key", "alice.pub", "--log", "{}+00000000+AAAA"],
        ["compare", "{}", "model"],
        ["compare", "model", "model", "--equality", "{}"],
        ["agree", "{}", "model", "--key", "alice.pub"],
        ["agree", "model", "model", "--key", "alice.pub", "--sign-with", "{}", "--out", "x"],
        ["agree", "model", "model", "--key", "alice.pub", "--quorum", "{}"],
        ["publish", "{}", "--log", "{}"],
        ["publish", "model", "--log", "{}"],
        ["log", "init", "{}", "--origin", "{}", "--key", "alice"],
        ["log", "init", "log", "--origin", "{}", "--key", "larry"],
        ["log", "audit", "{}", "--key", "{}"],
        ["log", "{}"],
        ["equality", "show", "{}"],
        ["equality", "check", "{}"],
        ["equality", "check", "bytes", "{}"],
        ["show", "{}"],
        ["demo", "--folder", "model", "{}"],
        ["{}"],
        ["--{}"],
        ["verify", "--{}"],
    ],
    ids=" ".join,
)
def test_an_argument(arguments: list[str], place: Path, provenance: Shell) -> None:
    make_person(place, "larry", "ed25519")
    attest(write_files(place / "model"), make_person(place, "alice"))
    for debug in ((), ("--debug",)):
        ran = provenance(*debug, *(word.replace("{}", EVIL) for word in arguments))
        assert ran.status != 0
        if not debug:
            clean(ran)
        assert all(line.isprintable() for line in (ran.out + ran.err).split("\n"))


def test_names_of_what_is_there(place: Path, provenance: Shell) -> None:
    """Keys, data, programs, models, logs and declarations, all of this name, and all accepted."""
    person = make_person(place, EVIL)
    keeper = make_person(place, f"{EVIL}-log", "ed25519")
    (place / f"{EVIL}.csv").write_text("1\n")
    (place / f"{EVIL}.py").write_text(
        "import os; os.mkdir('model'); open('model/w', 'w').write('1')"
    )
    (place / f"{EVIL}.toml").write_text(
        'format = 1\nname = "x"\nversion = 1\n[[any]]\n[[any.all]]\nequality = "bytes"\n'
    )
    made = clean(provenance("keygen", f"{EVIL}-new"))
    assert made.status == 0
    log = clean(provenance("log", "init", EVIL + "-l", "--origin", "l", "--key", keeper.private))
    assert log.status == 0
    stated = ("--key", person.private, "--data", f"./{EVIL}.csv", "--equality", f"./{EVIL}.toml")
    command = ("--", sys.executable, f"./{EVIL}.py")
    recorded = clean(provenance("record", "--model", "model", *stated, *command))
    assert recorded.status in (0, 125)
    (place / "model").mkdir(exist_ok=True)
    (place / "model/w").write_text("1")
    attest(place / "model", person, equality=declared("bytes"))
    model = f"{EVIL}-model"
    shutil.copytree(place / "model", place / model)
    for arguments in (
        ("sign", model, "--key", person.private),
        ("verify", model, "--key", person.public),
        ("compare", model, "model"),
        ("equality", "check", f"./{EVIL}.toml", model),
        ("publish", "model", "--log", EVIL + "-l"),
        ("verify", "model", "--key", person.public, "--log", f"{EVIL}-l/vkey"),
        ("log", "audit", EVIL + "-l", "--key", f"{EVIL}-l/vkey"),
        ("show", model),
        ("show", f"{EVIL}.toml"),
        ("show", f"{EVIL}-l"),
        ("show", person.private),
        ("show", person.public),
        ("agree", "model", model, "--key", person.public),
    ):
        ran = clean(provenance(*arguments))
        assert ran.status in (0, 1, 2, 3), ran
        where = 2 if arguments[0] in ("equality", "log") else 1
        clean(provenance(*arguments[:where], "--json", *arguments[where:]))


def test_names_inside_a_signed_claim(tmp_path: Path, provenance: Shell) -> None:
    """What a signer states of a model, a program, data and seeds is the signer's choice."""
    person = make_person(tmp_path, "alice")
    model = write_files(tmp_path / "model")
    recipe = msgspec.structs.replace(
        RECIPE,
        command=("python3", EVIL),
        source=Source(
            files=(ProgramFile("train.py", "11" * 32),), uri=f"https://example.org/{EVIL}"
        ),
        data=(Input("train", {"sha256": "22" * 32}, "33" * 32, 1, 10, EVIL),),
    )
    attach(model, state(model, recipe=recipe, environment={"A": EVIL, EVIL: "1"}), person)
    for arguments in (
        ("verify", model, "--key", person.public),
        ("show", model),
        ("agree", model, model, "--key", person.public),
    ):
        clean(provenance(*arguments))
        clean(provenance(arguments[0], "--json", *arguments[1:]))


def test_the_name_of_a_log_in_a_proof(tmp_path: Path, provenance: Shell) -> None:
    person = make_person(tmp_path, "alice")
    keeper = make_person(tmp_path, "larry", "ed25519")
    model = attest(write_files(tmp_path / "model"), person)
    name = "l\u202eog\x1b[31m"
    (tmp_path / "vkey").write_text(
        f"{note.format_vkey(note.signer_key('log', keeper.key).verifier).replace('log', name)}\n"
    )
    arguments = ("verify", model, "--key", person.public, "--log", tmp_path / "vkey")
    assert clean(provenance(*arguments)).status != 0
    assert clean(provenance("show", tmp_path / "vkey")).status in (0, 3)
