"""Tensors in parts, arrays of numpy and sets, as torch itself saves them."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.errors import ProvenanceError
from provenance.weights.torch import values as torch_values
from provenance.weights.torch.pickle_program import Made
from tests.weights.torch_writing import (
    RECORDS,
    checkpoint,
    floats,
    made,
    members,
    named,
    ordered,
    storage,
    tensor,
    zipped,
)
from tests.weights.writing import tensor_digests

if TYPE_CHECKING:
    from provenance.weights.view import TensorFile
    from tests.weights.conftest import Opener

VECTORS = Path(__file__).parent / "vectors" / "torch"
FILES = sorted(path.name for path in VECTORS.iterdir())

NUMBERS = {
    "coo.pt": {"w": "F32 2", "s/indices": "I64 2,5", "s/values": "F32 5"},
    "csr.pt": {"s/compressed_indices": "I64 5", "s/plain_indices": "I64 5", "s/values": "F32 5"},
    "param_sparse.pt": {"s/data/indices": "I64 2,5", "s/data/values": "F32 5"},
    "qtensor.pt": {"q/int_repr": "U8 3,4"},
    "qchannel.pt": {"q/int_repr": "I8 3,4", "q/quantizer/1": "F64 3", "q/quantizer/2": "I64 3"},
    "nested.pt": {
        "n/buffer": "F32 5", "n/sizes": "I64 2,1", "n/strides": "I64 2,1",
        "n/storage_offsets": "I64 2",
    },
    "attr.pt": {"t/data": "F32 2"},
    "param_state.pt": {"p/data": "F32 2"},
    "meta.pt": {},
    "np.pt": {
        "a": "I64 2,3", "f": "F64 2,3", "b": "I32 3", "o": "BOOL 1", "z": "F64 ", "h": "F16 1",
        "e": "F64 0,3",
    },
    "sets.pt": {},
    "qlinear.pt": {
        "0.scale": "F32 ", "0.zero_point": "I64 ",
        "0._packed_params._packed_params/0/int_repr": "I8 2,4",
        "0._packed_params._packed_params/1": "F32 2",
    },
}  # fmt: skip

SAID = {
    "coo.pt": {
        "s/layout": '{"torch.serialization._get_layout":"torch.sparse_coo"}',
        "s/is_coalesced": "true", "s/size/0": "4", "s/size/1": "4",
    },
    "qtensor.pt": {
        "q/quantizer/0": '{"global":"torch.per_tensor_affine"}', "q/quantizer/1": "0.1",
        "q/quantizer/2": "3", "q/storage": '{"global":"torch.QUInt8Storage"}',
    },
    "attr.pt": {"t/type": '{"global":"torch.Tensor"}', "t/state/foo": "1"},
    "param_state.pt": {"p/state/foo/a": "1", "p/requires_grad": "true"},
    "meta.pt": {"n/dtype": '{"torch.dtype":"float32"}', "n/size/0": "2"},
    "sets.pt": {"n": '{"set":["a","b"]}', "f": '{"frozenset":[1]}'},
    "qlinear.pt": {"0._packed_params.dtype": '{"global":"torch.qint8"}'},
}  # fmt: skip


def read(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def inside(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("name", FILES)
def test_a_tensor_in_parts_is_its_parts(opened: Opener, name: str) -> None:
    file = opened(read(name), name)
    shapes = {
        key: f"{info.dtype.name} {','.join(map(str, info.shape))}"
        for key, info in file.tensors.items()
    }
    assert shapes == NUMBERS[name]
    assert SAID.get(name, {}).items() <= file.metadata.items()


def test_arrays_of_numpy_have_their_values(opened: Opener) -> None:
    file = opened(read("np.pt"), "np.pt")
    held = {name: b"".join(map(bytes, file.chunks(name, 256))) for name in file.tensors}
    assert held["a"] == b"".join(n.to_bytes(8, "little") for n in range(6))
    assert held["b"] == b"".join(n.to_bytes(4, "little") for n in range(3))  # was big-endian
    assert held["o"] == b"\1"
    turned = opened(read("np.pt"), "np.pt").container["container-types"]
    assert turned != opened(checkpoint({}, {}), "np.pt").container["container-types"]


def everything(file: TensorFile) -> object:
    return tensor_digests(file), dict(file.metadata), dict(file.container)


@pytest.mark.parametrize("name", FILES)
def test_every_byte_of_it_counts(opened: Opener, name: str) -> None:
    """Changed at any place it is refused, or differs in what is compared or stated of it."""
    held = inside(read(name))
    whole = everything(opened(zipped(held), name))
    for member, raw in held.items():
        if not member.endswith("/data.pkl") and "/data/" not in member:
            continue
        for place in range(len(raw)):
            changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
            with contextlib.suppress(ProvenanceError):
                file = opened(zipped({**held, member: changed}), name)
                assert everything(file) != whole, (member, place)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_number_is_content(opened: Opener, name: str) -> None:
    held = inside(read(name))
    before = everything(opened(zipped(held), name))[:2]  # type: ignore[index]
    for member, raw in held.items():
        if "/data/" in member and raw and "serialization_id" not in member:
            changed = zipped({**held, member: raw[:-1] + bytes([raw[-1] ^ 1])})
            after = everything(opened(changed, name))[:2]  # type: ignore[index]
            assert after != before, member


ONE = tensor(storage("0", 1), (1,))
SPARSE = "torch._utils _rebuild_sparse_tensor"


def sparse(layout: str, *data: object) -> Made:
    return made(SPARSE, made("torch.serialization _get_layout", layout), data)


def test_a_tensor_in_parts_is_no_dictionary_of_them(opened: Opener) -> None:
    parts = {"indices": ONE, "values": ONE, "size": made("torch Size", (1,)), "is_coalesced": True}
    layout = made("torch.serialization _get_layout", "torch.sparse_coo")
    found = sparse("torch.sparse_coo", *parts.values())
    other = {"layout": layout, **parts}
    one, two = (
        dict(opened(checkpoint({"w": value}, {"0": floats(1)}), "m.pt").metadata)
        for value in (found, other)
    )
    assert one.pop("_structure") != two.pop("_structure")
    assert one == two


def quantised(kind: str = "torch QInt8Storage", count: int = 7) -> Made:
    given: tuple[object, ...] = (
        storage("0", 4, kind), 0, (4,), (1,), (named("torch per_tensor_affine"), 0.1, 0), False,
        ordered({}),
    )  # fmt: skip
    return made("torch._utils _rebuild_qtensor", *given[:count])


def array(**changed: object) -> Made:
    given = {
        "version": 1, "sizes": (2,), "dtype": dtype("f4", "<"), "fortran": False, "raw": bytes(8),
        "of": named("numpy ndarray"),
    } | changed  # fmt: skip
    state = tuple(given[name] for name in ("version", "sizes", "dtype", "fortran", "raw"))
    name = "numpy._core.multiarray _reconstruct"
    return Made(named(name), (given["of"], (0,), b"b"), state=[state])


def dtype(code: str, order: str) -> Made:
    state = (3, order, None, None, None, -1, -1, 0)
    return Made(named("numpy dtype"), (code, False, True), state=[state])


REFUSED = {
    "sparse of too much": (
        sparse("torch.sparse_coo", ONE, ONE, ONE, ONE, ONE), "described as torch does not",
    ),
    "sparse without data": (made(SPARSE, 1), "described as torch does not"),
    "sparse with a state": (
        Made(named(SPARSE), sparse("torch.sparse_coo", ONE, ONE).arguments, state=[{}]),
        "described as torch does not",
    ),
    "quantised floats": (quantised("torch FloatStorage"), "no storage of a known class"),
    "quantised in part": (quantised(count=6), "described as torch does not"),
    "a plain tensor of quantised bytes": (
        tensor(storage("0", 4, "torch QInt8Storage"), (4,)), "no storage of a known class",
    ),
    "class that is not known": (
        made("torch._tensor _rebuild_from_type_v2", named(SPARSE), named("os system"), (), {}),
        "asks for os.system",
    ),
    "call that makes no tensor": (
        made(
            "torch._tensor _rebuild_from_type_v2",
            named("numpy ndarray"), named("torch Tensor"), (), {},
        ),
        "ndarray is not read as a value",
    ),
    "array of objects": (array(dtype=dtype("O8", "|")), "other elements than numbers"),
    "array of texts": (array(dtype=dtype("U2", "<")), "other elements than numbers"),
    "array of a class": (array(of=named("torch Tensor")), "as numpy does not"),
    "array of another version": (array(version=2), "as numpy does not"),
    "array without bytes": (array(raw=[1, 2]), "other elements than numbers"),
    "array that is too short": (array(raw=bytes(4)), "size of an array of numpy is wrong"),
    "array that is negative": (array(sizes=(-1, -2)), "not a dimension"),
    "array of all memory": (array(sizes=(2**40, 2**40)), "too large"),
    "array of texts as sizes": (array(sizes=("a",)), "not a dimension"),
    "array of no order": (array(fortran=None), "as numpy does not"),
    "set of lists": (made("__builtin__ set", [[]]), "is not read as a value"),
    "set of equal elements": (made("__builtin__ set", [1, True]), "is not read as a value"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "what"), REFUSED.values(), ids=REFUSED)
def test_refuses(opened: Opener, value: object, what: str) -> None:
    stored = {"0": bytes(4)} if "storage" in what or "quantised" in what else {}
    with pytest.raises(ProvenanceError, match=what):
        opened(checkpoint({"w": value}, stored), "m.pt")


def test_the_order_of_a_set_is_no_content(opened: Opener) -> None:
    one, two = (
        opened(checkpoint({"s": made("__builtin__ set", list(order))}, {}), "m.pt")
        for order in ("ab", "ba")
    )
    assert one.metadata == two.metadata
    assert one.container["order"] != two.container["order"]


def test_a_set_that_names_one_text_very_often_takes_no_memory(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    elements = pickle.dumps(["x" * 2**20] * 100_000, 2)[2:-1]
    program = b"\x80\x02c__builtin__\nset\n" + elements + b"\x85R."
    data = zipped({f"a/{name}": raw for name, raw in members(program, {}).items()})
    assert opened(data, "m.pt").metadata["value"] == f'{{"set":["{"x" * 2**20}"]}}'
    monkeypatch.setattr(torch_values, "MAX_VALUES", 10_000)
    with pytest.raises(ProvenanceError, match="more than 10000 values"):
        opened(data, "m.pt")


def test_an_array_that_is_shared_very_often_is_refused(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_values, "MAX_TEXT", 1000)
    large = array(sizes=(25,), raw=bytes(100))
    assert len(opened(checkpoint([large] * 9, {}), "m.pt").tensors) == 9
    with pytest.raises(ProvenanceError, match="names and texts of more than 1000"):
        opened(checkpoint([large] * 10, {}), "m.pt")


def test_where_a_value_is(opened: Opener) -> None:
    value = {"state": {0: {"step": 7}}, "groups": [{"lr": 0.1}], "s": array(raw=b"\0" * 8)}
    file = opened(checkpoint(value, {}, records=RECORDS), "m.pt")
    paths = {key: file.path_of(key) for key in file.metadata}
    assert paths == {
        "state/0/step": ("state", "0", "step"),
        "groups/0/lr": ("groups", 0, "lr"),
        "_structure": (),
    }
    assert opened(checkpoint(1, {}), "m.pt").path_of("value") == ()
