"""Which Python trained: from what was said, and for real under launchers."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from provenance.capture.draft import draft
from provenance.capture.inputs import Inputs
from provenance.capture.process import run
from provenance.capture.python import startup
from provenance.capture.python.packages import Software, no_software, read_software
from provenance.capture.python.records import (
    MAX_FILES,
    MAX_PROCESSES,
    Introduction,
    Process,
    Records,
    Started,
    prepare,
    read_records,
)
from provenance.capture.python.trained import describe_states, who_trained
from provenance.capture.recorder import heard, look_after, observe_before
from provenance.capture.run import RECORDS
from provenance.statement.training import Collected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provenance.statement.training import TrainingStatement

MODEL = Path("/m")
UNKNOWN = no_software("absent", "the command names none")


def said(place: str, **more: Any) -> Introduction:  # noqa: ANN401 - of many types
    values: dict[str, Any] = {
        "pid": 1,
        "parent": 0,
        "forked": False,
        "executable": f"/no/{place}/bin/python",
        "prefix": f"/no/{place}",
        "base_prefix": "/usr",
        "version": "3.12.1 (main, Jan  1 2026, 00:00:00) [GCC 12.2.0]",
        "implementation": "cpython",
        "cache_tag": "cpython-312",
        "path": (),
        "pointer_bits": 64,
        "optimize": 0,
        "hash_randomization": True,
    }
    return Introduction(**(values | more))


def process(
    place: str,
    parent: int | None = None,
    *,
    reported: bool = False,
    wrote: str = "",
    started: Sequence[str] = (),
    words: Sequence[str] = (),
) -> Process:
    starts = tuple(Started(path, tuple(words), 1) for path in started)
    return Process(said(place), parent, reported, {wrote} - {""}, list(starts))


def trained(*processes: Process, own: Software = UNKNOWN, strangers: int = 0) -> str:
    """Return the environment that trained, or the reason why nobody can tell."""
    found = who_trained(Records(processes=processes, strangers=strangers), MODEL, own)
    return found if isinstance(found, str) else found.prefix.removeprefix("/no/")


B = "/no/b/bin/python"


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([process("a")], "a"),
        ([process("a"), process("a", 0), process("a", 0)], "a"),
        ([process("a", started=[B]), process("b", 0)], "b"),
        ([process("a", wrote="/m"), process("b", 0)], "a"),
        ([process("a"), process("b", 0, wrote="/m")], "b"),
        ([process("a", reported=True), process("b", 0)], "a"),
        ([process("a", reported=True), process("a", 0, wrote="/m"), process("b", 1)], "a"),
        ([process("a"), process("b", 0, reported=True), process("c", 0)], "b"),
        ([process("a", started=["/bin/sh"], words=["x.sh"]), process("b", 0)], "b"),
        ([process("a", started=["/bin/sh"])], "a"),
        ([process("a", started=["/no/git"])], "a"),
        ([process("a", reported=True, started=["/no/make"])], "a"),
    ],
)
def test_one_environment_trained(processes: list[Process], expected: str) -> None:
    assert trained(*processes) == expected


@pytest.mark.parametrize(
    ("processes", "reason"),
    [
        ([], "no Python of the run reported"),
        ([process("a"), process("b")], "several"),
        ([process("a"), process("b", 0), process("c", 0)], "several"),
        ([process("a", reported=True), process("b", 0, wrote="/m")], "several"),
        ([process("a", wrote="/m"), process("b", 0, wrote="/m")], "several"),
        ([process("a", started=[B])], "python was started"),
        ([process("a", wrote="/m", reported=True, started=[B])], "python was started"),
        ([process("a", started=[B, B]), process("b", 0)], "python was started"),
        ([process("a", started=[B]), process("a", 0)], "python was started"),
        ([process("a", started=["/bin/sh"], words=["python3"])], "sh was started"),
        ([process("a", started=["/no/make"])], "make was started"),
        ([process("a", wrote="/m", started=["/bin/sh"], words=["x.sh"])], "sh was started"),
    ],
)
def test_nobody_can_tell(processes: list[Process], reason: str) -> None:
    assert reason in trained(*processes)


def test_a_model_whose_folder_the_run_names_is_written_below_the_pattern() -> None:
    records = Records(processes=(process("a", wrote="/w/runs/7/x"), process("b", 0)))
    for pattern, expected in (("/w/runs/*", "a"), ("/w/other/*", "b")):
        found = who_trained(records, Path(pattern), UNKNOWN)
        assert not isinstance(found, str)
        assert found.prefix == f"/no/{expected}"


def with_states(*told: tuple[str, dict[str, Any]], **more: Any) -> Process:  # noqa: ANN401 - as above
    return replace(process("a", **more), states={1: dict(told)})


def test_of_what_was_set_only_what_differs_is_said_twice() -> None:
    first = {"torch.threads": 1, "torch.rng": "aa", "environ.OMP_NUM_THREADS": "1"}
    optimizer = {"optimizer": "SGD"}
    rank = {"environ.RANK": "0", "environ.OMP_NUM_THREADS": "1"}
    found = describe_states(
        Records(
            processes=(
                with_states(("exit", {"torch.threads": 9})),  # the launcher took no step
                with_states(
                    ("step", first | {"environ.RANK": "10"}), ("exit", first | {"torch.rng": "cc"})
                ),
                with_states(
                    ("step", first | rank | optimizer), ("exit", {"torch.rng": "bb"} | rank)
                ),
                with_states(("step", first | rank | {"environ.RANK": "9"})),
            )
        ),
        {"OMP_NUM_THREADS": "1", "MKL_CBWR": "AVX2"},
        {},
    )
    gone = {"environ.MKL_CBWR": None}
    assert (found.status, found.values["processes"]) == ("ok", 3)
    assert found.values["step"] == {
        "torch.threads": 1, "torch.rng": "aa", "environ.RANK": "0", **optimizer, **gone
    }  # fmt: skip
    assert found.values["exit"] == {"torch.rng": "bb", "torch.threads": None}
    assert found.values["others"] == {
        "1": {"torch.threads": 1, "torch.rng": "aa", "environ.RANK": "9"},
        "2": {"torch.threads": 1, "torch.rng": "cc", "environ.RANK": None},
    }


@pytest.mark.parametrize(
    ("processes", "seed"),
    [
        ((), None),
        ((process("a"),), None),
        ((with_states(("exit", {"seed": 1})), with_states(("exit", {"seed": 2}), wrote="/m")), 2),
        (
            (with_states(("exit", {"seed": 1})), with_states(("exit", {"seed": 2}), reported=True)),
            2,
        ),
        ((with_states(("exit", {"seed": 1}), wrote="/m"), with_states(("step", {"seed": 2}))), 2),
        ((process("b", wrote="/m"), with_states(("exit", {"seed": 1}))), 1),
    ],
)
def test_what_the_processes_that_trained_had_set(
    processes: tuple[Process, ...], seed: int | None
) -> None:
    found = describe_states(Records(processes=processes), {}, {})
    state = found.values.get("step", found.values.get("exit"))
    assert (found.status, state) == (("absent", None) if seed is None else ("ok", {"seed": seed}))


def test_variables_that_a_program_set_are_redacted_as_all_others_are() -> None:
    values = {
        "environ.MKL_CBWR": "/home/ann/x",
        "environ.TORCH_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz",
        "environ.TORCHINDUCTOR_CACHE_DIR": "/scratch/torchinductor_ann",
        "environ.NCCL_SOCKET_IFNAME": "eth0",
    }
    found = describe_states(
        Records(processes=(with_states(("exit", values)),)), {}, {"HOME": "/home/ann"}
    )
    assert found.values["exit"] == {
        "environ.MKL_CBWR": "~/x",
        "environ.NCCL_SOCKET_IFNAME": "eth0",
    }


def test_who_reports_without_having_spoken_is_a_stranger() -> None:
    assert "current_run()" in trained(process("a"), strangers=1)


def test_the_commands_own_python_must_have_spoken() -> None:
    own = Software(Collected("ok"), Collected("ok"), executable="/no/a/bin/python", prefix="/no/a")
    assert trained(process("a"), own=own) == "a"
    assert "did not report" in trained(process("b"), own=own)
    assert "no Python of the run" in trained(own=own)


def test_a_script_in_python_is_a_python(tmp_path: Path) -> None:
    script = tmp_path / "tool"
    script.write_text("#!/no/b/bin/python -I\n")
    assert "tool was started" in trained(process("a", started=[str(script)]))
    script.write_text("#!/bin/sh\n")
    assert "may have trained" in trained(process("a", started=[str(script)]))
    script.unlink()
    os.mkfifo(script)
    assert trained(process("a", started=[str(script)])) == "a"


# What is read of a Python that is not run.


def test_the_build_is_called_as_the_interpreter_calls_it() -> None:
    found = read_software(said("a", version=sys.version))
    assert found.interpreter.values["build"] == [*platform.python_build()]


def test_what_a_stranger_names_is_read_with_care(tmp_path: Path) -> None:
    library = tmp_path / "lib"
    library.mkdir()
    for name in ("good", "fifo", "huge", "endless"):
        library.joinpath(f"{name}-1.dist-info").mkdir()
    good = library / "good-1.dist-info"
    good.joinpath("METADATA").write_text("Name: good\nVersion: 1\n")
    os.mkfifo(library / "fifo-1.dist-info/METADATA")
    with library.joinpath("huge-1.dist-info/METADATA").open("wb") as file:
        file.truncate(2**30)
    library.joinpath("endless-1.dist-info/METADATA").symlink_to("/dev/zero")
    library.joinpath("plain.dist-info").write_text("a file")
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    path = (str(library), "relative", "", "/no/such", str(secret), str(library))
    found = read_software(said("a", path=path, executable=str(secret), version="x" * 4000))
    assert [item.uri for item in found.distributions] == ["pkg:pypi/good@1"]
    assert found.packages == Collected("ok", {"distributions": 1, "withoutRecord": 1})
    assert "executableDigest" not in found.interpreter.values
    assert found.interpreter.values["saidBy"] == "the program"
    assert len(found.interpreter.values["version"]) <= 200


def test_nothing_that_a_stranger_names_is_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    program = tmp_path / "python3"
    program.write_text(f"#!/bin/sh\ntouch {proof}\n")
    program.chmod(0o755)
    found = read_software(said("a", executable=str(program), prefix=str(tmp_path)))
    assert found.interpreter.status == "ok"
    assert not proof.exists()


def test_metadata_that_no_parser_takes_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "x-1.dist-info"
    folder.mkdir()
    folder.joinpath("METADATA").write_text("Name: x\nVersion: 1\n")
    folder.joinpath("RECORD").write_text('"' + "x" * 200_000 + '",sha256=a,1\n')
    found = read_software(said("a", path=(str(tmp_path),)))
    assert (found.interpreter.status, found.packages.status) == ("ok", "error")


def test_records_of_a_hostile_program_are_bounded(tmp_path: Path) -> None:
    state = '"size":1,"mtimeNs":1,"ctimeNs":1,"pid":1'
    lines = [f'{{"read":"/{number}",{state}}}' for number in range(MAX_FILES + 5)]
    one = json.dumps({"process": msgspec.to_builtins(said("a"))})
    lines += [one] * (MAX_PROCESSES + 7)
    lines += ['{"lost":9007199254740991,"pid":1}'] * 2
    tmp_path.joinpath(RECORDS).write_text("\n".join(lines) + "\n")
    found = read_records(tmp_path)
    assert len(found.reads.files) == MAX_FILES
    assert len(found.processes) == MAX_PROCESSES
    assert found.reads.processes == MAX_PROCESSES + 7
    assert found.reads.lost == 2**53 - 1
    assert found.damaged == 0


# Under launchers, for real.


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two environments, ``a`` and ``b``, each with one distribution of its own."""
    root = Path(os.path.realpath(tmp_path_factory.mktemp("environments")))
    for name in ("a", "b"):
        make = [os.path.realpath(sys.executable), "-m", "venv", "--without-pip", str(root / name)]
        subprocess.run(make, check=True)
        library = next(root.glob(f"{name}/lib/python*/site-packages"))
        folder = library / f"only_{name}-1.dist-info"
        folder.mkdir()
        folder.joinpath("METADATA").write_text(f"Name: only-{name}\nVersion: 1\n")
        folder.joinpath("RECORD").write_text("only.py,sha256=x,1\n")
    return root


class Folder:
    """A working folder in which commands are recorded."""

    def __init__(self, path: Path, environments: Path) -> None:
        self.path = path
        self.a, self.b = (environments / name / "bin/python" for name in "ab")
        path.joinpath("t.py").write_text(
            "import os\nos.makedirs('out', exist_ok=True)\nopen('out/w', 'w').write('1')\n"
        )
        path.joinpath("native.py").write_text(
            "import os\nos.makedirs('out', exist_ok=True)\n"
            "import ctypes\nc = ctypes.CDLL(None)\nc.close(c.creat(b'out/w', 0o600))\n"
        )

    def launcher(self, text: str) -> str:
        names = {"a": str(self.a), "b": str(self.b)}
        text = textwrap.dedent(text).format(**names)
        self.path.joinpath("launch.py").write_text(f"import os, subprocess, sys\n{text}\n")
        return "launch.py"

    def record(self, *command: str, **environ: str) -> TrainingStatement:
        directory = self.path.with_name(f"run{time.monotonic_ns()}")
        directory.mkdir()
        prepare(directory)
        variables = {"PATH": f"{self.a.parent}:/usr/bin:/bin", **environ}
        inputs = Inputs(model=Path("out"), working_folder=self.path)
        before = observe_before(inputs, command, environ=variables)
        result = run(
            command,
            folder=self.path,
            environ=startup.install(directory, variables, **heard(before)),
            run_directory=directory,
        )
        assert result.status == 0, command
        seen = look_after(before, environ=variables, run_directory=directory)
        return draft(*seen, result).statement


@pytest.fixture
def folder(tmp_path: Path, environments: Path) -> Folder:
    path = Path(os.path.realpath(tmp_path)) / "work"
    path.mkdir()
    return Folder(path, environments)


def seen(statement: TrainingStatement) -> tuple[str, str, list[str]]:
    """Return the statuses of interpreter and packages, and the distributions of the fixtures."""
    collectors = statement.build.internal_parameters.collectors
    names = [item.name for item in statement.build.resolved_dependencies]
    only = [name for name in names if name.startswith("only-")]
    return collectors["interpreter"].status, collectors["packages"].status, only


LAUNCHED = {
    "bash run.sh": ["bash", "run.sh"],
    "make": ["make"],
    "a shell": ["sh", "-c", "cd . && {b} t.py"],
    "a shell in front of a shell": ["sh", "-c", "sh run.sh; true"],
    "nice": ["nice", "-n", "5", "{b}", "t.py"],
    "timeout": ["timeout", "60", "{b}", "t.py"],
    "nohup": ["nohup", "{b}", "t.py"],
    "env": ["env", "X=y", "{b}", "t.py"],
    "xargs": ["sh", "-c", "echo t.py | xargs {b}"],
}


@pytest.mark.parametrize("how", LAUNCHED)
def test_under_a_launcher_it_is_the_python_that_trained(folder: Folder, how: str) -> None:
    folder.path.joinpath("run.sh").write_text(f"{folder.b} t.py\n")
    folder.path.joinpath("Makefile").write_text(f"all:\n\t{folder.b} t.py\n")
    command = [word.format(b=folder.b) for word in LAUNCHED[how]]
    statement = folder.record(*command)
    assert seen(statement) == ("ok", "ok", ["only-b"])
    assert statement.build.internal_parameters.drift == ()
    reads = statement.build.internal_parameters.collectors["reads"]
    assert reads.values["by"] == "start-up folder"


STARTS = {
    "subprocess": "subprocess.run(['{b}', 't.py'], check=True)",
    "exec": "os.execv('{b}', ['{b}', 't.py'])",
    "a shell": "subprocess.run('{b} t.py', shell=True, check=True)",
    "system": "assert not os.system('{b} t.py')",
    "spawn": "os.waitpid(os.posix_spawn('{b}', ['{b}', 't.py'], os.environ), 0)",
    "in two steps": "subprocess.run([sys.executable, '-c', 'import subprocess; "
    'subprocess.run(["{b}", "t.py"])\'], check=True)',
    "native": "subprocess.run(['{b}', 'native.py'], check=True)",
    "with its own log": "open('log', 'w'); subprocess.run(['{b}', 't.py'], check=True)",
}


@pytest.mark.parametrize("how", STARTS)
def test_a_python_that_starts_another_environments(folder: Folder, how: str) -> None:
    """The launcher's packages are never stated, though the command's first word is its Python."""
    statement = folder.record(str(folder.a), folder.launcher(STARTS[how]))
    assert seen(statement) == ("ok", "ok", ["only-b"])
    values = statement.build.internal_parameters.collectors["interpreter"].values
    assert values["saidBy"] == "the program"
    assert values["version"] == ".".join(map(str, sys.version_info[:3]))
    assert len(values["executableDigest"]) == 64


HIDDEN = {
    "isolated": "subprocess.run(['{b}', '-I', 't.py'], check=True)",
    "with other variables": "subprocess.run(['{b}', 't.py'], env=dict(), check=True)",
    "by a shell": "subprocess.run('{b} -E t.py', shell=True, check=True)",
    "by a script": "open('x.sh', 'w').write('{b} -S t.py'); "
    "subprocess.run(['sh', 'x.sh'], check=True)",
    "beside a helper": "import multiprocessing as m; c = m.get_context('spawn'); "
    "p = c.Process(target=print); p.start(); p.join(); "
    "subprocess.run(['{b}', '-I', 't.py'], check=True)",
    "and both write": "os.makedirs('out'); open('out/log', 'w'); "
    "subprocess.run(['{b}', 't.py'], check=True)",
}


@pytest.mark.parametrize("how", HIDDEN)
def test_a_claim_never_states_a_launchers_packages(folder: Folder, how: str) -> None:
    text = f"if __name__ == '__main__':\n    {HIDDEN[how]}"
    statement = folder.record(str(folder.a), folder.launcher(text))
    assert seen(statement) == ("error", "error", [])
    assert statement.build.internal_parameters.collectors["packages"].reason


def test_a_python_that_cannot_be_heard_is_not_taken_for_the_trainer(folder: Folder) -> None:
    statement = folder.record(str(folder.a), "-I", "t.py")
    assert seen(statement) == ("absent", "absent", [])
    assert statement.build.internal_parameters.collectors["reads"].status == "absent"
    launcher = folder.launcher("subprocess.run(['{b}', 't.py'], check=True)")
    assert seen(folder.record(str(folder.a), "-E", launcher)) == ("error", "error", [])


def test_a_recorder_in_a_recorded_run_hears_its_own(folder: Folder) -> None:
    """Both start-up folders are on the path; each process speaks to both."""
    inner = folder.path.parent / "inner"
    (inner / "m").mkdir(parents=True)
    prepare(inner)
    folder.path.joinpath("nest.py").write_text(
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from provenance.capture.python import startup\n"
        f"inner, b = Path({str(inner)!r}), {str(folder.b)!r}\n"
        "environ = startup.install(inner, os.environ, watched=[Path.cwd()], left_out=[],"
        " models=[inner / 'm'])\n"
        "subprocess.run([b, 't.py'], env=environ, check=True)\n"
    )
    root = str(Path(__file__).parents[3])
    site = next(path for path in sys.path if path.endswith("site-packages"))
    statement = folder.record(sys.executable, "nest.py", PYTHONPATH=f"{root}:{site}")
    assert seen(statement) == ("ok", "ok", ["only-b"])
    (said,) = read_records(inner).processes
    assert (Path(said.said.prefix).name, said.parent) == ("b", None)


def test_workers_of_one_environment_are_one_environment(folder: Folder) -> None:
    launcher = folder.launcher(
        """
        ranks = [subprocess.Popen([sys.executable, 't.py']) for _ in range(2)]
        assert [rank.wait() for rank in ranks] == [0, 0]
        """
    )
    statement = folder.record(str(folder.a), launcher)
    assert seen(statement) == ("ok", "ok", ["only-a"])
    values = statement.build.internal_parameters.collectors["interpreter"].values
    assert "saidBy" not in values  # the recorder asked it, before and after
    reads = statement.build.internal_parameters.collectors["reads"]
    assert reads.values["processes"] == 3


def test_a_training_that_starts_ordinary_programs(folder: Folder) -> None:
    launcher = folder.launcher(
        """
        os.system("mkdir -p out"); subprocess.run(["true"])
        subprocess.run("ls > /dev/null", shell=True)
        import multiprocessing, platform; platform.platform()
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                pool.map(abs, range(4))
            exec(open("t.py").read())
        """
    )
    assert seen(folder.record(str(folder.a), launcher)) == ("ok", "ok", ["only-a"])


def test_what_is_installed_while_the_own_python_trains_is_drift(folder: Folder) -> None:
    launcher = folder.launcher(
        """
        import site
        at = site.getsitepackages()[0] + "/late-2.dist-info"
        os.makedirs(at, exist_ok=True)
        open(at + "/METADATA", "w").write("Name: late\\nVersion: 2\\n")
        exec(open("t.py").read())
        """
    )
    drift = folder.record(str(folder.a), launcher).build.internal_parameters.drift
    assert ("packages", "late") in {(item.collector, item.name) for item in drift}
