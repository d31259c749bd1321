from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.capture.command import Places, fill, record_command
from provenance.capture.process import is_python
from provenance.errors import UsageError
from provenance.statement.training import REDACTION

FOLDER = Path("/home/alice/project")
PLACES = Places(
    paths={
        "model": Path("out/model"),
        "data:train": Path("/data/digits"),
        "data:eval": Path("/data/digits/eval"),
        "config:a.toml": Path("conf/a.toml"),
        "baseModel": Path("../base"),
    },
    folder=FOLDER,
    home="/home/alice",
    user="alice",
    secrets=("correct horse battery",),
)
TOKEN = "hf_" + "aB3" * 10
REDACTED = "${redacted}"
"""Stands for a mark of any type."""


def untyped(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(REDACTION.sub(REDACTED, argument) for argument in arguments)


def record(*arguments: str) -> tuple[str, ...]:
    return record_command(("python", *arguments), PLACES).arguments[1:]


@pytest.mark.parametrize(
    ("argument", "recorded"),
    [
        ("out/model", "${model}"),
        ("./out//model/", "${model}"),
        ("/home/alice/project/out/model", "${model}"),
        ("out/x/../model", "${model}"),
        ("--model=out/model", "--model=${model}"),
        ("trainer.output_dir=out/model", "trainer.output_dir=${model}"),
        ("out/model/weights.npz", "${model}/weights.npz"),
        ("out/model-2", "out/model-2"),
        ("model", "model"),
        ("/data/digits", "${data:train}"),
        ("/data/digits/a.csv", "${data:train}/a.csv"),
        ("/data/digits/eval/b.csv", "${data:eval}/b.csv"),
        ("conf/a.toml", "${config:a.toml}"),
        ("--config=conf/a.toml", "--config=${config:a.toml}"),
        ("../base/w.bin", "${baseModel}/w.bin"),
        ("/home/alice/project/train.py", "train.py"),
        ("/home/alice/cache", "${home}/cache"),
        ("--cache=/home/alice/cache", "--cache=${home}/cache"),
        ("/home/alicea/cache", "/home/${redacted:user}/cache"),
        ("~bob/cache", "~${redacted:user}/cache"),
        ("git@example.org:a/b", "git@example.org:a/b"),
        ("ssh://git@example.org/a/b", "ssh://git@example.org/a/b"),
        ("--cuda=GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "--cuda=${redacted:gpu-uuid}"),
        ("$${redacted:email}", "$$${redacted:email}"),
        ("${redacted:email}", "$${redacted:email}"),
        ("/scratch/alice/cache", "/scratch/${user}/cache"),
        ("https://example.org/alice/x", "https://example.org/alice/x"),
        ("s3://data/digits", "s3://data/digits"),
        ("", ""),
        ("--x=", "--x="),
        ("a\0b", "a\0b"),
        ("${HOME}", "$${HOME}"),
        ("$${model}", "$$${model}"),
        ("$HOME {x}", "$HOME {x}"),
        ("--a=${model}", "--a=$${model}"),
        ("caf\udce9", "caf${byte:e9}"),
        (r"caf\xe9", r"caf\xe9"),
        ("$$\udcff{\udcfe", "${byte:24}${byte:24}${byte:ff}{${byte:fe}"),
        ("${byte:ff}", "$${byte:ff}"),
        ("['/data/digits', '/data/digits/eval/b']", "['${data:train}', '${data:eval}/b']"),
        ('{"a": "/data/digits/", "b":1}', '{"a": "${data:train}", "b":1}'),
        (r"{\"a\": \"/data/digits\"}", r"{\"a\": \"${data:train}\"}"),
        ("x=[/data/digits,/data/digits/a]", "x=[${data:train},${data:train}/a]"),
        ("-v/data/digits:/in:ro", "-v${data:train}:/in:ro"),
        ("train:/data//digits/./a", "train:${data:train}/a"),
        ("/data/digits/*.csv /data/digits/b-?", "${data:train}/*.csv ${data:train}/b-?"),
        ("a b/data/digits", "a b/data/digits"),
        ("a /data/digits2 /data/digits.bak", "a /data/digits2 /data/digits.bak"),
        ("a /data/digits* /data/digits[1] /data/digits=2", None),
        ('a "$X"/data/digits $X/data/digits ${X}/data/digits', None),
        ("a $(b)/data/digits `b`/data/digits '/data/digits'x/data/digits", None),
        ("a file:///data/digits s3://data/digits", None),
        ("a data out/model", "a data out/model"),
        ("x" * 100_000, "x" * 100_000),
    ],
)
def test_paths_become_placeholders(argument: str, recorded: str | None) -> None:
    if recorded is None:  # as it is, but for what is escaped
        recorded = argument.replace("${", "$${").replace("'/data/digits'", "'${data:train}'")
    assert record(argument) == (recorded,)


@pytest.mark.parametrize(
    ("script", "recorded"),
    [
        ("python t.py /data/digits", "python t.py ${data:train}"),
        (
            "python t.py out/model/ --x=out/../conf/a.toml",
            "python t.py ${model} --x=${config:a.toml}",
        ),
        ("A=../base python t.py 'out/model'>log;ls out/model", None),
        ("python t.py \"out/model\" 'my out/model'", "python t.py \"${model}\" 'my out/model'"),
        ("python -c 'import out/model'", "python -c 'import out/model'"),
        ("cat {out/model,x} out/model* x:out/model", "cat {out/model,x} out/model* x:out/model"),
        ("cd sub && python t.py out/model /data/digits", None),
    ],
)
def test_the_words_of_a_shell_become_placeholders(script: str, recorded: str | None) -> None:
    others = {
        "A=": "A=${baseModel} python t.py '${model}'>log;ls ${model}",
        "cd": "cd sub && python t.py out/model ${data:train}",
    }
    recorded = recorded or others[script[:2]]
    for shell in (("bash", "-c"), ("nice", "/bin/sh", "-ec"), ("bash", "-o", "pipefail", "-c")):
        assert record_command((*shell, script), PLACES).arguments[-1] == recorded
    values = {"model": "out/model", "data:train": "/data/digits", "config:a.toml": "conf/a.toml"}
    if recorded == script:
        assert fill((recorded,), values) == (script,)


def test_only_a_shells_words_are_relative_paths() -> None:
    for words in (("python", "-c"), ("bash", "x.sh"), ("bash",)):
        argument = "print out/model"
        assert record_command((*words, argument), PLACES).arguments[-1] == argument


def test_another_place_is_the_same_command() -> None:
    def recorded(place: str, *command: str) -> tuple[str, ...]:
        return record_command(command, Places({"data:x": Path(place)}, FOLDER)).arguments

    for form in ("{}", "--x={}", "-x{}", "{}/", "a {}", "x '{}'", '["{}"]', "{}:{}"):
        mine, theirs = (form.replace("{}", place) for place in ("/a/data", "/other/place"))
        assert recorded("/a/data", "t", mine) == recorded("/other/place", "t", theirs), form
    assert recorded("/a/data", "sh", "-c", "t /a/data") == recorded("d", "sh", "-c", "t d")


def test_a_parent_folder_of_a_link_is_not_that_of_its_name(tmp_path: Path) -> None:
    for name in ("here", "there/below", "there/data", "here/data"):
        tmp_path.joinpath(name).mkdir(parents=True)
    tmp_path.joinpath("here/link").symlink_to(tmp_path / "there/below")
    places = Places(paths={"data:x": Path("data")}, folder=tmp_path / "here")
    recorded = record_command(("t", "link/../data", "data/../data"), places)
    assert recorded.arguments[1:] == ("link/../data", "${data:x}")


@pytest.mark.parametrize(
    ("program", "recorded"),
    [
        ("/usr/bin/python3.11", "python3.11"),
        ("../venv/bin/python", "python"),
        (".venv/bin/python3", "python3"),
        ("torchrun", "torchrun"),
        ("/opt/bin/torchrun", "torchrun"),
        ("./train.sh", "./train.sh"),
        ("/data/digits/run", "run"),
    ],
)
def test_a_program_goes_by_its_name(program: str, recorded: str) -> None:
    assert record_command((program,), PLACES).arguments == (recorded,)


def test_a_python_behind_a_launcher_goes_by_its_name() -> None:
    """Two people have it in two places."""
    words = ("nice", "-n", "5", "/venvs/a/bin/python3", "t.py")
    assert record_command(words, PLACES).arguments == ("nice", "-n", "5", "python3", "t.py")
    for python in ("/venvs/a/bin/python3", ".venv/bin/python3"):
        shell = record_command(("bash", "-c", f"{python} t.py && '{python}' u.py"), PLACES)
        assert shell.arguments[-1] == f"python3 t.py && '{python}' u.py"


def test_a_link_to_an_input_is_that_input(tmp_path: Path) -> None:
    tmp_path.joinpath("real").mkdir()
    tmp_path.joinpath("link").symlink_to("real")
    places = Places(paths={"data:x": tmp_path / "real"}, folder=tmp_path)
    recorded = record_command(("python", "link/a", os.path.relpath(tmp_path / "real")), places)
    assert recorded.arguments[1] == "${data:x}/a"


@pytest.mark.parametrize(
    ("arguments", "recorded", "redacted"),
    [
        (("--token", "abc"), ("--token", REDACTED), (2,)),
        (("--token=abc",), (f"--token={REDACTED}",), (1,)),
        (("--token="), ("--token=",), ()),
        (("wandb.api_key=abc",), (f"wandb.api_key={REDACTED}",), (1,)),
        (("HF_TOKEN=abc", "python"), (f"HF_TOKEN={REDACTED}", "python"), (1,)),
        (("--use-auth-token", "--lr", "1"), ("--use-auth-token", "--lr", "1"), ()),
        (("--max-tokens", "100"), ("--max-tokens", "100"), ()),
        (("--tokenizer", "bert"), ("--tokenizer", "bert"), ()),
        (("--image-key", "jpg"), ("--image-key", "jpg"), ()),
        (("--wandb-key", "a1b2c3d4e5f6a7b8"), ("--wandb-key", REDACTED), (2,)),
        (("--x", TOKEN), ("--x", REDACTED), (2,)),
        (("https://u:p@h/x",), ("https://${redacted}@h/x",), (1,)),
        (("say correct horse battery!",), (f"say {REDACTED}!",), (1,)),
        (("$correct horse battery",), (REDACTED,), (1,)),
        (("--password", "-hunter2zz"), ("--password", REDACTED), (2,)),
        (("--password", "--hunter2"), ("--password", REDACTED), (2,)),
        (("--password", "--token", "x"), ("--password", REDACTED, REDACTED), (2, 3)),
        (("--db-pass", "hunter2"), ("--db-pass", REDACTED), (2,)),
        (("X-Api-Key: hunter2",), (f"X-Api-Key: {REDACTED}",), (1,)),
        (('--o={"api_key": "x"}',), (f'--o={{"api_key": "{REDACTED}"}}',), (1,)),
        (("--revision", "b6b4f3a4c95a8a5e"), ("--revision", "b6b4f3a4c95a8a5e"), ()),
    ],
)
def test_secrets_are_cut(
    arguments: tuple[str, ...] | str, recorded: tuple[str, ...], redacted: tuple[int, ...]
) -> None:
    words = (arguments,) if isinstance(arguments, str) else arguments
    found = record_command(("python", *words), PLACES)
    assert untyped(found.arguments[1:]) == recorded
    assert found.redacted == redacted


def test_a_secret_that_holds_a_placeholder_is_cut_whole() -> None:
    places = Places(paths={}, folder=FOLDER, secrets=("pass${model}word",))
    recorded = record_command(("x", "a pass${model}word b"), places)
    assert recorded.arguments[1] == "a ${redacted:variable} b"


def test_secrets_are_not_in_the_representation() -> None:
    assert "battery" not in repr(PLACES)


def test_a_recorded_command_is_filled_with_other_paths() -> None:
    given = ("out/model/w", "--d=/data/digits", "${x}", "$${y}", "/home/alice/z", "a /data/digits")
    values = {"model": "M", "data:train": "D", "home": "H"}
    assert fill(record(*given), values) == ("M/w", "--d=D", "${x}", "$${y}", "H/z", "a D")


@given(st.lists(st.text(st.sampled_from("${}byte:24f\\x\udcff\udc80 "), max_size=12), max_size=3))
def test_bytes_and_the_text_of_their_escapes_come_back(arguments: list[str]) -> None:
    recorded = record_command(("program", *arguments), Places({}, Path("/nowhere"))).arguments
    for argument in recorded:
        argument.encode()
    assert fill(recorded[1:], {}) == tuple(arguments)


@pytest.mark.parametrize(
    "argument", ["${data:other}", "${redacted:x}", "${model", "${}", "${byte:fff}", "${byte:ff"]
)
def test_what_has_no_value_is_refused(argument: str) -> None:
    with pytest.raises(UsageError, match="needs"):
        fill((argument,), {"model": "M"})


def test_pythons() -> None:
    for name in ("python", "/x/python3", "python3.13", "python3.13t", "pypy3"):
        assert is_python(name)
    for name in ("pythonista", "ipython", "python-config", "bash", ""):
        assert not is_python(name)


@given(st.lists(st.text(st.sampled_from("${}a/.=-:" + "é\n \\'\""), max_size=12), max_size=4))
def test_what_is_recorded_can_be_filled_back(arguments: list[str]) -> None:
    places = Places(paths={"model": Path("a")}, folder=Path("/nowhere"))
    recorded = record_command(("program", *arguments), places).arguments[1:]
    filled = fill(recorded, {"model": "/nowhere/a"})
    for argument, again in zip(arguments, filled, strict=True):
        name, _, value = argument.rpartition("=")
        same = again == argument or os.path.normpath(
            Path("/nowhere") / again.rpartition("=")[2]
        ) == os.path.normpath(Path("/nowhere") / value)
        assert same, (argument, again, name)


@given(st.lists(st.text(max_size=30), max_size=5))
def test_any_command_is_recorded_without_error(arguments: list[str]) -> None:
    recorded = record_command(("program", *arguments), PLACES)
    for argument in recorded.arguments:
        argument.encode()
