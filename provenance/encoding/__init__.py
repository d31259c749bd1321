"""Strict encodings: what is accepted has one spelling, what is emitted is canonical.

- ``strict_json``: JSON in (no duplicate keys, bounded), JCS (RFC 8785) out.
- ``strict_base64``: base64 with one spelling for each byte string.
"""
