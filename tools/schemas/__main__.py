"""JSON Schema (draft 2020-12) of every document, generated from its type.

``python -m tools.schemas --write schemas`` writes the folder, and ``--check schemas``
names the first file in it that is not what would be written. Beside the schemas stand examples
(:mod:`~tools.schemas.examples`), and what is invalid
(:mod:`~tools.schemas.counterexamples`).

A schema says less than the parser of its document: :data:`REFINEMENTS` adds what a parser checks
beyond its type and a schema can say; what no schema can say (digests that fit, names that stand
twice, canonical base64) is listed with the examples in ``tests/test_schemas.py``.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from provenance.envelope.bundle import BundleDocument
from provenance.equality import declaration
from provenance.errors import ProvenanceError
from provenance.files.atomic import TEMPORARY_SUFFIX, write_file
from provenance.judge.calibration import Calibration
from provenance.report.explain import Shown
from provenance.statement.uris import BASE, BUILD_TYPE
from provenance.transparency.entry import EntryDocument
from provenance.transparency.tiles import make_folders, read_file
from provenance.trust import policy
from tools.schemas import documents
from tools.schemas.counterexamples import invalid_examples
from tools.schemas.examples import valid_examples

if TYPE_CHECKING:
    from collections.abc import Sequence

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MAX_FILE_BYTES = 2**20
"""Largest file in the folder that is read, in bytes."""


class Document(msgspec.Struct, frozen=True):
    """A document: its name, the types that it may have, its title, and what it is.

    Its *parts* are types to which only :data:`REFINEMENTS` refer.
    """

    name: str
    types: tuple[type, ...]
    title: str
    description: str = ""
    parts: tuple[type, ...] = ()


DOCUMENTS = (
    Document("training-statement", (documents.TrainingStatement,), "Training statement"),
    Document("model-signature", (documents.ModelSignatureStatement,), "OpenSSF model signature"),
    Document(
        "verdict",
        (
            documents.ReproducedStatement,
            documents.AgreedStatement,
            documents.VerdictStatement,
        ),
        "Verdict",
        "The outcome of comparing rebuilds; what may be claimed decides the predicate.",
    ),
    Document("bundle", (BundleDocument,), "Bundle", parts=(EntryDocument,)),
    Document("log-entry", (EntryDocument,), "Log entry"),
    Document(
        "equality",
        (declaration.Document,),
        "Equality declaration",
        "What counts as the same model, as TOML spells it; docs/spec/equality.md is its page.",
    ),
    Document(
        "trust-policy",
        (policy.Document,),
        "Trust policy",
        "Who may sign what of which models, as TOML spells it; docs/verify.md explains.",
    ),
    Document("show-output", (Shown,), "Output of show --json"),
    Document(
        "verify-output",
        (documents.Held, documents.Refused),
        "Output of verify --json",
        "What verify --json prints: every step held, or one did not.",
    ),
    Document("compare-output", (documents.Compared,), "Output of compare --json"),
    Document(
        "equality-output",
        (
            documents.EqualitiesListed,
            documents.EqualityShown,
            documents.EqualityChecked,
            documents.EqualitySuggested,
            Calibration,
        ),
        "Output of equality --json",
        "What equality list, show, check, suggest and calibrate print with --json.",
    ),
    Document("doctor-output", (documents.Diagnosed,), "Output of doctor --json"),
    Document("agree-output", (documents.Judged,), "Output of agree --json"),
)

_HEX_256 = {"pattern": "^[0-9a-f]{64}$", "maxLength": 64}
_HEX_ANY = {"pattern": "^[0-9a-f]+$"}
_DIGEST_SET = {
    "minProperties": 1,
    "properties": {"sha256": _HEX_256},
    "additionalProperties": {"type": "string", **_HEX_ANY},
}
_FILE_NAME = {
    # No absolute name, no empty part, no "." and "..", no backslash, no control character.
    "pattern": r"^(?!/)(?!(.*/)?(\.{0,2})(/|$))[^\\\u0000-\u001f\u007f-\u009f]+$",
}

REFINEMENTS: dict[tuple[str, str], dict[str, Any]] = {
    ("AppliedEquality", "sha256"): _HEX_256,
    ("Attestation", "digest"): _DIGEST_SET,
    ("BuildDefinition", "buildType"): {"const": BUILD_TYPE},
    ("DeclaredEquality", "sha256"): _HEX_256,
    ("FileEntry", "name"): _FILE_NAME,
    ("FileEntry", "sha256"): _HEX_256,
    ("Input", "digest"): _DIGEST_SET,
    ("Input", "manifest"): _HEX_256,
    ("Material", "tlogEntries"): {"items": {"$ref": "#/$defs/EntryDocument"}},
    ("ModelSignaturePredicate", "resources"): {"minItems": 1},
    ("Resource", "algorithm"): {"const": "sha256"},
    ("Resource", "digest"): _HEX_256,
    ("Resource", "name"): _FILE_NAME,
    ("Serialization", "hash_type"): {"const": "sha256"},
    ("Serialization", "method"): {"const": "files"},
    ("Subject", "digest"): _DIGEST_SET,
    ("TrainingPredicate", "provenance_manifest"): {"minItems": 1},
}
"""By type and field: what the parser of the document checks and its type does not say."""


def files() -> dict[str, bytes]:
    """Return every file of the folder ``schemas``, by its name in it."""
    made = {f"{item.name}.schema.json": _format(schema(item)) for item in DOCUMENTS}
    valid = valid_examples()
    made |= {f"examples/valid/{name}": data for name, data in valid.items()}
    invalid = invalid_examples(valid)
    made |= {f"examples/invalid/{name}": data for name, data in invalid.items()}
    made["README.md"] = _readme().encode()
    return made


def schema(document: Document) -> dict[str, Any]:
    """Return the JSON Schema of *document*."""
    types = (*document.types, *document.parts)
    tops, components = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    tops = tops[: len(document.types)]
    definitions = {name: _refined(name, components[name]) for name in sorted(components)}
    body = dict(tops[0]) if len(tops) == 1 else {"anyOf": list(tops)}
    return {
        "$schema": DIALECT,
        "$id": f"{BASE}/schemas/{document.name}/v1",
        "title": document.title,
        "description": document.description or _description(document.types[0].__doc__),
        **body,
        "$defs": definitions,
    }


def write(folder: Path) -> None:
    """Put every file into *folder*, and remove examples and schemas that are no longer made.

    Raises:
        UnavailableError: the disk is full, or the folder may not be written.
    """
    made = files()
    for name, data in made.items():
        make_folders((folder / name).parent)
        write_file(folder / name, data)
    for name in _present(folder) - made.keys():
        (folder / name).unlink()


def find_stale(folder: Path) -> str | None:
    """Return the name of the first file in *folder* that is missing, other or too many."""
    made = files()
    present = _present(folder)
    for name in sorted(present | made.keys()):
        if name not in made or name not in present:
            return name
        if read_file(folder / name, MAX_FILE_BYTES) != made[name]:
            return name
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the folder that *arguments* name; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.schemas")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="FOLDER", help="write the schemas")
    what.add_argument("--check", type=Path, metavar="FOLDER", help="fail if one is not current")
    given = parser.parse_args(arguments)
    try:
        if given.write is not None:
            write(given.write)
            return 0
        stale = find_stale(given.check)
    except ProvenanceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if stale is not None:
        hint = f"python -m tools.schemas --write {given.check}"
        sys.stderr.write(f"{given.check / stale}: is not current (run '{hint}')\n")
    return int(stale is not None)


def _refined(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    """Return *definition* with its description tidy, and with what :data:`REFINEMENTS` adds."""
    refined: dict[str, Any] = _portable(definition)
    if "description" in refined:
        refined["description"] = _description(refined["description"])
    for field, content in refined.get("properties", {}).items():
        content.update(REFINEMENTS.get((name, field), {}))
    return refined


def _portable(value: Any) -> Any:  # noqa: ANN401 - a JSON Schema
    r"""Return *value* with Python's ``\Z`` as ``$``, which ends a text in ECMA-262's patterns."""
    if isinstance(value, dict):
        portable = {key: _portable(item) for key, item in value.items()}
        if isinstance(portable.get("pattern"), str):
            portable["pattern"] = portable["pattern"].replace(r"\Z", "$")
        return portable
    return [_portable(item) for item in value] if isinstance(value, list | tuple) else value


def _description(docstring: str | None) -> str:
    return inspect.cleandoc(docstring or "").replace("``", "")


def _format(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _present(folder: Path) -> set[str]:
    """Return the files in *folder* that :func:`files` may make."""
    made_here = (*folder.glob("*.schema.json"), *folder.glob("README.md"))
    paths = [path for path in (*made_here, *folder.glob("examples/**/*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix() for path in paths if path.suffix != TEMPORARY_SUFFIX
    }


def _first_line(document: dict[str, Any]) -> str:
    return str(document["description"]).splitlines()[0]


def _readme() -> str:
    rows = "\n".join(
        f"| [`{item.name}`]({item.name}.schema.json) | {_first_line(schema(item))} |"
        for item in DOCUMENTS
    )
    return f"""# Schemas

JSON Schema (draft 2020-12) of every document that `provenance` writes or prints, generated from its
types by `python -m tools.schemas --write schemas`; `make check` fails when one is not
current. Do not edit a file here.

| schema | what it describes |
|---|---|
{rows}

`examples/valid` holds documents that the program makes, `examples/invalid` others, each named for
what is wrong with it; its parser refuses every one. They are signed by a key that is made from a
public text: never trust it. An equality declaration is TOML, and its schema is of the values that
it spells.

A document that fits its schema is well formed, no more. The parsers check what no schema can say
(`tests/test_schemas.py` lists it), and only `provenance verify` says whether a document is true.
"""


if __name__ == "__main__":
    raise SystemExit(main())
