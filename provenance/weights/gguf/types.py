"""ggml's element types: their numbers in GGUF, and what the blocks of the quantised ones hold.

Source: ``enum ggml_type`` of ggml.h, and the ``block_*`` structures of ggml-common.h with their
static assertions of size. A quantised type stores blocks of elements that share scales; a row of a
tensor is whole blocks. The fields of a block, in the order of its bytes, under one word for all
types:

- ``scales`` and ``mins``: of a block, or of its sub-blocks where these have their own;
- ``super-scales`` and ``super-mins``: what the scales and mins of sub-blocks are multiplied by;
- ``codes``: the elements, or their low bits; ``high-bits``: the rest; ``signs``: where apart;
- ``sums``: of codes, kept for dot products.

Some bytes hold several of these in their bits, and are named for the first: the ``scales`` of Q2_K,
Q4_K and Q5_K hold the mins too, those of IQ1_M the super-scale, those of IQ3_XXS the signs; the
``codes`` of IQ2_XXS hold signs and scales, those of IQ2_XS signs; the ``high-bits`` of IQ1_S hold
scales.

Numbers that ggml gave up (4, 5, 31 to 33, 36 to 38) have no type. Those of forks are not read: one
number has several meanings there. The Python package ``gguf`` 0.19 gives Q8_1 the size that it had
before 2024 (40 bytes); ggml's own is 36.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a quantised type."""

    name: str
    elements: int
    fields: tuple[tuple[str, int], ...]
    """Name and size in bytes of each field, in order, without padding."""


def _block(name: str, elements: int, **fields: int) -> Block:
    named = tuple((field.replace("_", "-"), size) for field, size in fields.items())
    return Block(name, elements, named)


BLOCKS: Final = (
    _block("Q1_0", 128, scales=2, codes=16),
    _block("Q2_0", 64, scales=2, codes=16),
    _block("Q4_0", 32, scales=2, codes=16),
    _block("Q4_1", 32, scales=2, mins=2, codes=16),
    _block("Q5_0", 32, scales=2, high_bits=4, codes=16),
    _block("Q5_1", 32, scales=2, mins=2, high_bits=4, codes=16),
    _block("Q8_0", 32, scales=2, codes=32),
    _block("Q8_1", 32, scales=2, sums=2, codes=32),
    _block("Q2_K", 256, scales=16, codes=64, super_scales=2, super_mins=2),
    _block("Q3_K", 256, high_bits=32, codes=64, scales=12, super_scales=2),
    _block("Q4_K", 256, super_scales=2, super_mins=2, scales=12, codes=128),
    _block("Q5_K", 256, super_scales=2, super_mins=2, scales=12, high_bits=32, codes=128),
    _block("Q6_K", 256, codes=128, high_bits=64, scales=16, super_scales=2),
    _block("Q8_K", 256, scales=4, codes=256, sums=32),
    _block("IQ1_S", 256, super_scales=2, codes=32, high_bits=16),
    _block("IQ1_M", 256, codes=32, high_bits=16, scales=8),
    _block("IQ2_XXS", 256, super_scales=2, codes=64),
    _block("IQ2_XS", 256, super_scales=2, codes=64, scales=8),
    _block("IQ2_S", 256, super_scales=2, codes=32, signs=32, high_bits=8, scales=8),
    _block("IQ3_XXS", 256, super_scales=2, codes=64, scales=32),
    _block("IQ3_S", 256, super_scales=2, codes=64, high_bits=8, signs=32, scales=4),
    _block("IQ4_NL", 32, scales=2, codes=16),
    _block("IQ4_XS", 256, super_scales=2, scales=6, codes=128),
    _block("TQ1_0", 256, codes=48, high_bits=4, scales=2),
    _block("TQ2_0", 256, codes=64, scales=2),
    _block("MXFP4", 32, scales=1, codes=16),
    _block("NVFP4", 64, scales=4, codes=32),
)
"""Every quantised type."""

GGML_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "F32",
        1: "F16",
        2: "Q4_0",
        3: "Q4_1",
        6: "Q5_0",
        7: "Q5_1",
        8: "Q8_0",
        9: "Q8_1",
        10: "Q2_K",
        11: "Q3_K",
        12: "Q4_K",
        13: "Q5_K",
        14: "Q6_K",
        15: "Q8_K",
        16: "IQ2_XXS",
        17: "IQ2_XS",
        18: "IQ3_XXS",
        19: "IQ1_S",
        20: "IQ4_NL",
        21: "IQ3_S",
        22: "IQ2_S",
        23: "IQ4_XS",
        24: "I8",
        25: "I16",
        26: "I32",
        27: "I64",
        28: "F64",
        29: "IQ1_M",
        30: "BF16",
        34: "TQ1_0",
        35: "TQ2_0",
        39: "MXFP4",
        40: "NVFP4",
        41: "Q1_0",
        42: "Q2_0",
    }
)
"""The name of each type by its number in a file."""
