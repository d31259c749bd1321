"""The type URIs, in one place. Each of our document types has its page in ``docs/spec/``."""

from __future__ import annotations

from typing import Final

BASE = "https://w3id.org/training-provenance"

BUILD_TYPE = f"{BASE}/training/v1"
"""``buildType`` of a training statement (docs/spec/training.md)."""

VERDICT = f"{BASE}/verdict/v1"
"""Predicate type of a verdict that is neither reproduced nor consistent (docs/spec/verdict.md)."""

KEY_CHANGE = f"{BASE}/key-change/v1"
"""Predicate type of the statement that a signer has another key (docs/spec/verification.md)."""

LOCAL_BUILDER = f"{BASE}/builder/local/v1"
"""``builder.id`` of a recorder that the trainer runs: SLSA Build level 1, whoever holds the key."""

VERIFIER = f"{BASE}/verifier/v1"
"""``verifier.id`` in verdicts."""

STATEMENT = "https://in-toto.io/Statement/v1"
SLSA_PROVENANCE = "https://slsa.dev/provenance/v1"
SLSA_VSA = "https://slsa.dev/verification_summary/v1"
IN_TOTO_SVR = "https://in-toto.io/attestation/svr/v0.2"
MODEL_SIGNATURE: Final = "https://model_signing/signature/v1.0"
OLDER_DIGESTS: Final = "https://model_signing/Digests/v0.1"
"""Before model-signing 0.3: the subjects are the files."""

EQUALITY = f"{BASE}/equality/v1"
"""The format of equality declarations (docs/spec/equality.md)."""
