"""inotify: real events of real files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from provenance.capture.trace import inotify as module
from provenance.capture.trace.inotify import Event, Inotify
from provenance.errors import UnavailableError, UnreadableError

linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


def until_quiet(inotify: Inotify) -> list[Event]:
    found: list[Event] = []
    while events := inotify.read():
        found += events
    return found


@linux
def test_tells_what_is_opened_written_and_moved(tmp_path: Path) -> None:
    data, folder = tmp_path / "data.bin", tmp_path / "folder"
    data.write_bytes(b"1")
    folder.mkdir()
    with Inotify() as inotify:
        inotify.add(data, module.OPEN | module.MODIFY)
        inotify.add(folder, module.CLOSE_WRITE | module.MOVED_FROM | module.MOVED_TO)
        assert inotify.read() == []
        data.read_bytes()
        assert until_quiet(inotify) == [Event(data, module.OPEN)]
        (folder / "a\udcff.tmp").write_bytes(b"2")
        (folder / "a\udcff.tmp").rename(folder / "a")
        written, moved, to = until_quiet(inotify)
        assert written == Event(folder / "a\udcff.tmp", module.CLOSE_WRITE)
        assert moved == Event(folder / "a\udcff.tmp", module.MOVED_FROM, to.cookie)
        assert to == Event(folder / "a", module.MOVED_TO, moved.cookie)


@linux
def test_a_watch_that_ends_says_so_and_then_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data.bin"
    data.write_bytes(b"1")
    with Inotify() as inotify:
        inotify.add(data, module.DELETE_SELF)
        data.unlink()
        data.write_bytes(b"2")
        assert until_quiet(inotify) == [
            Event(data, module.DELETE_SELF),
            Event(data, module.IGNORED),
        ]


@linux
def test_an_overflow_is_an_event(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    names = [tmp_path / name for name in "ab"]
    for name in names:
        name.touch()
    with Inotify() as inotify:
        inotify.add(tmp_path, module.OPEN)
        for number in range(limit + 2):  # two names: equal neighbours are one event
            names[number % 2].open("rb").close()
        found = until_quiet(inotify)
    assert found[-1] == Event(None, module.Q_OVERFLOW)
    assert len(found) == limit + 1


@linux
def test_what_cannot_be_watched_is_refused(tmp_path: Path) -> None:
    with Inotify() as inotify, pytest.raises(UnreadableError, match="no such file"):
        inotify.add(tmp_path / "absent", module.OPEN)


def test_elsewhere_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UnavailableError, match="Linux"):
        Inotify()
