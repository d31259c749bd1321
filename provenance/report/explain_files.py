"""What other files are: model folders, byproducts, manifests, metrics, weights, keys.

A manifest is the JCS of ``[[name, size, sha256], …]``; for metrics see
:mod:`provenance.statement.metrics`. The key material of a private key is never shown.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from provenance.encoding import strict_json
from provenance.errors import MalformedError, ProvenanceError, count
from provenance.files.digest import hash_file
from provenance.files.manifest import FileEntry, manifest_of, sizes_of
from provenance.files.names import BYPRODUCTS, CLAIMS, MODEL_SIGNATURE, RESERVED, component_order
from provenance.files.reading import unreadable
from provenance.folder import claims
from provenance.keys import load_private, parse_public_pem
from provenance.report.explain_signed import byproducts_by_digest, describe_bundles
from provenance.report.explain_text import (
    MAX_SHOWN_BYTES,
    MAX_SHOWN_VALUES,
    Explained,
    explained,
    fields,
    row,
)
from provenance.statement import intoto
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.metrics import parse_metrics
from provenance.weights import check_numpy
from provenance.weights.kinds import kind_of
from provenance.weights.names import is_readable

MAX_METRICS_BYTES = 16 * 2**20
"""Largest file of metrics that is summed up, in bytes: 250,000 lines, read in two seconds."""

SHOWN = 100
"""Tensors, files or metrics listed; the rest is counted."""


def is_model_folder(folder: Path) -> bool:
    """Tell whether *folder* holds claims or a model signature."""
    return any((folder / name).is_file() for name in (CLAIMS, MODEL_SIGNATURE))


def explain_model_folder(folder: Path) -> Explained:
    """Return what is in the model *folder*; what cannot be read becomes a problem."""
    problems: list[ProvenanceError] = []
    content: dict[str, Any] = {"files": [], "claims": [], "signature": [], "byproducts": []}
    lines: list[str] = []
    try:
        content["files"] = _listed(folder, RESERVED)
        if (folder / BYPRODUCTS).is_dir():
            content["byproducts"] = _listed(folder / BYPRODUCTS)
    except ProvenanceError as error:
        problems.append(error)
    for part, name in (("claims", CLAIMS), ("signature", MODEL_SIGNATURE)):
        path = folder / name
        said, shown = "none", list[str]()
        try:
            if path.exists():
                parsed = claims.read_bundles(path, max_bytes=MAX_SHOWN_BYTES)
                content[part], shown, found = describe_bundles(parsed, str(path))
                problems += found
                said = count(len(parsed), "signed document")
        except ProvenanceError as error:
            problems.append(error)
            said = "not understood"
        lines += ["", f"{name}: {said}", *shown]
    files, byproducts = content["files"], len(content["byproducts"]) or None
    total = sum(file["size"] for file in files)
    head = fields({"files": files, "size": total, "byproducts": byproducts})
    lines += [row("problem", str(problem)) for problem in problems]
    lines.append(row("", "'provenance verify' checks it"))
    return explained("model", f"{folder}: model folder", content, head + lines, problems)


def explain_byproduct_folder(folder: Path) -> Explained:
    """Return what is in the *folder* of byproducts."""
    described, files = _described(folder), _listed(folder)
    lines = []
    for file in files[:SHOWN]:
        name = described[file["name"]].name if file["name"] in described else "no claim names it"
        lines += [f"  {name}, {count(file['size'], 'byte')}", row("", file["name"])]
    lines += [f"  and {len(files) - SHOWN:,} more"] if len(files) > SHOWN else []
    return explained("byproducts", f"{folder}: byproducts of a training", {"files": files}, lines)


def _listed(folder: Path, ignore: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    sizes = sizes_of(folder, ignore=ignore)
    return [{"name": name, "size": sizes[name]} for name in sorted(sizes, key=component_order)]


def _described(byproducts: Path) -> dict[str, ResourceDescriptor]:
    """Return what the claims beside the folder *byproducts* say of its files, by their digests."""
    try:
        beside = byproducts.absolute().parent / CLAIMS
        return byproducts_by_digest(claims.read_bundles(beside, max_bytes=MAX_SHOWN_BYTES))
    except ProvenanceError:
        return {}


def explain_byproduct(path: Path) -> Explained:
    """Return what the byproduct at *path* is, as the claims beside it describe it."""
    digest, size = hash_file(path)
    described = _described(path.absolute().parent).get(path.name)
    content = {
        "name": described.name if described else "no claim beside the weights names it",
        "type": described.media_type if described else "",
        "size": size,
        "sha256": digest,
        "fits": "as its name says" if digest == path.name else "which is NOT what its name says",
    }
    return explained("byproduct", f"{path}: byproduct", content)


def explain_manifest(data: bytes, where: str) -> Explained:
    """Return what the manifest *data* of an input lists."""
    entries = []
    for item in strict_json.convert(
        strict_json.parse(data, where=where, max_values=MAX_SHOWN_VALUES),
        list[tuple[str, int, str]],
        where=where,
    ):
        entry = FileEntry(*item)
        intoto.check_digests({"sha256": entry.sha256}, where=where)
        if entry.size < 0:
            raise MalformedError(f"the file {entry.name!r} has a negative size", where=where)
        entries.append(entry)
    manifest = manifest_of(entries, where=where)
    size = {"rootDigest": {"sha256": manifest.root_digest}, "size": manifest.size}
    content = {**size, "files": manifest.entries}
    return explained("manifest", f"{where}: manifest of an input", content)


def explain_metrics(data: bytes, where: str) -> Explained:
    """Return a summary of the metrics *data*; the bounds are those of the finite values."""
    values: dict[tuple[str, int], list[float | str]] = {}
    for _, metric in parse_metrics(data, where):
        rank = -1 if metric.rank is None else metric.rank
        values.setdefault((metric.name, rank), []).append(metric.value)
    metrics = []
    for (name, rank), found in sorted(values.items()):
        finite = [value for value in found if not isinstance(value, str)]
        bounds = {"smallest": min(finite, default=None), "largest": max(finite, default=None)}
        ends = {"values": len(found), "first": found[0], "last": found[-1]}
        of = {"rank": rank} if rank >= 0 else {}
        metrics.append({"name": name, **of, **ends, **bounds})
    content = {"records": sum(map(len, values.values())), "metrics": metrics}
    return explained("metrics", f"{where}: metrics", content, fields(content, limit=SHOWN))


def holds_weights(name: str, head: bytes, size: int) -> bool:
    """Tell whether the file *name*, which begins with *head*, is read as weights."""
    kind = kind_of(head, size)
    return is_readable(name) or (kind is not None and kind.readable)


def explain_weights(path: Path) -> Explained:
    """Return which tensors the weight file at *path* holds."""
    check_numpy()
    from provenance.weights.opening import open_tensors  # noqa: PLC0415 - needs numpy

    with open_tensors(path) as opened:
        found = opened.tensors.values()
        content = {
            "format": opened.format,
            "size": sum(item.nbytes for item in found),
            "tensors": [
                {"name": t.name, "dtype": t.dtype.name, "shape": t.shape, "size": t.nbytes}
                for t in found
            ],
            "tied": opened.aliases,
            "doubts": opened.doubts,
            "metadata": dict(sorted(opened.metadata.items())),
        }
    return explained("weights", f"{path}: weights", content, fields(content, limit=SHOWN))


def explain_public_key(data: bytes, where: str) -> Explained:
    """Return what the public key *data* is."""
    key = parse_public_pem(data, where=where)
    content = {"algorithm": key.algorithm, "keyId": key.key_id, "pemDigest": key.pem_digest}
    if key.algorithm == "ed25519":
        content["use"] = "claims, or a log (whose vkey is this key under the log's name)"
    return explained("public-key", f"{where}: public key", content)


def explain_private_key(path: Path) -> Explained:
    """Return what the private key at *path* is, without its key material."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise unreadable(error, str(path)) from error
    content: dict[str, Any] = {"encrypted": False, "mode": f"{mode:04o}"}
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        content["warning"] = "others can use it: chmod 600"
    try:
        key = load_private(path).public
        content |= {"algorithm": key.algorithm, "keyId": key.key_id}
    except MalformedError as error:
        if not isinstance(error.__cause__, TypeError):  # what cryptography raises for a password
            raise
        content |= {"encrypted": True, "publicPart": "hidden here; see the file in .pub"}
    lines = [*fields(content), row("", "keep it secret: whoever has it signs in its owner's name")]
    return explained("private-key", f"{path}: private key", content, lines)
