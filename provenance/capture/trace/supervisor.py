"""The program that sees which files a run opens: the mechanisms ``seccomp`` and ``strace``.

It is started by itself, imports nothing but Python, and puts what it sees into the run's records by
the rules of :mod:`provenance.capture.python.inside`.

*seccomp* (seccomp_unotify(2), docs/adr/0035): the kernel stops each thread of the run that opens,
renames, links, truncates or starts a file until this program has answered, and the answer is always
*go on*. Without anybody who answers the calls fail, so it is a session of its own, of two
processes. The *worker* looks at files; if it dies or stands still (in a file system that the run
serves, which waits for the run), the *keeper* answers in its place, and looks at nothing.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import re
import select
import signal
import socket
import struct
import sys
import time

from provenance.capture.python.inside import SKIPPED, Watch

TRACE, SUPERVISED = "trace.json", "supervised"
"""Files in the run's folder: what is known before; one that is there until all was seen."""

_NONE = -1
CALLS: dict[str, tuple[int, int, int, int, int, str]] = {
    # name: (number on x86-64, on aarch64, its arguments that name folder, path, flags; access)
    "open": (2, _NONE, _NONE, 0, 1, ""),
    "creat": (85, _NONE, _NONE, 0, _NONE, "w"),
    "openat": (257, 56, 0, 1, 2, ""),
    "openat2": (437, 437, 0, 1, 2, ""),
    "execve": (59, 221, _NONE, 0, _NONE, "r"),
    "execveat": (322, 281, 0, 1, _NONE, "r"),
    "truncate": (76, 45, _NONE, 0, _NONE, "w"),
    "rename": (82, _NONE, _NONE, 1, _NONE, "w"),
    "renameat": (264, 38, 2, 3, _NONE, "w"),
    "renameat2": (316, 276, 2, 3, _NONE, "w"),
    "link": (86, _NONE, _NONE, 1, _NONE, "w"),
    "linkat": (265, 37, 2, 3, _NONE, "w"),
    "open_by_handle_at": (304, 265, _NONE, _NONE, _NONE, ""),
    "io_uring_setup": (425, 425, _NONE, _NONE, _NONE, ""),
}
"""<asm/unistd.h>. That of aarch64 has not been run. What names no path is counted as lost."""

MACHINES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}
"""<linux/audit.h>, and the number of seccomp(2)."""

MAX_TOLD = 16384
"""Most files of each kind (read, written) that are told."""

SECONDS_TO_LOOK = 5.0
"""How long the worker may stand still while the run waits for it."""

_PATH_BYTES = 4096
_RECV, _SEND, _VALID, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40082104
_NOTIFICATION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_CONTINUE = 1
_AT_FDCWD = -100
_NO_NEW_PRIVS, _DUMPABLE = 38, 4
_NEW_LISTENER, _WAIT_KILLABLE = 8, 32
_libc = ctypes.CDLL(None, use_errno=True)


class Seen(Watch):
    """What is told of a run as a whole: each path once for reading and once for writing."""

    max_files = MAX_TOLD
    everywhere = True

    def kind(self, folder: str) -> int:
        """Leave out what is installed, and what git keeps."""
        if {"site-packages", "dist-packages", ".git"}.isdisjoint(folder.split("/")):
            return super().kind(folder)
        return SKIPPED

    @classmethod
    def of(cls, run: str) -> "Seen":
        """Return what tells in the run's folder *run*."""
        with open(f"{run}/{TRACE}", "rb") as file:  # noqa: PTH123 - pathlib costs 10 ms
            known = json.load(file)
        told = f"{run}/program/records.jsonl"
        return cls(told, (known["roots"], known["left_out"], [known["model"]]), None)


def numbers(machine: str) -> dict[int, str]:
    """Return the calls by their numbers on *machine*."""
    found = {(row[0] if machine == "x86_64" else row[1]): name for name, row in CALLS.items()}
    return {number: name for number, name in found.items() if number != _NONE}


def filter_of(machine: str) -> bytes:
    """Return the program of BPF that has the calls of *machine* notified, and no other ABI's."""
    traced, arch = sorted(numbers(machine)), MACHINES[machine][0]
    allowed, notified = 0x7FFF0000, 0x7FC00000
    rows = [
        (0x20, 0, 0, 4),  # load the architecture
        (0x15, 0, len(traced) + 2, arch),
        (0x20, 0, 0, 0),  # load the number
        (0x35, len(traced), 0, 0x40000000),  # x32
        *((0x15, len(traced) - n, 0, number) for n, number in enumerate(traced)),
        (0x06, 0, 0, allowed),
        (0x06, 0, 0, notified),
    ]
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


def put_filter_on() -> int:
    """Put the filter on this process for good, and return its listener.

    Where it can (Linux 5.19), it has a signal not end a call that is being looked at.
    """
    code = ctypes.create_string_buffer(filter_of(platform.machine()))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(code))  # struct sock_fprog
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):
        found: int = _libc.syscall(MACHINES[platform.machine()][1], 1, flags, program)
        if found >= 0:
            return found
        if (number := ctypes.get_errno()) != errno.EINVAL:
            break
    raise OSError(number, os.strerror(number))


class Supervisor:
    """Answers; the *notification* that is being answered lies in memory that workers share."""

    def __init__(self, listener: int, seen: Seen) -> None:
        """Answer *listener*, and tell *seen*."""
        self.listener, self.seen = listener, seen
        self.notification = mmap.mmap(-1, mmap.PAGESIZE)
        self.calls = numbers(platform.machine())
        self.mounts = os.readlink("/proc/self/ns/mnt")  # noqa: PTH115 - pathlib costs 10 ms
        self.poll = select.poll()
        self.poll.register(listener, select.POLLIN)
        with contextlib.suppress(OSError):  # Linux 6.6: it wakes the answered thread here
            fcntl.ioctl(listener, _SET_FLAGS, 1)

    def next(self) -> tuple[int, ...] | None:
        """Return the next notification, or None when no process of the run is left."""
        while self.poll.poll()[0][1] & select.POLLIN:
            self.notification[: _NOTIFICATION.size] = bytes(_NOTIFICATION.size)
            with contextlib.suppress(OSError):  # it was killed meanwhile
                fcntl.ioctl(self.listener, _RECV, self.notification)
                return _NOTIFICATION.unpack_from(self.notification)
        return None

    def let_go(self, number: int) -> None:
        """Let the call *number* go on."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.listener, _SEND, _ANSWER.pack(number, 0, 0, _CONTINUE))

    def waits(self, number: int) -> bool:
        """Tell whether the caller of *number* still waits."""
        try:
            fcntl.ioctl(self.listener, _VALID, struct.pack("=Q", number))
        except OSError:
            return False
        return True

    def work(self, *, looking: bool = True) -> None:
        """Answer until no process of the run is left."""
        while (notification := self.next()) is not None:
            try:
                if looking and CALLS[self.calls[notification[3]]][3] != _NONE:
                    self.look(*notification)
                else:
                    self.seen.lose()
            except (ProcessLookupError, FileNotFoundError):
                pass  # it was killed, or names what is not there
            except Exception:  # noqa: BLE001 - the run must go on
                self.seen.lose()
            self.let_go(notification[0])

    def look(self, number: int, tid: int, _flags: int, call: int, *more: int) -> None:
        """See what the thread *tid* does, which is stopped in *call*."""
        name, arguments = self.calls[call], more[2:]
        _, _, folder, path, flags, how = CALLS[name]
        text = os.fsdecode(memory(tid, arguments[path], _PATH_BYTES).partition(b"\0")[0])
        if not text.startswith("/"):
            if not text and name != "execveat":
                return  # it fails
            at = ctypes.c_int32(arguments[folder] & 0xFFFFFFFF).value if folder >= 0 else _AT_FDCWD
            place = "cwd" if at == _AT_FDCWD else f"fd/{at}"
            text = f"{os.readlink(f'/proc/{tid}/{place}')}/{text}".rstrip("/")  # noqa: PTH115 - as above
        given = 0 if how else arguments[flags]
        if name == "openat2":  # its flags are in a structure
            given = struct.unpack("=Q", memory(tid, given, 8))[0]
        reads = how != "w" and not given & (os.O_ACCMODE | os.O_TRUNC)
        if reads and (
            text in self.seen.read_files
            or self.seen.folders.get(text.rpartition("/")[0]) == SKIPPED
        ):
            return
        root, mounts = (os.readlink(f"/proc/{tid}/{each}") for each in ("root", "ns/mnt"))  # noqa: PTH115 - as above
        if not self.waits(number):
            return  # it was killed, and another may have its thread id
        if root != "/" or mounts != self.mounts:
            self.seen.lose()  # its path may mean another file here
        elif how == "r":
            self.seen.read(text)
        elif how == "w":
            self.seen.wrote(text)
        elif not given & os.O_PATH:
            self.seen.opened((text, None, given))

    def guard(self, worker: int) -> None:
        """Wait for the end of *worker*; end it if it stands still, and let go whom it looked at."""
        since, last = time.monotonic(), 0
        while not os.waitpid(worker, os.WNOHANG)[0]:
            now = _NOTIFICATION.unpack_from(self.notification)[0]
            if now != last or not (self.waits(now) or self.poll.poll(0)):
                since, last = time.monotonic(), now
            if time.monotonic() - since > SECONDS_TO_LOOK:
                os.kill(worker, signal.SIGKILL)
            time.sleep(0.1)
        self.let_go(_NOTIFICATION.unpack_from(self.notification)[0])


_buffer = ctypes.create_string_buffer(_PATH_BYTES)
_local = (ctypes.c_uint64 * 2)(ctypes.addressof(_buffer), _PATH_BYTES)
_remote = (ctypes.c_uint64 * 4)()
_ZERO, _ONE, _TWO = map(ctypes.c_ulong, range(3))


def memory(tid: int, address: int, size: int) -> bytes:
    """Return up to *size* bytes from *address* of *tid*, without those of pages that it lacks."""
    first = min(size, 4096 - address % 4096)
    _remote[:] = [address, first, address + first, size - first]
    count = _libc.process_vm_readv(tid, _local, _ONE, _remote, _TWO, _ZERO)
    if count >= 0:
        return ctypes.string_at(_buffer, count)
    if (number := ctypes.get_errno()) == errno.EFAULT:
        raise FileNotFoundError(number)  # the call fails
    raise OSError(number, os.strerror(number))


def launch(run: str, program: str, words: list[str]) -> None:
    """Become *program*, with a filter on and a keeper that answers for the run in the folder."""
    with open("/proc/self/environ", "rb") as file:  # noqa: PTH123 - Python may have changed it
        given = [item.partition(b"=") for item in file.read().split(b"\0") if item]
    here, there = socket.socketpair()
    if not os.fork():
        try:
            if not os.fork():
                keep(run, here)
        finally:
            os._exit(0)
    os.wait()
    here.close()
    listener = put_filter_on()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", listener))
    there.sendmsg([b"f"], [rights])  # send_fds would import, which waits for an answer
    os.close(listener)
    os.close(os.open("/", os.O_RDONLY))
    if (said := there.recv(256)) != b"ok":
        raise OSError(0, said.decode() or "nobody answers")
    there.close()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    os.execve(program, words, {name: value for name, _, value in given})  # noqa: S606 - the words that the user gave


def keep(run: str, line: socket.socket) -> None:
    """Answer for the run from a session of its own, until its last process has ended."""
    os.setsid()
    os.chdir("/")
    _libc.prctl(_DUMPABLE, 0, 0, 0, 0)  # the run must not trace it
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    line = socket.socket(fileno=os.dup2(line.detach(), 3))
    for standard in range(3):  # the run's, which somebody may read to their end
        os.dup2(os.open(os.devnull, os.O_RDWR), standard)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    _, descriptors, _, _ = socket.recv_fds(line, 1, 1)
    if not descriptors:
        return  # there is no filter
    ours = Supervisor(descriptors[0], Seen.of(run))
    if (first := ours.next()) is None:
        return
    said = b"ok"
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115 - as above
            raise OSError(0, "/proc is of another PID namespace")  # noqa: TRY301 - said like others
        memory(first[1], first[6 + CALLS[ours.calls[first[3]]][3]], 2)
    except OSError as error:
        said = os.fsencode(error.strerror or "")
    ours.let_go(first[0])
    line.send(said)
    line.close()
    if not (worker := os.fork()):
        try:
            ours.seen.pid = os.getpid()  # not a fork of a Python of the run
            ours.work()
        finally:
            os._exit(0)
    ours.guard(worker)
    ours.work(looking=False)
    os.unlink(f"{run}/{SUPERVISED}")  # noqa: PTH108 - as above


_OPENED = re.compile(rb"\d+ +open\w*\((.*)\) = \d+<(.*)>\n", re.DOTALL)


def parse_strace(line: bytes) -> tuple[str, None, int] | None:
    """Return path, mode and flags of the open that a *line* of ``strace -z -y -xx`` tells."""
    if (match := _OPENED.fullmatch(line)) is None:
        return None
    flags = {getattr(os, name.decode(), 0) for name in re.findall(rb"O_[A-Z]+", match[1])}
    path = re.sub(rb"\\x([0-9a-f]{2})", lambda byte: bytes([int(byte[1], 16)]), match[2])
    return os.fsdecode(path), None, sum(flags - {os.O_EXCL})  # it is there by now


def read_strace(run: str) -> None:
    """Take what strace prints on the standard input about the run in the folder."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    seen = Seen.of(run)
    while line := sys.stdin.buffer.readline(2**16):
        if (found := parse_strace(line)) is not None:
            seen.opened(found)
        else:  # a ring, which opens unseen, or a longer line than any
            seen.lose()
    os.unlink(f"{run}/{SUPERVISED}")  # noqa: PTH108 - as above


def main() -> None:
    """Do what the words of the command line say."""
    _, how, run, *words = sys.argv
    if how == "strace":
        read_strace(run)
        return
    try:
        launch(run, words[0], words[1:])
    except (OSError, KeyError) as error:
        text = getattr(error, "strerror", None) or f"no table of calls for {error}"
        os.write(2, os.fsencode(f"provenance: {how}: {text.lower()}\n"))
        os._exit(126)
