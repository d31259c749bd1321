"""What no committed file may hold, and what the pins must be."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

# Written so that this file does not match itself.
REGISTRY = re.compile(rb"p[y]pi\.org|p[y]thonhosted|npmj[s]\.org|deb\.deb[i]an\.org")
MACHINE_PATH = re.compile(rb"(?:^|[^A-Za-z0-9._-])/(?:w[o]rk|f[a]rm|r[o]ot)/")

LARGEST = 1024 * 1024
"""Bytes. A clone should stay small: large test data is generated, or comes from a package."""

LARGE_FOR_A_REASON: dict[str, str] = {}
"""Files over :data:`LARGEST`, each with its reason."""

PINS = sorted((REPOSITORY / "requirements").glob("*.txt"))
REQUIREMENT = re.compile(
    r"[a-z0-9-]+(?:\[[a-z0-9,-]+\])?==[0-9][0-9a-z.+!]*(?: ; [^\\]+)? \\\n"
    r"(?:    --hash=sha256:[0-9a-f]{64} \\\n)*"
    r"    --hash=sha256:[0-9a-f]{64}\n"
)


@cache
def tree() -> tuple[str, ...]:
    """Return the files that git tracks or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    names = listing.stdout.decode("utf-8", "surrogateescape").split("\0")
    return tuple(name for name in names if name and (REPOSITORY / name).is_file())


def lines_with(pattern: re.Pattern[bytes]) -> list[str]:
    """Return ``file:line: text`` of each line of a text file that *pattern* matches."""
    found = []
    for name in tree():
        data = (REPOSITORY / name).read_bytes()
        if b"\0" in data[:8000]:  # git's own rule for a binary file
            continue
        for number, line in enumerate(data.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{name}:{number}: {line[:120].decode('utf-8', 'replace')}")
    return found


def test_no_file_names_a_package_registry() -> None:
    assert lines_with(REGISTRY) == []


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    assert lines_with(MACHINE_PATH) == []


def test_the_patterns_match_what_they_are_for() -> None:
    slash = b"/"
    for host in (b"p\x79pi.org", b"files.p\x79thonhosted.org", b"deb.deb\x69an.org"):
        assert REGISTRY.search(b"https://" + host + slash)
    for root in (b"work", b"root"):
        assert MACHINE_PATH.search(b"cd " + slash + root + b"/x")
        assert MACHINE_PATH.search(slash + root + b"/x")
        assert not MACHINE_PATH.search(b"src" + slash + root + b"/x")


def test_no_file_is_large_without_a_reason() -> None:
    large = {name for name in tree() if (REPOSITORY / name).stat().st_size > LARGEST}
    assert large == set(LARGE_FOR_A_REASON)


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.name)
def test_pins_are_exact_hashed_and_name_no_index(path: Path) -> None:
    header, _, body = path.read_text("ascii").partition("\n")
    assert header.startswith("# ")
    assert body
    assert REQUIREMENT.sub("", body) == ""


def test_the_pins_agree_with_each_other() -> None:
    # What runs under test is what the demo and a user run; the peer has its own environment.
    by_file = {path.stem: set(REQUIREMENT.findall(path.read_text("ascii"))) for path in PINS}
    for smaller in ("run", "demo", "build"):
        assert by_file[smaller] <= by_file["dev"], smaller
    assert by_file["run"] < by_file["demo"]
