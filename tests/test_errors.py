"""The tree of errors: what each is, and that each shows as one harmless line."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance import errors
from provenance.errors import (
    CommandError,
    ContentError,
    LogProofError,
    MalformedError,
    NotMadeError,
    PolicyError,
    ProvenanceError,
    RefusedError,
    SecretError,
    SignatureError,
    SubjectError,
    UnavailableError,
    UnfinishedError,
    UnreadableError,
    UsageError,
    one_line,
)

TREE = {
    ProvenanceError: Exception,
    UsageError: ProvenanceError,
    MalformedError: ProvenanceError,
    SubjectError: MalformedError,
    UnreadableError: ProvenanceError,
    NotMadeError: UnreadableError,
    UnavailableError: ProvenanceError,
    CommandError: UnavailableError,
    UnfinishedError: CommandError,
    RefusedError: ProvenanceError,
    SignatureError: RefusedError,
    ContentError: RefusedError,
    LogProofError: RefusedError,
    PolicyError: RefusedError,
    SecretError: RefusedError,
}

MESSAGES = {
    "what": ((None, None), "no"),
    "where": (("a/b", None), "a/b: no"),
    "hint": ((None, "wait"), "no (wait)"),
    "all": (("a/b", "wait"), "a/b: no (wait)"),
    "empty place": (("", ""), "no"),
}

ESCAPED = {
    "newline": ("a\nb", r"a\nb"),
    "carriage return": ("a\rb", r"a\rb"),
    "escape sequence": ("\x1b[2J", r"\x1b[2J"),
    "NUL": ("\0", r"\x00"),
    "C1 control": ("\x9b", r"\x9b"),
    "line separator": ("\u2028", r"\u2028"),
    "right-to-left override": ("\u202e", r"\u202e"),
    "marks of direction": ("\u200e\u200f\u061c", r"\u200e\u200f\u061c"),
    "overrides of direction": ("a\u202e\u202cb", r"a\u202e\u202cb"),
    "isolates": ("\u2066\u2067\u2068\u2069", r"\u2066\u2067\u2068\u2069"),
    "zero width space": ("\u200b", r"\u200b"),
    "letters that look like blanks": ("\u3164\u2800\uffa0", r"\u3164\u2800\uffa0"),
    "byte-order mark": ("\ufeff", r"\ufeff"),
    "lone surrogate": ("\ud800", r"\ud800"),
    "undecodable byte": ("\udcff", r"\udcff"),
    "letters and signs": ("Grüße, 模型 ×∞", "Grüße, 模型 ×∞"),
    "spaces": ("a b", "a b"),
}


def classes() -> set[type[ProvenanceError]]:
    found = {ProvenanceError}
    while more := {c for k in found for c in k.__subclasses__()} - found:
        found |= more
    return {c for c in found if c.__module__ == errors.__name__}


def test_the_tree_is_the_one_above() -> None:
    assert {kind: kind.__base__ for kind in classes()} == TREE


def test_every_error_says_what_it_means() -> None:
    assert all(kind.__doc__ for kind in classes())


@pytest.mark.parametrize(("fields", "expected"), MESSAGES.values(), ids=MESSAGES)
def test_a_message_names_place_problem_and_mend(
    fields: tuple[str | None, str | None], expected: str
) -> None:
    where, hint = fields
    error = MalformedError("no", where=where, hint=hint)
    assert (error.what, error.where, error.hint) == ("no", where, hint)
    assert str(error) == expected


@pytest.mark.parametrize(("text", "expected"), ESCAPED.values(), ids=ESCAPED)
def test_what_could_forge_output_is_escaped(text: str, expected: str) -> None:
    assert one_line(text) == expected
    assert (
        str(MalformedError(text, where=text, hint=text)) == f"{expected}: {expected} ({expected})"
    )


@given(st.text(st.characters()))
def test_a_message_is_one_printable_line(text: str) -> None:
    shown = str(MalformedError("w" + text, where=text, hint=text))
    assert shown.isprintable()
    assert len(shown.splitlines()) == 1
    assert shown.encode("utf-8")


def test_a_message_has_a_bound() -> None:
    # A refused document may be one key of hundreds of megabytes.
    long = "x" * 1_000_000
    shown = str(MalformedError(long, where=long, hint=long))
    assert len(shown) < 3 * (errors.MAX_PART + 5)
    assert MalformedError(long).what == long
    assert str(MalformedError(f"the name {long} is absolute")).endswith("x is absolute")


@pytest.mark.parametrize("kind", list(TREE))
def test_an_error_survives_a_copy_and_another_process(kind: type[ProvenanceError]) -> None:
    error = kind("what", where="where", hint="hint")
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert type(other) is kind
        assert str(other) == "where: what (hint)"
        assert (other.what, other.where, other.hint) == ("what", "where", "hint")


INSIDE = {
    "no place of its own": (None, "model"),
    "a place of its own": ("claims.jsonl:2", "model: claims.jsonl:2"),
    "the same place": ("model", "model"),
    "a file in it": ("model/weights", "model/weights"),
    "a name that only begins alike": ("models", "model: models"),
}


@pytest.mark.parametrize(("where", "expected"), INSIDE.values(), ids=INSIDE)
def test_an_error_is_put_inside_a_place_once(where: str | None, expected: str) -> None:
    error = MalformedError("no", where=where, hint="wait").inside("model")
    assert (type(error), error.what, error.where, error.hint) == (
        MalformedError,
        "no",
        expected,
        "wait",
    )
    assert error.inside("model").where == expected


def test_the_status_of_a_command_survives_a_copy() -> None:
    error = pickle.loads(pickle.dumps(CommandError("not found", where="x", status=127)))  # noqa: S301 - our own
    assert (str(error), error.status) == ("x: not found", 127)
    unfinished = copy.copy(UnfinishedError("no", status=3, run="/runs/1"))
    assert (unfinished.status, unfinished.run) == (3, "/runs/1")
    secret = pickle.loads(pickle.dumps(SecretError("no", fields={"a": "X"})))  # noqa: S301
    assert secret.fields == {"a": "X"}


def test_the_command_that_completes_a_run_is_never_shortened() -> None:
    command = "provenance record --finish x" + " --redact internalParameters/a" * 1000
    assert command in str(UnfinishedError("no", hint=command))
