"""The supervisor: real programs under a real filter."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from provenance.capture.python.records import Reads, read_records
from provenance.capture.run_folder import RunFolder
from provenance.capture.trace import supervisor, tracer
from provenance.capture.trace.tracer import SYSTEM, Trace
from provenance.errors import UnavailableError

GUARD = 300
"""Seconds after which a test that hangs is ended."""

try:
    tracer.check("seccomp")
    PROBLEM = ""
except UnavailableError as error:
    PROBLEM = str(error)
seccomp = pytest.mark.skipif(bool(PROBLEM), reason=PROBLEM)


class Run:
    """A program that is launched under a supervisor in the folder ``work``."""

    def __init__(self, folder: Path, command: list[str], **options: object) -> None:
        self.kept = RunFolder(folder / "run", "run")
        self.work = folder / "work"
        for each in (self.kept.path, self.kept.program, self.work):
            each.mkdir(exist_ok=True)
        self.kept.program.joinpath("records.jsonl").touch()
        self.marker = self.kept.path / supervisor.SUPERVISED
        self.marker.touch()
        left_out = (*SYSTEM, sys.prefix, sys.base_prefix, str(self.kept.path))
        self.kept.write(
            supervisor.TRACE, Trace(roots={str(self.work): ("", ())}, left_out=left_out)
        )
        program = shutil.which(command[0]) or command[0]
        words = tracer.around("seccomp", self.kept, [program, *command[1:]], os.environ)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, cwd=self.work, stdout=pipe, stderr=pipe, **options)  # type: ignore[call-overload]

    def end(self) -> tuple[int, str]:
        out, err = self.process.communicate(timeout=GUARD)
        return self.process.returncode, (out + err).decode()

    @property
    def reads(self) -> Reads:
        return read_records(self.kept.program).reads

    def names(self, paths: object) -> set[str]:
        assert hasattr(paths, "__iter__")
        below = (path for path in paths if path.is_relative_to(self.work))
        return {str(path.relative_to(self.work)) for path in below}

    def supervisors(self) -> list[int]:
        """Return keeper and worker, which have the name of this run's folder in their arguments."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = path.read_bytes()
            except OSError:
                continue
            if b"launch\0" + os.fsencode(self.kept.path) in text:
                found.append(int(path.parent.name))
        return sorted(found)


def run(folder: Path, text: str, *words: str) -> Run:
    """Run the Python program *text* to its end, which is a good one, and wait for what was seen."""
    (folder / "work").mkdir(exist_ok=True)
    (folder / "work" / "program.py").write_text(text)
    found = Run(folder, [sys.executable, "program.py", *words])
    status, output = found.end()
    assert status == 0, output
    wait_for(lambda: not found.marker.exists())
    return found


def wait_for(what: Callable[[], object]) -> None:
    """Wait until *what* is true; a guard against hangs."""
    end = time.monotonic() + GUARD
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def compiled(folder: Path, text: str, *options: str) -> Path:
    """Return a program of the C *text*; skip where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    source, program = folder / "program.c", folder / "program"
    source.write_text(text)
    done = subprocess.run(["gcc", *options, "-o", program, source], check=False)
    if done.returncode:
        pytest.skip(f"the compiler has not what {options} need")
    return program


@seccomp
def test_paths_are_found_by_descriptor_folder_and_thread(tmp_path: Path) -> None:
    work = tmp_path / "work"
    for name in ("a", "b", "sub/c", "sub/d", "e", "source", "shut"):
        (work / name).parent.mkdir(exist_ok=True, parents=True)
        (work / name).write_text("x")
    (work / "link").symlink_to("e")
    found = run(
        tmp_path,
        """
import ctypes, os, threading
os.open("a", os.O_RDONLY)
folder = os.open("sub", os.O_RDONLY)
os.open("c", os.O_RDONLY, dir_fd=folder)
libc = ctypes.CDLL(None)
how = (ctypes.c_uint64 * 3)()
assert libc.syscall(437, -100, b"link", how, 24) > 0  # openat2
os.open("absent", os.O_WRONLY | os.O_CREAT)
os.rename("absent", "renamed")
os.link("renamed", "linked")
os.truncate("b", 0)
os.open("shut", os.O_PATH)
def other():
    libc.unshare(0x200)  # CLONE_FS: a working folder of this thread alone
    os.chdir("sub")
    os.open("d", os.O_RDONLY)
thread = threading.Thread(target=other)
thread.start(), thread.join()
""",
    )
    read, wrote = found.names(found.reads.files), found.names(found.reads.written)
    assert {"program.py", "a", "sub/c", "sub/d", "link", "e"} <= read
    assert {"absent", "renamed", "linked", "b"} == wrote
    assert not (wrote | {"shut"}) & read
    assert found.reads.lost == 0


@seccomp
def test_an_open_that_fails_is_none(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "there").write_text("x")
    (work / "shut").write_text("x")
    (work / "shut").chmod(0)
    found = run(
        tmp_path,
        """
import os
if os.getuid() == 0:
    os.setuid(65534)
for name, mode in (("there", "x"), ("shut", "r"), ("absent", "r"), ("shut", "w"), ("no/a", "w")):
    try:
        open(name, mode)
    except OSError:
        continue
    raise SystemExit(f"{name} {mode} did not fail")
""",
    )
    # Where the run becomes another user, what the supervisor may open is not what the run may.
    expected = {"program.py"} | ({"shut"} if os.getuid() == 0 else set())
    assert found.names(found.reads.files) <= expected
    assert "there" not in found.names(found.reads.written)


@seccomp
def test_children_threads_and_programs_of_other_kinds_are_seen_once(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in ("cat", "many", "spawned"):
        (work / name).write_text("x")
    script = work / "script.sh"
    script.write_text("#!/bin/sh\ncat cat\n")
    script.chmod(0o755)
    found = run(
        tmp_path,
        """
import os, subprocess, threading
os.closerange(3, 4096)  # a program that closes what it did not open
subprocess.run(["./script.sh"], check=True)
os.waitpid(os.posix_spawnp("cat", ["cat", "spawned"], os.environ), 0)
def read():
    for _ in range(200):
        open("many").close()
threads = [threading.Thread(target=read) for _ in range(16)]
[thread.start() for thread in threads]
for _ in range(50):
    if not os.fork():
        open("many").close()
        os._exit(0)
[thread.join() for thread in threads]
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
""",
    )
    assert {"cat", "many", "spawned", "script.sh"} <= found.names(found.reads.files)
    text = found.kept.program.joinpath("records.jsonl").read_text()
    assert text.count("/many") == 1
    assert found.reads.lost == 0


STATIC = r"""
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>
#include <errno.h>
static void tick(int n) { (void)n; }
int main(void) {
  struct sigaction a = {.sa_handler = tick};  /* no SA_RESTART: a call may end with EINTR */
  struct itimerval t = {{0, 200}, {0, 200}};
  int failed = 0;
  sigaction(SIGALRM, &a, 0);
  setitimer(ITIMER_REAL, &t, 0);
  for (int n = 0; n < 5000; n++) {
    int f = open("data", O_RDONLY);
    if (f < 0) failed++; else close(f);
  }
  setitimer(ITIMER_REAL, &(struct itimerval){0}, 0);
  printf("%d\n", failed);
  if (vfork() == 0) { execl("/bin/cat", "cat", "child", (char *)0); _exit(1); }
  return 0;
}
"""


@seccomp
def test_a_static_program_and_the_child_of_a_vfork_are_seen(tmp_path: Path) -> None:
    program = compiled(tmp_path, STATIC, "-static")
    work = tmp_path / "work"
    work.mkdir()
    (work / "data").write_text("x")
    (work / "child").write_text("x")
    found = Run(tmp_path, [str(program)])
    status, _ = found.end()
    assert status == 0
    wait_for(lambda: not found.marker.exists())
    assert found.names(found.reads.files) == {"data", "child"}
    assert program in found.reads.files  # a program is read, too


OWN_FILTER = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
rows = [(0x20, 0, 0, 0), (0x15, 0, 1, 83), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in rows))
assert libc.syscall(317, 1, 0, struct.pack("@HP", 4, ctypes.addressof(code))) == 0
try:
    os.mkdir("folder")
except PermissionError:
    open("own").close()
assert libc.syscall(317, 1, 8, struct.pack("@HP", 4, ctypes.addressof(code))) == -1
print(ctypes.get_errno())
"""


@seccomp
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are of x86-64")
def test_a_program_may_have_filters_of_its_own_but_no_listener(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "own").touch()
    found = run(tmp_path, OWN_FILTER)
    assert "own" in found.names(found.reads.files)


@seccomp
@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_a_program_may_be_traced_under_it(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a").touch()
    found = Run(tmp_path, ["strace", "-f", "-o", "/dev/null", "cat", "a"])
    assert found.end() == (0, "")
    wait_for(lambda: not found.marker.exists())
    assert "a" in found.names(found.reads.files)


@seccomp
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
def test_numbers_that_mean_other_processes_in_proc_are_refused(tmp_path: Path) -> None:
    """As in a container that was given the /proc of its host."""
    text = "from provenance.capture.trace import tracer; tracer.check('seccomp')"
    inside = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    words = [*inside, sys.executable, "-c", text]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "UnavailableError: --trace seccomp: /proc is of another pid namespace" in done.stderr


@seccomp
def test_what_means_another_file_to_the_program_is_lost(tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root may")
    work = tmp_path / "work"
    (work / "jail").mkdir(parents=True)
    (work / "jail/a").touch()
    (work / "a").touch()
    found = run(
        tmp_path,
        """
import os
os.chroot("jail")
os.chdir("/")
os.open("/a", os.O_RDONLY)
os.open("a", os.O_RDONLY)
""",
    )
    assert found.names(found.reads.files) == {"program.py"}
    assert found.reads.lost >= 1


@seccomp
def test_names_that_are_no_text_or_too_many_are_counted(
    tmp_path: Path,
) -> None:
    found = run(
        tmp_path,
        """
import os, ctypes
open(b"bad-\\xff", "w").close()
deep = "d" * 250
os.mkdir(deep)
for n in range(300):
    try: open("/".join(["."] * 1900) + f"/{n}")
    except OSError: pass
for n in range(20):
    open(f"{deep}/{n:0250}", "w").close()
try: open("x" * 5000)
except OSError: pass
libc = ctypes.CDLL(None)
assert libc.syscall(257, -100, ctypes.c_void_p(1), 0) == -1  # a path that is nowhere
""",
    )
    assert found.reads.lost >= 1
    assert len([name for name in found.names(found.reads.written) if "ddd" in name]) == 20


def test_what_is_told_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor.Seen, "max_files", 100)
    kept = RunFolder(tmp_path, "run")
    kept.program.mkdir()
    kept.program.joinpath("records.jsonl").touch()
    kept.write(supervisor.TRACE, Trace(roots={str(tmp_path): ("", ())}))
    seen = supervisor.Seen.of(str(tmp_path))
    for number in range(1000):
        (tmp_path / f"{number}").touch()
        seen.opened((str(tmp_path / f"{number}"), None, os.O_RDWR))
    reads = read_records(kept.program).reads
    assert len(seen.read_files) == len(seen.written_files) == len(reads.files) == 100
    assert 900 < reads.lost <= seen.lost == 1800


def test_what_is_written_in_the_models_folder_is_told_once(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path, "run")
    kept.program.mkdir()
    model = tmp_path / "model"
    model.mkdir()
    kept.write(supervisor.TRACE, Trace(roots={str(tmp_path): ("", ())}, model=str(model)))
    seen = supervisor.Seen.of(str(tmp_path))
    for name in ("weights", "config"):
        seen.opened((str(model / name), "w", 0))
    assert seen.written_files == {str(model)}


@seccomp
def test_a_program_that_is_killed_leaves_no_supervisor(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "program.py").write_text("import os\nwhile True: open('program.py').close()")
    found = Run(tmp_path, [sys.executable, "program.py"])
    wait_for(lambda: bool(found.names(found.reads.files)))
    found.process.kill()
    assert found.end()[0] == -signal.SIGKILL
    wait_for(lambda: not found.supervisors())
    assert not found.marker.exists()


@seccomp
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_ends_or_stands_still_does_not_stop_the_program(
    tmp_path: Path, number: int
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    text = "import time\nfor n in range(20):\n    open(__file__).close(); time.sleep(0.02)"
    (work / "program.py").write_text(text)
    found = Run(tmp_path, [sys.executable, "program.py"])
    wait_for(lambda: found.names(found.reads.files))
    worker = max(found.supervisors(), key=started)
    os.kill(worker, number)
    assert found.end() == (0, "")
    wait_for(lambda: not found.marker.exists())
    assert found.reads.lost >= 1


@seccomp
def test_without_a_supervisor_the_calls_fail(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    text = "import errno\nwhile True:\n    try: open(__file__).close()\n"
    text += "    except OSError as error: print(errno.errorcode[error.errno]); break\n"
    (work / "program.py").write_text(text)
    found = Run(tmp_path, [sys.executable, "program.py"])
    wait_for(lambda: found.names(found.reads.files))
    for pid in sorted(found.supervisors(), key=started):
        os.kill(pid, signal.SIGKILL)
    assert found.end()[1].startswith("ENOSYS")
    assert found.marker.exists()


def started(pid: int) -> tuple[int, int]:
    """Return when the process *pid* was started, as far as it is known."""
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]), pid


@seccomp
def test_the_launcher_changes_nothing_that_a_program_sees(tmp_path: Path) -> None:
    words = ["sh", "-c", "env; trap; grep SigIgn /proc/self/status; ls /proc/$$/fd"]
    found = Run(tmp_path, words)
    plain = subprocess.run(words, cwd=found.work, check=True, capture_output=True, text=True)
    ours, theirs = sorted(found.end()[1].split()), sorted(plain.stdout.split())
    assert [x for x in ours if not x.isdigit()] == [x for x in theirs if not x.isdigit()]


@seccomp
def test_a_program_that_cannot_be_run_is_said(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\x7fELF nonsense")
    bad.chmod(0o755)
    status, output = Run(tmp_path, [str(bad)]).end()
    assert status == 126
    assert "exec format error" in output


@seccomp
def test_a_trace_in_a_trace_is_refused(tmp_path: Path) -> None:
    text = "from provenance.capture.trace import tracer\ntracer.check('seccomp')"
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "program.py").write_text(text)
    path = os.pathsep.join(sys.path)
    found = Run(tmp_path, [sys.executable, "program.py"], env=os.environ | {"PYTHONPATH": path})
    status, output = found.end()
    assert status == 1
    assert "busy" in output


def emulate(code: bytes, arch: int, number: int) -> int:
    """Return what the program of BPF *code* returns: the four instructions that ours has."""
    rows = list(struct.iter_unpack("=HBBI", code))
    at = value = 0
    while True:
        kind, yes, no, k = rows[at]
        if kind == 0x06:
            return int(k)
        if kind == 0x20:
            value = {0: number, 4: arch}[k]
            at += 1
        else:
            at += 1 + (yes if (value == k if kind == 0x15 else value >= k) else no)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_takes_the_calls_of_the_table_and_of_one_abi(machine: str) -> None:
    code, (arch, _) = supervisor.filter_of(machine), supervisor.MACHINES[machine]
    traced = supervisor.numbers(machine)
    for number in range(600):
        notified = emulate(code, arch, number) == 0x7FC00000
        assert notified == (number in traced), number
    for number in traced:
        assert emulate(code, 0x40000003, number) == 0x7FFF0000  # i386
        assert emulate(code, arch, number | 0x40000000) == 0x7FFF0000  # x32


def test_the_tables_are_those_of_the_kernel() -> None:
    aarch64 = {"openat": 56, "renameat": 38, "linkat": 37, "truncate": 45, "execve": 221}
    aarch64 |= {"execveat": 281, "renameat2": 276, "openat2": 437}
    aarch64 |= {"open_by_handle_at": 265, "io_uring_setup": 425}
    assert {name: number for number, name in supervisor.numbers("aarch64").items()} == aarch64
    names = {name: number for number, name in supervisor.numbers("x86_64").items()}
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if header.exists():
        for line in header.read_text().splitlines():
            word = line.split()
            if len(word) == 3 and word[1].removeprefix("__NR_") in names:
                assert names[word[1].removeprefix("__NR_")] == int(word[2])
    assert names.keys() == supervisor.CALLS.keys()


def hexed(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(text))


def test_strace_is_read() -> None:
    cwd, name, at = hexed("/w d"), hexed("a.txt"), hexed("/w d/a.txt")
    lines = {
        f'7 openat(AT_FDCWD<{cwd}>, "{name}", O_RDONLY|O_CLOEXEC) = 3<{at}>':
            ("/w d/a.txt", None, os.O_CLOEXEC),
        f'7  open("{name}", O_RDWR|O_CREAT|O_EXCL, 0666) = 13<{at}>':
            ("/w d/a.txt", None, os.O_RDWR | os.O_CREAT),
        f'7 openat2(5<{cwd}>, "{name}", {{flags=O_WRONLY, resolve=0}}, 24) = 3<{at}>':
            ("/w d/a.txt", None, os.O_WRONLY),
        f'7 openat(AT_FDCWD<{cwd}>, "{hexed("O_RDWR) = 3</x>")}", O_RDONLY) = 3<{hexed(">")}>':
            (">", None, 0),
        f'7 openat(AT_FDCWD<{cwd}>, "{name}", O_RDONLY) = -1 ENOENT (No such file)': None,
        f'7 openat(AT_FDCWD<{cwd}>, "{name}", O_RDONLY <unfinished ...>': None,
        "7 +++ exited with 0 +++": None,
        "nonsense": None,
    }  # fmt: skip
    for line, expected in lines.items():
        assert supervisor.parse_strace(line.encode() + b"\n") == expected, line
