"""What other tools signed, verified as a user would; the vectors' README says who made them."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from hashlib import sha256 as hash_of
from pathlib import Path

import pytest

import provenance
from provenance.encoding import strict_base64
from provenance.errors import (
    ContentError,
    MalformedError,
    PolicyError,
    SecretError,
    SignatureError,
    SubjectError,
    UnavailableError,
    UnreadableError,
    UsageError,
)
from provenance.files import manifest as manifests
from provenance.files.manifest import hash_folder, root_digest
from provenance.folder import attach
from provenance.keys import PrivateKey, generate
from provenance.statement import intoto, model_signature, uris
from provenance.statement.intoto import Statement, Subject
from provenance.statement.model_signature import ModelSignature

VECTORS = Path(__file__).parents[1] / "vectors/openssf-model-signing"
KEY = VECTORS / "made/key.pub"


def sha256(data: bytes) -> str:
    return hash_of(data).hexdigest()


WHOLE = [f"{version}-{case}" for version in ("1.0.0", "1.0.1", "1.1.1")
         for case in ("files", "blake2b", "shards", "shards-blake2b")]  # fmt: skip


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    shutil.copytree(VECTORS / "model", tmp_path / "tiny")
    return tmp_path / "tiny"


def signed_by(model: Path, case: str) -> Path:
    shutil.copy(VECTORS / f"made/{case}.sig", model / "model.sig")
    return model


@pytest.mark.parametrize("case", [*WHOLE, "1.1.1-blake3"])
def test_files_and_shards_with_every_hash(tiny: Path, case: str) -> None:
    if case.endswith("blake3"):
        pytest.importorskip("blake3")
    expected = hash_folder(tiny, ignore=frozenset({"empty.txt"} if "shards" in case else ()))
    found = provenance.verify(signed_by(tiny, case), keys=[KEY])
    assert found.manifest == expected  # with SHA-256, whatever was signed
    assert found.name == "tiny"
    assert found.not_covered == ({"empty.txt": 1} if "shards" in case else {})


@pytest.mark.parametrize("case", [*WHOLE, "1.1.1-blake3"])
@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("weights.bin", b"twelve BYTES", "weights.bin was changed"),
        ("weights.bin", b"twelve byte", "weights.bin was changed"),
        ("weights.bin", b"twelve bytes and more", "weights.bin was changed"),
        ("weights.bin", b"", "weights.bin"),
        ("extra.bin", b"x", "extra.bin is extra"),
        ("config.json", None, "config.json is missing"),
    ],
)
def test_another_file_is_refused(
    tiny: Path, case: str, name: str, data: bytes | None, words: str
) -> None:
    if case.endswith("blake3"):
        pytest.importorskip("blake3")
    if data is None:
        (tiny / name).unlink()
    else:
        (tiny / name).write_bytes(data)
    with pytest.raises(ContentError, match=words):
        provenance.verify(signed_by(tiny, case), keys=[KEY])


def test_an_empty_file_that_shards_do_not_cover_must_be_one_that_no_loader_opens(
    tiny: Path,
) -> None:
    (tiny / "adapter_config.json").touch()
    with pytest.raises(ContentError, match=r"adapter_config\.json: is left out of model\.sig"):
        provenance.verify(signed_by(tiny, "1.1.1-shards"), keys=[KEY])


def test_without_its_package_blake3_says_what_to_install(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "blake3", None)
    with pytest.raises(UnavailableError, match="BLAKE3, which needs a package") as caught:
        provenance.verify(signed_by(tiny, "1.1.1-blake3"), keys=[KEY])
    assert "training-provenance[blake3]" in (caught.value.hint or "")


def test_both_root_digests_are_the_expected_ones(tiny: Path) -> None:
    manifest = hash_folder(tiny, ignore=frozenset({"empty.txt"}))
    signed_by(tiny, "1.1.1-shards")
    document = json.loads((tiny / "model.sig").read_bytes())
    payload = strict_base64.parse(document["dsseEnvelope"]["payload"])
    [subject] = intoto.parse(payload).subject
    for root in (subject.digest["sha256"], manifest.root_digest):
        found = provenance.verify(tiny, keys=[KEY], root_digest=f"sha256:{root}")
        assert found.manifest == manifest
    with pytest.raises(PolicyError, match="is expected"):
        provenance.verify(tiny, keys=[KEY], root_digest="sha256:" + "00" * 32)


def test_a_claim_beside_a_signature_by_shards(tiny: Path) -> None:
    signer = generate()
    signed_by(tiny, "1.1.1-shards-blake2b")
    provenance.attest(tiny, key=signer)
    found = provenance.verify(tiny, keys=[signer.public, KEY])
    assert "empty.txt" in found.manifest.by_name()
    assert len(found.levels) == 2
    (tiny / "sub-x.txt").write_bytes(b"y\n")
    with pytest.raises(ContentError, match=r"sub-x\.txt was changed"):
        provenance.verify(tiny, keys=[signer.public, KEY])


def test_a_file_of_many_chunks_in_shards(tmp_path: Path) -> None:
    data, size = bytes(range(256)) * 10_000, 1_000_003
    begins = range(0, len(data), size)
    digests = {
        f"w:x.bin:{at}:{min(at + size, len(data))}": sha256(data[at : at + size]) for at in begins
    }
    model, key = tmp_path / "m", generate()
    model.mkdir()
    (model / "w:x.bin").write_bytes(data)
    sign_document(model, key, shards(digests, size))
    assert provenance.verify(model, keys=[key.public]).manifest.size == len(data)
    (model / "w:x.bin").write_bytes(data[:-1] + b"x")
    with pytest.raises(ContentError, match=r"w:x\.bin was changed"):
        provenance.verify(model, keys=[key.public])


@pytest.mark.parametrize("version", ["1.0.0", "1.0.1", "1.1.1"])
@pytest.mark.parametrize("case", ["one-file", "one-file-shards"])
def test_a_model_that_is_one_file(tiny: Path, version: str, case: str) -> None:
    model = tiny / "weights.bin"
    signature = VECTORS / f"made/{version}-{case}.sig"
    assert provenance.verify(model, keys=[KEY], signature=signature).manifest.size == 12
    renamed = tiny / "model.gguf"
    model.rename(renamed)
    shutil.copy(signature, tiny / "model.gguf.sig")
    found = provenance.verify(renamed, keys=[KEY])
    assert found.name == "weights.bin"
    assert [entry.name for entry in found.manifest.entries] == ["model.gguf"]
    assert "the file is called model.gguf" in found.warnings[0]
    with pytest.raises(ContentError, match="the signature of one file, and this is a folder"):
        provenance.verify(tiny, keys=[KEY], signature=signature)
    renamed.write_bytes(b"Twelve bytes")
    with pytest.raises(ContentError, match=r"model\.gguf was changed"):
        provenance.verify(renamed, keys=[KEY])
    with pytest.raises(ContentError, match=r"config\.json"):
        provenance.verify(renamed, keys=[KEY], signature=VECTORS / "made/1.1.1-files.sig")


def test_sign_and_attest_one_file(tiny: Path) -> None:
    key, model = generate(), tiny / "weights.bin"
    assert provenance.sign(model, key=key).path == tiny / "weights.bin.sig"
    assert provenance.verify(model, keys=[key.public]).claim is None
    found = provenance.attest(model, key=key)
    assert found.written == (f"{model}.claims.jsonl", f"{model}.sig")
    assert provenance.verify(model, keys=[key.public], require="attested").name == "weights.bin"
    with pytest.raises(UsageError, match="signed by another, or damaged"):
        provenance.sign(model, key=generate())
    model.write_bytes(b"twelve Bytes")
    with pytest.raises(ContentError, match=r"weights\.bin was changed"):
        provenance.verify(model, keys=[key.public])
    secret = tiny / "key.pem"
    secret.write_bytes(generate().pem())
    with pytest.raises(SecretError):
        provenance.sign(secret, key=key)


def test_a_signature_under_another_name(tiny: Path) -> None:
    key, place = generate(), tiny / "tiny.oms"
    made = provenance.sign(tiny, key=key, signature=place, ignore_paths=[tiny / "notes.md"])
    assert made.path == place
    assert made.not_covered == {"notes.md": 1}
    found = provenance.verify(tiny, keys=[key.public], signature=place)
    assert found.not_covered == {"notes.md": 1, "tiny.oms": 1}
    place.rename(tiny / "other.oms")  # named by the reader, and not by the signer
    found = provenance.verify(tiny, keys=[key.public], signature=tiny / "other.oms")
    assert found.not_covered == {"notes.md": 1, "other.oms": 1}
    (tiny / "other.oms").rename(tiny.parent / "out.oms")
    shutil.copy(VECTORS / "made/1.1.1-files.sig", tiny / "out.oms")
    with pytest.raises(ContentError, match=r"out\.oms is extra"):  # another file of that name
        provenance.verify(tiny, keys=[key.public], signature=tiny.parent / "out.oms")
    with pytest.raises(UsageError, match="no place for a signature"):
        provenance.sign(tiny, key=key, signature=tiny / "tokenizer.json")
    with pytest.raises(UsageError, match="--claims and --signature"):
        provenance.verify(tiny, keys=[key.public], signature=place, claims=place)


@pytest.mark.parametrize("version", ["1.0.0", "1.1.1"])
def test_paths_that_the_signer_left_out(tiny: Path, version: str) -> None:
    signed_by(tiny, f"{version}-ignored")
    left_out = [tiny / "notes.md", tiny / "sub"] if version == "1.0.0" else []  # 1.0 says nothing
    found = provenance.verify(tiny, keys=[KEY], ignore_paths=left_out)
    assert found.not_covered == {"notes.md": 1, "sub/": 1}
    (tiny / "sub/README.md").touch()  # which diffusers opens beside model_index.json alone
    assert provenance.verify(tiny, keys=[KEY], ignore_paths=left_out).not_covered["sub/"] == 2
    for name in ("model_index.json", "model.safetensors"):
        (tiny / "sub" / name).touch()
        opened = r"sub/.*: is left out of model\.sig, and .* would open it"
        with pytest.raises(ContentError, match=opened):
            provenance.verify(tiny, keys=[KEY], ignore_paths=left_out)


def test_links_as_their_signer_declared(tiny: Path) -> None:
    signed_by(tiny, "1.1.1-links")
    (tiny / "last.bin").symlink_to("weights.bin")
    assert "last.bin" in provenance.verify(tiny, keys=[KEY]).manifest.by_name()
    (tiny / "last.bin").unlink()
    (tiny / "last.bin").symlink_to("notes.md")
    with pytest.raises(ContentError, match=r"last\.bin was changed"):
        provenance.verify(tiny, keys=[KEY])
    (tiny / "last.bin").unlink()
    (tiny.parent / "weights.bin").write_bytes(b"twelve bytes")
    (tiny / "last.bin").symlink_to("../weights.bin")
    with pytest.raises(UnreadableError, match="leaves the folder"):
        provenance.verify(tiny, keys=[KEY])
    provenance.verify(tiny, keys=[KEY], link_roots=[tiny.parent])


def test_shards_of_another_size_are_refused_before_anything_is_hashed(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = generate()
    provenance.attest(tiny, key=key)
    sign_document(tiny, key, shards({"weights.bin:0:1": sha256(b"t")}, 1))
    monkeypatch.setattr(manifests, "_hash", None)
    with pytest.raises(ContentError, match=r"model\.sig states: weights\.bin was changed"):
        provenance.verify(tiny, keys=[key.public])


def test_the_form_before_version_0_3_is_read_where_asked_for(tmp_path: Path) -> None:
    model, root = tmp_path / "m", VECTORS / "keys/certificate/ca-cert.pem"
    shutil.copytree(VECTORS / "v0.2.0-certificate", model)
    verify = partial(provenance.verify, model, certificate_chain=[root])
    with pytest.raises(SignatureError, match="none of the given keys") as caught:
        verify()
    assert "--digests-v0.1" in (caught.value.hint or "")
    assert verify(digests_v0=True).name == "a model without a name"
    (model / "extra.bin").touch()
    with pytest.raises(ContentError, match=r"extra\.bin is extra"):
        verify(digests_v0=True)
    (model / "extra.bin").unlink()
    (model / "signme-1").write_bytes((model / "signme-2").read_bytes())
    with pytest.raises(ContentError, match="signme-1 was changed"):
        verify(digests_v0=True)
    document = json.loads((model / "model.sig").read_bytes())
    payload = strict_base64.parse(document["dsseEnvelope"]["payload"])
    document["dsseEnvelope"]["payload"] = strict_base64.format(payload.replace(b"signme-1", b"x"))
    (model / "model.sig").write_text(json.dumps(document))
    with pytest.raises(SignatureError):
        verify(digests_v0=True)


@pytest.mark.parametrize(
    ("subjects", "words"),
    [
        ((Subject({"sha256": "00" * 32}, "a"),) * 2, "'a' is duplicated"),
        ((Subject({"sha256": "00" * 32}, "../a"),), "leaves the folder"),
        ((Subject({"sha1": "00" * 20}, "a"),), "has no sha256 digest"),
    ],
)
def test_older_statements_of_no_files_are_refused(
    subjects: tuple[Subject, ...], words: str
) -> None:
    with pytest.raises(MalformedError, match=words):
        model_signature.from_older(Statement(subjects, uris.OLDER_DIGESTS))


def test_an_older_statement_that_is_signed_as_new_ones_are_is_of_another_kind(tiny: Path) -> None:
    key = generate()
    subject = (Subject({"sha256": "00" * 32}, "weights.bin"),)
    sign_document(tiny, key, Statement(subject, uris.OLDER_DIGESTS))
    with pytest.raises(PolicyError, match="other kinds"):
        provenance.verify(tiny, keys=[key.public])
    with pytest.raises(SignatureError):
        provenance.verify(tiny, keys=[key.public], digests_v0=True)


def sign_document(model: Path, key: PrivateKey, statement: Statement) -> None:
    signed = attach.sign_payload(intoto.format(statement), key)
    (model / "model.sig").write_bytes(signed)


def shards(digests: dict[str, str], size: object) -> Statement:
    resources = [{"name": n, "algorithm": "sha256", "digest": it} for n, it in digests.items()]
    serialization = {"method": "shards", "hash_type": "sha256", "shard_size": size}
    predicate = {"resources": resources, "serialization": serialization}
    subject = Subject({"sha256": root_digest(digests.values())}, "m")
    return Statement((subject,), "https://model_signing/signature/v1.0", predicate)


def parsed(statement: Statement) -> ModelSignature:
    return model_signature.from_statement(statement, where="model.sig")


def test_shards_are_read_in_any_order() -> None:
    digests = {"a:10:15": sha256(b"3"), "a:0:5": sha256(b"1"), "a:5:10": sha256(b"2")}
    found = parsed(shards(digests, 5.0))
    assert found.files == {"a": sha256(b"1") + sha256(b"2") + sha256(b"3")}
    assert found.sizes == {"a": 15}


@pytest.mark.parametrize(
    ("names", "size", "words"),
    [
        (["a"], 5, "'a' is no shard"),
        (["a:0"], 5, "'a:0' is no shard"),
        ([":0:5"], 5, "':0:5' is no shard"),
        (["a:00:5"], 5, "'a:00:5' is no shard"),
        (["a:0:-5"], 5, "is no shard"),
        (["a:0:\u0665"], 5, "is no shard"),
        (["a:0:0"], 5, "is no shard"),
        (["a:5:10"], 5, "do not make a file"),
        (["a:0:5", "a:10:12"], 5, "do not make a file"),
        (["a:0:5", "a:0:5"], 5, "do not make a file"),
        (["a:0:6"], 5, "do not make a file"),
        (["a:0:4", "a:4:8"], 5, "do not make a file"),
        (["a:0:5", "a:4:8"], 5, "do not make a file"),
        (["a:0:999999999999999999"], 1, "do not make a file"),
        (["../a:0:5"], 5, "leaves the folder"),
        (["/a:0:5"], 5, "is absolute"),
        (["./a:0:5"], 5, "empty part or"),
        (["a\n:0:5"], 5, "control character"),
        (["a:0:5"], 0, "shards of 0 bytes"),
        (["a:0:5"], -5, "shards of -5"),
        (["a:0:5"], 2.5, "shards of 2.5 bytes"),
        (["a:0:5"], "5", "shard_size"),
        (["a:0:5"], True, "shard_size"),
    ],
)
def test_shards_that_make_no_file_are_refused(names: list[str], size: object, words: str) -> None:
    statement = shards({}, size)
    each = {"algorithm": "sha256", "digest": sha256(b"x")}
    resources = [{"name": name, **each} for name in names]
    predicate = {**statement.predicate, "resources": resources}
    statement = Statement(statement.subject, statement.predicate_type, predicate)
    with pytest.raises(MalformedError, match=words) as caught:
        parsed(statement)
    assert not isinstance(caught.value, SubjectError)
