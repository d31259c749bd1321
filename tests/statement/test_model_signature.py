from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import provenance
from provenance.envelope import bundle
from provenance.errors import ContentError, MalformedError, SignatureError
from provenance.files.manifest import hash_folder, root_digest
from provenance.files.names import MODEL_SIGNATURE, RESERVED
from provenance.folder import attach, claims
from provenance.keys import generate, load_public, write_pair
from provenance.statement import intoto, model_signature
from provenance.statement.intoto import Statement, Subject

from .examples import MISSING, MODEL, altered, manifest, sha256

VECTORS = Path(__file__).parents[1] / "vectors/openssf-model-signing"
CERTIFICATES = VECTORS / "keys/certificate"
KEY_OF_VECTORS = CERTIFICATES / "signing-key-pub.pem"

STATEMENT = intoto.parse(intoto.format(model_signature.to_statement("digits", MODEL)))

FILE = "resources.0"

REFUSED: dict[str, tuple[str, object, str]] = {
    "no resources": ("resources", MISSING, "resources"),
    "an empty list": ("resources", [], "the subject is not the digest of the resources"),
    "no serialization": ("serialization", MISSING, "serialization"),
    "no known method": ("serialization.method", "tensors", "signed by tensors with sha256"),
    "another algorithm than its files": ("serialization.hash_type", "blake2b", "'sha256', not bl"),
    "no algorithm": (f"{FILE}.algorithm", MISSING, "algorithm"),
    "a digest that is short": (f"{FILE}.digest", "ab", "not a sha256 digest"),
    "a digest that is a map": (f"{FILE}.digest", {"sha256": "ab" * 32}, "digest"),
    "a digest of another file": (f"{FILE}.digest", sha256(b"x"), "the subject is not the digest"),
    "a name with NUL": (f"{FILE}.name", "a\0b", "control character"),
    "the folder itself": (f"{FILE}.name", ".", "empty part or '.'"),
    "the folder itself as a part": (f"{FILE}.name", "a/./b", "empty part or '.'"),
}


def test_round_trip() -> None:
    found = model_signature.from_statement(STATEMENT)
    assert found.model_name == "digits"
    assert found.root_digest == MODEL.root_digest
    assert found.files == {entry.name: entry.sha256 for entry in MODEL.entries}
    assert set(found.ignored) == {name.rstrip("/") for name in RESERVED}


@pytest.mark.parametrize(("path", "value", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(path: str, value: object, message: str) -> None:
    with pytest.raises(MalformedError, match=message) as caught:
        model_signature.from_statement(altered(STATEMENT, path, value), where="model.sig")
    assert caught.value.where == "model.sig"


def test_another_statement_is_refused() -> None:
    statement = Statement(STATEMENT.subject, "https://model_signing/Digests/v0.1", {})
    with pytest.raises(MalformedError, match="not a model signature"):
        model_signature.from_statement(statement)


@pytest.mark.parametrize(
    "subject",
    [
        STATEMENT.subject * 2,
        (Subject({"sha256": "00" * 32}, "digits"),),
        (Subject({"sha512": "00" * 64}, "digits"),),
    ],
    ids=["two", "another", "by another algorithm"],
)
def test_the_subject_is_the_root_digest_alone(subject: tuple[Subject, ...]) -> None:
    statement = Statement(subject, STATEMENT.predicate_type, STATEMENT.predicate)
    with pytest.raises(MalformedError, match="subject"):
        model_signature.from_statement(statement)


@pytest.mark.parametrize(
    "names", [["sub/tok.txt", "sub-x.txt"], ["sub-x.txt", "sub/tok.txt"]], ids=["tool", "text"]
)
def test_both_orders_are_read(names: list[str]) -> None:
    # By path components, as the reference tool has it, and by code points, as its specification.
    digests = {"sub/tok.txt": sha256(b"t"), "sub-x.txt": sha256(b"x")}
    resources = [{"name": n, "algorithm": "sha256", "digest": digests[n]} for n in names]
    statement = Statement(
        (Subject({"sha256": root_digest(digests[name] for name in names)}, "m"),),
        STATEMENT.predicate_type,
        {"resources": resources, "serialization": {"method": "files", "hash_type": "sha256"}},
    )
    assert model_signature.from_statement(statement).files == digests


def test_a_folder_signed_from_within_has_no_name() -> None:
    """As model-signing 1.0 signs ``.``: protobuf leaves out an empty text."""
    document = json.loads(intoto.format(STATEMENT))
    del document["subject"][0]["name"]
    found = model_signature.from_statement(intoto.from_document(document))
    assert found.model_name == model_signature.NAMELESS


def test_resources_reordered_after_signing_are_refused() -> None:
    reordered = list(reversed(STATEMENT.predicate["resources"]))
    with pytest.raises(MalformedError, match="the subject is not the digest"):
        model_signature.from_statement(altered(STATEMENT, "resources", reordered))


# --- What the reference tool made -----------------------------------------------------------------


@pytest.mark.parametrize("case", ["v1.0.1-certificate", "v1.1.0-certificate"])
def test_signatures_by_certificate_need_their_root(case: str, tmp_path: Path) -> None:
    root, key = CERTIFICATES / "ca-cert.pem", CERTIFICATES / "signing-key-pub.pem"
    ignored = [VECTORS / case / "ignore-me"]
    verify = partial(provenance.verify, VECTORS / case, ignore_paths=ignored)
    found = verify(certificate_chain=[root])
    assert [word.signer for word in found.levels] == ["CN=intermediate-ca"]
    assert found.not_covered == {"ignore-me": 1}
    with pytest.raises(SignatureError, match="no authority is trusted"):
        verify(keys=[key])
    with pytest.raises(MalformedError, match="holds no root"):
        verify(certificate_chain=[CERTIFICATES / "int-ca-cert.pem"])
    with pytest.raises(MalformedError, match="is a certificate, not a key"):
        verify(keys=[root])
    shutil.copytree(VECTORS / case, tmp_path / case)
    (tmp_path / case / "signme-1").write_bytes(b"x")
    with pytest.raises(ContentError, match="signme-1 was changed"):
        provenance.verify(tmp_path / case, certificate_chain=[root], ignore_paths=["ignore-me"])


def test_what_a_loader_opens_is_not_ignored(tmp_path: Path) -> None:
    case = tmp_path / "v1.1.0-certificate"
    shutil.copytree(VECTORS / case.name, case)
    (case / "model.safetensors").write_bytes(b"x")
    root = CERTIFICATES / "ca-cert.pem"
    with pytest.raises(ContentError, match=r"model\.safetensors"):
        provenance.verify(case, certificate_chain=[root], ignore_paths=["model.safetensors"])


def test_keyless_signatures_are_refused_with_a_reason() -> None:
    (item,) = claims.read_bundles(VECTORS / "v1.1.0-sigstore" / MODEL_SIGNATURE)
    with pytest.raises(SignatureError, match="signed by an identity"):
        bundle.open_bundle(item, [load_public(KEY_OF_VECTORS)])


# --- The reference tool itself --------------------------------------------------------------------

PEER = os.environ.get("PROVENANCE_PEER", "")

needs_peer = pytest.mark.skipif(not PEER, reason="PROVENANCE_PEER does not name model_signing")


def peer(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [PEER, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    files = {
        "config.json": b"{}",
        "sub/tok.txt": b"t",
        "sub-x.txt": b"x",
        "w ä.bin": b"",
        "w": b"w",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@needs_peer
def test_the_reference_tool_verifies_what_we_sign(model: Path, tmp_path: Path) -> None:
    key = generate()
    public = write_pair(key, tmp_path / "key")
    found = hash_folder(model, ignore=RESERVED)
    (model / "provenance").mkdir()
    (model / "provenance" / sha256(b"log")).write_bytes(b"log")  # left out, as the signature says
    assert attach.sign(model, key)[0] == found
    arguments = ("verify", "key", model, "--signature", model / MODEL_SIGNATURE)
    accepted = peer(*arguments, "--public_key", public)
    assert accepted.returncode == 0, accepted.stderr
    refused = peer(*arguments, "--public_key", write_pair(generate(), tmp_path / "other"))
    assert refused.returncode != 0
    (model / "w").write_bytes(b"W")
    assert peer(*arguments, "--public_key", public).returncode != 0


@needs_peer
def test_we_verify_what_the_reference_tool_signs(model: Path, tmp_path: Path) -> None:
    key = generate()
    write_pair(key, tmp_path / "key")
    signature = model / MODEL_SIGNATURE
    signed = peer("sign", "key", model, "--private_key", tmp_path / "key", "--signature", signature)
    assert signed.returncode == 0, signed.stderr
    (item,) = claims.read_bundles(signature)
    opened = bundle.open_bundle(item, [key.public])
    found = model_signature.from_statement(intoto.from_opened(opened))
    ours = hash_folder(model, ignore=RESERVED)
    assert found.files == {entry.name: entry.sha256 for entry in ours.entries}
    assert found.root_digest == ours.root_digest


def test_our_root_digest_is_the_reference_tools(tmp_path: Path) -> None:
    # Its version 1.1.1 gave this for these files, whose order differs by the two rules.
    resources: dict[str, Any] = {"sub/tok.txt": b"t", "sub-x.txt": b"x"}
    raw = bytes.fromhex(sha256(b"t")) + bytes.fromhex(sha256(b"x"))
    assert manifest(resources).root_digest == sha256(raw)
    shutil.copytree(VECTORS / "v1.1.0-elliptic-key", tmp_path / "copy")
    found = hash_folder(tmp_path / "copy", ignore=frozenset({MODEL_SIGNATURE, "ignore-me"}))
    assert found.root_digest == "92745110b1ab4368471cbe31664e10174e954b113a3df333db860317b2c6dec4"
