"""HDF5, and the archives of Keras that hold it.

- ``reader``: a file and its tensors.
- ``probe``: the program around libhdf5 that describes and reads them.
- ``keras``: HDF5 in the archive that Keras writes.
"""
