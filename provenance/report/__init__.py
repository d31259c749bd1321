"""Reports: the same values for people (terminal) and for programs (JSON).

- ``terminal``, ``progress``: text, tables and JSON, and a count of bytes.
- ``verification``, ``comparison``, ``agreement``: how what a command found out reads.
- ``explain``: what any file is, laid out by ``explain_text``. For each kind of file:
  ``explain_models``, ``explain_weights``, ``explain_byproducts``, ``explain_bundles``,
  ``explain_statements``, ``explain_training``, ``explain_equality``, ``explain_keys``,
  ``explain_logs``.
"""
