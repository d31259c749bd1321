"""Strict readers of weight files, behind one view.

- :mod:`~provenance.tensors.view`: what every reader offers, and the refusals that all share.
- :mod:`~provenance.tensors.dtypes`: the element types and the values that their bits spell.
- :mod:`~provenance.tensors.opening`: from a path to a reader;
  :mod:`~provenance.tensors.source`: the bytes of one file, by position.
- :mod:`~provenance.tensors.safetensors`, :mod:`~provenance.tensors.npy`,
  :mod:`~provenance.tensors.npz`: one format each;
  :mod:`~provenance.tensors.zip_archive`: the archive that an npz is.
- :mod:`~provenance.tensors.canonical`: the canonical digest of a tensor.

Nothing is ever unpickled or executed, and no tensor is held in memory whole (one exception, with
its limit, in :mod:`~provenance.tensors.npy`). This package needs numpy: import it where a command
needs it.
"""
