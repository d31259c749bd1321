"""Every value of any pickle or archive of torch, by its path: what is beside weights, not weights.

``docs/spec/equality.md`` section 8, "Values of pickles", has the paths and texts. Two files have
the same values only if their pickles describe the same objects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from provenance.errors import MalformedError, UnreadableError
from provenance.loaders.keys import Path, spelled
from provenance.weights.source import Source
from provenance.weights.torch.archive import (
    PICKLE,
    RECORDS,
    archive_members,
    begins_as_archive,
    short_records,
)
from provenance.weights.torch.pickle_program import (
    MAX_PROGRAM,
    Global,
    Key,
    Made,
    Reference,
    read_program,
)
from provenance.weights.torch.tensors import DTYPE_NAMES
from provenance.weights.torch.values import (
    BYTEARRAYS,
    Walk,
    as_bytes,
    call_text,
    plain_text,
    tagged,
)
from provenance.weights.view import check_name
from provenance.weights.zip_archive import member_digest, read_member

_NEW: Final = "copyreg.__newobj__"
_HOLDERS: Final = (list, tuple, dict, Made, Key, Reference)

_MAX_BYTES: Final = 1024
"""Longest bytes that are spelled; longer ones are digested."""

_READ: Final = 2**20


def plain_values(source: Source) -> tuple[dict[Path, str], frozenset[str]]:
    """Return every value in *source*, and every name that its pickle would import.

    Raises MalformedError or UnreadableError where it is neither a pickle nor an archive of torch,
    or describes what cannot be compared.
    """
    storages: dict[str, str] = {}
    if begins_as_archive(source):
        _, found = archive_members(source)
        order = short_records(source, found).get("byteorder", "little")
        pickle = read_member(source, found[PICKLE], MAX_PROGRAM)
        for name in found.keys() - {*RECORDS, PICKLE}:
            storages[name] = f"{order}-endian sha256 {member_digest(source, found[name])}"
    else:
        pickle = source.read(0, min(source.size, MAX_PROGRAM + 1))
    program = read_program(pickle, None, where=source.name)
    walk = _Values(source.name, storages)
    walk.visit(program.value, ())
    if unasked := storages.keys() - walk.asked:
        raise MalformedError(f"nothing asks for the member {min(unasked)!r}", where=source.name)
    return walk.values, program.globals


class _Values(Walk):
    """A walk through the values, and what it has found."""

    def __init__(self, where: str, storages: Mapping[str, str]) -> None:
        super().__init__(where)
        self.values: dict[Path, str] = {}
        self.asked: set[str] = set()
        self._storages = storages

    def visit(self, value: object, path: Path) -> None:
        """Take in *value*, at *path*, and what it holds."""
        below: list[tuple[str | int, object]] = []
        self._begin(value)
        match value:
            case list() | tuple():
                text = tagged(type(value).__name__, "[]")
                below += enumerate(value)
            case dict():
                plain = all(type(key) is str for key in value)
                text = tagged("dict", "[]" if plain else self._listed(value))
                below += ((self._step(key), entry) for key, entry in value.items())
            case Made(bare=False):
                text = self._made(value, parted=True)
                below += enumerate(value.items)
                below += ((self._step(key), entry) for key, entry in value.entries.items())
                below += ((self._step(key), entry) for key, entry in _attributes(value) or ())
            case _:
                text = self._whole(value)
        self._put(path, text)
        for step, inner in below:
            self.visit(inner, (*path, step))
        self.leave(value)

    def text(self, value: object) -> str:
        """Return the whole of *value* as one text."""
        self._begin(value)
        text = self._whole(value)
        self.leave(value)
        self.count_text(len(text))
        return text

    def _whole(self, value: object) -> str:
        if isinstance(value, str | bytes):  # before its text is made, for the millionth time
            self.count_text(len(value))
        match value:
            case Key(value=inner):
                return self._whole(inner)
            case list() | tuple():
                text = tagged(type(value).__name__, self._listed(value))
            case dict():
                text = tagged("dict", self._listed(value.items()))
            case Global() if value.module != "torch" or value.name not in DTYPE_NAMES:
                text = tagged("global", f'"{value}"')
            case Reference():
                text = self._storage(value)
            case Made():
                text = self._made(value, parted=False)
            case bytes() if len(value) > _MAX_BYTES:
                digest = hashlib.sha256(value).hexdigest()
                text = tagged("bytes", f'"{len(value)} bytes, sha256 {digest}"')
            case _:
                text = plain_text(value, self.where)
        return text

    def _listed(self, values: Iterable[object]) -> str:
        return f"[{','.join([self.text(value) for value in values])}]"

    def _made(self, made: Made, *, parted: bool) -> str:
        """Return the text of what a call makes; where *parted*, less what is below its path."""
        kind, given = str(made.function), made.arguments
        if (data := as_bytes(made)) is not None:
            return self._whole(data)
        if kind not in BYTEARRAYS and made.bare and (text := call_text(made, self.where)):
            return text
        if kind == _NEW and given and isinstance(given[0], Global):
            kind, given = str(given[0]), given[1:]
        else:
            kind += "()"
        if made.bare:
            return tagged(kind, self._listed(given))
        members = {"arguments": self._listed(given)}
        if made.entries:
            members["keys"] = self._listed(made.entries)
        if made.state:
            attributes = parted and _attributes(made) is not None
            members["state"] = '{"attributes":[]}' if attributes else self.text(made.state[0])
        if not parted:
            members["values"] = self._listed([*made.items, *made.entries.values()])
        return tagged(kind, "{" + ",".join(f'"{k}":{text}' for k, text in members.items()) + "}")

    def _storage(self, reference: Reference) -> str:
        match reference.identifier:
            case ("storage", Global() as kind, str() as key, *rest) if (
                f"data/{key}" in self._storages
            ):
                self.asked.add(f"data/{key}")
                return tagged("storage", self._listed([kind, self._storages[f"data/{key}"], *rest]))
        raise UnreadableError("refers to what the file does not hold", where=self.where)

    def _step(self, key: object) -> str:
        return check_name(key if isinstance(key, str) else self.text(key), where=self.where)

    def _put(self, path: Path, text: str) -> None:
        if path in self.values:
            raise MalformedError(f"two values at {spelled(path)}", where=self.where)
        self.count_text(len(text) + sum(len(step) for step in path if isinstance(step, str)))
        self.values[path] = text

    def _begin(self, value: object) -> None:
        self.count(value)
        if isinstance(value, _HOLDERS):
            self.enter(value)


def _attributes(made: Made) -> list[tuple[str, object]] | None:
    """Return the state of *made* if it is a dictionary of attributes."""
    match made.state:
        case [dict() as state] if all(type(key) is str for key in state):
            return list(state.items())
    return None
