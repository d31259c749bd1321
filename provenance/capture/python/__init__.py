"""The Pythons of a run, which say themselves what they are, what they open and what they have set.

- ``startup``: a folder by which every Python of the run starts with ``inside``, which has ``state``
  look at what is set.
- ``records``: reading what they and ``provenance.current_run()`` reported.
- ``told``: of these, checkpoints, digests and arguments.
- ``trained``: which of them trained, and what it had set.
- ``distribution``: which ranks of a distributed training spoke, and which did not end.
- ``libraries``: the native libraries that it had mapped, by digest.
- ``launchers``: the Python that a command starts, told before it runs.
- ``packages``: what is installed there, as ``probe`` finds it, which ``asking`` runs there.
"""
