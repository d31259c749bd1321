"""The declared rule by which two trained models count as the same, and its application.

- :mod:`~provenance.equality.declaration`: the TOML declaration, written before results are known.
- :mod:`~provenance.equality.patterns`: how a rule selects files and tensors.
- :mod:`~provenance.equality.comparators`: a declaration applied to two models;
  :mod:`~provenance.equality.contents` reads two weight files side by side, and
  :mod:`~provenance.equality.judgement` applies the rules to what was read.
- :mod:`~provenance.equality.side_by_side`: two models compared without a declaration.
- :mod:`~provenance.equality.distances`: the distance of two tensors, with its error bound.
- :mod:`~provenance.equality.normalisers`: the container differences that may be dropped.
- :mod:`~provenance.equality.onnx_runner`: an ONNX model run on probes;
  :mod:`~provenance.equality.onnx_child`: the program that runs it.
- :mod:`~provenance.equality.findings`: what a comparison says.

The declaration can be read without numpy; the comparators need it: import them where a command
needs them.
"""
