"""The compiled functions themselves, for every value of the narrow types."""

from __future__ import annotations

import numpy as np
import pytest

from provenance.errors import UnavailableError, UsageError
from provenance.measure import kernel
from provenance.measure.kernel import has_kernel, is_installed, kernel_for
from provenance.measure.norms import LANES
from provenance.weights.dtypes import DTYPES
from tests.measure.in_memory import COMPONENTS

pytestmark = pytest.mark.skipif(not is_installed(), reason="the extra fast is not installed")


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_value_is_widened_exactly(dtype: str) -> None:
    every = np.arange(2**16, dtype="<u2")
    # In blocks of one row each lane has one element, and its sum is that element's square.
    found = kernel_for(DTYPES[dtype]).square((every, np.zeros_like(every)), LANES)
    with np.errstate(invalid="ignore"):
        values = every.view(COMPONENTS[dtype]).astype(np.float64)
    finite = np.isfinite(values)
    assert np.array_equal(found.sums[1].reshape(-1)[finite], values[finite] ** 2)
    assert np.array_equal(found.sums[0], found.sums[1], equal_nan=True)
    assert np.array_equal(found.largest[0].reshape(-1)[finite], values[finite] ** 2)
    assert not np.isfinite(found.sums[1].reshape(-1)[~finite]).any()
    assert not found.sums[2].any()
    assert found.moved == 2**16 - 2


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_signs_are_kept(dtype: str) -> None:
    every = np.arange(2**16, dtype="<u2")
    found = kernel_for(DTYPES[dtype]).square((every, every ^ np.uint16(0x8000)), LANES)
    with np.errstate(invalid="ignore"):
        values = every.view(COMPONENTS[dtype]).astype(np.float64)
    finite = np.isfinite(values)
    assert np.array_equal(found.sums[0].reshape(-1)[finite], (2 * values[finite]) ** 2)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_units_of_last_place_do_not_wrap(dtype: str) -> None:
    bits = DTYPES[dtype].bits
    left = np.zeros(LANES, f"<u{bits // 8}")
    right = left.copy()
    compiled = kernel_for(DTYPES[dtype])
    assert compiled.apart(left, right) == 0
    right[200] = 1 << (bits - 1)
    assert compiled.apart(left, right) == compiled.apart(right, left) == 1
    left[7], right[7] = (1 << (bits - 1)) - 1, (1 << bits) - 1
    assert compiled.apart(left, right) == compiled.apart(right, left) == 2**bits - 1


def test_what_is_not_whole_blocks_is_refused() -> None:
    compiled = kernel_for(DTYPES["BF16"])
    fits = np.zeros(2 * LANES, "<u2")
    for other, block in (
        (fits[:LANES], LANES),
        (fits.astype("<u4"), LANES),
        (np.zeros(4 * LANES, "<u2")[::2], LANES),
        (fits, 3 * LANES),
        (fits, LANES // 2),
    ):
        with pytest.raises(UsageError, match="whole blocks"):
            compiled.square((fits, other), block)
    with pytest.raises(UsageError, match="whole blocks"):
        compiled.apart(fits[:100], fits[:100])
    with pytest.raises(UsageError, match="whole blocks"):
        compiled.square((fits[:0], fits[:0]), LANES)


def test_types_without_a_kernel() -> None:
    assert {name for name, dtype in DTYPES.items() if has_kernel(dtype)} == {
        "BF16", "F16", "F32", "F64",
    }  # fmt: skip


def test_a_program_that_llvm_refuses_is_an_error_of_ours() -> None:
    with pytest.raises(UnavailableError, match="cannot be used"):
        kernel._compiled("define void @square( {")  # noqa: SLF001 - no other way to fail there
