"""Capture: what is observed of a training, before, during and after it.

- ``recorder``: the order of things; ``draft`` makes of them an unsigned training statement.
- ``run``: what the training program itself says, through ``provenance.current_run()``; ``records``
  reads it back.
- ``process``: running the command so that it does not notice.
- ``inputs``: the digests of data, configuration and base model, twice.
- ``source``, ``git``: the code, as a git tree.
- ``environment``: the machine.
- ``packages``: the software, by what ``probe`` says inside the training's own interpreter.
- ``secrets``: the table of what must not be published; ``redact`` replaces it where something is
  written down, and ``scan`` looks for it in the finished document.

This module imports nothing: a training program loads it with ``provenance.current_run()``.
"""
