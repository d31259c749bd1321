from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import pytest

from provenance.capture.python import libraries
from provenance.capture.python.libraries import describe_libraries
from provenance.capture.python.records import Introduction, Process

if TYPE_CHECKING:
    from pathlib import Path

ELF = b"\x7fELF"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def row(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


def write(path: Path, data: bytes = ELF) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def process(site: Path, *paths: str) -> Process:
    said = Introduction(
        pid=1, parent=0, forked=False, executable="/p", prefix="/", base_prefix="/", version="3",
        implementation="cpython", cache_tag="", path=(str(site), "relative", "/nowhere"),
        pointer_bits=64, optimize=0, hash_randomization=False,
    )  # fmt: skip
    return Process(said, None, libraries=set(paths))


def test_what_a_record_lists_is_not_read_and_the_rest_is_hashed(tmp_path: Path) -> None:
    site = tmp_path / "home/ann/site"
    recorded = "".join(
        [
            row("torch/lib/libtorch.so", b"as it was installed"),
            row("torch/_C.cpython-311-x86_64-linux-gnu.so", b"a module"),
            row("../../lib/libdata.so.1", b"data"),
            row("/etc/libabsolute.so", b"refused"),
            row("torch/lib/libodd.so", b"x").replace("sha256=", "sha256=*"),
            "torch/libnothing.so,,\n",
        ]
    )
    write(site / "torch-2.dist-info/RECORD", recorded.encode())
    paths = [
        write(site / "torch/lib/libtorch.so", ELF + b"edited since"),
        write(site / "torch/_C.cpython-311-x86_64-linux-gnu.so"),
        write(tmp_path / "home/lib/libdata.so.1"),
        write(site / "torch/lib/libodd.so", ELF + b"odd"),
        write(tmp_path / "lib/libc.so.6", ELF + b"c"),
        write(tmp_path / "z/libc.so.6", ELF + b"another c"),
    ]
    found = describe_libraries([process(site, *paths[:3]), process(site, *paths[2:])])
    assert (found.status, found.values) == (
        "ok",
        {
            "recorded": {
                "torch/lib/libtorch.so": sha256(b"as it was installed"),
                "../../lib/libdata.so.1": sha256(b"data"),
            },
            "hashed": {
                "libc.so.6": sha256(ELF + b"c"),
                "libc.so.6 (2)": sha256(ELF + b"another c"),
                "libodd.so": sha256(ELF + b"odd"),
            },
            "modules": 1,
        },
    )


@pytest.mark.parametrize("what", ["a secret", "a link to a secret", "a folder", "nothing"])
def test_nothing_is_told_of_what_is_no_library(tmp_path: Path, what: str) -> None:
    """A program that may not publish a file could have its digest published."""
    path = tmp_path / "id.so"
    if what == "a secret":
        path.write_bytes(b"password=1234")
    elif what == "a link to a secret":
        path.symlink_to(write(tmp_path / "secret", b"password=1234"))
    elif what == "a folder":
        path.mkdir()
    found = describe_libraries([process(tmp_path, str(path))])
    assert found.values == {"recorded": {}, "hashed": {}, "modules": 0, "unhashed": 1}


def test_only_so_many_bytes_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "MAX_HASHED_BYTES", 10)
    paths = [write(tmp_path / f"{name}.so", ELF + b"123") for name in "abc"]
    found = describe_libraries([process(tmp_path, *paths)])
    assert (list(found.values["hashed"]), found.values["unhashed"]) == (["a.so"], 2)


def test_where_no_process_told_any_there_is_a_reason(tmp_path: Path) -> None:
    found = describe_libraries([process(tmp_path)])
    assert (found.status, found.values, bool(found.reason)) == ("absent", {}, True)
