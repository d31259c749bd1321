"""Envelopes sign bytes that have a type; they know no statement.

- ``dsse``: the Dead Simple Signing Envelope.
- ``bundle``: the Sigstore bundle v0.3 that carries one.
"""
