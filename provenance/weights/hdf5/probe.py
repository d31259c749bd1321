"""Where the numbers of an HDF5 file are: a program of its own around libhdf5.

Malformed files crash libhdf5 (its list of CVEs is long), so it runs in a child process that only
describes the file: it writes one line of JSON, which holds the place of every byte of every
dataset. What a chunk holds can be told in more ways than one (an index out of order, an edge that
filters are spared): of each place of a grid it also writes the SHA-256 of what libhdf5 reads there.
See :mod:`~provenance.weights.hdf5.reader` for what is refused. It imports nothing of ours;
arguments are a descriptor, and where in it the file begins and how long it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import sys
from typing import Any

MAX_OBJECTS = 100_000
"""Most groups and datasets."""

MAX_CHUNKS = 250_000
"""Most chunks of all datasets, those without storage counted too."""

MAX_READ = 2**28
"""Largest chunk that is read, and most bytes without storage: the caller refuses more."""

MAX_ATTRIBUTES = 2**26
"""Most bytes of attributes, as text."""

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3  # numbers of filters in the format
FLOATS = (("F16", "IEEE_F16"), ("F32", "IEEE_F32"), ("F64", "IEEE_F64"))
BFLOAT16 = ((15, 7, 8, 0, 7), 127)
"""Places of sign, exponent (with its width) and fraction (with its width), and the bias."""


class RefusedError(Exception):
    """The file holds what is not read: where, and what."""


class Window(io.RawIOBase):
    """A part of an open file, read by position: its descriptor's own position is never moved."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        """Stand at the beginning of the part."""
        super().__init__()
        self._descriptor, self._start, self._size, self._position = descriptor, start, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to *offset*."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        """Fill *buffer*, with zeros beyond the end."""
        view = memoryview(buffer).cast("B")
        room = max(min(len(view), self._size - self._position), 0)
        done = 0
        while done < room:
            place = self._start + self._position + done
            count = os.preadv(self._descriptor, [view[done:room]], place)
            if not count:
                break
            done += count
        self._position += len(view)
        view[done:] = bytes(len(view) - done)
        return len(view)


class Probe:
    """One walk over a file."""

    def __init__(self, h5: Any, start: int) -> None:  # noqa: ANN401 - h5py has no types
        """Describe with the package *h5*; places in the file begin at *start*."""
        self._h5 = h5
        self._start = start
        self._left = MAX_CHUNKS
        self._text = 0
        self.groups: list[str] = []
        self.datasets: dict[str, dict[str, Any]] = {}
        self.attributes: dict[str, str] = {}
        self.aliases: dict[int, list[str]] = {}

    def walk(self, root: Any) -> None:  # noqa: ANN401
        """Describe everything below the group *root*."""
        h5 = self._h5
        pending = [("", root)]
        groups = {h5.h5o.get_info(root).addr}
        while pending:
            path, group = pending.pop()
            self._attributes(path or "/", group)
            for raw in sorted(group):
                name = f"{path}/{raw.decode('utf-8')}" if path else raw.decode("utf-8")
                if len(self.groups) + len(self.datasets) >= MAX_OBJECTS:
                    raise RefusedError(name, f"more than {MAX_OBJECTS} objects")
                kind = group.links.get_info(raw).type
                if kind != h5.h5l.TYPE_HARD:
                    raise RefusedError(name, "a soft or external link")
                thing = h5.h5o.open(group, raw)
                address = h5.h5o.get_info(thing).addr
                if isinstance(thing, h5.h5g.GroupID):
                    if address in groups:
                        raise RefusedError(name, "a second link to a group")
                    groups.add(address)
                    self.groups.append(name)
                    pending.append((name, thing))
                elif isinstance(thing, h5.h5d.DatasetID):
                    names = self.aliases.setdefault(address, [])
                    if not names:
                        self._attributes(name, thing)
                        self.datasets[name] = self._dataset(name, thing)
                    names.append(name)
                else:
                    raise RefusedError(name, "a named type")

    # --- Attributes -------------------------------------------------------------------------------

    def _attributes(self, path: str, thing: Any) -> None:  # noqa: ANN401
        names: list[bytes] = []
        self._h5.h5a.iterate(thing, names.append)
        for raw in names:
            name = raw.decode("utf-8")
            if "@" in name:  # of `a@b@c` nobody could tell what is the attribute
                raise RefusedError(path, f"the attribute {name!r} has an @ in its name")
            text = self._attribute(f"{path}@{name}", self._h5.h5a.open(thing, raw))
            self._text += len(text)
            if self._text > MAX_ATTRIBUTES:
                raise RefusedError(path, f"more than {MAX_ATTRIBUTES} bytes of attributes")
            self.attributes[f"{path}@{name}"] = text

    def _attribute(self, path: str, attribute: Any) -> str:  # noqa: ANN401
        import numpy as np  # noqa: PLC0415 - slow, and may be missing

        h5 = self._h5
        kind, space = attribute.get_type(), attribute.get_space()
        if space.get_simple_extent_type() == h5.h5s.NULL:
            return "nothing"
        if attribute.get_storage_size() > MAX_ATTRIBUTES:
            raise RefusedError(path, f"more than {MAX_ATTRIBUTES} bytes of attributes")
        if kind.get_class() == h5.h5t.STRING:
            value = np.empty(attribute.shape, attribute.dtype)
            attribute.read(value)
            # Readers give text of variable length as text, and other text as bytes.
            word = "text" if kind.is_variable_str() else "bytes"
            return f"{word} {json.dumps(decoded(value.tolist()), ensure_ascii=False)}"
        name, _ = self._type(path, kind)
        value = np.empty(attribute.shape, attribute.dtype)
        attribute.read(value)
        little = value.astype(value.dtype.newbyteorder("<"))
        return f"{name} {list(value.shape)} {little.tobytes().hex()}"

    # --- Types ------------------------------------------------------------------------------------

    def _type(self, path: str, kind: Any) -> tuple[str, bool]:  # noqa: ANN401
        """Return the element type, and whether it is big-endian."""
        h5t = self._h5.h5t
        size, group = kind.get_size(), kind.get_class()
        if group == h5t.INTEGER and size in (1, 2, 4, 8):
            if kind.get_precision() == 8 * size and kind.get_offset() == 0:
                sign = "U" if kind.get_sign() == h5t.SGN_NONE else "I"
                return f"{sign}{8 * size}", size > 1 and kind.get_order() == h5t.ORDER_BE
        elif group == h5t.FLOAT:
            return self._float(path, kind)
        elif group == h5t.ENUM and size == 1:
            members = {
                kind.get_member_name(i): kind.get_member_value(i)
                for i in range(kind.get_nmembers())
            }
            if members == {b"FALSE": 0, b"TRUE": 1}:
                return "BOOL", False
        elif group == h5t.COMPOUND and kind.get_nmembers() == 2:  # noqa: PLR2004 - real, imaginary
            parts = [kind.get_member_type(i) for i in (0, 1)]
            names = [kind.get_member_name(i) for i in (0, 1)]
            offsets = [kind.get_member_offset(i) for i in (0, 1)]
            if names == [b"r", b"i"] and offsets == [0, size // 2] and parts[0].equal(parts[1]):
                name, big = self._type(path, parts[0])
                if name in ("F32", "F64") and size == 2 * parts[0].get_size():
                    return {"F32": "C64", "F64": "C128"}[name], big
        raise RefusedError(path, "an element type that is no plain number")

    def _float(self, path: str, kind: Any) -> tuple[str, bool]:  # noqa: ANN401
        h5t = self._h5.h5t
        for name, predefined in FLOATS:
            for order in ("LE", "BE"):
                if kind.equal(getattr(h5t, f"{predefined}{order}")):
                    return name, order == "BE"
        fields = (tuple(kind.get_fields()), kind.get_ebias())
        if kind.get_size() == 2 and fields == BFLOAT16:  # noqa: PLR2004 - bytes
            return "BF16", kind.get_order() == h5t.ORDER_BE
        raise RefusedError(path, "a float of an unusual format")

    # --- Datasets ---------------------------------------------------------------------------------

    def _dataset(self, path: str, dataset: Any) -> dict[str, Any]:  # noqa: ANN401
        h5 = self._h5
        kind, plist = dataset.get_type(), dataset.get_create_plist()
        if kind.get_class() == h5.h5t.OPAQUE and kind.get_size() == 2:  # noqa: PLR2004 - bytes
            # Keras writes bfloat16 so, and says so in an attribute.
            if self.attributes.get(f"{path}@dtype") != 'text "bfloat16"':
                raise RefusedError(path, "an element type that is no plain number")
            name, big = "BF16", False
        else:
            name, big = self._type(path, kind)
        if dataset.get_space().get_simple_extent_type() == h5.h5s.NULL:
            raise RefusedError(path, "a dataset without a shape")
        if plist.get_external_count():
            raise RefusedError(path, "numbers in another file")
        found = {
            "dtype": name,
            "big": big,
            "shape": list(dataset.shape),
            "itemsize": kind.get_size(),
        }
        layout = plist.get_layout()
        if layout == h5.h5d.CONTIGUOUS:
            offset = dataset.get_offset()
            size = dataset.get_storage_size()
            found["place"] = None if offset is None or not size else [self._start + offset, size]
        elif layout == h5.h5d.CHUNKED:
            found |= self._chunks(path, dataset, plist)
        elif layout == h5.h5d.COMPACT:
            found["data"] = self._compact(dataset)
        else:
            raise RefusedError(path, "a virtual dataset, which is made of others")
        if found.get("place", 0) is None or "chunks" in found:
            found["fill"] = self._fill(dataset, plist)
        whole = layout != h5.h5d.CHUNKED or len(found["chunks"]) == len(found["sha256"])
        stored = found.get("place", 0) is not None and whole
        if not stored and 0 not in dataset.shape:
            self._check_fill(path, plist)
        return found

    def _chunks(self, path: str, dataset: Any, plist: Any) -> dict[str, Any]:  # noqa: ANN401
        filters = []
        for index in range(plist.get_nfilters()):
            number, _, values, _ = plist.get_filter(index)
            if number not in (DEFLATE, SHUFFLE, FLETCHER32):
                raise RefusedError(path, f"the filter {number}, which is not read")
            filters.append([number, values[0] if number == SHUFFLE else 0])
        shape, chunk = dataset.shape, plist.get_chunk()
        grid = [-(-size // side) for size, side in zip(shape, chunk, strict=True)]
        self._left -= math.prod(grid)
        if self._left < 0:
            raise RefusedError(path, f"more than {MAX_CHUNKS} chunks in the file")
        found: list[list[int]] = []

        def add(info: Any) -> None:  # noqa: ANN401
            if len(found) > MAX_CHUNKS:
                return
            index = 0
            for at, side, most in zip(info.chunk_offset, chunk, grid, strict=True):
                if at % side or at // side >= most:
                    index = -1
                    break
                index = index * most + at // side
            place = -1 if info.byte_offset is None else self._start + info.byte_offset
            found.append([index, place, info.size, info.filter_mask])

        dataset.chunk_iter(add)
        item = dataset.get_type().get_size()
        absent = 0 if len(found) == math.prod(grid) else math.prod(shape) * item
        read = max(absent, math.prod(chunk) * item) <= MAX_READ
        digests = self._digests(dataset, chunk, grid) if read else []
        return {"chunk": list(chunk), "filters": filters, "chunks": found, "sha256": digests}

    def _digests(self, dataset: Any, chunk: Any, grid: list[int]) -> list[str]:  # noqa: ANN401
        """Return the SHA-256 of what libhdf5 reads in each place of *grid*, as it is stored."""
        import numpy as np  # noqa: PLC0415 - slow, and may be missing

        kind, space = dataset.get_type(), dataset.get_space()
        digests = []
        for corner in np.ndindex(*grid):
            begin = tuple(at * side for at, side in zip(corner, chunk, strict=True))
            count = tuple(
                min(side, size - at)
                for side, size, at in zip(chunk, dataset.shape, begin, strict=True)
            )
            space.select_hyperslab(begin, count)
            value = np.zeros(count, f"V{kind.get_size()}")
            try:
                dataset.read(self._h5.h5s.create_simple(count), space, value, kind)
            except OSError:  # a filter fails; the caller says which when it reads
                digests.append("")
            else:
                digests.append(hashlib.sha256(value.tobytes()).hexdigest())
        return digests

    def _check_fill(self, path: str, plist: Any) -> None:  # noqa: ANN401
        """Refuse numbers that are neither in the file nor given: whatever memory held is read."""
        h5d = self._h5.h5d
        if (
            plist.get_fill_time() == h5d.FILL_TIME_NEVER
            or plist.fill_value_defined() == h5d.FILL_VALUE_UNDEFINED
        ):
            raise RefusedError(path, "numbers that are not in the file, without a fill value")

    def _compact(self, dataset: Any) -> str:  # noqa: ANN401
        import numpy as np  # noqa: PLC0415 - slow, and may be missing

        value = np.empty(dataset.shape, dataset.dtype)
        dataset.read(self._h5.h5s.ALL, self._h5.h5s.ALL, value, dataset.get_type())
        return value.tobytes().hex()

    def _fill(self, dataset: Any, plist: Any) -> str:  # noqa: ANN401
        import numpy as np  # noqa: PLC0415 - slow, and may be missing

        value = np.zeros((), dataset.dtype)
        if plist.fill_value_defined() == self._h5.h5d.FILL_VALUE_USER_DEFINED:
            plist.get_fill_value(value)
        return value.tobytes().hex()


def decoded(value: Any) -> Any:  # noqa: ANN401
    """Return *value* with its bytes, also in lists, as text."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def describe(descriptor: int, start: int, size: int) -> dict[str, Any]:
    """Return what the file in *descriptor*, from *start* on, of *size* bytes, holds."""
    import h5py  # noqa: PLC0415 - slow, and may be missing

    with h5py.File(Window(descriptor, start, size), "r", driver="fileobj") as file:
        probe = Probe(h5py, start)
        probe.walk(h5py.h5g.open(file.id, b"/"))
    return {
        "groups": probe.groups,
        "datasets": probe.datasets,
        "attributes": probe.attributes,
        "aliases": [names for names in probe.aliases.values() if len(names) > 1],
    }


def main(arguments: list[str]) -> None:
    """Describe a file on the standard output."""
    descriptor, start, size = map(int, arguments)
    try:
        answer = describe(descriptor, start, size)
    except RefusedError as error:
        answer = {"refused": error.args}
    except ImportError:
        answer = {"missing": "h5py"}
    except MemoryError:
        answer = {"refused": ["", "takes too much memory to read"]}
    except Exception as error:  # noqa: BLE001 - whatever libhdf5 says is about the file
        answer = {"refused": ["", f"is not HDF5 that can be read: {error}"]}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
