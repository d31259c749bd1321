"""How a trust policy reads, and what it answers of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from provenance.errors import count, one_line, some_of
from provenance.report.explain_text import shorten
from provenance.report.terminal import bad, good, wrap
from provenance.trust.decision import KINDS, demands
from provenance.trust.policy import Party, Rule, TrustPolicy, may_sign, organisation
from provenance.trust.verification import Answer, Verified

WIDTH: Final = 80
"""Columns of the table, whatever the output is."""

MAX_RULE: Final = 40
"""Columns of its rules: a log can have any name."""


def answer_lines(answers: Sequence[Answer], verified: Verified | None = None) -> list[str]:
    """Return what the policy says, then a table of *answers*; *verified* where all hold."""
    said = bad("no") + ": the policy does not accept this model"
    if verified is not None:
        named = f"{verified.name}, root sha256:{verified.manifest.root_digest[:16]}…"
        said = good("yes") + f": the policy accepts {one_line(named)}"
    rules = [one_line(each.rule) for each in answers]
    rules = [it if len(it) <= MAX_RULE else it[: MAX_RULE - 1] + "…" for it in rules]
    wide = max(map(len, rules))
    lines = [f"{'':<5}{'rule':<{wide}}  why"]
    for rule, each in zip(rules, answers, strict=True):
        mark = good("yes") + "  " if each.holds else bad("no") + "   "
        lines.append(f"{mark}{rule:<{wide}}  {one_line(shorten(each.why))}")
    table = (part for line in lines for part in wrap(line, WIDTH, wide + 7, whole=False))
    warnings = verified.warnings if verified else ()
    more = (f"{bad('warning')}: {one_line(shorten(text))}" for text in warnings)
    return [said, "", *table, *more]


def policy_lines(policy: TrustPolicy) -> Iterator[str]:
    """Yield *policy* in words."""
    parties = {party.name: party for party in policy.signers.values()}
    for name, party in parties.items():
        counts = (len(party.keys), "key"), (len(party.certificates), "certificate")
        texts = [count(number, noun) for number, noun in counts if number]
        texts += [count(len(party.identities), "identity", "identities")] * bool(party.identities)
        against = policy.no_trusted_mismatch
        idle = not any(may_sign(rule, party) for rule in policy.rules)
        idle &= against is None or name not in against.parties
        more = "; no rule lets them sign anything" * idle
        who = f"{one_line(name)}, of {one_line(party.organisation)}"
        yield f"{who}, signs with {' and '.join(texts)}{more}."
    for key_id, day in policy.revoked.items():
        name = one_line(policy.signers[key_id].name)
        yield f"The key {key_id} of {name} is revoked since {day}: it counts only for what a"
        yield "  trusted timestamp puts before that day."
    for number, rule in enumerate(policy.rules, 1):
        yield ""
        yield f"Rule {number}. {_models(rule)} needs a {KINDS[rule.statement]}"
        yield f"  signed by {_signers(rule, [*parties.values()])}."
        asked = [text for text, _, _ in demands(rule, policy, datetime(2026, 1, 1, tzinfo=UTC))]
        yield from wrap(f"  Asked of it: {', '.join(asked)}.", WIDTH, 15) if asked else ()
    yield ""
    if against := policy.no_trusted_mismatch:
        by = some_of(list(against.parties)) or "any of them"
        named = f"No trusted mismatch: {by} signed no verdict against the model that is in the log"
        age = f", at most {count(against.max_age_days, 'day')} old" if against.max_age_days else ""
        more = f" {policy.logs[against.log].name}, up to the checkpoint in {against.checkpoint}"
        yield from wrap(one_line(f"{named}{more}{age}."), WIDTH, 2)
        yield ""
    if policy.witnesses:
        quorum = policy.witnesses.quorum
        known = count(len(policy.witnesses.witnesses), "witness", "witnesses")
        yield f"A checkpoint of a log counts with the cosignatures of the quorum {one_line(quorum)}"
        yield f"  ({known} known)."
        yield ""
    yield "A model is accepted if every rule for its name holds, and there is one."


def _models(rule: Rule) -> str:
    named = some_of(list(rule.models))
    return "Every model" if "*" in rule.models else f"A model called {one_line(named)}"


def _signers(rule: Rule, parties: Sequence[Party]) -> str:
    able = [one_line(party.name) for party in parties if may_sign(rule, party)]
    distinct = {organisation(party) for party in parties if may_sign(rule, party)}
    if rule.organisations == 1:
        return f"{'one of ' * (len(able) > 1)}{some_of(able)}"
    return f"{rule.organisations} of {len(distinct)} organisations, by {some_of(able)}"
