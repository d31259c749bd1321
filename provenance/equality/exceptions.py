"""Exceptions of a declaration: what may differ beside the tensors, and why.

An exception selects values by the file and their keys (:mod:`provenance.loaders.keys`), or whole
side files. It admits change, not presence: see ``docs/spec/equality.md`` section 8. A safe one
(``except``) reaches only what no loader of the table obeys; ``unsafe_except`` says openly that
it reaches further. Neither reaches tensors, or a file that is opened as weights or code.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Final, Literal

import msgspec

from provenance.equality.patterns import fault as fault_of_pattern
from provenance.equality.patterns import selects_file
from provenance.files.names import is_plain
from provenance.loaders.keys import EVERYTHING, Path, example, parse, selects_any
from provenance.loaders.table import table
from provenance.weights.names import carries_tensors

SUFFIXES: Final = (".json", ".jsonl", ".toml", ".yaml", ".yml")
"""Suffixes of side files whose values are read by key; beside them pickles and containers are."""

ARCHIVES: Final = (".keras", ".skops")
"""Suffixes of archives whose members are metadata of the weights in them."""

_Pattern = Annotated[str, msgspec.Meta(min_length=1)]


class Except(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"as_": "as"}
):
    """What may differ: values of a file by their keys, or without ``keys`` the whole side file.

    ``tolerance`` bounds the difference of two numbers. ``as`` admits only another order of a list
    that loaders take for a set, or another name of one base model. ``optional`` admits that one
    side lacks the value, or the file. ``set`` is the built-in set that it was taken from.
    """

    unsafe: ClassVar[bool] = False
    """Whether it may reach what loaders obey."""

    file: _Pattern
    reason: Annotated[str, msgspec.Meta(max_length=2000)]
    keys: Annotated[tuple[_Pattern, ...], msgspec.Meta(min_length=1, max_length=64)] | None = None
    member: _Pattern | None = None
    """The member of an archive that it is about."""
    optional: bool = False
    tolerance: Annotated[float, msgspec.Meta(gt=0)] | None = None
    as_: Literal["set", "base-model"] | None = None
    set: Annotated[str, msgspec.Meta(max_length=80)] | None = None

    def selects_file(self, name: str) -> bool:
        """Tell whether it is about the file *name*; one about a member is about archives alone."""
        archive = self.member is None or name.lower().endswith(ARCHIVES)
        return archive and selects_file((f"/{self.file}",), name)

    def selects(self, path: Path | None) -> bool:
        """Tell whether it selects the value at *path*; None: the whole file or member."""
        return self.keys is None if path is None else selects_any(self.keys or (), path)

    def named(self, name: str) -> str:
        """Return what the table calls its part of the file *name*."""
        return name if self.member is None else f"{name}!{self.member}"

    def reaches(self, name: str, path: Path | None, beside: Collection[str]) -> bool:
        """Tell whether it may reach the value at *path* of the file *name*; None: all of it.

        *beside* are the names of all files of the model.
        """
        named = self.named(name)
        if path is None:
            free = table().is_free(named, None, beside) and not carries_tensors(named)
            return _never(named) is None and (self.unsafe or free)
        if self.as_ is not None:
            taken = table().is_set if self.as_ == "set" else table().names_base
            return taken(named, path)
        return self.unsafe or table().is_free(named, path, beside)


class UnsafeExcept(Except, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One that says openly that it may reach what loaders obey."""

    unsafe: ClassVar[bool] = True


def _never(name: str) -> str | None:
    """Return why no exception can be about the file or member *name* whole; None: one can."""
    if carries_tensors(name) and not table().is_state(name):
        return "holds weights"
    if table().opens_as_code_or_weights(name) or table().consults_index(name):
        return f"is opened as weights or code by {', '.join(table().opened_by(name))}"
    return None


def fault(it: Except) -> str | None:
    """Return what is wrong with *it* beyond types and ranges, or nothing."""
    return next(_faults(it), None)


def _faults(it: Except) -> Iterator[str]:
    if not it.reason.strip():
        yield "the reason is empty: say why this may differ"
    if (what := _fault_of_file(it.file)) is not None:
        yield f"the file {it.file!r} {what}"
    if it.member is not None and not (it.member.isprintable() and is_plain(it.member)):
        yield f"'member' {it.member!r} is not the name of a member of an archive"
    if it.member is not None and not it.file.lower().endswith(ARCHIVES):
        yield f"'member' is of an archive ({', '.join(ARCHIVES)}), which {it.file!r} is not"
    if it.tolerance is not None and not math.isfinite(it.tolerance):
        yield "'tolerance' is not finite"
    if it.as_ is not None and (it.tolerance is not None or it.optional):
        yield "'tolerance' and 'optional' have no use with 'as'"
    if it.keys is None and (it.tolerance, it.as_) != (None, None):
        yield "'tolerance' and 'as' need 'keys'"
    yield from filter(None, map(_fault_of_key, it.keys or ()))


def _fault_of_file(pattern: str) -> str | None:
    if "**" in pattern or pattern.startswith(("!", "/")):
        return "is no exact name, and no glob within one folder"
    if any(not part.strip("*?") for part in pattern.split("/")[:-1]):
        return "is for any folder: write how the folder's name begins"
    return fault_of_pattern(pattern)


def _fault_of_key(pattern: str) -> str | None:
    try:
        parts = parse(pattern)
    except ValueError as error:
        return f"the key {pattern!r} {error}"
    everything = EVERYTHING in parts
    return f"the key {pattern!r} has '**', which only the table may have" if everything else None


def fault_by_table(it: Except) -> str | None:
    """Return why *it* could admit nothing, or something that it must not, as far as shows here.

    Whoever writes a declaration is told this. A signed one is read by other versions of the table
    too, so it is judged value by value (:meth:`Except.reaches`).
    """
    named = it.named(it.file)
    if it.keys is None:
        if (why := _never(named)) is not None:
            return f"{named!r} {why}, so no exception is about it as a whole"
        return None if it.reaches(it.file, None, ()) else _obeyed(named, None)
    suffix = PurePosixPath(named).suffix.lower()
    if suffix not in SUFFIXES and (it.member is not None or not carries_tensors(it.file)):
        return f"no keys are read in what is called {named!r}"
    return next(filter(None, (_against_key(it, key) for key in it.keys)), None)


def _against_key(it: Except, key: str) -> str | None:
    named = it.named(it.file)
    if it.reaches(it.file, example(key), ()):
        met = not it.unsafe and it.as_ is None and table().obeying(named, key, ())
        return _obeyed(named, key) if met else None
    if it.as_ is None:
        return _obeyed(named, key)
    kind = "a set" if it.as_ == "set" else "the name of a base model"
    return f"no loader is known to take {key!r} of {named!r} for {kind}"


def _obeyed(name: str, key: str | None) -> str:
    """Say why a safe exception cannot be about what is called *name*, or about *key* in it."""
    what = repr(name) if key is None else f"{key!r} of {name!r}"
    if loaders := table().obeying(name, key, ()):
        return f"{what} is obeyed by {', '.join(loaders)}: only [[unsafe_except]] can be about it"
    return f"of {what} it is not known that no loader obeys it: [[unsafe_except]] can be about it"
