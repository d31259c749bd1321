from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.transparency import log as logs
from provenance.transparency import note

if TYPE_CHECKING:
    from provenance.transparency.note import SignerKey

SUMDB = Path(__file__).parent / "peers" / "sumdb" / "main.go"

GO = shutil.which("go")

LIBRARIES = Path(os.environ.get("GOPATH") or "/usr/share/gocode")
"""Where Debian installs Go's libraries."""


def sumdb(log: Path, vkey: str, cache: Path) -> subprocess.CompletedProcess[str]:
    if GO is None:
        pytest.skip("needs go (peers/README.md)")
    if not (LIBRARIES / "src/golang.org/x/mod/sumdb").is_dir():
        pytest.skip("needs golang.org/x/mod in GOPATH (peers/README.md)")
    settings = {"GO111MODULE": "off", "GOPATH": str(LIBRARIES), "GOCACHE": str(cache)}
    return subprocess.run(
        [GO, "run", str(SUMDB), str(log), vkey, "7"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("go")


def test_go_s_sumdb_agrees(log: Path, signer: SignerKey, cache: Path) -> None:
    entries = [b"entry %d" % number for number in range(1300)]
    for start, end in ((0, 1), (1, 250), (250, 256), (256, 1300)):
        logs.append(log, entries[start:end], signer)
    vkey = note.format_vkey(signer.verifier)
    result = sumdb(log, vkey, cache)
    assert result.stdout == "size 1300: 186 inclusions, 186 consistencies\n", result.stderr

    tile = log / "tile/0/003"
    tile.write_bytes(bytes([tile.read_bytes()[0] ^ 1]) + tile.read_bytes()[1:])
    refused = sumdb(log, vkey, cache)
    assert refused.returncode != 0
    assert "invalid transparency proof" in refused.stderr
