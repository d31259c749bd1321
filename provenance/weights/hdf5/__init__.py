"""HDF5, and the archives of Keras that hold it.

- ``reader``: a file and its tensors; ``storage``: a dataset's bytes.
- ``probe``: the program that finds its datasets.
- ``keras``: HDF5 in the archive that Keras writes.
"""
