from __future__ import annotations

import pytest

from provenance.encoding.fields import as_closed_object, as_object, as_text
from provenance.errors import MalformedError


def test_what_is_of_its_type_is_returned() -> None:
    document = {"a": "x", "b": 1}
    assert as_object(document, "the document", None) is document
    assert as_closed_object(document, "the document", None, ("a",), ("b", "c")) is document
    assert as_text(document["a"], "a", None) == "x"


@pytest.mark.parametrize("value", [None, [], "text", 1, True])
def test_what_is_no_object_is_named(value: object) -> None:
    with pytest.raises(MalformedError, match=r"^place: logId is not a JSON object$"):
        as_object(value, "logId", "place")
    with pytest.raises(MalformedError, match=r"^place: logId is not a JSON object$"):
        as_closed_object(value, "logId", "place", ())


@pytest.mark.parametrize("value", [None, [], {}, b"x", 1, True])
def test_what_is_no_text_is_named(value: object) -> None:
    with pytest.raises(MalformedError, match=r"^place: kind is not a text$"):
        as_text(value, "kind", "place")


def test_a_closed_object_has_its_fields_and_no_other() -> None:
    with pytest.raises(MalformedError, match=r"^place: proof has no hashes$"):
        as_closed_object({"index": 1}, "proof", "place", ("index", "hashes"))
    with pytest.raises(MalformedError, match=r"^place: proof has the unknown field 'x'$"):
        as_closed_object({"index": 1, "x": 2}, "proof", "place", ("index",), ("hashes",))
