"""``provenance trust``, and ``verify --trust`` over models, logs and verdicts that were made."""

from __future__ import annotations

import io
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from msgspec.structs import replace

import provenance as library
from provenance.errors import ContentError, MalformedError, PolicyError, ProvenanceError
from provenance.statement import intoto, training
from provenance.statement.training import About, Collected, Metadata, Outcome, ProgramFile, Source
from tests import sigstores
from tests.keys.test_certificates import SIGNER, pem
from tests.sigstores import AUTHORITY, Sigstore, issue
from tests.world import (
    RECIPE,
    attest,
    declared,
    edit_bundle,
    make_log,
    refused,
    sign_document,
    state,
    statement_document,
    vkey_text,
    write_files,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Person, Shell


def write(folder: Path, rules: str, *people: Person, first: str = "") -> Path:
    """Write a policy: *first*, *people*, each of an organisation of their own, and *rules*."""
    parties = "".join(
        f'[[party]]\nname = "{each.name}"\norganisation = "of {each.name}"\n'
        f"keys = [{json.dumps(str(each.public))}]\n"
        for each in people
    )
    path = folder / "policy.toml"
    path.write_text(f"format = 1\n{first}{parties}{rules}")
    return path


TRAINING = '[[rule]]\nstatement = "training"\n'


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return write_files(tmp_path / "digits")


def test_the_table_fits_eighty_columns(
    provenance: Shell, digits: Path, alice: Person, tmp_path: Path
) -> None:
    attest(digits, alice)
    policy = write(tmp_path, TRAINING + "licences = true\nequality = true\n", alice)
    ran = provenance("verify", digits, "--trust", policy)
    assert ran.status == 1
    assert ran.out.startswith("no: ")
    assert max(map(len, ran.out.splitlines())) <= 80
    answers = json.loads(provenance("verify", digits, "--trust", policy, "--json").out)["policy"]
    assert [each["holds"] for each in answers] == [True, False, False]


def test_the_library_raises_what_the_policy_refuses(
    digits: Path, alice: Person, people: dict[str, Person], tmp_path: Path
) -> None:
    attest(digits, alice)
    verified = library.verify(digits, trust=write(tmp_path, TRAINING, alice))
    assert [each.holds for each in verified.answers or ()] == [True]
    told: list[object] = []
    policy = write(tmp_path, TRAINING + 'parties = ["bob"]', alice, people["bob"])
    with pytest.raises(PolicyError):
        library.verify(digits, trust=policy, on_answer=told.append)
    assert len(told) == 1


def test_two_organisations_and_not_two_claims(
    digits: Path, alice: Person, people: dict[str, Person], tmp_path: Path
) -> None:
    policy = write(tmp_path, TRAINING + "organisations = 2", alice, people["bob"])
    attest(digits, alice)
    attest(digits, alice, environment={"OMP_NUM_THREADS": "2"})
    with pytest.raises(PolicyError):
        library.verify(digits, trust=policy)
    attest(digits, people["mallory"])
    with pytest.raises(PolicyError):
        library.verify(digits, trust=policy)
    attest(digits, people["bob"])
    library.verify(digits, trust=policy)


def test_a_log_that_is_named(
    digits: Path, alice: Person, people: dict[str, Person], tmp_path: Path
) -> None:
    attest(digits, alice)
    signers = [make_log(tmp_path / name, people["larry"], f"example.org/{name}") for name in "ab"]
    policies = [
        write(tmp_path, TRAINING + f'logs = ["{vkey_text(each.verifier)}"]', alice).read_text()
        for each in signers
    ]
    library.publish(digits, log=tmp_path / "a")
    path = tmp_path / "policy.toml"
    for text, holds in zip(policies, (True, False), strict=True):
        path.write_text(text)
        if holds:
            library.verify(digits, trust=path)
            continue
        with pytest.raises(PolicyError, match="in the log"):
            library.verify(digits, trust=path)


def test_a_verdict_of_somebody_who_may_give_it(
    digits: Path, alice: Person, people: dict[str, Person], tmp_path: Path
) -> None:
    bob = people["bob"]
    attest(digits, alice, equality=declared("bytes"))
    again = attest(write_files(tmp_path / "again/digits"), bob, equality=declared("bytes"))
    keys = [alice.public, bob.public]
    verdict = tmp_path / "verdict.json"
    library.agree([digits, again], keys=keys, sign_with=bob.private, out=verdict)
    rule = '[[rule]]\nstatement = "verdict"\nparties = ["{}"]\nstrength = "{}"\nbuilders = {}\n'
    for who, strength, builders, holds in (
        ("bob", "bytes", 2, True),
        ("alice", "bytes", 2, False),
        ("bob", "bytes", 3, False),
    ):
        policy = write(tmp_path, rule.format(who, strength, builders), alice, bob)
        if holds:
            library.verify(digits, trust=policy, verdict=verdict)
        else:
            with pytest.raises(PolicyError):
                library.verify(digits, trust=policy, verdict=verdict)
        with pytest.raises(PolicyError):
            library.verify(digits, trust=policy)


def test_what_a_claim_says_of_code_and_data(alice: Person, tmp_path: Path) -> None:
    source = Source(commit="1" * 40, tree="2" * 40, uri="https://example.org/x.git")
    data = (replace(RECIPE.data[0], about=About(license="MIT", availability="open")),)
    whole = replace(RECIPE, source=source, data=data)
    demands = ("clean-tree", "repository", "licences", "open-data")
    text = TRAINING + "".join(f"{name} = true\n" for name in demands)
    policy = write(tmp_path, text, alice)
    untracked = (ProgramFile("secret.py", "11" * 32),)
    seen = {"reads": Collected("ok")}
    lacking: dict[str, list[dict[str, Any]]] = {
        "clean-tree": [
            {"source": replace(source, dirty=True)},
            {"source": replace(source, read=untracked)},
        ],
        "repository": [{"source": replace(source, uri="")}],
        "licences": [
            {"data": (*data, replace(data[0], name="b", about=About(said, availability="open")))}
            for said in ("", "NOASSERTION", "unknown")
        ],
        "open-data": [{"data": (*data, replace(data[0], name="b", about=About(license="MIT")))}],
    }
    lacking[""] = [{}]
    for name, changes in lacking.items():
        for number, change in enumerate(changes):
            model = write_files(tmp_path / f"{name}{number}/digits")
            attest(model, alice, recipe=replace(whole, **change), collectors=seen)
            answers: list[Any] = []
            try:
                answers = [*(library.verify(model, trust=policy).answers or ())]
            except PolicyError:
                with pytest.raises(PolicyError):
                    library.verify(model, trust=policy, on_answer=answers.append)
            failed = [each for each in answers if not each.holds]
            assert len(failed) == bool(name), (name, answers)


@pytest.mark.parametrize(
    "watched",
    [
        {"run": Metadata(""), "outcome": Outcome()},
        {"collectors": {}},
        {"collectors": {"reads": Collected("absent")}},
    ],
    ids=["attested", "no collector", "no Python spoke"],
)
def test_what_nobody_saw_a_run_read_is_no_clean_tree(
    alice: Person, digits: Path, tmp_path: Path, watched: dict[str, Any]
) -> None:
    recipe = replace(RECIPE, source=Source(commit="1" * 40, tree="2" * 40))
    policy = write(tmp_path, TRAINING + "clean-tree = true\n", alice)
    attest(digits, alice, **{"recipe": recipe, "collectors": {"reads": Collected("ok")}, **watched})
    with pytest.raises(PolicyError, match="code as committed"):
        library.verify(digits, trust=policy)
    attest(digits, alice, recipe=recipe, collectors={"reads": Collected("ok")})
    assert library.verify(digits, trust=policy).claim


def test_init_writes_what_its_options_say(
    provenance: Shell, alice: Person, people: dict[str, Person], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    keys = ("--key", alice.public, "--key", people["bob"].public)
    ran = provenance("trust", "init", policy, *keys, "--organisation", 'A "B"\\', "--models", "d*")
    assert ran.status == 0, ran.err
    assert provenance("trust", "check", policy).status == 0
    said = json.loads(provenance("trust", "check", policy, "--json").out)
    assert {each["organisation"] for each in said["parties"]} == {'A "B"\\'}
    assert provenance("trust", "init", policy, *keys).status == 2
    assert provenance("trust", "init", tmp_path / "none.toml", "--organisation", "x").status == 2
    assert provenance("trust", "init", tmp_path / "x", *keys, "--models", " ").status == 3
    assert not (tmp_path / "x").exists()
    refused(provenance("trust", "init", tmp_path / "no/x", *keys), 4, "make its folder first")
    for person, at in ((alice, "carol.pub"), (people["bob"], "of/carol.pub")):
        write_files(tmp_path, {at: person.public.read_bytes()})
    named = tmp_path / "carol.pub"
    alike = ("--key", named, "--key", named, "--key", tmp_path / "of/carol.pub")
    assert provenance("trust", "init", tmp_path / "alike.toml", *alike).status == 0
    parties = provenance("trust", "check", tmp_path / "alike.toml", "--json").document["parties"]
    assert [each["keys"] for each in parties] == [["carol.pub"], ["of/carol.pub"]]


def test_init_of_a_party_that_an_authority_names(
    provenance: Shell, digits: Path, alice: Person, tmp_path: Path
) -> None:
    """As 'verify' says that the signer is called."""
    years: Any = {
        "begin": sigstores.NOW.replace(year=2020),
        "end": sigstores.NOW.replace(year=2100),
    }
    root = issue("root", None, *AUTHORITY, **years)
    key = serialization.load_pem_private_key(alice.key.pem(), None)
    chain, leaf = tmp_path / "pki/root.pem", tmp_path / "leaf.pem"
    write_files(tmp_path, {"pki/root.pem": pem(root)})
    leaf.write_bytes(pem(issue("signer", root, *SIGNER, key=key, **years)))
    library.sign(digits, key=alice.key, signing_certificate=leaf, certificate_chain=[chain])
    [word] = library.verify(digits, certificate_chain=[chain]).levels
    policy = tmp_path / "policies/policy.toml"
    policy.parent.mkdir()
    command = ("trust", "init", policy, "--certificate-chain", chain, "--files-only")
    ran = provenance(*command, "--subject", word.signer, "--organisation", "One")
    assert ran.status == 0, ran
    assert "CN=signer, of One, signs with 1 certificate." in ran.out
    assert "CN=signer (One)" in provenance("verify", digits, "--trust", policy).out
    refused(provenance("trust", "init", tmp_path / "x", *command[3:]), 2, "word of its authority")
    refused(provenance("trust", "init", tmp_path / "x", "--subject", "CN=a"), 2, "of its authority")
    wrong = ("--subject", "nobody", *command[3:])
    refused(provenance("trust", "init", tmp_path / "x", *wrong), 3, "is no subject")
    assert not (tmp_path / "x").exists()


WHO = "me@example.org"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ("alice.pub\n\n\ny\n", ["alice, of alice,", "training statement", "Asked of it: recorded"]),
        ("alice.pub\nA Lab\n\nn\n", ["alice, of A Lab,", "training statement"]),
        (f"{WHO}\nhttps://sso.example.org\n\nn\n", [f"{WHO}, of {WHO},", "model signature"]),
    ],
)
def test_init_asks(
    provenance: Shell, alice: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    answers: str, words: list[str],
) -> None:  # fmt: skip
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    (tmp_path / "root.json").write_bytes(Sigstore().trusted_root())
    (tmp_path / "alice.pub").write_bytes(alice.public.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", Terminal(answers))
    ran = provenance("trust", "init", "new.toml", "--trust-config", "root.json")
    assert ran.status == 0, ran.err
    said = provenance("trust", "check", "new.toml").out
    assert [each for each in words if each not in said] == []
    assert ("Asked of it" in said) == ("Asked of it: recorded" in words)
    monkeypatch.setattr("sys.stdin", Terminal(""))
    refused(provenance("trust", "init", "new.toml"), 2, "exists already")  # asks nothing
    monkeypatch.setattr("sys.stdin", Terminal("none.pub\n"))
    refused(provenance("trust", "init", "other.toml"), 3, "none.pub: no such file")  # nothing more


@pytest.mark.parametrize(
    "options", [("--identity", WHO), ("--identity-provider", "https://sso.example.org"),
                ("--files-only", "--recorded")],
)  # fmt: skip
def test_init_of_what_does_not_fit(
    provenance: Shell, alice: Person, tmp_path: Path, options: tuple[str, ...]
) -> None:
    refused(provenance("trust", "init", tmp_path / "new", "--key", alice.public, *options), 2)
    assert not (tmp_path / "new").exists()


def test_init_of_several_identities(provenance: Shell, tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(Sigstore().trusted_root())
    words: list[str | Path] = ["--identity", sigstores.WHO, "--identity", "bob@example.org"]
    words += ["--identity-provider", sigstores.PROVIDER, "--trust-config", tmp_path / "root.json"]
    ran = provenance("trust", "init", tmp_path / "new", *words)
    assert ran.status == 0, ran.err
    for who in (sigstores.WHO, "bob@example.org"):
        pair = f'{{ name = "{who}", provider = "{sigstores.PROVIDER}" }}'
        assert pair in (tmp_path / "new").read_text()


def test_what_is_shown_is_of_a_claim_that_counts(
    alice: Person, people: dict[str, Person], tmp_path: Path
) -> None:
    """Bob's claim is the first, and calls the model otherwise; no rule lets Bob sign it."""
    attest(write_files(tmp_path / "better"), people["bob"]).rename(model := tmp_path / "digits")
    attest(model, alice)
    policy = write(tmp_path, TRAINING + 'parties = ["alice"]', alice, people["bob"])
    verified = library.verify(model, trust=policy)
    assert verified.name == "digits"
    assert verified.claim
    assert verified.claim.opened.key.key_id == alice.key_id
    # Bob's may stand first, and be counted by one rule.
    again = attest(write_files(tmp_path / "again/digits"), people["bob"])
    data = (again / "claims.jsonl").read_bytes() + (model / "claims.jsonl").read_bytes()
    (model / "claims.jsonl").write_bytes(data)
    rules = TRAINING + "organisations = 2\n" + TRAINING + 'parties = ["alice"]\n'
    verified = library.verify(model, trust=write(tmp_path, rules, alice, people["bob"]))
    assert verified.claim
    assert verified.claim.opened.key.key_id == alice.key_id
    only = write(tmp_path, '[[rule]]\nstatement = "signature"\n', alice, people["bob"])
    assert library.verify(model, trust=only).claim is None


@pytest.mark.parametrize(
    ("change", "status", "rules"),
    [
        ({}, 0, [True, True]),
        ({"file": "other"}, 1, None),
        ({"rule": "licences = true\n"}, 1, [True, False]),
        ({"options": ["--key", "alice.pub"]}, 2, None),
        ({"options": ["--require", "recorded"]}, 2, None),
        ({"rule": "builders = 2\n"}, 3, None),
        ({"rule": "= 2\n"}, 3, None),
        ({"policy": "absent.toml"}, 3, None),
        ({"model": "absent"}, 3, None),
        ({"claims": "{}\n"}, 3, None),
    ],
)
def test_the_status_of_a_gate(
    provenance: Shell,
    digits: Path,
    alice: Person,
    change: dict[str, Any],
    status: int,
    rules: list[bool] | None,
) -> None:
    """As docs/verify.md has it: one document, whatever the answer is."""
    attest(digits, alice, equality=declared("bytes"))
    folder = digits.parent
    policy = write(folder, TRAINING + change.get("rule", "equality = true\n"), alice)
    if "file" in change:
        (digits / "model.bin").write_text(change["file"])
    if "claims" in change:
        (digits / "claims.jsonl").write_text(change["claims"])
    model, named = folder / change.get("model", "digits"), folder / change.get("policy", policy)
    options = [str(alice.public) if it == "alice.pub" else it for it in change.get("options", ())]
    ran = provenance("verify", model, "--trust", named, "--json", *options)
    assert ran.status == status, ran
    assert ran.document["verified"] == (status == 0)
    assert ("error" in ran.document) == (status != 0)
    answers = ran.document.get("policy")
    assert (answers and [each["holds"] for each in answers]) == rules


def test_what_another_party_says_refuses_nothing(
    digits: Path, alice: Person, bob: Person, tmp_path: Path
) -> None:
    """More evidence turns no yes into a no, whatever it is; with keys alone each of it does."""
    policy = write(tmp_path, TRAINING + 'parties = ["alice"]\nequality = true\n', alice, bob)
    attest(digits, alice, equality=declared("bytes"))
    other = attest(write_files(tmp_path / "other", {"model.bin": b"x"}), bob)
    library.sign(other, key=bob.private)
    later = statement_document(state(digits))
    later["predicate"]["buildDefinition"]["externalParameters"]["of a later version"] = 1
    strange = statement_document(state(digits))
    strange["subject"][0]["digest"] = {"sha256": "00" * 32}
    before = (digits / "claims.jsonl").read_bytes()
    for more in (
        (other / "model.sig").read_bytes() + b"\n",
        *(sign_document(each, bob) + b"\n" for each in (later, strange)),
    ):
        (digits / "claims.jsonl").write_bytes(more + before)
        assert library.verify(digits, trust=policy).claim
        with pytest.raises(ProvenanceError):
            library.verify(digits, keys=[alice.public, bob.public])
    (digits / "claims.jsonl").write_bytes(before)
    attest(digits, bob, equality=declared("tensors"))
    declaration = library.verify(digits, trust=policy).declaration
    assert declaration
    assert declaration.name == "bytes"
    # Where nothing else is there, it is said what is wrong with it.
    (digits / "model.sig").unlink()
    (digits / "claims.jsonl").write_bytes(sign_document(later, bob) + b"\n")
    with pytest.raises(MalformedError, match="of a later version"):
        library.verify(digits, trust=policy)
    (digits / "claims.jsonl").write_bytes((other / "model.sig").read_bytes() + b"\n")
    with pytest.raises(ContentError, match=r"config\.json is extra"):
        library.verify(digits, trust=policy)
    # A claim about other files is no reason against those that a party signed.
    library.sign(digits, key=alice.private)
    shutil.copy(other / "claims.jsonl", digits / "claims.jsonl")
    policy = write(tmp_path, TRAINING.replace("training", "signature"), alice, bob)
    found = library.verify(digits, trust=policy, name="digits")
    assert found.claims == ()
    assert found.name == "digits"
    # Nor is one about the same files whose training failed, or that calls them otherwise.
    (digits / "claims.jsonl").unlink()
    attest(digits, bob, outcome=Outcome(1))
    found = library.verify(digits, trust=policy)
    assert (found.claim, len(found.claims)) == (None, 1)
    assert any("status 1" in each for each in found.warnings)
    with pytest.raises(PolicyError, match="status 1"):
        library.verify(digits, keys=[alice.public, bob.public])
    (digits / "config.json").write_text("changed")
    with pytest.raises(ContentError, match=r"config\.json"):
        library.verify(digits, trust=policy)


def test_a_key_by_the_option_of_another_file(digits: Path, alice: Person) -> None:
    with pytest.raises(MalformedError, match="is in PEM, and no policy"):
        library.verify(digits, trust=alice.public)
    who: Any = {"identity": "a@example.org", "identity_provider": "https://example.org"}
    with pytest.raises(MalformedError, match="is in PEM, and no trusted root"):
        library.verify(digits, **who, trust_config=alice.public)


def test_a_line_in_another_ones_name_refuses_nothing_and_is_shown(
    provenance: Shell, digits: Path, alice: Person, bob: Person, tmp_path: Path
) -> None:
    """Anybody can add a line that names Alice's key; with keys alone it refuses the model."""
    attest(digits, alice, equality=declared("bytes"))
    strange = statement_document(state(digits))
    policy = write(tmp_path, TRAINING + "equality = true\n", alice)
    lines = (digits / "claims.jsonl").read_bytes()
    for hint, keyid in ((alice.key_id, ""), ("", alice.key_id), (alice.key.public.pem_digest, "")):

        def rename(document: dict[str, Any], hint: str = hint, keyid: str = keyid) -> None:
            document["verificationMaterial"]["publicKey"]["hint"] = hint
            document["dsseEnvelope"]["signatures"][0]["keyid"] = keyid

        forged = edit_bundle(sign_document(strange, bob), rename)
        (digits / "claims.jsonl").write_bytes(forged + b"\n" + lines)
        refused(provenance("verify", digits, "--key", alice.public), 1, "claims.jsonl:1: the sign")
        ran = provenance("verify", digits, "--trust", policy)
        assert ran.status == 0, ran
        assert "warning: claims.jsonl:1: the signature does not fit" in " ".join(ran.out.split())
        document = provenance("verify", digits, "--trust", policy, "--json").document
        assert "claims.jsonl:1: the signature does not fit" in document["warnings"][0]
    # Where it is all there is of hers, the no says why.
    (digits / "claims.jsonl").write_bytes(forged + b"\n")
    (digits / "model.sig").unlink()
    refused(provenance("verify", digits, "--trust", policy), 1, "the signature does not fit")
    attest(digits, bob)
    policy = write(tmp_path, TRAINING + 'parties = ["alice"]\n', alice, bob)
    refused(provenance("verify", digits, "--trust", policy), 1, "the signature does not fit")


IDENTITY = """
[[party]]
name = "carol"
organisation = "Two"
identities = [{{ name = "{}", provider = "{}" }}]
"""


def test_a_party_by_its_identity(
    provenance: Shell, digits: Path, alice: Person, tmp_path: Path
) -> None:
    """What a keyless signer said counts for its party, and its name is shown."""
    sigstore = Sigstore()
    signer, log = sigstore.signer(), sigstore.logs[0]
    (tmp_path / "root.json").write_bytes(sigstore.trusted_root())
    payload = intoto.format(training.to_statement(state(digits, equality=declared("bytes"))))
    signature = sigstores.sign(signer.key, sigstores.pae(payload))
    entry = log.enter(sigstores.body("dsse", "0.0.1", payload, signature, signer), sigstores.NOW)
    signed = sigstores.bundle(signer, payload, [entry], [], signature=signature)
    (digits / "claims.jsonl").write_text(json.dumps(signed) + "\n")
    first = 'trusted-root = "root.json"\n' + IDENTITY.format(sigstores.WHO, sigstores.PROVIDER)
    policy = write(tmp_path, TRAINING + "equality = true\n", alice, first=first)
    ran = provenance("verify", digits, "--trust", policy)
    assert ran.status == 0, ran
    assert "carol (Two)" in ran.out
    verified = library.verify(digits, trust=policy)
    [word] = verified.levels
    assert word.signer == f"{sigstores.WHO} ({sigstores.PROVIDER})"
    assert word.kind == "identity"
    # The same name by another provider is somebody else, and so is who has no rule.
    text = policy.read_text()
    policy.write_text(text.replace(sigstores.PROVIDER, "https://other.example"))
    refused(provenance("verify", digits, "--trust", policy), 1, "https://other.example")
    policy.write_text(text.replace("equality = true", 'parties = ["alice"]'))
    ran = provenance("verify", digits, "--trust", policy)
    assert ran.status == 1
    assert "carol may not sign it" in ran.out


def test_a_revoked_key_and_a_timestamp(
    provenance: Shell, digits: Path, alice: Person, tmp_path: Path
) -> None:
    sigstore = Sigstore()
    (tmp_path / "root.json").write_bytes(sigstore.trusted_root())
    payload = intoto.format(training.to_statement(state(digits)))
    signature = alice.key.sign(sigstores.pae(payload))
    stamps = [sigstore.stampers[0].stamp(signature, sigstores.NOW)]
    revoked = f"[[revoked]]\nkey = {json.dumps(str(alice.public))}\non = {{}}\n"
    for stamped, day, holds in (
        (stamps, "2026-06-02", True),
        (stamps, "2026-06-01", False),
        ([], "2026-06-02", False),
    ):
        signed = sigstores.bundle(None, payload, [], stamped, signature=signature)
        (digits / "claims.jsonl").write_text(json.dumps(signed) + "\n")
        first = 'trusted-root = "root.json"\n'
        policy = write(tmp_path, revoked.format(day) + TRAINING, alice, first=first)
        ran = provenance("verify", digits, "--trust", policy)
        assert ran.status == (not holds), ran
        assert (f"a key of alice is revoked since {day}" in " ".join(ran.out.split())) != holds


def test_names_that_are_long_leave_the_table_as_wide(
    provenance: Shell, digits: Path, alice: Person, people: dict[str, Person], tmp_path: Path
) -> None:
    attest(digits, alice)
    names = [f"{name * 30}.example.org/log" for name in "ab"]
    logs = [make_log(tmp_path / name[0], people["larry"], name).verifier for name in names]
    rule = TRAINING + f"logs = {json.dumps([vkey_text(each) for each in logs])}\n"
    ran = provenance("verify", digits, "--trust", write(tmp_path, rule, alice))
    assert ran.status == 1
    assert max(map(len, ran.out.splitlines())) <= 80


def test_a_folder_of_two_names_meets_the_rules_of_both(
    alice: Person, bob: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob may sign what is called faces; a link, or another's repository, makes it nothing else."""
    faces = attest(write_files(tmp_path / "faces"), bob)
    rule = '[[rule]]\nstatement = "training"\nparties = ["{}"]\nmodels = ["{}"]\n'
    whose = [("alice", "digits"), ("alice", "org/*"), ("bob", "faces")]
    policy = write(tmp_path, "".join(rule.format(*each) for each in whose), alice, bob)
    assert library.verify(faces, trust=policy).name == "faces"
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "latest"):
        (tmp_path / name).symlink_to("faces")
    assert library.verify("latest", trust=policy).name == "faces"
    with pytest.raises(PolicyError, match="rule 1: training statement"):
        library.verify("digits", trust=policy)
    snapshot = tmp_path / "models--org--faces/snapshots/0a1b"
    snapshot.parent.mkdir(parents=True)
    faces.rename(snapshot)
    with pytest.raises(PolicyError, match="rule 2: training statement"):
        library.verify(snapshot, trust=policy)
    assert library.verify(snapshot, trust=policy, name="faces").name == "faces"


def test_a_verdict_is_about_a_claim_that_a_rule_counts(
    digits: Path, alice: Person, people: dict[str, Person], tmp_path: Path
) -> None:
    """Mallory is a party for another model, and "made" these files by copying them."""
    bob, mallory = people["bob"], people["mallory"]
    again = attest(write_files(tmp_path / "again/digits"), bob, equality=declared("bytes"))
    lines = {}
    for who in (alice, mallory):
        (digits / "claims.jsonl").unlink(missing_ok=True)
        attest(digits, who, equality=declared("bytes"))
        lines[who.name] = (digits / "claims.jsonl").read_bytes()
        keys, out = [who.public, bob.public], tmp_path / f"about-{who.name}"
        library.agree([digits, again], keys=keys, sign_with=bob.private, out=out)
    rules = TRAINING + 'parties = ["alice"]\n[[rule]]\nstatement = "verdict"\nparties = ["bob"]\n'
    policy = write(tmp_path, rules, alice, bob, mallory)
    for first, second in (("alice", "mallory"), ("mallory", "alice")):
        (digits / "claims.jsonl").write_bytes(lines[first] + lines[second])
        assert library.verify(digits, trust=policy, verdict=tmp_path / "about-alice").answers
        with pytest.raises(PolicyError, match="about another claim"):
            library.verify(digits, trust=policy, verdict=tmp_path / "about-mallory")
