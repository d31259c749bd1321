"""The declaration of an equality: what counts as the same model, format version 1.

TOML 1.0, at most 64 KiB of UTF-8; ``docs/spec/equality.md`` is its page. It is written before
results are compared, embedded in the training statement, kept byte for byte and known by the
SHA-256 of its bytes. ::

    version = 1
    name = "digits"
    axes = ["thread-count", "blas-kernel"]

    [[any]]                         # alternatives: one that holds is enough
    [[any.all]]                     # rules: each must hold
    equality = "bytes"

    [[any]]
    [[any.all]]
    equality = "close"
    files = ["model.safetensors"]
    tensors = ["*", "!conv1.bias"]
    initial = "initial.safetensors"
    relative_l2 = 1e-4
    relative_linf = 1e-3
    reason = "float32 sums in another order; measured over 12 rebuilds: 3e-6"

Unknown keys, other types, NaN and infinities, and values out of range are refused.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from provenance.equality.findings import STRENGTHS, Strength
from provenance.equality.patterns import fault
from provenance.errors import MalformedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BYTES: Final = 64 * 2**10
"""Longest declaration, in bytes."""

MAX_DOTS: Final = 512
"""Most dots in one line: tomllib takes 31 s for one dotted key of 32,000 parts (CPython 3.11)."""

MAX_RELATIVE: Final = 10.0
"""Largest relative limit. From 1 on a limit admits any tensor of the same size; only a tensor
whose update is itself noise (zero gradient, ``docs/spec/equality.md``) can need that."""

MIN_RELATIVE: Final = 1e-30
"""Smallest relative limit, far under one bit of any tensor; zero is the equality ``tensors``."""

LATER: Final = frozenset(
    {"rounded", "segments", "sketch", "behaviour", "metrics", "curves", "recipe"}
)
"""Equalities of the lattice that later versions judge."""

AXES: Final = frozenset(
    {
        "blas-kernel", "compiler", "cpu-model", "driver", "gpu-count", "gpu-model", "host-name",
        "instruction-set", "kernel", "library-version", "locale", "memory-size",
        "operating-system", "path", "thread-count", "time", "time-zone", "user",
    }
)  # fmt: skip
"""The documented words for differences between rebuilds; others are allowed."""

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*\Z", max_length=64)]
_Patterns = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1)], ...],
    msgspec.Meta(min_length=1, max_length=64),
]
_Limit = Annotated[float, msgspec.Meta(ge=MIN_RELATIVE, le=MAX_RELATIVE)]


class Bytes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="equality",
            tag="bytes"):  # fmt: skip
    """P0: the selected files are equal byte for byte."""

    files: _Patterns | None = None


class Tensors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="equality",
              tag="tensors"):  # fmt: skip
    """P1: the selected tensors are equal bit for bit, in whatever container."""

    files: _Patterns | None = None
    tensors: _Patterns = ("*",)


class Close(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="equality",
            tag="close"):  # fmt: skip
    """P4: the selected tensors differ by little, in L2 and in L-infinity."""

    relative_l2: _Limit
    """Of the update's (or the weights') L2 norm."""
    relative_linf: _Limit
    """Of the update's (or the weights') largest magnitude."""
    reason: _Text
    """Why this tolerance is right."""
    files: _Patterns | None = None
    tensors: _Patterns = ("*",)
    max_ulp: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)] | None = None
    initial: _Text | None = None
    """The file of the same model that holds the weights before training."""
    relative_to: Literal["update", "weights"] = "update"


Rule = Bytes | Tensors | Close

_STRENGTH: Final[Mapping[type[Rule], Strength]] = MappingProxyType(
    {Bytes: "bytes", Tensors: "tensors", Close: "close"}
)


class Alternative(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules that must hold together."""

    all: Annotated[tuple[Rule, ...], msgspec.Meta(min_length=1, max_length=64)]

    @property
    def strength(self) -> Strength:
        """The weakest equality among the rules: what the alternative concludes as."""
        return min((_STRENGTH[type(rule)] for rule in self.all), key=STRENGTHS.index)


class Declaration(msgspec.Struct, frozen=True):
    """A declaration, read and checked, with the bytes that it was read from."""

    name: str
    axes: tuple[str, ...]
    any: tuple[Alternative, ...]
    source: bytes
    """The declaration verbatim."""

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the declaration's bytes, in lower-case hexadecimal."""
        return hashlib.sha256(self.source).hexdigest()


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    name: _Name
    any: Annotated[tuple[Alternative, ...], msgspec.Meta(min_length=1, max_length=16)]
    axes: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=64)] = ()


def parse(data: bytes, *, where: str | None = None) -> Declaration:
    """Return the declaration that *data* spells.

    Raises:
        MalformedError: *data* is not a declaration of version 1.
    """
    raw = _toml(data, where)
    _refuse_later(raw, where)
    try:
        document = msgspec.convert(raw, _Document)
    except msgspec.ValidationError as error:
        raise MalformedError(f"not an equality declaration: {error}", where=where) from error
    if len(set(document.axes)) != len(document.axes):
        raise MalformedError("an axis stands twice", where=where)
    for first, alternative in enumerate(document.any):
        for second, rule in enumerate(alternative.all):
            if (what := _fault(rule)) is not None:
                raise MalformedError(f"any[{first}].all[{second}]: {what}", where=where)
    return Declaration(document.name, document.axes, document.any, data)


def _toml(data: bytes, where: str | None) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise MalformedError(f"longer than {MAX_BYTES} bytes", where=where)
    try:
        text = data.decode("utf-8")
        if any(line.count(".") > MAX_DOTS for line in text.split("\n")):
            raise MalformedError(f"a line has more than {MAX_DOTS} dots", where=where)
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}", where=where) from error
    except tomllib.TOMLDecodeError as error:
        raise MalformedError(f"not TOML: {error}", where=where) from error
    except RecursionError as error:
        raise MalformedError("nested too deeply", where=where) from error
    except ValueError as error:  # an integer or a date that CPython cannot hold
        raise MalformedError(f"not TOML: {error}", where=where) from error


def _refuse_later(raw: dict[str, Any], where: str | None) -> None:
    """Name an equality of a later version, which would else be an unknown tag among others."""
    alternatives = raw.get("any")
    for alternative in alternatives if isinstance(alternatives, list) else ():
        rules = alternative.get("all") if isinstance(alternative, dict) else None
        for rule in rules if isinstance(rules, list) else ():
            kind = rule.get("equality") if isinstance(rule, dict) else None
            if isinstance(kind, str) and kind in LATER:
                raise MalformedError(
                    f"this version cannot judge the equality {kind!r} yet", where=where
                )


def _fault(rule: Rule) -> str | None:
    """Return what is wrong with *rule* beyond types and ranges, or nothing."""
    patterns = list(rule.files or ())
    if not isinstance(rule, Bytes):
        patterns.extend(rule.tensors)
    for pattern in patterns:
        if (what := fault(pattern)) is not None:
            return f"the pattern {pattern!r} {what}"
    if not isinstance(rule, Close):
        return None
    if not (math.isfinite(rule.relative_l2) and math.isfinite(rule.relative_linf)):
        return "a limit is not finite"
    if not rule.reason.strip():
        return "the reason is empty"
    return _fault_of_initial(rule)


def _fault_of_initial(rule: Close) -> str | None:
    if rule.initial is None:
        needed = rule.relative_to == "update"
        return "needs 'initial', or relative_to = \"weights\" to do without" if needed else None
    if rule.relative_to == "weights":
        return "'initial' has no use with relative_to = \"weights\""
    parts = rule.initial.split("/")
    if not rule.initial.isprintable() or any(part in ("", ".", "..") for part in parts):
        return f"'initial' {rule.initial!r} is not the name of a file in the model"
    return None


_BUILTIN: Final[Mapping[str, bytes]] = MappingProxyType(
    {
        "bytes": b'version = 1\nname = "bytes"\n\n[[any]]\n[[any.all]]\nequality = "bytes"\n',
        "tensors": b'version = 1\nname = "tensors"\n\n[[any]]\n[[any.all]]\nequality = "tensors"\n',
    }
)


def builtin(name: str) -> Declaration:
    """Return the declaration that is built in under *name*: ``bytes`` or ``tensors``.

    Raises:
        UsageError: there is none; a tolerance has none, because it needs a reason.
    """
    data = _BUILTIN.get(name)
    if data is None:
        known = ", ".join(sorted(_BUILTIN))
        raise UsageError(
            f"no equality {name!r} is built in",
            mend=f"use {known}, or a declaration file; a tolerance needs one, with its reason",
        )
    return parse(data, where=f"built-in equality {name}")
