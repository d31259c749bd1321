"""What is wrong with a document: for each fault, a valid example that is changed just there.

The parser of the document refuses every one; its schema does where a schema can say it.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from tools.schemas.examples import CLOSE, format_example


def _twice(values: list[Any]) -> list[Any]:
    return [values[0], *values]


def _zeros(_: Any) -> str:  # noqa: ANN401 - whatever stood there
    return "0" * 64


def _by_one_identity(verdict: dict[str, Any]) -> dict[str, Any]:
    who = "alice@example.org (https://sso.example.org)"
    for party in (verdict["published"], *(each["party"] for each in verdict["rebuilds"])):
        party["subject"] = who
    return {**verdict, "builders": [who]}


GONE = object()
"""Stands for the absence of a field."""

_PREDICATE = ("predicate",)
_BUILD = ("predicate", "buildDefinition")
_RECIPE = (*_BUILD, "externalParameters")
_FIRST_FILE = ("predicate", "provenance_manifest", 0)
_FIRST_RESOURCE = ("predicate", "resources", 0)
_PROOF = ("inclusionProof",)

_CHANGES: dict[str, tuple[str, dict[str, tuple[tuple[str | int, ...], Any]]]] = {
    "training-statement": (
        "recorded",
        {
            "no-subject": (("subject",), []),
            "two-subjects": (("subject",), _twice),
            "subject-without-digest": (("subject", 0, "digest"), {}),
            "subject-is-not-the-root": (("subject", 0, "digest", "sha256"), _zeros),
            "older-statement": (("_type",), "https://in-toto.io/Statement/v0.1"),
            "other-build-type": ((*_BUILD, "buildType"), "https://example.org/build/v1"),
            "unknown-external-parameter": ((*_RECIPE, "learningRate"), 0.1),
            "unknown-input-field": ((*_RECIPE, "data", 0, "licence"), "CC0-1.0"),
            "input-without-manifest": ((*_RECIPE, "data", 0, "manifest"), GONE),
            "file-of-negative-size": ((*_FIRST_FILE, "size"), -1),
            "input-of-negative-size": ((*_RECIPE, "data", 0, "size"), -1),
            "seed-as-number": ((*_RECIPE, "seeds", "numpy"), 7),
            "manifest-empty": ((*_PREDICATE, "provenance_manifest"), []),
            "file-twice": ((*_PREDICATE, "provenance_manifest"), _twice),
            "file-above-the-folder": ((*_FIRST_FILE, "name"), "../config.json"),
            "file-name-absolute": ((*_FIRST_FILE, "name"), "/config.json"),
            "file-name-with-control-character": ((*_FIRST_FILE, "name"), "a\x1b[2Jb"),
            "file-digest-in-upper-case": ((*_FIRST_FILE, "sha256"), str.upper),
            "collector-of-unknown-status": (
                (*_BUILD, "internalParameters", "collectors", "system", "status"),
                "maybe",
            ),
            "integer-too-large": (
                (*_BUILD, "internalParameters", "collectors", "system", "values", "memory"),
                2**53 + 1,  # 2^53 itself is how JCS writes a float
            ),
            "exit-status-as-text": (
                ("predicate", "runDetails", "provenance_outcome", "exitStatus"),
                "0",
            ),
        },
    ),
    "model-signature": (
        "signature",
        {
            "two-subjects": (("subject",), _twice),
            "subject-is-not-the-root": (("subject", 0, "digest", "sha256"), _zeros),
            "no-files": ((*_PREDICATE, "resources"), []),
            "file-twice": ((*_PREDICATE, "resources"), _twice),
            "file-above-the-folder": ((*_FIRST_RESOURCE, "name"), "a/../../b"),
            "other-algorithm": ((*_FIRST_RESOURCE, "algorithm"), "blake3"),
            "short-digest": ((*_FIRST_RESOURCE, "digest"), "00"),
            "signed-by-shards": ((*_PREDICATE, "serialization", "method"), "shards"),
        },
    ),
    "verdict": (
        "reproduced",
        {
            "other-predicate": (("predicateType",), "https://slsa.dev/provenance/v1"),
            "without-the-verdict": ((*_PREDICATE, "provenance_verdict"), GONE),
            "unknown-conclusion": ((*_PREDICATE, "provenance_verdict", "conclusion"), "verified"),
            "consistent-called-reproduced": (
                (*_PREDICATE, "provenance_verdict", "conclusion"),
                "consistent",
            ),
            "one-identity-counts-twice": (
                (*_PREDICATE, "provenance_verdict"),
                _by_one_identity,
            ),
            "quorum-not-met": ((*_PREDICATE, "provenance_verdict", "quorum"), 3),
            "of-another-model": (("subject", 0, "digest", "sha256"), _zeros),
            "quorum-of-one": ((*_PREDICATE, "provenance_verdict", "quorum"), 1),
            "no-rebuild": ((*_PREDICATE, "provenance_verdict", "rebuilds"), []),
            "unknown-party-field": (
                (*_PREDICATE, "provenance_verdict", "published", "trusted"),
                True,
            ),
        },
    ),
    "bundle": (
        "claim",
        {
            "other-media-type": (("mediaType",), "application/json"),
            "no-envelope": (("dsseEnvelope",), GONE),
            "no-signature": (("dsseEnvelope", "signatures"), []),
            "two-signatures": (("dsseEnvelope", "signatures"), _twice),
            "payload-not-base64": (("dsseEnvelope", "payload"), "e30-"),
            "payload-with-loose-bits": (("dsseEnvelope", "payload"), "e31="),
            "no-signer": (("verificationMaterial", "publicKey"), GONE),
            "signer-named-twice": (("verificationMaterial", "certificate"), {"rawBytes": ""}),
            "log-entries-not-a-list": (("verificationMaterial", "tlogEntries"), {}),
        },
    ),
    "log-entry": (
        "hashedrekord",
        {
            "unknown-field": (("trusted",), True),
            "no-proof": (("inclusionProof",), GONE),
            "no-body": (("canonicalizedBody",), GONE),
            "index-as-number": (("logIndex",), 1),
            "index-with-leading-zero": (("logIndex",), "01"),
            "tree-size-too-large": ((*_PROOF, "treeSize"), str(2**63)),
            "root-of-31-bytes": ((*_PROOF, "rootHash"), "A" * 40 + "AA=="),
            "path-too-long": ((*_PROOF, "hashes"), ["A" * 43 + "="] * 65),
        },
    ),
}
"""By document: the valid example that is changed, and by the name of what is then wrong: the place
of the change, and what stands there instead (or a function of what stood there)."""

_DECLARATIONS = {
    "format-two": (b"format = 1", b"format = 2"),
    "no-version": (b"version = 1", b"# version = 1"),
    "unknown-key": (b"version = 1", b"version = 1\nepsilon = 0.1"),
    "not-a-limit-of-this-equality": (b"relative_l2 = ", b"mean_difference = 1\nrelative_l2 = "),
    "behaviour-without-limit": (
        b'equality = "bytes"',
        b'equality = "behaviour"\noutputs = ["logits.npy"]\nkind = "logits"\nreason = "x"',
    ),
    "values-have-no-top-answer": (
        b'equality = "bytes"',
        b'equality="behaviour"\noutputs=["s"]\nkind="values"\nreason="x"\ndisagreement=0.1',
    ),
    "rounded-to-nothing-narrower": (
        b'equality = "bytes"',
        b'equality = "rounded"\nto = "F64"\nreason = "x"',
    ),
    "metrics-without-margin": (
        b'equality = "bytes"',
        b'equality = "metrics"\nsamples = ["eval.npz"]\nreason = "x"',
    ),
    "curves-without-reason": (
        b'equality = "bytes"',
        b'equality = "curves"\ncurves = ["loss"]\npointwise = 0.01\npoints = 10\nterminal = 0.1',
    ),
    "name-with-spaces": (b'"digits-close"', b'"digits close"'),
    "axis-twice": (b'"blas-kernel"]', b'"thread-count"]'),
    "no-reason": (b"reason = ", b"# reason = "),
    "reason-of-spaces": (b'reason = "', b'reason = " " # "'),
    "limit-not-a-number": (b"relative_l2 = 1e-3", b"relative_l2 = nan"),
    "limit-of-zero": (b"relative_l2 = 1e-3", b"relative_l2 = 0"),
    "limit-too-wide": (b"relative_linf = 1e-2", b"relative_linf = 11.0"),
    "no-initial": (b"initial = ", b"# initial = "),
    "initial-above-the-model": (b'"initial.', b'"../initial.'),
    "equality-of-a-later-version": (b'equality = "close"', b'equality = "sketch"'),
    "equality-unknown": (b'equality = "close"', b'equality = "similar"'),
}
"""By what is wrong: what is replaced in :data:`CLOSE`, and by what."""


_POLICIES = {
    "format-two": (b"format = 1", b"format = 2"),
    "unknown-key": (b"equality = true", b"equal = true"),
    "statement-unknown": (b'"signature"', b'"promise"'),
    "party-of-no-organisation": (b"organisation = ", b"# organisation = "),
    "models-of-no-name": (b'"digits-*"', b'""'),
    "strength-that-is-no-match": (b'"tensors"', b'"close"'),
    "party-unknown": (b'["trainer"]', b'["somebody"]'),
    "more-organisations-than-there-are": (b"organisations = 2", b"organisations = 3"),
}
"""By what is wrong: what is replaced in the example of a policy, and by what."""


def invalid_examples(valid: dict[str, bytes]) -> dict[str, bytes]:
    """Return every invalid example, by its document and what is wrong: one of *valid*, changed."""
    found = {}
    for document, (base, changes) in _CHANGES.items():
        plain = json.loads(valid[f"{document}/{base}.json"])
        for name, (path, change) in changes.items():
            changed = format_example(json.dumps(_changed(plain, path, change)).encode())
            found[f"{document}/{name}.json"] = changed
    recorded = valid["training-statement/recorded.json"]
    found["training-statement/key-twice.json"] = recorded.replace(
        b'"_type":', b'"_type": "https://in-toto.io/Statement/v0.1",\n  "_type":', 1
    )
    found["training-statement/bytes-after-the-end.json"] = recorded + b"{}\n"
    for name, (old, new) in _DECLARATIONS.items():
        found[f"equality/{name}.toml"] = CLOSE.replace(old, new, 1)
    for name, (old, new) in _POLICIES.items():
        policy = valid["trust-policy/two-organisations.toml"]
        found[f"trust-policy/{name}.toml"] = policy.replace(old, new, 1)
    return found


def _changed(document: Any, path: tuple[str | int, ...], change: Any) -> Any:  # noqa: ANN401
    """Return the JSON *document* with *change* at *path*."""
    result = copy.deepcopy(document)
    *outer, last = path
    place = result
    for step in outer:
        place = place[step]
    if change is GONE:
        del place[last]
    else:
        place[last] = change(place[last]) if callable(change) else change
    return result
