"""What a byproduct is, a file in ``provenance/`` beside the weights: a manifest, metrics, other.

A manifest is the JCS of ``[[name, size, sha256], …]``; :mod:`provenance.statement.metrics` has the
form of metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from provenance.encoding import strict_json
from provenance.errors import MalformedError, count
from provenance.files.digest import hash_file
from provenance.files.manifest import FileEntry, Manifest, manifest_of
from provenance.report.explain_text import explained, row, rows, sha256_text
from provenance.statement import intoto
from provenance.statement.metrics import parse_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from provenance.report.explain_text import Explained

MAX_METRICS_BYTES = 16 * 2**20
"""Largest metrics that are summed up, in bytes: a quarter of a million lines, in two seconds."""


class ManifestFile(msgspec.Struct, frozen=True, rename="camel", tag_field="kind", tag="manifest"):
    """The files of an input, and the root digest (OpenSSF) over them."""

    root_digest: dict[str, str]
    files: tuple[FileEntry, ...]


class Metric(msgspec.Struct, frozen=True):
    """The values of one metric; ``smallest`` and ``largest`` are of the finite ones."""

    name: str
    values: int
    first: float | str
    last: float | str
    smallest: float | None
    largest: float | None


class MetricsFile(msgspec.Struct, frozen=True, tag_field="kind", tag="metrics"):
    """What the training program said of itself."""

    records: int
    metrics: tuple[Metric, ...]


class ByproductFile(msgspec.Struct, frozen=True, rename="camel", tag_field="kind", tag="byproduct"):
    """A byproduct that is neither a manifest nor metrics. ``name`` is what a claim calls it."""

    size: int
    name: str | None = None
    media_type: str | None = None


def explain_manifest(data: bytes, where: str) -> Explained:
    """Return what the manifest *data* lists.

    Raises:
        MalformedError: it is none.
    """
    manifest = _parse_manifest(data, where)
    content = ManifestFile({"sha256": manifest.root_digest}, manifest.entries)
    lines = [
        f"{where}: manifest of an input (not verified)",
        row("root digest", f"sha256 {manifest.root_digest}"),
        *manifest_rows(manifest),
    ]
    return explained(content, lines)


def manifest_rows(manifest: Manifest, depth: int = 1) -> list[str]:
    """Return how many files *manifest* has, and the first of them."""
    shown = [
        f"{entry.name}  {entry.size:,} bytes  {sha256_text(entry.sha256)}"
        for entry in manifest.entries
    ]
    total = f"{count(len(manifest.entries), 'file')}, {manifest.size:,} bytes"
    return [row("files", total, depth), *rows("", shown, depth)]


def explain_metrics(data: bytes, where: str) -> Explained:
    """Return what the metrics *data* say, each summed up.

    Raises:
        MalformedError: a line is no metric.
    """
    values: dict[str, list[float | str]] = {}
    for _, metric in parse_metrics(data, where):
        values.setdefault(metric.name, []).append(metric.value)
    metrics = tuple(_sum_up(name, values[name]) for name in sorted(values))
    records = sum(map(len, values.values()))
    lines = [
        f"{where}: metrics (not verified)",
        row("records", f"{records:,} of {count(len(metrics), 'metric')}"),
        *rows("", [_metric_text(metric) for metric in metrics], limit=100),
    ]
    return explained(MetricsFile(records, metrics), lines)


def explain_other(path: Path, described: intoto.ResourceDescriptor | None) -> Explained:
    """Return what can be said of the byproduct at *path*, which a claim may have *described*.

    Raises:
        UnreadableError: it cannot be read.
    """
    digest, size = hash_file(path)
    name = described.name or None if described else None
    media_type = described.media_type or None if described else None
    lines = [f"{path}: byproduct (not verified)"]
    lines.append(row("name", name or "no claim beside the weights names it"))
    if media_type:
        lines.append(row("type", media_type))
    lines.append(row("size", f"{size:,} bytes"))
    fits = "as its name says" if digest == path.name else "which is NOT what its name says"
    lines.append(row("sha256", f"{digest}, {fits}"))
    return explained(ByproductFile(size, name, media_type), lines)


def _parse_manifest(data: bytes, where: str) -> Manifest:
    listed = strict_json.parse(data, where=where)
    entries = []
    for item in intoto.convert(listed, list[tuple[str, int, str]], where=where):
        entry = FileEntry(*item)
        intoto.check_digests({"sha256": entry.sha256}, where=where)
        if entry.size < 0:
            raise MalformedError(f"the file {entry.name!r} has a negative size", where=where)
        entries.append(entry)
    return manifest_of(entries, where=where)


def _sum_up(name: str, values: Sequence[float | str]) -> Metric:
    finite = [value for value in values if not isinstance(value, str)]
    return Metric(
        name,
        len(values),
        values[0],
        values[-1],
        min(finite, default=None),
        max(finite, default=None),
    )


def _metric_text(metric: Metric) -> str:
    if metric.values == 1:
        return f"{metric.name}: {metric.last}"
    spread = ""
    if metric.smallest is not None:
        spread = f", between {metric.smallest} and {metric.largest}"
    return f"{metric.name}: {metric.values:,} values, {metric.first} to {metric.last}{spread}"
