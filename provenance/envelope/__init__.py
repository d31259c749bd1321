"""Envelopes sign bytes that have a type; they know no statement.

- :mod:`~provenance.envelope.dsse`: the Dead Simple Signing Envelope.
- :mod:`~provenance.envelope.bundle`: the Sigstore bundle v0.3 that carries one.
"""
