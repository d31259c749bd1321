"""Every row of the one table of secrets, in every place where it must be noticed."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from provenance.capture.command import Places, record_command
from provenance.capture.environment import collect_variables
from provenance.capture.secrecy.redact import mark, redact_text
from provenance.capture.secrecy.scan import live_secrets
from provenance.capture.secrecy.secrets import FORMS, NAMES, SHAPES, Form, Name, Shape
from provenance.errors import SecretError
from provenance.statement.training import REDACTION
from tests.capture.conftest import refuse_secrets

PLACES = Places(paths={}, folder=Path("/nowhere"))
VALUE = "f7Qk29xLw03mZt81"

_TEN = "aB3dE5gH7j"
_HEX = "0123456789abcdef"
EXAMPLES_OF_SHAPES = (
    (
        "private-key",
        "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
        "",
    ),
    ("slack-webhook", "https://hooks.slack.com/" + "services/T0/B0/X" + _TEN * 2, ""),
    ("discord-webhook", "https://discord.com/" + "api/webhooks/123456789012345678/" + _TEN * 3, ""),
    ("slack", "xapp-" + "1-A012345-" + _TEN, ""),
    ("telegram", "123456789:" + "AAH" + _TEN * 3 + "_-", ""),
    ("hugging-face", "api_org_" + _TEN * 3, ""),
    ("github", "ghp_" + _TEN * 3, ""),
    ("gitlab", "glrt-" + _TEN * 2, ""),
    ("databricks", "dapi" + _HEX * 2, ""),
    ("vault", "hvs." + _TEN * 3, ""),
    ("sendgrid", "SG." + _TEN * 2 + "." + _TEN * 4, ""),
    ("google", "GOCSPX-" + _TEN * 3, ""),
    ("groq", "gsk_" + _TEN * 5, ""),
    ("docker", "dckr_" + "pat_" + _TEN * 3, ""),
    ("age", "AGE-SECRET-" + "KEY-1" + "Q" * 58, ""),
    ("neptune", "eyJhcGlf" + "YWRkcmVzcyI6Imh0dHBzOi8vYXBwIn0=", ""),
    ("jwt", "eyJ" + _TEN * 2 + ".eyJ" + _TEN * 2 + ".c-_d", ""),
    ("stripe", "sk_" + "live_" + _TEN * 2, ""),
    ("replicate", "r8_" + _TEN * 4, ""),
    ("together", "tgp_" + "v1_" + _TEN * 4, ""),
    ("openai", "sk-" + "proj-" + _TEN * 3, ""),
    ("nvidia", "nvapi-" + _TEN * 3, ""),
    ("wandb", "wandb_" + "v1_" + _TEN * 3, ""),
    ("npm", "npm_" + "a" * 36, ""),
    ("pypi", "pypi-" + "a" * 60, ""),
    ("aws", "AKIA" + "ABCDEFGH" * 2, ""),
    ("aws-secret", "AKIA" + "ABCDEFGH" * 2 + " " + "wJalr/7MD+" * 4, "wJalr/7MD+" * 4),
    ("user", "https://bob:hunter2z@example.org/x", "hunter2z"),
    ("parameter", "https://example.org/x?sig=hunter2z&y=1", "hunter2z"),
    ("authorization", "Authorization: Token hunter2z", "hunter2z"),
    ("cookie", "Cookie: a=hunter2z; b=1", "hunter2z"),
    ("bearer", "bearer hunter2z9", "hunter2z9"),
    ("user", "bob:hunter2z@example.org:a/b", "hunter2z"),
    ("email", "alice.b@mail.example.org", ""),
    ("private-address", "192.168.7.21", ""),
    ("gpu-uuid", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", ""),
    ("user", "/home/bob/cache", "bob"),
    ("host", "tcp://node17.example.org:29500", "node17.example.org"),
    ("host", "w0.corp.internal:29500", "w0.corp.internal"),
)
"""For each row of SHAPES its kind, a text, and what of it must not remain (empty: all)."""

EXAMPLES_OF_NAMES = (
    ("password", "--password db.password PGPASSWORD --passwd Passphrase MYSQL_PWD SSHPASS"),
    ("password", "--db-pass DB_PASS --pass SSHPASS"),
    ("token", "--hf-token authToken GITHUB_TOKEN jwt"),
    ("token", "accesstoken AUTHTOKEN"),
    ("token", "AZURE_PAT --gitlab-pat"),
    ("key", "--api-key apiKey APIKEY X-Api-Key sshKey"),
    ("key", "secret_key access-key privateKey --ssh-key"),
    (
        "credential",
        "auth AUTHORIZATION client-secret credentials session_cookie DOCKER_AUTH_CONFIG",
    ),
    ("key", "KAGGLE_KEY AZURE_STORAGE_KEY --refresh-tokens"),
    ("credential", "GITHUBTOKEN NETRC DATABASE_URL SENTRY_DSN"),
)
EXAMPLES_OF_FORMS = (
    ("password", "curl -u alice:hunter2z"),
    ("password", "http -a alice:hunter2z"),
    ("password", "mysql -uroot -phunter2z"),
    ("password", "docker login -p hunter2z"),
    ("password", "zip -P hunter2z a.zip"),
    ("password", "ldapsearch -w hunter2z"),
    ("password", "redis-cli -a hunter2z"),
    ("password", "sh train.sh --pw hunter2z"),
    ("pin", "python train.py --pin hunter2z"),
    ("credential", "sh train.sh --auth alice hunter2z"),
)


@dataclass(frozen=True)
class Case:
    row: Shape
    example: str
    hidden: str

    @property
    def kind(self) -> str:
        return self.row.kind


SHAPE_CASES = [
    pytest.param(Case(row, example, hidden or example), id=f"{kind}-{n}")
    for n, (row, (kind, example, hidden)) in enumerate(zip(SHAPES, EXAMPLES_OF_SHAPES, strict=True))
    if row.kind == kind
]
TEXT_CASES = [
    each for each, row in zip(SHAPE_CASES, SHAPES, strict=True) if row.scope != "variables"
]
CREDENTIALS = [
    each for each, row in zip(SHAPE_CASES, SHAPES, strict=True) if row.scope == "document"
]
NAME_CASES = [
    pytest.param(row, example, id=f"{row.kind}-{example}")
    for row, (kind, examples) in zip(NAMES, EXAMPLES_OF_NAMES, strict=True)
    for example in examples.split()
    if row.kind == kind
]
FORM_CASES = [
    pytest.param(row, example, id=example)
    for row, (kind, example) in zip(FORMS, EXAMPLES_OF_FORMS, strict=True)
    if row.kind == kind
]


def record(*arguments: str) -> str:
    return " ".join(record_command(("train", *arguments), PLACES).arguments)


def test_every_row_has_an_example_and_a_source() -> None:
    assert len(SHAPE_CASES) == len(SHAPES)
    assert len(FORM_CASES) == len(FORMS)
    assert {case.values[0] for case in NAME_CASES} == set(NAMES)
    for row in (*SHAPES, *NAMES, *FORMS):
        assert row.source
        assert REDACTION.fullmatch(mark(row.kind))


@pytest.mark.parametrize("case", TEXT_CASES)
@pytest.mark.parametrize(
    "argument",
    ["{}", "--x={}", "--notify=\n{}", '{{"a": "{}"}}', "$ sh -c 'x {}'"],
)
def test_it_is_replaced_in_arguments(case: Case, argument: str) -> None:
    recorded = record(argument.format(case.example))
    assert case.hidden not in recorded
    assert mark(case.kind) in recorded
    assert redact_text(recorded) == recorded


@pytest.mark.parametrize("case", SHAPE_CASES)
@pytest.mark.parametrize("value", ["{}", "--a={},b", "x {} y"])
def test_it_is_replaced_in_variables(case: Case, value: str) -> None:
    found = collect_variables({"XLA_FLAGS": value.format(case.example)})["variables"]["XLA_FLAGS"]
    assert case.hidden not in found
    assert REDACTION.search(found)


@pytest.mark.parametrize("case", CREDENTIALS)
def test_it_is_replaced_in_urls(case: Case) -> None:
    if "://" in case.example or "\n" in case.example or " " in case.example:
        for url in (case.example, f"git+{case.example}"):
            assert case.hidden not in record(url)
        return
    for url in ("https://h.example/{}/x", "https://h.example/x?a=1&b={}", "https://h.example/#{}"):
        assert case.hidden not in record(url.format(case.example))
    assert case.hidden not in record(f"https://h.example/x?y=%3D{case.example}")


@pytest.mark.parametrize("case", CREDENTIALS)
@pytest.mark.parametrize("before", ["", "\n", "\x0b", 'x"', "x\\"])
def test_it_is_refused_in_what_is_signed(case: Case, before: str) -> None:
    """The names of files and metrics, and settings, cannot be replaced: they are what they are."""
    text = before + case.example
    places = {
        "file name": {"manifest": [[text, 1, "00"]]},
        "configuration": {"config": [{"name": text}]},
        "a key": {"seeds": {text: "1"}},
    }
    metrics = [json.dumps({"name": text, "value": 0.5}), json.dumps({"name": "loss", "value": 1})]
    payloads = [json.dumps(document) for document in places.values()] + ["\n".join(metrics)]
    for payload in payloads:
        with pytest.raises(SecretError, match=case.kind.removesuffix("-secret")) as caught:
            refuse_secrets(payload.encode(), ())
        assert case.hidden not in str(caught.value)


@pytest.mark.parametrize("case", SHAPE_CASES)
def test_what_was_replaced_is_not_refused(case: Case) -> None:
    text = redact_text(f"x {case.example} y", in_variable=True)
    refuse_secrets(json.dumps({"a": text}).encode(), ())


@pytest.mark.parametrize(("row", "name"), NAME_CASES)
def test_the_value_of_a_secret_name_is_replaced(row: Name, name: str) -> None:
    hidden = mark(row.kind)
    assert record(f"{name}={VALUE}") == f"train {name}={hidden}"
    assert VALUE not in record(f"--x={json.dumps({name: VALUE})}")
    assert VALUE not in record(f"https://h.example/x?{name}={VALUE}&y=1")
    assert VALUE not in record(f"sh -c '{name}={VALUE} train'")
    option = "--" + name.lstrip("-")
    assert record(option, VALUE) == f"train {option} {hidden}"
    assert VALUE not in record(f"sh -c 'train {option} {VALUE}'")


@pytest.mark.parametrize("name", [case.values[1] for case in NAME_CASES])
def test_a_variable_of_a_secret_name_is_secret(name: str) -> None:
    variable = name.lstrip("-")
    assert [(one.variable, one.value) for one in live_secrets({variable: VALUE})] == [
        (variable, VALUE)
    ]
    listed = collect_variables({f"NCCL_{variable}": VALUE})
    assert VALUE not in str(listed)
    for text in (VALUE, quote(VALUE), VALUE.encode().hex()):
        with pytest.raises(SecretError, match=variable):
            refuse_secrets(json.dumps({"a": text}).encode(), live_secrets({variable: VALUE}))


@pytest.mark.parametrize(("row", "example"), FORM_CASES)
def test_a_form_counts_after_its_programs(row: Form, example: str) -> None:
    words = example.split()
    recorded = record_command(words, PLACES).arguments
    assert "hunter2z" not in " ".join(recorded)
    assert mark(row.kind) in " ".join(recorded)
    assert "hunter2z" not in record("sh", "-c", f"cd x && {example}; true")
    assert "hunter2z" not in record("timeout", "5", *words)


@pytest.mark.parametrize(
    "command",
    [
        "serve -p8080 --host x",
        "sh serve.sh -p8080",
        "docker run -p 8080:80 -u 1000:1000 image",
        "python -u train.py --lr 1",
        "python train.py --device cuda:0 -gpu cuda:0 -u cuda:0",
        "train --pin memory",
        "train --pw 0.5",
        "train -u alice:x",
        "mysql -p database",
        "sh serve.sh --pin-memory",
        "python train.py --pin-memory --power 2",
    ],
)
def test_a_form_is_harmless_elsewhere(command: str) -> None:
    assert list(record_command(command.split(), PLACES).arguments) == command.split()


def test_a_form_counts_in_its_own_command() -> None:
    assert record("sh", "-c", "mysql x; serve -p8080").endswith("serve -p8080")
    assert "hunter2z" not in record("sh", "-c", 'mysql "$@"', "x", "-phunter2z")


@pytest.mark.parametrize(
    "text",
    [
        "mysql -uroot -p'hunter2z' db",
        'mysql -uroot -p"hunter2z" db',
        "sshpass -p'hunter2z' ssh x",
        "curl -u'alice:hunter2z' x",
        "curl --user='alice:hunter2z' x",
        "curl -u alice:'hunter2z' x",
        "curl -ualice:'hunter2z' x",
        "curl -u \\\n  alice:hunter2z x",
        "mysql \\\n  -phunter2z",
        "python t.py --pw='hunter2z'",
        "redis-cli -a'hunter2z'",
        "sqlcmd -P hunter2z",
    ],
)
def test_a_form_counts_however_a_shell_spells_it(text: str) -> None:
    assert "hunter2z" not in record("sh", "-c", text)
    assert "hunter2z" not in record("sh", "-c", f"bash -c {shlex.quote(text)}")


@pytest.mark.parametrize("text", ["docker run -p'8080:80' x", "bash -c \"sh t.sh\" && echo -p'x'"])
def test_what_is_quoted_elsewhere_stays(text: str) -> None:
    assert record("sh", "-c", text) == f"train sh -c {text}"


def test_two_values_of_an_option_are_replaced_but_not_an_option_or_an_input() -> None:
    assert record("sh", "--auth", "a", "b").count("redacted") == 2
    assert record("sh", "--auth", "a", "--lr", "1").count("redacted") == 1
    places = Places(paths={"data:x": Path("/data/x")}, folder=Path("/nowhere"))
    recorded = record_command(("sh", "t.sh", "--auth", "a", "/data/x"), places).arguments
    assert recorded[-1] == "${data:x}"


def test_a_key_of_aws_is_told_by_its_access_key_in_another_argument() -> None:
    secret = "wJalr/7MD+" * 4
    assert secret in record("--x", secret)
    assert secret not in record("--id", "AKIA" + "ABCDEFGH" * 2, "--x", secret)
    commit = "b6b4f3a4c95a8a5e9d3ad8e4f3b7d8a4f3c2e1d0"
    assert commit in record("--id", "AKIA" + "ABCDEFGH" * 2, "--x", commit)


@pytest.mark.parametrize(
    "text",
    [
        "git@example.org:a/b",
        "ssh://git@example.org/a/b",
        "git+https://example.org/a/b@v1.0",
        "b6b4f3a4c95a8a5e9d3ad8e4f3b7d8a4f3c2e1d0",
        "sha256:" + "0123456789abcdef" * 4,
        "image@sha256:" + "0123456789abcdef" * 4,
        "run@best.ckpt",
        "127.0.0.1:8080",
        "8.8.8.8",
        "1.10.0.0.1",
        "numpy==1.26.4",
        "10.2.3",
        "/data/home/x",
        "home/bob",
        "cuda:0",
        "GPU-0",
        "max_split_size_mb:128",
    ],
)
def test_what_is_nobodys_stays(text: str) -> None:
    assert record(text) == f"train {text}"


@pytest.mark.parametrize(
    "value",
    [
        "max_split_size_mb:128,expandable_segments:True",
        "mlx5_0:1,mlx5_1:1",
        ":4096:8",
        "granularity=fine,compact,1,0",
        "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
        "{0:4}:8",
        "eth0,ib0",
        "localhost:8080",
        "--xla_gpu_autotune_level=0",
        "INFO",
    ],
)
def test_what_names_no_host_stays_in_a_variable(value: str) -> None:
    assert collect_variables({"NCCL_X": value})["variables"] == {"NCCL_X": value}


@pytest.mark.parametrize(
    "value", ["node17:29500", "w0.corp.internal", "box-of-alice", "tcp://w0:1", "172.20.1.2:80"]
)
def test_a_host_is_replaced_in_a_variable(value: str) -> None:
    environ = {"NCCL_X": value, "HOSTNAME": "box-of-alice.example"}
    assert REDACTION.match(collect_variables(environ)["variables"]["NCCL_X"].removeprefix("tcp://"))


def test_a_named_variable_is_secret_whatever_it_is_called() -> None:
    environ = {"SIGN": "pw", "HARMLESS": "correct horse"}
    named = live_secrets(environ, named=frozenset({"SIGN", "HARMLESS"}))
    assert {one.value for one in named} == {"pw", "correct horse"}
    assert live_secrets(environ) == ()
    with pytest.raises(SecretError, match="HARMLESS"):
        refuse_secrets(b'["a correct horse b"]', named)
    places = Places(paths={}, folder=Path("/nowhere"), secrets=tuple(one.value for one in named))
    recorded = record_command(("x", "pw", "--y=pw", "a correct horse b"), places).arguments
    assert recorded[1:] == (
        "${redacted:variable}",
        "--y=${redacted:variable}",
        "a ${redacted:variable} b",
    )
