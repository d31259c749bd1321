"""Do one part of what ``provenance compare LEFT RIGHT`` does, for where its time goes.

python inner.py hashing|tensors LEFT RIGHT
"""

from __future__ import annotations

import sys
from pathlib import Path


def hashing(files: list[Path]) -> None:
    """Hash the files, one after the other."""
    from provenance.files.manifest import hash_path  # noqa: PLC0415 - each part has its own start

    for file in files:
        hash_path(file)


def tensors(files: list[Path]) -> None:
    """Compare the tensors of two files."""
    from provenance.measure.contents import Beside, read_contents  # noqa: PLC0415
    from provenance.measure.distances import Wanted  # noqa: PLC0415
    from provenance.weights.opening import open_tensors  # noqa: PLC0415

    with open_tensors(files[0]) as left, open_tensors(files[1]) as right:
        assert read_contents([Beside("model", 0, 1)], (left, right), Wanted())[0]


if __name__ == "__main__":
    {"hashing": hashing, "tensors": tensors}[sys.argv[1]]([Path(name) for name in sys.argv[2:]])
