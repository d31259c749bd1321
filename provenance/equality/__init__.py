"""The declared rule by which two trained models count as the same, and its application.

**Declared.**

- :mod:`~provenance.equality.declaration`: the TOML declaration, written before results are known;
  :mod:`~provenance.equality.rules`: the rules that it is made of.
- :mod:`~provenance.equality.lattice`: what each equality guarantees, admits and may conclude.
- :mod:`~provenance.equality.patterns`: how a rule selects files and tensors.

**Compared.**

- :mod:`~provenance.equality.model`: two models, file by file, side by side.
- :mod:`~provenance.equality.comparators`: a declaration applied to two models;
  :mod:`~provenance.equality.coverage`: whether it fits them;
  :mod:`~provenance.equality.selection`: which rule judges what;
  :mod:`~provenance.equality.readings`: the weights, read once;
  :mod:`~provenance.equality.findings`: what a comparison says.
- :mod:`~provenance.equality.side_by_side`: two models compared without a declaration.

**What a model is: its tensors.**

- :mod:`~provenance.equality.contents`: two weight files, read side by side;
  :mod:`~provenance.equality.judgement`: rules applied to what was read.
- :mod:`~provenance.equality.distances`: the distance of two tensors, with its error bound;
  :mod:`~provenance.equality.pieces`, :mod:`~provenance.equality.meter` and
  :mod:`~provenance.equality.norms`: its pieces, their measures, and their sums;
  :mod:`~provenance.equality.compiled` and :mod:`~provenance.equality.kernel`: the same, faster.
- :mod:`~provenance.equality.rounding`: elements rounded to a narrower type.
- :mod:`~provenance.equality.normalisers`: the container differences that may be dropped;
  :mod:`~provenance.equality.metadata`: what files say beside their tensors, which is not.

**What a model does.**

- :mod:`~provenance.equality.evidence`: rules about it, judged by
  :mod:`~provenance.equality.behaviour_rules`, :mod:`~provenance.equality.metric_rules` and
  :mod:`~provenance.equality.curve_rules`; :mod:`~provenance.equality.pairing` opens their files.
- :mod:`~provenance.equality.outputs`: outputs on the same probes;
  :mod:`~provenance.equality.onnx_runner`: an ONNX model run on probes, by the program
  :mod:`~provenance.equality.onnx_child`.
- :mod:`~provenance.equality.samples`: scores on the same examples;
  :mod:`~provenance.equality.statistics`: tests of equivalence and bounds of rates;
  :mod:`~provenance.equality.distributions`: the distributions behind them.
- :mod:`~provenance.equality.curves`: curves point by point;
  :mod:`~provenance.equality.curve_files`: the files that hold them.

The declaration can be read without numpy; the comparators need it: import them where a command
needs them.
"""
