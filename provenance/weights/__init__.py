"""Strict readers of weight files, behind one view.

- ``view``: the base class of every reader, checks that all share, arrays in memory, and the
  canonical digest of a tensor.
- ``dtypes``: the element types, and the values of their bits.
- ``opening``: from a path to a reader, by its name (``names``) and what is in it (``kinds``);
  ``source``: the bytes of one file, by position.
- One format each: ``safetensors``, ``npy`` (with npz), ``skops``, and the packages ``torch``,
  ``gguf``, ``onnx`` and ``hdf5``.
- ``zip_archive``: the archives of numpy, torch, Keras and skops.
- ``isolated``: a library in a process of its own, which ``isolated_start`` starts.
- ``sharded``: an index and its shards as one file.
- ``normalisers``: the container differences that may be dropped, each a named value; ``beside``:
  what files state beside their tensors, typed and compared.
- ``model``: a model as files that are compared; ``pairs``: two models side by side.

Nothing is ever unpickled or executed, and no tensor is held in memory whole (one exception, with
its limit, in :mod:`~provenance.weights.npy`). All but ``names``, ``kinds`` and ``source``
need numpy, an extra: call :func:`check_numpy`, then import them, where a command needs them.
"""

from provenance.errors import UnavailableError


def check_numpy() -> None:
    """Check that numpy and ml-dtypes are installed."""
    try:
        import ml_dtypes  # noqa: F401, PLC0415 - an extra
        import numpy as np  # noqa: F401, PLC0415
    except ImportError as error:
        raise UnavailableError(
            "reading tensors needs numpy and ml-dtypes",
            hint="pip install 'training-provenance[weights]'",
        ) from error
