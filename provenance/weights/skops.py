"""Models of scikit-learn as skops saves them (``.skops``): a schema and arrays, in a ZIP archive.

Format: ``_persist.py``, ``_utils.py`` and ``_audit.py`` in ``skops/io`` of skops-dev/skops,
protocols 0 to 2. ``schema.json`` is a tree of nodes, one for each object, which name members:
``*.npy``, ``*.npz`` (sparse matrices: archives of arrays) and others, content by digest, as is what
a node of bytes takes, whatever it is called. Nothing is constructed.

An array is called by the way to the first node that names its member: keys and places, joined by
``/``, but for every key ``content``. The schema is content, byte for byte but for what is
made of addresses or at random: ``__id__``, by which skops tells which nodes are one object, is
counted from 1, and a member is called as its array is. A member that no node names is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from provenance.encoding import strict_json
from provenance.errors import MalformedError, UnreadableError
from provenance.weights.normalisers import MAX_DEPTH, Normaliser, objects_in, renumbered
from provenance.weights.npy import ARRAY, NpzFile, arrays_in
from provenance.weights.source import Section, Source
from provenance.weights.view import check_name, stated
from provenance.weights.zip_archive import STORED, Member, member_digest, member_text, members

_SCHEMA: Final = "schema.json"
_NODE: Final = "__loader__"
"""The key by which an object of the schema is a node."""

_ARRAYS: Final = {".npy": "NdArrayNode", ".npz": "SparseMatrixNode"}
"""The nodes that read members as arrays; others take the bytes as they are."""

_MAX_NAME: Final = 1000
"""Longest name of an array, in characters."""

_FILE: Final = re.compile(r'(?<!\\)"file"\s*:\s*("[^"\\]*")')


class SkopsFile(NpzFile):
    """An open skops model. See :class:`~provenance.weights.view.TensorFile`."""

    format = "skops"

    def __init__(self, source: Source) -> None:
        """Read and check the archive *source*, its schema and its arrays."""
        found = {member.name: member for member in members(source)}
        if _SCHEMA not in found:
            raise MalformedError(f"{_SCHEMA} is missing", where=source.name)
        text, ids = renumbered(member_text(source, found[_SCHEMA]), "__id__", frozenset({_NODE}))
        names, self._raw = _named(text, found, source.name)
        names[_SCHEMA] = _SCHEMA
        if odd := sorted(found.keys() - names.keys()):
            raise MalformedError(f"no node names the member {odd[0]!r}", where=source.name)
        self._members = {names[name]: member for name, member in found.items()}
        super().__init__(source)

        def renamed(match: re.Match[str]) -> str:
            name = json.loads(match[1])
            return f'"file": {json.dumps(names[name])}' if name in names else match[0]

        beside = {_SCHEMA: _FILE.sub(renamed, text)} | {
            name: member_digest(source, member)
            for name, member in self._members.items()
            if member.name in self._raw
        }
        self.metadata = {**self.metadata, **beside}
        numbers = stated({Normaliser.OBJECT_IDS: [ids, list(names)]})
        self.container = {**self.container, **numbers}

    def _found(self) -> dict[str, Member]:
        arrays: dict[str, Member] = {}
        for name, member in self._members.items():
            if member.name in self._raw or name == _SCHEMA:
                continue
            where = f"{self._source.name}: {name}"
            if member.name.endswith(".npy"):
                arrays[name] = member
            else:
                if member.method != STORED:
                    what, hint = "a compressed archive in an archive", "dump it without compression"
                    raise UnreadableError(what, where=where, hint=hint)
                member_digest(self._source, member)  # for its CRC-32
                part = Section(self._source, member.start, member.size, where)
                for short, each in arrays_in(part).items():
                    if (inner := f"{name}/{short}") in self._members:
                        raise MalformedError(f"two arrays named {inner!r}", where=self._source.name)
                    arrays[inner] = each._replace(start=member.start + each.start)
        self._members |= arrays
        return arrays


def _named(text: str, found: Mapping[str, Member], where: str) -> tuple[dict[str, str], set[str]]:
    """Return the members that the nodes of a schema name, and the way to the first node of each.

    The set has those that some node takes as bytes.
    """
    names: dict[str, str] = {}
    raw: set[str] = set()
    where = f"{where}: {_SCHEMA}"
    schema = strict_json.parse(text.encode(), where=where, max_depth=MAX_DEPTH)
    for way, node in objects_in(schema):
        member = node.get("file") if _NODE in node else None
        if not isinstance(member, str):
            continue
        if node[_NODE] != _ARRAYS.get(member[-4:]):
            raw.add(member)
        if member in names:
            continue
        if member not in found:
            raise MalformedError(f"the member {member!r} is missing", where=where)
        if sum(map(len, way)) > _MAX_NAME:
            what = f"more than {_MAX_NAME} characters lead to {member!r}"
            raise MalformedError(what, where=where)
        name = "/".join(key for key in way if key != "content") or ARRAY
        names[member] = check_name(name, where=where)
    if len({*names.values(), _SCHEMA}) <= len(names):
        raise MalformedError("two members of one name", where=where)
    return names, raw
