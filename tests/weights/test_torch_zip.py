from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.weights.opening import open_tensors
from provenance.weights.torch import strided
from tests.weights import torch_writing as tw
from tests.weights.writing import archive, simple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from provenance.weights.view import TensorFile
    from tests.weights.conftest import Opener

SAMPLES = tw.samples()
STATE = tw.ordered({"w": tw.tensor(tw.storage("0", 2), (2,))})
STORED = {"0": tw.floats(1, 2)}


def content(file: TensorFile, name: str, elements: int = 256) -> bytes:
    return b"".join(map(bytes, file.chunks(name, elements)))


def array(file: TensorFile, name: str, dtype: str = "<f4") -> list[Any]:
    values = np.frombuffer(content(file, name), dtype)
    return list(values.reshape(file.tensors[name].shape).tolist())


def test_a_state_dict_is_its_tensors_by_their_keys(opened: Opener) -> None:
    file = opened(SAMPLES["linear.pt"], "m.pt")
    assert file.format == "torch"
    assert list(file.tensors) == ["weight", "bias"]
    assert array(file, "weight") == [[1, 2, 3], [4, 5, 6]]
    assert content(file, "bias") == tw.floats(7, -0.0)
    assert dict(file.metadata) == {}
    assert file.aliases == ()


def test_the_same_weights_as_safetensors_are_equal_in_tensors_and_metadata(opened: Opener) -> None:
    def seen(file: TensorFile) -> object:
        tensors = {
            name: (i.dtype, i.shape, content(file, name)) for name, i in file.tensors.items()
        }
        return tensors, dict(file.metadata)

    weight = np.arange(1, 7, dtype="<f4").reshape(2, 3)
    other = simple({"weight": weight, "bias": np.array([7, -0.0], "<f4")})
    assert seen(opened(SAMPLES["linear.pt"], "m.pt")) == seen(opened(other, "m.safetensors"))


def test_a_trainers_checkpoint_is_tensors_and_metadata(opened: Opener) -> None:
    file = opened(SAMPLES["nested.ckpt"], "m.ckpt")
    assert array(file, "model/w") == [1, 2]
    assert array(file, "optimizer/state/0/exp_avg") == [3, 4]
    assert {**file.metadata} == {
        "_structure": '{"args":{"name":*,"seed":*,"dtype":*,"device":*,"shape":[*,*],"best":*,'
        '"worst":*,"empty":[],"raw":*},"model":{"w":*},"optimizer":{"param_groups":[{"lr":*,'
        '"betas":[*,*],"fused":*,"amsgrad":*,"params":[*]}],"state":{0:{"exp_avg":*,"step":*}}},'
        '"scheduler":{"milestones":Counter{3:*}}}',
        "optimizer/state/0/step": "7",
        "optimizer/param_groups/0/lr": "1e-05",
        "optimizer/param_groups/0/betas/0": "0.9",
        "optimizer/param_groups/0/betas/1": "0.999",
        "optimizer/param_groups/0/fused": "null",
        "optimizer/param_groups/0/amsgrad": "false",
        "optimizer/param_groups/0/params/0": "0",
        "scheduler/milestones/3": "1",
        "args/name": '"tiny \N{GREEK SMALL LETTER ALPHA}"',
        "args/seed": str(2**70),
        "args/dtype": '{"torch.dtype":"bfloat16"}',
        "args/device": '{"torch.device":"cuda:1"}',
        "args/shape/0": "2",
        "args/shape/1": "3",
        "args/best": '{"numpy.float64":1.5}',
        "args/worst": '{"float":"inf"}',
        "args/empty": "[]",
        "args/raw": '{"bytes":"00ff"}',
    }


def test_views_of_one_storage(opened: Opener) -> None:
    file = opened(SAMPLES["views.pth"], "m.pth")
    assert array(file, "a") == array(file, "b") == [[0, 1, 2], [3, 4, 5]]
    assert array(file, "turned") == [[0, 3], [1, 4], [2, 5]]
    assert array(file, "every_second") == [[4, 6], [8, 10]]
    assert array(file, "repeated") == [[0, 1, 2], [0, 1, 2]]
    assert content(file, "empty") == b""
    assert file.tensors["empty"].shape == (0, 3)
    assert file.aliases == (("a", "b"),)
    left = hashlib.sha256(tw.floats(7, 9, 11)).hexdigest()
    assert file.container["unreached-bytes"] == f"12 {left}"


def test_every_element_type(opened: Opener) -> None:
    file = opened(SAMPLES["types.bin"], "m.bin")
    assert {name: (info.dtype.name, info.shape) for name, info in file.tensors.items()} == {
        "uint16": ("U16", (4,)),
        "uint32": ("U32", (2,)),
        "uint64": ("U64", (1,)),
        "complex32": ("C32", (2,)),
        "float8_e4m3fn": ("F8_E4M3", (8,)),
        "float8_e5m2": ("F8_E5M2", (8,)),
        "float8_e8m0fnu": ("F8_E8M0", (8,)),
        "float4_e2m1fn_x2": ("F4", (16,)),
        "half": ("BF16", (4,)),
        "flags": ("BOOL", (2, 2, 2)),
    }
    for key, name in enumerate(file.tensors):
        assert content(file, name) == bytes(range(key, key + 8))
    half = np.frombuffer(content(file, "half"), ml_dtypes.bfloat16)
    assert half[0] == np.array([8, 9], np.uint8).view(ml_dtypes.bfloat16)[0]


def test_big_endian_storages_are_turned(opened: Opener) -> None:
    file = opened(SAMPLES["big_endian.pt"], "m.pt")
    assert array(file, "w") == [1, 2, 3]
    assert array(file, "turned", "<c8") == [[0 + 1j, 4 + 5j], [2 + 3j, 6 + 7j]]


def test_the_earliest_archives_are_read(opened: Opener) -> None:
    file = opened(SAMPLES["early.pth.tar"], "m.pth.tar")
    assert array(file, "0") == [1, 2]
    assert file.container["byte-order"] == "absent"


@pytest.mark.parametrize("name", SAMPLES)
def test_every_fact_has_a_normaliser_and_every_file_has_every_fact(
    opened: Opener, name: str
) -> None:
    facts = opened(SAMPLES[name], name).container.keys()
    assert facts == {
        "order", "spelling", "layout", "archive-fields", "byte-order", "version",
        "container-types", "unreached-bytes",
    }  # fmt: skip


def differing(opened: Opener, left: bytes, right: bytes) -> set[str]:
    """The facts that differ between two files of the same tensors."""
    seen = []
    for data in (left, right):
        file = opened(data, "m.pt")
        tensors = {name: content(file, name) for name in file.tensors}
        seen.append((tensors, dict(file.metadata), dict(file.container)))
    assert seen[0][:2] == seen[1][:2]
    return {fact for fact, text in seen[0][2].items() if seen[1][2][fact] != text}


def varied(**records: bytes | None) -> bytes:
    """The plain checkpoint with other records; None takes one away."""
    names = {"id": ".data/serialization_id", "format": ".format_version"}
    inside = tw.members(tw.pickled(STATE), STORED)
    for key, value in records.items():
        name = names.get(key, ".storage_alignment" if key == "alignment" else key)
        if value is None:
            del inside[name]
        else:
            inside[name] = value
    return tw.zipped({f"archive/{name}": data for name, data in inside.items()})


PLAIN = tw.checkpoint(STATE, STORED)


def saved(tensor: object, **storages: bytes) -> bytes:
    return tw.checkpoint(tw.ordered({"w": tensor}), storages or STORED)


LOOSE = tw.tensor(tw.storage("0", 3), (2,))
FAR = tw.tensor(tw.storage("0", 2, device="cuda:0"), (2,))
FACTS: dict[str, tuple[bytes, set[str]]] = {
    "folder": (tw.checkpoint(STATE, STORED, root="epoch_7"), {"archive-fields"}),
    "identifier": (varied(id=b"1"), {"archive-fields"}),
    "version": (varied(version=b"4\n"), {"version"}),
    "format": (varied(format=b"2"), {"version"}),
    "alignment": (varied(alignment=b"4096"), {"layout"}),
    "byte order": (
        tw.checkpoint(
            STATE,
            {"0": np.array([1, 2], ">f4").tobytes()},
            records={**tw.RECORDS, "byteorder": b"big"},
        ),
        {"byte-order"},
    ),
    "no identifier": (varied(id=None), {"archive-fields", "order"}),
    "protocol": (tw.checkpoint(STATE, STORED, protocol=4), {"spelling"}),
    "device": (saved(FAR), {"container-types"}),
    "whole storage": (
        saved(LOOSE, **{"0": tw.floats(1, 2, 3)}),
        {"layout", "unreached-bytes"},
    ),
    "key of the storage": (
        saved(tw.tensor(tw.storage("1", 2), (2,)), **{"1": tw.floats(1, 2)}),
        {"layout", "order"},
    ),
    "kind of dictionary": (
        tw.checkpoint(dict(STATE.entries), STORED),
        {"container-types", "spelling"},
    ),
}


@pytest.mark.parametrize(("data", "facts"), FACTS.values(), ids=FACTS)
def test_what_does_not_change_a_tensor_is_a_fact(
    opened: Opener, data: bytes, facts: set[str]
) -> None:
    # Padding moves with the length of what stands before it, so it belongs to any of these.
    assert differing(opened, PLAIN, data) - {"archive-fields"} == facts - {"archive-fields"}


def test_the_order_of_members_and_their_padding_are_facts(opened: Opener) -> None:
    inside = {f"archive/{n}": d for n, d in tw.members(tw.pickled(STATE), STORED).items()}
    turned = tw.zipped(dict(reversed(inside.items())))
    assert "order" in differing(opened, PLAIN, turned)
    assert differing(opened, PLAIN, tw.zipped(inside, 128)) == {"archive-fields"}
    plain = archive(inside)  # as a tool that unpacks and packs again
    assert differing(opened, PLAIN, plain) == {"archive-fields"}


def test_tied_weights_are_a_fact_and_not_content(opened: Opener) -> None:
    tied = tw.tensor(tw.storage("0", 2), (2,))
    other = tw.tensor(tw.storage("1", 2), (2,))
    one = tw.checkpoint({"a": tied, "b": tied}, STORED)
    two = tw.checkpoint({"a": tied, "b": other}, {**STORED, "1": STORED["0"]})
    assert opened(one, "m.pt").aliases == (("a", "b"),)
    assert opened(two, "m.pt").aliases == ()


def wrapped(inside: Mapping[str, bytes]) -> bytes:
    return tw.zipped({f"archive/{name}": data for name, data in inside.items()})


def without(name: str) -> bytes:
    inside = tw.members(tw.pickled(STATE), STORED)
    del inside[name]
    return wrapped(inside)


def more(name: str) -> bytes:
    return wrapped({**tw.members(tw.pickled(STATE), STORED), name: b""})


TWICE = {
    "a": tw.tensor(tw.storage("0", 2), (2,)),
    "b": tw.tensor(tw.storage("0", 2, "torch IntStorage"), (2,)),
}
PADDED = tw.zipped({f"archive/{n}": d for n, d in tw.members(tw.pickled(STATE), STORED).items()})
CENTRAL = PADDED.index(b"PK\1\2")
MALFORMED: dict[str, tuple[bytes, str]] = {
    "cut off": (PLAIN[:-1], "does not end as"),
    "bytes after": (PLAIN + b"x", "does not end as"),
    "no pickle": (without("data.pkl"), "has no data.pkl"),
    "no version": (without("version"), "has no version"),
    "no member": (tw.zipped({}), "has no data.pkl"),
    "two folders": (
        tw.zipped({"a/data.pkl": tw.pickled(STATE), "b/version": b"3\n"}),
        "are not in one folder",
    ),
    "no folder": (tw.zipped({"data.pkl": b"", "version": b"3\n"}), "are not in one folder"),
    "folder in a folder": (
        tw.checkpoint(STATE, STORED, root="a/b"),
        "has no data.pkl",
    ),
    "compressed": (
        archive({"a/data.pkl": tw.pickled([]), "a/version": b"3\n"}, zipfile.ZIP_DEFLATED),
        "a member is compressed",
    ),
    "another member": (more("extra"), "nothing asks for the member 'archive/extra'"),
    "another storage": (more("data/1"), "nothing asks for the member 'archive/data/1'"),
    "storage missing": (without("data/0"), "the member 'data/0' is missing"),
    "storage too long": (tw.checkpoint(STATE, {"0": bytes(9)}), "has 9 bytes, its storage 8"),
    "storage too short": (tw.checkpoint(STATE, {"0": bytes(7)}), "has 7 bytes, its storage 8"),
    "storage of two kinds": (tw.checkpoint(TWICE, STORED), "storage 0 is described in two ways"),
    "byte order": (varied(byteorder=b"middle"), "not what torch.save writes"),
    "version": (varied(version=b"3"), "not what torch.save writes"),
    "long record": (varied(id=b"1" * 1025), "longer than 1024 bytes"),
    "name in the record": (varied(id=b"a\0b"), "not what torch.save writes"),
    "padding with content": (
        tw.zipped({"a/data.pkl": b"", "a/version": b"3\n"}, fill=b"x"),
        "extra field of kind 0x4246",
    ),
    "other end of the archive": (
        PADDED[:-98] + PADDED[-98:].replace(struct.pack("<Q", CENTRAL), bytes(8)),
        "contradict each other",
    ),
    "wrong checksum of the pickle": (
        PLAIN.replace(b"\x80\x02ccoll", b"\x80\x03ccoll"),
        "CRC-32 is wrong",
    ),
}


@pytest.mark.parametrize(("data", "what"), MALFORMED.values(), ids=MALFORMED)
def test_refuses(opened: Opener, data: bytes, what: str) -> None:
    with pytest.raises(MalformedError, match=what) as caught:
        opened(data, "m.pt")
    assert str(caught.value).startswith("m.pt")


LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
LARGE = tw.typed(tw.storage("0", 4, "torch.storage UntypedStorage"), "uint16", (2,))
UNREAD: dict[str, tuple[bytes, str]] = {
    "before 1.6": (LEGACY, r"written by torch before 1\.6.*save it again"),
    "another format": (b"ustar" * 99, "not a checkpoint of torch"),
    "TorchScript": (more("constants.pkl"), "a TorchScript archive"),
    "code": (more("code/__torch__.py"), "a TorchScript archive"),
    "training arguments": (
        tw.checkpoint(tw.made("transformers.training_args TrainingArguments"), {}),
        r"asks for transformers\.training_args\.TrainingArguments.*such as a state dict",
    ),
    "quantised below a byte": (
        tw.checkpoint(tw.tensor(tw.storage("0", 2, "torch QUInt4x2Storage"), (4,)), {}),
        r"asks for torch\.QUInt4x2Storage",
    ),
    "big-endian without a type": (
        tw.checkpoint(LARGE, {"0": bytes(4)}, records={**tw.RECORDS, "byteorder": b"big"}),
        "torch itself reads in the wrong order",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "what"), UNREAD.values(), ids=UNREAD)
def test_what_is_not_read_says_so(opened: Opener, data: bytes, what: str) -> None:
    with pytest.raises(UnreadableError, match=what):
        opened(data, "m.pt")


def flipped(data: bytes, part: bytes) -> bytes:
    """*data* with the last byte of *part* changed."""
    place = data.index(part) + len(part) - 1
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


LONG = np.arange(1024, dtype="<f4")
BAD = flipped(
    tw.checkpoint(
        {
            "whole": tw.tensor(tw.storage("0", 1024), (1024,)),
            "half": tw.tensor(tw.storage("0", 1024), (512,)),
            "turned": tw.tensor(tw.storage("0", 1024), (32, 32), (1, 32)),
            "none": tw.tensor(tw.storage("0", 1024), (0,)),
        },
        {"0": LONG.tobytes()},
    ),
    LONG.tobytes(),
)


@pytest.mark.parametrize("name", ["whole", "half", "turned", "none"])
def test_a_wrong_checksum_is_refused_before_the_last_chunk(opened: Opener, name: str) -> None:
    file = opened(BAD, "m.pt")
    chunks = file.chunks(name, 256)
    for _ in range(file.tensors[name].nbytes // 1024 - 1 if name != "turned" else 0):
        next(chunks)
    with pytest.raises(MalformedError, match=r"data/0: the CRC-32 is wrong"):
        next(chunks)


def test_a_wrong_checksum_is_refused_in_the_part_that_ends_the_tensor(opened: Opener) -> None:
    file = opened(BAD, "m.pt")
    assert b"".join(map(bytes, file.chunks("whole", 256, 0, 512))) == LONG[:512].tobytes()
    with pytest.raises(MalformedError, match="CRC-32"):
        list(file.chunks("whole", 256, 512))


def test_unreached_bytes_with_a_wrong_checksum_are_refused_at_once(opened: Opener) -> None:
    data = saved(LOOSE, **{"0": tw.floats(1, 2, 3)})
    with pytest.raises(MalformedError, match="CRC-32"):
        opened(flipped(data, tw.floats(1, 2, 3)), "m.pt")


@pytest.mark.parametrize("name", ["whole", "turned"])
def test_parts_are_read_by_several_threads(opened: Opener, name: str) -> None:
    file = opened(flipped(BAD, LONG.tobytes()[:-1] + b"\x45"), "m.pt")
    expected = LONG if name == "whole" else LONG.reshape(32, 32).T.ravel()
    starts = range(0, 1024, 256)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(
            lambda start: b"".join(map(bytes, file.chunks(name, 256, start, start + 256))), starts
        )
        assert b"".join(parts) == expected.tobytes()
    assert not file.direct  # but one reading finds the CRC-32, too


def test_what_is_out_of_order_and_large_is_unreadable(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(SAMPLES["views.pth"], "m.pth")
    monkeypatch.setattr(strided, "MAX_TURNED", 8)
    assert content(file, "a")
    with pytest.raises(UnreadableError, match="turned: out of C order"):
        content(file, "turned")


def test_a_tensor_of_a_terabyte_in_a_small_file_is_not_read(opened: Opener) -> None:
    huge = tw.tensor(tw.storage("0", 2), (2**38,), (0,))
    with pytest.raises(UnreadableError, match="its tensors take more than 64 times the file"):
        opened(saved(huge), "m.pt")
    large = tw.tensor(tw.storage("0", 2), (2**12,), (0,))
    with pytest.raises(UnreadableError, match="overlap in more than four times the file"):
        opened(saved(large), "m.pt")


def test_very_many_names_for_one_storage_are_not_read(opened: Opener) -> None:
    kept = tw.storage("0", 2**12)
    value = {str(name): tw.tensor(kept, (2**12,)) for name in range(100)}
    many = tw.checkpoint(value, {"0": bytes(2**14)})
    assert len(opened(many, "m.pt").tensors) == 100
    value = {str(name): tw.tensor(kept, (2**12,)) for name in range(400)}
    with pytest.raises(UnreadableError, match="its tensors take more than 64 times the file"):
        opened(tw.checkpoint(value, {"0": bytes(2**14)}), "m.pt")


def test_storages_stand_in_the_order_in_which_they_are_asked_for(opened: Opener) -> None:
    value = {name: tw.tensor(tw.storage(name, 2), (2,)) for name in "01"}
    turned = {"1": tw.floats(3, 4), "0": tw.floats(1, 2)}
    assert array(opened(tw.checkpoint(value, dict(reversed(turned.items()))), "m.pt"), "1") == [
        3,
        4,
    ]
    with pytest.raises(MalformedError, match="in another order than asked for"):
        opened(tw.checkpoint(value, turned), "m.pt")
    early = {name: data for name, data in tw.RECORDS.items() if name != ".format_version"}
    assert array(opened(tw.checkpoint(value, turned, records=early), "m.pt"), "1") == [3, 4]


def test_an_archive_beyond_4_gib_is_read(tmp_path: Path) -> None:
    size = 2**32 + 64
    value = {
        "hole": tw.tensor(tw.storage("0", size, "torch ByteStorage"), (size,)),
        "after": tw.tensor(tw.storage("1", 2), (2,)),
    }
    inside: dict[str, bytes | int] = {**tw.members(tw.pickled(value), {"0": b"", "1": STORED["0"]})}
    inside["data/0"] = size
    pieces = tw.laid_out({f"archive/{n}": data for n, data in inside.items()})
    with (tmp_path / "m.pt").open("wb") as target:
        for place, piece in pieces:
            target.seek(place)
            target.write(piece)
    with open_tensors(tmp_path / "m.pt") as file:
        assert file.tensors["hole"].nbytes == size
        assert bytes(next(file.chunks("hole", 256, size - 64 - 256, size - 64))) == bytes(256)
        assert content(file, "after") == STORED["0"]
    early = struct.pack("<QQ", size, 0)
    (place,) = (at + piece.index(early) for at, piece in pieces if early in piece)
    with (tmp_path / "m.pt").open("r+b") as target:
        target.seek(place)
        target.write(struct.pack("<QQ", size, size))
    with pytest.raises(MalformedError, match="ZIP64 extra field is missing, or of another length"):
        open_tensors(tmp_path / "m.pt")


@pytest.mark.parametrize("name", ["nested.ckpt", "views.pth"])
@given(data=st.data())
def test_a_damaged_pickle_in_a_sound_archive_raises_only_our_errors(
    opened: Opener, name: str, data: st.DataObject
) -> None:
    with zipfile.ZipFile(io.BytesIO(SAMPLES[name])) as sound:
        inside = {member: sound.read(member) for member in sound.namelist()}
    (program,) = (member for member in inside if member.endswith("data.pkl"))
    damaged = bytearray(inside[program])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProvenanceError):
        file = opened(tw.zipped({**inside, program: bytes(damaged)}), name)
        for tensor in file.tensors:
            content(file, tensor)


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=100)
@given(data=st.data())
def test_damaged_files_raise_only_our_errors_or_read_the_same(
    opened: Opener, name: str, data: st.DataObject
) -> None:
    sound = SAMPLES[name]
    damaged = bytearray(sound)
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    def seen(raw: bytes) -> object:
        file = opened(raw, name)
        tensors = {n: (i.dtype, i.shape, content(file, n)) for n, i in file.tensors.items()}
        return tensors, dict(file.metadata)

    with contextlib.suppress(ProvenanceError):
        assert seen(bytes(damaged)) == seen(sound)
