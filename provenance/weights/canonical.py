r"""The canonical digest of a tensor: the same bits give the same digest in every container.

SHA-256 over three parts, in this order:

1. ``provenance tensor v1`` and a line feed, in ASCII;
2. ``{"dtype":D,"shape":[...]}`` in JCS (RFC 8785) and a line feed, where D is the name of the
   element type (:mod:`~provenance.weights.dtypes`);
3. the elements in C order, little-endian, packed where narrower than a byte.

The tensor's name is not part of it. No two (type, shape, bits) share the digested bytes: the
second part ends at its first line feed, and fixes the length of the third. Worked example, the
float32 scalar 1: ``provenance tensor v1\n{"dtype":"F32","shape":[]}\n\x00\x00\x80\x3f``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from provenance.encoding import strict_json

if TYPE_CHECKING:
    from provenance.weights.view import TensorFile

_DOMAIN: Final = b"provenance tensor v1\n"
_CHUNK: Final = 2**17
"""Elements read at a time; at most 2 MiB."""


def tensor_digest(file: TensorFile, name: str) -> str:
    """Return the canonical digest of the tensor *name*, in lower-case hexadecimal.

    Raises:
        MalformedError: the bytes do not decode.
        UnreadableError: the file cannot be read.
    """
    info = file.tensors[name]
    digest = hashlib.sha256(_DOMAIN)
    digest.update(strict_json.format({"dtype": info.dtype.name, "shape": list(info.shape)}))
    digest.update(b"\n")
    for chunk in file.chunks(name, _CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def tensor_digests(file: TensorFile) -> dict[str, str]:
    """Return the canonical digest of every tensor, by name. See :func:`tensor_digest`."""
    return {name: tensor_digest(file, name) for name in file.tensors}
