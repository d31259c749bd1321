"""Signatures by an identity (keyless), checked offline against a Sigstore's trusted root.

- ``root``: who is trusted: certificate authorities, logs, time-stamp authorities.
- ``certificate``: the signer's certificate: its identity, and the log that it was put into.
- ``logged``: the entry of a log that is about one signature.
- ``times``: when a signature was made, by time-stamp authorities.
- ``keyless``: the whole check of a bundle.
- ``signing``: signing by an identity; ``signing_child`` is the process in which that is done.
"""
