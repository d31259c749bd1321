"""Files: digests, a safe walk, manifests, atomic writes.

- ``atomic``: writing so that a reader sees the old file or the new one.
- ``reading``: a whole file of bounded size.
- ``names``: which file names a manifest may hold.
- ``digest``: SHA-256 of one file that must not change meanwhile.
- ``manifest``: a folder as names, sizes and digests.
- ``reserved``: names beside the weights that are not part of the model.
"""
