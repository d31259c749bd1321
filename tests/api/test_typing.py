"""The face of the package, as a type checker sees it from outside (as structlog tests its own)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

USER = """
from pathlib import Path
from typing import assert_type

import provenance
from provenance.api.checking import Comparison
from provenance.api.finishing import Recorded
from provenance.api.signing import KeyPair, PublishedClaims, Signed
from provenance.capture.run import Run
from provenance.equality.declaration import builtin
from provenance.keys import load_private, load_public
from provenance.rebuilding.verdict import Verdict
from provenance.trust.verification import Verified

assert_type(provenance.keygen("alice", algorithm="ed25519", password=b"x"), KeyPair)
assert_type(provenance.sign(Path("model"), key=load_private(Path("alice"))), Signed)
assert_type(
    provenance.record(
        ["python", "train.py"], model="model", key="alice", equality="tensors",
        data={"train": Path("data")}, seeds={"numpy": 0}, config=["c.toml"],
    ),
    Recorded,
)
assert_type(provenance.attest("model", key=Path("alice"), data=["data.csv"], seeds=1), Recorded)
assert_type(provenance.verify("model", keys=["alice.pub", load_public(Path("b.pub"))]), Verified)
assert_type(provenance.compare("a", Path("b"), equality=builtin("bytes")), Comparison)
assert_type(provenance.agree(["a", Path("b")], keys=["alice.pub"], quorum=2), Verdict)
assert_type(provenance.publish("model", log="log"), PublishedClaims)
assert_type(provenance.current_run(), Run)
error: type[Exception] = provenance.ProvenanceError

provenance.verify("model", key="k")  # WRONG: keys
provenance.record(["x"], identity_token="t")  # WRONG: no model
provenance.record(["x"], model="m", key="k", equallity="bytes")  # WRONG: misspelled
provenance.agree(["a", "b"], keys=["k"], quorum="2")  # WRONG: a text
"""


def test_the_face_is_typed(tmp_path: Path) -> None:
    program = tmp_path / "user.py"
    program.write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
    command += ["--cache-dir", str(REPOSITORY / ".mypy_cache"), "--config-file", ""]
    done = subprocess.run(
        [*command, str(program)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    found = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line]
    wrong = [n for n, line in enumerate(USER.splitlines(), 1) if "WRONG" in line]
    assert found == wrong, done.stdout
