"""The declaration of an equality: what counts as the same model, format 1.

TOML 1.0, at most 64 KiB of UTF-8 (``docs/spec/equality.md``), written before results are compared
and embedded in the training statement. ::

    format = 1
    name = "digits"
    version = 1
    axes = ["thread-count", "blas-kernel"]

    [[any]]                         # alternatives: one that holds is enough
    [[any.all]]                     # rules: each must hold
    equality = "bytes"

    [[any]]
    [[any.all]]
    equality = "close"
    files = ["model.safetensors"]
    initial = "initial.safetensors"
    relative_l2 = 1e-4
    relative_linf = 1e-3
    reason = "float32 sums in another order; measured over 12 rebuilds: 3e-6"

    [[except]]                      # what may differ beside the tensors
    file = "trainer_state.json"
    keys = ["log_history[].train_runtime"]
    reason = "wall time"

Unknown keys, other types, NaN and infinities, and values out of range are refused.

The statement holds the *canonical form* (section 1), whose SHA-256 is the declaration's digest.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from provenance.encoding import strict_json
from provenance.equality.exceptions import Except, UnsafeExcept, fault_by_table
from provenance.equality.exceptions import fault as fault_of_exception
from provenance.equality.lattice import LATER, STRENGTHS, Strength
from provenance.equality.rules import Rule, fault, number_of_patterns
from provenance.errors import MalformedError, UnreadableError, UsageError
from provenance.files.reading import read_file

MAX_BYTES: Final = 64 * 2**10
"""Longest declaration, in bytes."""

MAX_DOTS: Final = 512
"""Most dots in one line: tomllib takes 31 s for one dotted key of 32,000 parts (CPython 3.11)."""

MAX_PATTERNS: Final = 1024
"""Most patterns in a declaration: each is tried on every name, and a file can have 100,000."""

SETS: Final = ("hf-trainer", "lightning", "keras", "peft", "sklearn", "kohya")
"""The built-in declarations for what frameworks leave behind."""

BUILT_IN: Final = ("bytes", "tensors", "close-float32", "close-float64", *SETS)
"""The built-in declarations, each a TOML file in the folder ``builtin``."""

_NAME: Final = r"^[a-z0-9]+(-[a-z0-9]+)*\Z"
_Name = Annotated[str, msgspec.Meta(pattern=_NAME, max_length=64)]
_Excepts = Annotated[tuple[Except, ...], msgspec.Meta(max_length=256)]


class Alternative(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules that must hold together."""

    all: Annotated[tuple[Rule, ...], msgspec.Meta(min_length=1, max_length=64)]

    @property
    def strength(self) -> Strength:
        """The weakest equality among the rules."""
        return min((strength_of(rule) for rule in self.all), key=STRENGTHS.index)


class Document(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"except_": "except"}
):
    """A declaration as it is written."""

    format: Literal[1]
    name: _Name
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    """Of this declaration: changed content gets a new version."""
    any: Annotated[tuple[Alternative, ...], msgspec.Meta(min_length=1, max_length=16)]
    axes: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=64)] = ()
    exceptions: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=16)] = ()
    """Built-in declarations whose ``except`` are taken; the canonical form holds them instead."""
    except_: _Excepts = ()
    unsafe_except: Annotated[tuple[UnsafeExcept, ...], msgspec.Meta(max_length=256)] = ()


class Declaration(msgspec.Struct, frozen=True):
    """A declaration, read and checked: its axes are sorted."""

    name: str
    version: int
    axes: tuple[str, ...]
    any: tuple[Alternative, ...]
    canonical: bytes
    except_: tuple[Except, ...] = ()
    unsafe_except: tuple[UnsafeExcept, ...] = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of all alternatives."""
        return tuple(rule for alternative in self.any for rule in alternative.all)

    @property
    def exceptions(self) -> tuple[Except, ...]:
        """The exceptions, the safe ones first."""
        return (*self.except_, *self.unsafe_except)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the canonical form, in lower-case hexadecimal."""
        return hashlib.sha256(self.canonical).hexdigest()

    @property
    def document(self) -> dict[str, Any]:
        """Return the canonical form as an object, to be embedded in a statement."""
        value: dict[str, Any] = strict_json.parse(self.canonical)
        return value


def strength_of(rule: Rule) -> Strength:
    """Return the equality that *rule* demands."""
    tag: Strength = rule.__struct_config__.tag  # type: ignore[assignment]  # each is one of them
    return tag


def parse(data: bytes, *, where: str | None = None) -> Declaration:
    """Return the declaration that *data* spells in TOML."""
    declaration = _read(parse_toml(data, where), where)
    for number, exception in enumerate(declaration.exceptions, 1):
        if (wrong := fault_by_table(exception)) is not None:
            raise MalformedError(f"exception {number}: {wrong}", where=where)
    return declaration


def from_document(value: object, *, where: str | None = None) -> Declaration:
    """Return the declaration that *value*, parsed from JSON, is in its canonical form."""
    if not isinstance(value, dict):
        raise MalformedError("not an equality declaration: not an object", where=where)
    declaration = _read(value, where)
    if strict_json.format(value) != declaration.canonical:
        raise MalformedError("the declaration is not in its canonical form", where=where)
    return declaration


def _read(raw: dict[str, Any], where: str | None) -> Declaration:
    try:
        document = msgspec.convert(raw, Document)
    except msgspec.ValidationError as error:
        whole = "not an equality declaration"
        what, hint = _rule_fault(raw) or in_words(str(error), Document, whole)
        raise MalformedError(what, where=where, hint=hint) from error
    if len(set(document.axes)) != len(document.axes):
        raise MalformedError("an axis is listed twice", where=where)
    for number, alternative in enumerate(document.any):
        for index, rule in enumerate(alternative.all):
            if (wrong := fault(rule)) is not None:
                words = place(document.any, number, index)
                raise MalformedError(f"{words}: {wrong}", where=where)
    document = _with_sets(document, where)
    for number, exception in enumerate((*document.except_, *document.unsafe_except), 1):
        if (wrong := fault_of_exception(exception)) is not None:
            raise MalformedError(f"exception {number}: {wrong}", where=where)
    patterns = sum(number_of_patterns(rule) for each in document.any for rule in each.all)
    patterns += sum(len(each.keys or ()) for each in (*document.except_, *document.unsafe_except))
    if patterns > MAX_PATTERNS:
        raise MalformedError(f"more than {MAX_PATTERNS} patterns", where=where)
    name, canonical = document.name, _canonical(document)
    if name in BUILT_IN and canonical != _canonical_builtin(name):
        taken = f"the name {name!r} is taken by a built-in declaration with other content"
        raise MalformedError(taken, where=where, hint="choose another name")
    axes = tuple(sorted(document.axes))
    excepted = (document.except_, document.unsafe_except)
    return Declaration(name, document.version, axes, document.any, canonical, *excepted)


def _canonical(document: Document) -> bytes:
    value = _without_null(msgspec.to_builtins(document))
    del value["exceptions"]
    value = {key: item for key, item in value.items() if item or "except" not in key}
    return strict_json.format(value | {"axes": sorted(document.axes)})


@cache
def _canonical_builtin(name: str) -> bytes:
    return _canonical(_builtin_document(name))


@cache
def _builtin_document(name: str) -> Document:
    return _with_sets(msgspec.convert(parse_toml(builtin_text(name), None), Document), None)


def _with_sets(document: Document, where: str | None) -> Document:
    """Return *document* with the exceptions of the sets that it takes, each of which names its set.

    An exception that names one already must be an entry of it.
    """
    entries = list(document.except_)
    try:
        for name in document.exceptions:
            if not (taken := _entries(name)):
                raise MalformedError(f"{name!r} has no exceptions", where=where)
            entries += [each for each in taken if each not in entries]
        for each in (*entries, *document.unsafe_except):
            name, _, _ = (each.set or "").partition(" ")
            if each.set is not None and each not in _entries(name):
                raise MalformedError(f"not an exception of the set {each.set!r}", where=where)
    except UsageError as error:
        raise MalformedError(error.what, where=where, hint=error.hint) from error
    return msgspec.structs.replace(document, except_=tuple(entries), exceptions=())


def _entries(name: str) -> tuple[Except, ...]:
    """Return the exceptions of the built-in declaration *name*, each with the name of its set."""
    found = _builtin_document(name)
    return tuple(
        msgspec.structs.replace(each, set=each.set or f"{name} {found.version}")
        for each in found.except_
    )


def place(alternatives: Sequence[Alternative], number: int, index: int) -> str:
    """Return in words which rule of which alternative is meant, both counted from 0."""
    return _place(len(alternatives), number, index, strength_of(alternatives[number].all[index]))


def _place(alternatives: int, number: int, index: int, kind: str) -> str:
    which = f"alternative {number + 1}, " if alternatives > 1 else ""
    return f"{which}rule {index + 1} ({kind})"


def _without_null(value: Any) -> Any:  # noqa: ANN401 - JSON values
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_null(item) for item in value]
    return value


def parse_toml(data: bytes, where: str | None, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return what *data* spells in TOML, at most *max_bytes*."""
    import tomllib  # noqa: PLC0415 - most models that are verified declare no equality

    if len(data) > max_bytes:
        raise MalformedError(f"longer than {max_bytes} bytes", where=where)
    try:
        text = data.decode("utf-8")
        if any(line.count(".") > MAX_DOTS for line in text.split("\n")):
            raise MalformedError(f"a line has more than {MAX_DOTS} dots", where=where)
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}", where=where) from error
    except RecursionError as error:
        raise MalformedError("nested too deeply", where=where) from error
    except ValueError as error:  # TOMLDecodeError, or a number that CPython cannot hold
        raise MalformedError(f"not TOML: {error}", where=where) from error


_RULES: Final = {rule.__struct_config__.tag: rule for rule in get_args(Rule)}
"""The types of rules by the equality that they demand."""


def _rule_fault(raw: dict[str, Any]) -> tuple[str, str | None] | None:
    """Return what is wrong with the first malformed rule of *raw*, and a hint."""
    alternatives = raw.get("any")
    if not isinstance(alternatives, list):
        return None
    for number, alternative in enumerate(alternatives):
        rules = alternative.get("all") if isinstance(alternative, dict) else None
        for index, rule in enumerate(rules if isinstance(rules, list) else ()):
            kind = rule.get("equality") if isinstance(rule, dict) else None
            kind = kind if isinstance(kind, str) else "?"
            words = _place(len(alternatives), number, index, kind)
            if kind in LATER:
                return f"{words}: this version cannot judge the equality {kind!r} yet", None
            try:
                msgspec.convert(rule, Rule)
            except msgspec.ValidationError as error:
                return in_words(str(error), _RULES.get(kind), words)
    return None


def in_words(problem: str, form: Any, inside: str) -> tuple[str, str | None]:  # noqa: ANN401 - a Struct
    """Return msgspec's *problem*, with its place *inside*, and what *form* allows, as a hint."""
    what, _, path = problem.partition(" - at `$")
    *folders, key = re.findall(r"[\w-]+", path) or [""]
    if key.isdecimal():
        folders, key = [*folders, key], ""
    for number, name in enumerate(folders):
        if name.isdecimal():
            inside += f" {int(name) + 1}"
            continue
        inside, form = f"{inside}: {name}" if number else name, _field(form, name)
    allowed: tuple[object, ...] = ()
    if key == "equality" and what.startswith("Invalid"):
        allowed = tuple(_RULES)
    elif what.startswith("Invalid enum value"):
        allowed = tuple(it for it in _within(_field(form, key)) if isinstance(it, str | int))
    elif what.startswith("Object contains unknown field"):
        form = _field(form, key) if key else form
        allowed = next((it.__struct_encode_fields__ for it in _within(form) if _is_struct(it)), ())
    hint = f"one of: {', '.join(map(str, allowed))}" if allowed else None
    if what.startswith("Expected `array`, got `object`"):
        hint = f"write [[{key}]]"
    for theirs, ours in _WORDS.items():
        what = what.replace(theirs, ours)
    return f"{inside}: {key!r}: {what}" if key else f"{inside}: {what}", hint


def _is_struct(form: Any) -> bool:  # noqa: ANN401 - any type
    return isinstance(form, type) and issubclass(form, msgspec.Struct)


def _within(form: Any) -> Iterator[Any]:  # noqa: ANN401 - any type
    """Yield the types, and the values of literals, of which the type *form* is made."""
    yield form
    for each in get_args(form):
        yield from _within(each)


def _field(form: Any, name: str) -> Any:  # noqa: ANN401 - any type
    """Return the type of the field *name*, as it is written, of a Struct in *form*."""
    for each in filter(_is_struct, _within(form)):
        for field in msgspec.structs.fields(each):
            if field.encode_name == name:
                return field.type
    return None


_WORDS: Final = {
    "Object contains unknown field": "unknown key",
    "Object missing required field": "missing key",
    "Invalid enum value": "unknown value",
    "Invalid value": "unknown value",
    "Invalid RFC3339 encoded date": "not a day, as 2026-01-31",
    "Expected": "expected",
    "`array`": "a list",
    "`object`": "a table",
    f"`str` matching regex {_NAME!r}": "lower-case words joined by '-'",
    r"`str` matching regex '^\\S(.*\\S)?\\Z'": "a text without spaces around it",
    " | null": "",
}
"""msgspec's words, and ours."""


def builtin_text(name: str) -> bytes:
    """Return the TOML of the built-in declaration *name*; UsageError where there is none."""
    if name not in BUILT_IN:
        hint = f"use {', '.join(BUILT_IN)}, or a declaration file"
        raise UsageError(f"no equality {name!r} is built in", hint=hint)
    return Path(__file__).with_name("builtin").joinpath(f"{name}.toml").read_bytes()


def builtin(name: str) -> Declaration:
    """Return the built-in declaration *name*; UsageError where there is none."""
    return parse(builtin_text(name), where=f"built-in equality {name}")


def find(text: str | os.PathLike[str]) -> Declaration:
    """Return the built-in declaration *text*, or the one in the file *text*.

    A built-in name wins, so that a file called ``bytes`` cannot replace it. UsageError: there is
    neither.
    """
    path = os.fspath(text)
    if "/" not in path and "." not in path:
        try:
            return builtin(path)
        except UsageError:
            if not os.path.lexists(path):
                raise
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it may not look
        hint = "name the file of the declaration"
        raise UnreadableError("is a folder, not a declaration", where=path, hint=hint)
    return parse(read_file(Path(path), MAX_BYTES), where=path)
