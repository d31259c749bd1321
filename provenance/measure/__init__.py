"""Measures: numbers about two models, and no judgement.

**Of tensors.**

- ``contents``: two weight files, read side by side.
- ``distances``: how far two tensors are apart, by ``pieces`` that threads work on; ``totals``: what
  is counted of a piece; ``squares``: norms with their error bound, by numpy or by ``_kernel.c``.
- ``rounding``: elements rounded to a narrower type.

**Of what a model does.**

- ``outputs``: outputs on the same probes; ``onnx_runner``: an ONNX model run on probes, by the
  program ``onnx_child``.
- ``samples``: scores on the same examples; ``statistics``: tests of equivalence and bounds of
  rates.
- ``curves``: curves point by point, and the files that hold them.

``side_files``: files without tensors, value by value; ``findings``: what a comparison says.
"""
