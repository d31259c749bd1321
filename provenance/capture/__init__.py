"""Capture: what is observed of a training, before, during and after it.

- :mod:`~provenance.capture.recorder`: the order of things;
  :mod:`~provenance.capture.draft` makes of them an unsigned training statement.
- :mod:`~provenance.capture.run`: what the training program itself says, through
  ``provenance.current_run()``; :mod:`~provenance.capture.records` reads it back.
- :mod:`~provenance.capture.process`: running the command so that it does not notice.
- :mod:`~provenance.capture.inputs`: the digests of data, configuration and base model, twice.
- :mod:`~provenance.capture.byproducts`: what came out beside the weights.
- :mod:`~provenance.capture.source`, :mod:`~provenance.capture.git_tree`,
  :mod:`~provenance.capture.git`: the code, as a git tree.
- :mod:`~provenance.capture.environment` and its collectors
  (:mod:`~provenance.capture.system`, :mod:`~provenance.capture.processor`,
  :mod:`~provenance.capture.macos`, :mod:`~provenance.capture.gpus`,
  :mod:`~provenance.capture.knobs`): the machine.
- :mod:`~provenance.capture.packages`: the software, by what :mod:`~provenance.capture.probe` says
  inside the training's own interpreter.
- :mod:`~provenance.capture.command`, :mod:`~provenance.capture.redact`,
  :mod:`~provenance.capture.secrets`: what must not be published.

This module imports nothing: a training program loads it with ``provenance.current_run()``.
"""
