"""Files: digests, a safe walk, manifests, atomic writes.

- ``atomic``: writing so that a reader sees the old file or the new one.
- ``reading``: opening a regular file, and reading one of bounded size.
- ``names``: which file names a manifest may hold, and which are reserved.
- ``pointers``: pointers of Git LFS, which stand for data that was not fetched.
- ``digest``: SHA-256 of one file that must not change meanwhile.
- ``walking``: the files below a folder, those behind links in it and in caches too.
- ``manifest``: a folder as names, sizes and digests.
"""
