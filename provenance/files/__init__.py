"""Files: digests, a safe walk, manifests, atomic writes.

- :mod:`~provenance.files.atomic`: writing so that a reader sees the old file or the new one.
- :mod:`~provenance.files.reading`: a whole file of bounded size.
- :mod:`~provenance.files.names`: which file names a manifest may hold.
- :mod:`~provenance.files.digest`: SHA-256 of one file that must not change meanwhile.
- :mod:`~provenance.files.manifest`: a folder as names, sizes and digests.
- :mod:`~provenance.files.reserved`: names beside the weights that are not part of the model.
"""
