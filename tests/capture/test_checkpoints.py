from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.capture import chain, checkpoints, made
from provenance.capture.chain import Checkpoint, Files
from provenance.capture.checkpoints import CHAIN, Watcher, read_chain
from provenance.capture.python import records
from provenance.capture.run import RECORDS
from provenance.encoding import strict_json
from provenance.errors import (
    ContentError,
    MalformedError,
    UnavailableError,
    UnreadableError,
)
from provenance.files.manifest import hash_folder
from provenance.statement.training import describe_input
from provenance.transparency import merkle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 300
"""A guard against hanging, not a measure."""


@dataclass
class Run:
    """A run under a watcher, which writes below ``model`` and ``work``."""

    work: Path
    model: Path
    kept: Path

    def watch(self) -> Watcher:
        return Watcher(self.kept, self.kept / "program", str(self.model), self.work)

    def save(self, name: str, data: bytes = b"weights", **others: bytes) -> Path:
        """Let a whole checkpoint appear at once, as writers do that rename."""
        folder = self.kept / "saving"
        folder.mkdir()
        for file, content in {"model.safetensors": data, **others}.items():
            (folder / file.replace("__", ".")).write_bytes(content)
        return folder.rename(self.model / name)

    def tell(self, path: Path | str, step: int | None = None) -> None:
        said = {"checkpoint": str(path)} | ({} if step is None else {"step": step})
        with (self.kept / "program" / RECORDS).open("a") as file:
            file.write(f"\n{json.dumps(said, separators=(',', ':'))}\n")

    @property
    def chain(self) -> list[Checkpoint]:
        return [each for each in read_chain(self.kept).lines.values() if not each.by]

    def end(self, watcher: Watcher) -> list[Checkpoint]:
        """End the run as a recorder does, and return the chain."""
        files = made._look_at(self.model, refuse=lambda _: None) if self.model.exists() else {}  # noqa: SLF001 - as made does
        watcher.end(files)
        return self.chain


@pytest.fixture
def run(tmp_path: Path) -> Run:
    work, kept = tmp_path / "work", tmp_path / "kept"
    for folder in (work / "out", kept / "program"):
        folder.mkdir(parents=True)
    records.prepare(kept / "program")
    return Run(work, work / "out", kept)


@pytest.fixture(params=["inotify", "looks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How it is told when to look."""
    if request.param == "looks":

        def refuse() -> None:
            raise UnavailableError("inotify is Linux's")

        monkeypatch.setattr("provenance.capture.trace.inotify.Inotify", refuse)
    return str(request.param)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "QUIET_S", 0.02)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_each_checkpoint_is_hashed_while_the_run_goes_on(run: Run, way: str) -> None:
    state = strict_json.format({"global_step": 7})
    with run.watch() as watcher:
        first = run.save(
            "checkpoint-5", optimizer__pt=b"o", scheduler__pt=b"s", rng_state__pth=b"r"
        )
        wait_for(lambda: len(run.chain) == 1)
        manifest = describe_input("", hash_folder(first))[0].manifest
        run.save("checkpoint-6", b"other", trainer_state__json=state)
        wait_for(lambda: len(run.chain) == 2)
    found = run.end(watcher)
    assert [(each.name, each.step) for each in found] == [
        ("${model}/checkpoint-5", 5),
        ("${model}/checkpoint-6", 7),
    ], way
    assert found[0].manifest == manifest
    assert found[0].size == 7 + 3
    assert found[0].time.endswith("Z")
    roles = {file.name: file.role for file in found[0].files}
    assert roles == {
        "model.safetensors": "weights",
        "optimizer.pt": "optimizer",
        "scheduler.pt": "scheduler",
        "rng_state.pth": "rng",
    }


def rewrite(path: Path, data: bytes) -> None:
    path.with_suffix(".tmp").write_bytes(data)
    path.with_suffix(".tmp").rename(path)


def test_each_state_of_a_file_that_is_written_again_is_one(run: Run, way: str) -> None:
    last = run.model / "last.pt"
    with run.watch() as watcher:
        for number in range(3):
            rewrite(last, b"state %d" % number)
            wait_for(lambda: _hashed(watcher, "${model}/last.pt"))
    found = run.end(watcher)
    sizes = [(each.name, each.step, each.size) for each in found]
    assert sizes == [("${model}/last.pt", None, 7)] * 3, way
    assert len({each.manifest for each in found}) == 3
    said = read_chain(run.kept).summary()
    assert (said["by"], said.get("missed")) == (way, None)


def _hashed(watcher: Watcher, name: str) -> bool:
    """Tell whether the file *name* was hashed as it is."""
    known = watcher._known.get(name)  # noqa: SLF001 - a state that is held back is nowhere else
    now = chain.look(watcher._path(name)).state  # noqa: SLF001 - as above
    return known is not None and known.hashed and known.state == now


def test_a_model_that_is_written_once_is_no_checkpoint(run: Run) -> None:
    with run.watch() as watcher:
        rewrite(run.model / "model.safetensors", b"the model")
        wait_for(lambda: _hashed(watcher, "${model}/model.safetensors"))
    assert run.end(watcher) == []


def test_records_of_terabytes_are_not_held_in_memory(run: Run) -> None:
    watcher = run.watch()
    os.truncate(run.kept / "program" / RECORDS, 2**43)
    with watcher:
        pass
    assert [each.missed for each in run.end(watcher)] == ["a record is longer than any"]


def test_what_was_there_before_the_run_is_no_checkpoint_of_it(run: Run) -> None:
    run.save("checkpoint-1")
    with run.watch() as watcher:
        run.save("checkpoint-2")
        wait_for(lambda: run.chain)
    assert [each.name for each in run.end(watcher)] == ["${model}/checkpoint-2"]


def test_the_last_checkpoints_are_not_read_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "QUIET_S", PATIENCE_S)  # nothing is hashed during the run
    with run.watch() as watcher:
        folder = run.save("checkpoint-3")
        manifest = describe_input("", hash_folder(folder))[0].manifest
    monkeypatch.setattr(chain, "hash_files", lambda *_: pytest.fail("read twice"))
    assert [each.manifest for each in run.end(watcher)] == [manifest]


def test_a_checkpoint_that_is_deleted_before_it_is_hashed_is_missed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = threading.Event()

    def delete(top: Path, base: str, *_: object) -> None:
        if base == "checkpoint-1/":
            (top / base / "model.safetensors").unlink()
            (top / base).rmdir()
        read.set()
        raise UnreadableError("no such file")

    with monkeypatch.context() as patch, run.watch() as watcher:
        patch.setattr(chain, "hash_files", delete)
        run.save("checkpoint-1")
        wait_for(read.is_set)
        wait_for(lambda: run.chain)
    found = run.end(watcher)
    assert [(each.name, each.step, each.missed) for each in found] == [
        ("${model}/checkpoint-1", 1, "gone before it was hashed")
    ]


def test_a_checkpoint_that_changes_while_it_is_hashed_is_hashed_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, changed = chain.hash_files, threading.Event()

    def change(top: Path, base: str, found: Files, *rest: object) -> Files:
        if not changed.is_set():
            rewrite(top / base / "model.safetensors", b"changed")
            changed.set()
        return real(top, base, found, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(chain, "hash_files", change)
    with run.watch() as watcher:
        folder = run.save("checkpoint-1")
        wait_for(lambda: run.chain)
    [found] = run.end(watcher)
    assert found.manifest == describe_input("", hash_folder(folder))[0].manifest
    assert (folder / "model.safetensors").read_bytes() == b"changed"


def test_one_that_never_stands_still_is_missed_in_the_end(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grow(top: Path, base: str, found: Files, *_: object) -> Files:
        for name in found.names:
            with (top / base / name).open("ab") as file:
                file.write(b"more")
        raise UnreadableError("changed while it was read")

    monkeypatch.setattr(chain, "hash_files", grow)
    monkeypatch.setattr(checkpoints, "_known_from", lambda *_: None)
    with run.watch() as watcher:
        folder = run.save("checkpoint-1")
        wait_for(lambda: (folder / "model.safetensors").stat().st_size > 20)
    [found] = run.end(watcher)
    assert (found.step, found.missed) == (1, "changed while it was read")


def test_links_fifos_and_devices_are_left_out_and_nothing_outside_is_read(run: Run) -> None:
    secret = run.work / "secret.pt"
    secret.write_bytes(b"outside")
    with run.watch() as watcher:
        folder = run.kept / "saving"
        folder.mkdir()
        os.mkfifo(folder / "pipe.pt")
        (folder / "link.pt").symlink_to(secret)
        (folder / "out").symlink_to(run.work)
        (folder / "model.pt").write_bytes(b"inside")
        folder.rename(run.model / "checkpoint-1")
        (run.model / "checkpoint-2").symlink_to(run.work)
        (run.model / "epoch=1-step=5.ckpt").symlink_to(secret)
        wait_for(lambda: run.chain)
    [found] = run.end(watcher)
    assert (found.name, found.count, found.left_out) == ("${model}/checkpoint-1", 1, 3)
    assert [file.name for file in found.files] == ["model.pt"]


def test_a_file_behind_a_folder_that_becomes_a_link_is_not_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "model/checkpoint-1/part", tmp_path / "outside"
    inside.mkdir(parents=True)
    outside.mkdir()
    (outside / "model.pt").write_bytes(b"outside")
    os.link(outside / "model.pt", inside / "model.pt")  # the very same file
    found = chain.look(tmp_path / "model/checkpoint-1")
    inside.rename(tmp_path / "elsewhere")
    inside.symlink_to(outside)
    with pytest.raises(UnreadableError):
        chain.hash_files(tmp_path / "model", "checkpoint-1/", found)


def test_what_the_program_says_is_hashed_below_its_folder_alone(run: Run, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.pt").write_bytes(b"outside")
    (run.model / "best").mkdir()
    (run.model / "best/model.pt").write_bytes(b"best")
    (run.work / "state.bin").write_bytes(b"state")
    (run.model / "to").symlink_to(outside)
    with run.watch() as watcher:
        run.tell(run.model / "best", 30)
        run.tell(run.work / "state.bin", 40)
        run.tell(outside, 60)
        run.tell(run.model / "to")
        run.tell(run.model / "never", 50)
        run.tell(run.work)
        run.tell(run.model)
        run.tell("/")
        wait_for(lambda: len(run.chain) >= 8)
    found = {each.name: (each.step, each.missed[:4]) for each in run.end(watcher)}
    assert found == {
        "${model}/best": (30, ""),
        "state.bin": (40, ""),
        "outside": (60, "lies"),
        "to": (None, "lies"),
        "work": (None, "lies"),
        "out": (None, ""),
        "": (None, "lies"),
        "${model}/never": (None, "gone"),
    }


def test_a_checkpoint_is_found_in_the_chain(run: Run, tmp_path: Path) -> None:
    with run.watch() as watcher:
        folders = [run.save(f"checkpoint-{n}", b"weights %d" % n) for n in range(5)]
        wait_for(lambda: len(run.chain) == 5)
    names = [each.name for each in run.end(watcher)]
    found = read_chain(run.kept)
    said = found.summary()
    assert (said["count"], said["firstStep"], said["lastStep"]) == (5, 0, 4)
    for folder in folders:
        assert names[found.find(folder)] == f"${{model}}/{folder.name}"
    renamed = folders[3].rename(tmp_path / "elsewhere")
    assert names[found.find(renamed)] == "${model}/checkpoint-3"
    assert found.find(renamed / "model.safetensors") == found.find(renamed)
    # One leaf is shown to be in the tree of the root without the others.
    leaves = [merkle.hash_leaf(line) for line in found.lines]
    proof = merkle.prove_inclusion(
        3, 5, lambda level, index: merkle.fold(leaves[index << level : (index + 1) << level])
    )
    merkle.check_inclusion(leaves[3], proof, index=3, size=5, root=bytes.fromhex(said["root"]))
    lines = found.data.splitlines(keepends=True)
    with pytest.raises(MalformedError, match="does not follow"):
        list(chain.follow(b"".join([*lines[:2], *lines[3:]]), "here"))


@pytest.mark.parametrize("way_to_forge", ["a byte", "a file more", "a link more", "a file less"])
def test_what_is_no_checkpoint_of_the_chain_is_not_found(run: Run, way_to_forge: str) -> None:
    with run.watch():
        folder = run.save("checkpoint-1", optimizer__pt=b"o")
        wait_for(lambda: run.chain)
    found = read_chain(run.kept)
    assert found.find(folder) == 0
    match way_to_forge:
        case "a byte":
            (folder / "model.safetensors").write_bytes(b"Weights")
        case "a file more":
            (folder / "adapter.pt").write_bytes(b"more")
        case "a link more":
            (folder / "adapter.pt").symlink_to(folder / "optimizer.pt")
        case "a file less":
            (folder / "optimizer.pt").unlink()
    name = {"a byte": "model", "a file less": "optimizer"}.get(way_to_forge, "1 link|adapter")
    with pytest.raises(ContentError, match=name):
        found.find(folder)


def test_a_torn_line_and_no_chain_are_none(run: Run) -> None:
    assert not read_chain(run.kept).lines
    with run.watch() as watcher:
        run.save("checkpoint-1")
        wait_for(lambda: run.chain)
    whole = read_chain(run.kept)
    run.end(watcher)
    with (run.kept / CHAIN).open("ab") as file:
        file.write(b'{"name":"${mod')
    assert read_chain(run.kept) == whole


def test_a_full_disk_stops_nothing_and_is_made_up_for_in_the_end(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with run.watch() as watcher:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            run.save("checkpoint-1")
            wait_for(lambda: watcher._problem)  # noqa: SLF001 - told in the end
        run.save("checkpoint-2")
    found = run.end(watcher)
    assert {each.name for each in found if not each.missed} == {
        "${model}/checkpoint-1",
        "${model}/checkpoint-2",
    }
    assert "no space left" in found[-1].missed


def test_ten_thousand_checkpoints_are_hashed_once_each(run: Run) -> None:
    with run.watch() as watcher:
        for number in range(10_000):
            (run.model / f"model-step={number}.pt").write_bytes(b"%d" % number)
    found = [each for each in run.end(watcher) if each.manifest]  # events may have been lost
    assert len({each.name for each in found}) == 10_000
    assert {each.step for each in found} == set(range(10_000))
    said = read_chain(run.kept).summary()
    assert said["count"] == len(found) + said.get("missed", 0)


def test_shards_are_one_checkpoint_and_many_files_are_bound_by_a_digest(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "MAX_LISTED", 2)
    with run.watch() as watcher:
        folder = run.save("checkpoint-1", b"w", a__txt=b"a", b__txt=b"b")
        wait_for(lambda: run.chain)
    [found] = run.end(watcher)
    assert (found.count, found.files) == (3, ())
    assert found.manifest == describe_input("", hash_folder(folder))[0].manifest
    shards = {f"model-0000{n}-of-00002.safetensors": b"%d" % n for n in (1, 2)}
    for name, data in (shards | {"model.safetensors.index.json": b"{}"}).items():
        (run.model / name).write_bytes(data)
    found_now = dict(watcher._candidates(""))  # noqa: SLF001 - the files of one set
    name, files = next(each for each in found_now.items() if "checkpoint-1" not in each[0])
    assert (name, len(files.names)) == ("${model}/model.safetensors", 3)


@pytest.mark.parametrize("word", ["checkpoint-5", "step=5", "global_step5", "model_step_5.pt"])
def test_names_tell_steps_but_not_epochs(word: str) -> None:
    assert checkpoints._STEP.findall(word) == ["5"]  # noqa: SLF001 - the table of names
    assert checkpoints._is_numbered(word)  # noqa: SLF001 - as above
    assert checkpoints._STEP.findall("epoch=5.ckpt") == []  # noqa: SLF001 - as above
    assert not checkpoints._is_numbered(f"tmp-{word}")  # noqa: SLF001 - as above


SPEAKING = """
import os, shutil, sys
def write(path, data=b"weights"):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


@dataclass
class Program:
    """A process that does what it is told in the working folder, line by line."""

    process: subprocess.Popen[str]

    def do(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n", line


@pytest.fixture
def program(run: Run) -> Iterator[Program]:
    words, pipe = [sys.executable, "-c", SPEAKING], subprocess.PIPE
    with subprocess.Popen(words, cwd=run.work, stdin=pipe, stdout=pipe, text=True) as process:
        yield Program(process)
        process.communicate()


COMING = {
    "a folder, gone at once": ("checkpoint-1", 1, "write('out/{}/a.pt'); shutil.rmtree('out/{}')"),
    "a folder, made anew": (
        "checkpoint-1",
        2,
        "write('out/{}/a.pt'); shutil.rmtree('out/{}'); write('out/{}/a.pt', b'2')",
    ),
    "a file, gone at once": ("step=1.pt", 1, "write('out/{}'); os.unlink('out/{}')"),
    "a file of no number, gone at once": ("last.pt", 1, "write('out/{}'); os.unlink('out/{}')"),
    "a file, written again at once": (
        "last.pt",
        3,
        "write('out/{}', b'1'); write('out/{}', b'2'); write('out/{}', b'3')",
    ),
    "a file, replaced at once": (
        "last.pt",
        2,
        "for n in b'12': write('out/t.pt', b'%d' % n); os.replace('out/t.pt', 'out/{}')",
    ),
    "a file, moved away at once": ("last.pt", 1, "write('out/{}'); os.rename('out/{}', 'kept.pt')"),
    "shards, gone at once": (
        "model-00001-of-00002.safetensors",
        1,
        "write('out/{}'); os.unlink('out/{}')",
    ),
    "a folder of no number, gone at once": (
        "run1",
        1,
        "write('out/{}/last.pt'); shutil.rmtree('out/{}')",
    ),
}
"""By name: what came, how many states it had, and the lines of the program."""


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
@pytest.mark.parametrize("kind", COMING)
def test_what_comes_and_goes_at_once_is_hashed_or_stated(
    run: Run, program: Program, kind: str
) -> None:
    name, states, line = COMING[kind]
    with run.watch() as watcher:
        program.do(line.replace("{}", name))
    found = run.end(watcher)
    about = [each for each in found if each.name.startswith(f"${{model}}/{name}")]
    hashed = [each for each in about if each.manifest]
    assert about, found
    assert len(hashed) == states or any(each.missed for each in about), found
    assert not any(each.name == "${model}/t.pt" for each in found)


def test_a_model_that_is_moved_into_place_is_no_checkpoint(run: Run, program: Program) -> None:
    with run.watch() as watcher:
        program.do("write('out/tmp-x/model.pt'); os.rename('out/tmp-x', 'out/final')")
        program.do("write('out/t.pt'); os.replace('out/t.pt', 'out/model.pt')")
        program.do("with open('out/.t', 'wb'): os.rename('out/.t', 'out/m.safetensors')")
    assert run.end(watcher) == []


@pytest.mark.parametrize("above", [".", "runs/a"])
def test_a_model_folder_that_is_not_there_at_the_start(
    run: Run, program: Program, way: str, above: str
) -> None:
    run.model.rmdir()
    run.model = run.work / above / "later"
    with run.watch() as watcher:
        program.do(f"write('{above}/later/deep/er/checkpoint-1/model.pt')")
        wait_for(lambda: run.chain)
        if way == "inotify":
            program.do(f"write('{above}/later/deep/er/checkpoint-2/model.pt')")
            program.do(f"shutil.rmtree('{above}/later/deep/er/checkpoint-2')")
    found = [(each.name, bool(each.manifest)) for each in run.end(watcher)]
    assert found[0] == ("${model}/deep/er/checkpoint-1", True)
    assert found[1:] in ([], [("${model}/deep/er/checkpoint-2", way != "inotify")])
    assert len(found) == 1 + (way == "inotify")


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_lost_events_are_stated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_MAX_READS", 0)  # nobody reads them while there is time
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with run.watch() as watcher:
        for number in range(limit // 2 + 1):
            (run.model / f"{number}.txt").touch()
        monkeypatch.setattr(checkpoints, "_MAX_READS", 64)
    assert [each.missed for each in run.end(watcher)] == [
        "more was written at once than the system tells"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_folders_that_cannot_be_watched_are_looked_at_and_it_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_MAX_WATCHED", 2)
    with run.watch() as watcher:
        for number in range(3):
            (run.model / f"run{number}").mkdir()
        wait_for(lambda: read_chain(run.kept).lines)
        run.save("run2/checkpoint-1")
        wait_for(lambda: run.chain)
    assert [each.name for each in run.end(watcher)] == ["${model}/run2/checkpoint-1"]
    assert read_chain(run.kept).summary()["by"] == "looks"
