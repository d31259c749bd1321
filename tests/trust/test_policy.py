"""What a trust policy demands, and that more evidence never turns its yes into a no."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.envelope import bundle as bundles
from provenance.equality.lattice import STRENGTHS
from provenance.errors import MalformedError, ProvenanceError, SignatureError
from provenance.keys.certificates import MAX_NAME, parse_authority
from provenance.transparency.note import VerifierKey, format_vkey
from provenance.trust.decision import UNSEARCHED, Evidence, Searched, decide
from provenance.trust.policy import Kind, NoMismatch, Party, Rule, TrustPolicy, load, parse
from tests.sigstores import (
    AUTHORITY,
    DAY,
    NOW,
    PROVIDER,
    WHO,
    Sigstore,
    b64,
    body,
    bundle,
    issue,
    pae,
    pem_of,
    sign,
    usage,
)
from tests.world import make_person

if TYPE_CHECKING:
    from tests.world import Person

AT = datetime(2026, 6, 1, tzinfo=UTC)
DEMANDS = ("recorded", "equality", "clean-tree", "repository", "licences", "open-data")
FIELDS = ("equality", "clean_tree", "repository", "licences", "open_data")
ORGANISATIONS = {"k1": "One", "k2": " one", "k3": "Two", "k4": "Three"}
SIGNERS = {
    key: Party(f"party {key}", organisation.strip()) for key, organisation in ORGANISATIONS.items()
}
PARTIES = sorted(party.name for party in SIGNERS.values())
EVERYTHING = Evidence(
    "training", "k1", "digits", AT, AT, frozenset(DEMANDS), frozenset({b"log"}), "bytes",
    frozenset({"k1", "k3"}),
)  # fmt: skip


def policy(*rules: Rule, **more: Any) -> TrustPolicy:  # noqa: ANN401 - of the class
    return TrustPolicy(rules, SIGNERS, **more)


def holds(
    given_policy: TrustPolicy,
    *evidence: Evidence,
    names: tuple[str, ...] = (),
    searched: Searched = UNSEARCHED,
) -> bool:
    _, answers = decide(given_policy, evidence, names or ("digits",), AT, searched)
    assert answers
    return all(each.holds for each in answers)


def without(**changes: Any) -> Evidence:  # noqa: ANN401 - of the class
    return msgspec.structs.replace(EVERYTHING, **changes)


# --- Monotone -------------------------------------------------------------------------------------

names = st.sampled_from(["digits", "digits", "digit", "faces"])
times = st.none() | st.integers(-500, 5).map(lambda days: AT + timedelta(days=days))
NO_MISMATCH = NoMismatch("log", "checkpoint", "folder")
searches = st.builds(
    Searched,
    st.just("the log"),
    st.sampled_from([(), (), ("a mismatch",)]),
    st.sampled_from([(), (), ("an entry",)]),
    st.sampled_from(["", "", "no log"]),
)
FACTS = {
    "kind": st.sampled_from(get_args(Kind)),
    "model": names,
    "proven": times,
    "stated": times,
    "holds": st.frozensets(st.sampled_from(DEMANDS)),
    "logs": st.frozensets(st.sampled_from([b"log", b"other"])),
    "strength": st.none() | st.sampled_from(STRENGTHS),
    "builders": st.frozensets(st.sampled_from([*SIGNERS, "x", "y"])),
}


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    """Draw evidence that holds for nearly everything, so that many a policy says yes."""
    changed = draw(st.sets(st.sampled_from(sorted(FACTS)), max_size=2))
    signer = draw(st.sampled_from([*SIGNERS, "stranger"]))
    facts: dict[str, Any] = {name: draw(FACTS[name]) for name in sorted(changed)}
    return without(**{"signer": signer, "kind": draw(FACTS["kind"]), **facts})


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    kind: Kind = draw(st.sampled_from(get_args(Kind)))
    patterns = st.sampled_from([("*",), ("digits*",), ("faces", "digits"), ("faces",)])
    more: dict[str, Any] = {}
    if kind == "training":
        more = dict.fromkeys(draw(st.sets(st.sampled_from(FIELDS), max_size=2)), True)
        more["level"] = draw(st.sampled_from(["attested", "recorded", None]))
        more["logs"] = draw(st.sampled_from([(), ("log",)]))
        more["max_age_days"] = draw(st.none() | st.integers(1, 400))
    elif kind == "verdict":
        more["strength"] = draw(st.sampled_from(["rounded", "tensors", "bytes", None]))
        more["builders"] = draw(st.none() | st.integers(2, 3))
    parties = draw(st.sampled_from([(), (), tuple(PARTIES[:2]), tuple(PARTIES[1:])]))
    return Rule(kind, draw(patterns), parties, draw(st.sampled_from([1, 1, 2])), **more)


@given(
    st.lists(rules(), min_size=1, max_size=2),
    st.dictionaries(st.sampled_from([*SIGNERS]), st.just(date(2026, 7, 1))),
    st.lists(evidences(), min_size=3, max_size=9),
    st.lists(evidences(), min_size=3, max_size=9),
    st.lists(names, min_size=1),
    st.sampled_from([None, None, NO_MISMATCH]),
    searches,
)
def test_more_evidence_turns_no_yes_into_a_no(
    given_rules: list[Rule],
    revoked: dict[str, date],
    some: list[Evidence],
    more: list[Evidence],
    called: list[str],
    mismatch: NoMismatch | None,
    searched: Searched,
) -> None:
    key = VerifierKey("log", None, b"log")  # type: ignore[arg-type]  # only its id is looked at
    found = policy(*given_rules, revoked=revoked, logs={"log": key}, no_trusted_mismatch=mismatch)
    asked: dict[str, Any] = {"names": tuple(called), "searched": searched}
    before = holds(found, *some, **asked)
    assert holds(found, *more, *some, **asked) >= before
    # What a stranger signed is no evidence, whatever it is.
    strangers = [msgspec.structs.replace(each, signer="stranger", model="digits") for each in more]
    assert holds(found, *some, *strangers, **asked) == before
    # Only a mismatch in the log speaks against it. Who knows more of the log does not lose a yes.
    known = msgspec.structs.replace(searched, unknown=(), problem="")
    asked["searched"] = known
    assert holds(found, *some, **asked) >= before
    without_log = policy(*given_rules, revoked=revoked, logs={"log": key})
    expected = holds(without_log, *some, **asked) and not (mismatch and known.against)
    assert holds(found, *some, **asked) == expected


@given(
    st.lists(rules(), min_size=1, max_size=2),
    st.lists(evidences(), min_size=3, max_size=9),
    st.data(),
)
def test_a_stronger_statement_turns_no_yes_into_a_no(
    given_rules: list[Rule], some: list[Evidence], data: st.DataObject
) -> None:
    key = VerifierKey("log", None, b"log")  # type: ignore[arg-type]  # only its id is looked at
    found = policy(
        *given_rules, logs={"log": key}, revoked=dict.fromkeys(SIGNERS, date(2026, 7, 1))
    )
    stronger = [
        msgspec.structs.replace(
            each,
            proven=each.proven or data.draw(times),
            holds=each.holds | data.draw(st.frozensets(st.sampled_from(DEMANDS))),
            logs=each.logs | data.draw(st.frozensets(st.sampled_from([b"log", b"other"]))),
            builders=each.builders | data.draw(st.frozensets(st.sampled_from(["k4", "z"]))),
        )
        for each in some
    ]
    assert holds(found, *stronger) >= holds(found, *some)


# --- What each part of a rule means ---------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS)
def test_each_demand_is_of_the_statement(name: str) -> None:
    demanded: dict[str, Any] = {name: True}
    found = policy(Rule("training", **demanded))
    assert holds(found, EVERYTHING)
    lacking = frozenset(DEMANDS) - {name.replace("_", "-")}
    assert not holds(found, without(holds=lacking))


def test_one_statement_meets_all_demands() -> None:
    found = policy(Rule("training", level="recorded", clean_tree=True))
    parts = [without(holds=frozenset({name})) for name in ("recorded", "clean-tree")]
    assert not holds(found, *parts)
    _, answers = decide(found, parts, ("digits",), AT)
    assert [each.holds for each in answers] == [True, True, True, False]


def test_organisations_are_distinct_and_not_only_keys() -> None:
    two = policy(Rule("training", organisations=2))
    assert not holds(two, EVERYTHING, EVERYTHING, without(signer="k2"))
    assert holds(two, EVERYTHING, without(signer="k3"))
    # Builders of one organisation are one, too.
    rebuilt = policy(Rule("verdict"))
    assert holds(rebuilt, without(kind="verdict"))
    assert not holds(rebuilt, without(kind="verdict", builders=frozenset({"k1", "k2"})))
    assert holds(rebuilt, without(kind="verdict", builders=frozenset({"k1", "unknown"})))


def test_who_may_sign_what() -> None:
    found = policy(Rule("training", ("digits",), parties=("party k1",)))
    assert holds(found, EVERYTHING)
    assert not holds(found, without(signer="k3"))
    assert not holds(found, without(kind="signature"))
    # A party cannot have its model taken for another one, whose name it may not give.
    assert not holds(found, EVERYTHING, names=("faces",))
    faces = policy(Rule("training", ("faces",), parties=("party k3",)), *found.rules)
    assert not holds(faces, without(model="faces"), names=("faces",))
    assert not holds(faces, without(model="other"), names=("other",))


def test_age_is_the_signers_word_and_not_a_clocks() -> None:
    found = policy(Rule("training", max_age_days=30))
    for days, expected in ((0, True), (30, True), (31, False), (-1, True), (-2, False)):
        assert holds(found, without(stated=AT - timedelta(days=days), proven=None)) == expected
    assert not holds(found, without(stated=None, proven=AT))


def test_a_revoked_key_counts_for_what_was_there_before() -> None:
    found = policy(Rule("training"), revoked={"k1": date(2026, 3, 1)})
    for proven, expected in (("02-28", True), ("03-01", False), ("03-02", False)):
        at = datetime.fromisoformat(f"2026-{proven}T23:59:59+00:00")
        assert holds(found, without(proven=at)) == expected
    assert not holds(found, without(proven=None))
    assert holds(found, without(proven=None), without(signer="k3", proven=None))
    # As one of the builders, too: of theirs, only the verdict tells a time.
    rebuilt = policy(Rule("verdict", parties=("party k3",)), revoked={"k1": date(2026, 3, 1)})
    for there, counted in ((AT, False), (None, False), (AT - timedelta(days=200), True)):
        assert holds(rebuilt, without(kind="verdict", signer="k3", proven=there)) == counted


@pytest.mark.parametrize("least", ["rounded", "tensors", "bytes"])
@pytest.mark.parametrize("found", STRENGTHS)
def test_the_strength_of_a_verdict(least: Any, found: Any) -> None:  # noqa: ANN401 - literals
    expected = STRENGTHS.index(found) >= STRENGTHS.index(least)
    asked = policy(Rule("verdict", strength=least))
    assert holds(asked, without(kind="verdict", strength=found)) == expected


def test_what_speaks_against_is_decided_where_a_log_was_searched() -> None:
    found = policy(Rule("training"), no_trusted_mismatch=NO_MISMATCH)
    *_, last = decide(found, [EVERYTHING], ("digits",), AT)[1]
    assert not last.holds
    assert last.why.startswith("not decidable here")
    for searched, holds in (
        (Searched("a log"), True),
        (Searched("a log", unknown=("x",)), False),
        (Searched("a log", against=("a mismatch",), unknown=("x",)), False),
        (Searched(problem="no checkpoint"), False),
    ):
        *_, last = decide(found, [EVERYTHING], ("digits",), AT, searched)[1]
        assert last.holds == holds


# --- The file -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, alice: Person, larry: Person) -> Path:
    (tmp_path / "alice.pub").write_bytes(alice.public.read_bytes())
    key = VerifierKey("example.org/log", larry.key.public)
    (tmp_path / "vkey").write_text(format_vkey(key))
    make_person(tmp_path, "bob")
    return tmp_path


ALICE = '[[party]]\nname = "alice"\norganisation = "One"\nkeys = ["alice.pub"]\n'
BOB = '[[party]]\nname = "bob"\norganisation = "One "\nkeys = ["bob.pub"]\n'.replace("One ", "ONE")
RULE = '[[rule]]\nstatement = "training"\n'

AGAINST = '[no-trusted-mismatch]\nlog = "vkey"\ncheckpoint = "checkpoint"\nfolder = "log"\n'

NEVER = {
    "too many organisations": ALICE + BOB + RULE + "organisations = 2",
    "a signature is not recorded": ALICE + RULE.replace("training", "signature")
    + 'level = "recorded"',
    "a signature is in no log": ALICE + RULE.replace("training", "signature") + 'logs = ["vkey"]',
    "a signature has no age": ALICE + RULE.replace("training", "signature") + "max-age-days = 1",
    "a training has no builders": ALICE + RULE + "builders = 3",
    "a verdict names no licences": ALICE + RULE.replace("training", "verdict") + "licences = true",
    "an empty range": ALICE + RULE + 'models = ["x[z-a]"]',
    "revoked, and no clock": ALICE + RULE + '[[revoked]]\nkey = "alice.pub"\non = 2026-01-01',
}  # fmt: skip

WRONG = {
    "two parties of one key": ALICE + BOB.replace("bob.pub", "alice.pub") + RULE,
    "two parties of one name": ALICE + BOB.replace('"bob"', '"alice"') + RULE,
    "a stranger in a rule": ALICE + RULE + 'parties = ["carol"]',
    "unknown key": ALICE + RULE + "level_ = 1",
    "unknown level": ALICE + RULE + 'level = "rebuilt"',
    "no rule": ALICE,
    "no party": RULE,
    "a pattern of nothing": ALICE + RULE + 'models = [""]',
    "no patterns": ALICE + RULE + "models = []",
    "a name of blanks": ALICE.replace('"alice"', '" "') + RULE,
    "revokes a stranger's": ALICE + RULE + '[[revoked]]\nkey = "bob.pub"\non = 2026-01-01',
    "revokes at no day": ALICE + RULE + '[[revoked]]\nkey = "alice.pub"\non = "soon"',
    "revokes one key at two days": ALICE + RULE
    + '[[revoked]]\nkey = "alice.pub"\non = 2026-01-01\n' * 2,
    "no such key": ALICE.replace("alice.pub", "carol.pub") + RULE,
    "a private key": ALICE.replace("alice.pub", "bob") + RULE,
    "not TOML": "format",
    "not a table": "format = 1\nparty = 3\nrule = 4\n",
    "many dots": "a" + ".a" * 1000 + " = 1",
    "a number too long": "format = " + "9" * 5000,
    "an age of no days": ALICE + RULE + "max-age-days = 0",
    "no organisations": ALICE + RULE + "organisations = 0",
    "one builder": ALICE + RULE.replace("training", "verdict") + "builders = 1",
    "an unknown strength": ALICE + RULE.replace("training", "verdict") + 'strength = "close"',
    "a log that is no key": ALICE + RULE + 'logs = ["example.org/log"]',
    "a mismatch in no log": "no-trusted-mismatch = true\n" + ALICE + RULE,
    "a mismatch up to no checkpoint": ALICE + RULE + AGAINST.replace("checkpoint", "#"),
    "a mismatch of a stranger": ALICE + RULE + AGAINST + 'parties = ["carol"]',
    "a party without a key": ALICE + BOB.replace('"bob.pub"', "") + RULE,
    "no quorum": 'tlog-policy = """log example.org/log\n"""\n' + ALICE + RULE,
    "no such tlog-policy": 'tlog-policy = "witnesses"\n' + ALICE + RULE,
    "a log that the tlog-policy has not": 'tlog-policy = """\nquorum none\n"""\n' + ALICE + RULE
    + 'logs = ["vkey"]',
    "another log's mismatch": 'tlog-policy = """\nquorum none\n"""\n' + ALICE + RULE + AGAINST,
    "other format": ALICE + RULE + "#",
}  # fmt: skip


@pytest.mark.parametrize("text", NEVER.values(), ids=NEVER)
def test_a_rule_that_can_never_hold(text: str, folder: Path) -> None:
    with pytest.raises(MalformedError, match="rule 1 can never hold"):
        parse(f"format = 1\n{text}\n".encode(), folder / "policy.toml")


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_is_no_policy(text: str, folder: Path) -> None:
    start = "format = 2\n" if text.endswith("#") else "format = 1\n"
    with pytest.raises(ProvenanceError):
        parse(f"{start}{text}\n".encode(), folder / "policy.toml")


@pytest.mark.parametrize("first", ["", 'tlog-policy = """\nquorum none\n"""\n'])
def test_an_age_of_a_checkpoint_that_no_witness_tells(first: str, folder: Path) -> None:
    text = f"format = 1\n{first}{ALICE}{RULE}{AGAINST}max-age-days = 3\n"
    with pytest.raises(MalformedError, match="only witnesses say how old a checkpoint is"):
        parse(text.encode(), folder / "policy.toml")


CA = '[]\ncertificates = [{authority = "ca.pem", subject = "%s"}]'
CERTIFIED = ALICE.replace('["alice.pub"]', CA)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            ALICE + RULE + 'level = "seen"',
            r"'level': .*'seen' \(one of: attested, recorded\)",
        ),
        (ALICE + RULE + RULE + "max_age = 1", r"rule 2: unknown key `max_age` \(.*max-age-days"),
        (ALICE.replace("keys", "kes") + RULE, r"party 1: unknown key `kes` \(one of: name, .*keys"),
        (ALICE.replace("[[party]]", "[party]") + RULE, r"'party': .*\(write \[\[party\]\]\)"),
        (
            ALICE + "identities = [{name = 'a'}]\n" + RULE,
            "party 1: identities 1: .*provider",
        ),
        (ALICE + ALICE + RULE, r"two parties are called alice"),
        (CERTIFIED % "Alice" + RULE, r"'Alice' is no subject .*CN=Alice"),
        (CERTIFIED % "CN=Alice, O=X" + RULE, r"is no subject of a certificate"),
        (CERTIFIED % "2.5.4.3=Alice" + RULE, r"is no subject of a certificate"),
        (ALICE + RULE + "parties = []", r"rule 1: 'parties'"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_allowed(
    text: str, said: str, folder: Path
) -> None:
    with pytest.raises(MalformedError, match=said):
        parse(f"format = 1\n{text}\n".encode(), folder / "policy.toml")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(data, Path("policy.toml"))


def test_logs_are_those_of_the_tlog_policy(folder: Path) -> None:
    vkey = (folder / "vkey").read_text()
    lines = f"log {vkey}\nquorum none\n"
    (folder / "witnesses").write_text(lines)
    for policy_text in (f'"""\n{lines}"""', '"witnesses"'):
        for log in ("vkey", "example.org/log", vkey):
            text = f'format = 1\ntlog-policy = {policy_text}\n{ALICE}{RULE}logs = ["{log}"]\n'
            found = parse(text.encode(), folder / "policy.toml")
            assert found.witnesses
            assert [*found.logs.values()] == [*found.witnesses.logs]


def test_a_key_can_be_written_out(folder: Path, alice: Person) -> None:
    pem = alice.public.read_text()
    text = ALICE.replace('"alice.pub"', json.dumps(pem)) + RULE
    (folder / "policy.toml").write_text(f"format = 1\n{text}")
    assert set(load(folder / "policy.toml").signers) == {alice.key_id}


# --- Certificates ---------------------------------------------------------------------------------

KEYLESS = """format = 1
trusted-root = "root.json"
[[party]]
name = "carol"
organisation = "Two"
identities = [{{ name = "{who}", provider = "{provider}" }}]
[[rule]]
statement = "training"
"""


def test_an_identity_signs_for_its_party_and_says_when(tmp_path: Path) -> None:
    sigstore, payload = Sigstore(), b"{}"
    signer, log = sigstore.signer(), sigstore.logs[0]
    (tmp_path / "root.json").write_bytes(sigstore.trusted_root())
    text = KEYLESS.format(who=WHO, provider=PROVIDER)
    found = parse(text.encode(), tmp_path / "policy.toml")
    signature = sign(signer.key, pae(payload))
    entry = log.enter(body("dsse", "0.0.1", payload, signature, signer), NOW)
    document = bundle(signer, payload, [entry], [], signature=signature)
    signed = bundles.parse(json.dumps(document).encode())
    opened = bundles.open_bundle(signed, found.trusted)
    assert [opened.subject] == [*found.signers]
    assert opened.at == NOW.replace(microsecond=0)
    other = parse(text.replace(WHO, "mallory@example.org").encode(), tmp_path / "policy.toml")
    with pytest.raises(SignatureError):
        bundles.open_bundle(signed, other.trusted)


def test_a_timestamp_of_what_a_key_signed(tmp_path: Path, alice: Person) -> None:
    sigstore, payload = Sigstore(), b"{}"
    (tmp_path / "root.json").write_bytes(sigstore.trusted_root())
    (tmp_path / "alice.pub").write_bytes(alice.public.read_bytes())
    revoked = '[[revoked]]\nkey = "alice.pub"\non = 2026-07-01\n'
    text = f'format = 1\ntrusted-root = "root.json"\n{ALICE}{RULE}{revoked}'
    found = parse(text.encode(), tmp_path / "policy.toml")
    signature = alice.key.sign(pae(payload))
    proven = {}
    for name, signed in {"this": signature, "another": signature + b"0"}.items():
        stamped = [sigstore.stampers[0].stamp(signed, NOW)]
        document = bundle(None, payload, [], stamped, signature=signature)
        opened = bundles.open_bundle(bundles.parse(json.dumps(document).encode()), found.trusted)
        proven[name] = opened.at
    assert proven == {"this": NOW, "another": None}


def test_an_authority_counts_for_its_own_party_alone(tmp_path: Path) -> None:
    """Another party's authority may issue certificates of any subject."""
    begin = datetime.now(UTC) - DAY
    times: dict[str, Any] = {"begin": begin, "end": begin + 2 * DAY}
    roots = [issue(name, None, *AUTHORITY, **times) for name in ("one", "two")]
    text = "format = 1\n"
    code = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    made = []
    for name, root in zip(("one", "two"), roots, strict=True):
        (tmp_path / f"{name}.pem").write_bytes(pem_of("CERTIFICATE", root.der))
        signs = f'{{ authority = "{name}.pem", subject = "CN={name}-signer" }}'
        text += f'[[party]]\nname = "{name}"\norganisation = "{name}"\ncertificates = [{signs}]\n'
        own = [(usage(digital_signature=True), True), (code, False)]
        made.append(issue("one-signer", root, *own, **times))
    found = parse((text + RULE).encode(), tmp_path / "policy.toml")
    signed = []
    for each in made:
        signature, chain = sign(each.key, pae(b"{}")), [{"rawBytes": b64(each.der)}]
        document = bundle(each, b"{}", [], [], version="0.2", signature=signature)
        document["verificationMaterial"]["x509CertificateChain"] = {"certificates": chain}
        signed.append(bundles.parse(json.dumps(document).encode()))
    opened = bundles.open_bundle(signed[0], found.trusted)
    assert found.signers[opened.signer].name == "one"
    with pytest.raises(SignatureError):
        bundles.open_bundle(signed[1], found.trusted)


def test_a_long_subject_is_not_what_it_begins_with() -> None:
    """The longest that is compared whole, and one that its authority gave to somebody else."""
    begin = datetime.now(UTC) - DAY
    times: dict[str, Any] = {"begin": begin, "end": begin + 2 * DAY}
    root = issue("one", None, *AUTHORITY, **times)
    own = [(usage(digital_signature=True), True)]
    chains = []
    for last in (MAX_NAME - 3 * 64, 64):
        letters = zip("dcba", (last - 3, 60, 60, 60), strict=True)
        of = NameOID.ORGANIZATIONAL_UNIT_NAME
        name = x509.Name([x509.NameAttribute(of, it * length) for it, length in letters])
        chains.append([issue(name, root, *own, **times).der])
    authority = parse_authority([("one.pem", pem_of("CERTIFICATE", root.der))], datetime.now(UTC))
    (_, short), (_, long) = map(authority.certify, chains)
    assert len(short) == MAX_NAME
    assert long.startswith(short)
    assert long != short


def test_the_policies_that_are_drawn_often_say_yes() -> None:
    """Of those that never do, nothing is learnt above."""
    counted = {True: 0, False: 0}

    @settings(max_examples=200, database=None, derandomize=True)
    @given(st.lists(rules(), min_size=1, max_size=2), st.lists(evidences(), min_size=3, max_size=9))
    def draw(given_rules: list[Rule], some: list[Evidence]) -> None:
        key = VerifierKey("log", None, b"log")  # type: ignore[arg-type]  # its id alone counts
        answer = holds(policy(*given_rules, logs={"log": key}), *some)
        counted[answer] += 1

    draw()
    assert counted[True] > 20


def test_what_others_call_the_model_takes_no_yes_away() -> None:
    found = policy(Rule("training", level="recorded"))
    assert holds(found, EVERYTHING)
    other = without(model="a name before", holds=frozenset())
    assert holds(found, other, EVERYTHING)
    assert decide(found, [other, EVERYTHING], ("anything",), AT)[0] == "digits"
