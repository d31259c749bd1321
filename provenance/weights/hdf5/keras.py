"""Keras models (``.keras``): weights in HDF5 beside their configuration, in a ZIP archive.

Format: ``keras/src/saving/saving_lib.py`` of keras-team/keras, version 3. The members are
``config.json``, ``metadata.json``, ``model.weights.h5``, and files below ``assets/``; any other is
refused. The archive is read by :mod:`~provenance.weights.zip_archive`, the weights by
:mod:`~provenance.weights.hdf5.reader`; their refusals and limits hold.

The configuration is content, byte for byte but for the numbers of shared objects, which are their
addresses (``serialization_lib.record_object_after_serialization``): of these it is content which
objects have one number, and that is all that Keras takes from them. ``metadata.json`` is content
but for ``date_saved`` and its spelling. Assets are content by digest. The configuration can name
code (``Lambda``, CVE-2025-1550); it is never acted on. The weights must be stored uncompressed, as
Keras does: they are read by place.
"""

from __future__ import annotations

import json
from typing import Final

from provenance.encoding import strict_json
from provenance.errors import MalformedError, UnreadableError
from provenance.weights.hdf5.reader import Hdf5File
from provenance.weights.normalisers import Normaliser, renumbered
from provenance.weights.source import Source
from provenance.weights.view import stated
from provenance.weights.zip_archive import STORED, member_digest, member_text, members

_WEIGHTS: Final = "model.weights.h5"
_REQUIRED: Final = frozenset({_WEIGHTS, "config.json", "metadata.json"})
_ASSETS: Final = "assets/"
_DATE: Final = "date_saved"
_ID: Final = "shared_object_id"
_OBJECT: Final = frozenset({"class_name", "config"})
"""The keys of an object in the configuration."""

_MAX_DEPTH: Final = 8  # of metadata.json, which is flat


class KerasFile(Hdf5File):
    """An open Keras model. See :class:`~provenance.weights.view.TensorFile`."""

    format = "keras"

    def __init__(self, source: Source) -> None:
        """Read and check the archive *source*, its weights and its configuration."""
        found = members(source)
        by_name = {member.name: member for member in found}
        assets = [member for member in found if member.name.startswith(_ASSETS)]
        if other := by_name.keys() - {m.name for m in assets} - _REQUIRED:
            raise MalformedError(f"the member {min(other)!r} of no Keras model", where=source.name)
        if missing := _REQUIRED - by_name.keys():
            raise MalformedError(f"{max(missing)} is missing", where=source.name)
        weights = by_name[_WEIGHTS]
        if weights.method != STORED:
            raise UnreadableError(
                "the weights are compressed", where=source.name, hint="store them, as Keras does"
            )
        member_digest(source, weights)  # for its CRC-32
        super().__init__(source, (weights.start, weights.size))
        description = member_text(source, by_name["metadata.json"])
        configuration, ids = renumbered(member_text(source, by_name["config.json"]), _ID, _OBJECT)
        beside = {
            "config.json": configuration,
            "metadata.json": _without_date(description, f"{source.name}: metadata.json"),
            **{member.name: member_digest(source, member) for member in assets},
        }
        if twice := sorted(self.metadata.keys() & beside.keys()):
            raise MalformedError(f"{twice[0]!r} is a member and an attribute", where=source.name)
        self.metadata = {**self.metadata, **beside}
        by_name = dict(sorted(by_name.items()))
        facts: dict[Normaliser, object] = {
            Normaliser.SAVED_DATE: [description],
            Normaliser.OBJECT_IDS: ids,
            Normaliser.ORDER: [self.container.get(Normaliser.ORDER), [m.name for m in found]],
            Normaliser.ARCHIVE_FIELDS: [
                (m.method, m.compressed, m.ignored) for m in by_name.values()
            ],
        }
        self.container = {**self.container, **stated(facts)}


def _without_date(text: str, where: str) -> str:
    said = strict_json.parse(text.encode(), where=where, max_depth=_MAX_DEPTH)
    if not isinstance(said, dict):
        raise MalformedError("is not an object", where=where)
    rest = {key: value for key, value in said.items() if key != _DATE}
    return json.dumps(rest, sort_keys=True, ensure_ascii=False)
