from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.capture.python import records
from provenance.capture.python.records import merge_seeds, parse_seed, prepare, read_records
from provenance.capture.run import MAX_STEP, RECORDS, Run
from provenance.errors import UnavailableError, UnreadableError

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, data: bytes) -> records.Records:
    folder.joinpath(RECORDS).write_bytes(data)
    return read_records(folder)


def test_metrics_leave_in_canonical_form_and_in_order(tmp_path: Path) -> None:
    data = (
        b'\n{"metric":"loss","value":1e2,"step":1}\n'
        b'\n{"metric":"z\\u0065","value":"NaN"}\n'
        b'{"metric":"loss","value":3}\n'
    )
    found = read(tmp_path, data)
    assert found.metrics == (
        b'{"name":"loss","step":1,"value":100}\n'
        b'{"name":"ze","value":"NaN"}\n'
        b'{"name":"loss","value":3}\n'
    )
    assert found.count == 3
    assert found.last == {"loss": 3.0, "ze": "NaN"}


def test_metrics_of_ranks_leave_in_an_order_that_no_race_decides(tmp_path: Path) -> None:
    lines = [
        b'{"metric":"loss","value":1,"step":0,"rank":1}',
        b'{"metric":"loss","value":2,"step":0,"rank":0,"restart":1}',
        b'{"metric":"loss","value":3,"step":0}',
        b'{"metric":"loss","value":4,"step":0,"rank":0}',
        b'{"metric":"loss","value":5,"step":1,"rank":0}',
        b'{"metric":"of 1","value":6,"rank":1}',
    ]
    found = read(tmp_path, b"\n".join([*lines, b""]))
    assert found.metrics.splitlines() == [
        b'{"name":"loss","step":0,"value":3}',
        b'{"name":"loss","rank":0,"step":0,"value":4}',
        b'{"name":"loss","rank":0,"step":1,"value":5}',
        b'{"name":"loss","rank":0,"restart":1,"step":0,"value":2}',
        b'{"name":"loss","rank":1,"step":0,"value":1}',
        b'{"name":"of 1","rank":1,"value":6}',
    ]
    assert found.last == {"loss": 3.0, "of 1": 6.0}
    assert (found.count, found.damaged) == (6, 0)


@pytest.mark.parametrize(
    ("first", "second", "last"),
    [("", "", 2), ('"rank":0', '"rank":1', 1), ('"rank":1', '"rank":0', 2),
     ('"rank":1,"restart":1', '"rank":1', 1), ('"rank":0,"restart":1', '"rank":0,"restart":2', 2)],
)  # fmt: skip
def test_the_last_value_is_that_of_the_lowest_rank(
    tmp_path: Path, first: str, second: str, last: float
) -> None:
    lines = [
        f'{{"metric":"loss","value":{value}{"," if place else ""}{place}}}\n'
        for value, place in enumerate((first, second), 1)
    ]
    assert read(tmp_path, "".join(lines).encode()).last == {"loss": last}


def test_a_seed_given_twice_has_both_values_in_order_of_size(tmp_path: Path) -> None:
    data = b"".join(b'{"seed":"torch","value":"%s"}\n' % seed for seed in (b"43", b"-1", b"43"))
    assert read(tmp_path, data).seeds == {"torch": "-1,43"}


def test_a_torn_last_line_is_counted(tmp_path: Path) -> None:
    found = read(tmp_path, b'{"metric":"a","value":1}\n{"metric":"a","val')
    assert (found.count, found.damaged) == (1, 1)


@pytest.mark.parametrize(
    "line",
    [
        b"not JSON",
        b"[]",
        b"{}",
        b'{"metric":"a"}',
        b'{"metric":"a","value":null}',
        b'{"metric":"a","value":1,"rank":-1}',
        b'{"metric":"a","value":1,"rank":1000000000}',
        b'{"metric":"a","value":1,"rank":"0"}',
        b'{"seed":"a","value":"1","restart":-1}',
        b'{"metric":"a","value":"nan"}',
        b'{"metric":"a","value":true}',
        b'{"metric":"a","value":NaN}',
        b'{"metric":"a","value":1e999}',
        b'{"metric":"","value":1}',
        b'{"metric":"%s","value":1}' % (b"x" * 257),
        b'{"metric":"a","value":1,"step":0.5}',
        b'{"metric":"a","value":1,"step":9007199254740992}',
        b'{"metric":"a","value":1,"other":1}',
        b'{"metric":"a","seed":"b","value":1}',
        b'{"metric":"\\ud800","value":1}',
        b'{"metric":"\xff","value":1}',
        b'{"seed":"a","value":1}',
        b'{"seed":"a","value":"01"}',
        b'{"seed":"a","value":"-0"}',
        b'{"seed":"a","value":"1_0"}',
        b'{"seed":"a","value":"1","step":1}',
        b'{"interpreter":"python"}',
        b'{"reports":-1}',
        b'{"reports":1,"step":1}',
        b'{"lost":0,"pid":1}',
        b'{"lost":1}',
        b'{"read":"a.py","size":1,"mtimeNs":1,"ctimeNs":1,"pid":1}',
        b'{"read":"/a.py","size":-1,"mtimeNs":1,"ctimeNs":1,"pid":1}',
        b'{"read":"/a.py","size":1,"mtimeNs":9223372036854775808,"ctimeNs":1,"pid":1}',
        b'{"read":"/a\\u0000.py","size":1,"mtimeNs":1,"ctimeNs":1,"pid":1}',
        b'{"read":"/a\\ud800.py","size":1,"mtimeNs":1,"ctimeNs":1,"pid":1}',
        b'{"read":"/%s","size":1,"mtimeNs":1,"ctimeNs":1,"pid":1}' % (b"x" * 4096),
        b'{"wrote":"/a","pid":1,"more":1}',
        b'{"started":"/a","words":["b"]}',
        b'{"started":"/a","words":[1],"pid":1}',
        b'{"process":{"pid":1}}',
        b'{"state":"start","values":{},"pid":1}',
        b'{"state":"exit","values":{"a":[1]},"pid":1}',
        b'{"state":"exit","values":{"a b":1},"pid":1}',
        b'{"libraries":["libc.so.6"],"pid":1}',
        b'{"libraries":"/lib/libc.so.6","pid":1}',
        b'{"state":"exit","values":{"a":0.5},"pid":1}',
        b'{"state":"exit","values":{"":1},"pid":1}',
        b'{"state":"exit","values":{"a":9007199254740992},"pid":1}',
        b'{"state":"exit","values":{"a":null},"pid":1}',
        b'{"state":"exit","values":{"a":1}}',
        b'{"dropped":0}',
        b'{"dropped":1,"value":1}',
        b'{"dropped":9007199254740992}',
        b"x" * 10_000,
    ],
)
def test_a_line_that_is_no_record_is_counted_and_spoils_no_other(
    tmp_path: Path, line: bytes
) -> None:
    good = b'{"metric":"good","value":1}\n'
    found = read(tmp_path, good + line + b"\n" + good)
    assert (found.count, found.damaged, found.dropped, found.seeds) == (2, 1, 0, {})


def test_losses_add_up(tmp_path: Path) -> None:
    assert read(tmp_path, b'{"dropped":2}\n{"dropped":3}\n').dropped == 5


def test_more_than_the_limit_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = b'\n{"metric":"good","value":1}\n'
    monkeypatch.setattr(records, "MAX_RECORDS_BYTES", 10 * len(line))
    found = read(tmp_path, 25 * line)
    assert (found.count, found.dropped, found.damaged) == (10, 15, 0)


@pytest.mark.parametrize("end", [b"", b"{"])
def test_a_hole_of_terabytes_behind_the_records_takes_no_hours(tmp_path: Path, end: bytes) -> None:
    prepare(tmp_path)
    with (tmp_path / RECORDS).open("ab") as file:
        file.write(b'{"metric":"good","value":1}\n' + end)
    os.truncate(tmp_path / RECORDS, 2**43)
    found = read_records(tmp_path)
    assert (found.count, found.damaged) == (1, 1)


def test_too_many_names_are_bounded(tmp_path: Path) -> None:
    seeds = b"".join(b'{"seed":"%d","value":"1"}\n' % number for number in range(300))
    metrics = b"".join(b'{"metric":"%d","value":1}\n' % number for number in range(300))
    found = read(tmp_path, seeds + metrics)
    assert len(found.seeds) == 256
    assert found.dropped == 44
    assert (found.count, len(found.last)) == (300, 64)


def test_a_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError):
        read_records(tmp_path)


def test_a_run_directory_is_prepared_once(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert read_records(tmp_path) == records.Records()
    assert tmp_path.joinpath(RECORDS).stat().st_mode & 0o777 == 0o600
    with pytest.raises(UnavailableError):
        prepare(tmp_path)
    with pytest.raises(UnavailableError):
        prepare(tmp_path / "missing")


@given(st.binary(max_size=300))
def test_any_bytes_are_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    found = read(tmp_path_factory.getbasetemp(), data)
    assert found.metrics.count(b"\n") == found.count


@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable()),
            st.floats(),
            st.none() | st.integers(-(2**53) + 1, 2**53 - 1),
        ),
        max_size=10,
    )
)
def test_what_a_program_says_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, float, int | None]]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    prepare(folder)
    run = Run(str(folder))
    for name, value, step in said:
        run.metric(name, value, step)
    lines = [json.loads(line) for line in read_records(folder).metrics.splitlines()]
    assert [(line["name"], line.get("step")) for line in lines] == [
        (name, step) for name, _, step in said
    ]
    for line, (_, value, _) in zip(lines, said, strict=True):
        assert float(line["value"]) == value or value != value  # noqa: PLR0124 - NaN


@given(st.text(max_size=10) | st.integers().map(str))
def test_a_seed_is_parsed_or_refused(text: str) -> None:
    seed = parse_seed(text)
    if seed is not None:
        assert int(seed) == int(text)
        assert parse_seed(seed) == seed


def test_a_seed_has_one_spelling() -> None:
    assert parse_seed("007") == "7"
    assert [parse_seed(text) for text in ("", "-", "1.0", "٣", "+1", "9" * 5000)] == [None] * 6
    assert merge_seeds(None, "3") == "3"
    assert merge_seeds("10,9", "-2") == "-2,9,10"


def test_seeds_are_bounded_and_cost_no_more_than_their_digits(tmp_path: Path) -> None:
    said = [(name, value) for value in range(300) for name in range(257)]
    lines = (f'{{"seed":"s{n}","value":"{10**40 + v}","rank":{v % 70}}}\n' for n, v in said)
    found = read(tmp_path, "".join(lines).encode() * 2)
    assert len(found.seeds) == len(found.seeds_of_ranks) == 256
    assert {text.count(",") + 1 for text in found.seeds.values()} == {256}
    assert {len(own) for own in found.seeds_of_ranks.values()} == {64}
    assert found.dropped == 2 * (300 + 44 * 256)


def test_a_folder_instead_of_the_file_is_an_error_of_ours(tmp_path: Path) -> None:
    tmp_path.joinpath(RECORDS).mkdir()
    with pytest.raises(UnreadableError):
        read_records(tmp_path)


def test_losses_are_bounded(tmp_path: Path) -> None:
    assert read(tmp_path, 2 * b'{"dropped":9007199254740991}\n').dropped == MAX_STEP


@pytest.mark.parametrize("kind", ["fifo", "link", "device"])
def test_what_is_no_longer_a_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / RECORDS
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else tmp_path / "elsewhere")
        tmp_path.joinpath("elsewhere").touch()
    with pytest.raises(UnreadableError):
        read_records(tmp_path)


def test_a_huge_file_of_seeds_is_read_quickly(tmp_path: Path) -> None:
    data = b"".join(b'{"seed":"worker","value":"%d"}\n' % number for number in range(16_000))
    start = time.perf_counter()
    found = read(tmp_path, data)
    assert time.perf_counter() - start < 60
    assert found.seeds["worker"] == ",".join(str(number) for number in range(256))
    assert found.dropped == 16_000 - 256
