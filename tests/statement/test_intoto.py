from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.envelope import dsse
from provenance.envelope.dsse import open_envelope
from provenance.errors import MalformedError
from provenance.keys import generate
from provenance.statement import intoto
from provenance.statement.intoto import Statement, Subject

HEX = "ab" * 32
STATEMENT = Statement((Subject({"sha256": HEX}, "model"),), "https://example.com/x/v1", {"a": [1]})
DOCUMENT: dict[str, Any] = json.loads(intoto.format(STATEMENT))


def with_digest(digest: object) -> dict[str, Any]:
    return DOCUMENT | {"subject": [{"name": "model", "digest": digest}]}


REFUSED: dict[str, tuple[object, str]] = {
    "a list": ([], "not an in-toto Statement v1"),
    "no type": ({k: v for k, v in DOCUMENT.items() if k != "_type"}, "_type"),
    "Statement v0.1": (
        DOCUMENT | {"_type": "https://in-toto.io/Statement/v0.1"},
        "not an in-toto Statement v1",
    ),
    "no subject": ({k: v for k, v in DOCUMENT.items() if k != "subject"}, "subject"),
    "an empty list of subjects": (DOCUMENT | {"subject": []}, "length >= 1"),
    "a subject that is a text": (DOCUMENT | {"subject": ["model"]}, "Expected 'object'"),
    "a subject without a digest": (DOCUMENT | {"subject": [{"name": "m"}]}, "digest"),
    "no predicate type": (
        {k: v for k, v in DOCUMENT.items() if k != "predicateType"},
        "predicateType",
    ),
    "a predicate that is a list": (DOCUMENT | {"predicate": [1]}, "predicate"),
    "no algorithm": (with_digest({}), "a digest is missing"),
    "a digest that is a number": (with_digest({"sha256": 1}), "digest"),
    "an empty digest": (with_digest({"sha256": ""}), "not a sha256 digest"),
    "upper case": (with_digest({"sha256": HEX.upper()}), "not a sha256 digest"),
    "one digit short": (with_digest({"sha256": HEX[:-1]}), "not a sha256 digest"),
    "one digit long": (with_digest({"sha256": HEX + "0"}), "not a sha256 digest"),
    "no hexadecimal": (with_digest({"sha256": "g" * 64}), "not a sha256 digest"),
    "digits outside ASCII": (with_digest({"sha256": "\u0661" * 64}), "not a sha256 digest"),
    "a line end": (with_digest({"sha256": HEX[:-1] + "\n"}), "not a sha256 digest"),
    "a prefix": (with_digest({"sha256": "0x" + HEX[2:]}), "not a sha256 digest"),
    "sha512 of another length": (with_digest({"sha512": HEX}), "not a sha512 digest"),
    "a commit of another length": (with_digest({"gitCommit": "ab"}), "not a gitCommit digest"),
    "one good, one bad": (with_digest({"sha256": HEX, "sha1": "x"}), "not a sha1 digest"),
}


def parse(document: object) -> Statement:
    return intoto.parse(json.dumps(document).encode(), where="claim")


def test_round_trip() -> None:
    assert parse(DOCUMENT) == STATEMENT
    assert intoto.format(parse(DOCUMENT)) == intoto.format(STATEMENT)


@pytest.mark.parametrize(("document", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(document: object, message: str) -> None:
    with pytest.raises(MalformedError, match=message) as caught:
        parse(document)
    assert caught.value.where == "claim"


def test_what_is_unknown_is_ignored_as_the_specification_asks() -> None:
    assert parse(DOCUMENT | {"new": 1}) == STATEMENT
    assert parse(with_digest({"sha256": HEX, "blake9": "00"})).subject[0].digest["blake9"] == "00"
    bare = {k: v for k, v in DOCUMENT.items() if k != "predicate"}
    assert parse(bare).predicate == {}


@pytest.mark.parametrize("length", [40, 64])
def test_git_has_two_hashes(length: int) -> None:
    assert parse(with_digest({"gitCommit": "a" * length})).subject[0].digest


@pytest.mark.parametrize("data", [b"", b"{}x", b'{"_type":1,"_type":2}', b"\xff", b"[" * 200])
def test_bytes_that_are_no_json(data: bytes) -> None:
    with pytest.raises(MalformedError):
        intoto.parse(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*DOCUMENT, "name", "digest"]), inner, max_size=4)
        ),
    )
)
def test_any_json_gives_a_statement_or_our_error(document: object) -> None:
    try:
        assert parse(document).subject
    except MalformedError as error:
        assert str(error).isprintable()  # noqa: PT017 - either outcome is right


def test_a_document_signed_as_another_kind_does_not_pass_for_a_statement() -> None:
    key = generate()
    payload = intoto.format(STATEMENT)
    for kind in ("application/json", "", dsse.IN_TOTO_PAYLOAD + ";v=2", "APPLICATION/vnd.in-toto"):
        opened = open_envelope(dsse.sign(kind, payload, key), [key.public])
        with pytest.raises(MalformedError, match="not signed as a statement but as"):
            intoto.from_opened(opened, where="claim")
    opened = open_envelope(dsse.sign(dsse.IN_TOTO_PAYLOAD, payload, key), [key.public])
    assert intoto.from_opened(opened) == STATEMENT
