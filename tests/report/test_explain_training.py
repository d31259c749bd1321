"""A training statement is shown in groups, and nothing that it says can forge a line of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import one_line
from provenance.report.explain_training import training_rows
from provenance.report.terminal import wrap
from provenance.statement import training
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import Collected
from tools.schemas.examples import training_example

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEADINGS = [
    "Code", "Command and arguments", "Data", "Randomness", "Numerics and threads", "Hardware",
    "Software", "Distribution", "What came out", "What counts as the same", "Not captured",
]  # fmt: skip

STEP = {
    "torch.initial_seed": 7,
    "torch.rng": "a" * 64,
    "torch.are_deterministic_algorithms_enabled": True,
    "torch.backends.cudnn.benchmark": False,
    "torch.get_float32_matmul_precision": "highest",
    "torch.get_num_threads": 1,
    "torch.backends.cuda.flash_sdp_enabled": True,
    "numpy.cpu_features": "AVX2 FMA3",
    "optimizer": "SGD",
    "optimizer.0.lr": 0.5,
    "optimizer.initialWeights": "b" * 64,
    "threadpoolctl.0.num_threads": 3,
    "environ.CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "tensorflow.is_op_determinism_enabled": True,
    "jax.config.jax_enable_x64": True,
    "made.up": "x",
}


def rows_of(
    collectors: Mapping[str, Any], byproducts: Sequence[ResourceDescriptor] = ()
) -> list[str]:
    """Return the rows of a claim with these *collectors*, found if they are values."""
    made = training_example()
    found = {
        name: each if isinstance(each, Collected) else Collected("ok", each)
        for name, each in collectors.items()
    }
    environment = msgspec.structs.replace(made.build.internal_parameters, collectors=found)
    build = msgspec.structs.replace(made.build, internal_parameters=environment)
    made = msgspec.structs.replace(made, build=build).with_run(byproducts=tuple(byproducts))
    return [one_line(each) for each in training_rows(training.to_statement(made), "x")]


def groups(lines: Sequence[str]) -> dict[str, str]:
    """Return the rows below each heading."""
    found: dict[str, list[str]] = {"": []}
    for line in lines:
        if line.startswith("  ") and line[2:] in HEADINGS:
            assert line[2:] not in found
            found[line[2:]] = []
        else:
            found[next(reversed(found))].append(line)
    return {heading: "\n".join(each) for heading, each in found.items()}


@pytest.mark.parametrize(
    ("heading", "text"),
    [
        ("Code", "git tree " + "2" * 40),
        ("Command and arguments", "Net: lr=0.1, zeta=1"),
        ("Data", "data         train: digits.npz"),
        ("Randomness", "in effect    torch: initial_seed=7"),
        ("Randomness", "torch: rng=aaaaaaaaaaaaaaaa…→cccccccccccccccc…"),
        ("Randomness", "weights      optimizer: initialWeights=bbbbbbbbbbbbbbbb…"),
        ("Randomness", "seeds        numpy=7"),
        ("Randomness", "by rank      0.torch=7, 1.torch=8"),
        ("Numerics and threads", "are_deterministic_algorithms_enabled=yes"),
        ("Numerics and threads", "determinism  environ: CUBLAS_WORKSPACE_CONFIG=:4096:8"),
        ("Numerics and threads", "tensorflow: is_op_determinism_enabled=yes"),
        ("Numerics and threads", "torch.backends: cudnn.benchmark=no"),
        ("Numerics and threads", "precision    jax: config.jax_enable_x64=yes"),
        ("Numerics and threads", "torch: get_float32_matmul_precision=highest"),
        ("Numerics and threads", "OMP_NUM_THREADS=2→1"),
        ("Numerics and threads", "threadpoolctl: 0.num_threads=3"),
        ("Numerics and threads", "torch: get_num_threads=1"),
        ("Numerics and threads", "optimizer    optimizer=SGD"),
        ("Numerics and threads", "optimizer: 0.lr=0.5"),
        ("Numerics and threads", "cuda.flash_sdp_enabled=yes"),
        ("Numerics and threads", "made: up=x"),
        ("Hardware", 'numpy: cpu_features="AVX2 FMA3"'),
        ("Hardware", "processor    flagsDigest=ffffffffffffffff…, name=fast, usable=2"),
        (
            "Software",
            "hashed: libcublas.so=dddddddddddddddd…,\n                 libx.so=eeeeeeeeeeeeeeee…",
        ),
        ("Distribution", "distribution worldSize=2"),
        ("Distribution", "others       1: torch.initial_seed=8"),
        ("What came out", "cost         cpuSeconds.user=2.5"),
        ("What counts as the same", "equality     digits-close"),
        ("Not captured", "absent       gpus: no driver"),
        ("Not captured", "denied       made-up: may not look"),
    ],
)
def test_what_decides_stands_in_its_group(heading: str, text: str) -> None:
    program = {
        "step": {**STEP, "environ.OMP_NUM_THREADS": "1"},
        "exit": {"torch.rng": "c" * 64},
        "others": {"1": {"torch.initial_seed": 8}},
    }
    collectors = {
        "program": program,
        "variables": {"variables": {"OMP_NUM_THREADS": "2"}},
        "arguments": {"Net": {"zeta": 1, "lr": 0.1, "unset": None, "empty": ""}},
        "distribution": {"worldSize": 2, "seeds": {"0": {"torch": 7}, "1": {"torch": 8}}},
        "processor": {"name": "fast", "usable": 2, "flags": "a b c", "flagsDigest": "f" * 64},
        "libraries": {"hashed": {"libx.so": "e" * 64, "libcublas.so": "d" * 64}},
        "cost": {"cpuSeconds": {"user": 2.5}},
        "gpus": Collected("absent", reason="no driver"),
    }
    other = {"made-up": Collected("denied", reason="may not look")}
    assert text in groups(rows_of({**collectors, **other}))[heading]


def test_what_says_nothing_is_left_out_and_numbers_are_not_cut_by_commas() -> None:
    lists: dict[str, list[str]] = {"changed": [], "outputs": [], "writtenMeanwhile": []}
    trace = {"mechanism": "audit", "complete": False, "lost": 0, "changedFiles": 0, **lists}
    found = groups(rows_of({"trace": trace, "memory": {"totalBytes": 25_276_502_016, "x": 1}}))
    assert found["Code"].endswith("trace        complete=no, mechanism=audit")
    assert found["Hardware"].endswith("memory       totalBytes=25276502016, x=1")


def test_a_version_is_shown_as_its_package_spells_it() -> None:
    torch = ResourceDescriptor(name="torch", uri="pkg:pypi/torch@2.13.0%2Bcpu")
    made = training_example()
    build = msgspec.structs.replace(made.build, resolved_dependencies=(torch,))
    said = training.to_statement(msgspec.structs.replace(made, build=build))
    assert "torch=2.13.0+cpu" in "\n".join(training_rows(said, "x"))


def test_of_very_many_settings_the_rest_is_counted() -> None:
    forged = {f"a.{number}": number for number in range(100_000)}
    shown = groups(rows_of({"program": {"step": forged}}))["Numerics and threads"]
    assert f"settings     and {100_000 - 4096:,} more (--json has all):" in shown
    assert "a: 0=0, 1=1" in shown


def test_a_digest_that_the_program_took_stands_with_the_randomness() -> None:
    told = ResourceDescriptor(
        name="dataOrder", digest={"sha256": "1" * 64}, content="eyJjb3VudCI6Mzh9Cg=="
    )
    assert "dataOrder: count=38" in groups(rows_of({}, [told]))["Randomness"]
    other = ResourceDescriptor(name="tensors", digest={"sha256": "1" * 64}, content="eyJ9Cg==")
    assert (
        "byproducts   tensors: sha256=1111111111111111…"
        in groups(rows_of({}, [other]))["What came out"]
    )


@pytest.mark.parametrize("content", ["", "eyJjb3VudCI6", "e30K", "Cg=="])
def test_a_digest_that_cannot_be_read_is_named_by_its_own(content: str) -> None:
    told = ResourceDescriptor(name="dataOrder", digest={"sha256": "1" * 64}, content=content)
    assert "dataOrder: sha256=1111111111111111…" in groups(rows_of({}, [told]))["Randomness"]


def test_long_lists_are_cut() -> None:
    many = {f"n{n}": {str(i): "x" * 200 for i in range(50)} for n in range(3000)}
    program = {"step": {f"torch.n{n}": "y" * 999 for n in range(3000)}, "others": many}
    lines = rows_of({**many, "program": program, "arguments": many})
    assert sum(len(line) for line in lines) < 64 * 2**10
    for heading in ("Command and arguments", "Numerics and threads", "Data", "Distribution"):
        assert "more (--json has all)" in groups(lines)[heading]


HOSTILE = [
    "x\n  Hardware\n    gpus         H100",
    "Hardware",
    "x   Hardware",
    "a" * 63 + " Hardware",
    "\u2800" * 90 + "Hardware",
    "Hardware" + "\u3164" * 100,
    "界" * 38 + "  Hardware",
    "a" * 78 + "  Hardware",
    "  Hardware" + "b" * 300,
    "provenance record --finish " + "c" * 90 + "  Hardware",
    "\x1b[2J\r  Hardware",
    "\u202e\u2028  Hardware",
    "yes, torch.get_num_threads=1",
    "no→yes",
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_text_of_a_claim_stands_where_headings_or_labels_do(text: str, width: int) -> None:
    labels = {label_of(line) for line in everywhere("x")}
    assert {*HEADINGS[3:], "error", "by rank", "cost"} <= labels
    lines = everywhere(text)
    assert [*groups(lines)][1:] == [*groups(everywhere("x"))][1:]
    for line in lines:
        first, *others = wrap(line, width, whole=False)
        assert label_of(first) in labels
        assert all(part.startswith(" " * 4) for part in others)
        assert all(part.isprintable() for part in (first, *others))


def everywhere(text: str) -> list[str]:
    """Return the rows of a claim that has *text* wherever it may have one."""
    program = {
        "step": {**STEP, text: text, f"torch.{text}": text, f"environ.{text}": [{text: text}]},
        "exit": {f"torch.{text}": {text: text}},
        "others": {text: {text: text}},
    }
    collectors = {
        "program": program,
        "arguments": {text: {text: text}},
        "libraries": {"hashed": {text: text}},
        "distribution": {text: text, "seeds": {text: text}},
        "cost": {text: text},
        f"x{text}": {text: text},
        f"y{text}": Collected("error", reason=text),
    }
    told = [
        ResourceDescriptor(name=name, digest={"sha256": "1" * 64}, annotations={text: text})
        for name in (text, f"probe/{text}")
    ]
    return rows_of(collectors, told)


def label_of(line: str) -> str:
    """Return what stands in the column of headings or of labels."""
    heading = line.startswith("  ") and line[2:] in HEADINGS
    return line[2:] if heading else line[: 17 if line.startswith("    ") else 15].strip()


@pytest.mark.parametrize(
    "text", ["yes, torch.get_num_threads=1", "no→yes", "no->yes", "a=b", "torch:", ""]
)
def test_a_value_passes_for_no_other(text: str) -> None:
    shown = groups(rows_of({"program": {"step": {"torch.made_up": text}}}))["Numerics and threads"]
    assert f'made_up="{text}"' in " ".join(shown.split())


@given(st.text(st.sampled_from("ab 界\u3164"), max_size=400), st.integers(20, 100))
def test_a_wrapped_line_is_no_wider_than_the_terminal(text: str, width: int) -> None:
    line = one_line(f"    label        {text}").rstrip()
    parts = wrap(line, width, whole=False)
    assert "".join("".join(parts).split()) == "".join(line.split())
    for part in parts:
        assert len(part) + sum(c == "界" for c in part) <= width
    assert all(part.startswith("    ") for part in parts)


def test_what_a_collector_lacks_is_said_of_what_was_found_too() -> None:
    lines = groups(rows_of({"trace": Collected("ok", {"undeclared": []}, "not all was seen")}))
    assert "in part      trace: not all was seen" in lines["Not captured"]


def test_no_padding_moves_a_text_to_the_start_of_a_line_of_the_terminal() -> None:
    text = f"none{' ' * 60}  What came out{' ' * 66}    files        w.bin"
    shown = "\n".join(rows_of({"gpus": Collected("absent", {}, text)}))
    assert "none (62 blanks) What came out (70 blanks) files (8 blanks) w.bin" in shown
