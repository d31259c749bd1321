"""Curves under a declaration: where they come from, what holds, what is undecided."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from provenance.equality.declaration import parse
from provenance.errors import ContentError
from tests.judge.evidence import THROUGH, WEIGHTS, Judge, declare
from tests.judge.models import compare_models, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.judge.evidence import Answer

STEPS = range(0, 300, 10)
LOSS = [2.0 * 0.9**index + 0.1 for index in range(30)]


def rule(*lines: str, curves: str = "loss", points: int = 10) -> str:
    """Return a rule through which alone the weights are judged."""
    head = (
        "equality = 'curves'",
        f"curves = ['{curves}']",
        "pointwise = 1e-3",
        "terminal = 1e-2",
        f"points = {points}",
    )
    return "\n".join((*head, *lines)) + "\n" + THROUGH


def records(values: Sequence[float], steps: Sequence[int] = STEPS, name: str = "loss") -> bytes:
    """Return a curve as it is recorded."""
    lines = (
        {"name": name, "step": step, "value": value}
        for step, value in zip(steps, values, strict=True)
    )
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()


def csv(values: Sequence[float], steps: Sequence[int] = STEPS) -> bytes:
    rows = (f"{step},{value!r}\n" for step, value in zip(steps, values, strict=True))
    return ("step,loss\n" + "".join(rows)).encode()


def trainer_state(values: Sequence[float], steps: Sequence[int] = STEPS) -> bytes:
    log = [{"step": step, "loss": value} for step, value in zip(steps, values, strict=True)]
    return json.dumps({"log_history": log, "best_metric": None}).encode()


SOURCES: dict[str, Callable[..., bytes]] = {
    "logs/metrics.jsonl": records,
    "metrics.csv": csv,
    "trainer_state.json": trainer_state,
}


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


@pytest.fixture
def recorded(judge: Judge) -> Callable[..., Answer]:
    """Judge two curves that were recorded."""

    def judged(left: bytes | None, right: bytes | None, text: str = "") -> Answer:
        return judge({}, {}, text or rule(), recorded=(left, right))

    return judged


# --- Where curves come from -----------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_curves_in_files_are_plausible_and_never_more(judge: Judge, name: str) -> None:
    form = SOURCES[name]
    drifted = [value * (1 + 1e-5 * index) for index, value in enumerate(LOSS)]
    answer = judge({name: form(LOSS)}, {name: form(drifted)}, rule(f"sources = ['{name}']"))
    assert (answer.conclusion, answer.outcome.strongest) == ("plausible", "curves")
    missing, end = answer.found("points-missing"), answer.found("terminal-difference")
    assert (missing.file, missing.tensor, missing.value, missing.limit) == (name, "loss", 0, 0)
    assert end.value == pytest.approx(2.5e-4, rel=0.1)
    largest = answer.found("largest-relative-difference")
    assert (largest.limit, largest.place) == (None, (290,))
    assert largest.value == pytest.approx(2.9e-4, rel=0.01)


def test_recorded_curves(recorded: Callable[..., Answer]) -> None:
    answer = recorded(records(LOSS), records(LOSS))
    assert answer.conclusion == "plausible"
    assert answer.found("points-missing").file == "recorded metrics"
    stepless = b'{"name":"loss","value":1.0}\n' * 10
    assert recorded(stepless, stepless).conclusion == "plausible"


@pytest.mark.parametrize("sides", [(None, b""), (b"", None), (None, None)])
def test_without_recorded_metrics_nothing_can_be_said(
    recorded: Callable[..., Answer], sides: tuple[bytes | None, bytes | None], tmp_path: Path
) -> None:
    answer = recorded(*sides)
    side = "left" if sides[0] is None else "right"
    assert answer.conclusion == "inconclusive"
    assert answer.missing.startswith(f"recorded metrics ({side}): not at hand (")
    assert str(tmp_path) not in answer.missing  # it is signed


def test_malformed_records_leave_the_rule_undecided(recorded: Callable[..., Answer]) -> None:
    answer = recorded(records(LOSS), b'{"name":"loss","step":0.5,"value":1}\n')
    assert answer.conclusion == "inconclusive"
    assert answer.missing.startswith("recorded metrics (right):1: ")


UNREADABLE = {
    "another form": ("curves.bin", b"x", "cannot be read by this version"),
    "no CSV": ("m.csv", b"a,b\n1,2\n", "no column is called 'step'"),
    "cut off": ("m.jsonl", b'{"name":"loss","value":1}', "the file is truncated"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_read_leaves_the_rule_undecided(judge: Judge, case: str) -> None:
    name, data, words = UNREADABLE[case]
    answer = judge({name: data}, {name: data + b"\n"}, rule(f"sources = ['{name}']"))
    assert answer.conclusion == "inconclusive"
    assert words in answer.missing


def test_which_side_cannot_be_read_is_told(judge: Judge) -> None:
    answer = judge({"m.csv": csv(LOSS)}, {"m.csv": b"\xff"}, rule("sources = ['m.csv']"))
    assert answer.missing.startswith("right: m.csv: ")


def test_what_is_against_the_rule_counts_beside_what_cannot_be_read(judge: Judge) -> None:
    broken = {"a.csv": b"\xff"}
    left, right = {"b.csv": csv(LOSS)}, {"b.csv": csv(LOSS[::-1])}
    answer = judge(broken | left, broken | right, rule("sources = ['*.csv']"))
    assert answer.conclusion == "mismatch"
    assert "a.csv: " in answer.missing


def test_a_file_of_curves_on_one_side_only_is_against_the_rule(judge: Judge) -> None:
    one, two = {"a.csv": csv(LOSS)}, {"a.csv": csv(LOSS), "b.csv": csv(LOSS)}
    answer = judge(one, two, rule("sources = ['*.csv']"))
    assert answer.against == {"b.csv presence"}


def test_a_file_that_changed_since_it_was_hashed_is_refused(tmp_path: Path) -> None:
    one, other = (
        write(tmp_path / side, {WEIGHTS: side.encode(), "m.csv": csv(LOSS)}) for side in "ab"
    )
    declared = declare(rule("sources = ['m.csv']"))
    assert compare_models(one, other, declared).conclusion == "plausible"
    (tmp_path / "b" / "m.csv").write_bytes(csv(LOSS).replace(b"2", b"3", 1))
    with pytest.raises(ContentError, match=r"m\.csv"):
        compare_models(one, other, declared)


# --- What a rule asks of them ---------------------------------------------------------------------


def test_a_point_that_differs_too_early_is_against_the_rule(
    recorded: Callable[..., Answer],
) -> None:
    moved = [*LOSS]
    moved[7] *= 1.01
    answer = recorded(records(LOSS), records(moved))
    assert (answer.conclusion, answer.outcome.strongest) == ("mismatch", None)
    assert answer.against == {"loss points-missing"}
    found = answer.found("points-missing")
    assert (found.value, found.place) == (3, (70,))
    late = recorded(records(LOSS), records(moved), rule(points=7))
    assert late.conclusion == "plausible"
    assert late.found("points-missing").place == (70,)


def test_another_end_is_against_the_rule(recorded: Callable[..., Answer]) -> None:
    risen = [*LOSS[:20], *(value * 1.02 for value in LOSS[20:])]
    answer = recorded(records(LOSS), records(risen))
    assert answer.against == {"loss terminal-difference"}
    assert answer.found("terminal-difference").value == pytest.approx(0.02 / 1.02)
    whole = recorded(records(LOSS), records(risen), rule("window = 30"))
    assert whole.conclusion == "plausible"  # the more points, the less each says


def test_the_last_points_are_averaged(recorded: Callable[..., Answer]) -> None:
    spiked = [*LOSS]
    spiked[-1] *= 1.05
    assert recorded(records(LOSS), records(spiked)).conclusion == "plausible"
    last = recorded(records(LOSS), records(spiked), rule("window = 1"))
    assert last.against == {"loss terminal-difference"}


PARTED = {
    "shifted": (LOSS, range(10, 310, 10), "steps-differ", (0,)),
    "cut off": (LOSS[:25], range(0, 250, 10), "steps-differ", (250,)),
    "logged half as often": (LOSS[::2], range(0, 300, 20), "steps-differ", (10,)),
    "restarted": (
        [*LOSS[:15], *LOSS[:15]],
        [*range(0, 150, 10), *range(0, 150, 10)],
        "steps-not-increasing",
        None,
    ),
}


@pytest.mark.parametrize("case", PARTED)
def test_curves_over_other_steps_have_no_end_in_common(
    recorded: Callable[..., Answer], case: str
) -> None:
    values, steps, note, place = PARTED[case]
    answer = recorded(records(LOSS), records(values, steps), rule(points=1))
    assert answer.conclusion == "mismatch"
    assert f"loss terminal-difference {note}" in answer.against
    points = answer.found("points-missing")
    assert points.place == place
    assert points.held == (case in ("cut off", "logged half as often"))
    assert points.note == (None if points.held else note)


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_training_that_diverged_shows_nothing(
    recorded: Callable[..., Answer], value: str
) -> None:
    broken = records(LOSS) + f'{{"name":"loss","step":300,"value":"{value}"}}\n'.encode()
    answer = recorded(broken, broken, rule(points=31))
    assert answer.against == {
        "loss points-missing not-finite",
        "loss terminal-difference not-finite",
    }
    assert answer.found("points-missing").place == (300,)


def test_a_curve_shorter_than_the_points_that_must_agree(
    recorded: Callable[..., Answer],
) -> None:
    answer = recorded(records(LOSS), records(LOSS), rule(points=31))
    assert answer.against == {"loss points-missing"}
    assert answer.found("points-missing").value == 1


def test_a_curve_on_one_side_only_is_against_the_rule(recorded: Callable[..., Answer]) -> None:
    more = records(LOSS) + records(LOSS, name="accuracy")
    assert recorded(records(LOSS), more).conclusion == "plausible"
    answer = recorded(records(LOSS), more, rule(curves="*"))
    assert answer.against == {"accuracy presence"}


def test_a_curve_that_neither_side_has_leaves_the_rule_undecided(
    recorded: Callable[..., Answer],
) -> None:
    answer = recorded(records(LOSS), records(LOSS), rule(curves="perplexity"))
    assert answer.conclusion == "inconclusive"
    assert answer.missing == "recorded metrics: no curve that the rule selects"


# --- With other rules -----------------------------------------------------------------------------


def test_weights_that_no_rule_judges_through_curves_must_be_equal(judge: Judge) -> None:
    alone = rule().removesuffix(THROUGH)
    answer = judge({}, {}, alone, "equality = 'tensors'", recorded=(records(LOSS),) * 2)
    assert answer.against == {"w differing-elements"}


def test_outputs_with_curves_conclude_as_the_weaker(judge: Judge) -> None:
    outputs = (
        f"equality = 'behaviour'\nkind = 'values'\nmax_difference = 9.0\noutputs = ['{WEIGHTS}']"
    )
    alone = rule().removesuffix(THROUGH)
    answer = judge({}, {}, outputs, alone, recorded=(records(LOSS),) * 2)
    assert (answer.conclusion, answer.outcome.strongest) == ("plausible", "curves")


def test_an_alternative_that_holds_concludes_whatever_another_leaves_undecided(
    tmp_path: Path,
) -> None:
    outputs = f"equality = 'behaviour'\nkind = 'values'\nmax_difference = 9.0\n{THROUGH}"
    outputs += "outputs = ['answers.*']"
    curves = rule("sources = ['m.csv']")
    text = "format = 1\nversion = 1\nname = 'two'\n"
    text += f"[[any]]\n[[any.all]]\nreason = 'x'\n{outputs}\n"
    text += f"[[any]]\n[[any.all]]\nreason = 'x'\n{curves}\n"
    text += "[[any.all]]\nequality = 'bytes'\nfiles = ['answers.*']\n"
    files = {"answers.npz": b"junk", "m.csv": csv(LOSS)}
    one, other = (write(tmp_path / side, {WEIGHTS: side.encode(), **files}) for side in "ab")
    outcome = compare_models(one, other, parse(text.encode()))
    assert [alternative.held for alternative in outcome.alternatives] == [None, True]
    assert (outcome.conclusion, outcome.strongest) == ("plausible", "curves")
    assert outcome.missing == outcome.alternatives[0].missing != ()
