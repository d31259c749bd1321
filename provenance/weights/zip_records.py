"""The records of a ZIP archive, as they stand in the file: PKWARE APPNOTE 6.3.10, section 4.3."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple


class Central(NamedTuple):
    """A record of the central directory (section 4.3.12)."""

    signature: bytes
    made_by: int
    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    compressed: int
    size: int
    name_length: int
    extra_length: int
    comment_length: int
    disk: int
    internal: int
    external: int
    offset: int


class Local(NamedTuple):
    """A local header (section 4.3.7)."""

    signature: bytes
    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    compressed: int
    size: int
    name_length: int
    extra_length: int


CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
LOCAL: Final = struct.Struct("<4s5H3I2H")
EXTRA: Final = struct.Struct("<HH")
END: Final = struct.Struct("<4s4H2IH")
END64: Final = struct.Struct("<4sQ2H2I4Q")
LOCATOR: Final = struct.Struct("<4sIQI")
LOCATOR_MARK: Final = b"PK\6\7"
