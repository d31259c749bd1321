"""Checkpoints of torch: the ZIP archives that ``torch.save`` writes since 1.6.

Format: ``torch/serialization.py`` and ``caffe2/serialize/inline_container.cc`` of torch 2.13. The
members are in one folder: ``data.pkl`` describes what was saved, ``data/N`` are the bytes of each
storage, and ``version``, ``byteorder`` and the like are short records. All are stored uncompressed,
and aligned by letters Z in an extra field. Nothing is unpickled: ``pickle_program`` reads the
pickle, ``values`` what it describes.

Refused: files before 1.6 and TorchScript archives (by name, with the hint), compressed members,
members that nothing refers to, storages of another size than stated, tensors that leave their
storage; big-endian files with storages whose element type only the tensor states, which torch
itself reads in the wrong order; where the archive has a format version, storages in another order
than the pickle asks for them, since torch can then read them by that order; and tensors that share
bytes so often that together they are larger than 64 times the file.

The CRC-32 of a storage is checked before the last chunk of any tensor in it is returned: along the
way if one pass reads the whole storage in order, otherwise by a pass of its own, once for each open
file. That of everything else, and bytes that no tensor reaches (torch saves the whole storage of a
view), are read when the file is opened.

Two files with equal tensors, metadata and facts may differ in the versions in the archive's end
records.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from provenance.errors import MalformedError, UnreadableError
from provenance.loaders.keys import Path
from provenance.weights.kinds import LEGACY
from provenance.weights.normalisers import Normaliser
from provenance.weights.source import Source
from provenance.weights.torch.pickle_program import MAX_PROGRAM, Reference, read_program
from provenance.weights.torch.strided import CONTIGUOUS, View, check_turnable, gathered, unreached
from provenance.weights.torch.tensors import UNTYPED, Storage, StoredTensor
from provenance.weights.torch.values import GLOBALS, STRUCTURE, read_content
from provenance.weights.view import ArraysFile, SourceFile, cut, little_endian, stated
from provenance.weights.zip_archive import STORED, Member, members, read_member

_MAX_RECORD: Final = 1024
"""Longest short record, in bytes; the longest known has 40."""

MAX_SHARED: Final = 64
"""Greatest size of all tensors, in sizes of the file: each is compared by itself, and 100,000 names
for one storage would take hours. Tied weights take twice the file."""

_READ: Final = 2**20
PICKLE: Final = "data.pkl"
_IDENTIFIER: Final = ".data/serialization_id"

RECORDS: Final[Mapping[str, re.Pattern[str]]] = {
    "version": re.compile(r"[0-9]{1,4}\n"),
    "byteorder": re.compile(r"little|big"),
    ".format_version": re.compile(r"[0-9]{1,4}"),
    ".storage_alignment": re.compile(r"[0-9]{1,10}"),
    _IDENTIFIER: re.compile(r"[!-~]{1,128}"),
}
"""The short records, and what each may hold."""


class TorchFile(SourceFile):
    """An open checkpoint. See :class:`~provenance.weights.view.TensorFile`."""

    format = "torch"
    direct = False  # a storage's CRC-32 covers all of it

    def __init__(self, source: Source) -> None:
        """Read and check the structure of *source*, its pickle, and what no tensor reaches."""
        super().__init__(source)
        self._checked: set[str] = set()
        root, found = archive_members(source)
        records = short_records(source, found)
        self._swapped = records.get("byteorder") == "big"
        pickle = read_member(source, found[PICKLE], MAX_PROGRAM)
        program = read_program(pickle, GLOBALS, where=source.name)
        content = read_content(program.value, where=source.name)
        self._storages = _storages(source, found, content.tensors)
        _check_tensors(source, content.tensors, swapped=self._swapped)
        if ".format_version" in found:
            _check_order(source, program.references, self._storages)
        ordered = sorted(
            content.tensors,
            key=lambda t: (self._storages[t.storage.key].start, t.view.begin, t.info.name),
        )
        self._stored = {t.info.name: t for t in ordered}
        self._arrays = ArraysFile(content.arrays, where=source.name)
        stored = {t.info.name: t.info for t in ordered}
        self.tensors = {**stored, **self._arrays.tensors}
        self.metadata = content.metadata
        self._paths = content.paths
        self.aliases = _aliases(ordered)
        layout, types = [], []
        for t in sorted(ordered, key=lambda t: t.info.name):
            key, kind, location, nbytes = t.storage
            layout.append((key, kind, nbytes, t.view.offset, t.view.strides))
            types.append((location, t.trained, t.parameter))
        ignored = [found[name].ignored for name in sorted(found)]
        self.container = stated(
            {
                Normaliser.ORDER: [list(found), list(content.paths), *content.sets],
                Normaliser.SPELLING: program.spelling,
                Normaliser.LAYOUT: [records.get(".storage_alignment"), layout],
                Normaliser.ARCHIVE_FIELDS: [root, records.get(_IDENTIFIER), ignored],
                Normaliser.BYTE_ORDER: records.get("byteorder", "absent"),
                Normaliser.VERSION: [records["version"], records.get(".format_version")],
                Normaliser.CONTAINER_TYPES: [content.types, types],
                Normaliser.UNREACHED_BYTES: self._unreached(ordered),
            }
        )

    def path_of(self, key: str) -> Path:
        """Return where a value is; the structure is of the whole."""
        return () if key == STRUCTURE else self._paths[key]

    def pieces(self, name: str, begin: int, end: int, step: int) -> Iterator[memoryview]:
        """Return the tensor's bytes. See :meth:`~provenance.weights.view.TensorFile.pieces`."""
        if name in self._arrays.tensors:
            return self._arrays.pieces(name, begin, end, step)
        stored = self._stored[name]
        read = self._straight if stored.view.contiguous else self._turned
        return read(stored, begin, end, step)

    def _straight(
        self, stored: StoredTensor, begin: int, end: int, step: int
    ) -> Iterator[memoryview]:
        member = self._storages[stored.storage.key]
        whole = (begin, end) == (0, member.size)
        place = member.start + stored.view.begin
        done, crc = begin, 0
        for chunk in self._source.chunks(place + begin, place + end, step):
            done += len(chunk)
            if whole:
                crc = zlib.crc32(chunk, crc)
            if done == stored.info.nbytes:
                self._check(stored.storage, crc if whole else None)
            yield little_endian(chunk, stored.info.dtype) if self._swapped else chunk
        if not stored.info.nbytes:
            self._check(stored.storage)

    def _turned(
        self, stored: StoredTensor, begin: int, end: int, step: int
    ) -> Iterator[memoryview]:
        view = stored.view
        check_turnable(view, where=f"{self._source.name}: {stored.info.name}")
        place = self._storages[stored.storage.key].start + view.begin
        span = memoryview(bytearray(view.span))
        self._source.read_into(place, span)
        if end == stored.info.nbytes:
            self._check(stored.storage)
        if self._swapped:
            span = little_endian(span, stored.info.dtype)
        yield from cut(gathered(view, span), begin, end, step)

    def _check(self, storage: Storage, crc: int | None = None) -> None:
        """Check the CRC-32 of *storage*, by a pass over it if *crc* is not given."""
        if storage.key in self._checked:
            return
        member = self._storages[storage.key]
        if crc is None:
            crc = 0
            for chunk in self._source.chunks(member.start, member.start + member.size, _READ):
                crc = zlib.crc32(chunk, crc)
        if crc != member.crc:
            raise MalformedError(
                "the CRC-32 is wrong",
                where=f"{self._source.name}: {member.name}",
                hint="save it with torch.serialization.set_crc32_options(True)",
            )
        self._checked.add(storage.key)

    def _unreached(self, ordered: Iterable[StoredTensor]) -> str:
        """Return the number and the digest of the bytes of storages that no tensor reaches."""
        views: dict[Storage, list[View]] = {}
        for stored in ordered:
            views.setdefault(stored.storage, []).append(stored.view)
        gaps = sum(view.nbytes for every in views.values() for view in {*every} if not view.dense)
        if gaps > 4 * self._source.size:  # each is marked: 100,000 could ask for hours
            what = "views with gaps overlap in more than four times the file"
            raise UnreadableError(what, where=self._source.name, hint=CONTIGUOUS)
        digest = hashlib.sha256()
        count = 0
        for storage, every in views.items():
            member, before = self._storages[storage.key], count

            def read(low: int, high: int, begin: int = member.start) -> Iterator[memoryview]:
                return self._source.chunks(begin + low, begin + high, _READ)

            where = f"{self._source.name}: {member.name}"
            for chunk in unreached(every, storage.nbytes, read, where=where):
                digest.update(chunk)
                count += len(chunk)
            if count > before:
                self._check(storage)
        return f"{count} {digest.hexdigest()}" if count else "none"


def begins_as_archive(source: Source) -> bool:
    """Tell whether *source* begins as a ZIP archive, refusing what torch wrote before 1.6."""
    head = source.read(0, min(source.size, 20))
    if LEGACY.match(head):
        raise UnreadableError(
            "written by torch before 1.6: a pickle that would have to be run to be read",
            where=source.name,
            hint="load it with torch.load(weights_only=True) and save it again",
        )
    return head.startswith(b"PK")


def archive_members(source: Source) -> tuple[str, dict[str, Member]]:
    """Return the archive's one folder, and the members by their names in it."""
    if not begins_as_archive(source) and source.size:
        raise UnreadableError("not a checkpoint of torch", where=source.name)
    every = members(source, miniz=True)
    root = every[0].name.split("/")[0] if every else ""
    found = {member.name.removeprefix(f"{root}/"): member for member in every}
    if any(name == member.name for name, member in found.items()):
        raise MalformedError("the members are not in one folder", where=source.name)
    if any(name == "constants.pkl" or name.startswith("code/") for name in found):
        what = "a TorchScript archive: a program with weights"
        raise UnreadableError(what, where=source.name, hint="save its state_dict()")
    if missing := [name for name in (PICKLE, "version") if name not in found]:
        raise MalformedError(f"the archive has no {missing[0]}", where=source.name)
    if any(member.method != STORED for member in every):
        raise MalformedError("a member is compressed", where=source.name)
    return root, found


def short_records(source: Source, found: Mapping[str, Member]) -> dict[str, str]:
    """Return the text of each short record."""
    texts = {
        name: read_member(source, found[name], _MAX_RECORD).decode("latin-1")
        for name in RECORDS
        if name in found
    }
    for name, text in texts.items():
        if not RECORDS[name].fullmatch(text):
            where = f"{source.name}: {found[name].name}"
            raise MalformedError("not what torch.save writes", where=where)
    return texts


def _storages(
    source: Source, found: Mapping[str, Member], tensors: Iterable[StoredTensor]
) -> dict[str, Member]:
    """Return the member of each storage, by key, checked: none is missing, none left over."""
    known: dict[str, Storage] = {}
    for stored in tensors:
        if known.setdefault(stored.storage.key, stored.storage) != stored.storage:
            key = stored.storage.key
            raise MalformedError(f"the storage {key} is described in two ways", where=source.name)
    taken = {f"data/{key}": storage for key, storage in known.items()}
    if unasked := found.keys() - taken.keys() - RECORDS.keys() - {PICKLE}:
        name = found[min(unasked)].name
        raise MalformedError(f"nothing asks for the member {name!r}", where=source.name)
    for name, storage in taken.items():
        if name not in found:
            raise MalformedError(f"the member {name!r} is missing", where=source.name)
        if found[name].size != storage.nbytes:
            what = f"has {found[name].size} bytes, its storage {storage.nbytes}"
            raise MalformedError(what, where=f"{source.name}: {found[name].name}")
    return {storage.key: found[name] for name, storage in taken.items()}


def _check_tensors(source: Source, tensors: tuple[StoredTensor, ...], *, swapped: bool) -> None:
    """Refuse tensors that share too much, or whose bytes torch does not swap.

    A little-endian machine swaps by the storage's type (``persistent_load``), which is a byte for
    types without a storage class.
    """
    if sum(t.info.nbytes for t in tensors) > MAX_SHARED * source.size:
        what = f"its tensors take more than {MAX_SHARED} times the file"
        raise UnreadableError(what, where=source.name, hint="save a clone() of every tensor")
    for stored in tensors:
        if swapped and stored.storage.kind == UNTYPED and stored.view.item > 1:
            raise UnreadableError(
                "big-endian, of a type that torch itself reads in the wrong order",
                where=f"{source.name}: {stored.info.name}",
                hint="save it on a little-endian machine",
            )


def _check_order(
    source: Source, references: tuple[Reference, ...], storages: Mapping[str, Member]
) -> None:
    """Check that the storages are in the order in which the pickle asks for them.

    With ``calculate_storage_offsets``, torch.load reads them by that order, not by name.
    """
    identifiers = (found.identifier for found in references)
    keys = dict.fromkeys(str(i[2]) for i in identifiers if isinstance(i, tuple) and len(i) > 2)  # noqa: PLR2004
    places = [storages[key].start for key in keys if key in storages]
    if places != sorted(places):
        raise MalformedError("the storages are in another order than asked for", where=source.name)


def _aliases(ordered: Iterable[StoredTensor]) -> tuple[tuple[str, ...], ...]:
    """Return the names of tensors that are one view of one storage."""
    groups: dict[object, list[str]] = {}
    for t in ordered:
        groups.setdefault((t.storage.key, t.info.dtype.name, t.view), []).append(t.info.name)
    return tuple(sorted(tuple(sorted(names)) for names in groups.values() if len(names) > 1))
