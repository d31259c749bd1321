from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from provenance.weights.dtypes import DTYPES, codes, widen

FLOATS: dict[str, Any] = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}


@pytest.mark.parametrize(("name", "oracle"), FLOATS.items(), ids=FLOATS)
def test_every_code_of_a_narrow_float_has_its_value(name: str, oracle: Any) -> None:  # noqa: ANN401
    dtype = DTYPES[name]
    every = np.arange(2**dtype.bits, dtype=f"<u{dtype.bits // 8}")
    out, scratch = np.empty(every.size), np.empty(every.size)
    with np.errstate(invalid="ignore"):
        widen(every.tobytes(), dtype, out, scratch)
        expected = every.view(oracle).astype(np.float64)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))


@pytest.mark.parametrize(("name", "array"), [("F32", "<f4"), ("F64", "<f8")])
def test_wide_floats_keep_every_bit(name: str, array: str) -> None:
    values = np.array([0.0, -0.0, 1e-40, -5e-324, 3.5, np.inf], dtype=array)
    out = np.empty(6)
    widen(values.tobytes(), DTYPES[name], out, np.empty(6))
    assert out.astype(array).tobytes() == values.tobytes()


def test_a_complex_element_is_two_values() -> None:
    out = np.empty(4)
    widen(np.array([1 + 2j, 3 - 4j], "<c8").tobytes(), DTYPES["C64"], out, np.empty(4))
    assert out.tolist() == [1, 2, 3, -4]
    assert codes(np.zeros(2, "<c16").tobytes(), DTYPES["C128"]).shape == (4,)


def test_packed_codes_are_rows_of_bits() -> None:
    assert codes(b"\x21", DTYPES["F4"]).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert codes(b"\x01\x00\x80", DTYPES["F6_E3M2"]).shape == (4, 6)
