"""Claims that an identity signs: of a hosted CI's job, of a run that is finished, by a policy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provenance.sigstore.signing import SIGNING_VARIABLES
from tests.conformance.test_model_signing_client import run as conformance
from tests.loopback import Loopback, by, trust
from tests.sigstores import PROVIDER, WHO
from tests.world import PROGRAM, Shell, make_log, payload_of, refused, tree, write_files

if TYPE_CHECKING:
    from tests.world import Person

pytest.importorskip("sigstore")

TRAIN = "mkdir -p model; printf 1 > model/w; env > environment"
DOCS = Path(__file__).parents[2] / "docs/keyless.md"


@pytest.fixture
def github(sigstore: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that may ask who it is."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{sigstore.url}/ambient?version=2")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "for the job")


def claims(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(payload_of(it)) for it in (folder / "claims.jsonl").read_bytes().splitlines()
    ]


def everything_in(*folders: Path) -> bytes:
    return b"".join(
        each.read_bytes() for folder in folders for each in folder.rglob("*") if each.is_file()
    )


@pytest.mark.usefixtures("github")
def test_a_hosted_job_records_without_a_key(
    sigstore: Loopback, work: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the commands of the workflow in the documentation."""
    (work / "data.csv").write_text("1,2\n")
    (work / "train.py").write_text(
        "import os, pathlib\n"
        "pathlib.Path('model').mkdir()\n"
        "pathlib.Path('model/w').write_text('1')\n"
        "pathlib.Path('environment').write_text(' '.join(os.environ))\n"
    )
    [line] = re.findall(r"run: provenance (.*)", DOCS.read_text("utf-8"))
    words = line.replace("--model", f"--trust-config {sigstore.config} --model", 1).split()
    made = provenance(*words)
    assert made.status == 0, made.err
    assert [it for it in sigstore.asked if "ambient" in it] == ["/ambient"] * 3
    seen = (work / "environment").read_text()
    assert not [name for name in SIGNING_VARIABLES if name in seen.split()]
    [claim] = claims(work / "model")
    assert "provenance_signer" not in claim["predicate"]["runDetails"]
    verified = provenance("verify", "model", *trust(sigstore), "--require", "recorded")
    assert verified.status == 0, verified.err
    shown = provenance("show", "model")
    assert shown.status == 0, shown.err
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    given = ("--model", "other", "--trust-config", sigstore.config, "--", "touch", "started")
    refused(provenance("record", *given), 125, "the identity", "id-token: write")
    assert not (work / "started").exists()


def test_a_job_of_gitlab(
    sigstore: Loopback, work: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(work / "model")
    monkeypatch.setenv("GITLAB_CI", "true")
    named: list[str | Path] = ["--trust-config", sigstore.config]
    refused(provenance("attest", "model", *named), 4, "SIGSTORE_ID_TOKEN")
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", sigstore.token(aud="another"))
    refused(provenance("attest", "model", *named), 4, "audience claim mismatch")
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", sigstore.token())
    assert provenance("attest", "model", *named).status == 0
    assert provenance("verify", "model", *trust(sigstore)).status == 0


def test_a_job_of_buildkite(
    sigstore: Loopback, work: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(work / "model")
    agent = work / "buildkite-agent"
    agent.write_text(f"#!/bin/sh\necho {sigstore.token()}\n")
    agent.chmod(0o755)
    monkeypatch.setenv("BUILDKITE", "true")
    monkeypatch.setenv("PATH", str(work), prepend=os.pathsep)
    assert provenance("sign", "model", "--trust-config", sigstore.config).status == 0
    assert provenance("verify", "model", *trust(sigstore)).status == 0


def test_what_could_not_be_signed_is_finished_later(
    sigstore: Loopback, work: Path, runs: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    sigstore.spoil["/api/v1/log/entries"] = None
    given = by(sigstore)
    made = provenance("record", "--model", "model", *given, "--", "sh", "-c", TRAIN)
    refused(made, 125, "signing without a key", "--finish")
    assert sorted(it.name for it in (work / "model").iterdir()) == ["w"]
    [run] = re.findall(r"--finish (\w+)", made.err)
    finish = ["record", "--finish", run]
    refused(provenance(*finish), 125, "no identity is found", "--finish")
    refused(provenance(*finish, *by(sigstore)), 125, "signing without a key")
    del sigstore.spoil["/api/v1/log/entries"]
    refused(provenance(*finish, "--identity-token", sigstore.token(exp=1)), 125, "expired")
    monkeypatch.setenv("TOKEN_FOR_THIS", sigstore.token())
    tokens = [str(given[1]), os.environ["TOKEN_FOR_THIS"]]
    assert not [it for it in tokens if it.encode() in everything_in(runs)]
    finished = provenance(*finish, "--identity-token", "env:TOKEN_FOR_THIS", "--json")
    assert finished.status == 0, finished.err
    assert finished.document["identity"] == f"{WHO} ({PROVIDER})"
    assert provenance("verify", "model", *trust(sigstore)).status == 0
    written = everything_in(work / "model") + (finished.out + finished.err + made.err).encode()
    assert not [it for it in tokens if it.encode() in written]


def test_a_token_is_never_signed(
    sigstore: Loopback, work: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = by(sigstore)
    token = str(given[1])
    monkeypatch.setenv("WHO_I_AM", token)
    given[1] = "env:WHO_I_AM"
    words = ["sh", "-c", f"{TRAIN}; echo {token} > said", token]
    made = provenance("record", "--model", "model", *given, "--", *words)
    assert made.status == 0, made.err
    assert token in (work / "said").read_text()
    assert "WHO_I_AM" not in (work / "environment").read_text()
    assert token.encode() not in everything_in(work / "model") + made.err.encode()


def test_a_killed_recorder_is_finished_by_the_same_sigstore(
    sigstore: Loopback, work: Path, runs: Path, provenance: Shell
) -> None:
    """The run knows that an identity signs, and where; the token it does not keep."""
    script = f"{TRAIN}; touch ready; until [ -e go ]; do sleep 0.01; done; touch done"
    words = ["record", "--model", "model", *by(sigstore), "--", "sh", "-c", script]
    recorder = subprocess.Popen([*PROGRAM, *words], stderr=subprocess.DEVNULL)
    while not (work / "ready").exists():
        assert recorder.poll() is None
        time.sleep(0.01)
    recorder.kill()
    recorder.wait()
    (work / "go").touch()
    while not (work / "done").exists():
        time.sleep(0.01)
    [run] = runs.iterdir()
    finish = ("record", "--finish", run.name, "--identity-token", sigstore.token())
    until = time.monotonic() + 300
    while "still runs" in (finished := provenance(*finish)).err:
        assert time.monotonic() < until
    assert finished.status == 0, finished.err
    assert provenance("verify", "model", *trust(sigstore)).status == 0


def test_from_inside_and_several_models(sigstore: Loopback, work: Path, provenance: Shell) -> None:
    script = f"""
        import pathlib, provenance
        with provenance.recording(
            model=["a", "b"], identity_token={sigstore.token()!r},
            trust_config={str(sigstore.config)!r},
        ) as run:
            for name in "ab":
                pathlib.Path(name).mkdir()
                pathlib.Path(name, "w").write_text(name)
        print(run.recorded.identity, run.recorded.others[0].identity)
    """
    (work / "script.py").write_text(textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split().count(WHO) == 2
    for name in "ab":
        assert provenance("verify", name, *trust(sigstore), "--require", "recorded").status == 0


def test_what_an_identity_published_is_rebuilt(
    sigstore: Loopback, work: Path, provenance: Shell, bob: Person, larry: Person
) -> None:
    """By Bob it agrees; the same identity rebuilds it with another key, and is one builder."""
    (work / "data.csv").write_text("1,2\n")
    (work / "train.py").write_text(
        "import os, sys; os.mkdir(sys.argv[1])\nopen(sys.argv[1] + '/w', 'w')\n"
    )
    stated = ("--data", "train=data.csv", "--equality", "bytes")
    made = provenance(
        "record", "--model", "a", *by(sigstore), *stated, "--", "python3", "train.py", "a"
    )
    assert made.status == 0, made.err
    again = ("record", "--rebuild-of", "a", "--yes", "--model")
    trusting = [str(it).replace("--", "--publisher-") for it in trust(sigstore)]
    refused(provenance(*again, "b", *by(sigstore)), 125, "with --publisher-key")
    by_key = ("--publisher-key", bob.public)
    refused(
        provenance(*again, "b", *by_key, *by(sigstore)), 125, f"names {WHO} ({PROVIDER})",
        "whom you trust with --publisher-identity NAME --publisher-identity-provider URL)",
    )  # fmt: skip
    refused(provenance(*again, "b", *trusting[:2], *by(sigstore)), 125, "--publisher-identity-prov")
    refused(provenance("record", "--model", "b", *trusting, "--", "true"), 125, "with --rebuild-of")
    own: list[str | Path] = ["--key", bob.private]
    for name, signs in (("b", own), ("c", by(sigstore))):
        rebuilt = provenance(*again, name, *trusting, *signs)
        assert rebuilt.status == 0, rebuilt.err
    whom = [*trust(sigstore), "--key", bob.public]
    signed = ("--sign-with", larry.private, "--out", "verdict.json")
    agreed = provenance("agree", "a", "b", *whom, *signed)
    assert agreed.status == 0, agreed.out + agreed.err
    assert f"          {WHO} ({PROVIDER})  recorded" in agreed.out.splitlines()
    shown = ("--verdict", "verdict.json", "--require", "rebuilt", "--key", larry.public)
    assert provenance("verify", "a", *trust(sigstore), *shown).status == 0
    once = provenance("agree", "a", "c", *whom)
    assert once.status == 1
    assert "1 of 2 builders: models by one signer count once" in once.out
    assert "verdict   inconclusive: same model by bytes; the recipe is the same" in once.out


POLICY = """format = 1
trusted-root = "{root}"
[[party]]
name = "the workflow"
organisation = "Example"
identities = [{{ name = "{who}", provider = "{provider}" }}]
[[rule]]
statement = "training"
parties = ["the workflow"]
"""


def test_a_policy_and_what_a_reader_is_told(
    sigstore: Loopback, work: Path, provenance: Shell, alice: Person, larry: Person
) -> None:
    write_files(work / "model")
    assert provenance("attest", "model", *by(sigstore)).status == 0
    for who, status in ((WHO, 0), ("mallory@example.org", 1)):
        text = POLICY.format(root=sigstore.config, who=who, provider=PROVIDER)
        (work / "policy.toml").write_text(text)
        asked = provenance("verify", "model", "--trust", "policy.toml")
        assert asked.status == status, asked.out + asked.err
    by_key = provenance("verify", "model", "--key", alice.public)
    refused(by_key, 1, f"names {WHO} ({PROVIDER})", "--identity NAME")
    refused(provenance("verify", "model"), 2, "nothing is trusted by default")
    make_log(work / "log", larry)
    refused(provenance("publish", "model", "--log", "log"), 2, "only what identities signed")
    assert provenance("attest", "model", "--key", alice.private).status == 0
    published = provenance("publish", "model", "--log", "log")
    assert published.status == 0, published.err
    assert provenance("verify", "model", *trust(sigstore)).status == 0
    assert provenance("verify", "model", "--key", alice.public).status == 0


def test_whose_model_signature_is_replaced(
    sigstore: Loopback, work: Path, provenance: Shell, alice: Person
) -> None:
    """Only that of the same identity, and never one of a key, or by one."""
    write_files(work / "model")
    others = by(sigstore, who="bob@example.org")
    assert provenance("sign", "model", *by(sigstore)).status == 0
    assert provenance("sign", "model", *by(sigstore)).status == 0
    before = tree(work)
    refused(provenance("sign", "model", *others), 2, "signed by another")
    refused(provenance("sign", "model", "--key", alice.private), 2, "signed by another")
    assert tree(work) == before
    kept = provenance("attest", "model", *others)
    assert "the claim stands beside it" in kept.err
    assert provenance("sign", "model", "--key", alice.private, "--signature", "a.sig").status == 0
    asked = len(sigstore.asked)
    refused(provenance("sign", "model", *others, "--signature", "a.sig"), 2, "signed by another")
    assert len(sigstore.asked) == asked


def test_the_adapter_of_the_conformance_suite(sigstore: Loopback, work: Path) -> None:
    write_files(work / "model")
    at = ("--method", "sigstore", "--model-path", work / "model", "--trust-config", sigstore.config)
    bundle = work / "bundle"
    token = ("--identity-token", sigstore.token())
    assert conformance("sign-model", *at, *token, "--output-bundle", bundle, here=work) == (0, "")
    named = ("--bundle", bundle, "--identity-provider", PROVIDER, "--identity")
    assert conformance("verify-model", *at, *named, WHO, here=work) == (0, "")
    status, why = conformance("verify-model", *at, *named, "mallory@example.org", here=work)
    assert (status, f"signed by {WHO}" in why) == (1, True)
