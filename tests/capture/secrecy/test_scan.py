from __future__ import annotations

import base64
import contextlib
import json
import pickle
import random
from argparse import Namespace
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.capture.secrecy.scan import LiveSecret, live_secrets, secrets_in_files
from provenance.errors import SecretError
from provenance.files.manifest import hash_folder
from tests.capture.conftest import refuse_secrets

if TYPE_CHECKING:
    from pathlib import Path

VALUE = 'xK9/tricky+value="é'


def values(**environ: str) -> set[str]:
    return {secret.value for secret in live_secrets(environ)}


def found_in(payload: bytes, **environ: str) -> str:
    with pytest.raises(SecretError) as caught:
        refuse_secrets(payload, live_secrets(environ))
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    "KAGGLE_KEY AZURE_STORAGE_KEY AZURE_STORAGE_CONNECTION_STRING SSH_PRIVATE_KEY DATABASE_URL"
    " hf_token db_password DOCKER_AUTH_CONFIG WANDB_API_KEY GITHUB_TOKEN GITHUBTOKEN PGPASSWORD"
    " MYSQL_PWD AWS_SECRET_ACCESS_KEY SENTRY_DSN NPM_CONFIG__AUTH GOOGLE_APPLICATION_CREDENTIALS"
    " session_cookie JWT sshKey Passphrase DB_PASS SSHPASS AZURE_PAT".split(),
)
def test_sensitive_variables(name: str) -> None:
    assert values(**{name: "a1b2c3d4e5"}) == {"a1b2c3d4e5"}


@pytest.mark.parametrize(
    "name",
    "PATH HOME PWD OLDPWD TOKENIZER TOKENIZERS_PARALLELISM AUTHOR KEYBOARD LANG OMP_NUM_THREADS"
    " CUDA_VISIBLE_DEVICES XDG_SESSION_ID"
    " BYPASS COMPASS FILEPAT PAT".split(),
)
def test_other_variables(name: str) -> None:
    assert values(**{name: "a1b2c3d4e5"}) == set()


@pytest.mark.parametrize(
    "value", ["", "short", "1234567", "true", "Production", "DISABLED", "-----BEGIN CERTIFICATE"]
)
def test_values_that_are_nobodys_secret(value: str) -> None:
    assert values(MY_TOKEN=value) == set()


def test_the_path_of_something_that_exists_is_no_secret(tmp_path: Path) -> None:
    assert values(SSL_KEY=str(tmp_path)) == set()
    assert values(SSL_KEY=str(tmp_path / "gone")) == {str(tmp_path / "gone")}
    assert values(SSL_KEY="/" + "x" * 5000) == {"/" + "x" * 5000}


def test_what_a_public_variable_holds_is_no_secret() -> None:
    assert values(SECRET_FOLDER="/nowhere/project", PWD="/nowhere/project") == set()


def test_a_variable_can_be_allowed() -> None:
    environ = {"SORT_KEY": "accuracy", "HF_TOKEN": "a1b2c3d4"}
    assert [secret.variable for secret in live_secrets(environ)] == ["HF_TOKEN", "SORT_KEY"]
    allowed = live_secrets(environ, allowed=frozenset({"SORT_KEY"}))
    assert [secret.variable for secret in allowed] == ["HF_TOKEN"]


def test_passwords_of_urls_in_any_variable() -> None:
    found = values(HTTPS_PROXY="http://alice:s3cret-pass@proxy:80", INDEX="https://a1b2c3d4@h/x")
    assert found == {"s3cret-pass", "alice:s3cret-pass", "a1b2c3d4"}
    assert values(X="https://u:p%40ssw0rd!@h") >= {"p%40ssw0rd!", "p@ssw0rd!"}
    assert values(X="https://host.example.org:443/path") == set()
    assert values(X="https://[broken@h") == set()


def test_strings_inside_json() -> None:
    auth = base64.b64encode(b"alice:pass-word-9").decode()
    config = json.dumps({"auths": {"h": {"auth": auth}}, "list": ["a1b2c3d4"], "n": 1})
    assert values(DOCKER_AUTH_CONFIG=config) == {config, auth, "pass-word-9", "a1b2c3d4"}
    assert values(RAY_SECRET_JSON="{broken json") == {"{broken json"}
    deep = "[" * 5000
    assert values(A_TOKEN=deep) == {deep}


def test_lines_of_a_key() -> None:
    lines = ["-----BEGIN " + "PRIVATE KEY-----", "M" * 64, "N" * 30, "-----END PRIVATE KEY-----"]
    key = "\n".join(lines)
    assert values(SSH_PRIVATE_KEY=key) == {key, "M" * 64, "N" * 30}


def test_secret_parts_of_a_connection_string() -> None:
    text = "DefaultEndpointsProtocol=https;AccountName=storage-name;AccountKey=a1b2c3d4=="
    assert values(AZURE_STORAGE_CONNECTION_STRING=text) == {text, "a1b2c3d4=="}


def test_the_representation_hides_the_value() -> None:
    assert "a1b2" not in repr(LiveSecret("X", "a1b2c3d4"))


def as_base64(before: bytes, after: bytes) -> bytes:
    return base64.b64encode(before + VALUE.encode() + after)


@pytest.mark.parametrize(
    "spelling",
    [
        VALUE.encode(),
        json.dumps(VALUE).encode(),
        json.dumps(VALUE, ensure_ascii=False).encode(),
        quote(VALUE).encode(),
        quote(VALUE, safe="").encode(),
        quote_plus(VALUE).encode(),
        VALUE.encode().hex().encode(),
        VALUE.encode().hex().upper().encode(),
        as_base64(b"", b""),
        as_base64(b"a", b"b"),
        as_base64(b"ab", b"cde"),
        as_base64(b"abc", b"fg"),
        base64.urlsafe_b64encode(VALUE.encode()),
    ],
)
def test_a_secret_is_found_however_it_is_spelt(spelling: bytes) -> None:
    message = found_in(b'{"a": "' + spelling + b'"}', MY_TOKEN=VALUE)
    assert "MY_TOKEN" in message
    assert VALUE not in message


def test_the_place_is_told() -> None:
    payload = json.dumps({"a": [{"b/c": "x a1b2c3d4 y"}], "d": 1}).encode()
    assert found_in(payload, T_TOKEN="a1b2c3d4").endswith(" at /a/0/b~1c")
    assert "at /(a key)" in found_in(b'{"a1b2c3d4": 1}', T_TOKEN="a1b2c3d4")
    assert "at byte 2" in found_in(b"\xff a1b2c3d4", T_TOKEN="a1b2c3d4")
    assert "at byte 4" in found_in(b"[1, 12345678]", T_TOKEN="12345678")


def test_a_token_is_found_by_its_shape_alone() -> None:
    token = "ghp_" + "aB3" * 12
    message = found_in(json.dumps({"a": f"x={token}"}).encode())
    assert "a credential (github) at /a" in message
    assert "at /a" in message
    assert token not in message


def test_a_clean_document_passes() -> None:
    refuse_secrets(b'{"a": "production"}', live_secrets({"A_TOKEN": "a1b2c3d4"}))


@given(
    value=st.text(min_size=8, max_size=40),
    before=st.binary(max_size=7),
    after=st.binary(max_size=7),
)
def test_any_value_is_found_inside_base64(value: str, before: bytes, after: bytes) -> None:
    payload = b'{"a":"' + base64.b64encode(before + value.encode() + after) + b'"}'
    with pytest.raises(SecretError):
        refuse_secrets(payload, (LiveSecret("X", value),))


@given(st.dictionaries(st.text(min_size=1), st.text()), st.binary(max_size=200))
def test_any_environment_is_searched_without_error(environ: dict[str, str], payload: bytes) -> None:
    sensitive = {f"{name}_TOKEN": value for name, value in environ.items()}
    with contextlib.suppress(SecretError):
        refuse_secrets(payload, live_secrets(sensitive))


def test_digests_do_not_trip_it() -> None:
    random.seed(1)
    digests = " ".join(random.randbytes(32).hex() for _ in range(10_000)).encode()
    refuse_secrets(digests, live_secrets({"A_TOKEN": "correct-horse", "DB_PASSWORD": "hunter22"}))


def test_a_password_that_nobody_escaped_is_searched() -> None:
    assert "pa#ss/word" in values(DB="postgresql://bob:pa#ss/word@h/x")


W_AND_B, HUB = "0123456789abcdef" * 2 + "01234567", "hf_" + "aB3" * 15  # whose length is a digit
HELD: dict[str, tuple[bytes, str]] = {
    "args.json": (json.dumps({"hub_token": HUB}).encode(), "(hugging-face)"),
    "args.yaml": (f"wandb_api_key: {W_AND_B}\n".encode(), "(key)"),
    "short.pkl": (pickle.dumps(Namespace(wandb_api_key=W_AND_B), 4), "(key)"),
    "older.pkl": (pickle.dumps(Namespace(wandb_api_key=W_AND_B), 2), "(key)"),
    "token.pkl": (pickle.dumps([HUB], 4), "(hugging-face)"),
    "a.ipynb": (json.dumps({"source": [f"login('{HUB}')\n"]}).encode(), "(hugging-face)"),
    "wide.env": (f"TOKEN={HUB}".encode("utf-16"), "(hugging-face)"),
    "cloud.json": (b'{"private_key": "-----BEGIN PRIVATE KEY-----\\nabc"}', "(private-key)"),
    "url.cfg": (b"proxy = https://me:pa55word@proxy.example", "(user)"),
    "live.npy": (b"\x93NUMPY\0my-live-secret\0", "variable MY_TOKEN"),
    "words.bin": (b"\xff" + "größe-7x-live".encode(), "variable WORD_TOKEN"),
    "weights.bin": (bytes(range(256)) * 9 + HUB.encode() + b"\xff" * 9, "(hugging-face)"),
    "utf8.cfg": ("größe = 1\nhttps://jörg:größe-7x@b.example".encode(), "(user)"),
    ".env": (b"A=1", "secrets, by its name"),
    "README.md": (
        b"By [http://www.example.org](http://www.example.org), a [b](https://b.org/@b)",
        "",
    ),
    "masked.json": (b'{"hub_token": "<HUB_TOKEN>", "eos_token": "</s>"}', ""),
    "none.pkl": (pickle.dumps({"hub_token": None, "next": W_AND_B}), ""),
    "sums.json": (json.dumps({"model": W_AND_B, "max_tokens": 2048}).encode(), ""),
    "large.json": (b" " * 2**20 + HUB.encode(), ""),
}
"""Files of a model, and what is said of each."""


def test_small_files_are_searched_for_secrets(tmp_path: Path) -> None:
    for name, (data, _) in HELD.items():
        (tmp_path / name).write_bytes(data)
    live = live_secrets({"MY_TOKEN": "my-live-secret", "WORD_TOKEN": "größe-7x-live"})
    found = secrets_in_files(tmp_path, hash_folder(tmp_path).entries, live)
    said = {name: what for what, names in found.items() for name in names}
    assert {name: said.get(name, "").endswith(end) for name, (_, end) in HELD.items() if end} == (
        dict.fromkeys((name for name, (_, end) in HELD.items() if end), True)
    )
    assert said.keys() == {name for name, (_, end) in HELD.items() if end}


def test_the_search_of_files_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provenance.capture.secrecy.scan.MAX_FILES", 100)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"%-50b" % f"{HUB} {name}".encode())
        (tmp_path / f"{name}{name}").write_bytes(b"%-50b" % f"{HUB} {name}".encode())
    [names] = secrets_in_files(tmp_path, hash_folder(tmp_path).entries, ()).values()
    assert names == ["a", "aa", "b", "bb"]
    monkeypatch.setattr("provenance.capture.secrecy.scan.MAX_FILES", 1000)
    monkeypatch.setattr("provenance.capture.secrecy.scan.MAX_NAMED", 1000)
    for number, name in enumerate(("a", "aa", "b", "bb", "c", "cc")):
        (tmp_path / name).write_bytes(b"%-*b" % (110 + number, f"api_key: {W_AND_B}".encode()))
    [names] = secrets_in_files(tmp_path, hash_folder(tmp_path).entries, ()).values()
    assert names == ["a", "aa", "b", "bb", "c", "cc"]
    monkeypatch.setattr("provenance.capture.secrecy.scan.MAX_NAMED", 300)
    [names] = secrets_in_files(tmp_path, hash_folder(tmp_path).entries, ()).values()
    assert names == ["a", "aa"]
