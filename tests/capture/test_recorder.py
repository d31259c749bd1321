from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provenance.capture.draft import draft, with_model
from provenance.capture.inputs import Inputs
from provenance.capture.made import look_now
from provenance.capture.process import CommandResult, run
from provenance.capture.python import startup
from provenance.capture.python.packages import Software, observe_software
from provenance.capture.python.records import prepare
from provenance.capture.recorder import heard, look_after, observe_before, plan
from provenance.capture.secrecy.leaks import refuse_secrets_in
from provenance.capture.secrecy.scan import live_secrets
from provenance.encoding import strict_base64
from provenance.errors import SecretError, UnreadableError, UsageError
from provenance.files.manifest import hash_folder
from provenance.statement import intoto, training
from provenance.statement.training import DeclaredEquality, TrainingStatement

if TYPE_CHECKING:
    from provenance.capture.draft import Before, Recording
    from tests.capture.conftest import Repository

ROOT = Path(__file__).parents[2]

TRAINING = """
import os, pathlib, sys
import provenance
run = provenance.current_run()
run.seed("numpy", 42)
for step in range(int(os.environ.get("STEPS", "2"))):
    run.metric("loss", 1 / (step + 1), step)
data = pathlib.Path(sys.argv[1]).read_text()
model = pathlib.Path(sys.argv[2])
model.mkdir(parents=True, exist_ok=True)
model.joinpath("weights.bin").write_text(data * 2)
exec(os.environ.get("MORE", ""))
"""


class Project:
    """A training in a git repository, recorded for real."""

    def __init__(self, repository: Repository, tmp_path: Path) -> None:
        self.repository = repository
        self.folder = repository.path
        self.directory = tmp_path / "run"
        self.directory.mkdir()
        prepare(self.directory)
        self.heard: dict[str, str] = {}
        repository.commit({"train.py": TRAINING, "conf/a.toml": "lr = 1\n", ".gitignore": "data\n"})
        repository.write({"data/digits.csv": "1,2,3\n"})
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(repository.home),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.inputs = Inputs(
            model=Path("out/model"),
            working_folder=self.folder,
            data=(("train", Path("data")),),
            config=(Path("conf/a.toml"),),
            axes=("cpu",),
            equality=DeclaredEquality("bytes", "0" * 64, {"name": "x"}),
            seeds={"numpy": "042", "torch": "7"},
        )
        self.command: tuple[str, ...] = (sys.executable, "train.py", "data/digits.csv", "out/model")

    def before(self, **inputs: Any) -> Before:  # noqa: ANN401
        changed = {name: getattr(self.inputs, name) for name in Inputs.__slots__} | inputs
        before = observe_before(Inputs(**changed), self.command, environ=self.environ)
        if not self.heard:
            self.heard = startup.install(self.directory, self.environ, **heard(before))
        return before

    def run(self, command: tuple[str, ...] | None = None) -> CommandResult:
        return run(
            command or self.command,
            folder=self.folder,
            environ=self.inputs.without_secrets({**self.environ, **self.heard}),
            run_directory=self.directory,
        )

    def after(self, before: Before, result: CommandResult) -> Recording:
        seen = look_after(before, environ=self.environ, run_directory=self.directory)
        return draft(*seen, result)

    def record(self) -> Recording:
        before = self.before()
        result = self.run()
        recording = self.after(before, result)
        return with_model(recording, look_now(before.model))


@pytest.fixture
def project(repository: Repository, tmp_path: Path) -> Project:
    return Project(repository, tmp_path)


def dependencies(statement: TrainingStatement) -> dict[str, intoto.ResourceDescriptor]:
    return {item.name: item for item in statement.build.resolved_dependencies}


def byproducts(statement: TrainingStatement) -> dict[str, intoto.ResourceDescriptor]:
    return {item.name: item for item in statement.run.byproducts}


def test_a_training_is_recorded_from_end_to_end(project: Project) -> None:
    recording = project.record()
    statement = recording.statement
    assert statement.model_name == "model"
    assert [entry.name for entry in statement.manifest.entries] == ["weights.bin"]

    recipe = statement.recipe
    python = Path(sys.executable).name
    assert recipe.command == (python, "train.py", "${data:train}/digits.csv", "${model}")
    assert recipe.source is not None
    assert recipe.source.tree == project.repository.git("rev-parse", "HEAD^{tree}")
    assert [file.name for file in recipe.source.files] == ["train.py"]
    assert [item.name for item in recipe.data] == ["train"]
    assert recipe.data[0].digest["sha256"] == hash_folder(project.folder / "data").root_digest
    assert [item.name for item in recipe.config] == ["a.toml"]
    assert recipe.seeds == {"numpy": "42", "torch": "7"}
    assert (recipe.axes, recipe.equality) == (
        ("cpu",),
        DeclaredEquality("bytes", "0" * 64, {"name": "x"}),
    )

    assert statement.run.provenance_outcome == training.Outcome(exit_status=0)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", statement.run.metadata.started_on)
    found = dependencies(statement)
    assert {"data:train", "config:a.toml", "source", "msgspec"} <= set(found)
    assert found["data:train"].annotations == {"manifest": recipe.data[0].manifest}
    collectors = statement.build.internal_parameters.collectors
    assert {name: item.status for name, item in collectors.items() if name != "gpus"} == {
        "system": "ok",
        "processor": "ok",
        "memory": "ok",
        "container": "ok",
        "cost": "ok",
        "variables": "ok",
        "interpreter": "ok",
        "packages": "ok",
        "source": "ok",
        "untracked": "ok",
        "recorder": "ok",
        "metrics": "ok",
        "reads": "ok",
        "program": "absent",
        "libraries": "ok" if sys.platform == "linux" else "absent",
        "distribution": "absent",
    }
    assert statement.build.internal_parameters.drift == ()


def test_what_is_recorded_survives_signing(project: Project) -> None:
    recording = project.record()
    payload = refuse_secrets_in(recording, live_secrets(project.environ))
    assert training.from_statement(intoto.parse(payload)) == recording.statement


def test_two_runs_of_the_same_have_the_same_recipe(project: Project, tmp_path: Path) -> None:
    first = project.record().statement
    elsewhere = tmp_path / "elsewhere" / "project"
    elsewhere.parent.mkdir()
    project.folder.rename(elsewhere)
    inputs = Inputs(
        **{name: getattr(project.inputs, name) for name in Inputs.__slots__}
        | {"working_folder": elsewhere, "model": tmp_path / "m"}
    )
    command = (sys.executable, "train.py", str(elsewhere / "data/digits.csv"), "../../m")
    before = observe_before(inputs, command, environ=project.environ)
    result = run(
        command,
        folder=elsewhere,
        environ=project.environ,
        run_directory=project.directory,
    )
    recording = project.after(before, result)
    second = with_model(recording, look_now(before.model)).statement
    assert second.recipe.command == first.recipe.command
    assert second.manifest == first.manifest
    assert second.recipe.source is not None
    assert second.recipe.source.tree != ""


def test_byproducts_are_what_the_digests_say(project: Project) -> None:
    project.environ["STEPS"] = "200"
    recording = project.record()
    found = byproducts(recording.statement)
    assert list(found) == ["manifest/data:train", "manifest/config:a.toml", "metrics"]
    manifest = strict_base64.parse(found["manifest/data:train"].content)
    assert hashlib.sha256(manifest).hexdigest() == recording.statement.recipe.data[0].manifest
    assert json.loads(manifest)[0][:2] == ["digits.csv", 6]
    metrics = found["metrics"]
    assert metrics.content == ""
    data = recording.files[metrics.digest["sha256"]]
    assert hashlib.sha256(data).hexdigest() == metrics.digest["sha256"]
    assert data.count(b"\n") == 200
    assert metrics.annotations == {"records": 200, "last": {"loss": 1 / 200}}


def test_an_input_that_changes_during_the_run_is_named(project: Project) -> None:
    project.environ["MORE"] = "pathlib.Path('data/digits.csv').write_text('other')"
    statement = project.record().statement
    [changed] = statement.run.provenance_outcome.changed_inputs
    assert changed == training.ChangedInput("data:train", changed=("digits.csv",))
    found = dependencies(statement)["data:train"]
    assert found.digest == statement.recipe.data[0].digest


def test_an_input_that_vanishes_is_named(project: Project) -> None:
    project.environ["MORE"] = "os.unlink('data/digits.csv')"
    statement = project.record().statement
    [changed] = statement.run.provenance_outcome.changed_inputs
    assert changed == training.ChangedInput("data:train", problem="holds no files")


def test_a_command_that_fails_is_stated(project: Project) -> None:
    project.environ["MORE"] = "sys.exit(3)"
    outcome = project.record().statement.run.provenance_outcome
    assert (outcome.exit_status, outcome.failed) == (3, True)


def test_a_command_that_is_killed_is_stated(project: Project) -> None:
    project.environ["MORE"] = f"os.kill(os.getpid(), {signal.SIGKILL.value})"
    outcome = project.record().statement.run.provenance_outcome
    assert (outcome.exit_status, outcome.signal, outcome.failed) == (None, "SIGKILL", True)


def test_a_training_that_leaves_no_model_has_no_statement(project: Project) -> None:
    project.command = (sys.executable, "-c", "pass")
    with pytest.raises(UnreadableError):
        project.record()


def test_packages_installed_during_the_run_are_drift(project: Project, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    project.environ["PYTHONPATH"] += f":{library}"
    project.environ["MORE"] = (
        f"d = pathlib.Path({str(library)!r}) / 'late-1.0.dist-info'; d.mkdir();"
        "d.joinpath('METADATA').write_text('Name: late\\nVersion: 1.0\\n')"
    )
    drift = project.record().statement.build.internal_parameters.drift
    assert training.Drift("packages", "late", None, "pkg:pypi/late@1.0") in drift


def test_what_the_program_said_may_be_lost(project: Project) -> None:
    before = project.before()
    result = project.run()
    project.directory.joinpath("records.jsonl").unlink()
    recording = project.after(before, result)
    said = recording.statement.build.internal_parameters.collectors["metrics"]
    assert said.status == "error"
    assert "metrics" not in byproducts(recording.statement)


def test_behind_a_shell_script_the_program_tells_its_interpreter(project: Project) -> None:
    project.repository.write({"train.sh": f'exec {sys.executable} train.py "$@"'})
    project.command = ("sh", "train.sh", *project.command[2:])
    statement = project.record().statement
    environment = statement.build.internal_parameters
    assert environment.collectors["packages"].status == "ok"
    assert environment.drift == ()
    assert "msgspec" in dependencies(statement)
    assert statement.recipe.source is not None
    assert [file.name for file in statement.recipe.source.files] == ["train.sh"]


def test_losses_are_stated(project: Project) -> None:
    before = project.before()
    project.directory.joinpath("records.jsonl").write_text('{"dropped":3}\nbroken\n')
    recording = project.after(before, project.run())
    said = recording.statement.build.internal_parameters.collectors["metrics"]
    assert said.values == {"records": 2, "dropped": 3, "damaged": 1}


def test_a_model_can_be_attested_after_the_fact(project: Project) -> None:
    project.run()
    before = observe_before(project.inputs, None, environ=project.environ)
    recording = plan(before)
    statement = with_model(recording, look_now(before.model)).statement
    assert statement.recipe.command == ()
    assert statement.recipe.source is not None
    assert statement.run.provenance_outcome == training.Outcome()
    assert statement.run.metadata.started_on == ""
    assert statement.build.internal_parameters.observed == ("end",)
    assert statement.build.internal_parameters.collectors["packages"].status == "absent"
    assert training.from_statement(training.to_statement(statement)) == statement


def test_a_plan_is_the_statement_before_the_run(project: Project) -> None:
    before = project.before()
    planned = plan(before)
    assert planned.statement.manifest.entries == ()
    assert planned.statement.build.internal_parameters.observed == ("start",)
    assert planned.statement.run.provenance_outcome == training.Outcome()
    refuse_secrets_in(planned, live_secrets(project.environ))
    assert not project.folder.joinpath("out").exists()


def test_a_run_has_an_id(project: Project) -> None:
    before = observe_before(
        project.inputs, project.command, environ=project.environ, invocation_id="an-id"
    )
    assert plan(before).statement.run.metadata.invocation_id == "an-id"


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"data": (("train", Path("missing")),)}, UnreadableError),
        ({"config": (Path("missing.toml"),)}, UnreadableError),
        ({"base_model": Path("missing")}, UnreadableError),
        ({"model": Path("data/model")}, UsageError),
        ({"model": Path("train.py")}, UnreadableError),
        ({"seeds": {"numpy": "0.5"}}, UsageError),
        ({"working_folder": Path("/no/such/folder")}, UnreadableError),
    ],
)
def test_what_can_fail_fails_before_the_training(
    project: Project, inputs: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        project.before(**inputs)


def test_a_secret_in_the_statement_is_refused_before_the_training(project: Project) -> None:
    project.environ["DB_PASSWORD"] = "correct-horse"
    project.inputs = Inputs(
        **{name: getattr(project.inputs, name) for name in Inputs.__slots__}
        | {"axes": ("correct-horse",)}
    )
    planned = plan(project.before())
    with pytest.raises(SecretError, match="DB_PASSWORD"):
        refuse_secrets_in(planned, live_secrets(project.environ))
    refuse_secrets_in(planned, live_secrets(project.environ, allowed=frozenset({"DB_PASSWORD"})))


def test_a_secret_in_a_byproduct_is_refused(project: Project) -> None:
    project.environ |= {"DB_PASSWORD": "correct-horse", "STEPS": "100"}
    project.environ["MORE"] = "run.metric('correct-horse', 1)"
    with pytest.raises(SecretError, match="DB_PASSWORD"):
        refuse_secrets_in(project.record(), live_secrets(project.environ))


def test_a_variable_with_the_keys_password_is_not_for_the_training(project: Project) -> None:
    project.environ["SIGNPW"] = "correct horse"
    project.environ["MORE"] = "model.joinpath('seen').write_text(os.environ.get('SIGNPW', 'not'))"
    inputs = {name: getattr(project.inputs, name) for name in Inputs.__slots__}
    project.inputs = Inputs(**inputs | {"secret_variables": frozenset({"SIGNPW"})})
    project.command = (*project.command, "a correct horse b")
    recording = project.record()
    assert (project.folder / "out/model/seen").read_text() == "not"
    assert recording.statement.recipe.command[-1] == "a ${redacted:variable} b"
    drift = recording.statement.build.internal_parameters.drift
    assert not [item for item in drift if item.collector == "variables"]
    leaking = plan(project.before(axes=("correct horse",)))
    with pytest.raises(SecretError, match="SIGNPW"):
        refuse_secrets_in(leaking, live_secrets(project.environ, named=frozenset({"SIGNPW"})))


def test_a_credential_in_a_short_byproduct_is_refused(project: Project) -> None:
    """It stands in the statement itself, in base64."""
    project.repository.write({f"data/ghp_{'aB3' * 12}.csv": "1"})
    planned = plan(project.before())
    assert planned.files == {}
    with pytest.raises(SecretError, match=r"the byproduct manifest/data:train: .*github"):
        refuse_secrets_in(planned, live_secrets(project.environ))


def test_a_secret_argument_is_cut_and_told(project: Project) -> None:
    project.environ["DB_PASSWORD"] = "correct-horse"
    project.command = (*project.command, "--url=correct-horse")
    recording = project.record()
    assert recording.statement.recipe.command[-1] == "--url=${redacted:variable}"
    recorder = recording.statement.build.internal_parameters.collectors["recorder"]
    assert recorder.values["redactedArguments"] == [4]
    refuse_secrets_in(recording, live_secrets(project.environ))


def test_the_repository_of_an_editable_distribution_is_recorded(
    project: Project, other_repository: Repository, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    for name, path in (("far", other_repository.path), ("near", project.folder)):
        folder = library / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        folder.joinpath("METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
        origin = {"url": path.as_uri(), "dir_info": {"editable": True}}
        folder.joinpath("direct_url.json").write_text(json.dumps(origin))
    project.environ["PYTHONPATH"] += f":{library}"
    found = dependencies(project.record().statement)
    assert found["editable/far"].digest["gitTree"] == other_repository.git(
        "rev-parse", "HEAD^{tree}"
    )
    assert "editable/near" not in found
    assert found["far"].annotations["editable"] is True
    assert str(tmp_path) not in json.dumps([repr(item) for item in found.values()])


def test_progress_is_told(project: Project) -> None:
    told: list[int] = []
    observe_before(project.inputs, project.command, environ=project.environ, progress=told.append)
    assert sum(told) == 6 + len("lr = 1\n")


def test_an_executable_that_the_program_names_is_not_run(project: Project, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    named = tmp_path / "python3"
    named.write_text(f"#!/bin/sh\ntouch {proof}\n")
    named.chmod(0o755)
    project.repository.write({"train.sh": "mkdir -p out/model && echo w > out/model/w"})
    project.command = ("sh", "train.sh")
    before = project.before()
    result = project.run()
    record = json.dumps({"interpreter": str(named)})
    project.directory.joinpath("records.jsonl").write_text(record + "\n")
    recording = project.after(before, result)
    collectors = recording.statement.build.internal_parameters.collectors
    assert collectors["interpreter"].status == "absent"
    assert not proof.exists()


def test_a_program_outside_the_folder_is_told_by_its_digest(
    project: Project, tmp_path: Path
) -> None:
    def files(program: str) -> dict[str, str]:
        project.command = (program, "train.py")
        source = project.before().source.source
        assert source is not None
        return {file.name: file.sha256 for file in source.files if file.name != "train.py"}

    for name, text in (("p1", "#!/bin/sh\n"), ("p2", "#!/bin/sh\n:\n")):
        path = tmp_path / name / "t.sh"
        path.parent.mkdir()
        path.write_text(text)
        path.chmod(0o755)
    first, second = (files(str(tmp_path / name / "t.sh")) for name in ("p1", "p2"))
    assert list(first) == list(second) == ["t.sh"]
    assert first != second
    assert files("sh") == files(str(shutil.which("sh"))) == files(sys.executable) == {}


def test_a_file_that_a_secret_option_names_is_left_out(project: Project) -> None:
    project.repository.write({"pw.txt": "hunter2"})
    project.command = (*project.command, "--password-file", "pw.txt", "--token-file=pw.txt")
    recording = project.record()
    digest = hashlib.sha256(b"hunter2").hexdigest().encode()
    assert digest not in refuse_secrets_in(recording, live_secrets(project.environ))
    source = recording.statement.recipe.source
    assert source is not None
    assert [file.name for file in source.files] == ["train.py"]


def test_a_reason_names_no_path_and_no_user(project: Project) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    project.environ |= {"USER": "alice", "HOME": str(project.folder)}
    for path in (project.folder, *project.folder.rglob("*")):
        os.chown(path, 12345, 12345)
    found = project.before().collectors["source"]
    assert found.status == "denied"
    assert "dubious ownership" in found.reason
    assert str(project.folder.parent) not in found.reason
    assert "…" in found.reason


def test_untracked_code_that_a_run_imports_is_in_the_recipe_and_the_rest_beside_it(
    project: Project,
) -> None:
    project.repository.write({"helper.py": "V = 1\n", "err.txt": "x"})
    project.environ["MORE"] = "import helper; open('made.txt', 'w').write('x')"
    statement = project.record().statement
    source = statement.recipe.source
    assert source is not None
    assert [file.name for file in source.read] == ["helper.py"]
    listed = statement.build.internal_parameters.collectors["untracked"].values["files"]
    assert listed.keys() == {"err.txt", "helper.py"}
    assert statement.run.provenance_outcome.changed_inputs == ()


def test_a_module_that_is_edited_while_the_run_sleeps_is_drift_and_a_changed_input(
    project: Project,
) -> None:
    project.repository.commit({"late.py": "V = 'old'\n"})
    project.environ["MORE"] = "pathlib.Path('late.py').write_text('V = 1'); import late"
    statement = project.record().statement
    [changed] = statement.run.provenance_outcome.changed_inputs
    assert (changed.name, changed.changed) == ("source", ("late.py",))
    drift = statement.build.internal_parameters.drift
    assert [(item.collector, item.name) for item in drift] == [("source", "tree")]


def test_what_is_editable_here_is_looked_at_again_whoever_trained(
    project: Project, other_repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def observe(*_: object, **options: Any) -> Software:  # noqa: ANN401
        found = observe_software(*_, **options)  # type: ignore[arg-type]
        return replace(found, editable=(("lib", other_repository.path),))

    monkeypatch.setattr("provenance.capture.recorder.observe_software", observe)
    before = project.before()
    result = project.run((sys.executable, "-I", "-c", "import os; os.makedirs('out/model')"))
    statement = project.after(before, result).statement
    assert statement.build.internal_parameters.collectors["packages"].status != "ok"
    assert statement.run.provenance_outcome.changed_inputs == ()
    assert "editable/lib" in dependencies(statement)
