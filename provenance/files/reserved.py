"""Names beside the weights that are not part of the model.

They are left out of a model's manifest because they are written after it (the claims, the
signature, byproducts) or, at the top level only, because the OpenSSF reference tool leaves them out
(what git keeps). Verification checks the content of ``provenance/``: each file in it must be one
that a claim names by digest.
"""

from __future__ import annotations

from provenance.files.atomic import TEMPORARY_SUFFIX

CLAIMS = "claims.jsonl"
"""Bundles, one a line."""

MODEL_SIGNATURE = "model.sig"
"""The OpenSSF model signature, one bundle."""

BYPRODUCTS = "provenance"
"""A folder of files named by their SHA-256."""

MAX_BYPRODUCT_BYTES = 2**30
"""Largest file in that folder that is read, in bytes; the output of a long run has megabytes."""

GIT_NAMES = frozenset({".git", ".gitattributes", ".github", ".gitignore"})

RESERVED = GIT_NAMES | {
    CLAIMS,
    CLAIMS + TEMPORARY_SUFFIX,
    MODEL_SIGNATURE,
    MODEL_SIGNATURE + TEMPORARY_SUFFIX,
    BYPRODUCTS,
}
"""The top-level names left out of a model's manifest."""
