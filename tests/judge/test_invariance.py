"""What must not change what is measured: the order of the sides, the container, reads, threads."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.measure import pieces, squares, totals
from provenance.measure.contents import Beside, read_contents
from provenance.measure.distances import Job, Measured, Wanted, measure_each
from provenance.measure.pieces import Piece, Workers, batched, cut
from provenance.measure.squares import at_most
from provenance.weights.dtypes import DTYPES
from provenance.weights.opening import open_tensors
from tests.measure.in_memory import COMPONENTS, Array, InMemory, arrays, in_memory, measure
from tests.weights.writing import archive, npy, simple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALL = [name for name, dtype in DTYPES.items() if dtype.block == 1]


class Stream(InMemory):
    """A file that can only be read from its beginning."""

    direct = False


def swapped(found: Measured) -> Measured:
    return replace(
        found,
        left=found.right,
        right=found.left,
        bases=found.bases and found.bases[::-1],
        updates=found.updates and found.updates[::-1],
    )


def random_pair(dtype: str, count: int, seed: int = 1) -> tuple[Array, Array]:
    """Return the bytes of two tensors that differ in some elements, NaN and zeros among them."""
    generator = np.random.default_rng(seed)
    left = generator.integers(0, 256, DTYPES[dtype].nbytes(count), "u1")
    right = left.copy()
    spots = generator.integers(left.size // 3, left.size, 500)
    right[spots] = generator.integers(0, 256, spots.size, "u1")
    return left, right


@pytest.mark.parametrize("dtype", COMPONENTS)
@settings(max_examples=25)
@given(data=st.data())
def test_the_sides_may_be_exchanged(dtype: str, data: st.DataObject) -> None:
    left, right, initial = (in_memory(part, dtype) for part in data.draw(arrays(dtype, 2)))
    wanted = Wanted(ulp=True)
    one = measure("t", left, right, wanted, initial=initial)
    two = measure("t", right, left, wanted, initial=initial)
    assert one == swapped(two)


@pytest.mark.parametrize("dtype", COMPONENTS)
@settings(max_examples=25)
@given(data=st.data())
def test_a_tensor_is_itself(dtype: str, data: st.DataObject) -> None:
    (part,) = data.draw(arrays(dtype, 0))
    found = measure("t", in_memory(part, dtype), in_memory(part, dtype), Wanted(ulp=True))
    assert (found.differing, found.first, found.worst, found.max_ulp) == (0, None, None, 0)
    assert (found.difference.l2, found.difference.largest) == (0, 0)


@given(
    st.floats(0, allow_infinity=False),
    st.floats(0, allow_infinity=False),
    st.floats(0, allow_infinity=False),
)
def test_a_wider_tolerance_admits_no_less(value: float, limit: float, wider: float) -> None:
    limit, wider = sorted((limit, wider))
    assert at_most(value, wider) or not at_most(value, limit)


@pytest.mark.parametrize("dtype", ALL)
def test_threads_reads_and_streams(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (squares, totals):
        monkeypatch.setattr(module, "BLOCK", 512)
    monkeypatch.setattr(pieces, "PIECE", 4096)
    count = 16_384 + 8
    raw = random_pair(dtype, count)
    start = np.zeros(raw[0].size, "u1")
    found: list[Measured] = []
    for kind in (InMemory, Stream):
        left, right, initial = (kind(part, dtype, (2, count // 2)) for part in (*raw, start))
        for threads in (1, 2, 5):
            for read in (512, 1024, 4096):
                monkeypatch.setattr(pieces, "READ", read)
                monkeypatch.setattr(pieces, "READ_SAME", read)
                wanted = Wanted(ulp=True, threads=threads)
                found.append(measure("t", left, right, wanted, initial=initial))
    assert found[0].differing > 0
    assert found.count(found[0]) == len(found)


def test_many_tensors_of_many_sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pieces, "PIECE", 2048)
    sizes = [0, 1, 2048, 5, 9000, 0, 300, 300, 4096, 17]
    generator = np.random.default_rng(3)
    left = {f"t{i}": generator.standard_normal(size).astype("<f4") for i, size in enumerate(sizes)}
    right = {name: values + np.float32(1e-3) * (name != "t6") for name, values in left.items()}
    for name, tensors in (("l", left), ("r", right)):
        (tmp_path / f"{name}.safetensors").write_bytes(simple(tensors))
    answers = []
    for threads in (1, 2, 5):
        done: list[int] = []
        wanted = Wanted(threads=threads, on_bytes=done.append)
        with (
            open_tensors(tmp_path / "l.safetensors") as one,
            open_tensors(tmp_path / "r.safetensors") as two,
            Workers(threads, 0) as workers,
        ):
            jobs = [Job(name, [one, two], [(0, 1)]) for name in one.tensors]
            answers.append([found for ((found, _),) in measure_each(jobs, wanted, workers)])
        assert sum(done) == 4 * sum(sizes)
    assert answers[0] == answers[1] == answers[2]
    assert [found.differing for found in answers[0]] == [
        0 if name == "t6" else size for name, size in zip(left, sizes, strict=True)
    ]


def test_the_container_and_the_order_of_tensors_do_not_matter(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    left = {
        "array": generator.standard_normal((50, 70)).astype("<f4"),
        "other": generator.standard_normal(9).astype("<f8"),
    }
    right = {name: values * (1 + 1e-6) for name, values in left.items()}
    right = {name: values.astype(left[name].dtype) for name, values in right.items()}
    for side, tensors in (("l", left), ("r", right)):
        backwards = dict(reversed(tensors.items()))
        files = {
            "1.safetensors": simple(tensors),
            "2.safetensors": simple(backwards),
            "3.npz": archive({f"{name}.npy": npy(values) for name, values in tensors.items()}),
            "4.npz": archive(
                {f"{name}.npy": npy(np.asfortranarray(v)) for name, v in backwards.items()},
                8,
            ),
            "5.npy": npy(np.asfortranarray(tensors["array"])),
        }
        for name, data in files.items():
            (tmp_path / f"{side}{name}").write_bytes(data)
    names = sorted(path.name[1:] for path in tmp_path.glob("l*"))
    found = {}
    for one in names:
        for two in names:
            with (
                open_tensors(tmp_path / f"l{one}") as first,
                open_tensors(tmp_path / f"r{two}") as second,
            ):
                (contents,) = read_contents([Beside("m", 0, 1)], (first, second), Wanted())
                assert contents is not None
            found[one, two] = {pair.name: pair.distance for pair in contents.tensors}
    expected = found["1.safetensors", "1.safetensors"]
    assert expected["array"] is not None
    assert expected["other"] is not None
    for each in found.values():
        assert each["array"] == expected["array"]
        assert each.get("other") in (expected["other"], None)


def test_pieces_are_cut_by_position_alone() -> None:
    info = InMemory(np.zeros(pieces.PIECE * 2 + 3, "u1"), "U8").tensors["t"]
    ends = [(piece.start, piece.stop) for piece in cut(info, direct=True)]
    size = pieces.PIECE
    assert ends == [(0, size), (size, 2 * size), (2 * size, 2 * size + 3)]
    assert cut(info, direct=False) == [Piece("t", 0, info.elements)]


def test_small_pieces_are_worked_on_together() -> None:
    size = pieces.PIECE
    each = (Piece(str(n), 0, stop) for n, stop in enumerate((1, 2, size - 3, 1, size, 7)))
    assert [[piece.name for piece in batch] for batch in batched(each, size)] == [
        ["0", "1", "2"],
        ["3"],
        ["4"],
        ["5"],
    ]


def test_few_threads_are_taken_for_small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "cores", lambda: 64)
    taken = []
    for threads, nbytes in ((None, 10**6), (None, 5 * 10**7), (None, 10**12), (3, 0), (100, 0)):
        with Workers(threads, nbytes) as workers:
            taken.append(workers.threads)
    assert taken == [1, 3, 6, 3, 6]


def test_results_come_in_the_order_of_the_tasks() -> None:
    begun: list[int] = []

    def tasks() -> Iterator[Callable[[], int]]:
        for number in range(100):
            begun.append(number)
            yield partial(pow, number, 2)

    with Workers(2, 0) as workers:
        results = workers.results(tasks())
        assert next(results) == 0
        assert len(begun) <= 5
        assert list(results) == [n * n for n in range(1, 100)]


def test_subnormal_numbers_have_a_distance_in_every_thread() -> None:
    count = 2 * pieces.PIECE
    left = np.full(count, 1, "<u2").view(ml_dtypes.bfloat16)
    right = np.full(count, 3, "<u2").view(ml_dtypes.bfloat16)
    found = measure("t", InMemory(left, "BF16"), InMemory(right, "BF16"), Wanted(threads=2))
    assert found.difference.largest == 2.0**-132
    assert found.difference.l2 == pytest.approx(2.0**-132 * count**0.5, rel=1e-15)
