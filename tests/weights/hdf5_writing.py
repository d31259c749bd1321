"""HDF5 files and Keras archives, written by h5py as Keras and users write them."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WEIGHT = np.arange(12, dtype="<f4").reshape(3, 4)


def hdf5(fill: Callable[[Any], object], **options: Any) -> bytes:  # noqa: ANN401 - h5py's own
    """Return the file that *fill* writes into."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file)
    return buffer.getvalue()


def plain(file: Any) -> None:  # noqa: ANN401
    """Write two datasets, one in a group, with attributes."""
    file["w"] = WEIGHT
    file["layers/dense/bias"] = np.arange(4, dtype="<f8")
    file.attrs["backend"] = "tensorflow"
    file["layers"].attrs["names"] = [b"dense", b"other"]
    file["layers"].attrs["rate"] = np.float32(0.5)


def every_type(file: Any) -> None:  # noqa: ANN401
    """Write a dataset of each element type."""
    for code in ("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"):
        file[code[-2:]] = np.arange(3).astype(code)
    file["big"] = np.arange(3).astype(">f4")
    file["bool"] = np.array([True, False])
    file["c8"] = np.array([1 + 2j], "<c8")
    file["c16"] = np.array([1 + 2j], ">c16")
    file.create_dataset("bf16", data=np.array([1, 2], ml_dtypes.bfloat16))
    file["bf16"].attrs["dtype"] = "bfloat16"


def chunked(file: Any) -> None:  # noqa: ANN401
    """Write one array in several layouts."""
    options: dict[str, dict[str, Any]] = {
        "deflated": {"compression": "gzip"},
        "shuffled": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "checked": {"fletcher32": True},
        "unfiltered": {},
    }
    for name, chosen in options.items():
        file.create_dataset(name, data=WEIGHT, chunks=(2, 3), **chosen)


def unallocated(file: Any) -> None:  # noqa: ANN401
    """Write datasets that are in no storage, or in part."""
    file.create_dataset("none", (2, 3), "<f4", fillvalue=1.5)
    part = file.create_dataset("part", (4, 4), ">f4", chunks=(2, 2), fillvalue=2.5)
    part[0:2, 0:2] = 1


def compact(file: Any) -> None:  # noqa: ANN401
    """Write a dataset into its own description."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((3,))
    made = h5py.h5d.create(file.id, b"c", h5py.h5t.STD_I32LE, space, plist)
    h5py.Dataset(made)[...] = [1, 2, 3]


def keras(
    weights: bytes,
    members: Mapping[str, bytes] | None = None,
    *,
    date: str = "2026-01-01@00:00:00",
    method: int = zipfile.ZIP_STORED,
) -> bytes:
    """Return a Keras archive of *weights*, with *members* in place of its others."""
    described = {"keras_version": "3.9.0", "date_saved": date}
    others = {
        "metadata.json": json.dumps(described).encode(),
        "config.json": b'{"class_name": "Sequential"}',
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in {**others, "model.weights.h5": weights, **(members or {})}.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def samples() -> dict[str, bytes]:
    """Return small valid files by name, one for each thing that a reader meets."""
    return {
        "plain.h5": hdf5(plain),
        "latest.h5": hdf5(plain, libver="latest"),
        "types.hdf5": hdf5(every_type),
        "chunked.h5": hdf5(chunked),
        "unallocated.h5": hdf5(unallocated),
        "compact.h5": hdf5(compact),
        "model.keras": keras(hdf5(plain), {"assets/words.txt": b"a\n"}),
    }
