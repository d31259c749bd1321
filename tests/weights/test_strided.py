from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.torch import strided
from provenance.weights.torch.strided import View, check_turnable, check_view, gathered, unreached

VIEWS = st.integers(0, 3).flatmap(
    lambda rank: st.builds(
        View,
        st.sampled_from([1, 2, 4, 8, 16]),
        st.integers(0, 3),
        st.tuples(*[st.integers(0, 4)] * rank),
        st.tuples(*[st.integers(0, 6)] * rank),
    )
)


def places(view: View) -> list[int]:
    """The item of each element, in C order, by definition."""
    indices = itertools.product(*map(range, view.sizes))
    return [view.offset + sum(map(int.__mul__, i, view.strides)) for i in indices]


def reached(view: View) -> set[int]:
    return {place * view.item + byte for place in places(view) for byte in range(view.item)}


@given(VIEWS)
def test_a_view_gathers_what_the_definition_says(view: View) -> None:
    data = np.random.default_rng(0).bytes(view.begin + view.span)
    items = [data[place * view.item :][: view.item] for place in places(view)]
    check_view(view, len(data), where="v")
    if 0 not in view.sizes:
        span = memoryview(data)[view.begin :]
        assert len(span) == view.span
        assert bytes(gathered(view, span)) == b"".join(items)
    if view.contiguous:
        assert data[view.begin : view.begin + view.nbytes] == b"".join(items)
    everything = set(range(view.begin, view.begin + view.span))
    assert view.dense == (reached(view) == everything and view.span == view.nbytes)


@given(st.lists(VIEWS, max_size=3), st.integers(0, 9))
def test_unreached_bytes_are_those_in_no_view(views: list[View], after: int) -> None:
    data = bytes(i % 251 for i in range(max([v.begin + v.span for v in views], default=0) + after))

    def read(begin: int, end: int) -> list[memoryview]:
        return [memoryview(data)[place : min(place + 3, end)] for place in range(begin, end, 3)]

    found = b"".join(
        map(bytes, unreached(views, len(data), lambda low, high: iter(read(low, high)), where="s"))
    )
    left = set(range(len(data))).difference(*map(reached, views))
    assert sorted(found) == sorted(data[place] for place in left)


MALFORMED = {
    "one byte beyond": (View(4, 1, (2,), (1,)), 11, "reaches byte 12 of a storage of 11 bytes"),
    "stride beyond": (View(1, 0, (2, 2), (1, 9)), 10, "reaches byte 11"),
    "offset of a scalar": (View(1, 1, (), ()), 1, "reaches byte 2"),
    "negative offset": (View(1, -1, (1,), (1,)), 9, "negative or too large"),
    "negative stride": (View(1, 1, (2,), (-1,)), 9, "negative or too large"),
    "negative size": (View(1, 0, (-1,), (1,)), 9, "negative or too large"),
    "stride of 2^63": (View(1, 0, (1,), (2**63,)), 9, "negative or too large"),
    "strides missing": (View(1, 0, (1, 1), (1,)), 9, "sizes and strides differ"),
}


@pytest.mark.parametrize(("view", "nbytes", "what"), MALFORMED.values(), ids=MALFORMED)
def test_refuses(view: View, nbytes: int, what: str) -> None:
    with pytest.raises(MalformedError, match=what):
        check_view(view, nbytes, where="v")


def test_a_view_outside_its_data_is_not_gathered() -> None:
    with pytest.raises(IndexError, match="leaves the data"):
        gathered(View(1, 0, (2,), (2,)), memoryview(b"ab"))


def test_what_would_not_fit_in_memory_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    repeated = View(4, 0, (2**40,), (0,))
    wide = View(4, 0, (2,), (2**40,))
    for view in (repeated, wide):
        with pytest.raises(UnreadableError, match="out of C order and larger"):
            check_turnable(view, where="v")
    monkeypatch.setattr(strided, "MAX_SPREAD", 8)
    with pytest.raises(UnreadableError, match="spread wider than 8 bytes"):
        list(unreached([View(1, 0, (5,), (2,))], 9, lambda *_: iter(()), where="s"))
