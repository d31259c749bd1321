"""The files of a model's folder as weights: a file is one set, or an index and its shards are.

Told by the names alone. The shards of ``model.safetensors.index.json`` are called
``model-00001-of-00005.safetensors``, as Hugging Face's writers call them; the whole set is known as
``model.safetensors``. What the index says is the business of
:mod:`~provenance.weights.sharded`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from provenance.weights.names import carries_tensors, whole_name

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHARD: Final = re.compile(r"(?P<stem>.*)-[0-9]{5}-of-[0-9]{5}(?P<suffix>\.[^./]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class WeightSet:
    """The files that hold one set of weights."""

    name: str
    """The file's, or the index's without ``.index.json`` unless there is a file called so."""
    index: str | None
    files: tuple[str, ...]
    """The file, or the shards, sorted; there may be none. The index is not among them."""


def weight_sets(names: Iterable[str]) -> tuple[WeightSet, ...]:
    """Return the sets of weights among the files *names*, whose parts are joined by ``/``, by name.

    Files that hold no tensors are left out.
    """
    files = frozenset(names)
    shards: dict[str, list[str]] = defaultdict(list)
    for name in sorted(files):
        folder, _, last = name.rpartition("/")
        if parts := _SHARD.fullmatch(last):
            whole = parts["stem"] + parts["suffix"]
            shards[f"{folder}/{whole}" if folder else whole].append(name)
    sets: list[WeightSet] = []
    taken: set[str] = set()
    for name in files:
        index_of = whole_name(name)
        if index_of is None or not carries_tensors(name):
            continue
        held = tuple(shards[index_of])
        sets.append(WeightSet(name if index_of in files else index_of, name, held))
        taken.update(held, [name])
    sets += [WeightSet(name, None, (name,)) for name in files - taken if carries_tensors(name)]
    return tuple(sorted(sets, key=lambda found: found.name))
