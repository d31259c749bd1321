"""What compiled code measures is what numpy measures, in every bit of every field."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import UnavailableError
from provenance.measure import compiled, meter, norms, pieces
from provenance.measure.compiled import LARGE, is_worth
from provenance.measure.distances import Measured, Wanted, measure
from provenance.measure.kernel import is_installed, kernel_for
from provenance.measure.meter import Meter
from provenance.weights.view import describe
from tests.measure.in_memory import COMPONENTS, Array, InMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_llvm = pytest.mark.skipif(not is_installed(), reason="the extra fast is not installed")

TYPES = ["BF16", "F16", "F32", "F64"]
BLOCK = 512
"""Elements of a block where the tests have small ones."""


class Stream(InMemory):
    """A file that can only be read from its beginning."""

    direct = False


@pytest.fixture
def small_blocks() -> Iterator[None]:
    """Blocks of few elements, so that small tensors have several."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (norms, compiled):
            patch.setattr(module, "BLOCK", BLOCK)
        patch.setattr(pieces, "PIECE", 8 * BLOCK)
        for module in (pieces, meter):
            patch.setattr(module, "READ", 2 * BLOCK)
        patch.setattr(pieces, "READ_ALONE", 2 * BLOCK)
        yield


@dataclass(frozen=True)
class Case:
    """Tensors: random values of one size, and any bits in a few places."""

    size: int
    seed: int
    exponent: int
    changed: float
    bits: list[tuple[int, int, int]]

    def arrays(self, dtype: str) -> list[Array]:
        generator = np.random.default_rng(self.seed)
        values = generator.standard_normal((3, self.size)) * 2.0**self.exponent
        values[1] = np.where(generator.random(self.size) < self.changed, values[1], values[0])
        with np.errstate(all="ignore"):
            found = [row.astype(COMPONENTS[dtype]) for row in values]
        for which, place, code in self.bits:
            width = found[which].dtype.itemsize
            if self.size:
                found[which].view(f"<u{width}")[place % self.size] = code >> (64 - 8 * width)
        return found


CODES = st.sampled_from([0, 2**63, 0x7FF8 << 48, 0xFFF0 << 48, 0x7F80 << 48, 0x7C00 << 48, 1])
CASES = st.builds(
    Case,
    size=st.integers(0, 3 * BLOCK) | st.sampled_from([BLOCK, 2 * BLOCK, 4 * BLOCK, 9 * BLOCK]),
    seed=st.integers(0, 1000),
    exponent=st.sampled_from([0, -6, 3, -130, -500, 600]),
    changed=st.sampled_from([0, 0.001, 0.5, 1]),
    bits=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2**20), CODES | st.integers(0, 2**64 - 1)),
        max_size=4,
    ),
)


def both(arrays: list[Array], dtype: str, wanted: Wanted, *, initial: bool) -> list[Measured]:
    left, right, start = (InMemory(array, dtype) for array in arrays)
    return [
        measure("t", left, right, replace(wanted, compiled=choice), initial=start)
        if initial
        else measure("t", left, right, replace(wanted, compiled=choice))
        for choice in (False, True)
    ]


@needs_llvm
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=60)
@given(case=CASES, norms=st.booleans(), ulp=st.booleans(), initial=st.booleans())
def test_every_field_is_the_same(
    dtype: str, case: Case, norms: bool, ulp: bool, initial: bool
) -> None:
    wanted = Wanted(norms=norms, ulp=ulp, threads=1)
    numpys, ours = both(case.arrays(dtype), dtype, wanted, initial=initial)
    assert ours == numpys


@needs_llvm
@pytest.mark.parametrize("dtype", TYPES)
def test_blocks_of_full_size(dtype: str) -> None:
    size = 5 * pieces.BLOCK + 1234
    arrays = Case(size, 7, -5, 0.7, [(1, 70_000, 2**63), (0, 70_000, 0)]).arrays(dtype)
    numpys, ours = both(arrays, dtype, Wanted(ulp=True, threads=2), initial=True)
    assert ours == numpys
    assert ours.zero_signs == 1


@needs_llvm
@pytest.mark.usefixtures("small_blocks")
def test_threads_reads_and_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = Case(16 * BLOCK + 256, 3, 0, 0.3, [(0, 5000, 0x7FF8 << 48)]).arrays("BF16")
    found = []
    for kind in (InMemory, Stream):
        left, right, start = (kind(array, "BF16") for array in arrays)
        for threads in (1, 2, 5):
            for read in (BLOCK, 2 * BLOCK, 8 * BLOCK):
                for module, name in ((pieces, "READ"), (pieces, "READ_ALONE"), (meter, "READ")):
                    monkeypatch.setattr(module, name, read)
                wanted = Wanted(ulp=True, threads=threads, compiled=True)
                found.append(measure("t", left, right, wanted, initial=start))
    assert found[0].nan == 1
    assert found.count(found[0]) == len(found)


@needs_llvm
def test_numpy_measures_only_what_is_not_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = Meter._add_floats  # noqa: SLF001 - what is left to it is the point

    def add(self: Meter, start: int, *others: object) -> None:
        seen.append(start)
        original(self, start, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(Meter, "_add_floats", add)
    size = 3 * pieces.READ_ALONE
    left, right, _ = Case(size, 1, 0, 1, []).arrays("F32")
    right[pieces.READ_ALONE + 5] = np.nan
    wanted = Wanted(threads=1, compiled=True)
    assert measure("t", InMemory(left, "F32"), InMemory(right, "F32"), wanted).nan == 1
    assert seen == [pieces.READ_ALONE]


@needs_llvm
def test_the_place_of_the_largest_is_the_first() -> None:
    left = np.zeros(2 * pieces.BLOCK, "<f4")
    right = left.copy()
    right[[70_000, 70_001, 70_256, 100_000]] = 2, -3, 3, 3
    found = measure("t", InMemory(left, "F32"), InMemory(right, "F32"), Wanted(compiled=True))
    assert (found.worst, found.first) == ((70_001,), (70_000,))


def test_small_tensors_load_no_compiler() -> None:
    program = (
        "import sys, numpy\n"
        "from provenance.measure.distances import Wanted, measure\n"
        "from tests.measure.in_memory import InMemory\n"
        "one, two = (InMemory(numpy.full(2**17, n, '<f4'), 'F32') for n in (1, 2))\n"
        "assert measure('t', one, two, Wanted()).differing == 2**17\n"
        "sys.exit('llvmlite' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_is_large_enough() -> None:
    def worth(number: int, dtype: str) -> bool:
        return is_worth([describe("t", dtype, (number // 2,), where="memory")] * 2)

    assert worth(LARGE, "BF16") == is_installed()
    assert not worth(LARGE - 2, "BF16")
    assert not worth(LARGE, "I8")


def test_compiled_code_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    kernel_for.cache_clear()
    one, two = InMemory(np.zeros(2, "<f4"), "F32"), InMemory(np.ones(2, "<f4"), "F32")
    with pytest.raises(UnavailableError, match="the extra 'fast' cannot be used"):
        measure("t", one, two, Wanted(compiled=True))
    assert not is_worth([describe("t", "F32", (LARGE,), where="memory")])
    assert measure("t", one, two, Wanted()).differing == 2
