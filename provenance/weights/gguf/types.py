"""ggml's element types: their numbers in GGUF, and what the blocks of the quantised ones hold.

Source: ``enum ggml_type`` of ggml.h, and the ``block_*`` structures of ggml-common.h with their
static assertions of size. A quantised type stores blocks of elements that share scales; a row of a
tensor is whole blocks. The fields of a block, in the order of its bytes, under one word for all
types: ``scales`` and ``mins`` of a block or of its sub-blocks, ``super-scales`` and ``super-mins``
that multiply these, ``codes`` (the elements, or their low bits), ``high-bits``, ``signs``, and
``sums`` of codes. A field that packs several of these is named for the first.

Numbers that ggml gave up (4, 5, 31 to 33, 36 to 38) have no type. Those of forks are not read: one
number has several meanings there. The Python package ``gguf`` 0.19 gives Q8_1 the size that it had
before 2024 (40 bytes); ggml's own is 36.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Block(NamedTuple):
    """A block of a quantised type; *fields* gives the size of each in bytes, in order."""

    number: int
    name: str
    elements: int
    fields: Mapping[str, int]


BLOCKS: Final = (
    Block(2, "Q4_0", 32, {"scales": 2, "codes": 16}),
    Block(3, "Q4_1", 32, {"scales": 2, "mins": 2, "codes": 16}),
    Block(6, "Q5_0", 32, {"scales": 2, "high-bits": 4, "codes": 16}),
    Block(7, "Q5_1", 32, {"scales": 2, "mins": 2, "high-bits": 4, "codes": 16}),
    Block(8, "Q8_0", 32, {"scales": 2, "codes": 32}),
    Block(9, "Q8_1", 32, {"scales": 2, "sums": 2, "codes": 32}),
    Block(10, "Q2_K", 256, {"scales": 16, "codes": 64, "super-scales": 2, "super-mins": 2}),
    Block(11, "Q3_K", 256, {"high-bits": 32, "codes": 64, "scales": 12, "super-scales": 2}),
    Block(12, "Q4_K", 256, {"super-scales": 2, "super-mins": 2, "scales": 12, "codes": 128}),
    Block(13, "Q5_K", 256, {"super-scales": 2, "super-mins": 2, "scales": 12, "high-bits": 32}
          | {"codes": 128}),
    Block(14, "Q6_K", 256, {"codes": 128, "high-bits": 64, "scales": 16, "super-scales": 2}),
    Block(15, "Q8_K", 256, {"scales": 4, "codes": 256, "sums": 32}),
    Block(16, "IQ2_XXS", 256, {"super-scales": 2, "codes": 64}),
    Block(17, "IQ2_XS", 256, {"super-scales": 2, "codes": 64, "scales": 8}),
    Block(18, "IQ3_XXS", 256, {"super-scales": 2, "codes": 64, "scales": 32}),
    Block(19, "IQ1_S", 256, {"super-scales": 2, "codes": 32, "high-bits": 16}),
    Block(20, "IQ4_NL", 32, {"scales": 2, "codes": 16}),
    Block(21, "IQ3_S", 256, {"super-scales": 2, "codes": 64, "high-bits": 8, "signs": 32}
          | {"scales": 4}),
    Block(22, "IQ2_S", 256, {"super-scales": 2, "codes": 32, "signs": 32, "high-bits": 8}
          | {"scales": 8}),
    Block(23, "IQ4_XS", 256, {"super-scales": 2, "scales": 6, "codes": 128}),
    Block(29, "IQ1_M", 256, {"codes": 32, "high-bits": 16, "scales": 8}),
    Block(34, "TQ1_0", 256, {"codes": 48, "high-bits": 4, "scales": 2}),
    Block(35, "TQ2_0", 256, {"codes": 64, "scales": 2}),
    Block(39, "MXFP4", 32, {"scales": 1, "codes": 16}),
    Block(40, "NVFP4", 64, {"scales": 4, "codes": 32}),
    Block(41, "Q1_0", 128, {"scales": 2, "codes": 16}),
    Block(42, "Q2_0", 64, {"scales": 2, "codes": 16}),
)  # fmt: skip
"""Every quantised type."""

GGML_TYPES: Final[Mapping[int, str]] = {
    0: "F32",
    1: "F16",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    30: "BF16",
} | {block.number: block.name for block in BLOCKS}
"""The name of each type by its number in a file."""
