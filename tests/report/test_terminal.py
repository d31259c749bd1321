from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.report.terminal import print_json

OBEYED = "\x9b2J\x7f\u202e\u2028\u2066\ufeff\U000e0001\x1b\n"


def test_nothing_that_a_terminal_could_obey_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    document = {OBEYED: [OBEYED, "plain \u20ac \U0001f600 é"]}
    print_json(document)
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    assert "plain \u20ac \U0001f600 é" in shown
    assert "\\u202e" in shown
    assert json.loads(shown) == document


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_printed_is_the_document(document: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("click.echo", lines.append)
        print_json(document)
    (text,) = lines
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == document
