from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.capture.python import asking, packages, probe
from provenance.capture.python.launchers import find_interpreter
from provenance.capture.python.packages import observe_software
from provenance.capture.python.probe import record_digest

ENVIRON = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

HASH = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
WHEEL_RECORD = f"""demo/__init__.py,{HASH},0
demo/data,{HASH},
"demo/a,b.py",{HASH},10
demo-1.0.data/purelib/extra.py,{HASH},1
demo-1.0.data/platlib/native.so,{HASH},2
demo-1.0.data/scripts/demo,{HASH},3
demo-1.0.data/data/share/doc,{HASH},4
demo-1.0.dist-info/METADATA,{HASH},5
demo-1.0.dist-info/RECORD,,
"""
INSTALLED_RECORD = f"""../../../bin/demo,{HASH},30
../../../share/doc,{HASH},4
native.so,{HASH},2
extra.py,{HASH},1
demo-1.0.dist-info/RECORD,,
demo-1.0.dist-info/METADATA,{HASH},5
demo-1.0.dist-info/INSTALLER,{HASH},4
demo-1.0.dist-info/REQUESTED,{HASH},0
demo-1.0.dist-info/direct_url.json,{HASH},99
demo-1.0.dist-info/uv_cache.json,{HASH},99
demo/__init__.py,{HASH},0
demo/__pycache__/__init__.cpython-311.pyc,,
demo/__pycache__/hashed.pyc,{HASH},7
demo/data,{HASH},
"demo/a,b.py",{HASH},10
"""


def test_a_wheel_and_what_is_installed_from_it_have_one_digest() -> None:
    assert record_digest(WHEEL_RECORD) == record_digest(INSTALLED_RECORD)
    # Another digest would make old statements incomparable.
    expected = "77bac107c32e7d1726a5ca52c49e23bcafd4a9b6de6ee62305805ee3f3e8324a"
    assert record_digest(WHEEL_RECORD) == expected


@pytest.mark.parametrize("line", WHEEL_RECORD.splitlines()[:5])
def test_every_file_counts(line: str) -> None:
    other = line.replace("47DE", "57DE")
    assert record_digest(WHEEL_RECORD.replace(line, other)) != record_digest(WHEEL_RECORD)
    assert record_digest(WHEEL_RECORD.replace(line + "\n", "")) != record_digest(WHEEL_RECORD)


PARTS = (
    *("a", "b.py", ".", "..", "/", "//", "\\", ",", ",,", '"', "\n", "\r\n", "\x0b", " ", HASH),
    *("a-1.dist-info/", "RECORD", "INSTALLER", "a-1.data/", "purelib/", "__pycache__", ".d", "é"),
)


@given(st.lists(st.sampled_from(PARTS)).map("".join) | st.text())
def test_any_record_has_the_digest_of_its_rows(text: str) -> None:
    rows = [row for row in csv.reader(text.splitlines()) if row[1:] and row[1]]
    placed = [(probe._installed_path(row[0]), (*row[1:], "")) for row in rows]  # noqa: SLF001
    lines = sorted(f"{path},{row[0]},{row[1]}\n" for path, row in placed if path is not None)
    data = "".join(lines).encode("utf-8", "surrogatepass")
    assert record_digest(text) == hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of its own, with three distributions."""
    folder = tmp_path_factory.mktemp("venv with space") / "env"
    venv.create(folder, symlinks=True, with_pip=False)
    library = next(folder.glob("lib/python*/site-packages"))
    install(library, "demo", "1.0+local", RECORD=INSTALLED_RECORD)
    install(library, "No.Record", "2.0")
    install(
        library,
        "editable",
        "3.0",
        RECORD=INSTALLED_RECORD,
        **{
            "direct_url.json": '{"url": "file:///home/alice/p%20q", "dir_info": {"editable": true}}'
        },
    )
    install(
        library,
        "from-git",
        "4.0",
        RECORD=INSTALLED_RECORD,
        **{
            "direct_url.json": json.dumps(
                {
                    "url": "https://alice:s3cret@example.org/p.git",
                    "vcs_info": {"vcs": "git", "commit_id": "ab" * 20},
                    "archive_info": {"hashes": {"sha256": "0" * 64}},
                }
            )
        },
    )
    return folder


def install(library: Path, name: str, version: str, **files: str) -> None:
    folder = library / f"{name}-{version}.dist-info"
    folder.mkdir()
    folder.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    for file, text in files.items():
        folder.joinpath(file).write_text(text)


def test_another_interpreter_is_asked_for_its_own_distributions(
    environment: Path, tmp_path: Path
) -> None:
    found = observe_software([str(environment / "bin/python"), "train.py"], tmp_path, ENVIRON)
    assert found.packages.status == "ok"
    assert found.packages.values == {"distributions": 4, "withoutRecord": 2}
    assert found.interpreter.values["virtualEnvironment"] is True
    assert found.interpreter.values["version"] == ".".join(map(str, sys.version_info[:3]))
    by_name = {item.name: item for item in found.distributions}
    assert by_name["demo"].uri == "pkg:pypi/demo@1.0%2Blocal"
    assert by_name["demo"].annotations == {"recordDigest": record_digest(WHEEL_RECORD)}
    assert by_name["no-record"].annotations == {"recordStatus": "absent"}
    assert by_name["editable"].annotations == {"editable": True, "recordStatus": "absent"}
    assert by_name["from-git"].annotations == {
        "recordDigest": record_digest(WHEEL_RECORD),
        "directUrl": "https://example.org/p.git",
        "commit": "ab" * 20,
        "archiveDigest": "0" * 64,
    }
    assert found.editable == (("editable", Path("/home/alice/p q")),)
    assert str(environment) not in str(found.interpreter)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_script_is_asked_by_the_python_it_starts(environment: Path, tmp_path: Path) -> None:
    python = environment / "bin/python"
    starts = {
        "plain": f"#!{sys.executable} -Es\n",
        "by-env": "#!/usr/bin/env python3\n",
        "by-env-s": "#!/usr/bin/env -S python3 -u -I\n",
        "long": f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
    }
    found = {}
    for name, text in starts.items():
        path = script(tmp_path / "bin" / name, text)
        interpreter = find_interpreter([str(path), "x"], tmp_path, ENVIRON)
        assert interpreter, name
        found[name] = interpreter
    assert found["plain"] == [sys.executable, "-Es"]
    assert Path(found["by-env"][0]).name == "python3"
    assert found["by-env-s"][1:] == ["-I"]
    assert found["long"] == [str(python)]


def test_a_script_that_looks_beside_itself(environment: Path, tmp_path: Path) -> None:
    text = '#!/bin/sh\n\'\'\'exec\' "$(dirname -- "$(realpath -- "$0")")"/\'python\' "$0" "$@"\n'
    path = script(environment / "bin" / "torchrun", text)
    interpreter = find_interpreter([str(path)], tmp_path, ENVIRON)
    assert interpreter == [str(environment / "bin/python")]


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (["python3", "train.py", "-I"], []),
        (["python3", "-u", "train.py"], []),
        (["python3", "-I", "-uE", "train.py"], ["-IE"]),
        (["env", "A=1", "B=2", "python3", "-s", "x"], ["-s"]),
        (["/usr/bin/env", "python3"], []),
    ],
)
def test_options_that_change_imports_are_kept(
    tmp_path: Path, command: list[str], flags: list[str]
) -> None:
    interpreter = find_interpreter(command, tmp_path, ENVIRON)
    assert interpreter
    assert interpreter[1:] == flags


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "train.sh"],
        ["env", "-i", "python3"],
        ["env"],
        ["no-such-program"],
        ["./other-language"],
        ["./broken"],
        ["./not-there"],
        ["./unbalanced"],
    ],
)
def test_a_command_that_starts_no_known_python_says_nothing(
    tmp_path: Path, command: list[str]
) -> None:
    script(tmp_path / "other-language", "#!/usr/bin/perl\n")
    script(tmp_path / "broken", "\0\1")
    script(tmp_path / "not-there", "#!/no/such/python3\n")
    script(tmp_path / "unbalanced", "#!/usr/bin/env 'python3\n")
    found = observe_software(command, tmp_path, ENVIRON)
    assert (found.packages.status, found.distributions) == ("absent", ())


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    assert observe_software([], tmp_path, ENVIRON).packages.status == "absent"
    denied = script(tmp_path / "python3", "")
    denied.chmod(0o644)
    assert observe_software([str(denied)], tmp_path, ENVIRON).packages.status == "denied"


def test_a_folder_as_program_is_no_python(tmp_path: Path) -> None:
    tmp_path.joinpath("tool").mkdir()
    assert observe_software(["./tool"], tmp_path, ENVIRON).packages.status == "absent"


def test_modules_of_the_folder_do_not_shadow_the_probe(tmp_path: Path) -> None:
    for name in ("json", "hashlib", "csv"):
        tmp_path.joinpath(f"{name}.py").write_text("raise SystemExit('shadowed')")
    found = observe_software([sys.executable, "train.py"], tmp_path, ENVIRON)
    assert found.packages.status == "ok"


def test_what_start_up_prints_does_not_confuse(environment: Path, tmp_path: Path) -> None:
    tmp_path.joinpath("sitecustomize.py").write_text(
        "import atexit\nprint('provenance-probe:{}')\natexit.register(print, 'bye')\n"
    )
    environ = {**ENVIRON, "PYTHONPATH": str(tmp_path)}
    found = observe_software([str(environment / "bin/python")], tmp_path, environ)
    assert found.packages.values["distributions"] == 4


@pytest.mark.parametrize(
    "answer",
    [
        "exit 3",
        "echo >&2 oops; exit 3",
        "echo nothing",
        f"printf '\\n{probe.MARK}not json\\n'",
        f"printf '\\n{probe.MARK}[]\\n'",
        f"printf '\\n{probe.MARK}{{\"interpreter\": 1}}\\n'",
        f"printf '\\n{probe.MARK}\\377\\n'",
    ],
)
def test_a_python_that_is_none_is_an_error(tmp_path: Path, answer: str) -> None:
    fake = script(tmp_path / "python3", f"#!/bin/sh\n{answer}\n")
    found = observe_software([str(fake), "x"], tmp_path, ENVIRON)
    assert found.packages.status == "error"
    assert found.packages.reason


def test_a_python_that_hangs_or_talks_too_much_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "TIMEOUT_SECONDS", 0.3)
    fake = script(tmp_path / "python3", "#!/bin/sh\nexec sleep 60\n")
    assert "longer than" in observe_software([str(fake)], tmp_path, ENVIRON).packages.reason
    monkeypatch.undo()
    monkeypatch.setattr(packages, "_MAX_ANSWER_BYTES", 10)
    found = observe_software([sys.executable], tmp_path, ENVIRON)
    assert "too long" in found.packages.reason


def test_a_python_that_was_asked_early_is_not_started_again(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, started = [str(environment / "bin/python")], []
    start = asking._start  # noqa: SLF001

    def counted(*question: Any) -> tuple[subprocess.Popen[bytes], int]:  # noqa: ANN401 - passed on
        started.append(start(*question))
        return started[-1]

    monkeypatch.setattr(asking, "_start", counted)
    monkeypatch.chdir(tmp_path)
    with asking.begun(words, ENVIRON):
        found = observe_software(words, tmp_path, ENVIRON)
        assert (found.packages.status, len(started)) == ("ok", 1)
        observe_software(words, tmp_path, ENVIRON)
        assert len(started) == 2
    with asking.begun(words, {**ENVIRON, "PYTHONPATH": "x"}):
        assert observe_software(words, tmp_path, ENVIRON).packages.status == "ok"
        assert observe_software([*words, "-I"], tmp_path, ENVIRON).options == "-I"
        assert len(started) == 5
    with asking.begun(["no-such-program"], ENVIRON), asking.begun([], ENVIRON):
        observe_software(words, tmp_path, ENVIRON)
    with pytest.raises(KeyError), asking.begun(words, ENVIRON):
        raise KeyError
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with asking.begun(["\0"], ENVIRON), asking.begun(words, ENVIRON):
        observe_software(words, tmp_path, ENVIRON)
    assert len(started) == 8
    assert all(process.returncode is not None for process, _ in started)


def test_a_broken_distribution_is_told(environment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    folder.mkdir()
    install(folder, "broken", "1", RECORD=f'"unclosed,{HASH},1\n\0')
    folder.joinpath("broken-1.dist-info", "direct_url.json").write_text("{not json")
    folder.joinpath("nameless-1.dist-info").mkdir()
    folder.joinpath("nameless-1.dist-info", "METADATA").write_text("Version: 1\n")
    environ = {**ENVIRON, "PYTHONPATH": str(folder)}
    found = observe_software([str(environment / "bin/python")], tmp_path, environ)
    assert found.packages.status in ("ok", "error")
    assert found.interpreter.status == "ok"


def test_the_first_on_the_path_is_the_one_that_counts(environment: Path, tmp_path: Path) -> None:
    install(tmp_path, "Demo", "9.0", RECORD=INSTALLED_RECORD)
    environ = {**ENVIRON, "PYTHONPATH": str(tmp_path)}
    found = observe_software([str(environment / "bin/python")], tmp_path, environ)
    assert {item.uri for item in found.distributions if item.name == "demo"} == {
        "pkg:pypi/demo@9.0"
    }
    isolated = observe_software([str(environment / "bin/python"), "-I", "x"], tmp_path, environ)
    assert "pkg:pypi/demo@9.0" not in {item.uri for item in isolated.distributions}


def test_the_headers_say_the_same_as_to_the_library_of_python() -> None:
    told = probe.distributions(metadata.distributions())
    parsed = [each.metadata for each in reversed(list(metadata.distributions()))]
    found = {re.sub(r"[-_.]+", "-", it["Name"]).lower(): it["Version"] for it in parsed}
    assert {each["name"]: each["version"] for each in told} == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name: A.b\r\nVersion: 1\r\n\r\nName: x\r\nVersion: 2\r\n", ("a-b", "1")),
        ("Name: a\nName: b\nVERSION:  1 \nVersion: 2\n", ("a", "1")),
        ("Name: a\n\nVersion: 2\n", ("a", "None")),
        ("Name:\nVersion: 1\n", None),
        ("", None),
    ],
)
def test_the_first_headers_count(text: str, found: tuple[str, str] | None, tmp_path: Path) -> None:
    tmp_path.joinpath("METADATA").write_bytes(text.encode())
    [*told] = probe.distributions([packages._Installed(tmp_path)])  # noqa: SLF001
    assert told == ([{"name": found[0], "version": found[1]}] if found else [])


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "a module is compiled": lambda at: at.joinpath("__pycache__").mkdir(),
    "installed": lambda at: install(at, "new", "1"),
    "removed": lambda at: shutil.rmtree(at / "demo-1.dist-info"),
    "another RECORD": lambda at: at.joinpath("demo-1.dist-info/RECORD").write_text("x"),
    "another origin": lambda at: at.joinpath("demo-1.dist-info/direct_url.json").write_text("{}"),
    "another path": lambda at: at.joinpath("a.pth").write_text("x"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_python_is_asked_again_where_what_it_says_may_have_changed(
    name: str, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, environ = [str(environment / "bin/python")], {**ENVIRON, "PYTHONPATH": str(tmp_path)}
    install(tmp_path, "demo", "1", RECORD=INSTALLED_RECORD)
    new = observe_software(words, tmp_path, environ)
    assert not new.state  # the clock may stand still while it changes
    assert observe_software(words, tmp_path, environ, known=new) is not new
    monkeypatch.setattr(packages, "CLOCK_TICK", 0)
    known = observe_software(words, tmp_path, environ)
    CHANGES[name](tmp_path)
    again = observe_software(words, tmp_path, environ, known=known)
    assert (again is known) == (name in ("nothing", "a module is compiled"))
    assert again.environment == known.environment
    assert observe_software([*words, "-I"], tmp_path, environ, known=known).options == "-I"


def test_a_script_that_chooses_a_python_is_asked_again(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "CLOCK_TICK", 0)
    shim = script(tmp_path / "python3", f"#!/bin/sh\nexec '{environment}/bin/python' \"$@\"\n")
    known = observe_software([str(shim)], tmp_path, ENVIRON)
    assert known.packages.status == "ok"
    assert observe_software([str(shim)], tmp_path, ENVIRON, known=known) is not known


@pytest.mark.parametrize("version", ["3.8", "3.10", "3.12", "3.13", "3.14"])
def test_older_and_newer_pythons_answer(version: str, tmp_path: Path) -> None:
    installed = (Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python{version}")
    for python in (shutil.which(f"python{version}"), *map(str, installed)):
        if (
            python
            and not subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode
        ):
            break
    else:
        pytest.skip(f"no Python {version} here")
    found = observe_software([python, "x"], tmp_path, ENVIRON)
    assert found.interpreter.values["version"].startswith(version)
    assert found.packages.status == "ok"


def test_the_probe_says_what_it_writes(capsys: pytest.CaptureFixture[str]) -> None:
    probe.main()
    line = capsys.readouterr().out.strip()
    answer = json.loads(line.removeprefix(probe.MARK))
    assert answer["interpreter"]["implementation"] == sys.implementation.name.replace(
        "cpython", "CPython"
    )
    assert any(item["name"] == "pytest" for item in answer["distributions"])
