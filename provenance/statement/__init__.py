"""Statements: what is said about a model, before anything is signed.

- ``uris``: the type URIs, in one place.
- ``intoto``: the in-toto Statement v1 around every predicate.
- ``training``: the training statement (SLSA Provenance v1).
- ``metrics``: the metrics that a training program recorded.
- ``model_signature``: the OpenSSF model signature.
"""
