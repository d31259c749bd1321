from __future__ import annotations

import base64
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provenance.encoding import strict_base64
from provenance.errors import MalformedError

# RFC 4648, section 10.
VECTORS = {
    b"": "",
    b"f": "Zg==",
    b"fo": "Zm8=",
    b"foo": "Zm9v",
    b"foob": "Zm9vYg==",
    b"fooba": "Zm9vYmE=",
    b"foobar": "Zm9vYmFy",
}

REFUSED = {
    "no padding": "Zg",
    "half the padding": "Zg=",
    "too much padding": "Zg===",
    "padding after a whole group": "Zm9v====",
    "only padding": "====",
    "padding first": "=Zg=",
    "padding in the middle": "Zg==Zg==",
    "one character": "Z",
    "five characters": "Zm9vZ",
    "unused bits, two paddings": "Zh==",
    "unused bits, one padding": "Zm9=",
    "unused bits in a later group": "Zm9vZh==",
    "URL alphabet": "-_-_",
    "newline at the end": "Zm9v\n",
    "newline inside": "Zm\n9v",
    "space": "Zm 9v",
    "leading space": " Zm9v",
    "NUL": "Zm9v\0",
    "letter outside ASCII": "Zm9ä",
    "digit outside ASCII": "Zm9\u0665",
    "lone surrogate": "Zm9\ud800",
    "percent": "%%%%",
}

ALPHABET = string.ascii_letters + string.digits + "+/="


@pytest.mark.parametrize(("data", "text"), VECTORS.items())
def test_the_vectors_of_the_rfc(data: bytes, text: str) -> None:
    assert strict_base64.format(data) == text
    assert strict_base64.parse(text) == data


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(MalformedError, match="base64"):
        strict_base64.parse(text)


def test_the_place_is_named() -> None:
    with pytest.raises(MalformedError) as caught:
        strict_base64.parse("?", where="model.sig: payload")
    assert caught.value.where == "model.sig: payload"


@given(st.binary())
def test_round_trip(data: bytes) -> None:
    assert strict_base64.parse(strict_base64.format(data)) == data


@given(st.text(ALPHABET, max_size=12) | st.text(max_size=12))
@example("Zh==")
def test_what_parses_is_the_one_spelling(text: str) -> None:
    try:
        data = strict_base64.parse(text)
    except MalformedError:
        # Nothing that the standard library writes is refused.
        with pytest.raises((ValueError, AssertionError)):
            assert base64.b64encode(base64.b64decode(text, validate=True)) == text.encode("ascii")
    else:
        assert strict_base64.format(data) == text


@given(st.binary(min_size=1, max_size=40), st.data())
def test_changing_any_character_changes_the_bytes_or_is_refused(
    data: bytes, draw: st.DataObject
) -> None:
    text = strict_base64.format(data)
    place = draw.draw(st.integers(0, len(text) - 1))
    other = text[:place] + draw.draw(st.sampled_from(ALPHABET)) + text[place + 1 :]
    try:
        parsed = strict_base64.parse(other)
    except MalformedError:
        return
    assert (parsed == data) == (other == text)
