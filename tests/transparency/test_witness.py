"""Which cosignatures make a checkpoint count, by a C2SP tlog-policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import LogProofError, MalformedError
from provenance.keys import generate
from provenance.transparency import note, witness
from provenance.transparency.note import COSIGNATURES, Note, VerifierKey, format_vkey
from tests.world import cosign

if TYPE_CHECKING:
    from provenance.transparency.note import NoteSignature

NOW = datetime(2026, 6, 1, tzinfo=UTC)

# A checkpoint of 2026-05-23 and the keys of those who cosigned it, as they publish them.
REAL_TEXT = (
    "arche2025h1.staging.ct.transparency.dev\n1432088532\n"
    "U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n"
)
REAL_LINES = (
    "— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2r"
    "hIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==\n"
    "— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ"
    "75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==\n"
    "— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sX"
    "Tynk5XeU/zZ0WBxtqB0DrAWfBw==\n"
    "— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmI"
    "Y/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==\n"
)
REAL_POLICY = """# Four who cosigned, and one who did not
log arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f

witness little transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM https://w
witness smartit witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO
\twitness\tremora\tremora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2\t
witness mole witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv
witness navigli witness.navigli.sunlight.geomys.org+a3e00fe2+BNy/co4C1Hn1p+INwJrfUlgz7W55dSZReusH/GhUhJ/G
"""  # noqa: E501 - a line of the format is one line


def real(*lines: str) -> bytes:
    return f"{REAL_TEXT}\n{''.join(lines or (REAL_LINES,))}".encode()


@pytest.mark.parametrize(
    ("quorum", "holds"),
    [
        ("quorum none", True),
        ("quorum remora", True),
        ("quorum navigli", False),
        ("group g all little smartit remora mole\nquorum g", True),
        ("group g all little navigli\nquorum g", False),
        ("group g any little navigli\nquorum g", True),
        ("group a 2 little smartit navigli\ngroup b any mole\ngroup g all a b\nquorum g", True),
        ("group a 3 little smartit navigli\ngroup b any mole\ngroup g all a b\nquorum g", False),
        ("group a 3 little smartit navigli\ngroup b any mole\ngroup g 1 a b\nquorum g", True),
    ],
)
def test_a_checkpoint_that_witnesses_cosigned(quorum: str, *, holds: bool) -> None:
    policy = witness.parse(f"{REAL_POLICY}{quorum}\n".encode())
    assert [log.name for log in policy.logs] == ["arche2025h1.staging.ct.transparency.dev"]
    if holds:
        policy.check(real(), NOW)
    else:
        with pytest.raises(LogProofError, match="did not cosign it"):
            policy.check(real(), NOW)


def test_a_line_of_a_witness_must_verify_and_others_are_ignored() -> None:
    first, *others = REAL_LINES.splitlines(keepends=True)
    bad = first.replace("zgFIqq", "zgFIqA")
    policy = witness.parse(f"{REAL_POLICY}quorum remora\n".encode())
    policy.check(real("— stranger AAAAAAAAAA==\n", *others), NOW)
    with pytest.raises(LogProofError, match="does not match"):
        policy.check(real(bad, *others), NOW)
    with pytest.raises(LogProofError, match="does not match"):
        policy.check(real().replace(b"1432088532", b"1432088533"), NOW)
    # What is dated after now does not count.
    with pytest.raises(LogProofError, match="did not cosign it"):
        policy.check(real(), datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("kind", COSIGNATURES)
def test_both_kinds_of_cosignature(kind: int) -> None:
    key = generate("ed25519" if kind == 4 else "ml-dsa-44")
    vkey = format_vkey(VerifierKey("w.example", key.public, kind=kind))
    policy = witness.parse(f"witness w {vkey}\nquorum w\n".encode())
    text = f"{REAL_TEXT}extension\n"
    line = cosign(text, "w.example", key, NOW, kind)
    policy.check(note.format(Note(text, (line,))), NOW)
    late = cosign(text, "w.example", key, NOW + timedelta(days=2), kind)
    for wrong in (other(kind), late):
        with pytest.raises(LogProofError):
            policy.check(note.format(Note(text, (wrong,))), NOW)
    policy.check(note.format(Note(text, (late, line))), NOW)


def test_a_cosignature_that_is_too_old_does_not_count() -> None:
    policy = witness.parse(f"{REAL_POLICY}group g 2 remora mole\nquorum g\n".encode())
    policy.check(real(), NOW, max_age=timedelta(days=9))
    with pytest.raises(LogProofError, match="did not cosign it in the last 8 days: 0 did"):
        policy.check(real(), NOW, max_age=timedelta(days=8))
    witness.parse(b"quorum none\n").check(real(), NOW, max_age=timedelta(days=8))


def other(kind: int) -> NoteSignature:
    key = generate("ed25519" if kind == 4 else "ml-dsa-44")
    return cosign(f"{REAL_TEXT}extension\n", "w.example", key, NOW, kind)


WITNESS = "witness w remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2\n"
AGAIN = WITNESS.replace(" w ", " v ")
SMARTIT = (
    "witness s witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO\n"
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\nquorum none\n",
        f"{WITNESS}",
        f"{WITNESS}quorum w\nquorum w\n",
        f"{WITNESS}quorum v\n",
        f"quorum w\n{WITNESS}",
        f"{WITNESS}{WITNESS}quorum w\n",
        f"{WITNESS}{AGAIN}quorum w\n",
        f"{WITNESS.replace(' w ', ' none ')}quorum none\n",
        f"{WITNESS.replace('BOvN', 'AOvN')}quorum w\n",
        f"{WITNESS.replace('da77ade7', 'da77ade8')}quorum w\n",
        f"{WITNESS.replace('witness w', 'log')}quorum none\n",
        f"{WITNESS}group g\nquorum w\n",
        f"{WITNESS}group g all\nquorum w\n",
        f"{WITNESS}group g all none\nquorum w\n",
        f"{WITNESS}group g all g\nquorum w\n",
        f"{WITNESS}group g all x\nquorum w\n",
        f"{WITNESS}group g all w w\nquorum g\n",
        f"{WITNESS}group g 1 w w\nquorum g\n",
        f"{WITNESS}group w all w\nquorum w\n",
        f"{WITNESS}{SMARTIT}group g 0 w s\nquorum g\n",
        f"{WITNESS}{SMARTIT}group g 3 w s\nquorum g\n",
        f"{WITNESS}{SMARTIT}group g 01 w s\nquorum g\n",
        f"{WITNESS}{SMARTIT}group g most w s\nquorum g\n",
        f"{WITNESS}{SMARTIT}group g any w\ngroup h all w s\nquorum h\n",
        f"{WITNESS}quorum w\r\n",
        f"{WITNESS}quorum w now\n",
        f"{WITNESS}Quorum w\n",
        f"{WITNESS}quorum w\0\n",
        f"{WITNESS}# \ud800\nquorum w\n",
    ],
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(MalformedError):
        witness.parse(text.encode("utf-8", "surrogatepass"), where="policy")


@given(st.binary(max_size=100) | st.text("group any w s\n#1", max_size=60).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    try:
        policy = witness.parse(WITNESS.encode() + SMARTIT.encode() + data)
    except MalformedError:
        return
    assert policy.quorum in ("none", *policy.members)
