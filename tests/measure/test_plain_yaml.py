"""Plain YAML is read as other readers read it, and the rest of YAML is refused."""

from __future__ import annotations

from typing import Any

import pytest

from provenance.errors import MalformedError
from provenance.measure.side_files import parse_yaml
from provenance.weights.beside import Value

TEXT = """---
# what a training was told
lr: 0.001
name: run-1
'quoted key': "a: b # c"
nothing:
flag: true
steps:
- 1
- -2.5
-
  - deep
layers:
  - size: 3
    kind: conv

  - size: 4
model:
    hidden: {}
    path: /home/a/b-c
    at: 2026-01-01 10:00:00
    single: 'it''s'
"""


def plain(tree: Any) -> Any:  # noqa: ANN401 - a tree
    if isinstance(tree, Value):
        return tree.text
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(each) for each in tree] if isinstance(tree, list) else tree


def test_mappings_lists_and_scalars_are_read() -> None:
    assert plain(parse_yaml(TEXT.encode(), "p")) == {
        "lr": "0.001",
        "name": '"run-1"',
        "quoted key": '"a: b # c"',
        "nothing": None,
        "flag": '"true"',
        "steps": ["1", "-2.5", ['"deep"']],
        "layers": [{"size": "3", "kind": '"conv"'}, {"size": "4"}],
        "model": {
            "hidden": {},
            "path": '"/home/a/b-c"',
            "at": '"2026-01-01 10:00:00"',
            "single": '"it\'s"',
        },
    }
    assert parse_yaml(b"", "p") is None


def test_a_text_that_is_quoted_is_no_boolean_and_no_number() -> None:
    found = parse_yaml(b"a: 'yes'\nb: yes\nc: '1'\nd: 1\n", "p")
    assert isinstance(found, dict)
    assert [value.kind for value in found.values()] == ["text", "boolean", "text", "number"]


@pytest.mark.parametrize("text", ["1_000", "0x1F", ".5", ".inf", "+1", "2026-01-01", "1:30", "="])
def test_what_some_readers_take_for_a_number_is_not_that_text(text: str) -> None:
    assert parse_yaml(f"a: {text}\n".encode(), "p") != parse_yaml(f"a: '{text}'\n".encode(), "p")


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2",
        "a: 1\n'a': 2",
        "a: &x 1\nb: *x",
        "<<: 1",
        "a: !!python/object:os.system x",
        "a: !x 1",
        "a: [1, 2]",
        "a: {b: 1}",
        "a: |\n  text",
        "a: >\n  text",
        "a: one\n  two",
        "a:\n    b: 1\n  c: 2",
        "  a: 1\nb: 2",
        "a: 1 # more",
        "a: b: c",
        "a: 1\n---\nb: 2",
        "%YAML 1.2\n---\na: 1",
        "a: 1\n...",
        "? a\n: 1",
        "\ta: 1",
        "a: 1\r\nb: 2",
        "a: 1\u2028b: 2",
        "\ufeffa: 1",
        "yes: 1",
        "- a\nb: 1",
        "a: 1\n- b",
        "a: 'x' y",
        'a: "\\x41"',
        "a: 'x",
        "- " * 100 + "a",
        "\n".join(" " * n + "a:" for n in range(100)),
    ],
)
def test_the_rest_is_refused(text: str) -> None:
    with pytest.raises(MalformedError, match="not YAML of block mappings"):
        parse_yaml(text.encode(), "p")


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(MalformedError):
        parse_yaml(b"a: \xff", "p")
