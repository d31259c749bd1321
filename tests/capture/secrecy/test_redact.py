from __future__ import annotations

import contextlib
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.capture.command import Places, fill, record_command
from provenance.capture.secrecy.redact import credential_in, public_remote, readable, redact_text
from provenance.capture.secrecy.secrets import (
    is_secret_name,
    is_suspect_name,
    kind_of_name,
    looks_random,
)
from provenance.errors import UsageError
from provenance.statement.training import REDACTION

REDACTED = "${redacted}"
"""Stands for a mark of any type."""


def untyped(text: str) -> str:
    return REDACTION.sub(REDACTED, text)


RANDOM = "f7Qk29xLw03mZt81"

HARMLESS = [
    "b6b4f3a4c95a8a5e9d3ad8e4f3b7d8a4f3c2e1d0",  # a commit
    "0" * 64,
    "sk-learn",
    "hf_model",
    "task-oriented-dialogue-system-with-long-name",
    "sentence-transformers/all-MiniLM-L6-v2",
    "-----BEGIN CERTIFICATE-----",
    "eyJust a word",
]


@pytest.mark.parametrize(
    "name",
    "token --token --hf-token hf_token HF_TOKEN authToken api_key --api-key apiKey APIKEY password"
    " db.password PGPASSWORD --passwd client-secret secret_key access-key MYSQL_PWD auth"
    " credentials aws_secret_access_key privateKey passphrase wandb.api_key jwt --db-pass DB_PASS"
    " SSHPASS --pass AZURE_PAT X-Api-Key --ssh-key".split(),
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    "--tokenizer tokenizer_name max_tokens --max-token num-token --pad-token eos_token --mask-token"
    " --author authority --keyboard --monkey --lr secretary path --bypass sort-key --num-pass"
    " compass --lowpass pass_at_k --pat --file-pat --".split(),
)
def test_names_that_only_look_like_secrets(name: str) -> None:
    assert not is_secret_name(name)


def test_a_key_is_suspect() -> None:
    assert is_suspect_name("--wandb-key")
    assert not is_suspect_name("--keyboard")
    assert not is_suspect_name("--")
    assert looks_random("a1b2c3d4e5f6a7b8")
    assert not looks_random("image")
    assert not looks_random("a-very-long-column-name")
    assert not looks_random("a1 b2 c3 d4 e5 f6 a7 b8")


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays(text: str) -> None:
    assert redact_text(text) == text
    assert credential_in(text) is None


def test_a_bearer_goes() -> None:
    found = redact_text("Authorization: Bearer abcdefghi")
    assert found == "Authorization: Bearer ${redacted:authorization}"


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("https://u:p@h/x", "https://${redacted}@h/x"),
        ("https://token@h:8080/x", "https://${redacted}@h:8080/x"),
        ("https://u:p@a@h/x", "https://${redacted}@h/x"),
        ("https://h/x?token=abc&page=2", "https://h/x?token=${redacted}&page=2"),
        ("https://h/x?sig=a%20b", "https://h/x?sig=${redacted}"),
        ("https://h/x?X-Amz-Signature=a&X-Amz-Credential=b", None),
        ("s3://bucket/path?versionId=1", "s3://bucket/path?versionId=1"),
        ("postgresql://u:p@h/db", "postgresql://${redacted}@h/db"),
        ("https://[broken/x", "https://[broken/x"),
        ("https://u:p@[broken/x", "${redacted}"),
        ("postgresql://bob:pa#ss@h/x", "postgresql://${redacted}@h/x"),
        ("postgresql://bob:pa/s?s@h/x", "postgresql://${redacted}@h/x"),
        ("http://a:1,http://u:p@h/", "http://${redacted}@h/"),
        ("git+https://example.org/a/b@v1.0", "git+https://example.org/a/b@v1.0"),
        ("https://example.org:80/@scope/a", "https://example.org:80/@scope/a"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("https://u@h/a@v1", "https://${redacted}@h/a@v1"),
    ],
)
def test_urls_lose_users_and_secret_parameters(url: str, redacted: str | None) -> None:
    expected = redacted or ("https://h/x?X-Amz-Signature=${redacted}&X-Amz-Credential=${redacted}")
    assert untyped(redact_text(f"--index {url} end")) == f"--index {expected} end"


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://u:p@example.org/a.git", "https://example.org/a.git"),
        ("HTTPS://example.org/a?token=x#y", "https://example.org/a"),
        ("ssh://git@example.org:22/a", "ssh://example.org:22/a"),
        ("git@example.org:a/b", "ssh://example.org/a/b"),
        ("example.org:a/b", "ssh://example.org/a/b"),
        ("file:///home/alice/a", ""),
        ("/home/alice/a", ""),
        ("../a", ""),
        ("C:/alice/a", ""),
        ("https://[broken", ""),
        ("https://bob:hunter2#zz@example.org/r", "https://example.org/r"),
        ("https://example.org:12#hunter2@example.org/r", ""),
        ("a.b:hunter2@example.org:x/y", "ssh://example.org/x/y"),
        ("ext::sh -c evil", ""),
        ("", ""),
    ],
)
def test_a_remote_is_public_or_left_out(url: str, public: str) -> None:
    assert public_remote(url) == public


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("NCCL_SIGNING_KEYS", RANDOM, True),
        ("--refresh-tokens", RANDOM, True),
        ("TF_MASTERKEY", RANDOM, True),
        ("--password", "x", True),
        ("--sort-keys", "loss", False),
        ("--max-tokens", "4096", False),
        ("--checkpoint", RANDOM, False),
    ],
)
def test_a_name_and_its_value_are_secret_together(name: str, value: str, secret: bool) -> None:
    assert (kind_of_name(name, value) != "") is secret


def test_text_that_is_not_utf8_becomes_readable() -> None:
    assert readable("a\udcffb") == "a\\xffb"
    assert readable("é\n") == "é\n"
    assert readable("\ud800") == "\\ud800"


@given(st.text())
def test_any_text_is_redacted_without_error(text: str) -> None:
    redacted = redact_text(text)
    assert redact_text(redacted) == redacted
    public_remote(text)
    is_secret_name(text)
    readable(text).encode()


@given(
    user=st.text("abcXYZ019%._~-", min_size=1),
    password=st.text("abcXYZ019%._~-:", min_size=8),
    rest=st.text("abc/?=&", max_size=10),
)
def test_no_password_of_a_url_remains(user: str, password: str, rest: str) -> None:
    redacted = redact_text(f"x https://{user}:{password}@example.org/{rest} y")
    assert urlsplit(redacted.split()[1]).netloc == "${redacted:user}@example.org"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("bob:S@example.org:a/b", "R@example.org:a/b"),
        ("bob:S/S@11.0.0.1", "R@11.0.0.1"),
        ("Authorization: Token S", "Authorization: Token R"),
        ("Authorization: S S", "Authorization: R"),
        ('Authorization: Digest user="S", response=S', "Authorization: Digest R"),
        (
            "curl -H 'Authorization: Token S' https://h",
            "curl -H 'Authorization: Token R' https://h",
        ),
        ("Cookie: a=S; b=S", "Cookie: R"),
        ("X-Api-Key: S", "X-Api-Key: R"),
        ('{"api_key": "S", "lr": 1}', '{"api_key": "R", "lr": 1}'),
        ('{"a": {"password": "S\\"S"}}', '{"a": {"password": "R"}}'),
        ('{\\"api_key\\": \\"S\\"}', '{\\"api_key\\": \\"R\\"}'),
        ("{'token': 'S', 'n': 1}", "{'token': 'R', 'n': 1}"),
        ("{password: S}", "{password: R}"),
        ("api_key=S,lr=1", "api_key=R,lr=1"),
        ("export AWS_SECRET_ACCESS_KEY=S; sh t.sh", "export AWS_SECRET_ACCESS_KEY=R; sh t.sh"),
        ("sh t.sh --password S --lr 1", "sh t.sh --password R --lr 1"),
        ('run "x=1 password=S"', 'run "x=1 password=R"'),
        ('x="password=S"', 'x="password=R"'),
        ("--authorization S --cookie S", "--authorization R --cookie R"),
        ("cookie=S; token=S", "cookie=R; token=R"),
        ("note: password: S", "note: password: R"),
        ("--fast --password S", "--fast --password R"),
        ("sh t.sh --password -S", "sh t.sh --password R"),
        ("os.environ['TOKEN'] = 'S'", "os.environ['TOKEN'] = 'R'"),
        ("token => 'S'", "token => 'R'"),
        ("token := S", "token := R"),
        ("--password a\\ S x", "--password R x"),
        ("--proxy a:S@proxy:3128", "--proxy R@proxy:3128"),
    ],
)
def test_the_value_of_a_secret_name_goes_from_a_text(text: str, redacted: str) -> None:
    secret = re.sub(r"\bS\b", "hunter2z", text)
    assert untyped(redact_text(secret)) == re.sub(r"\bR\b", lambda _: REDACTED, redacted)


@pytest.mark.parametrize(
    "text",
    [
        "image:tag@sha256:00",
        "registry:5000/a/b@sha256:012345678",
        "module:name@v1.2",
        "train --use-auth-token --lr 1",
        "train --max-tokens 5 --tokenizer: x",
        "import token; x = 1",
        "tokens: [1, 2]",
        "compass: north",
        "12:30 @ noon",
        "a=b:c=d",
    ],
)
def test_text_that_only_looks_like_a_secret_stays(text: str) -> None:
    assert redact_text(text) == text


HARD = """a a: a= -a_ :// a:// a@ a:b@ " \\ token= a.b- authorization: $ ${ sort_key= sk- eyJ 1. 10.
    fd00: GPU- /home/ ~a bearer_ AKIA =' ;a=b a.com@ %40 cookie: xox hv -u_curl_ -----BEGIN_ 1:A
    https://x/?token=& sh_--auth_a _ curl_-u\\" mysql_-p' ['a']= \\_ a:b@c:1"""


@pytest.mark.parametrize("piece", HARD.split())
def test_redaction_takes_time_linear_in_the_text(piece: str) -> None:
    """Where time is quadratic this hangs for minutes."""
    piece = piece.replace("_", " ") if piece != "sort_key=" else piece
    text = piece * (50_000 // len(piece))
    redact_text(text, in_variable=True)
    credential_in(text)
    places = Places({}, Path("/nowhere"), "/home/a")
    recorded = record_command(("sh", text, *[piece] * 100), places)
    assert len(recorded.arguments) == 102
    with contextlib.suppress(UsageError):
        fill((text,), {})
