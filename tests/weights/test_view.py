from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from provenance.weights.view import tensor_digest
from tests.weights.writing import archive, npy, simple, tensor_digests

if TYPE_CHECKING:
    from tests.weights.conftest import Opener


def test_the_worked_example_of_the_specification(opened: Opener) -> None:
    file = opened(simple({"one": np.ones((), "<f4")}), "m.safetensors")
    spelled = b'provenance tensor v1\n{"dtype":"F32","shape":[]}\n\x00\x00\x80\x3f'
    assert tensor_digest(file, "one") == hashlib.sha256(spelled).hexdigest()


def test_the_container_does_not_matter(opened: Opener) -> None:
    array = np.arange(600_000, dtype="<f4").reshape(600, 1000)
    turned = np.asfortranarray(array.astype(">f4"))
    digests = {
        tensor_digest(opened(simple({"array": array}), "m.safetensors"), "array"),
        tensor_digest(opened(archive({"array.npy": npy(array)}), "m.npz"), "array"),
        tensor_digest(opened(archive({"array.npy": npy(turned)}, 8), "m.npz"), "array"),
        tensor_digest(opened(npy(array), "m.npy"), "array"),
        tensor_digest(opened(npy(turned), "m.npy"), "array"),
    }
    assert len(digests) == 1


def test_type_shape_and_bits_matter_the_name_does_not(opened: Opener) -> None:
    bits = np.arange(4, dtype="<f4")
    arrays = {
        "a": bits,
        "again": bits,
        "shape": bits.reshape(2, 2),
        "type": bits.view("<i8"),
        "sign of zero": -bits,
    }
    digests = tensor_digests(opened(simple(arrays), "m.safetensors"))
    assert digests["a"] == digests["again"]
    assert len(set(digests.values())) == 4
