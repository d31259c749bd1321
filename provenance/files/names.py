"""File names that a manifest may hold, and those beside the weights that it leaves out.

A name is the path of a file below the folder, with ``/`` between its parts. Names that could lead
outside the folder or deceive a reader are refused: absolute ones, the parts ``.``, ``..`` and
empty, control characters, line breaks, backslashes, text direction overrides, and what is not
UTF-8.

*Reserved* names are not part of a model: the claims, the signature and the byproducts are written
after its manifest, and git, the Hub's client, DVC, Jupyter and file managers keep their own books
there. They are exact, and count at the top of the folder alone: one that ends with ``/`` is a
folder, another a file, and a link is neither. Signer and verifier go by the one list.
"""

from __future__ import annotations

import re
import unicodedata

from provenance.errors import MalformedError
from provenance.files.atomic import TEMPORARY_SUFFIX

CLAIMS = "claims.jsonl"
"""Bundles, one a line."""

MODEL_SIGNATURE = "model.sig"
"""The OpenSSF model signature, one bundle."""

BYPRODUCTS = "provenance"
"""A folder of files named by their SHA-256, and of in-toto links."""

LINK_STEP = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
"""What the step of a link that lies there is called."""

LINK = re.compile(rf"{LINK_STEP.pattern}\.[0-9a-f]{{8}}\.link")
"""The file name of such a link, as in-toto's tools write and look for it."""

MAX_BYPRODUCT_BYTES = 2**30
"""Largest file in that folder that is read, in bytes; the output of a long run has megabytes."""

BOOKKEEPING = (
    ".DS_Store",
    ".cache/huggingface/",
    ".dvc/",
    ".git",
    ".git/",
    ".gitattributes",
    ".github/",
    ".gitignore",
    ".ipynb_checkpoints/",
)
"""What other tools keep in a folder. (``.github`` is here because OpenSSF's tool leaves it out.)"""

TEMPORARY = (CLAIMS + TEMPORARY_SUFFIX, MODEL_SIGNATURE + TEMPORARY_SUFFIX)
"""What a killed writer of ours left."""

RESERVED = frozenset({CLAIMS, MODEL_SIGNATURE, f"{BYPRODUCTS}/", *TEMPORARY, *BOOKKEEPING})
"""The names left out of a model's manifest."""


def is_within(name: str, listed: frozenset[str]) -> bool:
    """Tell whether *name* is in *listed*, or in a folder that is."""
    end = name.find("/")
    while end >= 0:
        if name[: end + 1] in listed:
            return True
        end = name.find("/", end + 1)
    return name in listed


MAX_NAME_BYTES = 4096
"""PATH_MAX on Linux, bytes of UTF-8."""

_ORDINARY = re.compile(r"[A-Za-z0-9_][\w.+@=-]*(?:/[A-Za-z0-9_][\w.+@=-]*)*", re.ASCII)
"""Nothing is wrong with such a name, as most are, and that is told at once."""

_CONTROL_CATEGORIES = ("Cc", "Zl", "Zp")
"""Control characters and the two line breaks outside ASCII."""

_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_name(name: str, *, where: str | None = None) -> str:
    """Return *name*."""
    if problem := _problem(name):
        raise MalformedError(f"the file name {name!r} {problem}", where=where)
    return name


def is_plain(name: str) -> bool:
    """Tell whether *name* is relative, without backslashes and without parts "", "." and ".."."""
    return _path_problem(name) is None


def _problem(name: str) -> str | None:
    if len(name) <= MAX_NAME_BYTES and _ORDINARY.fullmatch(name):
        return None
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not UTF-8"
    if not (name.isascii() and name.isprintable()) and any(
        each in _BIDI_CONTROLS or unicodedata.category(each) in _CONTROL_CATEGORIES for each in name
    ):
        return "holds a control character"
    if length > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    return _path_problem(name)


def _path_problem(name: str) -> str | None:
    if name.startswith("/"):
        return "is absolute"
    if "\\" in name:
        return "holds a backslash"
    parts = name.split("/")
    if ".." in parts:
        return "leaves the folder"
    return "has an empty part or '.'" if "" in parts or "." in parts else None


def component_order(name: str) -> str:
    """Return the sort key of *name*, by its parts: ``a/b`` comes before ``a-b``.

    The OpenSSF reference tool orders files so; its specification's text orders by code points. No
    character of a name is before NUL.
    """
    return name.replace("/", "\0")
