"""Capture: what is observed before, during and after a training.

- ``recorder``: the sequence of steps; ``draft`` makes the unsigned training statement.
- ``remarks``: what weakens a claim and can be mended before the run.
- ``run``: what the training program reports by ``provenance.current_run()``; ``records`` reads it.
- ``process``: running the command transparently.
- ``inputs``: the digests of data, configuration and base model, twice.
- ``made``: the model, looked at before the run and when it ends.
- ``source``: the code; ``worktrees``, ``checkout`` and ``git`` find its trees, ``named`` what the
  command names; ``reread`` finds what of it the run read and what changed, and ``bytecode`` tells
  honest byte-compiled files.
- ``environment``: the machine.
- ``startup``: a folder by which every Python of the run starts with ``inside``, which tells what it
  is and what it opens; ``trained``: which of them trained.
- ``launchers``: the Python that a command starts; ``packages``: the software, as ``probe`` finds it
  inside the training's own interpreter; ``editables``: the folders outside of its library.
- ``command``: the command line, comparable between rebuilders.
- ``secrets``: the table of what must not be published; ``redact`` replaces it in what is recorded,
  ``scan`` searches the finished document for it, and ``leaks`` names and redacts what that finds.
- ``run_folder``: what was seen, durable at each step, from which a claim can be finished.

This module imports nothing: a training program loads it by ``provenance.current_run()``.
"""
