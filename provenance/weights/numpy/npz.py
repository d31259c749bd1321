"""npz: npy arrays in a ZIP archive, as ``numpy.savez`` and ``savez_compressed`` write it.

A tensor is named as its member without ``.npy``; a member of any other name is refused. The
archive is read by :mod:`~provenance.weights.zip_archive`, each array by
:mod:`~provenance.weights.numpy.npy`; their limits hold.

Two files with equal tensors and equal facts may still differ in how deflate spelled them at the
same length.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from provenance.errors import MalformedError
from provenance.weights.normalisers import Normaliser
from provenance.weights.numpy.npy import (
    MAX_HEADER,
    PREFIX_BYTES,
    NpyHeader,
    canonical_chunks,
    facts_of,
    parse_header,
)
from provenance.weights.source import SourceFile
from provenance.weights.view import part_of, stated
from provenance.weights.zip_archive import Member, MemberReader, members

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from provenance.weights.source import Source
    from provenance.weights.view import TensorInfo

_SUFFIX: Final = ".npy"


class NpzFile(SourceFile):
    """An open npz file. See :class:`~provenance.weights.view.TensorFile`."""

    format = "npz"
    direct = False  # a member's CRC-32 covers all of it

    def __init__(self, source: Source) -> None:
        """Read and check the directory of *source* and the header of every array.

        Raises:
            MalformedError: the file is not a strict archive of plain arrays.
            UnreadableError: the file cannot be read.
        """
        super().__init__(source)
        self._arrays: dict[str, tuple[Member, NpyHeader]] = {}
        found = members(source)
        taken = {member.name for member in found}
        for member in found:
            if not member.name.endswith(_SUFFIX) or member.name == _SUFFIX:
                raise MalformedError(f"the member {member.name!r} is not *.npy", where=source.name)
            name = member.name.removesuffix(_SUFFIX)
            if name in taken:  # numpy finds an array by its member's name too, and first
                raise MalformedError(f"two arrays answer to the name {name!r}", where=source.name)
            self._arrays[name] = member, self._header(member, name)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: header.info for name, (_, header) in self._arrays.items()}
        )
        self.metadata: Mapping[str, str] = MappingProxyType({})
        by_name = [self._arrays[name] for name in sorted(self._arrays)]
        self.container = stated(
            facts_of(header for _, header in by_name)
            | {
                Normaliser.ORDER: list(self._arrays),
                Normaliser.COMPRESSION: [(m.method, m.compressed) for m, _ in by_name],
                Normaliser.ARCHIVE_FIELDS: [m.fields for m, _ in by_name],
            }
        )

    def _header(self, member: Member, name: str) -> NpyHeader:
        data = bytearray(min(member.size, PREFIX_BYTES + MAX_HEADER))
        MemberReader(self._source, member).fill(memoryview(data))
        where = f"{self._source.name}: {name}"
        header = parse_header(bytes(data), name, where=where)
        if header.start + header.info.nbytes != member.size:
            raise MalformedError(
                f"the array takes {header.info.nbytes} bytes, "
                f"the member has {member.size - header.start}",
                where=where,
            )
        return header

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        """Yield the tensor's bytes. See :meth:`~provenance.weights.view.TensorFile.chunks`."""
        member, header = self._arrays[name]
        part = part_of(header.info, start, stop)
        reader = MemberReader(self._source, member)
        reader.fill(memoryview(bytearray(header.start)))
        return canonical_chunks(
            reader,
            header,
            header.info.dtype.nbytes(elements),
            part,
            where=f"{self._source.name}: {name}",
        )
