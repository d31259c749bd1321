"""Reports: the same values for people (terminal) and for programs (JSON).

- :mod:`~provenance.report.terminal`, :mod:`~provenance.report.table`,
  :mod:`~provenance.report.progress`: text, JSON, tables and a bar.
- :mod:`~provenance.report.verification`, :mod:`~provenance.report.comparison`,
  :mod:`~provenance.report.agreement`: how what a command found out reads.
- :mod:`~provenance.report.explain`: what any file is, laid out by
  :mod:`~provenance.report.explain_text`. For each kind of file:
  :mod:`~provenance.report.explain_models`, :mod:`~provenance.report.explain_weights`,
  :mod:`~provenance.report.explain_byproducts`, :mod:`~provenance.report.explain_bundles`,
  :mod:`~provenance.report.explain_statements`, :mod:`~provenance.report.explain_training`,
  :mod:`~provenance.report.explain_equality`, :mod:`~provenance.report.explain_keys`,
  :mod:`~provenance.report.explain_logs`.
- :mod:`~provenance.report.schemas`: the JSON Schema of every document, from the types and from
  :mod:`~provenance.report.schema_documents`, with
  :mod:`~provenance.report.schema_examples` and :mod:`~provenance.report.schema_counterexamples`.
"""
