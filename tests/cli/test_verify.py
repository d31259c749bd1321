from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import provenance as api
from provenance.errors import ProvenanceError, UnreadableError
from provenance.folder.attach import Log, publish
from provenance.trust.verification import STEPS
from tests.world import (
    attest,
    make_log,
    make_person,
    refused,
    tree,
    vkey_text,
    write_files,
)

if TYPE_CHECKING:
    from tests.world import Person, Shell


def test_what_a_downloader_sees(model: Path, provenance: Shell, alice: Person) -> None:
    before = tree(model)
    ran = provenance("verify", model, "--key", alice.public)
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    for number, (name, line) in enumerate(zip(STEPS, lines, strict=False), 1):
        assert line.startswith(f"{'–' if name in STEPS[-2:] else '✓'} {number} {name}")
    assert "verified: model is what alice.pub attested." in lines
    assert f"  key id     {alice.key_id}" in lines
    assert lines[1].endswith("signed by alice.pub")
    assert "  command    python3 train.py --seed 0 --out '${model}'" in lines
    assert "  seeds      numpy=0" in lines
    assert tree(model) == before


def test_the_step_that_does_not_hold(model: Path, provenance: Shell, alice: Person) -> None:
    write_files(model, {"model.bin": b"x", "extra": b""})
    ran = provenance("verify", model, "--key", alice.public)
    refused(ran, 1, f"{model}: not the files that claims.jsonl states", "model.bin was changed")
    assert "✓ 4 subject" in ran.out
    assert "✗ 5 manifest" in ran.out
    assert "verified" not in ran.out


def test_many_differences_are_counted(model: Path, provenance: Shell, alice: Person) -> None:
    write_files(model, {f"extra{n}": b"" for n in range(9)})
    ran = provenance("verify", model, "--key", alice.public)
    refused(ran, 1, "extra0 is extra", "extra4 is extra, and 4 more")
    assert "extra5" not in ran.err


def test_without_a_key(model: Path, provenance: Shell) -> None:
    ran = provenance("verify", model)
    refused(ran, 2, "nothing is trusted by default", "--key")
    assert ran.out == ""


def test_keys_that_are_none(model: Path, tmp_path: Path, provenance: Shell, alice: Person) -> None:
    refused(provenance("verify", model, "--key", tmp_path / "none"), 3, "none: no such file")
    refused(provenance("verify", model, "--key", alice.private), 3, "private key", ".pub")
    refused(provenance("verify", model, "--key", model), 3, "is a folder")
    (tmp_path / "junk").write_text("junk")
    refused(provenance("verify", model, "--key", tmp_path / "junk"), 3, "not a public key")


def test_what_is_named_beside_the_model_is_no_step(
    model: Path, tmp_path: Path, provenance: Shell, alice: Person
) -> None:
    (tmp_path / "junk").write_text("junk")
    (tmp_path / "empty").mkdir()
    for option in ("--base", "--certificate-chain", "--trust-config", "--verdict"):
        more = ("--identity", "x", "--identity-provider", "y") if "trust" in option else ()
        for path in ("none", "junk", "empty"):
            ran = provenance("verify", model, "--key", alice.public, option, tmp_path / path, *more)
            refused(ran, 3, str(tmp_path / path))
            assert ran.out == ""


def test_keys_whose_files_have_one_name(
    model: Path, tmp_path: Path, provenance: Shell, alice: Person, bob: Person
) -> None:
    for who in (alice, bob):
        write_files(tmp_path / who.public.stem, {"k.pub": who.public.read_bytes()})
    keys = [tmp_path / who.public.stem / "k.pub" for who in (alice, bob)]
    ran = provenance("verify", model, "--key", keys[0], "--key", keys[1])
    assert f"bundles signed by {keys[0]}\n" in ran.out
    assert f"no bundle is signed by {keys[1]}\n" in ran.out


def test_another_key(model: Path, provenance: Shell, mallory: Person, alice: Person) -> None:
    refused(provenance("verify", model, "--key", mallory.public), 1, "signed by another key")
    ran = provenance("verify", model, "--key", mallory.public, "--key", alice.public)
    assert ran.status == 0


def test_the_documents(model: Path, provenance: Shell, alice: Person) -> None:
    good = provenance("verify", model, "--key", alice.public, "--json")
    assert good.status == 0
    assert good.document["verified"] is True
    assert good.document["model"] == str(model)
    assert good.document["equality"] == "bytes"
    assert good.document["logIndex"] is None
    assert good.document["recipe"]["seeds"] == {"numpy": "0"}
    assert [step["name"] for step in good.document["steps"]] == list(STEPS)
    write_files(model, {"model.bin": b"x"})
    bad = provenance("verify", model, "--key", alice.public, "--json")
    refused(bad, 1, "model.bin was changed")
    assert bad.document["verified"] is False
    assert bad.document["error"]["step"] == 5
    assert bad.document["error"]["where"] == str(model)
    assert len(bad.document["steps"]) == 4


def test_claims_from_elsewhere(
    model: Path, tmp_path: Path, provenance: Shell, alice: Person
) -> None:
    elsewhere = (model / "claims.jsonl").rename(tmp_path / "claims")
    (model / "model.sig").unlink()
    refused(provenance("verify", model, "--key", alice.public), 3, "--claims")
    ran = provenance("verify", model, "--key", alice.public, "--claims", elsewhere)
    assert ran.status == 0
    assert "1 bundle in claims" in ran.out
    refused(
        provenance("verify", model, "--key", alice.public, "--claims", tmp_path / "none"),
        3,
        "none: no such file",
    )


@pytest.mark.parametrize("form", ["text", "file"])
def test_a_log_key_as_text_or_file(
    form: str, model: Path, tmp_path: Path, provenance: Shell, alice: Person, larry: Person
) -> None:
    signer = make_log(tmp_path / "log", larry)
    publish(model, Log(tmp_path / "log", signer))
    given = tmp_path / "log" / "vkey" if form == "file" else vkey_text(signer.verifier)
    ran = provenance("verify", model, "--key", alice.public, "--log", given)
    assert ran.status == 0
    assert "✓ 8 log proof            entry 0 of example.org/log, proven offline" in ran.out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("none", "none: neither a file nor a log's key"),
        ("a+b", "not a log's key"),
        ("a+" + "0" * 300 + "+" + "A" * 5000, "the log's key"),
        ("KEY", "is a signing key, not a log's key (name the file 'vkey'"),
        (".", "is a folder"),
    ],
)
def test_log_keys_that_are_none(
    given: str, words: str, model: Path, provenance: Shell, alice: Person
) -> None:
    given = given.replace("KEY", str(alice.public))
    refused(provenance("verify", model, "--key", alice.public, "--log", given), 3, words)


# --- What is spelled out is that, whatever files lie about ----------------------------------------


def shadow(text: str, content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make *folder* the working folder, with *content* where *text* leads, as an archive can."""
    path = folder / text.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    monkeypatch.chdir(folder)


def test_a_log_key_is_never_looked_up_as_a_file(
    model: Path,
    tmp_path: Path,
    provenance: Shell,
    alice: Person,
    larry: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = vkey_text(make_log(tmp_path / "wanted", larry).verifier)
    evil = make_log(tmp_path / "evil", make_person(tmp_path, "keeper", "ed25519"))
    publish(model, Log(tmp_path / "evil", evil))
    texts = (wanted, f"{wanted}\n", f"{wanted[:-4]}AAAA", wanted.upper())
    for number, text in enumerate(texts):
        shadow(text, vkey_text(evil.verifier).encode(), tmp_path / str(number), monkeypatch)
        ran = provenance("verify", model, "--key", alice.public, "--log", text)
        assert ran.status in (1, 3), text
        ran = provenance("log", "audit", tmp_path / "evil", "--key", text)
        assert ran.status in (1, 3), text
        with pytest.raises(ProvenanceError):
            api.verify(model, keys=[alice.public], log=text)
    ran = provenance("verify", model, "--key", alice.public, "--log", tmp_path / "evil/vkey")
    assert ran.status == 0


def test_a_path_of_the_shape_of_a_log_key_is_a_file(
    model: Path, tmp_path: Path, alice: Person, larry: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    signer = make_log(tmp_path / "log", larry)
    publish(model, Log(tmp_path / "log", signer))
    text = vkey_text(signer.verifier)
    with pytest.raises(UnreadableError, match="no such file"):
        api.verify(model, keys=[alice.public], log=Path(text))
    shadow(text, text.encode(), tmp_path / "work", monkeypatch)
    assert api.verify(model, keys=[alice.public], log=Path(text)).log_index == 0


def test_a_key_id_is_never_looked_up_as_a_file(
    model: Path,
    tmp_path: Path,
    provenance: Shell,
    alice: Person,
    mallory: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    attest(model, mallory)
    (model / "model.sig").unlink()
    slashes = f"a//{'b' * 40}="
    texts = (alice.key_id, f"SHA256:{alice.key_id}", alice.key.public.pem_digest, slashes)
    for number, text in enumerate(texts):
        shadow(text, mallory.public.read_bytes(), tmp_path / str(number), monkeypatch)
        refused(provenance("verify", model, "--key", text), 3, "is a key id")


def test_stripping_the_claims_is_another_answer(
    model: Path, provenance: Shell, alice: Person
) -> None:
    whole = provenance("verify", model, "--key", alice.public).out.splitlines()
    (model / "claims.jsonl").unlink()
    stripped = provenance("verify", model, "--key", alice.public).out.splitlines()
    ticked = [[line[:30] for line in lines if line.startswith("✓")] for lines in (whole, stripped)]
    assert [line.split()[1] for line in ticked[0]] == ["1", "2", "3", "4", "5", "6", "7"]
    assert [line.split()[1] for line in ticked[1]] == ["1", "2", "3", "4", "5"]
    assert "– 6 outcome              not stated" in "\n".join(stripped)
    assert not any(line.startswith("verified") for line in stripped)
    assert whole[-1] == "  level      recorded (as alice.pub says)"
    assert stripped[-1] == "  level      signed (as alice.pub says)"
    document = provenance("verify", model, "--key", alice.public, "--json").document
    assert document["levels"] == [{"signer": alice.key_id, "level": "signed", "kind": "key"}]
    assert document["recipe"] is document["environment"] is document["run"] is None
