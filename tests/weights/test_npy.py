from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from typing import TYPE_CHECKING, Any

import ml_dtypes
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
    "object": plain("'|O'"),
    "void of nothing": plain("'|V0'"),
    "big-endian void": plain("'>V4'"),
    "text of nothing": plain("'<U0'", shape="(0,)"),
    "text of no order": plain("'|U1'"),
    "bytes of an order": plain("'<S4'"),
    "text too long": plain("'<U99999999999'"),
    "text without a length": plain("'<U'"),
    "date of no size": plain("'<M'"),
    "date of four bytes": plain("'<M4[s]'"),
    "date in an unknown unit": plain("'<M8[x]'"),
    "date in tenths": plain("'<M8[s/10]'"),
    "record of nothing": plain("[]"),
    "record of objects": plain("[('a', '|O')]"),
    "record in a record": plain("[('a', [('b', '<f4')])]"),
    "record with titles": plain("[(('t', 'a'), '<f4')]"),
    "record with two fields of one name": plain("[('a', '|u1'), ('b', '<u2'), ('a', '|u1')]"),
    "record of another size": plain("[('a', '<f4'), ('b', '<f4')]"),
    "record with a call": plain("[('a', '<f4', (f(),))]"),
    "record with an escape": plain("[('\\x61', '<f4')]"),
    "record with a line break": plain("[('a\n', '<f4')]"),
    "record of huge parts": plain(f"[('a', '<f4', ({'9' * 5000},))]"),
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


def saved(array: np.ndarray[Any, Any]) -> bytes:
    """Return what numpy.save writes of *array*."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy says of some types that it cannot load them
        np.save(buffer, array)
    return buffer.getvalue()


SURROGATES = np.array([0xD83D, 0xDE00], "<u4")
VALUES: dict[str, tuple[np.ndarray[Any, Any], str]] = {
    "texts": (np.array(["cat", "", "ö😀"]), '<U3 [3] ["cat", "", "ö😀"]'),
    "texts without elements": (np.zeros((0, 2), "U3"), "<U3 [0, 2] []"),
    "one text": (np.array("cat"), '<U3 [] ["cat"]'),
    "texts in a table": (np.array([["a", "b"], ["c", "d"]]), '<U1 [2, 2] ["a", "b", "c", "d"]'),
    "bytes": (np.array([b"cat", b"\xff\0x"]), r'|S3 [2] ["cat", "ÿ\u0000x"]'),
    "times": (np.array(["1970-01-02", "NaT"], "M8[D]"), f"<M8[D] [2] [1, {-(2**63)}]"),
    "spans": (np.array([3], "m8[25us]"), "<m8[25us] [1] [3]"),
    "times of no unit": (np.array([7], "i8").view("M8"), "<M8 [1] [7]"),
    "times without elements": (np.zeros(0, "M8[ns]"), "<M8[ns] [0] []"),
    "surrogates": (
        SURROGATES.view("<U2"),
        f"<U2 [1] sha256 {hashlib.sha256(SURROGATES.tobytes()).hexdigest()}",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("array", "said"), VALUES.values(), ids=VALUES)
def test_texts_and_times_are_values(opened: Opener, array: np.ndarray[Any, Any], said: str) -> None:
    other_order = array if array.dtype.kind == "S" else array.astype(array.dtype.newbyteorder(">"))
    if "sha256" in said:  # numpy converts no such text
        other_order = array.byteswap().view(array.dtype.newbyteorder(">"))
    for written in (array, np.array(array, order="F"), other_order):
        file = opened(saved(written), "m.npy")
        assert dict(file.metadata) == {ARRAY: said}
        assert not file.tensors


def test_many_texts_are_a_digest(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = np.array(["a", "b", "c"])
    monkeypatch.setattr("provenance.weights.npy.MAX_SPELLED", texts.nbytes)
    assert opened(saved(texts), "m.npy").metadata[ARRAY] == '<U1 [3] ["a", "b", "c"]'
    monkeypatch.setattr("provenance.weights.npy.MAX_SPELLED", texts.nbytes - 1)
    said = opened(saved(texts), "m.npy").metadata[ARRAY]
    assert said == f"<U1 [3] sha256 {hashlib.sha256(texts.tobytes()).hexdigest()}"


NODES = np.dtype([("left", "<i8"), ("at", ">f8", (2,)), ("flag", "u1")], align=True)
OPAQUE: dict[str, tuple[np.ndarray[Any, Any], str, tuple[int, ...]]] = {
    "bfloat16": (np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16), "RAW", (2, 3, 2)),
    "float8": (np.arange(6).astype(ml_dtypes.float8_e4m3fn), "RAW", (6, 1)),
    "int4": (np.arange(6).astype(ml_dtypes.int4), "RAW", (6, 1)),
    "void": (np.arange(6, dtype="<u4").view("V8"), "RAW", (3, 8)),
    "one": (np.array(2.5, ml_dtypes.bfloat16), "RAW", (2,)),
    "none": (np.zeros((3, 0, 2), ml_dtypes.bfloat16), "RAW", (3, 0, 2, 2)),
    "records": (
        np.arange(64, dtype="u1").view(NODES).reshape(2, 1),
        "RAW [('left', '<i8'), ('at', '>f8', (2,)), ('flag', '|u1'), ('', '|V7')]", (2, 1, 32),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("array", "dtype", "shape"), OPAQUE.values(), ids=OPAQUE)
def test_opaque_elements_are_tensors_of_bytes(
    opened: Opener, array: np.ndarray[Any, Any], dtype: str, shape: tuple[int, ...]
) -> None:
    for written in (array, np.array(array, order="F")):
        file = opened(saved(written), "m.npy")
        info = file.tensors[ARRAY]
        assert (info.dtype.name, info.dtype.kind, info.shape) == (dtype, "exact", shape)
        assert b"".join(map(bytes, file.chunks(ARRAY, 256))) == written.tobytes()
        assert not file.metadata


def test_records_with_other_fields_are_of_another_type(opened: Opener) -> None:
    one, two = (
        opened(saved(np.zeros(2, [("a", "<f4"), (name, "<i4")])), "m.npy").tensors[ARRAY]
        for name in "bc"
    )
    assert not one.is_like(two)


def test_what_numpy_itself_does_not_load_is_refused(opened: Opener) -> None:
    data = saved(np.zeros(3, ml_dtypes.float8_e5m2))
    with pytest.raises(ValueError, match="f1"):
        np.load(io.BytesIO(data))
    with pytest.raises(MalformedError, match="the element type '<f1' is not read"):
        opened(data, "m.npy")
