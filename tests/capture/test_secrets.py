"""Every row of the one table of secrets, in every place where it must be noticed."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from provenance.capture.environment import collect_variables
from provenance.capture.redact import Places, mark, record_command, redact_text
from provenance.capture.scan import live_secrets, refuse_secrets
from provenance.capture.secrets import FORMS, NAMES, SHAPES, Form, Name, Shape
from provenance.errors import SecretError
from provenance.statement.training import REDACTION

PLACES = Places(paths={}, folder=Path("/nowhere"))
VALUE = "f7Qk29xLw03mZt81"

SHAPE_ROWS = [pytest.param(row, id=f"{row.kind}-{n}") for n, row in enumerate(SHAPES)]
TEXT_ROWS = [each for each, row in zip(SHAPE_ROWS, SHAPES, strict=True) if row.scope != "variables"]
CREDENTIALS = [
    each for each, row in zip(SHAPE_ROWS, SHAPES, strict=True) if row.scope == "document"
]
NAME_ROWS = [
    pytest.param(row, example, id=f"{row.kind}-{example}")
    for row in NAMES
    for example in row.examples.split()
]
FORM_ROWS = [pytest.param(row, id=row.example) for row in FORMS]


def record(*arguments: str) -> str:
    return " ".join(record_command(("train", *arguments), PLACES).arguments)


@pytest.mark.parametrize("row", SHAPE_ROWS)
def test_a_row_says_where_it_is_from(row: Shape) -> None:
    assert row.source
    assert row.hidden in row.example
    assert REDACTION.fullmatch(mark(row.kind))


@pytest.mark.parametrize("row", TEXT_ROWS)
@pytest.mark.parametrize(
    "argument",
    ["{}", "--x={}", "--notify=\n{}", '{{"a": "{}"}}', "$ sh -c 'x {}'"],
)
def test_it_is_replaced_in_arguments(row: Shape, argument: str) -> None:
    recorded = record(argument.format(row.example))
    assert row.hidden not in recorded
    assert mark(row.kind) in recorded
    assert redact_text(recorded) == recorded


@pytest.mark.parametrize("row", SHAPE_ROWS)
@pytest.mark.parametrize("value", ["{}", "--a={},b", "x {} y"])
def test_it_is_replaced_in_variables(row: Shape, value: str) -> None:
    found = collect_variables({"XLA_FLAGS": value.format(row.example)})["variables"]["XLA_FLAGS"]
    assert row.hidden not in found
    assert REDACTION.search(found)


@pytest.mark.parametrize("row", CREDENTIALS)
def test_it_is_replaced_in_urls(row: Shape) -> None:
    if "://" in row.example or "\n" in row.example or " " in row.example:
        for url in (row.example, f"git+{row.example}"):
            assert row.hidden not in record(url)
        return
    for url in ("https://h.example/{}/x", "https://h.example/x?a=1&b={}", "https://h.example/#{}"):
        assert row.hidden not in record(url.format(row.example))
    assert row.hidden not in record(f"https://h.example/x?y=%3D{row.example}")


@pytest.mark.parametrize("row", CREDENTIALS)
@pytest.mark.parametrize("before", ["", "\n", "\x0b", 'x"', "x\\"])
def test_it_is_refused_in_what_is_signed(row: Shape, before: str) -> None:
    """The names of files and metrics, and settings, cannot be replaced: they are what they are."""
    text = before + row.example
    places = {
        "file name": {"manifest": [[text, 1, "00"]]},
        "configuration": {"config": [{"name": text}]},
        "a key": {"seeds": {text: "1"}},
    }
    metrics = [json.dumps({"name": text, "value": 0.5}), json.dumps({"name": "loss", "value": 1})]
    payloads = [json.dumps(document) for document in places.values()] + ["\n".join(metrics)]
    for payload in payloads:
        with pytest.raises(SecretError, match=row.kind.removesuffix("-secret")) as caught:
            refuse_secrets(payload.encode(), ())
        assert row.hidden not in str(caught.value)


@pytest.mark.parametrize("row", SHAPE_ROWS)
def test_what_was_replaced_is_not_refused(row: Shape) -> None:
    text = redact_text(f"x {row.example} y", in_variable=True)
    refuse_secrets(json.dumps({"a": text}).encode(), ())


@pytest.mark.parametrize(("row", "name"), NAME_ROWS)
def test_the_value_of_a_secret_name_is_replaced(row: Name, name: str) -> None:
    hidden = mark(row.kind)
    assert record(f"{name}={VALUE}") == f"train {name}={hidden}"
    assert VALUE not in record(f"--x={json.dumps({name: VALUE})}")
    assert VALUE not in record(f"https://h.example/x?{name}={VALUE}&y=1")
    assert VALUE not in record(f"sh -c '{name}={VALUE} train'")
    option = "--" + name.lstrip("-")
    assert record(option, VALUE) == f"train {option} {hidden}"
    assert VALUE not in record(f"sh -c 'train {option} {VALUE}'")


@pytest.mark.parametrize(("row", "name"), NAME_ROWS)
def test_a_variable_of_a_secret_name_is_secret(row: Name, name: str) -> None:
    variable = name.lstrip("-")
    assert [(one.variable, one.value) for one in live_secrets({variable: VALUE})] == [
        (variable, VALUE)
    ]
    assert row.source
    listed = collect_variables({f"NCCL_{variable}": VALUE})
    assert VALUE not in str(listed)
    for text in (VALUE, quote(VALUE), VALUE.encode().hex()):
        with pytest.raises(SecretError, match=variable):
            refuse_secrets(json.dumps({"a": text}).encode(), live_secrets({variable: VALUE}))


@pytest.mark.parametrize("row", FORM_ROWS)
def test_a_form_counts_after_its_programs(row: Form) -> None:
    words = row.example.split()
    recorded = record_command(words, PLACES).arguments
    assert "hunter2z" not in " ".join(recorded)
    assert mark(row.kind) in " ".join(recorded)
    assert "hunter2z" not in record("sh", "-c", f"cd x && {row.example}; true")
    assert "hunter2z" not in record("timeout", "5", *words)
    assert row.source


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
