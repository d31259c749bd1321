"""Trust: from bytes and the keys that somebody trusts to a decision.

- :mod:`~provenance.trust.verification`: the numbered steps of verification.
- :mod:`~provenance.trust.beside`: the claims beside a model, and the byproducts that they name.
- :mod:`~provenance.trust.content`: the files, at a glance and by content.
- :mod:`~provenance.trust.publication`: claims put into a log, each with its proof.
"""
