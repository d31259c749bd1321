"""libhdf5 on one file, in a process of its own: describes its datasets, then reads their numbers.

Malformed files crash libhdf5 (its list of CVEs is long). This script imports nothing of ours; its
arguments are a descriptor, and where in it the file begins and how long it is. The first answer is
the description, in JSON (:data:`~provenance.weights.hdf5.reader.Description`). A request then is
the index of a dataset, its first row and the number of rows (three 64-bit integers); the answer is
their bytes as stored, but decompressed. What is refused stands in the reader's documentation.
"""
# ruff: noqa: ANN401 - h5py has no types

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_OBJECTS = 100_000
"""Most groups and datasets."""

MAX_CHUNKS = 250_000
"""Most chunks of all datasets, those without storage counted too."""

MAX_CHUNK = 2**28
"""Largest chunk, in bytes."""

MAX_ATTRIBUTES = 2**26
"""Most bytes of attributes, as text."""

STEP = 2**20
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3  # numbers of filters in the format
TYPES = [
    (h5t.py_create(np.dtype(order + code), logical=True), name, order == ">")
    for code, name in (
        ("f4", "F32"), ("f2", "F16"), ("f8", "F64"), ("i1", "I8"), ("u1", "U8"), ("i2", "I16"),
        ("u2", "U16"), ("i4", "I32"), ("u4", "U32"), ("i8", "I64"), ("u8", "U64"),
        ("?", "BOOL"), ("c8", "C64"), ("c16", "C128"),
    )
    for order in "<>"
]  # fmt: skip
"""Element types as h5py writes them, their names, and whether they are big-endian."""

for half, is_big in ((h5t.IEEE_F16LE.copy(), False), (h5t.IEEE_F16BE.copy(), True)):
    half.set_fields(15, 7, 8, 0, 7)
    half.set_ebias(127)
    TYPES.append((half, "BF16", is_big))

OTHER = {h5t.REFERENCE: "a reference", h5t.COMPOUND: "a structure", h5t.STRING: "text"}
"""What is said of some other types, by their class."""


class RefusedError(Exception):
    """The file holds what is not read: where, and what; and more if it is not malformed."""


class _Window:
    """A part of an open file, read by position: its descriptor's own position is never moved."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor, self._start, self.size, self._position = descriptor, start, size, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (self.size if whence == os.SEEK_END else 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        """Return *size* bytes, fewer at the end."""
        size = max(min(size, self.size - self._position), 0)
        data = os.pread(self._descriptor, size, self._start + self._position) if size else b""
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill *buffer*, with zeros beyond the end."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            data = self.read(min(len(view) - done, STEP)) or bytes(len(view) - done)
            view[done : done + len(data)] = data
            done += len(data)
        return len(view)


class Probe:
    """One walk over a file."""

    def __init__(self, size: int) -> None:
        """Begin with nothing; the file has *size* bytes."""
        self._size = size
        self._chunks_left = MAX_CHUNKS
        self._text = 0
        self.compressed = hashlib.sha256()
        """Digest of all chunks to which a filter was applied."""
        self.places: list[tuple[int, int]] = []
        """Where numbers are: first byte and length."""
        self.groups: list[str] = []
        self.datasets: list[dict[str, Any]] = []
        self.attributes: dict[str, str] = {}

    def walk(self, root: Any) -> None:
        """Describe everything below the group *root*."""
        pending = [("", root)]
        seen: dict[int, dict[str, Any]] = {h5o.get_info(root).addr: {}}  # {}: a group
        names = 0
        while pending:
            path, group = pending.pop()
            self._attributes(path or "/", group)
            for raw in sorted(group):
                name = f"{path}/{raw.decode('utf-8')}" if path else raw.decode("utf-8")
                names += 1
                if names > MAX_OBJECTS:
                    raise RefusedError(name, f"more than {MAX_OBJECTS} objects")
                if group.links.get_info(raw).type != h5l.TYPE_HARD:
                    raise RefusedError(name, "a soft or external link")
                thing = h5o.open(group, raw)
                address = h5o.get_info(thing).addr
                if isinstance(thing, h5g.GroupID):
                    if address in seen:
                        raise RefusedError(name, "a second link to a group")
                    seen[address] = {}
                    self.groups.append(name)
                    pending.append((name, thing))
                elif not isinstance(thing, h5d.DatasetID):
                    raise RefusedError(name, "a named type")
                elif thing.get_type().get_class() == h5t.STRING:
                    self._attributes(name, thing)
                    self._texts(name, thing)
                elif address in seen:
                    seen[address]["names"].append(name)
                else:
                    self._attributes(name, thing)
                    seen[address] = {"names": [name], **self._dataset(name, thing)}
                    self.datasets.append(seen[address])

    def _attributes(self, path: str, thing: Any) -> None:
        names: list[bytes] = []
        h5a.iterate(thing, names.append)
        for raw in names:
            name = raw.decode("utf-8")
            if "@" in name:  # of `a@b@c` nobody could tell what is the attribute
                raise RefusedError(path, f"the attribute {name!r} has an @ in its name")
            attribute = h5a.open(thing, raw)
            self._attribute(f"{path}@{name}", attribute, attribute.read)

    def _texts(self, path: str, dataset: Any) -> None:
        """Keep a dataset of texts, which must lie in this file in one piece, as attributes are."""
        plist = dataset.get_create_plist()
        missing = math.prod(dataset.shape) and not dataset.get_storage_size()
        in_pieces = plist.get_layout() not in (h5d.CONTIGUOUS, h5d.COMPACT)
        if in_pieces or missing or plist.get_external_count():
            raise RefusedError(path, "texts in chunks, or not in the file")
        if "@" in path or path == "groups":
            raise RefusedError(path, "texts under the name of something else")
        self._attribute(path, dataset, partial(dataset.read, h5s.ALL, h5s.ALL))

    def _attribute(self, path: str, attribute: Any, read: Any) -> None:
        text = self._spelled(path, attribute, read)
        self._text += len(text)
        if self._text > MAX_ATTRIBUTES:
            raise RefusedError(path, f"more than {MAX_ATTRIBUTES} bytes of attributes")
        self.attributes[path] = text

    def _spelled(self, path: str, attribute: Any, read: Any) -> str:
        kind = attribute.get_type()
        if attribute.get_space().get_simple_extent_type() == h5s.NULL:
            return "nothing"
        filled = math.prod(attribute.shape) > 0  # of none, libhdf5 cannot tell the size
        if filled and attribute.get_storage_size() > MAX_ATTRIBUTES:
            raise RefusedError(path, f"more than {MAX_ATTRIBUTES} bytes of attributes")
        name = "" if kind.get_class() == h5t.STRING else element_type(path, kind)[0]
        value = np.empty(attribute.shape, attribute.dtype)
        if filled:
            read(value)
        if not name:
            # Readers give text of variable length as text, and other text as bytes.
            word = "text" if kind.is_variable_str() else "bytes"
            if not filled:  # of the shape (10^9, 0), a list would have a billion lists
                return f"{word} of shape {list(value.shape)}"
            return f"{word} {json.dumps(decoded(value.tolist()), ensure_ascii=False)}"
        little = value.astype(value.dtype.newbyteorder("<"))
        return f"{name} {list(value.shape)} {little.tobytes().hex()}"

    def _dataset(self, path: str, dataset: Any) -> dict[str, Any]:
        kind, plist = dataset.get_type(), dataset.get_create_plist()
        shape, item = dataset.shape, kind.get_size()
        if kind.get_class() == h5t.OPAQUE and not kind.get_tag():
            # Keras writes bfloat16 so; in its own formats it says so in an attribute.
            known = item == 2 and self.attributes.get(f"{path}@dtype") == 'text "bfloat16"'  # noqa: PLR2004
            name, big = "BF16" if known else "RAW", False
            shape, item = (shape, item) if known else ((*shape, item), 1)
        else:
            name, big = element_type(path, kind)
        if dataset.get_space().get_simple_extent_type() == h5s.NULL:
            raise RefusedError(path, "a dataset without a shape")
        if plist.get_external_count():
            raise RefusedError(path, "numbers in another file")
        elements = math.prod(dataset.shape)
        found = {"dtype": name, "big": big, "shape": shape, "itemsize": item}
        missing = 0
        layout = plist.get_layout()
        if layout == h5d.CONTIGUOUS:
            place, size = dataset.get_offset(), dataset.get_storage_size()
            if place is None or not size:
                missing = elements
            else:
                self._place(path, place, size)
                found |= {"first": place, "size": size}
        elif layout == h5d.CHUNKED:
            before = len(self.places)
            missing = self._chunks(path, dataset, plist)
            found["first"] = min((place for place, _ in self.places[before:]), default=-1)
            found["rows"] = plist.get_chunk()[0]
        elif layout != h5d.COMPACT:
            raise RefusedError(path, "a virtual dataset, which is made of others")
        if missing and (
            plist.get_fill_time() == h5d.FILL_TIME_NEVER
            or plist.fill_value_defined() == h5d.FILL_VALUE_UNDEFINED
        ):  # whatever memory held would be read
            raise RefusedError(path, "numbers that are not in the file, without a fill value")
        return found | {"missing": missing * kind.get_size()}

    def _place(self, path: str, place: int, size: int) -> None:
        if place + size > self._size:
            raise RefusedError(path, "numbers beyond the end of the file")
        self.places.append((place, size))

    def _chunks(self, path: str, dataset: Any, plist: Any) -> int:
        """Check the chunks of *dataset*; return how many elements are in none, at most."""
        filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
        if other := set(filters) - {DEFLATE, SHUFFLE, FLETCHER32}:
            raise RefusedError(path, f"the filter {min(other)}, which is not read")
        shape, chunk = dataset.shape, plist.get_chunk()
        size = math.prod(chunk) * dataset.get_type().get_size()
        if size > MAX_CHUNK:
            raise RefusedError(path, f"needs more than {MAX_CHUNK} bytes at once", "unreadable")
        lattice = [range(0, most, side) for side, most in zip(chunk, shape, strict=True)]
        grid = math.prod(map(len, lattice))
        self._chunks_left -= grid
        if self._chunks_left < 0:
            raise RefusedError(path, f"more than {MAX_CHUNKS} chunks in the file")
        found: list[Any] = []
        dataset.chunk_iter(lambda info: found.append(info) if len(found) <= grid else None)
        corners = {info.chunk_offset for info in found}
        inside = all(at in axis for c in corners for at, axis in zip(c, lattice, strict=True))
        if len(found) > len(corners) or not inside:
            raise RefusedError(path, "a duplicate chunk, or one outside the dataset")
        for info in sorted(found, key=attrgetter("chunk_offset")):
            applied = [n for at, n in enumerate(filters) if not info.filter_mask >> at & 1]
            large = info.size > MAX_CHUNK + 4  # a checksum
            if info.byte_offset is None or large or (not applied and info.size != size):
                raise RefusedError(path, "a chunk of another size")
            self._place(path, info.byte_offset, info.size)
            raw = _searched(path, dataset, info)
            if applied:
                self.compressed.update(raw)
                if len(raw) == size:
                    _check_edge(path, dataset, (info.chunk_offset, chunk, applied), raw)
        return 0 if len(found) == grid else math.prod(shape)

    def described(self, window: _Window) -> list[Any]:
        """Return the description of the file, in whose structure no numbers overlap."""
        structure = hashlib.sha256()
        end = 0
        for place, size in [*sorted(self.places), (window.size, 0)]:
            if place < end:
                raise RefusedError("", "the numbers of two datasets overlap")
            window.seek(end)
            for start in range(end, place, STEP):
                structure.update(window.read(min(STEP, place - start)))
            end = place + size
        digests = structure.hexdigest(), self.compressed.hexdigest()
        return [self.groups, self.datasets, self.attributes, *digests]


def _searched(path: str, dataset: Any, info: Any) -> bytes:
    """Return the bytes of a chunk, which a search of the index must find.

    Iterating over an index also yields chunks that a search does not find.
    """
    try:
        mask, raw = dataset.read_direct_chunk(info.chunk_offset)
    except (OSError, RuntimeError):
        mask, raw = 0, b""
    if (mask, len(raw)) != (info.filter_mask, info.size):
        raise RefusedError(path, "a chunk that its index does not lead to")
    return bytes(raw)


def _check_edge(path: str, dataset: Any, edge: Any, raw: bytes) -> None:
    """Refuse the chunk *raw* if libhdf5 does not apply the filters that its index names.

    A file can ask for that at its edge (``H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS``). Other readers
    apply them, and may read other numbers.
    """
    corner, chunk, applied = edge
    inside = tuple(map(min, chunk, np.subtract(dataset.shape, corner).tolist()))
    if inside == chunk:
        return
    read = rows_of(dataset, corner, inside)

    def spelled(data: bytes) -> bool:
        whole = np.frombuffer(data, read.dtype).reshape(chunk)
        return bool(whole[tuple(map(slice, inside))].tobytes() == read.tobytes())

    planes = np.frombuffer(raw, np.uint8).reshape(read.dtype.itemsize, -1)
    shuffled = applied == [SHUFFLE] and spelled(planes.T.tobytes())
    if spelled(raw) and not shuffled:
        raise RefusedError(path, "a chunk at the edge that has two readings")


def element_type(path: str, kind: Any) -> tuple[str, bool]:
    """Return the name of an element type, and whether it is big-endian."""
    for known, name, big in TYPES:
        if kind.equal(known):
            return name, big
    raise RefusedError(path, f"{OTHER.get(kind.get_class(), 'an element type')} that is not read")


def decoded(value: Any) -> Any:
    """Return *value* with its bytes, also in lists, as text."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def rows_of(dataset: Any, begin: tuple[int, ...], count: tuple[int, ...]) -> Any:
    """Return the elements of *dataset* from *begin* on, *count* of them, as bytes are stored."""
    kind, space = dataset.get_type(), dataset.get_space()
    value = np.zeros(count, f"V{kind.get_size()}")
    if begin:
        space.select_hyperslab(begin, count)
    if value.size:
        dataset.read(h5s.create_simple(count) if begin else h5s.ALL, space, value, kind)
    return value


def main(arguments: list[str]) -> Iterator[list[Any]]:
    """Describe the file, then answer requests for rows."""
    window = _Window(*map(int, arguments))
    with h5py.File(window, "r", driver="fileobj") as file:
        probe = Probe(window.size)
        probe.walk(h5g.open(file.id, b"/"))
        asked: Any = yield [json.dumps(probe.described(window)).encode()]
        last, dataset = -1, file.id
        while True:
            index, first, count = struct.unpack("<3Q", asked)
            if index != last:
                name = probe.datasets[index]["names"][0]
                last, dataset = index, h5o.open(file.id, name.encode())
            begin = (first, *(0 for _ in dataset.shape[1:])) if dataset.shape else ()
            value = rows_of(dataset, begin, (count, *dataset.shape[1:]) if begin else ())
            asked = yield [value.view(np.uint8) if value.shape else value.tobytes()]
