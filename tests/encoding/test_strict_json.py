from __future__ import annotations

import contextlib
import json
import math
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from provenance.encoding import strict_json
from provenance.errors import MalformedError

SAFE = strict_json.MAX_INTEGER

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-SAFE, SAFE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
PLAIN = st.recursive(  # what the fast path writes
    st.none() | st.booleans() | st.integers(-SAFE, SAFE) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner, max_size=4)
    ),
    max_leaves=20,
)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def nested_objects(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def as_doubles(data: bytes) -> object:
    """Return what *data* spells to a reader to whom each number is a double (RFC 8785, 3.2.2.3)."""
    return json.loads(data.decode("utf-8"), parse_int=float)


REFUSED = {
    "nothing": (b"", "not JSON"),
    "white space": (b" \n", "not JSON"),
    "byte-order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "UTF-16": ("{}".encode("utf-16"), "not UTF-8 at byte 0"),
    "invalid UTF-8": (b'"\xff"', "not UTF-8 at byte 1"),
    "overlong UTF-8": (b'"\xc0\x80"', "not UTF-8"),
    "surrogate in UTF-8": (b'"\xed\xa0\x80"', "not UTF-8"),
    "two values": (b"{} {}", "Extra data"),
    "trailing bracket": (b"{}]", "Extra data"),
    "trailing NUL": (b"{}\0", "Extra data"),
    "trailing comma": (b"[1,]", "not JSON"),
    "comment": (b"[1/**/]", "not JSON"),
    "single quotes": (b"{'a':1}", "not JSON"),
    "bare word": (b"[yes]", "not JSON"),
    "form feed as white space": (b"[\x0c1]", "not JSON"),
    "no-break space": ("[\u00a01]".encode(), "not JSON"),
    "newline in a string": (b'"a\nb"', "control character"),
    "NUL in a string": (b'"\0"', "control character"),
    "bad escape": (rb'"\x41"', "escape"),
    "half an escape": (rb'"\u12"', "escape"),
    "cut off": (b'{"a":', "not JSON"),
    "leading zero": (b"01", "Extra data"),
    "plus sign": (b"+1", "not JSON"),
    "no digit after the point": (b"1.", "Extra data"),
    "hexadecimal": (b"0x10", "Extra data"),
    "digits outside ASCII": ("\u0661".encode(), "not JSON"),
    "NaN": (b"[NaN]", "NaN is not JSON"),
    "infinity": (b"[Infinity]", "Infinity is not JSON"),
    "negative infinity": (b"-Infinity", "-Infinity is not JSON"),
    "float overflow": (b"1e400", "too large"),
    "negative float overflow": (b"[-1.5e309]", "too large"),
    "just beyond 2^53": (b"9007199254740993", "is beyond 2"),
    "just beyond -2^53": (b"[-9007199254740993]", "is beyond 2"),
    "a 64-bit integer": (b"18446744073709551615", "is beyond 2"),
    "an integer that JCS writes with an exponent": (b"1" + b"0" * 21, "is beyond 2"),
    "the most digits that CPython converts": (b"-" + b"9" * 4299, "is beyond 2"),
    "a million digits": (b"9" * 1_000_000, "is beyond 2"),
    "same key": (b'{"a":1,"a":1}', "'a' is duplicated"),
    "same key, escaped": (rb'{"a":1,"\u0061":2}', "'a' is duplicated"),
    "same key, deep": (b'[{"x":{"y":[{"a":1,"b":2,"a":3}]}}]', "'a' is duplicated"),
    "same empty key": (b'{"":1,"":2}', "is duplicated"),
    "high surrogate": (rb'"\ud800"', "lone surrogate"),
    "low surrogate": (rb'["\udc00"]', "lone surrogate"),
    "reversed pair": (rb'"\udc00\ud800"', "lone surrogate"),
    "surrogate in a key": (rb'{"a":{"\uDBFF":1}}', "lone surrogate"),
    "65 levels": (nested(65), "deeper than 64 levels"),
    "65 levels of objects": (nested_objects(65), "deeper than 64 levels"),
    "200 levels": (nested(200), "deeper than 64 levels"),
    "100000 levels": (nested(100_000), "deeper than 64 levels"),
    "100000 levels of objects": (nested_objects(100_000), "deeper than 64 levels"),
    "100000 levels, cut off": (b"[" * 100_000, "deeper than 64 levels"),
}

ACCEPTED = {
    "white space around": (b" \t\r\n{} \n", {}),
    "64 levels": (nested(64), json.loads(nested(64))),
    "64 levels and a scalar": (nested_objects(64), json.loads(nested_objects(64))),
    "a scalar": (b"null", None),
    "negative zero": (b"-0", 0),
    "exponent": (b"1E+2", 100.0),
    "underflow": (b"1e-400", 0.0),
    "largest double": (b"1.7976931348623157e308", 1.7976931348623157e308),
    "2^53 - 1": (b"9007199254740991", SAFE),
    "-(2^53 - 1)": (b"-9007199254740991", -SAFE),
    "a surrogate pair": (rb'"\ud83d\ude00"', "\U0001f600"),
    "an escaped backslash before ud800": (rb'"\\ud800"', r"\ud800"),
    "NUL, escaped": (rb'"\u0000"', "\0"),
    "same key in two objects": (b'[{"a":1},{"a":1}]', [{"a": 1}, {"a": 1}]),
    "keys that differ by case": (b'{"a":1,"A":2}', {"a": 1, "A": 2}),
    "keys that look alike": ('{"\u00e9":1,"e\u0301":2}'.encode(), {"\u00e9": 1, "e\u0301": 2}),
}

# Doubles from 2^53 to 10^21 that JCS writes as integers.
WHOLE = {
    b"9007199254740992": 2.0**53,
    b"10000000000000000": 1e16,
    b"-10000000000000000": -1e16,
    b"123456789012345680000": 123456789012345680000.0,
    b"999999999999999900000": 999999999999999900000.0,
}

UNWRITABLE: dict[str, tuple[object, str]] = {
    "NaN": (math.nan, "not representable"),
    "infinity": ([math.inf], "not representable"),
    "2^53": (2**53, "safe integer"),
    "-2^53, deep": ({"a": [-(2**53)]}, "safe integer"),
    "lone surrogate": ("\ud800", "surrogates"),
    "lone surrogate beside a float": (["\ud800", 0.5], "non-UTF-8"),
    "lone surrogate in a key": ({"\ud800": 1}, "surrogates"),
    "key that is no text": ({1: 2}, "keys must be strings"),
    "65 levels": (json.loads(nested(65)), "deeper than 64 levels"),
}


class Point(msgspec.Struct):
    y: int
    x: tuple[float, ...]


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message) as caught:
        strict_json.parse(data, where="here")
    assert caught.value.where == "here"
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("data", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(data: bytes, value: object) -> None:
    parsed = strict_json.parse(data)
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_size_limit_holds_before_anything_is_read() -> None:
    assert strict_json.parse(b"[1]", max_bytes=3) == [1]
    with pytest.raises(MalformedError, match="longer than 3 bytes"):
        strict_json.parse(b"[12]", max_bytes=3)


def test_a_limit_on_values_holds_before_any_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert strict_json.parse(b'[1,{"a":2}]', max_values=4) == [1, {"a": 2}]
    with pytest.raises(MalformedError, match="more than 4 values"):
        strict_json.parse(b"[[],[],[]", max_values=4)  # not even JSON
    with pytest.raises(MalformedError, match="more than 10000000 values"):
        strict_json.parse(b"[" + b"[]," * 5_000_000 + b"[]]")
    monkeypatch.setattr(strict_json, "MAX_VALUES", 4)
    assert strict_json.format([1, 2]) == b"[1,2]"
    with pytest.raises(MalformedError, match="more than 4 values"):
        strict_json.format([1, 2, 3, 4])


def test_a_depth_limit_may_be_lower() -> None:
    assert strict_json.parse(b"[[]]", max_depth=2) == [[]]
    with pytest.raises(MalformedError, match="deeper than 2 levels"):
        strict_json.parse(b"[[1,[]]]", max_depth=2)
    with pytest.raises(MalformedError, match="deeper than 0 levels"):
        strict_json.parse(b"[]", max_depth=0)
    assert strict_json.parse(b"1", max_depth=0) == 1


@pytest.mark.parametrize(("data", "value"), WHOLE.items())
def test_a_float_that_jcs_writes_as_an_integer_comes_back(data: bytes, value: float) -> None:
    assert strict_json.format(value) == data
    parsed = strict_json.parse(data)
    assert type(parsed) is float
    assert parsed == value


@given(st.integers(SAFE + 1, 10**22), st.sampled_from([1, -1]), st.booleans())
def test_beyond_the_safe_range_only_the_spelling_of_jcs_is_read(
    magnitude: int, sign: int, whole: bool
) -> None:
    number = sign * (int(float(magnitude)) if whole else magnitude)
    text = str(number).encode()
    if rfc8785.dumps(float(number)) == text:
        assert strict_json.parse(text) == float(number)
    else:
        with pytest.raises(MalformedError, match="beyond"):
            strict_json.parse(text)


@pytest.mark.parametrize(("value", "message"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_has_no_canonical_form_is_refused(value: object, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        strict_json.format(value)


def test_what_is_nested_beyond_the_interpreter_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(MalformedError, match="canonical JSON"):
        strict_json.format(value)
    while value:  # its own destructor would recurse
        value = value[0]


def test_what_could_not_be_read_again_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MAX_BYTES", 10)
    assert strict_json.format("12345678") == b'"12345678"'
    with pytest.raises(MalformedError, match="longer than 10 bytes"):
        strict_json.format("123456789")


def test_the_example_of_the_rfc() -> None:
    # RFC 8785, section 3.2.3 (sorting) and 3.2.2 (numbers and strings).
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert strict_json.format(value) == (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    keys = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(strict_json.format(keys)).values()) == [2, 4, 6, 7, 1, 5, 3]


def test_a_struct_is_written_by_its_fields() -> None:
    assert strict_json.format(Point(1, (1.0, 0.5))) == b'{"x":[1,0.5],"y":1}'


@given(VALUES)
@example(-0.0)
@example({"\ue000": 1, "\U00010000": 2})
def test_what_is_written_is_jcs(value: object) -> None:
    assert strict_json.format(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@given(PLAIN)
@example("\x7f/\u2028<&>\x00\x1f\x08\x0c")
@example({"b": 1, "B": 2, "\x7f": 3, "": 4})
def test_the_fast_path_is_jcs_too(value: object) -> None:
    assert strict_json._sorts_alike(value)  # noqa: SLF001 - else this tests the oracle by itself
    assert strict_json.format(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@given(VALUES)
@example([1e16, -1e20, 5e-324, -0.0])
def test_what_is_written_is_read_again(value: object) -> None:
    data = strict_json.format(value)
    parsed = strict_json.parse(data)
    assert parsed == value
    assert strict_json.format(parsed) == data


@given(VALUES, st.booleans())
def test_another_layout_is_read_as_the_standard_library_reads_it(
    value: object, ascii_only: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1)
    assert strict_json.parse(text.encode()) == value


@given(st.binary(max_size=60) | st.text(st.sampled_from('[]{}",:0189eE+-.\\u dDnNaltrufs \n')))
def test_bytes_that_mean_nothing_raise_only_our_error(data: bytes | str) -> None:
    raw = data if isinstance(data, bytes) else data.encode()
    try:
        value = strict_json.parse(raw)
    except MalformedError:
        return
    assert as_doubles(raw) == value


@given(VALUES, st.data())
def test_a_damaged_document_raises_only_our_error(value: object, draw: st.DataObject) -> None:
    data = bytearray(strict_json.format(value))
    data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedError):
        assert strict_json.parse(bytes(data)) == as_doubles(bytes(data))


def outcome(data: bytes) -> tuple[str, str]:
    """Return the type and the spelling of what *data* is read as, or the refusal."""
    try:
        value = strict_json.parse(data)
    except MalformedError as error:
        return "refused", str(error)
    return "read", repr(value)  # it tells 0.0 from -0.0, and 1 from 1.0


PIECES = '[]{}",:019eE+-. \\u ab'.replace(" ", "") + "\ud7ffé\0\n"


@given(
    st.binary(max_size=40)
    | st.text(st.sampled_from(PIECES)).map(str.encode)
    | VALUES.map(msgspec.json.encode)
    | st.lists(st.integers() | st.floats()).map(lambda them: json.dumps(them).encode())
    | st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["1", "[]", '"c"']))).map(
        lambda them: f"{{{','.join(f'{json.dumps(key)}:{it}' for key, it in them)}}}".encode()
    )
)
@example(b'{"a":1,"a":1}')
@example(b'{"a":{"b":[{"c":1,"c":1}]}}')
@example(b"9007199254740992")
@example(b"[-9007199254740993,1]")
@example(b'{"a":18446744073709551616}')
@example(b"[1e400,-0,-0.0,1e16,0.1000]")
@example(b'["\\ud800"]')
@example(b"[" * 65 + b"]" * 65)
@example(b"[" * 64 + b"]" * 64)
@example(b"[" * 64 + b"1" + b"]" * 64)
def test_what_is_read_at_once_is_what_is_read_slowly(data: bytes) -> None:
    found = outcome(data)
    with patch.object(msgspec.json, "decode", side_effect=msgspec.DecodeError):
        assert outcome(data) == found
