"""Curves in files: what is read, and what is refused."""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.capture.python.records import MAX_LAST_VALUES, read_records
from provenance.capture.run import MAX_NAME_BYTES, RECORDS
from provenance.errors import MalformedError, UnreadableError
from provenance.measure import curves
from provenance.measure.curves import Curve, parse_curves
from provenance.statement import metrics


def parser(form: str) -> Callable[[bytes, str], dict[str, Curve]]:
    """Return the parser of *form*, whatever the file's name."""
    return lambda data, where: parse_curves(where, data, form)


parse_csv, parse_records = parser(".csv"), parser(".jsonl")
parse_trainer_state = parser("trainer_state.json")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def state(*log: Any) -> bytes:  # noqa: ANN401
    return json.dumps({"best_metric": None, "log_history": log}, indent=2).encode()


# --- JSON lines -----------------------------------------------------------------------------------


def test_records_as_they_are_captured(tmp_path: Path) -> None:
    tmp_path.joinpath(RECORDS).write_text(
        '{"metric":"loss","value":0.5,"step":10}\n{"metric":"loss","value":1.0,"step":20}\n'
        '{"metric":"accuracy","value":0.75}\n{"metric":"loss","value":"NaN","step":30}\n'
    )
    records = read_records(tmp_path)
    assert records.count == 4 < MAX_LAST_VALUES
    found = parse_curves("provenance/metrics.jsonl", records.metrics)
    assert found["accuracy"] == Curve("accuracy", (0,), (0.75,))
    assert found["loss"].steps == (10, 20, 30)
    assert found["loss"].values[:2] == (0.5, 1.0)
    assert math.isnan(found["loss"].values[2])
    assert curves.MAX_NAME_BYTES > MAX_NAME_BYTES  # room for a rank


def test_each_rank_has_a_curve_and_the_first_has_the_name() -> None:
    lines = [
        b'{"name":"loss","rank":%d,"step":%d,"value":%d}\n' % (rank, step, 10 * rank + step)
        for rank in (2, 3)
        for step in (0, 1)
    ]
    assert parse_records(b"".join(lines), "m") == {
        "loss": Curve("loss", (0, 1), (20.0, 21.0)),
        "loss (rank 3)": Curve("loss (rank 3)", (0, 1), (30.0, 31.0)),
    }


def restarted(*points: tuple[int, int | None]) -> bytes:
    """Return records of restarts and steps, whose values count them."""
    fields = (
        (f'"restart":{n},' if n else "", "" if s is None else f'"step":{s},') for n, s in points
    )
    lines = (f'{{"name":"loss",{n}{s}"value":{i}}}\n' for i, (n, s) in enumerate(fields))
    return "".join(lines).encode()


def test_after_a_restart_a_curve_goes_on_where_it_was_taken_up_again() -> None:
    data = restarted((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (1, 4), (2, 4))
    assert parse_records(data, "m")["loss"] == Curve("loss", (1, 2, 3, 4), (0.0, 3.0, 4.0, 6.0))
    from_the_start = restarted((0, 1), (0, 2), (3, 0), (3, 1))
    assert parse_records(from_the_start, "m")["loss"] == Curve("loss", (0, 1), (2.0, 3.0))


def test_a_restart_that_only_one_attempt_recorded_is_none() -> None:
    assert parse_records(restarted((1, None), (1, None)), "m")["loss"].steps == (0, 1)


def test_without_steps_what_was_restarted_is_no_curve() -> None:
    assert parse_records(restarted((0, None), (1, None)), "m") == {}


def test_records_without_steps_are_counted() -> None:
    data = b'{"name":"a","value":1}\n{"name":"b","value":"-Infinity"}\n{"name":"a","value":2}\n'
    assert parse_records(data, "m") == {
        "a": Curve("a", (0, 1), (1.0, 2.0)),
        "b": Curve("b", (0,), (-math.inf,)),
    }


def test_no_records_are_no_curves() -> None:
    assert parse_records(b"", "m") == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"name":"a","value":1}', "truncated"),
        (b"\n", "not JSON"),
        (b"[]\n", "not a metric"),
        (b'{"name":"a"}\n', "not a metric"),
        (b'{"name":"a","value":1,"other":2}\n', "not a metric"),
        (b'{"name":"a","value":1,"value":2}\n', "is duplicated"),
        (b'{"name":"a","value":true}\n', r"not a metric: .*value"),
        (b'{"name":"a","value":"nan"}\n', r"not a metric: .*value"),
        (b'{"name":"a","value":null}\n', r"not a metric: .*value"),
        (b'{"name":"a","value":NaN}\n', "NaN"),
        (b'{"name":"a","value":1e999}\n', "too large"),
        (b'{"name":1,"value":1}\n', r"not a metric: .*name"),
        (b'{"name":"a","value":1,"step":1.5}\n', "step"),
        (b'{"name":"a","value":1,"step":true}\n', "step"),
        (b'{"name":"a","value":1,"step":9007199254740993}\n', "2.53"),
        (b'{"name":"a","value":1}\n{"name":"a","value":1,"step":3}\n', "every record or in none"),
        (b'{"name":"","value":1}\n', "not the name"),
        (b'{"name":"a\\u0000","value":1}\n', "not the name"),
        (b'{"name":"%s","value":1}\n' % (b"a" * 300), "not the name"),
        (b'{"name":"\xff","value":1}\n', "UTF-8"),
    ],
)
def test_other_lines_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message) as caught:
        parse_records(data, "m.jsonl")
    assert caught.value.where is not None
    assert caught.value.where.startswith("m.jsonl")


# --- CSV ------------------------------------------------------------------------------------------


def test_csv_as_lightning_writes_it() -> None:
    data = (
        b"epoch,lr,step,train_loss,val_loss\r\n"
        b"0,0.1,49,0.7,\r\n0,,49,,0.6\r\n1,1e-2,99,5.5E-1,\r\n1,,99,,nan\r\n"
    )
    found = parse_curves("logs/version_0/metrics.csv", data)
    assert found["train_loss"] == Curve("train_loss", (49, 99), (0.7, 0.55))
    assert found["lr"] == Curve("lr", (49, 99), (0.1, 0.01))
    assert found["val_loss"].steps == (49, 99)
    assert math.isnan(found["val_loss"].values[1])
    assert set(found) == {"lr", "train_loss", "val_loss"}


def test_csv_without_steps_counts_epochs() -> None:
    found = parse_csv(b'epoch,"the, loss"\n0,-1.5\n1,+.5\n2,-inf\n', "m")
    assert found == {"the, loss": Curve("the, loss", (0, 1, 2), (-1.5, 0.5, -math.inf))}


def test_a_column_with_text_is_no_curve() -> None:
    for cell in ("yes", "0x1", "1_0", " 1", "\u0661", "1e999", "infinity", "-nan", "1" * 500):
        found = parse_csv(f"step,loss,time\n1,0.5,{cell}\n2,0.25,7\n".encode(), "m")
        assert found == {"loss": Curve("loss", (1, 2), (0.5, 0.25))}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no column"),
        (b"loss,time\n1,2\n", "no column"),
        (b"\xef\xbb\xbfstep,loss\n1,2\n", "no column"),
        (b"step,loss,loss\n1,2,3\n", "one name"),
        (b"step,loss\n1\n", "cells"),
        (b"step,loss\n1,2,3\n", "cells"),
        (b"step,loss\n1,2\n\n", "cells"),
        (b"step,loss\n,2\n", "not an integer"),
        (b"step,loss\n1.0,2\n", "not an integer"),
        (b"step,loss\n01,2\n", "not an integer"),
        (b"step,loss\n9999999999999999,2\n", "2.53"),
        (b'step,loss\n1,"2\n', "not CSV"),
        (b'step,loss\n1,"2"3\n', "not CSV"),
        (b"step,lo\x07ss\n1,2\n", "not the name"),
        (b"step,\n1,2\n", "not the name"),
        (b"step,loss\n1,\xff\n", "UTF-8"),
        (b"step,loss\n1," + b"1" * 200_000 + b"\n", "not CSV"),
    ],
)
def test_other_tables_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        parse_csv(data, "m.csv")


# --- Trainer state --------------------------------------------------------------------------------


def test_the_trainer_state_of_transformers() -> None:
    data = state(
        {"epoch": 0.5, "grad_norm": math.nan, "learning_rate": 5e-05, "loss": 0.7, "step": 10},
        {"epoch": 1.0, "eval_loss": 0.6, "eval_runtime": 2, "step": 20},
        {"epoch": 1.0, "grad_norm": math.inf, "learning_rate": 0, "loss": 0.5, "step": 20},
    )
    found = parse_curves("checkpoint-20/trainer_state.json", data)
    assert found["loss"] == Curve("loss", (10, 20), (0.7, 0.5))
    assert found["learning_rate"] == Curve("learning_rate", (10, 20), (5e-05, 0.0))
    assert found["eval_runtime"] == Curve("eval_runtime", (20,), (2.0,))
    assert math.isnan(found["grad_norm"].values[0])
    assert "epoch" not in found


@pytest.mark.parametrize("value", ["text", None, True, [1], {"a": 1}, 10**399])
def test_what_is_no_number_is_no_curve(value: object) -> None:
    data = state({"step": 1, "loss": 0.5, "odd": value}, {"step": 2, "loss": 0.25, "odd": 1})
    assert parse_trainer_state(data, "m") == {"loss": Curve("loss", (1, 2), (0.5, 0.25))}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "log_history"),
        (b"{}", "log_history"),
        (b'{"log_history":{}}', "log_history"),
        (b'{"log_history":[1]}', "integer 'step'"),
        (b'{"log_history":[{"loss":1}]}', "integer 'step'"),
        (b'{"log_history":[{"step":1.0}]}', "integer 'step'"),
        (b'{"log_history":[{"step":true}]}', "integer 'step'"),
        (b'{"log_history":[{"step":1,"step":2}]}', "duplicate"),
        (b'{"log_history":[{"step":1,"a":%s}]}' % (b"1" * 500), "too long"),
        (b'{"log_history":[{"step":99999999999999999,"a":1}]}', "2.53"),
        (b'{"log_history":[{"step":1,"\\ud800":1}]}', "not the name"),
        (b'{"log_history":' + b"[" * 100_000, "nested|not JSON"),
        (b"\xff", "UTF-8"),
    ],
)
def test_other_states_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        parse_trainer_state(data, "trainer_state.json")


# --- All ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics.txt", "state.json", "metrics"])
def test_other_names_have_no_reader(name: str) -> None:
    with pytest.raises(UnreadableError, match="curves cannot be read"):
        parse_curves(name, b"")


@pytest.mark.parametrize("parse", [parse_records, parse_csv, parse_trainer_state])
@given(
    data=st.one_of(st.binary(max_size=200), st.text('{}[]",:01e-stepnamevalu \n').map(str.encode))
)
def test_parsers_raise_only_our_errors(
    parse: Callable[[bytes, str], dict[str, Curve]], data: bytes
) -> None:
    found: dict[str, Curve] = {}
    with contextlib.suppress(MalformedError):
        found = parse(data, "m")
    assert all(curve.name == name for name, curve in found.items())


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [("MAX_BYTES", 20, "longer"), ("MAX_POINTS", 1, "points"), ("MAX_NAMES", 1, "names")],
)
def test_each_form_has_the_limits(
    limit: str, value: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, limit, value)
    monkeypatch.setattr(metrics, limit, value, raising=False)
    for name, data in {
        "m.jsonl": b'{"name":"a","value":1}\n{"name":"b","value":1}\n',
        "m.csv": b"step,a,b\n1,1000000000,2\n",
        "trainer_state.json": state({"step": 1, "a": 1, "b": 1}),
    }.items():
        with pytest.raises(MalformedError, match=message):
            parse_curves(name, data)


def test_values_are_counted_before_any_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "_MAX_VALUES", 5)
    with pytest.raises(MalformedError, match="values"):
        parse_trainer_state(b"[[[[[[", "m")
