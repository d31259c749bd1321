"""Strict encodings: what is accepted has one spelling, what is emitted is canonical.

- :mod:`~provenance.encoding.strict_json`: JSON in (no duplicate keys, bounded), JCS (RFC 8785) out.
- :mod:`~provenance.encoding.strict_base64`: base64 with one spelling for each byte string.
- :mod:`~provenance.encoding.fields`: the fields of JSON documents that are read by hand.
"""
