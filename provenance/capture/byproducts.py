"""Byproducts: what came out beside the weights, in the statement or beside it by digest.

At most :data:`MAX_INLINE_BYTES` stand in the statement itself, as in-toto asks of a resource's
content. More is a file named by its SHA-256, to be put into ``provenance/`` beside the weights.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from provenance.encoding import strict_base64, strict_json
from provenance.statement.intoto import ResourceDescriptor

if TYPE_CHECKING:
    from provenance.capture.records import Records
    from provenance.files.manifest import Manifest

MAX_INLINE_BYTES = 1024
"""Largest content inline, in bytes (in-toto: "less than 1KB")."""


@dataclass(frozen=True, slots=True)
class Byproduct:
    """One byproduct; ``data`` is to be put beside the weights, None: it stands in the statement."""

    description: ResourceDescriptor
    data: bytes | None

    @property
    def sha256(self) -> str:
        """Its digest, in hexadecimal: the name of its file."""
        return self.description.digest["sha256"]


def describe_bytes(
    name: str, data: bytes, media_type: str, annotations: dict[str, Any] | None = None
) -> Byproduct:
    """Return *data* as the byproduct *name*."""
    inline = len(data) <= MAX_INLINE_BYTES
    description = ResourceDescriptor(
        name=name,
        digest={"sha256": hashlib.sha256(data).hexdigest()},
        content=strict_base64.format(data) if inline else "",
        media_type=media_type,
        annotations=annotations or {},
    )
    return Byproduct(description, None if inline else data)


def describe_manifest(key: str, manifest: Manifest) -> Byproduct:
    """Return the names, sizes and digests of the input *key*: its ``manifest`` is their digest."""
    rows = [[entry.name, entry.size, entry.sha256] for entry in manifest.entries]
    return describe_bytes(f"manifest/{key}", strict_json.format(rows), "application/json")


def describe_metrics(records: Records) -> Byproduct | None:
    """Return the metrics of *records*; None: the program gave none."""
    if not records.count:
        return None
    annotations = {"records": records.count, "last": records.last}
    return describe_bytes("metrics", records.metrics, "application/jsonl", annotations)
