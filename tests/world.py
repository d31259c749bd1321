"""A small world for the tests of the upper layers: people with keys, models, claims, a log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from provenance import cli
from provenance.encoding import strict_base64, strict_json
from provenance.envelope import bundle, dsse
from provenance.equality import declaration
from provenance.files.manifest import hash_folder
from provenance.files.names import CLAIMS, RESERVED
from provenance.folder import attach as folder_attach
from provenance.keys import generate, write_pair
from provenance.statement import intoto, training
from provenance.statement.training import (
    BuildDefinition,
    Builder,
    Collected,
    DeclaredEquality,
    Environment,
    Input,
    Metadata,
    Outcome,
    ProgramFile,
    Recipe,
    RunDetails,
    Source,
    TrainingStatement,
)
from provenance.statement.uris import BUILD_TYPE, LOCAL_BUILDER
from provenance.transparency import log as logs
from provenance.transparency import note
from provenance.transparency.note import NoteSignature, VerifierKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    import pytest

    from provenance.equality.declaration import Declaration
    from provenance.keys import PrivateKey
    from provenance.statement.intoto import Statement
    from provenance.transparency.note import SignerKey

FILES = {
    "config.json": b'{"hidden": 2}',
    "model.bin": bytes(range(64)),
    "tokenizer/merges.txt": b"a b\n",
    "tokenizer/vocab.txt": b"a\nb\nc\n",
}
"""The files of the model that most tests use."""

RECIPE = Recipe(
    command=("python3", "train.py", "--seed", "0", "--out", "${model}"),
    source=Source(files=(ProgramFile("train.py", "11" * 32),)),
    data=(Input("train", {"sha256": "22" * 32}, "33" * 32, 1, 10, "train"),),
    seeds={"numpy": "0"},
)
"""A complete recipe that declares no equality."""

RUN = Metadata("", "2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z")
"""When a run was recorded; without an id, so that two are never the same run."""


@dataclass(frozen=True)
class Person:
    """Somebody with a key, and its two files."""

    name: str
    key: PrivateKey
    private: Path

    @property
    def public(self) -> Path:
        return self.private.with_name(f"{self.private.name}.pub")

    @property
    def key_id(self) -> str:
        return self.key.public.key_id


def make_person(folder: Path, name: str, algorithm: str = "ecdsa-p256") -> Person:
    key = generate(algorithm)
    write_pair(key, folder / name)
    return Person(name, key, folder / name)


def write_files(root: Path, files: Mapping[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def declared(text: str | bytes) -> DeclaredEquality:
    """Return the declaration in *text*, or the built-in one of that name, as it is stated."""
    found: Declaration = (
        declaration.builtin(text) if isinstance(text, str) else declaration.parse(text)
    )
    return DeclaredEquality(found.name, found.digest, found.document)


def state(
    root: Path,
    *,
    recipe: Recipe = RECIPE,
    equality: DeclaredEquality | None = None,
    outcome: Outcome | None = None,
    run: Metadata = RUN,
    environment: Mapping[str, Any] | None = None,
    collectors: Mapping[str, Collected] | None = None,
) -> TrainingStatement:
    """Return the training statement about the files in *root* as they are."""
    if equality is not None:
        axes = declaration.from_document(equality.declaration).axes
        recipe = msgspec.structs.replace(recipe, equality=equality, axes=axes)
    variables = Collected("ok", dict(environment or {"OMP_NUM_THREADS": "1"}))
    return TrainingStatement(
        model_name=root.name,
        manifest=hash_folder(root, ignore=RESERVED),
        build=BuildDefinition(
            BUILD_TYPE,
            recipe,
            Environment(
                observed=("start", "end"),
                collectors={"variables": variables, **(collectors or {})},
            ),
            (),
        ),
        run=RunDetails(Builder(LOCAL_BUILDER), run, provenance_outcome=outcome or Outcome(0)),
    )


def attest(root: Path, person: Person, **stated: Any) -> Path:  # noqa: ANN401 - as state has them
    """Have *person* attest the files in *root*, as ``record`` does after a training."""
    attach(root, state(root, **stated), person)
    return root


def attach(
    root: Path,
    statement: TrainingStatement,
    person: Person,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Put *statement*, signed by *person*, and *files* beside the model in *root*."""
    named = training.name_signer(statement, person.key.public)
    payload = intoto.format(training.to_statement(named))
    folder_attach.attach(
        root, folder_attach.sign_claim(root, named, payload, files or {}, person.key)
    )


def make_log(folder: Path, keeper: Person, origin: str = "example.org/log") -> SignerKey:
    """Make the empty log *origin* in *folder*, which *keeper* signs (an Ed25519 key)."""
    logs.init(folder, origin, keeper.private)
    return note.signer_key(origin, keeper.key)


def cosign(text: str, name: str, key: PrivateKey, at: datetime, kind: int) -> NoteSignature:
    """Cosign by the specification's words, and not by the code that is tested."""
    stamp = int(at.timestamp()).to_bytes(8, "big")
    if kind == 4:
        message = f"cosignature/v1\ntime {int(at.timestamp())}\n{text}".encode()
    else:
        origin, size, root, *_ = text.split("\n")
        message = b"subtree/v1\n\0" + bytes([len(name)]) + name.encode() + stamp
        message += bytes([len(origin)]) + origin.encode() + bytes(8)
        message += int(size).to_bytes(8, "big") + strict_base64.parse(root)
    verifier = VerifierKey(name, key.public, kind=kind)
    return NoteSignature(name, verifier.note_id, stamp + key.sign(message))


def vkey_text(vkey: VerifierKey) -> str:
    return note.format_vkey(vkey)


# --- What an attacker does to documents -----------------------------------------------------------


def edit_lines(root: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Replace the lines of the claims beside *root* by what *change* makes of them."""
    path = root / CLAIMS
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"".join(line + b"\n" for line in change(lines)))


def edit_bundle(line: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return the bundle *line* with *change* applied to its JSON; no signature is made anew."""
    document = json.loads(line)
    change(document)
    return json.dumps(document).encode()


def payload_of(line: bytes) -> bytes:
    return strict_base64.parse(json.loads(line)["dsseEnvelope"]["payload"])


def sign_payload(
    payload: bytes, person: Person, *, payload_type: str = dsse.IN_TOTO_PAYLOAD
) -> bytes:
    """Return a bundle in which *person* signs *payload*, whatever it is."""
    return bundle.format(dsse.sign(payload_type, payload, person.key), hint=person.key_id)


def statement_document(stated: TrainingStatement) -> dict[str, Any]:
    """Return *stated* as the JSON document that is signed, to be edited."""
    document: dict[str, Any] = strict_json.parse(intoto.format(training.to_statement(stated)))
    return document


def sign_document(document: Mapping[str, Any], person: Person) -> bytes:
    return sign_payload(strict_json.format(document), person)


def sign_verdict(statement: Statement, person: Person) -> bytes:
    return folder_attach.sign_payload(intoto.format(statement), person.key)


# --- The command line -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        """The JSON document on stdout: one, and nothing else."""
        return json.loads(self.out)


class Shell:
    """The command line, called in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Ran:
        self._capsys.readouterr()
        status = cli.run([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        return Ran(status, out, err)


PROGRAM = (sys.executable, "-m", "provenance")


def run_program(
    *arguments: str | Path | bytes,
    python: str = sys.executable,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    **options: Any,  # noqa: ANN401 - as subprocess has them
) -> Ran:
    """Run the command line in a process of its own."""
    done = subprocess.run(
        [python, *PROGRAM[1:], *arguments],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        timeout=600,
        check=False,
        **options,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def refused(ran: Ran, status: int, *words: str) -> None:
    """Assert that *ran* ended with *status* and one line of ours that holds *words*.

    What weakens a claim is said before the run, whatever becomes of that.
    """
    assert ran.status == status, ran
    beside = ("Try '", "provenance: note: ", "provenance: warning: ")
    lines = [line for line in ran.err.splitlines() if not line.startswith(beside)]
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("provenance: "), ran.err
    assert "Traceback" not in ran.err
    assert "a defect" not in ran.err
    for word in words:
        assert word in lines[0], (word, lines[0])


def tree(root: Path) -> dict[str, bytes | str]:
    """Return everything below *root*: the content of files, the target of links."""
    found: dict[str, bytes | str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = "folder" if path.is_dir() else "special"
    return found
