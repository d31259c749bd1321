"""Does a trust policy accept a model? A pure function over what was verified, and a time.

More evidence never turns a yes into a no: each rule asks whether there is some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import takewhile

import msgspec

from provenance.envelope.dsse import Opened
from provenance.equality.lattice import STRENGTHS, Strength
from provenance.errors import LogProofError, MalformedError, count, some_of
from provenance.loaders.globs import Globs
from provenance.statement.training import ELSEWHERE, MODEL, TrainingStatement
from provenance.trust.opening import Claim
from provenance.trust.outcome import failure_of
from provenance.trust.policy import Kind, Party, Rule, TrustPolicy, accepted, may_sign, organisation
from provenance.trust.verification import Answer, Verified, check_log, declaration_of

KINDS: dict[Kind, str] = {
    "training": "training statement",
    "signature": "model signature",
    "verdict": "verdict",
}


_UNSTATED = {"", "noassertion", "none", "unknown"}
"""What says of a licence that there is none, or that nobody says: by SPDX, and on hubs."""


class Evidence(msgspec.Struct, frozen=True):
    """Something verified that is about these files.

    ``signer`` is a key id, or as the policy names who signs with a certificate; ``model`` what they
    call the model. ``proven`` is when the signature was there, by a trusted clock, and ``stated``
    when the run ended, by its signer. ``holds`` are the demands of a rule that it meets, ``logs``
    the ids of those that hold it.
    """

    kind: Kind
    signer: str
    model: str
    proven: datetime | None = None
    stated: datetime | None = None
    holds: frozenset[str] = frozenset()
    logs: frozenset[bytes] = frozenset()
    strength: Strength | None = None
    builders: frozenset[str] = frozenset()


class Searched(msgspec.Struct, frozen=True):
    """What was found against a model in *range* of a log, and what there is not known.

    ``problem`` says why nothing is known.
    """

    range: str = ""
    against: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    problem: str = ""


UNSEARCHED = Searched(problem="no log was searched")


def decide(
    policy: TrustPolicy,
    evidence: Iterable[Evidence],
    names: Sequence[str],
    now: datetime,
    searched: Searched = UNSEARCHED,
) -> tuple[str, tuple[Answer, ...]]:
    """Return what the model is called, and the answer to each rule of *policy*; all must hold.

    The model is one of *names*, or, where all rules are for all models, whatever its signers say.
    Called by one of *names*, it must meet the rules for those before it, too.
    What speaks against it counts where the named log was *searched*, and nowhere else.
    """
    named: dict[str, list[Evidence]] = {}
    for each in dict.fromkeys(evidence):
        named.setdefault(each.model, []).append(each)
    called = sorted(named)
    if any(rule.models != ("*",) for rule in policy.rules):
        called = [name for name in names if name in named]
    if not called:
        others = some_of(sorted(named)) or "nothing"
        why = f"signed as {others}, not {some_of(names)} (--name)"
        return "", (Answer("model's name", why),)
    against = (_no_mismatch(searched),) if policy.no_trusted_mismatch else ()
    found = {
        name: (
            *_answers(policy, named[name], (*takewhile(name.__ne__, names), name), now),
            *against,
        )
        for name in called
    }
    holding = (name for name in called if all(each.holds for each in found[name]))
    name = next(holding, called[0])
    return name, found[name]


def evidence_of(verified: Verified, policy: TrustPolicy, now: datetime) -> Iterator[Evidence]:
    """Yield the statements and signatures about the files of *verified*."""
    holds: dict[bytes, frozenset[str]] = {}
    for claim in verified.claims:
        if failure_of(claim.training) is None:
            if (payload := claim.opened.payload) not in holds:  # anybody can add copies
                holds[payload] = frozenset(_holds(claim, claim.training))
            yield _of_claim(claim, policy, holds[payload], now)
    for signed in verified.signatures:
        signer, name = signer_in(policy, signed.opened), signed.signature.model_name
        yield Evidence("signature", signer, name, signed.opened.at)


def claim_that_counts(verified: Verified, policy: TrustPolicy, name: str) -> Claim | None:
    """Return the first claim that most rules count, if one does, for the model *name*."""
    rules = asking(policy, name)
    named = (claim for claim in verified.claims if claim.training.model_name == name)
    found = max(named, key=lambda claim: counted(claim, rules, policy), default=None)
    return found if found and counted(found, rules, policy) else None


def asking(policy: TrustPolicy, name: str) -> list[Rule]:
    """Return the rules that ask for a training statement about a model called *name*."""
    return [each for each in _for(policy, name).values() if each.statement == "training"]


def counted(claim: Claim, rules: Sequence[Rule], policy: TrustPolicy) -> int:
    """Return how many of *rules* count *claim*, whatever they demand of it then."""
    if failure_of(claim.training) is not None:
        return 0
    name, opened = claim.training.model_name, claim.opened
    found = Evidence("training", signer_in(policy, opened), name, opened.at)
    return sum(not _refusal(found, each, policy) for each in rules)


def signer_in(policy: TrustPolicy, opened: Opened) -> str:
    """Return who signed, as *policy* names them: a key that a party has is that party's."""
    key_id = opened.key.key_id
    return key_id if key_id in policy.signers else opened.signer


def builders_in(policy: TrustPolicy, built: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield who *built*, by key id and subject each, as *policy* names them.

    A verdict says of a certificate its subject and not who issued it: of several organisations with
    that subject it may be any, and whoever it is does not count.
    """
    for key_id, subject in built:
        signer = key_id if key_id in policy.signers else subject or key_id
        certified = {
            organisation(party): name
            for party in policy.signers.values()
            for name, of in accepted(party)
            if of == signer
        }
        if len(certified) <= 1:
            yield from certified.values() or [signer]


def _of_claim(claim: Claim, policy: TrustPolicy, holds: frozenset[str], now: datetime) -> Evidence:
    training, logs = claim.training, set()

    def check(checkpoint: bytes) -> None:
        if policy.witnesses:
            policy.witnesses.check(checkpoint, now)

    for log in policy.logs.values():
        with suppress(LogProofError, MalformedError):
            check_log(claim, log, check)
            logs.add(log.log_id)
    metadata, stated = training.run.metadata, None
    with suppress(ValueError):
        stated = datetime.fromisoformat(metadata.finished_on or metadata.started_on)
    return Evidence(
        "training",
        signer_in(policy, claim.opened),
        training.model_name,
        claim.opened.at,
        stated if stated is None or stated.tzinfo else stated.replace(tzinfo=UTC),
        holds,
        frozenset(logs),
    )


def _holds(claim: Claim, training: TrainingStatement) -> Iterator[str]:
    """Yield which demands *claim* meets, as they are called in a rule."""
    recipe, source = training.recipe, training.recipe.source
    if training.level == "recorded":
        yield "recorded"
    with suppress(MalformedError):
        if declaration_of((claim,), claim) is not None:
            yield "equality"
    if source and source.commit:
        own = (each for each in source.read if not each.name.startswith((ELSEWHERE, MODEL)))
        reads = training.build.internal_parameters.collectors.get("reads")
        seen = training.level == "recorded" and reads is not None and reads.status == "ok"
        if seen and not source.dirty and not any(own):
            yield "clean-tree"
        if source.uri:
            yield "repository"
    about = [each.about for each in recipe.data]
    if about and recipe.base_model is None:  # of which nothing more is stated here
        if all(each and each.license.strip().lower() not in _UNSTATED for each in about):
            yield "licences"
        if all(each and each.availability == "open" for each in about):
            yield "open-data"


def _answers(
    policy: TrustPolicy, evidence: Sequence[Evidence], names: Sequence[str], now: datetime
) -> Iterator[Answer]:
    if not _for(policy, *names[-1:]):
        yield Answer("model's name", f"no rule is for models called {names[-1]}")
    for number, rule in _for(policy, *names).items():
        yield from _answer(rule, number, policy, evidence, now)


def _no_mismatch(searched: Searched) -> Answer:
    """Answer whether nothing speaks against the model; what cannot be known is a no."""
    unknown = searched.problem or some_of(searched.unknown)
    why = some_of(searched.against) or (f"not decidable here: {unknown}" if unknown else "")
    return Answer("no trusted mismatch", why or f"none in {searched.range}", not why)


def _for(policy: TrustPolicy, *names: str) -> dict[int, Rule]:
    """Return the rules for models called by any of *names*, by their numbers."""
    numbered = ((n, it, Globs(it.models, paths=False)) for n, it in enumerate(policy.rules, 1))
    return {n: it for n, it, globs in numbered if any(map(globs.matching, names))}


def _answer(
    rule: Rule, number: int, policy: TrustPolicy, evidence: Sequence[Evidence], now: datetime
) -> Iterator[Answer]:
    of_kind = [each for each in evidence if each.kind == rule.statement]
    counted = [each for each in of_kind if not _refusal(each, rule, policy)]
    refused = dict.fromkeys(filter(None, (_refusal(each, rule, policy) for each in of_kind)))

    def enough(some: Sequence[Evidence]) -> bool:
        return len(_parties(some, policy)) >= rule.organisations

    who = [f"{party.name} ({party.organisation})" for party in _parties(counted, policy).values()]
    few = [f"{len(who)} of {rule.organisations} organisations: {some_of(who)}"] * bool(who) or [
        "there is none" + " (--verdict)" * (rule.statement == "verdict")
    ] * (not of_kind)
    text = f"rule {number}: {KINDS[rule.statement]}"
    if rule.organisations > 1:
        text += f" × {rule.organisations}"
    yield Answer(
        text, some_of(who) if enough(counted) else "; ".join([*few, *refused]), enough(counted)
    )
    together, each_holds = counted, enough(counted)
    for demand, lacking, is_met in demands(rule, policy, now):
        meeting = [each for each in counted if is_met(each)]
        together = [each for each in together if is_met(each)]
        each_holds &= enough(meeting)
        others = [each for each in counted if not is_met(each)]
        said = f"{lacking}: {_names(others, policy)}" if others else "nobody who counts says so"
        why = _names(meeting, policy) if enough(meeting) else said
        yield Answer(f"  {demand}", why, enough(meeting))
    if each_holds and not enough(together):
        yield Answer("  all of this in one statement", "some is said in another one")


def demands(
    rule: Rule, policy: TrustPolicy, now: datetime
) -> Iterator[tuple[str, str, Callable[[Evidence], bool]]]:
    """Yield what *rule* demands of each statement, what one lacks otherwise, and the check."""
    named = {
        "recorded": (rule.level == "recorded", "recorded", "attested only"),
        "equality": (rule.equality, "declares an equality", "none"),
        "clean-tree": (rule.clean_tree, "code as committed", "changed, or not known"),
        "repository": (rule.repository, "code repository named", "none"),
        "licences": (rule.licences, "licences of all data", "not all, or a base model's"),
        "open-data": (rule.open_data, "all data open", "not all, or a base model's"),
    }
    for key, (demanded, text, lacking) in named.items():
        if demanded:
            yield text, lacking, lambda each, key=key: key in each.holds  # type: ignore[misc]
    if rule.logs:
        ids = {policy.logs[text].log_id for text in rule.logs}
        names = " or ".join(policy.logs[text].name for text in rule.logs)
        lacking = "no proof" + " that a quorum of witnesses cosigned" * bool(policy.witnesses)
        yield f"in the log {names}", lacking, lambda each: bool(ids & each.logs)
    if (days := rule.max_age_days) is not None:
        earliest, latest = now - timedelta(days=days), now + timedelta(days=1)
        yield (
            f"at most {count(days, 'day')} old",
            "older, or no time stated",
            lambda each: each.stated is not None and earliest <= each.stated <= latest,
        )
    if rule.statement == "verdict":
        strength, builders = rule.strength or "rounded", rule.builders or 2
        least = STRENGTHS.index(strength)
        yield (
            f"by {strength} or stronger",
            "weaker",
            lambda it: it.strength is not None and STRENGTHS.index(it.strength) >= least,
        )
        yield f"{builders} builders", "fewer", lambda it: _builders(it, policy) >= builders


def _builders(verdict: Evidence, policy: TrustPolicy) -> int:
    """Count the builders; those of one organisation, as far as the policy knows them, are one.

    One whose key is revoked counts where the verdict was there before.
    """
    known = policy.signers
    counted = [it for it in verdict.builders if not _is_late(verdict, policy.revoked.get(it))]
    return len({organisation(known[it]) if it in known else it for it in counted})


def _is_late(each: Evidence, day: date | None) -> bool:
    """Tell whether *each* is not proven to be from before *day*, on which a key was revoked."""
    return day is not None and (each.proven is None or each.proven.astimezone(UTC).date() >= day)


def _refusal(each: Evidence, rule: Rule, policy: TrustPolicy) -> str:
    """Return why *each* does not count for *rule*; "" if it does."""
    party = policy.signers.get(each.signer)
    if party is None:
        return f"signed by {each.signer}, who is no party"
    if not may_sign(rule, party):
        return f"{party.name} may not sign it"
    day = policy.revoked.get(each.signer)
    if _is_late(each, day):
        return f"a key of {party.name} is revoked since {day}"
    return ""


def _parties(evidence: Sequence[Evidence], policy: TrustPolicy) -> dict[str, Party]:
    """Return who signed *evidence*: one party for each organisation."""
    signed = (policy.signers[each.signer] for each in evidence)
    return {organisation(party): party for party in signed}


def _names(evidence: Sequence[Evidence], policy: TrustPolicy) -> str:
    return some_of([*dict.fromkeys(policy.signers[each.signer].name for each in evidence)])
