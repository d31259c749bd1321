"""What a model folder holds: weights, claims, a signature, byproducts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from provenance.errors import ProvenanceError, UnreadableError, count, reason
from provenance.files.manifest import walk
from provenance.files.names import BYPRODUCTS, CLAIMS, MODEL_SIGNATURE, RESERVED, component_order
from provenance.folder import claims
from provenance.report.explain_bundles import SignedStatement, describe_bundles, find_byproduct
from provenance.report.explain_text import explained, row, rows

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.report.explain_text import Explained
    from provenance.statement.intoto import ResourceDescriptor

SHOWN_FILES = 40
"""Files of the model that are listed; the rest is counted."""


class ListedFile(msgspec.Struct, frozen=True):
    """A file: its name below the folder, and its size in bytes."""

    name: str
    size: int


class ModelFolder(msgspec.Struct, frozen=True, tag_field="kind", tag="model"):
    """A model folder: its files, what is signed about them, and the byproducts beside them."""

    files: tuple[ListedFile, ...]
    claims: tuple[SignedStatement, ...]
    signature: tuple[SignedStatement, ...]
    byproducts: tuple[ListedFile, ...]
    problem: str | None = None


class ByproductFolder(msgspec.Struct, frozen=True, tag_field="kind", tag="byproducts"):
    """The folder of byproducts beside the weights: files named by their SHA-256."""

    files: tuple[ListedFile, ...]


class _Part(msgspec.Struct, frozen=True):
    """What one file of bundles says."""

    bundles: tuple[SignedStatement, ...] = ()
    lines: tuple[str, ...] = ()
    problems: tuple[ProvenanceError, ...] = ()


def is_model_folder(folder: Path) -> bool:
    """Tell whether something is signed about the files in *folder*."""
    return any((folder / name).is_file() for name in (CLAIMS, MODEL_SIGNATURE))


def explain_model_folder(folder: Path) -> Explained:
    """Return what is in the model folder *folder*; what cannot be read becomes a problem."""
    problems: list[ProvenanceError] = []
    files: tuple[ListedFile, ...] = ()
    byproducts: tuple[ListedFile, ...] = ()
    try:
        files = _listed(folder, RESERVED)
        if (folder / BYPRODUCTS).is_dir():
            byproducts = _listed(folder / BYPRODUCTS)
    except ProvenanceError as error:
        problems.append(error)
    signed = [_read_part(folder / name) for name in (CLAIMS, MODEL_SIGNATURE)]
    problems += [problem for part in signed for problem in part.problems]
    content = ModelFolder(
        files,
        signed[0].bundles,
        signed[1].bundles,
        byproducts,
        str(problems[0]) if problems else None,
    )
    lines = [f"{folder}: model folder (not verified)", *_file_rows("files", files, SHOWN_FILES)]
    if byproducts:
        lines += _file_rows("byproducts", byproducts, SHOWN_FILES)
    for part in signed:
        lines += part.lines
    lines += [row("problem", str(problem)) for problem in problems]
    lines.append(row("", "'provenance verify' checks it"))
    return explained(content, lines, problems)


def explain_byproduct_folder(folder: Path) -> Explained:
    """Return what is in the folder *folder* of byproducts.

    Raises:
        UnreadableError, MalformedError: it cannot be listed.
    """
    files = _listed(folder)
    lines = [f"{folder}: byproducts of a training (not verified)"]
    texts = []
    for file in files:
        described = describe_byproduct(folder / file.name)
        texts.append(f"{file.name}  {file.size:,} bytes  {described.name if described else ''}")
    lines += rows("", texts, limit=SHOWN_FILES)
    return explained(ByproductFolder(files), lines)


def describe_byproduct(path: Path) -> ResourceDescriptor | None:
    """Return how a claim beside the weights describes the byproduct at *path*; None: none does."""
    beside = path.absolute().parent.parent / CLAIMS
    try:
        return find_byproduct(claims.read_bundles(beside), path.name)
    except ProvenanceError:
        return None


def _listed(folder: Path, ignore: frozenset[str] = frozenset()) -> tuple[ListedFile, ...]:
    names = sorted(walk(folder, ignore=ignore), key=component_order)
    try:
        return tuple(ListedFile(name, (folder / name).lstat().st_size) for name in names)
    except OSError as error:
        raise UnreadableError(f"changes: {reason(error)}", where=str(folder)) from error


def _read_part(path: Path) -> _Part:
    if not path.exists():
        return _Part(lines=("", f"{path.name}: none"))
    try:
        parsed = claims.read_bundles(path)
        content, lines, problems = describe_bundles(parsed, str(path))
    except ProvenanceError as error:
        return _Part(lines=("", f"{path.name}: not understood"), problems=(error,))
    title = f"{path.name}: {count(len(parsed), 'signed document')}"
    return _Part(content.bundles, ("", title, *lines), tuple(problems))


def _file_rows(label: str, files: tuple[ListedFile, ...], limit: int) -> list[str]:
    total = sum(file.size for file in files)
    texts = [f"{file.name}  {file.size:,} bytes" for file in files]
    return [
        row(label, f"{count(len(files), 'file')}, {total:,} bytes"),
        *rows("", texts, limit=limit),
    ]
