from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import MalformedError, ProvenanceError
from provenance.weights.npy import ARRAY
from tests.weights.writing import npy, npy_header

if TYPE_CHECKING:
    from tests.weights.conftest import Opener

F4 = b"\0\0\x80\x3f"


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_is_read(opened: Opener, version: tuple[int, int]) -> None:
    file = opened(npy(np.ones((1, 1), "<f4"), version), "m.npy")
    assert file.tensors[ARRAY].shape == (1, 1)
    assert b"".join(map(bytes, file.chunks(ARRAY, 8))) == F4
    assert file.container.keys() == {"spelling", "layout", "byte-order"}


READ = {
    "no trailing comma": "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n",
    "other order, double quotes": '{"shape":(1,),"descr":"<f4","fortran_order":True}\n',
    "no number of dimensions": "{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n",
    "as Python 2 wrote it": "{'descr': '<f4', 'fortran_order': False, 'shape': (1L,), }   \n",
}


@pytest.mark.parametrize("text", READ.values(), ids=READ)
def test_reads(opened: Opener, text: str) -> None:
    assert opened(npy_header(text, F4), "m.npy").tensors[ARRAY].elements == 1


def plain(descr: str = "'<f4'", order: str = "False", shape: str = "(1,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


REFUSED = {
    "structured": plain("[('a', '<f4')]"),
    "object": plain("'|O'"),
    "void": plain("'|V2'"),
    "text": plain("'<U1'"),
    "date": plain("'<M8[ns]'"),
    "long double": plain("'<f16'"),
    "native order": plain("'=f4'"),
    "no order": plain("'|f4'"),
    "order of a byte": plain("'<u1'"),
    "order a number": plain(order="1"),
    "shape a number": plain(shape="(1)"),
    "shape a list": plain(shape="[1]"),
    "shape negative": plain(shape="(-1,)"),
    "shape empty parts": plain(shape="(1,,)"),
    "shape huge": plain(shape="(99999999999999999999,)"),
    "shape overflows": plain(shape="(4294967296, 4294967296)"),
    "a call": plain("__import__('os').system('true')"),
    "key twice": "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n",
    "key missing": "{'descr': '<f4', 'shape': (1,)}\n",
    "further key": plain()[:-2] + "'x': True}\n",
    "no line break": plain()[:-1],
    "not a dictionary": "('<f4', False, (1,))\n",
    "descr a tuple": plain("(1,)"),
    "empty": "",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_refuses(opened: Opener, text: str) -> None:
    with pytest.raises(MalformedError):
        opened(npy_header(text, F4), "m.npy")


BYTES = {
    "empty": b"",
    "magic only": b"\x93NUMPY",
    "version 4": npy_header(plain(), F4).replace(b"Y\1\0", b"Y\4\0"),
    "version 1.1": npy_header(plain(), F4).replace(b"Y\1\0", b"Y\1\1"),
    "cut off in the length": b"\x93NUMPY\1\0\1",
    "cut off in the header": npy_header(plain())[:30],
    "long header": npy_header(plain() + " " * 11_000 + "\n", F4),
    "not UTF-8": b"\x93NUMPY\3\0\1\0\0\0\xff",
    "cut off": npy_header(plain(), F4[:3]),
    "trailing byte": npy_header(plain(), F4 + b"x"),
}


@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES)
def test_refuses_bytes(opened: Opener, data: bytes) -> None:
    with pytest.raises(MalformedError):
        opened(data, "m.npy")


@given(st.text("{}'\"descrfotanhp_:<>|,()0123456789L TrueFals\n", max_size=80))
def test_random_headers_raise_only_our_errors(opened: Opener, text: str) -> None:
    with contextlib.suppress(ProvenanceError):
        opened(npy_header(text, F4), "m.npy")
