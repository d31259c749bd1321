from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provenance.capture.python import startup
from provenance.capture.python.inside import MAX_FILES, PARENT
from provenance.capture.python.records import Records
from provenance.capture.run import RECORDS, Run
from provenance.errors import UnavailableError
from tests.capture.python.scene import PYTHON, Scene

OLD = ("2.7", "3.6", "3.7")
NEW = ("3.8", "3.9", "3.10", "3.12", "3.13", "3.14")


def python_of(version: str) -> str:
    installed = (Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python{version}")
    for python in (*map(str, installed), shutil.which(f"python{version}")):
        if python and not subprocess.run([python, "-c", ""], check=False).returncode:
            return python
    pytest.skip(f"no Python {version} here")


def test_the_folder_is_private_and_holds_one_module(scene: Scene) -> None:
    folder = scene.root / "run/startup"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == ["sitecustomize.py"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, "{}"), ("", "{}"), ("/a", "{}:/a"), ("/a::/b:", "{}:/a::/b:"), (":", "{}::")],
)
def test_the_variable_gets_no_empty_element(tmp_path: Path, before: str | None, after: str) -> None:
    environ = {} if before is None else {"PYTHONPATH": before}
    found = startup.install(tmp_path, environ, watched=[], left_out=[], models=[tmp_path / "m"])
    assert found == {"PYTHONPATH": after.format(tmp_path / "startup")}


def test_a_folder_that_the_variable_cannot_name_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    with pytest.raises(UnavailableError, match="TMPDIR"):
        startup.install(folder, {}, watched=[], left_out=[], models=[tmp_path])


ASIDE = """
import sys
print([p for p in sys.path if "startup" in p], getattr(sys.modules["sitecustomize"], "who", "ours"))
"""


@pytest.mark.parametrize("version", [*OLD, *NEW])
def test_every_python_starts_and_the_next_sitecustomize_runs_once(
    scene: Scene, version: str
) -> None:
    python = python_of(version)
    done = scene.run(ASIDE, python=python)
    assert done.stderr == ""
    assert done.stdout.replace('"', "'") in ("[] ours\n", "([], 'ours')\n")
    following = scene.root / "next"
    following.mkdir()
    following.joinpath("sitecustomize.py").write_text("print('next')\nwho = 'theirs'\n")
    path = f"{scene.environ['PYTHONPATH']}:{following}"
    done = scene.run(ASIDE, python=python, PYTHONPATH=path)
    assert done.stderr == ""
    assert done.stdout in ("next\n[] theirs\n", "next\n([], 'theirs')\n")
    assert len(scene.said().processes) == (0 if version in OLD else 2)


@pytest.mark.parametrize("text", ["1 / 0", "import nothing_of_this_name", "raise SystemExit(3)"])
def test_what_the_next_sitecustomize_raises_is_as_without_us(scene: Scene, text: str) -> None:
    following = scene.root / "next"
    following.mkdir()
    following.joinpath("sitecustomize.py").write_text(text)
    path = f"{scene.environ['PYTHONPATH']}:{following}"
    with_us = scene.run("print('on')", PYTHONPATH=path)
    without = scene.run("print('on')", PYTHONPATH=str(following))
    assert (with_us.returncode, with_us.stdout) == (without.returncode, without.stdout)
    assert with_us.stderr.splitlines()[-1] == without.stderr.splitlines()[-1]


def test_nothing_else_is_loaded(scene: Scene) -> None:
    program = "import sys\nprint(*sorted(sys.modules))"
    with_us = scene.run(program).stdout.split()
    without = scene.run(program, PYTHONPATH="").stdout.split()
    assert set(with_us) - set(without) == {"sitecustomize"}


@pytest.mark.parametrize(
    ("end", "ended"),
    [("", True), ("1 / 0", True), ("import os; os._exit(0)", False),
     ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", False),
     ("import os; os.fork() or exit()\nos._exit(0)", False)],
)  # fmt: skip
def test_a_rank_says_so_and_that_it_ended(scene: Scene, end: str, ended: bool) -> None:
    ranked = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "x", "GROUP_RANK": "9" * 99}
    scene.run(end, **ranked)
    [process] = scene.said().processes
    assert process.said.launched == {"RANK": "1", "WORLD_SIZE": "2"}
    assert process.ended == ended


def test_each_other_host_has_a_file_of_its_own(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hosts are not real: the recorder is given another name of this one than its run."""
    run = scene.root / "run"
    shutil.rmtree(run / "startup")
    name = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((name[0], "elsewhere", *name[2:])))
    environ = startup.install(
        run, scene.environ, watched=[], left_out=[], models=[scene.root / "model"]
    )
    program = "import provenance; provenance.current_run().metric('loss', 1, step=1)"
    done = Scene(scene.root, environ).run(program, RANK="1", WORLD_SIZE="2")  # on this host
    assert (done.returncode, done.stderr) == (0, "")
    Run(str(run)).metric("loss", 0, step=1)  # on the recorder's
    text = (run / RECORDS).read_bytes()
    assert b'"value":0.0' in text
    assert b'"value":1.0' not in text
    [other] = run.glob("records-*")
    assert other.name == f"records-{name.nodename.encode().hex()}.jsonl"
    assert other.stat().st_mode & 0o777 == 0o600
    said = scene.said()
    assert (said.count, said.damaged) == (2, 0)
    [process] = said.processes
    assert (process.host, process.ended, process.reported) == (1, True, True)


def test_processes_of_two_hosts_with_one_id_are_two(scene: Scene) -> None:
    scene.run("import provenance; provenance.current_run().seed('a', 1)", RANK="1", WORLD_SIZE="2")
    records = scene.root / "run" / RECORDS
    for name in ("records-6131.jsonl", "records-6132.jsonl"):
        shutil.copy(records, records.with_name(name))
    for name in ("records-zz.jsonl", "records-.jsonl", "records-61.jsonl.gz", "records-611.jsonl"):
        records.with_name(name).write_text("no record\n")
    said = scene.said()
    assert [process.host for process in said.processes] == [0, 1, 2]
    assert all(process.reported and process.ended for process in said.processes)
    assert (said.damaged, said.strangers) == (0, 0)


def test_more_hosts_than_the_limit_are_counted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provenance.capture.python.records.MAX_HOSTS", 2)
    for n in range(5):
        (scene.root / "run" / f"records-0{n}.jsonl").write_text('{"metric":"a","value":1}\n')
    assert (scene.said().count, scene.said().damaged) == (2, 3)


def test_a_process_says_what_it_is(scene: Scene) -> None:
    scene.run("pass")
    (process,) = scene.said().processes
    said = process.said
    assert os.path.realpath(said.executable) == PYTHON
    assert said.version == sys.version
    assert said.path
    assert not any("startup" in path for path in said.path)
    assert (process.parent, said.forked) == (None, False)


@pytest.mark.parametrize("option", ["-I", "-E", "-S"])
def test_a_python_that_does_not_run_it_says_nothing(scene: Scene, option: str) -> None:
    assert scene.run("open('a.py')", option).returncode == 0
    assert scene.said() == Records()


READS = {
    "a module": ("import sys; sys.path.insert(0, '.'); import a", {"watched/a.py"}),
    "an absolute path": ("open('{root}/watched/a.py')", {"watched/a.py"}),
    "a path of bytes": ("open(b'a.py')", {"watched/a.py"}),
    "a path object": (
        "import os, pathlib; os.close(os.open(pathlib.Path('a.py'), os.O_RDONLY))",
        {"watched/a.py"},
    ),
    "a roundabout path": ("open('../outside/../watched/a.py')", {"watched/a.py"}),
    "another working folder": ("import os; os.chdir('/'); os.chdir('{root}/watched'); open('a.py')",
                               {"watched/a.py"}),
    "a descriptor": ("import os; open(os.open('a.py', os.O_RDONLY))", {"watched/a.py"}),
    "twice": ("open('a.py'); open('a.py')", {"watched/a.py"}),
    "a link into it": (("import os; os.symlink('{root}/watched/a.py', '../outside/l'); "
                       "open('../outside/l')"), {"watched/a.py"}),
    "a link out of it": ("import os; os.symlink('{root}/outside/b.py', 'l'); open('l')",
                         {"watched/l", "outside/b.py"}),
    "a folder that is a link": (("import os; os.symlink('{root}/watched', '{root}/outside/w')\n"
                                "open('{root}/outside/w/a.py')"), {"watched/a.py"}),
    "to change it": ("open('a.py', 'r+')", {"watched/a.py"}),
    "a library of C": (("import ctypes\ntry: ctypes.CDLL('{root}/watched/a.py')\n"
                       "except OSError: pass"), {"watched/a.py"}),
    "a database": ("import sqlite3; sqlite3.connect('{root}/watched/a.py')", {"watched/a.py"}),
    "an extension module": (
        ("import importlib.machinery as m, importlib.util as u\n"
        "l = m.ExtensionFileLoader('a', '{root}/watched/a.py')\n"
        "try: u.module_from_spec(u.spec_from_loader('a', l))\n"
        "except ImportError: pass"), {"watched/a.py"}),
    "code outside": ("import sys; sys.path.append('{root}/outside'); import b", {"outside/b.py"}),
    "code in git's folder": (("import os; os.rename('a.py', '.git/c.py')\n"
                              "open('.git/c.py')"), {"watched/.git/c.py"}),
    "an archive of code": (("import sys, zipfile\n"
                            "with zipfile.ZipFile('{root}/outside/z', 'w') as z:\n"
                            "    z.writestr('c.py', '')\n"
                            "sys.path.append('{root}/outside/z'); import c"), {"outside/z"}),
    "a checkpoint": (("open('{root}/model/w', 'w').close(); open('{root}/model/w')"),
                     {"model/w"}),
    "outside": ("open('{root}/outside/t', 'w').close(); open('{root}/outside/t')", set()),
    "declared data": ("open('data/x')", set()),
    "git's own": ("open('.git/config')", set()),
    "what is not there": ("try: open('no')\nexcept OSError: pass", set()),
    "a folder": ("import os; os.open('data', os.O_RDONLY)", set()),
    "what it writes": ("open('new', 'w')", set()),
    "what it empties": ("open('a.py', 'w+')", set()),
    "its own library": ("import json, email", set()),
}  # fmt: skip


@pytest.mark.parametrize("how", READS)
def test_what_is_read_below_a_watched_folder_is_told(scene: Scene, how: str) -> None:
    program, expected = READS[how]
    assert scene.read(program.replace("{root}", str(scene.root))) == expected
    assert scene.said().reads.lost == 0


def test_a_read_is_told_with_the_state_before_the_first_open(scene: Scene) -> None:
    path = scene.watched / "a.py"
    before = path.stat()
    scene.run("open('a.py').close(); open('a.py', 'a').write('more'); open('a.py')")
    found = scene.said().reads
    assert found.files[path].size == before.st_size
    assert found.files[path].mtime_ns == before.st_mtime_ns
    assert found.files[path].ctime_ns == before.st_ctime_ns
    assert found.written == {path}


def test_with_a_byte_compiled_file_its_source_counts_as_read(scene: Scene) -> None:
    program = "import sys; sys.path.insert(0, '.'); import a"
    assert scene.run(program, PYTHONDONTWRITEBYTECODE="", PYTHONPATH="").returncode == 0
    compiled = f"watched/__pycache__/a.{sys.implementation.cache_tag}.pyc"
    assert scene.read(program) == {"watched/a.py", compiled}


def test_a_folder_on_the_path_is_watched_too(scene: Scene) -> None:
    path = f"{scene.environ['PYTHONPATH']}:{scene.root}/outside"
    assert scene.read("import b", PYTHONPATH=path) == {"outside/b.py"}


def test_a_virtual_environment_below_the_repository_is_not_code(scene: Scene) -> None:
    environment = scene.watched / "env"
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", str(environment)], check=True)
    library = next(environment.glob("lib/python*/site-packages"))
    library.joinpath("installed.py").touch()
    done = scene.run("import installed; open('a.py')", python=str(environment / "bin/python"))
    assert done.stderr == ""
    assert set(scene.said().reads.files) == {scene.watched / "a.py", scene.root / "script.py"}


def test_what_is_written_is_told_and_the_model_once(scene: Scene) -> None:
    scene.run("""
        import os
        for name in ("1", "2"):
            open("../model/" + name, "w")
        open("out", "w"); open("data/y", "w"); open("../outside/z", "w")
        open("tmp", "w"); os.replace("tmp", "placed"); os.symlink("out", "link")
        open("link", "a")
    """)
    (process,) = scene.said().processes
    assert {str(Path(path).relative_to(scene.root)) for path in process.wrote} == {
        "model", "watched/out", "watched/tmp", "watched/placed", "watched/link",
    }  # fmt: skip
    text = scene.root.joinpath("run", RECORDS).read_text()
    assert text.count(f'"wrote":"{scene.root}/model') == 1


def test_children_speak_however_they_are_made(scene: Scene) -> None:
    done = scene.run("""
        import multiprocessing, os, sys, threading
        def work(name):
            open(name).close()
        if __name__ == "__main__":
            for number, how in enumerate(("fork", "spawn", "forkserver")):
                open(f"f{number}", "w").close()
                context = multiprocessing.get_context(how)
                child = context.Process(target=work, args=(f"f{number}",))
                child.start(); child.join()
                assert child.exitcode == 0
            open("f3", "w").close()
            threads = [threading.Thread(target=work, args=("f3",)) for _ in range(20)]
            [t.start() for t in threads]; [t.join() for t in threads]
            if not os.fork():
                work("f3"); work("a.py"); os._exit(0)
            os.wait()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    said = scene.said()
    names = {path.name for path in said.reads.files}
    assert {"f0", "f1", "f2", "f3", "a.py"} <= names
    assert said.reads.lost == 0
    assert [each.parent for each in said.processes].count(None) == 1
    assert said.damaged == 0


def test_a_fork_while_threads_open_files_does_not_hang(scene: Scene) -> None:
    done = scene.run("""
        import os, threading
        stop = False
        def work():
            n = 0
            while not stop:
                n += 1
                open(f"w{threading.get_ident()}-{n % 50}", "w").close()
        threads = [threading.Thread(target=work) for _ in range(4)]
        [t.start() for t in threads]
        for _ in range(30):
            if not os.fork():
                open("a.py").close(); os._exit(0)
            os.wait()
        stop = True
        [t.join() for t in threads]
        print("on")
    """)
    assert done.stdout == "on\n"
    assert scene.watched / "a.py" in scene.said().reads.files


def test_more_files_than_the_limit_are_counted(scene: Scene) -> None:
    more = 70
    scene.run(f"""
        for n in range({MAX_FILES + more}):
            open("out", "w").close()
            open(f"many{{n}}", "w").close()
        for n in range({MAX_FILES + more}):
            open(f"many{{n}}").close()
    """)
    reads = scene.said().reads
    assert len(reads.files) == len(reads.written) == MAX_FILES
    assert 64 <= reads.lost <= 2 * more + 1


@pytest.mark.parametrize(
    "how",
    [
        "os.remove('{run}/records.jsonl')",
        "os.remove('{run}/records.jsonl'); os.mkfifo('{run}/records.jsonl')",
        "os.remove('{run}/records.jsonl'); os.symlink('/dev/full', '{run}/records.jsonl')",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))",
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))",
        "os.open = os.write = os.close = os.getpid = lambda *_: 1 / 0",
        "import sys; sys.addaudithook(lambda _, e: 'records.' in str(e[:1]) and 1 / 0)",
        "import sys; sys.addaudithook(lambda _, e: 'records.' in str(e[:1]) and sys.exit(1))",
        "os.chdir('data'); os.rmdir; import shutil; shutil.rmtree('{root}/watched/data')",
    ],
)
def test_nothing_that_fails_in_it_reaches_the_program(scene: Scene, how: str) -> None:
    how = how.replace("{run}", str(scene.root / "run")).replace("{root}", str(scene.root))
    done = scene.run(f"""
        import os
        {how}
        open("{scene.watched}/a.py").close()
        open(b"{scene.watched}/\\xff", "wb").close()
        open("{scene.watched}/\\udcfe", "w").close()
        for wrong in ("\\0", 3.5, object(), None):
            try: open(wrong)
            except (TypeError, ValueError): pass
        try: open("relative")
        except OSError: pass
        print("on")
    """)
    assert (done.stdout, done.stderr) == ("on\n", "")


def test_a_start_without_a_run_folder_is_a_plain_start(scene: Scene) -> None:
    shutil.copytree(scene.root / "run/startup", scene.root / "kept")
    shutil.rmtree(scene.root / "run")
    done = scene.run("print('on')", PYTHONPATH=str(scene.root / "kept"))
    assert (done.stdout, done.stderr) == ("on\n", "")


def test_a_name_that_is_not_utf_8_is_lost_and_counted(scene: Scene) -> None:
    scene.run("open(b'\\xff.py', 'wb').close(); open(b'\\xff.py').close()")
    found = scene.said()
    assert (set(found.reads.files), found.reads.lost, found.damaged) == (
        {scene.root / "script.py"},
        2,
        0,
    )


def test_a_path_below_a_descriptor_is_never_told_as_another(scene: Scene) -> None:
    scene.run("""
        import os
        at = os.open("../outside", os.O_RDONLY)
        os.open("b.py", os.O_RDONLY, dir_fd=at)
    """)
    found = scene.said().reads
    assert (set(found.files), found.lost) == ({scene.root / "script.py"}, 1)


def test_what_a_signal_raises_inside_it_arrives(scene: Scene) -> None:
    """An alarm that ends an open must not be swallowed with our own errors."""
    done = scene.run("""
        import signal
        class Alarm(Exception): pass
        def ring(*_): raise Alarm
        signal.signal(signal.SIGALRM, ring)
        for n in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                while True:
                    open("a.py").close()
                    open(f"no{n}", "a").close()
            except Alarm:
                pass
        print("on")
    """)
    assert (done.stdout, done.stderr) == ("on\n", "")


def test_a_program_may_go_as_deep_as_without_us(scene: Scene) -> None:
    text = """
        import sys
        def deep(n):
            if n: return deep(n - 1)
            try: return open("a.py").close()
            except RecursionError: return "too deep"
        def tried(n):
            try: return deep(n)
            except RecursionError: return "call"
        open("b.py", "w").close()
        sys.setrecursionlimit(60)
        found = [tried(n) for n in range(70)]
        sys.setrecursionlimit(1000)
        print(found)
    """
    found = scene.run(text)
    assert found.stdout == scene.run(text, PYTHONPATH="").stdout
    assert scene.said().reads.lost > 0


def test_current_run_works_where_nothing_of_ours_is_installed(scene: Scene) -> None:
    done = scene.run("""
        import provenance
        from provenance import current_run
        assert provenance.current_run is current_run
        current_run().metric("loss", 1.5)
        current_run().seed("numpy", 7)
    """)
    assert done.stderr == ""
    found = scene.said()
    assert (found.last, found.seeds) == ({"loss": 1.5}, {"numpy": "7"})
    assert [each.reported for each in found.processes] == [True]


def test_an_installed_package_is_used(scene: Scene) -> None:
    scene.root.joinpath("outside/provenance.py").write_text("real = True\n")
    path = f"{scene.environ['PYTHONPATH']}:{scene.root}/outside"
    assert scene.run("import provenance; print(provenance.real)", PYTHONPATH=path).stdout == (
        "True\n"
    )


STARTED = {
    "run": ("subprocess.run(['{py}', '--flag', 'x'])", ["{py}"], []),
    "by name": ("subprocess.run(['sh', '-c', ':'])", ["sh"], []),
    "a shell's words": (
        "subprocess.run('echo; (exec -a x \"/v/bin/python3\" -I t.py)', shell=True)",
        ["sh"],
        ["/v/bin/python3"],
    ),
    "a shell's script": ("subprocess.run(['sh', 'train', 'x'])", ["sh"], ["train"]),
    "system": ("os.system('true; make -v python')", ["sh"], ["make", "python"]),
    "spawned": ("os.posix_spawn('/bin/sh', ['sh', '-c', 'nice :'], os.environ)", ["sh"], ["nice"]),
    "exec": (
        "os.fork() or os.execv('/bin/sh', ['sh', 'x.sh']); os.wait()",
        ["sh"],
        ["x.sh", "x.sh"],
    ),
}


@pytest.mark.parametrize("how", STARTED)
def test_started_programs_are_told_once(scene: Scene, how: str) -> None:
    program, names, words = STARTED[how]
    program = program.replace("{py}", PYTHON)
    scene.run(f"import os, subprocess\n{program}")
    parent = next(each for each in scene.said().processes if each.parent is None)
    assert [Path(each.started).name for each in parent.started] == [
        Path(name.replace("{py}", PYTHON)).name for name in names
    ]
    assert [word for each in parent.started for word in each.words] == words


def test_what_does_not_exist_or_only_tells_its_version_is_not_started(scene: Scene) -> None:
    scene.run(f"""
        import subprocess
        subprocess.run(["{PYTHON}", "--version"])
        for name in ("/no/python3", "no-such-python3"):
            try: subprocess.run([name])
            except OSError: pass
    """)
    (process,) = scene.said().processes
    assert process.started == []


def test_an_executed_program_is_the_child_of_what_it_replaces(scene: Scene) -> None:
    scene.run(f"import os; os.execv('{PYTHON}', ['python', '-c', 'open(\"a.py\")'])")
    first, second = scene.said().processes
    assert (first.parent, second.parent) == (None, 0)
    assert first.said.pid == second.said.pid


def test_the_same_weights_with_and_without(scene: Scene) -> None:
    """Bit for bit, with the seeds that a program sets and the default of everything else."""
    program = """
        import hashlib, random
        import numpy as np
        random.seed(1); np.random.seed(2)
        rng = np.random.default_rng(3)
        x = rng.normal(size=(400, 20)); y = x @ np.random.normal(size=20) + random.random()
        w = np.zeros(20)
        for step in range(200):
            batch = rng.permutation(400)[: random.randrange(50, 100)]
            w -= 0.01 * x[batch].T @ (x[batch] @ w - y[batch]) / len(batch)
            open("a.py").close()
        print(hashlib.sha256(w.tobytes()).hexdigest(), random.random(), np.random.random())
    """
    runs = [
        scene.run(program, python=sys.executable, PYTHONPATH=path)
        for path in (scene.environ["PYTHONPATH"], "", scene.environ["PYTHONPATH"])
    ]
    assert [done.stderr for done in runs] == ["", "", ""]
    assert len({done.stdout for done in runs}) == 1
    assert scene.watched / "a.py" in scene.said().reads.files


def test_the_parent_is_told_by_the_variable(scene: Scene) -> None:
    name = PARENT + "".join(filter(str.isalnum, str(scene.root / "run" / RECORDS)))
    for value in ("no number", "99999999999999999999", "1"):
        scene.run("pass", **{name: value})
    assert [each.parent for each in scene.said().processes] == [None, None, None]
    scene.run("pass", **{name: str(scene.said().processes[0].said.pid)})
    assert scene.said().processes[3].parent == 0
    assert scene.said().damaged == 0


def test_names_of_bytes_are_compared_with_no_text(scene: Scene) -> None:
    """Python is asked to warn of that with -b, and to raise with -bb."""
    done = scene.run("open(b'a.py').close()", "-bb", "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")
    assert scene.watched / "a.py" in scene.said().reads.files
