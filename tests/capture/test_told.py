"""What a program says of its weights, its order, its checkpoints and what it was told."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.capture.command import Places
from provenance.capture.python import records
from provenance.capture.python.told import MAX_SETS, Arguments, Digest, Told
from provenance.capture.run import MAX_ARGUMENTS, RECORDS, Run

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "hf_" + "abcdEFGH1234ijklMNOP5678qrstUVWXyz"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("RANK", raising=False)
    records.prepare(tmp_path)
    return Run(str(tmp_path))


def told(directory: Path) -> Told:
    found = records.read_records(directory)
    assert not found.damaged
    return found.told


def digest_of(directory: Path) -> str:
    [digest] = told(directory).digests
    return digest.sha256


def test_the_digest_of_tensors_is_the_one_that_is_documented(run: Run, tmp_path: Path) -> None:
    b = np.arange(6, dtype=">f4").reshape(2, 3)
    run.initial_weights({"w": {"b": b, "ä": np.float64(0.5)}, "a": [np.array([1], "i2")]}, step=0)
    expected = hashlib.sha256(
        b'["a.0","int16",[1]]\n\x01\x00'
        b'["w.b","float32",[2,3]]\n' + b.astype("<f4").tobytes() + b'["w.\\u00e4","float64",[]]\n'
        b"\x00\x00\x00\x00\x00\x00\xe0\x3f"
    ).hexdigest()
    assert told(tmp_path).digests == [
        Digest("initialWeights", expected, count=3, step=0),
    ]


def test_what_differs_has_another_digest(tmp_path: Path) -> None:
    base = np.arange(4, dtype=np.float32)
    cases: list[Any] = [
        {"w": base},
        {"v": base},
        {"w": base.reshape(2, 2)},
        {"w": base.astype(np.int32)},
        {"w": base.view(np.int32)},
        {"w": base + 1},
        {"w": base, "n": 1},
        {"w": base, "n": True},
        {"w": [base]},
    ]
    found = set()
    for number, case in enumerate(cases):
        directory = tmp_path / str(number)
        directory.mkdir()
        records.prepare(directory)
        Run(str(directory)).initial_weights(case)
        found.add(digest_of(directory))
    assert len(found) == len(cases)


def test_a_view_counts_as_its_values(tmp_path: Path) -> None:
    found = set()
    for number, array in enumerate([np.arange(6).reshape(2, 3), np.arange(12)[::2].reshape(2, 3)]):
        directory = tmp_path / str(number)
        directory.mkdir()
        records.prepare(directory)
        Run(str(directory)).probe("p", {"w": array if number == 0 else array // 2})
        found.add(digest_of(directory))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("order", "lines", "count"),
    [
        (range(3), b"0\n1\n2\n", 3),
        (np.array([2, 0]), b"2\n0\n", 2),
        ([[1, 2], (3,)], b"[1,2]\n[3]\n", 2),
        ([np.array([1, 2]), np.int64(3)], b"[1,2]\n3\n", 2),
        ([], b"", 0),
    ],
)
def test_an_order_is_lines(run: Run, tmp_path: Path, order: Any, lines: bytes, count: int) -> None:  # noqa: ANN401
    run.data_order(order)
    expected = Digest("dataOrder", hashlib.sha256(lines).hexdigest(), count=count)
    assert told(tmp_path).digests == [expected]


def test_an_order_may_be_a_digest(run: Run, tmp_path: Path) -> None:
    run.data_order("ab" * 32)
    assert told(tmp_path).digests == [Digest("dataOrder", "ab" * 32)]


class Draws:
    """A sampler: to ask it for its order would draw."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Any:  # noqa: ANN401
        raise AssertionError


class Hostile:
    @property
    def shape(self) -> Any:  # noqa: ANN401
        raise KeyError


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.data_order(Draws()),
        lambda run: run.data_order(iter([1])),
        lambda run: run.data_order("ab"),
        lambda run: run.data_order([0.5]),
        lambda run: run.data_order(range(2**40)),
        lambda run: run.initial_weights({}),
        lambda run: run.initial_weights(None),
        lambda run: run.initial_weights(Hostile()),
        lambda run: run.initial_weights(LOOP),
        lambda run: run.initial_weights({"w": np.array([object()])}),
        lambda run: run.probe("", {"w": np.zeros(1)}),
        lambda run: run.probe("p", object()),
        lambda run: run.checkpoint(3),
        lambda run: run.checkpoint("a\0b"),
        lambda run: run.checkpoint("c", step=0.5),
        lambda run: run.arguments(3),
        lambda run: run.arguments(LOOP),
        lambda run: run.arguments({str(n): n for n in range(MAX_ARGUMENTS + 1)}),
    ],
)
def test_what_cannot_be_told_is_counted(
    run: Run, tmp_path: Path, call: Callable[[Run], None]
) -> None:
    call(run)
    run.metric("loss", 1.0)
    found = records.read_records(tmp_path)
    assert (found.dropped + found.damaged, found.count, found.told) == (1, 1, Told())


def test_a_checkpoint_is_a_whole_path(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    run.checkpoint("model/step 10", step=10)
    assert not told(tmp_path).digests
    place = f'"checkpoint":"{tmp_path}/model/step 10","step":10,"rank":1'
    assert place in (tmp_path / RECORDS).read_text()


class Mode(enum.Enum):
    SLOW = "slow"


@dataclasses.dataclass
class Settings:
    rate: float
    mode: Mode
    out: Path
    many: int
    nested: dict[str, Any]
    thing: Any = None


def test_arguments_are_flat(run: Run, tmp_path: Path) -> None:
    nested = {"a": [1, {"b": float("nan")}], "on": True, "lambda": lambda: 0}
    run.arguments(Settings(0.5, Mode.SLOW, Path("/x/y"), 2**60, nested))
    assert told(tmp_path).arguments == {
        "Settings": {
            "rate": 0.5,
            "mode": "slow",
            "out": "/x/y",
            "many": str(2**60),
            "nested.a.0": 1,
            "nested.a.1.b": "nan",
            "nested.on": True,
            "nested.lambda": "<function>",
            "thing": None,
        }
    }


def test_many_arguments_are_several_records(run: Run, tmp_path: Path) -> None:
    values = {f"é{number}": "é" * 100 for number in range(200)}
    run.arguments(values)
    assert told(tmp_path).arguments == {"arguments": values}
    lines = [line for line in (tmp_path / RECORDS).read_bytes().split(b"\n") if line]
    assert len(lines) > 10
    assert max(map(len, lines)) <= 4096


def test_none_are_none(run: Run, tmp_path: Path) -> None:
    run.arguments(argparse.Namespace())
    assert told(tmp_path).arguments == {"Namespace": {}}


PLACES = Places(
    paths={"data:train": Path("/srv/rows")},
    folder=Path("/home/ada/work"),
    home="/home/ada",
    user="ada",
    secrets=("a live secret",),
)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("hub_token", "abc", "${redacted:"),
        ("password", "abc", "${redacted:"),
        ("password", 12345678, "${redacted:"),
        ("db.password", "abc", "${redacted:"),
        ("report_to", SECRET, "${redacted:"),
        ("note", "a live secret", "${redacted:variable}"),
        ("dataset", "https://ada:pw@example.org/d", "https://${redacted:"),
        ("command", "curl -u ada:hunter2 x", "curl -u ${redacted:"),
        ("cache", "/home/ada/cache", "${home}/cache"),
        ("elsewhere", "/data/ada/x", "/data/${user}/x"),
        ("train", "/srv/rows/a.csv", "${data:train}/a.csv"),
        ("output_dir", "/home/ada/work/out", "out"),
        ("learning_rate", 0.5, 0.5),
        ("num_tokens", 512, 512),
        ("none", None, None),
        ("flag_token", True, True),
    ],
)
def test_arguments_are_redacted_as_a_command_is(name: str, value: Any, shown: Any) -> None:  # noqa: ANN401
    found = Told()
    assert found.take(Arguments("A", {name: value}))
    [(said, redacted)] = found.described(PLACES).values["A"].items()
    assert said == name
    assert redacted == shown or (isinstance(shown, str) and str(redacted).startswith(shown))
    assert str(value) == str(redacted) or str(value) not in json.dumps(redacted)


def test_an_option_and_its_value_in_a_list(run: Run, tmp_path: Path) -> None:
    words = ["--hub-token", "hunter2", "curl", "-u", "ada:hunter3", "--password", 12345678, "kept"]
    run.arguments({"argv": words})
    [(_, values)] = told(tmp_path).described(PLACES).values.items()
    assert "hunter" not in json.dumps(values)
    assert "12345678" not in json.dumps(values)
    assert (values["argv.0"], values["argv.7"]) == ("--hub-token", "kept")


AWS = "AKIA" + "IOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG" + "/bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("values", "secret"),
    [
        ({"api_keys": ["Zq7xP2mN8vR4tK1w"]}, "Zq7x"),
        ({"logins": [["password", "hunter2"]]}, "hunter2"),
        ({"env": [{"name": "HUB_TOKEN", "value": "hunter2"}]}, "hunter2"),
        ({"env": {"key": "HUB_TOKEN", "value": 1234567}}, "1234567"),
        ({"a": {"aws_access_key_id": AWS[0]}, "b": {"other": AWS[1]}}, AWS[1]),
        ({SECRET: 1}, "hf_"),
        *(({"x" * n + "." + SECRET: 1, "short": 1}, "hf_") for n in range(30, 62, 5)),
        ({"a live secret": 1}, "a live secret"),
        ({"/home/ada/x": 1, "/data/ada/x": 2}, "ada"),
    ],
)
def test_secrets_in_names_and_beside_them(
    run: Run,
    tmp_path: Path,
    values: Any,  # noqa: ANN401
    secret: str,
) -> None:
    run.arguments(values)
    text = json.dumps(told(tmp_path).described(PLACES).values)
    assert secret not in text
    assert "${" in text or "\\u2026" in text


def test_names_that_are_shown_alike_stay_apart(run: Run, tmp_path: Path) -> None:
    names = [SECRET, SECRET + "a", *("a" * 40 + "." + "b" * 40 + str(n) for n in range(3))]
    run.arguments(dict.fromkeys(names, 1))
    assert len(told(tmp_path).described(PLACES).values["arguments"]) == len(names) - 2


@pytest.mark.parametrize("before", ["x ", 'a="', "u://", "/", "x,", "k=", "("])
@pytest.mark.parametrize(
    "secret", [SECRET, "https://ada:" + "p" * 40 + "@example.org/", "ada:" + "q" * 40 + "@host.org"]
)
def test_a_secret_where_the_program_cut_is_left_out(
    run: Run, tmp_path: Path, before: str, secret: str
) -> None:
    for kept in range(5, len(secret), 7):
        start = "word " * 110
        run.arguments({f"x{kept}": start[: 512 - kept - len(before)] + before + secret})
    [(_, values)] = told(tmp_path).described(PLACES).values.items()
    assert len(values) > 3
    text = json.dumps(values)
    assert not any(piece in text for piece in ("hf_a", "pppp", "qqqq"))
    assert "word word" in text


@pytest.mark.parametrize(
    "name", ["hub_token", "api-key", "wandb.api_key", "--password", "sas_token", "accessToken"]
)
def test_a_text_that_its_name_calls_secret_is_not_even_written(
    run: Run, tmp_path: Path, name: str
) -> None:
    run.arguments({name: "hunter2", "kept": "hunter3"})
    written = (tmp_path / RECORDS).read_text()
    assert "hunter2" not in written
    assert "hunter3" in written
    shown = told(tmp_path).described(PLACES).values["arguments"][name]
    assert shown.startswith("${redacted:")


@pytest.mark.parametrize(
    "name",
    ["tokenizer_name", "author", "data.path", "pad_token", "compat", "secretary"],
)
def test_a_name_that_only_contains_such_a_word_hides_nothing(
    run: Run, tmp_path: Path, name: str
) -> None:
    run.arguments({name: "bert-base"})
    assert told(tmp_path).described(PLACES).values["arguments"] == {name: "bert-base"}


@pytest.mark.parametrize(
    "line",
    [
        '{"digest":"weights","sha256":"%s"}' % ("a" * 64),
        '{"digest":"probe","sha256":"abc"}',
        '{"digest":"probe","sha256":"%s","step":1.5}' % ("a" * 64),
        '{"digest":"probe","sha256":"%s","of":""}' % ("a" * 64),
        '{"digest":"probe","sha256":"%s","more":1}' % ("a" * 64),
        '{"checkpoint":"relative"}',
        '{"checkpoint":"/a\\u0000b"}',
        '{"arguments":"A","values":{"x":[1]}}',
        '{"arguments":"A","values":{"x":1e999}}',
        '{"arguments":"A","values":{"x":1152921504606846976}}',
        '{"arguments":"","values":{}}',
        '{"arguments":"A","values":{"x":"%s"}}' % ("x" * 513),
    ],
)
def test_a_record_of_another_form_is_damaged(tmp_path: Path, line: str) -> None:
    (tmp_path / RECORDS).write_text(f"{line}\n")
    found = records.read_records(tmp_path)
    assert (found.damaged, found.told) == (1, Told())


def test_digests_are_byproducts_by_step_and_rank() -> None:
    found = Told()
    for step, rank in ((1, 1), (0, 1), (1, 0), (0, 0)):
        assert found.take(Digest("probe", "a" * 64, of="p/q", count=2, step=step, rank=rank))
    assert found.take(Digest("initialWeights", "b" * 64))
    lines = dict(found.byproducts())
    assert lines["initialWeights"] == b'{"sha256":"%s"}\n' % (b"b" * 64)
    rows = [json.loads(line) for line in lines["probe/p/q"].splitlines()]
    assert [(row["step"], row["rank"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert rows[0] == {"count": 2, "rank": 0, "sha256": "a" * 64, "step": 0}


def test_a_flood_of_probes_is_cut() -> None:
    found = Told()
    taken = [found.take(Digest("probe", "a" * 64, of=str(n % 1000))) for n in range(2000)]
    assert taken == ([True] * MAX_SETS + [False] * (1000 - MAX_SETS)) * 2
    assert len(dict(found.byproducts())) == MAX_SETS
