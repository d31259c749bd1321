"""The model's tensors by digest, and which of its files are forms of others: ``tensors``.

A *form* holds the tensors of its *origin*: a larger file of the model, or one of the base model. A
tensor of it is *same* (type, shape and every bit) or *cast* (each value rounded once, to the
nearest, ties to even: :mod:`~provenance.measure.rounding`) if that of its name in the origin gives
it, *renamed* if only one of another name does. Of any other nothing is said: no quantisation is
repeated, and what overflows or is NaN has no cast.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from provenance.capture.draft import Recording
from provenance.capture.made import Made
from provenance.encoding import strict_json
from provenance.errors import ProvenanceError, UnreadableError
from provenance.measure.rounding import is_narrower, round_codes
from provenance.weights.dtypes import DTYPES, DType, widen
from provenance.weights.model import Model, Unit
from provenance.weights.view import DIGEST_CHUNK, TensorInfo, begin_digest

BASE: Final = "baseModel://"
"""What the files of the base model are called by: no file of a model can be called so."""

MAX_FILES, MAX_TENSORS, MAX_LIST = 64, 2**18, 2**25
"""Most files of a model, their tensors, and bytes of the list; files near the top come first."""

MAX_SPREAD, ROOM = 16, 2**30
"""Tensors may have that many times the bytes of their files, or a gibibyte: by compression,
strides and shared storage some kilobytes can stand for petabytes."""

_HALF, _OF_F32 = 16, {"F32", "F16", "BF16"}
"""Values of floats of so many bits are all in F32; they are cast to these, narrower or not."""


@dataclass(frozen=True, slots=True)
class _Weights:
    """A file of weights, and what is said of it.

    ``digests`` are by tensor, and then by type; ``known`` are all of them.
    """

    name: str
    model: Model
    unit: Unit
    infos: Mapping[str, TensorInfo]
    said: dict[str, Any]
    digests: dict[str, dict[str, str]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    def own(self, name: str) -> str:
        return self.digests[name][self.infos[name].dtype.name]

    @property
    def nbytes(self) -> int:
        return sum(info.nbytes for info in self.infos.values())


def with_tensors(
    recording: Recording,
    made: Made,
    base: Path | None,
    progress: Callable[[int], None] | None = None,
) -> Recording:
    """Return *recording* with the tensors of the model, or one file, that was *made* from *base*.

    Files are read that are as they were hashed, and of others it is stated why they are not.
    *progress* is told of bytes of tensors.
    """
    problems, types = dict[str, str](), defaultdict[tuple[int, ...], set[str]](set)
    entries = ((it.name, it.size, it.sha256) for it in made.manifest.entries)
    every = _look(made.folder, entries, "", problems)
    for info in (info for each in every for info in each.infos.values()):
        types[info.shape].add(info.dtype.name)
    if base is not None:
        every += _look(base, _files_of_base(recording), BASE, problems)
    every.sort(key=lambda it: (not it.name.startswith(BASE), -it.nbytes))
    read, said, data = list[_Weights](), list[dict[str, Any]](), b""
    for each in every:
        with _stated(each.name, problems):
            _digest(each, types, progress)
            if not each.name.startswith(BASE):
                lines = _lines(each, read)
                if len(data) + len(lines) > MAX_LIST:
                    raise UnreadableError("left out: the list would be too long")
                data += lines
                said.append(each.said)
            read.append(each)
    said += ({"file": name, "problem": problem} for name, problem in problems.items())
    if not said:
        return recording
    annotations = {"count": data.count(b"\n"), "files": sorted(said, key=lambda it: it["file"])}
    return recording.with_byproduct("tensors", data, annotations)


@contextmanager
def _stated(name: str, problems: dict[str, str]) -> Iterator[None]:
    try:
        yield
    except ProvenanceError as error:
        problems[name] = error.what
    except Exception as error:  # noqa: BLE001 - a defect of a reader must not cost the claim
        problems[name] = f"a defect: {type(error).__name__}"


def _files_of_base(recording: Recording) -> list[tuple[str, int, str]]:
    named = (it for it in recording.statement.run.byproducts if it.name == "manifest/baseModel")
    data = next(map(recording.data_of, named), b"")
    return msgspec.json.decode(data or b"[]", type=list[tuple[str, int, str]])


def _look(
    path: Path, files: Iterable[tuple[str, int, str]], prefix: str, problems: dict[str, str]
) -> list[_Weights]:
    """Return what the *files* of weights at *path* hold, states of a training aside."""
    units, found, tensors = list[Unit](), list[_Weights](), 0
    rows = {name: (size, sha256) for name, size, sha256 in files}
    root = path if path.is_dir() else path.parent
    model = Model(root, {it: rows[it][0] for it in rows}, {it: rows[it][1] for it in rows})
    with _stated(f"{prefix}*", problems):  # an extra may be missing
        units = [unit for unit in model.units.values() if unit.weights and not unit.state]
    for number, unit in enumerate(sorted(units, key=lambda it: (it.name.count("/"), it.name))):
        name = prefix + unit.name
        if number == MAX_FILES:
            problems[name] = f"left out, the first of {len(units) - number}: too many files"
            break
        with _stated(name, problems), model.open(unit, unit.name, later=True) as file:
            types = Counter(info.dtype.name for info in file.tensors.values())
            said = {"file": name, "format": file.format, "count": types.total(), "types": {**types}}
            file_type = file.metadata.get("general.file_type", "").rpartition(" ")[2]
            said |= {"fileType": file_type} if file_type.isdecimal() else {}
            weights = _Weights(name, model, unit, file.tensors, said)
            tensors += types.total()
            if file.doubts:
                raise UnreadableError(file.doubts[0])
            if weights.nbytes > max(ROOM, MAX_SPREAD * sum(rows[it][0] for it in unit.files)):
                raise UnreadableError("left out: its tensors are far larger than its files")
            if tensors > MAX_TENSORS:
                raise UnreadableError("left out: too many tensors")
            found.append(weights)
    return found


def _digest(
    weights: _Weights,
    types: Mapping[tuple[int, ...], set[str]],
    progress: Callable[[int], None] | None,
) -> None:
    """Digest each tensor as those *types* of its shape that are its own, or to which it is cast."""
    with weights.model.open(weights.unit, weights.unit.name) as file:
        for name, info in file.tensors.items():
            own, known = info.dtype, types.get(info.shape, set())
            of_f32 = _OF_F32 if own.kind == "float" and own.bits <= _HALF else set()
            wanted = known & {own.name, *of_f32} | {
                it for it in known if is_narrower(DTYPES[it], own)
            }
            hashes = {it: begin_digest(it, info.shape) for it in wanted}
            for chunk in file.chunks(name, DIGEST_CHUNK) if hashes else ():
                for it in [*hashes]:
                    cast = chunk if it == own.name else _cast(chunk, own, DTYPES[it])
                    if cast is None:
                        del hashes[it]
                    else:
                        hashes[it].update(cast)
            weights.digests[name] = {it: digest.hexdigest() for it, digest in hashes.items()}
            weights.known.update(weights.digests[name].values())
            if progress is not None:
                progress(info.nbytes)
        file.check_unchanged()


def _cast(chunk: memoryview, own: DType, to: DType) -> memoryview | None:
    """Return the values of *chunk* as *to*, rounded once; None if one is NaN, or overflows."""
    if not is_narrower(to, own):  # by way of F32, which holds every value of *own*
        wide = np.empty(len(chunk) * 8 // own.bits)
        with np.errstate(invalid="ignore"):  # NaN
            widen(chunk, own, wide, np.empty_like(wide))
            chunk, own = wide.astype("<f4").view(np.uint8).data, DTYPES["F32"]
        if to == own:
            return None if np.isnan(wide).any() else chunk
    rounded = round_codes(chunk, own, to)
    return None if (rounded.overflow | rounded.nan).any() else rounded.codes.data


def _lines(weights: _Weights, origins: Sequence[_Weights]) -> bytes:
    """Return a line for each tensor of *weights*, and say of which of *origins* it is a form."""
    every = [(weights, dict[str, str]()), *((it, _forms(weights, it)) for it in origins)]
    best, forms = max(
        every, key=lambda it: (sum(f != "renamed" for f in it[1].values()), len(it[1]))
    )
    if forms:
        here, counts = {weights.own(name) for name in weights.infos}, Counter(forms.values())
        counts["other"] = len(weights.infos) - len(forms)
        counts["left"] = sum(here.isdisjoint(it.values()) for it in best.digests.values())
        weights.said.update({"from": best.name, **+counts})
        if not (counts["renamed"] or counts["other"] or counts["left"]):
            cast = {weights.infos[it].dtype.name for it, form in forms.items() if form == "cast"}
            weights.said["conversion"] = f"cast:{','.join(sorted(cast))}" if cast else "copy"
    lines = []
    for name, info in weights.infos.items():
        line = {"file": weights.name, "name": name, "dtype": info.dtype.name}
        line |= {"sha256": weights.own(name)} | ({"form": forms[name]} if name in forms else {})
        lines.append(strict_json.format({**line, "shape": list(info.shape)}) + b"\n")
    return b"".join(lines)


def _forms(weights: _Weights, origin: _Weights) -> dict[str, str]:
    """Return what the tensors of *weights* are in *origin*, as far as that is found."""
    found = {}
    for name, info in weights.infos.items():
        if origin.digests.get(name, {}).get(info.dtype.name) == weights.own(name):
            found[name] = "same" if info.dtype == origin.infos[name].dtype else "cast"
        elif weights.own(name) in origin.known:
            found[name] = "renamed"
    return found
