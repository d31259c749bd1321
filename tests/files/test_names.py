from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provenance.errors import MalformedError
from provenance.files.names import MAX_NAME_BYTES, check_name, component_order

REFUSED = {
    "empty": ("", "empty part"),
    "absolute": ("/etc/passwd", "absolute"),
    "only a slash": ("/", "absolute"),
    "parent": ("..", "leaves the folder"),
    "parent in front": ("../outside", "leaves the folder"),
    "parent inside": ("a/../../outside", "leaves the folder"),
    "parent that comes back": ("a/../b", "leaves the folder"),
    "dot": (".", "empty part or '.'"),
    "dot inside": ("a/./b", "empty part or '.'"),
    "two slashes": ("a//b", "empty part or '.'"),
    "slash at the end": ("a/", "empty part or '.'"),
    "backslash": (r"a\b", "backslash"),
    "parent by backslash": (r"..\outside", "backslash"),
    "NUL": ("a\0b", "control character"),
    "newline": ("a\nb", "control character"),
    "tab": ("a\tb", "control character"),
    "escape": ("a\x1b[31m", "control character"),
    "delete": ("a\x7f", "control character"),
    "C1 control": ("a\x9b", "control character"),
    "line separator": ("a\u2028b", "control character"),
    "paragraph separator": ("a\u2029b", "control character"),
    "right-to-left override": ("a\u202egnp.exe", "control character"),
    "left-to-right isolate": ("a\u2066b", "control character"),
    "undecodable byte": ("a\udcff", "not UTF-8"),
    "lone surrogate": ("a\ud800", "not UTF-8"),
    "too long": ("a" * (MAX_NAME_BYTES + 1), "longer than 4096 bytes"),
    "too long in bytes": ("ä" * (MAX_NAME_BYTES // 2 + 1), "longer than 4096 bytes"),
}

ACCEPTED = {
    "plain": "model.safetensors",
    "in folders": "a/b/c",
    "space": "a b",
    "three dots": "...",
    "dots around": "..a/b..",
    "hidden": ".config",
    "dash": "-rf",
    "tilde": "~",
    "colon": "c:d",
    "other letters": "模型/größe",
    "decomposed": "e\u0301",
    "emoji": "🤗",
    "right-to-left letters": "נתונים",
    "longest": "a" * MAX_NAME_BYTES,
}


@pytest.mark.parametrize(("name", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(name: str, message: str) -> None:
    with pytest.raises(MalformedError, match=message) as caught:
        check_name(name, where="here")
    assert caught.value.where == "here"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(name: str) -> None:
    assert check_name(name) == name


@given(st.text(st.sampled_from("ab./\\\0\n ä\u202e")) | st.text())
@example("a/..")
def test_an_accepted_name_stays_in_its_folder(name: str) -> None:
    try:
        check_name(name)
    except MalformedError:
        return
    assert os.path.normpath(f"/model/{name}") == f"/model/{name}"
    assert name.isprintable() or not any(c in name for c in "\0\n\r\x1b\u2028\u202e")


@given(st.lists(st.text(st.sampled_from("ab-./"), min_size=1)))
def test_the_order_is_the_reference_tools(names: list[str]) -> None:
    # It sorts pathlib's pure paths.
    usable = {str(PurePosixPath(name.lstrip("/"))) for name in names} - {"."}
    assert sorted(usable, key=component_order) == [
        str(path) for path in sorted(PurePosixPath(name) for name in usable)
    ]
