"""Secrets that a finished statement holds, and what can be done about those found after the run.

A *field* names a part of the statement's predicate by a JSON pointer without what is the same for
all: ``externalParameters/command/3``, ``internalParameters/drift/0/end``,
``changedInputs/0/added/1/name``; ``byproducts/NAME`` is a byproduct, by its number if its name is
secret. A redacted text becomes ``${redacted:late}``, and so do all texts and names in a list or an
object; of a byproduct its name is left. The names of the model's own files cannot be redacted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from provenance.capture.draft import Recording
from provenance.capture.secrecy.scan import KEEP_OUT, Found, LiveSecret, find_secret
from provenance.encoding import strict_json
from provenance.errors import MalformedError, SecretError, UsageError
from provenance.statement import intoto
from provenance.statement.training import TrainingPredicate, TrainingStatement, to_statement

MARK = "${redacted:late}"
"""In place of a text that was redacted after the run."""

REDACTED = {"redacted": True}
"""Annotations of a byproduct that was."""

MODEL = ""
"""The field that stands for the names of the model and its files."""

_BYPRODUCTS = "/predicate/runDetails/byproducts/"
_MAX_FIELDS = 64
_SECTIONS = (("buildDefinition",), ("runDetails", "provenance_outcome"), ("runDetails",))


def refuse_secrets_in(recording: Recording, live: tuple[LiveSecret, ...]) -> bytes:
    """Return the statement's bytes, or raise SecretError if they or a byproduct hold a secret.

    The error names every field that must be redacted.
    """
    payload = intoto.format(to_statement(recording.statement))
    first = found = _find(recording, payload, live)
    if found is None or first is None:
        return payload
    fields: dict[str, str] = {}
    left = recording
    while found is not None and len(fields) < _MAX_FIELDS:
        field = _field(found.pointer, left.statement, live)
        if not field or field in fields:
            raise _error(found, left.statement, live, {MODEL: found.variable})
        fields[field] = found.variable
        left = redact(left, [field])
        found = _find(left, intoto.format(to_statement(left.statement)), live)
    raise _error(first, recording.statement, live, fields)


def _error(
    found: Found,
    statement: TrainingStatement,
    live: tuple[LiveSecret, ...],
    fields: Mapping[str, str],
) -> SecretError:
    shown = _without_secrets(found.pointer.split("/"), live)
    where, what, hint = "the statement", f"holds {found.what} at {shown}", KEEP_OUT
    if found.pointer.startswith(("/subject", "/predicate/provenance_manifest")):
        where, what = "the model", f"its name, or a file's in it, holds {found.what}"
        hint = "rename it; nothing was signed"
    elif found.pointer.startswith(_BYPRODUCTS):
        number = int(found.pointer.removeprefix(_BYPRODUCTS).partition("/")[0])
        name = _without_secrets(statement.run.byproducts[number].name.split("/"), live)
        where = f"the byproduct {name}"
        what = f"holds {found.what}"
    return SecretError(what, where=where, hint=hint, fields=fields)


def _find(recording: Recording, payload: bytes, live: tuple[LiveSecret, ...]) -> Found | None:
    if (found := find_secret(payload, live)) is not None:
        return found
    for number, item in enumerate(recording.statement.run.byproducts):
        if (found := _find_in_data(recording.data_of(item), live)) is not None:
            return found._replace(pointer=f"{_BYPRODUCTS}{number}")
    return None


_find_in_data = lru_cache(maxsize=64)(find_secret)
"""The data of a byproduct is the same each time: a list of many files is searched once."""


def _field(pointer: str, statement: TrainingStatement, live: tuple[LiveSecret, ...]) -> str:
    """Return the field at *pointer*, or "" if that cannot be redacted."""
    prefixes = ("/".join(("/predicate", *section, "")) for section in _SECTIONS)
    prefix = next((each for each in prefixes if pointer.startswith(each)), None)
    if prefix is None:
        return ""
    parts = pointer.removeprefix(prefix).split("/")
    if parts[0] == "byproducts":
        name = statement.run.byproducts[int(parts[1])].name
        return f"byproducts/{parts[1] if find_secret(name.encode(), live) else name}"
    if parts[-1] == "(a key)":
        parts.pop()
    return _without_secrets(parts, live)


def _without_secrets(parts: list[str], live: tuple[LiveSecret, ...]) -> str:
    """Return the pointer of *parts* up to a name that is secret, which is not to be shown."""
    while parts and find_secret("/".join(parts).encode(), live):
        parts = parts[:-1]
    return "/".join(parts)


def redact(recording: Recording, fields: Iterable[str]) -> Recording:
    """Return *recording* with *fields* redacted; a UsageError if one is not there."""
    statement = recording.statement
    for field in fields:
        kind, _, name = field.strip("/").partition("/")
        if kind == "byproducts":
            statement = _without_byproduct(statement, name, field)
            continue
        predicate = msgspec.json.decode(
            msgspec.json.encode(TrainingPredicate(statement.build, statement.run, ()))
        )
        _redact_at(predicate, field)
        try:
            changed = strict_json.convert(predicate, TrainingPredicate)
        except MalformedError as error:
            what = "cannot be redacted as a whole"
            raise UsageError(what, where=field, hint="name a field in it") from error
        statement = msgspec.structs.replace(
            statement, build=changed.build_definition, run=changed.run_details
        )
    kept = {item.digest.get("sha256") for item in statement.run.byproducts}
    files = {name: data for name, data in recording.files.items() if name in kept}
    return Recording(statement, files)


def _without_byproduct(statement: TrainingStatement, name: str, field: str) -> TrainingStatement:
    byproducts, shown = list(statement.run.byproducts), name
    numbers = [number for number, item in enumerate(byproducts) if item.name == name]
    if not numbers and re.fullmatch("[0-9]{1,6}", name) and int(name) < len(byproducts):
        numbers, shown = [int(name)], MARK
    if not numbers:
        raise UsageError("there is no such field", where=field)
    for number in numbers:
        byproducts[number] = intoto.ResourceDescriptor(shown, annotations=REDACTED)
    return statement.with_run(byproducts=tuple(byproducts))


def _redact_at(predicate: dict[str, Any], field: str) -> None:
    parts = [part.replace("~1", "/").replace("~0", "~") for part in field.strip("/").split("/")]
    for section in _SECTIONS:
        place: Any = predicate
        try:
            for key in section:
                place = place[key]
            for part in parts[:-1]:
                place = place[int(part) if isinstance(place, list) else part]
            last = int(parts[-1]) if isinstance(place, list) else parts[-1]
            place[last] = _redacted(place[last])
        except (KeyError, IndexError, ValueError, TypeError):
            continue
        return
    raise UsageError("there is no such field", where=field)


def _redacted(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(value, str):
        return MARK
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    if isinstance(value, dict):
        items = enumerate(value.values())
        return {f"{MARK[:-1]}-{number}}}": _redacted(item) for number, item in items}
    return value
