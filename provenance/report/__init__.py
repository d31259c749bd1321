"""Reports: the same values for people (terminal) and for programs (JSON).

- ``terminal``: text, tables, JSON, and a count of bytes.
- ``recording``, ``verification``, ``policy``, ``comparison``, ``agreement``, ``doctor``: how what
  a command found out reads.
- ``explain``: what any file is, laid out by ``explain_text``: ``explain_signed`` (claims and
  verdicts), ``explain_training``, ``explain_equality``, ``explain_logs``, ``explain_files``
  (folders, byproducts, weights, keys).
"""
