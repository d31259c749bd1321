"""Keys: making them, reading them, signing, and checking signatures.

- ``public``: public keys and the check of a signature.
- ``certificates``: the key that a chain of certificates leads to. It is loaded when asked for.
- ``elsewhere``: private keys that are not in a file; ``pkcs11``: those in tokens.
- ``private``: private keys, their files, and ``keygen``.
"""

from provenance.keys.private import (
    ALGORITHMS,
    PrivateKey,
    generate,
    is_private_key,
    load_private,
    refuse_private_key,
    refuse_private_keys,
    write_pair,
)
from provenance.keys.public import (
    PublicKey,
    load_public,
    parse_public_pem,
    parse_raw,
    parse_spki,
)

__all__ = [
    "ALGORITHMS",
    "PrivateKey",
    "PublicKey",
    "generate",
    "is_private_key",
    "load_private",
    "load_public",
    "parse_public_pem",
    "parse_raw",
    "parse_spki",
    "refuse_private_key",
    "refuse_private_keys",
    "write_pair",
]
