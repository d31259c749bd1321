"""Are these the weights, and is it the same model: ``verify``, ``compare`` and ``agree``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from provenance import __version__
from provenance.api import arguments
from provenance.api.arguments import (
    Password,
    PathLike,
    Progress,
    Texts,
    a_path,
    declaration,
    in_options,
    log_key,
    open_models,
    optional_path,
    private_key,
    public_keys,
    several,
    signers,
    silent,
)
from provenance.equality.declaration import Declaration
from provenance.equality.lattice import AGREES
from provenance.errors import (
    LogProofError,
    MalformedError,
    PolicyError,
    ProvenanceError,
    SignatureError,
    UsageError,
    count,
    some_of,
)
from provenance.files.names import BYPRODUCTS, CLAIMS
from provenance.folder.claims import beside, folder_names, name_in, read_beside, read_claims
from provenance.statement.model_signature import left_out
from provenance.trust import verification
from provenance.trust.checkpoints import check_checkpoints
from provenance.trust.contents import Reading
from provenance.trust.layout import CHAIN_STEPS, Chain, check_layout
from provenance.trust.lineage import trace
from provenance.trust.opening import Claim, open_all, understand
from provenance.trust.outcome import LEVELS, Level, Word, failure_of
from provenance.trust.verification import STEPS, Answer, Demands, Step, Verified
from provenance.weights import check_numpy

if TYPE_CHECKING:
    from provenance.envelope.bundle import Trusted
    from provenance.envelope.dsse import Opened
    from provenance.judge.side_by_side import FileComparison
    from provenance.keys import PrivateKey, PublicKey
    from provenance.loaders.choice import Apart
    from provenance.measure.findings import Outcome
    from provenance.rebuilding.verdict import Verdict
    from provenance.transparency.note import VerifierKey
    from provenance.trust.policy import TrustPolicy


def verify(  # noqa: PLR0913 - each option of the verb, by name
    model: PathLike,
    *,
    keys: Sequence[PathLike | PublicKey] = (),
    certificate_chain: Sequence[PathLike] = (),
    identity: Texts = None,
    identity_provider: Texts = None,
    trust_config: PathLike | None = None,
    trust: PathLike | None = None,
    claims: PathLike | None = None,
    signature: PathLike | None = None,
    log: PathLike | VerifierKey | None = None,
    require: Level | None = None,
    name: str | None = None,
    root_digest: str | None = None,
    verdict: PathLike | None = None,
    layout: PathLike | None = None,
    layout_keys: Sequence[PathLike | PublicKey] = (),
    links: PathLike | None = None,
    bases: Sequence[PathLike] = (),
    checkpoints: Sequence[PathLike] = (),
    link_roots: Sequence[PathLike] = (),
    ignore_paths: Sequence[PathLike] = (),
    digests_v0: bool = False,
    unsafe_ignore_unsigned: bool = False,
    unsafe_run_inspections: bool = False,
    on_step: Callable[[Step], None] = lambda _: None,
    on_answer: Callable[[Answer], None] = lambda _: None,
    progress: Progress = silent,
) -> Verified:
    """Return *model*, a folder or a file, verified: one of *keys* attested just its files.

    Or a key did whose certificate leads to a root in the files *certificate_chain* (PEM), or an
    *identity* (keyless) for which *identity_provider* vouches, by the Sigstore whose trusted root
    is the file *trust_config*, else the public one's that the package ``sigstore`` ships; of
    several identities, each has its provider in the same place, or one is for all. Or the policy in
    the file *trust* says who is trusted, and for what: a rule that does not hold is a PolicyError,
    after *on_answer* was told the answer to each. *claims* are read in place of those beside the
    model, or the one *signature*. With a *log*'s key, the claim must be in that log. A claim of a
    lower evidence level than *require* is refused; ``rebuilt`` needs a *verdict*, a file that
    ``agree`` wrote and one of *keys* signed. *name* and *root_digest* (``sha256:HEX``) say which
    model is expected. An in-toto *layout* that all *layout_keys* signed must hold over the in-toto
    links in the folder *links*, else those beside the model, and end in its files; it must have no
    inspections, unless *unsafe_run_inspections* runs them. *bases* are folders or files with claims
    about what the model was made from, beside those that lie with it. Each of *checkpoints*, a
    folder or file, must be one that the run wrote, by the claim. Links may lead to files below
    *link_roots*, and into known caches. *ignore_paths* need not be signed, if no loader opens them;
    *digests_v0* reads signatures of model-signing before 0.3, *unsafe_ignore_unsigned* accepts
    whatever nobody signed. *on_step* is told each step that held.
    """
    if require not in (None, *LEVELS):
        raise UsageError(f"no evidence level: {require!r}", hint=f"one of {', '.join(LEVELS)}")
    if require == "rebuilt" and verdict is None:
        raise UsageError("only a verdict says that a model was rebuilt", hint="give it: --verdict")
    root = None if root_digest is None else _sha256(root_digest)
    demands = Demands(require=require or LEVELS[0], name=name, root_digest=root)
    trusted = signers(keys, certificate_chain, identity, identity_provider, trust_config)
    rules = _policy(trust, alone=not trusted and log is None and require is None)
    trusted = rules.trusted if rules else trusted
    logged = None if log is None else log_key(log)
    chain = _chain(Path(model), layout, layout_keys, links, unsafe=unsafe_run_inspections)
    read = _instead(claims, signature)
    own = [] if read is None else [name_in(Path(model), read)]
    given = [*_known(several(bases, "bases"), trusted)]
    judged = _document(verdict)
    with progress("hashing") as advance:
        verified = verification.verify_model(
            Path(model),
            trusted,
            claims=read,
            log=logged,
            demands=demands,
            reading=Reading(
                arguments.link_roots(link_roots),
                unsafe_ignore_unsigned,
                ignored=left_out([*arguments.names_in(Path(model), ignore_paths), *own]),
                older_digests=digests_v0,
                separately=rules is not None,
            ),
            on_step=on_step,
            progress=advance,
        )
    if verified.claim and verified.claim.training.recipe.base_model:
        known = _known([model if read is None else read], trusted)
        verified = replace(verified, ancestors=trace(verified.claim, [*known, *given]))
    elif bases:
        raise UsageError("the claim states no base model", hint="leave out --base")
    rebuilt = None
    if judged is not None:
        from provenance.rebuilding.verdict import check_rebuilt  # noqa: PLC0415 - rarely needed

        rebuilt = check_rebuilt(judged, verified, trusted, _counting(rules, verified))
        word = Word(rebuilt[0].signer, "rebuilt", rebuilt[0].kind)
        verified = replace(verified, levels=(*verified.levels, word))
    for step in _further(verified, rebuilt, chain, several(checkpoints, "checkpoints")):
        verified = replace(verified, steps=(*verified.steps, step))
        on_step(step)
    if rules is not None:
        more = [path for path in (read, judged) if path is not None]
        verified = _decide(rules, verified, rebuilt, name, more)
        for each in verified.answers or ():
            on_answer(each)
        if against := [each.rule.strip() for each in verified.answers or () if not each.holds]:
            what = f"does not trust this model: {some_of(against)}"
            raise PolicyError(what, where=str(trust), hint=some_of(verified.warnings) or None)
    return verified


def _policy(trust: PathLike | None, *, alone: bool) -> TrustPolicy | None:
    """Return the policy in the file *trust*, if there is one; *alone*: nothing else is trusted."""
    if trust is not None and not alone:
        hint = "leave out keys, identities, --log and --require, or --trust"
        raise UsageError("a policy says itself who is trusted, and for what", hint=hint)
    if trust is None:
        return None
    from provenance.trust import policy  # noqa: PLC0415 - rarely needed

    return policy.load(a_path(trust))


def _chain(
    model: Path,
    layout: PathLike | None,
    layout_keys: Sequence[PathLike | PublicKey],
    links: PathLike | None,
    *,
    unsafe: bool,
) -> Chain | None:
    """Return the *layout* that must hold, if there is one."""
    if layout is None:
        if links is not None or unsafe or layout_keys:
            raise UsageError("what is said of a layout needs --layout")
        return None
    folder = a_path(links) if links is not None else model / BYPRODUCTS
    chain = Chain(a_path(layout), public_keys(layout_keys), folder, unsafe)
    if not chain.owners:
        raise UsageError("no layout is trusted by default", hint="whose is it? --layout-key")
    return chain


def _decide(
    rules: TrustPolicy,
    verified: Verified,
    rebuilt: tuple[Opened, Verdict] | None,
    name: str | None,
    more: Sequence[Path],
) -> Verified:
    """Return *verified* with the answers of *rules*, and of its claims the one that counts."""
    from provenance.trust import decision  # noqa: PLC0415 - rarely needed

    now, searched = datetime.now(UTC), decision.UNSEARCHED
    if (named := rules.no_trusted_mismatch) is not None:
        from provenance.rebuilding import against  # noqa: PLC0415 - rarely needed

        searched = against.search(rules, named, verified, more, now)

    evidence = [*decision.evidence_of(verified, rules, now)]
    if rebuilt is not None:
        opened, verdict = rebuilt
        built = ((party.key_id, party.subject) for party in verdict.built)
        found = decision.Evidence(
            "verdict",
            decision.signer_in(rules, opened),
            verdict.published.name,
            opened.at,
            strength=verdict.strongest,
            builders=frozenset(decision.builders_in(rules, built)),
        )
        evidence.append(found)
    names = folder_names(verified.root) if name is None else (name,)
    called, answers = decision.decide(rules, evidence, names, now, searched)
    claim = decision.claim_that_counts(verified, rules, called)
    if claim is not verified.claim:
        declared = verification.declaration_of((claim,), claim) if claim else None
        verified = replace(verified, claim=claim, declaration=declared, ancestors=())
    return replace(verified, name=called or verified.name, answers=answers)


def _counting(rules: TrustPolicy | None, verified: Verified) -> Callable[[Claim], bool]:
    """Return what tells whether a verdict about a claim counts, by *rules* if there are any."""
    if rules is None:
        return lambda claim: claim is verified.claim
    from provenance.trust.decision import asking, counted  # noqa: PLC0415 - rarely needed

    def counts(claim: Claim) -> bool:
        asked = asking(rules, claim.training.model_name)
        return counted(claim, asked, rules) > 0 if asked else failure_of(claim.training) is None

    return counts


def _further(
    verified: Verified,
    rebuilt: tuple[Opened, Verdict] | None,
    chain: Chain | None,
    checkpoints: Sequence[PathLike],
) -> Iterator[Step]:
    """Yield the steps after those of :func:`~provenance.trust.verification.verify_model`."""
    after, detail = len(STEPS), "not given (--verdict)"
    if rebuilt is not None:
        from provenance.report.agreement import model_text  # noqa: PLC0415 - rarely needed

        _, verdict = rebuilt
        builders = count(len(verdict.builders), "builder")
        detail = f"{model_text(verdict)}; {builders}, {verdict.quorum} needed"
    yield Step(after, STEPS[-1], detail, skipped=rebuilt is None)
    if chain is not None:
        yield from check_layout(chain, verified.manifest)
        after += len(CHAIN_STEPS)
    yield from check_checkpoints(verified, [*map(a_path, checkpoints)], after)


def _instead(claims: PathLike | None, signature: PathLike | None) -> Path | None:
    """Return the file that is read in place of those beside the model, if any."""
    if claims is not None and signature is not None:
        raise UsageError("--claims and --signature each name what is read in place of the other")
    return optional_path(signature if claims is None else claims)


def _document(path: PathLike | None) -> Path | None:
    """Return *path*, if there is one; what it lacks is said before hours of hashing."""
    found = optional_path(path)
    if found is not None:
        read_claims(found)
    return found


def _known(places: Sequence[PathLike], trusted: Sequence[Trusted]) -> Iterator[Claim]:
    """Yield the claims of *trusted*, not a stranger's, in *places*: beside models, or files."""
    for path in map(a_path, places):
        is_model = path.is_dir() or beside(path, CLAIMS).is_file()
        read = read_beside(path) if is_model else read_claims(path)
        with suppress(LogProofError, MalformedError, PolicyError, SignatureError):
            opened = open_all(read, trusted, refuse=lambda _: None)
            yield from understand(opened, separately=True).claims


def _sha256(text: str) -> str:
    """Return the hexadecimal digits of *text*, ``sha256:HEX``."""
    found = re.fullmatch(r"(?:sha256:)?([0-9a-f]{64})", text)
    if found is None:
        hint = "'verify' prints the root digest that was signed"
        raise UsageError("not a digest, sha256:HEX", where=text, hint=hint)
    return found[1]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models side by side; with an equality, its outcome.

    ``not_compared`` lies in either folder and is no part of the model.
    """

    files: tuple[FileComparison, ...]
    outcome: Outcome | None
    not_compared: tuple[str, ...]
    apart: tuple[Apart, ...] = ()
    """What loaders take on either side, where the two are not compared with each other."""

    @property
    def same(self) -> bool:
        """Whether the equality holds; without one, whether tensors and other files are the same."""
        if self.outcome is not None:
            return self.outcome.conclusion in AGREES
        return not self.apart and all(item.same for item in self.files)


def compare(
    left: PathLike,
    right: PathLike,
    *,
    equality: PathLike | Declaration | None = None,
    probes: PathLike | None = None,
    link_roots: Sequence[PathLike] = (),
    progress: Progress = silent,
) -> Comparison:
    """Compare two models, or two weight files of any formats; nothing is verified.

    *probes* replace those that the rules of *equality* name for running a model. Links in folders
    may lead to files below *link_roots*, and into the caches that are known.
    """
    check_numpy()
    from provenance.judge.comparators import apply  # noqa: PLC0415 - needs numpy
    from provenance.judge.measured import MeasuredWeights  # noqa: PLC0415
    from provenance.judge.side_by_side import list_differences  # noqa: PLC0415
    from provenance.weights.pairs import SideBySide  # noqa: PLC0415

    declared = None if equality is None else declaration(equality)
    if probes is not None and declared is None:
        raise UsageError("--probes needs --equality")
    sides = SideBySide(*open_models((left, right), link_roots))
    with progress("comparing") as advance:
        weights = MeasuredWeights(sides, declared, view=True, on_bytes=advance)
        outcome = None
        if declared is not None:  # first, so that one that does not fit is refused at once
            outcome = apply(declared, weights, probes=optional_path(probes))
        return Comparison(list_differences(weights), outcome, sides.not_compared, sides.apart)


def agree(  # noqa: PLR0913 - each option of the verb, by name
    models: Sequence[PathLike],
    *,
    keys: Sequence[PathLike | PublicKey] = (),
    certificate_chain: Sequence[PathLike] = (),
    identity: Texts = None,
    identity_provider: Texts = None,
    trust_config: PathLike | None = None,
    equality: PathLike | Declaration | None = None,
    unsafe_other_equality: bool = False,
    probes: PathLike | None = None,
    quorum: int = 2,
    independent: bool = False,
    sign_with: PathLike | PrivateKey | None = None,
    password: Password = None,
    out: PathLike | None = None,
    link_roots: Sequence[PathLike] = (),
    progress: Progress = silent,
) -> Verdict:
    """Judge whether *models*, the published one first, are the same model; return the verdict.

    Each is verified with *keys*, certificates and identities, as by :func:`verify`, and compared
    with the first under the equality that the first declared. If that is not *equality*, it is
    refused, unless *unsafe_other_equality* applies *equality* instead. *quorum* distinct builders
    must agree. Any verdict, even a negative one, is signed by *sign_with* into the new file *out*;
    who signs may say that the builders are *independent*, operated by different people.
    *link_roots* are as for :func:`verify`.
    """
    check_numpy()
    from provenance.rebuilding import agreement  # noqa: PLC0415 - needs numpy

    if (sign_with is None) != (out is None):
        raise UsageError("--sign-with and --out go together")
    if independent and sign_with is None:
        hint = "sign the verdict with --sign-with"
        raise UsageError("--independent is for whoever signs the verdict to say", hint=hint)
    if out is not None and os.path.lexists(a_path(out)):  # before hours of comparison
        raise UsageError("exists already", where=str(out), hint="choose another name")
    signer = None if sign_with is None else private_key(sign_with, password)
    trusted = signers(keys, certificate_chain, identity, identity_provider, trust_config)
    if equality is None and unsafe_other_equality:
        raise UsageError("--unsafe-other-equality needs --equality")
    expected = None if equality is None else declaration(equality)
    if not models:
        raise UsageError("there is no model")
    reading = Reading(arguments.link_roots(link_roots), later=True)
    verified: list[Verified] = []
    for model in several(models, "models"):
        try:
            verified.append(verification.verify_model(Path(model), trusted, reading=reading))
        except ProvenanceError as error:
            raise in_options(error).inside(str(model)) from error
    override = None
    if expected is not None:
        shown = expected.name if isinstance(equality, Declaration) else str(equality)
        override = _override(verified[0], expected, shown, unsafe=unsafe_other_equality)
    given = optional_path(probes)
    with progress("comparing") as advance:
        verdict = agreement.agree(
            verified,
            quorum=quorum,
            independent=independent,
            unsafe_equality=override,
            probes=given,
            on_bytes=advance,
        )
    if signer is not None and out is not None:
        _write(verdict, Path(out), signer)
    return verdict


def _write(verdict: Verdict, path: Path, signer: PrivateKey) -> None:
    """Sign *verdict* into the new file *path*, if a reader would find that it follows."""
    from provenance.capture.process import timestamp  # noqa: PLC0415 - verify starts without these
    from provenance.files.atomic import create_file  # noqa: PLC0415
    from provenance.folder.attach import sign_payload  # noqa: PLC0415
    from provenance.rebuilding import verdict as verdicts  # noqa: PLC0415
    from provenance.statement import intoto  # noqa: PLC0415

    verifier = verdicts.Verifier(signer.public.key_id, __version__, timestamp())
    payload = intoto.format(verdicts.to_statement(verdict, verifier))
    try:
        read = verdicts.from_statement(intoto.parse(payload))
    except MalformedError as error:
        raise RuntimeError(f"a verdict that no reader takes: {error}") from error
    if read != verdict:
        raise RuntimeError("a verdict that reads otherwise than it was written")
    create_file(path, sign_payload(payload, signer) + b"\n")


def _override(
    published: Verified, expected: Declaration, where: str, *, unsafe: bool
) -> Declaration | None:
    """Return *expected* where it replaces the declared equality; None: it is the declared one."""
    declared = published.declaration
    if declared is not None and declared.digest == expected.digest:
        return None
    if not unsafe:
        what = f"the first attestation declared {'another' if declared else 'no'} equality"
        hint = "--unsafe-other-equality applies it all the same, and the verdict says so"
        raise PolicyError(what, where=where, hint=hint)
    return expected
