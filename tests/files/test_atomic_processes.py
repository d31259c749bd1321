"""Other processes: killed in the middle of writing, or racing to the same name."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from provenance.files.atomic import locked, write_file

if TYPE_CHECKING:
    from pathlib import Path


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


KEEP_WRITING = """
import sys
from pathlib import Path
from provenance.files.atomic import write_file
path = Path(sys.argv[1])
print("ready", flush=True)
while True:
    for letter in b"abcd":
        write_file(path, bytes([letter]) * 300_000)
"""


def test_killed_at_any_moment_the_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"a" * 300_000)
    for attempt in range(12):
        with start(KEEP_WRITING, str(path)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.002 + attempt * 0.0013)
            process.kill()
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
    write_file(path, b"e")
    assert listing(tmp_path) == {"file": b"e"}


CREATE = """
import sys
from pathlib import Path
from provenance.errors import UsageError
from provenance.files.atomic import create_file
print("ready", flush=True)
for line in sys.stdin:
    try:
        create_file(Path(line.strip()), sys.argv[1].encode() * 100_000)
        print("made", flush=True)
    except UsageError:
        print("exists", flush=True)
"""


def test_of_eight_processes_one_creates_the_file_whole(tmp_path: Path) -> None:
    processes = [start(CREATE, letter) for letter in "abcdefgh"]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for number in range(20):
            path = tmp_path / str(number)
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{path}\n")
                process.stdin.flush()
            answers = [p.stdout.readline().strip() for p in processes if p.stdout is not None]
            assert sorted(answers) == ["exists"] * 7 + ["made"]
            winner = "abcdefgh"[answers.index("made")]
            assert path.read_bytes() == winner.encode() * 100_000
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert len(listing(tmp_path)) == 20  # no temporary is left


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from provenance.files.atomic import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('in', flush=True); time.sleep(60)"
    )
    with start(code, str(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        process.kill()
    with locked(tmp_path):
        pass
