"""Examples of every document, made the same each time.

The signing key is made from a public text: whoever reads this can sign with it. Nothing here reads
a clock, a file or a random source, and Ed25519 signatures are deterministic.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.encoding import strict_base64, strict_json
from provenance.envelope import bundle as bundles
from provenance.equality import declaration as declarations
from provenance.files.manifest import FileEntry, manifest_of
from provenance.folder import attach
from provenance.keys import PrivateKey
from provenance.keys.public import public_key_of
from provenance.measure.findings import AlternativeOutcome, Finding, Outcome, TensorDistance
from provenance.rebuilding import recipe
from provenance.rebuilding import verdict as verdicts
from provenance.rebuilding.recipe import Difference
from provenance.rebuilding.verdict import AppliedEquality, Diameter, Party, Rebuild, Verdict
from provenance.report.explain import shown
from provenance.report.explain_equality import explain_equality
from provenance.report.explain_signed import explain_bundles
from provenance.statement import intoto, model_signature, training
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.uris import BUILD_TYPE, LOCAL_BUILDER
from provenance.transparency import checkpoint as checkpoints
from provenance.transparency import entry as log_entries
from provenance.transparency import merkle, note, rekor

if TYPE_CHECKING:
    from provenance.equality.lattice import Conclusion
    from provenance.report.explain_text import Explained
    from provenance.statement.training import TrainingStatement

TRAINER = "training-provenance example: trainer"
_START, _END = "2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"

LOG = "example.org/log"

CLOSE = b"""format = 1
name = "digits-close"
version = 1
axes = ["thread-count", "blas-kernel"]

[[any]]
[[any.all]]
equality = "bytes"

[[any]]
[[any.all]]
equality = "close"
files = ["model.safetensors"]
relative_l2 = 1e-3
relative_linf = 1e-2
initial = "initial.safetensors"
reason = "float32 gradients added in another order; honest rebuilds differ by up to 6e-5 and 2e-4"

[[any.all]]
equality = "tensors"
files = ["*.npz", "*.npy"]
optional = true
"""


def example_key(text: str) -> PrivateKey:
    """Return the Ed25519 key that is made from *text*; it is public, so never trust it."""
    handle = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(text.encode()).digest())
    return PrivateKey(public_key_of(handle.public_key()), handle)


def valid_examples() -> dict[str, bytes]:
    """Return every valid example, by its name: the document and what the example shows."""
    key = example_key(TRAINER)
    full = training_example()
    named = training.to_statement(training.name_signer(full, key.public))
    claim = attach.sign_payload(intoto.format(named), key)
    found = {
        "training-statement/recorded.json": format_example(
            intoto.format(training.to_statement(full))
        ),
        "training-statement/attested-afterwards.json": format_example(
            intoto.format(training.to_statement(_attested()))
        ),
        "model-signature/signature.json": format_example(
            intoto.format(model_signature.to_statement("digits", full.manifest))
        ),
        "bundle/claim.json": format_example(claim),
        "bundle/published-claim.json": format_example(_published(claim)),
        "bundle/model-signature.json": format_example(
            attach.sign_model("digits", full.manifest, key)
        ),
        "log-entry/hashedrekord.json": format_example(strict_json.format(_log_entry(claim))),
        "equality/bytes.toml": declarations.builtin_text("bytes"),
        "equality/close.toml": CLOSE,
        "trust-policy/two-organisations.toml": policy_example(),
        "show-output/claims.json": _shown("claims.jsonl", explain_bundles(claim, "claims.jsonl")),
        "show-output/equality.json": _shown(
            "equality.toml", explain_equality(CLOSE, "equality.toml")
        ),
    }
    verifier = verdicts.Verifier(_key_id(0), "0.1.0", "2026-01-02T03:04:05Z")
    for name, verdict in _verdicts().items():
        statement = verdicts.to_statement(verdict, verifier)
        found[f"verdict/{name}.json"] = format_example(intoto.format(statement))
    return found


def policy_example() -> bytes:
    """Return a policy that uses every part of a rule; its keys are written out."""
    parties = ""
    for name, organisation in (("trainer", "Example University"), ("rebuilder", "Other Lab")):
        public = example_key(f"training-provenance example: {name}").public
        parties += f'[[party]]\nname = "{name}"\norganisation = "{organisation}"\n'
        parties += f'keys = ["""\n{public.pem.decode()}"""]\n\n'
    log = note.format_vkey(note.VerifierKey(LOG, example_key(LOG).public))
    return f"""format = 1

{parties}[[rule]]
statement = "training"
models = ["digits", "digits-*"]
parties = ["trainer"]
level = "recorded"
equality = true
clean-tree = true
repository = true
licences = true
open-data = true
logs = ["{log}"]
max-age-days = 730

[[rule]]
statement = "signature"
organisations = 2

[[rule]]
statement = "verdict"
parties = ["rebuilder"]
strength = "tensors"
builders = 2
""".encode()


def _manifest() -> tuple[FileEntry, ...]:
    named = {"config.json": 120, "initial.safetensors": 52_000, "model.safetensors": 52_000}
    return tuple(FileEntry(name, size, _digest(name)) for name, size in named.items())


def training_example() -> TrainingStatement:
    """Return a statement that uses every part of the recipe."""
    data = manifest_of([FileEntry("digits.npz", 270_000, _digest("data"))])
    config = manifest_of([FileEntry("config.toml", 80, _digest("config"))])
    declared = declarations.parse(CLOSE)
    recipe = training.Recipe(
        command=("python3", "train.py", "--data", "${data:train}", "--out", "${model}"),
        source=training.Source(
            commit="1" * 40,
            tree="2" * 40,
            dirty=True,
            folder="training",
            uri="https://example.org/digits.git",
            files=(training.ProgramFile("train.py", _digest("program")),),
        ),
        config=(training.describe_input("config.toml", config)[0],),
        data=(training.describe_input("digits.npz", data, role="train")[0],),
        base_model=training.describe_input("base", manifest_of(_manifest()))[0],
        seeds={"numpy": "7"},
        axes=declared.axes,
        equality=training.DeclaredEquality(declared.name, declared.digest, declared.document),
    )
    build = training.BuildDefinition(
        BUILD_TYPE,
        recipe,
        training.Environment(
            observed=("start", "end"),
            collectors={
                "system": training.Collected("ok", {"kernel": "6.8.0", "machine": "x86_64"}),
                "gpus": training.Collected("absent", reason="no NVML library"),
            },
            drift=(training.Drift("software", "numpy", "pkg:pypi/numpy@2.4.0", None),),
        ),
        (
            ResourceDescriptor(name="source", digest={"gitTree": "2" * 40}),
            ResourceDescriptor(uri="pkg:pypi/numpy@2.4.0", digest={"sha256": _digest("numpy")}),
        ),
    )
    metrics = strict_json.format({"name": "loss", "step": 10, "value": 0.25}) + b"\n"
    metadata = training.Metadata("00000000-0000-4000-8000-000000000000", _START, _END)
    run = training.RunDetails(
        training.Builder(LOCAL_BUILDER, {"training-provenance": "0.1.0"}),
        metadata,
        (
            ResourceDescriptor(
                name="metrics",
                digest={"sha256": hashlib.sha256(metrics).hexdigest()},
                content=strict_base64.format(metrics),
                media_type="application/jsonl",
                annotations={"records": 1},
            ),
        ),
        training.Outcome(
            0,
            changed_inputs=(training.ChangedInput("config:config.toml", changed=("config.toml",)),),
        ),
    )
    return training.TrainingStatement("digits", manifest_of(_manifest()), build, run)


def _attested() -> TrainingStatement:
    """Return a statement that claims as little as one can."""
    build = training.BuildDefinition(
        BUILD_TYPE, training.Recipe(), training.Environment(observed=("end",)), ()
    )
    run = training.RunDetails(training.Builder(LOCAL_BUILDER))
    return training.TrainingStatement("digits", manifest_of(_manifest()), build, run)


def _verdicts() -> dict[str, Verdict]:
    """Return a verdict of each conclusion, by its name."""
    equal = AlternativeOutcome(strength="bytes", held=True, findings=())
    outcome = Outcome(
        conclusion="match",
        declaration=_digest("equality"),
        alternatives=(equal,),
        strongest="bytes",
    )
    match = _verdict(outcome)
    same = AlternativeOutcome(strength="tensors", held=True, findings=())
    tensors = msgspec.structs.replace(outcome, alternatives=(same,), strongest="tensors")
    close = _verdict(_close_outcome(), Diameter(2e-5, 3e-7))
    against = Finding(
        file="config.json", measure="bytes", held=False, left=_digest("a"), right=_digest("b")
    )
    other = AlternativeOutcome(strength="bytes", held=False, findings=(against,))
    mismatch = msgspec.structs.replace(
        outcome, conclusion="mismatch", alternatives=(other,), strongest=None
    )
    by_one_key = _verdict(outcome, rebuilder=0)
    keyless = msgspec.structs.replace(
        match.published, subject="alice@example.org (https://sso.example.org)"
    )
    builders = tuple(sorted({_key_id(1), keyless.subject}))
    return {
        "reproduced": msgspec.structs.replace(match, independent=True),
        "same-bytes": match,
        "published-keyless": msgspec.structs.replace(match, published=keyless, builders=builders),
        "same-tensors": _verdict(tensors),
        "consistent": close,
        "mismatch": _verdict(mismatch),
        "another-recipe": _verdict(
            outcome,
            conclusion="mismatch",
            recipe_differences=(Difference("command", "the command has 7 for 0"),),
        ),
        "perhaps-read": _verdict(outcome, recipe_unknown=("perhaps read: err.txt",)),
        "inconclusive": msgspec.structs.replace(
            by_one_key, conclusion="inconclusive", reasons=("1 of 2 builders",)
        ),
    }


def _close_outcome() -> Outcome:
    distance = TensorDistance(
        file="model.safetensors",
        tensor="hidden.weight",
        dtype="F32",
        shape=(64, 128),
        elements=8192,
        differing=17,
        l2=1e-6,
        linf=3e-7,
        relative_l2_update=2e-5,
        relative_linf_update=4e-5,
        initial="initial.safetensors",
    )
    finding = Finding(
        file="model.safetensors",
        measure="relative_l2",
        held=True,
        tensor="hidden.weight",
        value=2e-5,
        limit=1e-3,
    )
    return Outcome(
        conclusion="consistent",
        declaration=declarations.parse(CLOSE).digest,
        alternatives=(AlternativeOutcome(strength="close", held=True, findings=(finding,)),),
        strongest="close",
        distances=(distance,),
    )


def _verdict(
    outcome: Outcome,
    diameter: Diameter | None = None,
    *,
    conclusion: Conclusion | None = None,
    rebuilder: int = 1,
    recipe_differences: tuple[Difference, ...] = (),
    recipe_unknown: tuple[str, ...] = (),
) -> Verdict:
    equality = AppliedEquality("digits-close", 1, outcome.declaration, declared=True)
    rebuild = Rebuild(
        _party(rebuilder, counted=rebuilder > 0),
        outcome,
        recipe.answer(recipe_differences, recipe_unknown),
        recipe_differences,
        recipe_unknown,
        ("numerics.threads",),
    )
    return Verdict(
        conclusion or outcome.conclusion,
        equality,
        _party(0),
        (rebuild,),
        tuple(sorted({_key_id(0), _key_id(rebuilder)})),
        2,
        diameter=diameter,
    )


def _party(number: int, *, counted: bool = True) -> Party:
    root = {"sha256": manifest_of(_manifest()).root_digest}
    payload, bundle = ({"sha256": _digest(f"{what} {number}")} for what in ("payload", "bundle"))
    run = f"00000000-0000-4000-8000-00000000000{number}"
    return Party("digits", root, payload, bundle, _key_id(number), run, "recorded", counted)


def _published(claim: bytes) -> bytes:
    parsed = bundles.parse(claim)
    return bundles.format(parsed.envelope, hint=parsed.hint, log_entries=(_log_entry(claim),))


def _log_entry(claim: bytes) -> dict[str, Any]:
    """Return the entry of *claim* as the second of a log of two."""
    key = example_key(TRAINER)
    envelope = bundles.parse(claim).envelope
    body = rekor.format_body(envelope.pae, envelope.sig, key.public)
    first = merkle.hash_leaf(b"another entry")
    root = merkle.fold([first, merkle.hash_leaf(body)])
    signer = note.signer_key(LOG, example_key("training-provenance example: log"))
    signed = checkpoints.sign(checkpoints.Checkpoint(LOG, 2, root), signer)
    proof = log_entries.InclusionProof(1, root, 2, (first,), signed)
    log_id = signer.verifier.log_id
    return log_entries.format_entry(
        log_entries.LogEntry(1, log_id, rekor.KIND, rekor.VERSION, body, proof)
    )


def _shown(path: str, explained: Explained) -> bytes:
    return format_example(msgspec.json.encode(shown(path, explained), order="sorted"))


def format_example(document: bytes) -> bytes:
    """Return the JSON *document*, indented."""
    return json.dumps(json.loads(document), indent=2, ensure_ascii=False).encode() + b"\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _key_id(number: int) -> str:
    return example_key(f"training-provenance example: builder {number}").public.key_id
