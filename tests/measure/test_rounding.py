"""One rounding, against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import UsageError
from provenance.measure import pieces
from provenance.measure.distances import Job, Wanted, measure_each
from provenance.measure.pieces import Workers
from provenance.measure.rounding import LAYOUTS, Rounding, is_narrower, round_codes
from provenance.weights.dtypes import DTYPES
from tests.measure.in_memory import COMPONENTS, Array, InMemory

if TYPE_CHECKING:
    from provenance.weights.dtypes import DType

PAIRS = [
    (source, target)
    for source in LAYOUTS
    for target in LAYOUTS
    if is_narrower(DTYPES[target], DTYPES[source])
]


def values_of(target: str) -> dict[int, Fraction]:
    """Return the finite values of a type of at most 16 bits by their codes, without -0."""
    width = DTYPES[target].bits
    codes = np.arange(2**width, dtype=f"<u{width // 8}")
    with np.errstate(invalid="ignore"):
        values = codes.view(COMPONENTS[target]).astype(np.float64).tolist()
    return {
        code: Fraction(value)
        for code, value in enumerate(values)
        if math.isfinite(value) and (value or not code)
    }


def step_of(target: str, value: Fraction) -> Fraction:
    """Return the distance of neighbours around *value*, were the exponent not bounded above."""
    layout = LAYOUTS[target]
    exponent = math.floor(math.log2(abs(value))) if value else -2000
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while value and abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    return Fraction(2) ** (max(exponent, 1 - layout.bias) - layout.mantissa)


def nearest(target: str, value: Fraction) -> Fraction | None:
    """Return *value* rounded to *target*, ties to even; None beyond its largest value."""
    step = step_of(target, value)
    rounded = round(value / step) * step  # Python rounds a fraction's ties to even
    return rounded if abs(rounded) <= largest(target) else None


def largest(target: str) -> Fraction:
    code = np.array([LAYOUTS[target].largest], f"<u{DTYPES[target].bits // 8}")
    return Fraction(float(code.view(COMPONENTS[target]).astype(np.float64)[0]))


def exact(code: int, name: str) -> Fraction:
    bits = np.array([code], f"<u{DTYPES[name].bits // 8}").view(COMPONENTS[name])
    return Fraction(float(bits.astype(np.float64)[0]))


def near_boundaries(target: str) -> st.SearchStrategy[float]:
    """Values on, just below and just above the middle between neighbours of *target*."""
    layout = LAYOUTS[target]

    def middle(code: int, sign: int, away: int) -> float:
        least = 1 - layout.bias - layout.mantissa
        exponent = max((code >> layout.mantissa) - 1, 0)
        significand = (code & ((1 << layout.mantissa) - 1)) | (
            (code >> layout.mantissa > 0) << layout.mantissa
        )
        value = math.ldexp(significand + 0.5, least + exponent)
        for _ in range(abs(away)):
            value = math.nextafter(value, math.copysign(math.inf, away))
        return sign * value

    return st.builds(
        middle, st.integers(0, layout.largest), st.sampled_from([1, -1]), st.integers(-1, 1)
    )


def check(raw: bytes, source: DType, target: str) -> None:
    """Check every value of *raw* against rational arithmetic."""
    found = round_codes(raw, source, DTYPES[target])
    values = np.frombuffer(raw, COMPONENTS[source.name])
    with np.errstate(invalid="ignore"):
        wide = values.astype(np.float64).tolist()
    layout, width = LAYOUTS[target], DTYPES[target].bits
    for value, code, overflow, nan in zip(
        wide, found.codes.tolist(), found.overflow.tolist(), found.nan.tolist(), strict=True
    ):
        assert nan == math.isnan(value)
        if nan:
            assert (code, overflow) == (0, False)
        elif math.isinf(value):
            assert overflow == (not layout.infinity)
            sign = (value < 0) << (width - 1)
            assert code == (0 if overflow else (layout.largest + 1) | sign)
        elif (expected := nearest(target, Fraction(value))) is None:
            assert (code, overflow) == (0, True)
        else:
            assert not overflow
            assert exact(code, target) == expected
            if not expected:
                negative = math.copysign(1, value) < 0 and layout.negative_zero
                assert code == negative << (width - 1)


@pytest.mark.parametrize(("source", "target"), PAIRS)
@settings(max_examples=30)
@given(data=st.data())
def test_every_pair_against_exact_arithmetic(source: str, target: str, data: st.DataObject) -> None:
    width = DTYPES[source].bits // 8
    codes = data.draw(st.lists(st.integers(0, 2 ** (8 * width) - 1), max_size=6))
    raw = np.array(codes, f"<u{width}").tobytes()
    drawn = data.draw(st.lists(near_boundaries(target), max_size=6))
    with np.errstate(over="ignore"):
        raw += np.array(drawn, np.float64).astype(COMPONENTS[source]).tobytes()
    check(raw, DTYPES[source], target)


@pytest.mark.parametrize(("source", "target"), [p for p in PAIRS if DTYPES[p[0]].bits == 16])
def test_every_value_of_sixteen_bits_rounds_to_the_nearest(source: str, target: str) -> None:
    every = np.arange(2**16, dtype="<u2")
    found = round_codes(every.tobytes(), DTYPES[source], DTYPES[target])
    with np.errstate(invalid="ignore"):
        wide = every.view(COMPONENTS[source]).astype(np.float64)
        ours = found.codes.view(COMPONENTS[target]).astype(np.float64)
        peers = every.view(COMPONENTS[source]).astype(np.float32).astype(COMPONENTS[target])
    usable = ~(found.overflow | found.nan)
    assert np.array_equal(found.nan, np.isnan(wide))
    # float32 holds these values, so the library's conversion has one rounding too.
    assert np.array_equal(ours[usable], peers.astype(np.float64)[usable])
    assert np.abs(wide[found.overflow]).min(initial=np.inf) > float(largest(target))


@pytest.mark.parametrize("target", [name for name in LAYOUTS if DTYPES[name].bits <= 16])
def test_what_is_representable_stays(target: str) -> None:
    values = values_of(target)
    raw = np.array([float(value) for value in values.values()]).tobytes()
    found = round_codes(raw, DTYPES["F64"], DTYPES[target])
    assert found.codes.tolist() == list(values)
    assert not found.overflow.any()


def test_a_conversion_by_way_of_float32_rounds_twice() -> None:
    value = np.array([1 + 2**-8 + 2**-40])
    found = round_codes(value.tobytes(), DTYPES["F64"], DTYPES["BF16"])
    assert found.codes.view(ml_dtypes.bfloat16).astype(float)[0] == 1 + 2**-7
    assert value.astype(ml_dtypes.bfloat16).astype(float)[0] == 1.0


@pytest.mark.parametrize(
    ("target", "value", "code"),
    [
        ("F8_E4M3", 448.0, 0x7E),
        ("F8_E4M3", 464.0, 0x7E),  # halfway to 480, which would be NaN: to the even 448
        ("F8_E4M3", 464.1, None),
        ("F8_E4M3", math.inf, None),
        ("F8_E5M2", 57344.0, 0x7B),
        ("F8_E5M2", 61439.0, 0x7B),
        ("F8_E5M2", 61440.0, None),  # halfway to 65536: to the even, which is not there
        ("F8_E5M2", math.inf, 0x7C),
        ("F16", 65519.0, 0x7BFF),
        ("F16", -65520.0, None),
        ("BF16", -0.0, 0x8000),
        ("BF16", -1e-300, 0x8000),
        ("F8_E4M3FNUZ", -0.0, 0),
        ("F8_E4M3FNUZ", -1e-300, 0),
        ("F32", 2.0**-150, 0),
        ("F32", math.nextafter(2.0**-150, 1), 1),
    ],
)
def test_ends_of_the_range(target: str, value: float, code: int | None) -> None:
    found = round_codes(np.array([value]).tobytes(), DTYPES["F64"], DTYPES[target])
    assert found.overflow.tolist() == [code is None]
    assert found.codes.tolist() == [code or 0]


@pytest.mark.parametrize(
    ("source", "target"),
    [("F32", "F32"), ("F16", "BF16"), ("BF16", "F16"), ("F32", "F64"), ("I32", "F16"),
     ("F64", "F4"), ("F64", "F8_E8M0"), ("C64", "BF16"), ("F8_E4M3", "F8_E5M2")],
)  # fmt: skip
def test_only_narrower_floats_are_rounded_to(source: str, target: str) -> None:
    with pytest.raises(UsageError, match=f"{source} is not rounded to {target}"):
        round_codes(b"", DTYPES[source], DTYPES[target])


def compared(left: Array, right: Array, target: str, threads: int = 1) -> Rounding:
    dtype = {"<f8": "F64", "<f4": "F32"}[left.dtype.str]
    job = Job("t", [InMemory(left, dtype), InMemory(right, dtype)], [(0, 1)])
    wanted = Wanted(norms=False, rounded=((target, ("*",)),))
    with Workers(threads, 0) as workers:
        (((_, found),),) = measure_each([job], wanted, workers)
    return found[target]


def test_tensors_that_round_to_the_same() -> None:
    left = np.array([[1.0, 2.0], [3.0, 1 + 2**-8]], "<f4")
    right = np.array([[1.0 + 1e-3, 2.0], [3.0, 1 + 2**-7]], "<f4")
    assert compared(left, right, "BF16") == Rounding(1, 0, 0, 0, 0, 4, (1, 1), (1, 1))
    right[1, 1] = 1
    assert compared(left, right, "BF16") == Rounding(0, 0, 0, 0, 0, 4, None, None)


def test_zeros_overflow_and_nan_are_told_apart() -> None:
    nan, other = np.array([0x7FC00000, 0x7FC00001], "<u4").view("<f4")
    left = np.array([0.0, 1e-30, 1e9, nan, nan, np.inf, 7.0], "<f4")
    right = np.array([-0.0, -1e-30, 1e9, nan, other, 1.0, 7.0], "<f4")
    assert compared(left, right, "F8_E4M3") == Rounding(
        differing=5,
        overflow=2,
        nan=2,
        zero_signs=2,
        lost=1,
        nonzero=6,
        first=(0,),
        first_value=(2,),
    )
    lost = np.array([1e-30, 0], "<f4")  # counts on either side
    assert compared(lost, lost[::-1].copy(), "F8_E4M3") == Rounding(0, 0, 0, 0, 2, 2, None, None)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_pieces_add_up(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 256)
    left = np.ones(1024, "<f4")
    right = left.copy()
    right[[300, 301, 900]] = 2, -1, 3
    assert compared(left, right, "BF16", threads) == Rounding(3, 0, 0, 0, 0, 1024, (300,), (300,))


def test_chunks_of_a_piece_add_up() -> None:
    """What the first chunk has is not forgotten where the last differs in nothing."""
    left = np.ones(3 * pieces.READ_SAME, "<f4")
    right = left.copy()
    left[[3, 7, 8]] = 0.0, np.nan, 1e9
    right[3] = -0.0
    for chunk in (0, 1):
        right[chunk * pieces.READ_SAME + 10] = 2
    assert compared(left, right, "F8_E4M3") == Rounding(
        differing=5,
        overflow=1,
        nan=1,
        zero_signs=1,
        lost=0,
        nonzero=left.size - 1,
        first=(3,),
        first_value=(7,),
    )


def test_signs_differ_not_of_zeros_alone() -> None:
    """The code of 2 is a single bit, beside the sign."""
    two = np.array([2.0], "<f4")
    assert compared(two, -two, "BF16") == Rounding(1, 0, 0, 0, 0, 1, (0,), (0,))
