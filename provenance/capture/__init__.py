"""Capture: what is observed before, during and after a training.

- ``recorder``: the sequence of steps; ``draft`` makes the unsigned training statement.
- ``remarks``: what weakens a claim and can be mended before the run.
- ``run``: what the training program reports by ``provenance.current_run()``.
- ``process``: running the command transparently; ``command``: how it is recorded.
- ``inputs``: the digests of data, configuration and base model, twice; ``datasets``: what is said
  of data, by the trainer or a Croissant file.
- ``made``: the model, looked at before the run and when it ends.
- ``checkpoints``: those of the run, hashed while it goes on; ``chain``: as they are kept.
- ``tensors``: those of the model, and which of its files are forms of others.
- ``code``: the trees of the code, and what of it the run read.
- ``python``: the Pythons of the run: which of them trained, and what is installed there.
- ``environment``: the machine; ``cost``: the energy that it used meanwhile.
- ``trace``: what the run does with files, as the system tells it.
- ``secrecy``: what must not be published, found and replaced.
- ``run_folder``: what was seen, durable at each step, from which a claim can be finished.

This module imports nothing: a training program loads it by ``provenance.current_run()``.
"""
