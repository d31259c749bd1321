"""Statements: what is said about a model, before anything is signed.

- :mod:`~provenance.statement.uris`: the type URIs, in one place.
- :mod:`~provenance.statement.intoto`: the in-toto Statement v1 around every predicate.
- :mod:`~provenance.statement.training`: the training statement (SLSA Provenance v1).
- :mod:`~provenance.statement.model_signature`: the OpenSSF model signature.
- :mod:`~provenance.statement.claims`: what stands beside a model: signed claims, the model
  signature, byproducts.
"""
