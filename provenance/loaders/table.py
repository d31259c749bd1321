"""The table of loaders (``table.toml``, explained in ``docs/loaders.md``), and what it answers.

What the table does not know is taken to be opened and obeyed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Final, Generic, Literal, TypeVar

import msgspec

from provenance.loaders import keys
from provenance.loaders.globs import Globs
from provenance.loaders.keys import example, selects, selects_any

Role = Literal["weights", "index", "settings", "tokenizer", "template", "code"]
"""What a loader takes a file for."""

_Entry = TypeVar("_Entry")

_FILLERS: Final = "\u115f\u1160\u3164\uffa0"
"""Letters of Hangul that show nothing, and that file systems pass over."""


def folded(name: str) -> str:
    """Return *name* as a file system may find it: without regard to case and to what is not seen.

    HFS+ and folders of ext4 so made pass over invisible characters; accents go with these.
    """
    if name.isascii():
        return name.lower()
    characters = unicodedata.normalize("NFD", name).casefold()
    unseen = ("Cf", "Mn")
    return "".join(
        it for it in characters if unicodedata.category(it) not in unseen and it not in _FILLERS
    )


class Opened(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that a loader looks for."""

    file: str
    """Its name, or a glob whose ``*`` stays within a folder; one with ``/`` is the whole path below
    the model's folder, another is looked for in any folder."""
    role: Role
    order: int = 0
    """Of weights and indexes for one part, the one with the least is taken that is there; 0: none
    is, but where it is named to the loader."""
    part: str = ""
    """Of what they are the weights, where that is not the model."""
    first: bool = False
    """Whether, of several files that fit, the first by name is taken; otherwise none is chosen."""
    aside: bool = False
    """Whether it is taken in a way that not every model serves: no pair is made for it, and where
    one model has nothing that is taken so, that is no difference."""
    above: bool = False
    """Whether it is looked for in the folder of which this one was named as a subfolder first."""
    obeys: tuple[str, ...] = ("**",)
    """Patterns of the keys by which it goes (``provenance.loaders.keys``)."""
    ignores: tuple[str, ...] = ()
    """Of these, those that it drops or never reads."""
    executes: tuple[str, ...] = ()
    """Of these, those whose value is run or names what is run; ``**``: the file is code."""
    beside: str = ""
    """A file in the same folder without which it does not open this one."""
    unless: tuple[str, ...] = ()
    """Files in the same folder; where one is there, it does not open this one."""


class Loader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program that loads models, at the version whose code was read."""

    name: str
    version: str
    read: tuple[str, ...]
    """The files of its code in which it stands."""
    opens: tuple[Opened, ...]
    formats: tuple[tuple[str, ...], ...] = ()
    """Values of the key ``format`` of a safetensors file that it goes by, those together that it
    loads alike (``""``: the file has no metadata); it refuses any other. None: it does not look."""


class Free(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Values that no loader obeys, in a file that is known.

    A member of an archive is spelled ``archive!member``, here and in what the table is asked.
    """

    file: str
    why: str
    keys: tuple[str, ...] = ("**",)
    state: bool = False
    """Whether it is the state of a training, and holds no weights whatever its suffix."""


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How loaders take the values of some keys."""

    file: str
    keys: tuple[str, ...]
    why: str


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """The table; ``version`` is in every verdict that used it."""

    version: int
    loader: tuple[Loader, ...]
    free: tuple[Free, ...]
    set: tuple[Reading, ...] = ()
    """Lists that loaders take for sets."""
    base: tuple[Reading, ...] = ()
    """Names and paths of a base model."""

    def opened_by(self, name: str, beside: Collection[str] | None = None) -> dict[str, Opened]:
        """Return by loader the entry under which it opens the file *name*, the first of several.

        *beside* are the names of all files of the model, in a frozenset where it is asked of many;
        None: any may be there.
        """
        found: dict[str, Opened] = {}
        for loader, each in self._opens(name, beside):
            found.setdefault(loader.name, each)
        return found

    def _opens(
        self, name: str, beside: Collection[str] | None = None
    ) -> Iterator[tuple[Loader, Opened]]:
        state = self.is_state(name)
        for loader, each in self._opened.standing_for(folded(name)):
            # "*.pt" stands for weights of any name, which a state's name says it is not.
            if not (state and each.file.startswith("*.")) and (
                beside is None or _looks(each, PurePosixPath(name), beside)
            ):
                yield loader, each

    @cached_property
    def _opened(self) -> _ByName[tuple[Loader, Opened]]:
        entries = [(loader, each) for loader in self.loader for each in loader.opens]
        return _ByName(entries, [each.file.lower() for _, each in entries])

    @cached_property
    def _freed(self) -> _ByName[Free]:
        return _ByName(self.free, [each.file for each in self.free])

    def opens_as_code_or_weights(self, name: str) -> bool:
        """Tell whether a loader takes the file *name* for code or weights."""
        return any(
            each.role in ("code", "weights") or "**" in each.executes
            for _, each in self._opens(name)
        )

    def consults_index(self, name: str, beside: Collection[str] | None = None) -> bool:
        """Tell whether a loader opens the file *name* to learn which shard holds a tensor."""
        return any(each.role == "index" for _, each in self._opens(name, beside))

    def is_free(
        self, name: str, path: keys.Path | None, beside: Collection[str] | None = None
    ) -> bool:
        """Tell whether no loader obeys the value at *path* of the file *name*; None: any of it."""
        stated = self._freed.standing_for(name)
        opens = [each for _, each in self._opens(name, beside)]
        if path is None:
            return any(free.keys == ("**",) for free in stated) and not opens
        return any(selects_any(free.keys, path) for free in stated) and not any(
            selects_any(each.obeys, path) and not selects_any(each.ignores, path) for each in opens
        )

    def obeying(
        self, name: str, pattern: str | None, beside: Collection[str] | None = None
    ) -> tuple[str, ...]:
        """Return the loaders that obey what *pattern* (None: any) can select in the file *name*.

        Two patterns are seen to meet where one selects the other's example.
        """
        found = {
            f"{loader.name} {loader.version}": None
            for loader, each in self._opens(name, beside)
            if pattern is None
            or (
                any(_meet(pattern, key) for key in each.obeys)
                and not selects_any(each.ignores, example(pattern))
            )
        }
        return tuple(found)

    def loads_alike(self, formats: Collection[str | None]) -> bool:
        """Tell whether loaders take files of these *formats* alike; None: of metadata without."""
        return all(
            any({*group}.issuperset(formats) for group in loader.formats)
            for loader in self.loader
            if loader.formats
        )

    def is_state(self, name: str) -> bool:
        """Tell whether the file *name* is the state of a training, which no loader opens."""
        return any(free.state for free in self._freed.standing_for(name))

    def is_set(self, name: str, path: keys.Path) -> bool:
        """Tell whether loaders take the list at *path* of the file *name* for a set."""
        return _reads(self.set, name, path)

    def names_base(self, name: str, path: keys.Path) -> bool:
        """Tell whether the value at *path* of the file *name* names the base model."""
        return _reads(self.base, name, path)


def _reads(readings: Sequence[Reading], name: str, path: keys.Path) -> bool:
    found = _ByName(readings, [it.file for it in readings]).standing_for(name)
    return any(selects_any(it.keys, path) for it in found)


def _meet(one: str, other: str) -> bool:
    return selects(one, example(other)) or selects(other, example(one))


def _looks(each: Opened, name: PurePosixPath, beside: Collection[str]) -> bool:
    wanted = folded(str(name.with_name(each.beside))) if each.beside else None
    return (wanted is None or wanted in _folded(frozenset(beside))) and not any(
        str(name.with_name(other)) in beside for other in each.unless
    )


@lru_cache(maxsize=2)
def _folded(names: frozenset[str]) -> frozenset[str]:
    return frozenset(map(folded, names))


class _ByName(Generic[_Entry]):
    """Entries of the table, found by the names of the files that they stand for."""

    def __init__(self, entries: Sequence[_Entry], files: Sequence[str]) -> None:
        self._entries = entries
        self._globs = Globs(files, paths=True)

    def standing_for(self, name: str) -> list[_Entry]:
        """Return those that stand for the file *name*, in the order of the table."""
        return [self._entries[index] for index in self._globs.matching(name)]


@cache
def table() -> Table:
    """Return the table of this version."""
    import tomllib  # noqa: PLC0415 - 30 ms that most commands need not wait for

    text = Path(__file__).with_name("table.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), Table)
