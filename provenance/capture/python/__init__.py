"""The Pythons of a run, which say themselves what they are and what they open.

- ``startup``: a folder by which every Python of the run starts with ``inside``.
- ``records``: reading what they and ``provenance.current_run()`` reported.
- ``trained``: which of them trained.
- ``launchers``: the Python that a command starts, told before it runs.
- ``packages``: what is installed there, as ``probe`` finds it.
"""
