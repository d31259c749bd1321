"""Arrays of numpy.

- ``npy``: one array; ``npz``: an archive of them.
"""
