"""What is said of data: by the trainer in a ``data.toml``, or in the data set's Croissant file.

A ``data.toml`` has one table for each role; ``path`` is relative to the file, and the rest are the
fields of :class:`~provenance.statement.training.About`::

    [train]
    path = "digits.csv"
    license = "CC-BY-4.0"
    source = "https://example.org/digits"
    availability = "open"

A Croissant file (MLCommons, 1.0 and 1.1) is itself part of the input, with the files that its
``distribution`` lists and that lie beside it: by ``contentUrl``, of a URL by its last name or by
``name``, or by the globs of a FileSet. Nothing is downloaded. The SHA-256 that it states are
checked; many files state none, or no digest at all (mlcommons/croissant#813).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from provenance.capture.secrecy.redact import readable, redact_text
from provenance.encoding import strict_json
from provenance.equality.declaration import parse_toml
from provenance.errors import ContentError, MalformedError, some_of
from provenance.files.digest import hash_file
from provenance.files.manifest import FileEntry, Manifest, manifest_of
from provenance.files.reading import read_file
from provenance.files.walking import path_of, walk
from provenance.loaders.globs import Globs
from provenance.statement.training import About

CROISSANT = "croissant.json"
"""How the name of a Croissant file ends."""

MAX_BYTES = 2**26
MAX_TEXT = 1024
"""Longest text kept, in characters."""

_TABLE = (
    "a table for each role, with any of path, license, source, title, version, citation, notices "
    "(a list) and availability: open, public, obtainable, unshareable"
)
_WORD = r"(?!(?:AND|OR|WITH)\b)[A-Za-z0-9][A-Za-z0-9.:-]*\+?"
_EXPRESSION = rf"{_WORD}(?: WITH {_WORD})?(?: (?:AND|OR) {_WORD}(?: WITH {_WORD})?)*"


def is_spdx(text: str) -> bool:
    """Tell whether *text* has the form of an SPDX licence expression (SPDX 3.0, annex B)."""
    while len(text) <= MAX_TEXT and (inner := re.sub(rf"\( ?{_EXPRESSION} ?\)", "X", text)) != text:
        text = inner
    return re.fullmatch(_EXPRESSION, text) is not None


class _Table(About, frozen=True, forbid_unknown_fields=True):
    path: str = ""
    files: Annotated[dict[str, int], msgspec.Meta(max_length=0)] = msgspec.field(
        default_factory=dict
    )


def read_info(path: Path) -> dict[str, tuple[Path | None, About]]:
    """Return what the ``data.toml`` at *path* says of each role, and where it says the data are."""
    found: dict[str, tuple[Path | None, About]] = {}
    for role, raw in parse_toml(read_file(path, MAX_BYTES), str(path)).items():
        try:
            table = strict_json.convert(raw, _Table, where=f"{path}: {role}")
        except MalformedError as error:
            raise MalformedError(error.what, where=error.where, hint=_TABLE) from error
        if table.license and not is_spdx(table.license):
            what = f"no SPDX expression: {table.license!r}"
            hint = "such as CC-BY-4.0, or LicenseRef-NAME for one that SPDX does not list"
            raise MalformedError(what, where=f"{path}: {role}", hint=hint)
        fields = {name: _public(getattr(table, name)) for name in About.__struct_fields__}
        found[role] = path.parent / table.path if table.path else None, About(**fields)
    return found


def _public(value: Any) -> Any:  # noqa: ANN401 - a field
    if isinstance(value, tuple):
        return tuple(map(_public, value))
    return redact_text(readable(value))[:MAX_TEXT] if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Listed:
    """What a Croissant file lists and says; ``paths`` are those of the files that are here."""

    about: About
    paths: dict[str, str]
    digests: tuple[tuple[str, str], ...]
    absent: tuple[str, ...]

    def hash(self, progress: Callable[[int], None] | None = None) -> Manifest:
        """Return the files that are here."""
        hashed = ((name, *hash_file(path, progress)) for name, path in self.paths.items())
        return manifest_of(FileEntry(name, size, sha256) for name, sha256, size in hashed)

    def check(self, manifest: Manifest, where: Path) -> About:
        """Return what is said, with how many of the files in *manifest* are as stated."""
        found = {entry.name: entry.sha256 for entry in manifest.entries}
        others = [name for name, sha256 in self.digests if found[name] != sha256]
        if others:
            what = f"states another SHA-256 than these files have: {some_of(others)}"
            raise ContentError(what, where=str(where), hint="fetch them again, or correct it")
        checked = len({name for name, _ in self.digests})
        numbers = {"checked": checked, "unchecked": len(found) - 1 - checked}
        numbers["absent"] = len(self.absent)
        return msgspec.structs.replace(self.about, files=numbers)


def read_croissant(path: Path, link_roots: Sequence[Path] = ()) -> Listed:
    """Return what the Croissant file at *path* lists."""
    where = str(path)
    document = strict_json.parse(read_file(path, MAX_BYTES), where=where, max_bytes=MAX_BYTES)
    if "/croissant/1." not in str(document.get("conformsTo") if isinstance(document, dict) else ""):
        hint = "data that is no Croissant 1.x is named otherwise than croissant.json"
        raise MalformedError("conformsTo names no Croissant 1.x", where=where, hint=hint)
    places = walk(path.parent, link_roots=link_roots, refuse=lambda _: None)
    nodes = [node for node in _several(document.get("distribution")) if isinstance(node, dict)]
    in_sets, matched = _matched(nodes, places)
    parts = [_part(node, places, is_set=number in matched) for number, node in enumerate(nodes)]
    here = [part for part in parts if part.is_here]
    ids, unpacked = {part.id for part in here}, frozenset().union(*(it.within for it in here))
    away = (part for part in parts if not part.is_here and part.id not in unpacked)
    absent = tuple(part.shown for part in away if ids.isdisjoint(part.within))
    digests = tuple((part.file, part.sha256) for part in here if part.file and part.sha256)
    names = (*filter(None, (part.file for part in here)), *in_sets)
    paths = {name: path_of(str(path.parent), places[name].file) for name in names}
    said = {"title": "name", "version": "version", "license": "license", "citation": "citeAs"}
    about = {field: _public(_text(document.get(name))) for field, name in said.items()}
    listed = re.fullmatch(r"https?://spdx\.org/licenses/([\w.+-]+)", about["license"])
    licence = listed[1].removesuffix(".html") if listed else about["license"]
    about |= {"license": licence, "source": _public(_text(document.get("url")))}
    return Listed(About(**about), {path.name: where} | paths, digests, absent)


class _Part(NamedTuple):
    """A part of a ``distribution``: a FileSet or a ``file``, "" if that does not lie here."""

    id: str
    shown: str
    file: str
    sha256: str
    within: frozenset[str]
    is_here: bool


def _part(node: dict[str, Any], names: Container[str], *, is_set: bool) -> _Part:
    """Return *node*, a FileSet of some of the *names* here if it *is_set*."""
    id_, called = _text(node.get("@id")) or _text(node.get("name")), _files_of(node)
    shown = next(filter(None, (id_, *called)), "a part without a name")
    file = next((name for name in called if name and name in names), "")
    digest = re.fullmatch(r"[0-9a-f]{64}", _text(node.get("sha256")).lower())
    within = frozenset(map(_text, _several(node.get("containedIn"))))
    return _Part(id_, shown, file, digest[0] if digest else "", within, is_set or bool(file))


def _files_of(node: dict[str, Any]) -> tuple[str, ...]:
    """Return the names that a file of *node* may have beside the Croissant file."""
    url = _text(node.get("contentUrl"))
    try:
        parts = urlsplit(url)
    except ValueError:
        return ()
    if parts.scheme or parts.netloc:
        return unquote(parts.path).rpartition("/")[2], _text(node.get("name"))
    return (url.removeprefix("./"),)


def _matched(nodes: list[dict[str, Any]], names: Iterable[str]) -> tuple[list[str], set[int]]:
    """Return which *names* are in a FileSet of *nodes*, and which of *nodes* have any."""
    includes, excludes = (
        [(k, _text(glob)) for k, node in enumerate(nodes) for glob in _several(node.get(key))]
        for key in ("includes", "excludes")
    )
    within, without = (Globs([it[1] for it in pairs], paths=True) for pairs in (includes, excludes))
    found, having = [], set[int]()
    for name in names:
        sets = {includes[at][0] for at in within.matching(name)}
        if sets := sets - {excludes[at][0] for at in without.matching(name)}:
            found.append(name)
            having |= sets
    return found, having


def _several(value: Any) -> list[Any]:  # noqa: ANN401 - a JSON value
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:  # noqa: ANN401 - a JSON value
    """Return the text of *value*, of a node its address or name, of several the texts."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value)))
    if isinstance(value, dict):
        return next((v for k in ("@id", "url", "name") if isinstance(v := value.get(k), str)), "")
    return value if isinstance(value, str) else ""
