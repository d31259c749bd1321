"""A training statement in groups: what decides the bits of a model, what came out, what is unknown.

Whoever wrote the claim chose its names and values. So they stand in the column of texts only, never
where headings and labels do, and one that could pass for several is in quotes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import unquote

from provenance.encoding import strict_base64, strict_json
from provenance.equality import declaration as declarations
from provenance.errors import MalformedError, count, cut
from provenance.keys import parse_spki
from provenance.report.explain_equality import declaration_rows
from provenance.report.explain_text import cell, row, rows, shorten
from provenance.report.verification import recipe_rows
from provenance.statement import training
from provenance.statement.intoto import ResourceDescriptor, Statement
from provenance.statement.training import TrainingStatement
from provenance.trust.outcome import failure_of, file_notes, outcome_detail

_WIDTH: Final = 63
"""Columns of a text beside its label, on a terminal of 80."""

_MAX_WORD, _MAX_PAIRS, _MAX_ITEMS, _MAX_LINES = 64, 48, 4, 24
"""Characters of a name or value, values in a row, items of a list, and lines of a row."""

_MAX_SETTINGS = 4096
"""Settings that are sorted under their headings: a real program has a few hundred."""

_MORE: Final = "more (--json has all)"

_SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "Randomness": {
        "in effect": "*seed* *SEED* *prng* *threefry*",
        "generators": "*random.state torch.rng torch.cuda.rng*",
        "weights": "optimizer.initialWeights",
    },
    "Hardware": {
        "in use": """numpy.cpu_features *cpu_capability torch.cuda.* *device_count
            *default_backend environ.CUDA_VISIBLE_DEVICES""",
    },
    "Software": {"in use": "torch.version.* *cudnn.version *nccl.version keras.config.backend"},
    "Distribution": {
        "first rank": """torch.distributed.* jax.process_* environ.*RANK* environ.*WORLD_SIZE*
            environ.*NCCL_* environ.GLOO_* environ.TORCHELASTIC_*""",
    },
    "Numerics and threads": {
        "determinism": """*determin* *DETERMIN* *cudnn.benchmark* environ.CUBLAS_*
            environ.CUDA_LAUNCH_BLOCKING environ.FLASH_* *.disable_jit""",
        "precision": """*precision* *PRECISION* *dtype* *floatx *autocast* *tensor_float* *TF32*
            *matmul.* *x64 *reduction*""",
        "threads": """*threads* *THREADS* threadpoolctl.* multiprocessing.* *parallelism*
            environ.OMP_* environ.MKL_* environ.KMP_* *num_cpu_devices""",
        "optimizer": "optimizer*",
        "settings": "*",
    },
}
"""Where the settings of a program are shown: by heading and label, patterns of their names.

The first pattern that fits decides."""

_DECIDES = re.compile(
    r"seed|batch|learning|rate|\blr\b|optim|beta|decay|moment|warmup|sched|epoch|step|accum|norm"
    r"|clip|precision|dtype|16$|tf32|determin|dropout|worker|shuffle|loss|compile|layer|size|dim"
)
_COMPUTES = re.compile(r"blas|mkl|omp|cudnn|nccl|libcu|torch_c|tensorflow_|xla|libm\.|libc\.")
_FIRST: Final = (
    "torch tensorflow jax jaxlib numpy scipy keras transformers accelerate lightning"
    " pytorch-lightning scikit-learn datasets safetensors triton"
).split()
"""Arguments, native libraries and distributions that are shown before others."""

_REPOSITORIES, _INPUTS = ("source/", "editable/"), ("data:", "config:", "baseModel")
_RANDOM = re.compile("initialWeights|dataOrder|probe/.*")

_TOLD: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "Code": ("code", {"reads": "", "trace": ""}),
    "Command and arguments": ("command,config", {"recorder": "version"}),
    "Data": ("data,base model", {}),
    "Randomness": ("seeds", {}),
    "Numerics and threads": ("", {"variables": "variables"}),
    "Hardware": ("", {"processor": "flags", "memory": "", "gpus": ""}),
    "Software": (
        "software",
        dict.fromkeys("interpreter system container packages".split(), "")
        | {"libraries": "recorded hashed"},
    ),
    "Distribution": ("", {"distribution": "seeds"}),
    "What came out": ("weights", {"metrics": "records", "cost": ""}),
    "What counts as the same": ("", {}),
    "Not captured": ("", {}),
}
"""By heading, rows of the recipe, and collectors with what of them is left out or shown apart."""

_APART: Final = {"arguments", "program", "source", "untracked"}.union(
    *(told for _, told in _TOLD.values())
)
"""Collectors with a place of their own."""

_PLAIN = re.compile(r"[^\s,;=()\"'→>]*[^\s,;=()\"'→>:]")

_Values = Mapping[str, dict[str, Any]]
_Rows = Iterator[tuple[str, Iterable[str]]]


def training_rows(statement: Statement, where: str) -> list[str]:
    """Return what the training *statement* says, as rows below headings."""
    claim = training.from_statement(statement, where=where)
    collectors = claim.build.internal_parameters.collectors
    ok = {name: each.values for name, each in collectors.items() if each.status == "ok"}
    settings = _settings(ok)
    lines = [row(label, text) for label, text in _head(claim)]
    for heading, (recipe, told) in _TOLD.items():
        shown: dict[str, list[str]] = {}
        last = ""
        for label, text in recipe_rows(claim):
            last = label or last
            if last in recipe.split(","):
                shown.setdefault(last, []).append(text)
        special = _ROWS.get(heading)
        for label, texts in special(claim, ok) if special else ():
            shown.setdefault(label, []).extend(texts)
        for name, left_out in told.items():
            values = {k: v for k, v in ok.get(name, {}).items() if k not in left_out.split()}
            if heading == "Code":  # counts of what was not seen, and lists of it
                values = {k: v for k, v in values.items() if v or v is False}
            shown.setdefault(name, []).extend(_packed(_pairs(values)))
        for label in _SETTINGS.get(heading, {}):
            shown.setdefault(label, []).extend(settings.get((heading, label), ()))
        lines += [f"  {heading}"] if any(shown.values()) else []
        for label, texts in shown.items():
            lines += rows(label, cut(texts, _MAX_LINES, _MORE), 2, len(texts))
    return lines


def _head(claim: TrainingStatement) -> Iterator[tuple[str, str]]:
    run = claim.run
    yield "model", f"{claim.model_name}{f', from {claim.model_uri}' * bool(claim.model_uri)}"
    yield "subject", claim.manifest.root_digest
    if run.metadata.started_on:
        yield "run", f"{run.metadata.started_on} to {run.metadata.finished_on or 'unknown'}"
    if run.metadata.invocation_id:
        yield "invocation", run.metadata.invocation_id
    yield "outcome", failure_of(claim) or outcome_detail(claim)
    yield "looked at", ", ".join(claim.build.internal_parameters.observed)
    yield "builder", " ".join([run.builder.id, *_pairs(run.builder.version)])
    if run.provenance_signer:
        yield "key it names", _key_id(run.provenance_signer)


def _key_id(spki: str) -> str:
    try:
        return parse_spki(strict_base64.parse(spki)).key_id
    except MalformedError as error:
        return f"not understood: {error}"


def _code(claim: TrainingStatement, _: _Values) -> _Rows:
    yield "others", _described(claim, _REPOSITORIES)


def _arguments(_: TrainingStatement, ok: _Values) -> _Rows:
    for name, values in ok.get("arguments", {}).items():
        pairs = [pair for pair in _pairs(values) if not pair.endswith(("=null", '=""'))]
        pairs.sort(key=lambda pair: not _DECIDES.search(pair.partition("=")[0]))
        yield "arguments", _packed(pairs, name)


def _data(claim: TrainingStatement, ok: _Values) -> _Rows:
    yield "got from", _described(claim, _INPUTS)
    for name in sorted(ok.keys() - _APART):
        yield "seen too", _packed(_pairs(ok[name]), name)


def _randomness(claim: TrainingStatement, ok: _Values) -> _Rows:
    yield "by rank", _packed(_pairs(ok.get("distribution", {}).get("seeds")))
    yield "told", _byproducts(claim, random=True)


def _software(claim: TrainingStatement, ok: _Values) -> _Rows:
    apart = ("source", *_REPOSITORIES, *_INPUTS)
    others = [each for each in claim.build.resolved_dependencies if not each.name.startswith(apart)]
    order = {name: place for place, name in enumerate(_FIRST)}
    others.sort(key=lambda each: order.get(each.name, len(order)))
    found = ((each.name, unquote(each.uri.rpartition("@")[2])) for each in others)
    versions = [f"{_word(name)}={_word(version)}" for name, version in found]
    yield "packages", _packed(versions, most=2 * _MAX_ITEMS)
    for how in ("recorded", "hashed"):
        pairs = _pairs(ok.get("libraries", {}).get(how))
        first = sorted(pairs, key=lambda pair: not _COMPUTES.search(pair))
        yield "libraries", _packed(first, how, _MAX_ITEMS)


def _ranks(_: TrainingStatement, ok: _Values) -> _Rows:
    others = ok.get("program", {}).get("others")
    for rank, differs in others.items() if isinstance(others, dict) else ():
        yield "others", _packed(_pairs(differs), rank, 2 * _MAX_ITEMS)


def _results(claim: TrainingStatement, _: _Values) -> _Rows:
    files = claim.manifest.entries
    about = [
        f"{_word(each.name)}  {count(each.size, 'byte')}  {cell(each.sha256)}" for each in files
    ]
    yield "files", [*cut(about, _MAX_ITEMS, _MORE), *file_notes(claim)]
    yield "byproducts", _byproducts(claim, random=False)
    changed = map(training.changed_text, claim.run.provenance_outcome.changed_inputs)
    yield "inputs", cut(list(changed), _MAX_ITEMS, _MORE)
    drift = [
        f"{_word(each.collector)} {_word(each.name)}={_value(each.start)}→{_value(each.end)}"
        for each in claim.build.internal_parameters.drift
    ]
    yield "drift", cut(drift, 2 * _MAX_ITEMS, _MORE)


def _equality(claim: TrainingStatement, _: _Values) -> _Rows:
    declared = claim.recipe.equality
    if declared is None:
        yield "equality", ["none declared: rebuilds cannot be judged"]
        return
    yield "equality", [f"{_word(declared.name)}  sha256 {cell(declared.sha256)}"]
    try:
        declaration = declarations.from_document(declared.declaration)
    except MalformedError as error:
        yield "equality", [f"not understood: {error}"]
        return
    if declaration.digest != declared.sha256:
        yield "equality", ["but the digest of the declaration is another"]
    yield (
        "equality",
        [
            "  ".join(re.split(" {2,}", line.strip(), maxsplit=1))
            for line in declaration_rows(declaration, 0)
        ],
    )
    yield "axes", _packed(map(_word, claim.recipe.axes))


def _not_captured(claim: TrainingStatement, _: _Values) -> _Rows:
    recipe = claim.recipe
    stated = {"command": recipe.command, "code": recipe.source, "data": recipe.data}
    yield "not stated", _packed(name for name, value in stated.items() if not value)
    for name, said in sorted(claim.build.internal_parameters.collectors.items()):
        if said.status != "ok" or said.reason:
            yield (
                said.status if said.status != "ok" else "in part",
                [f"{_word(name)}{f': {said.reason}' * bool(said.reason)}"],
            )


_ROWS: Final[Mapping[str, Callable[[TrainingStatement, _Values], _Rows]]] = {
    "Code": _code, "Command and arguments": _arguments, "Data": _data, "Randomness": _randomness,
    "Software": _software, "Distribution": _ranks, "What came out": _results,
    "What counts as the same": _equality, "Not captured": _not_captured,
}  # fmt: skip


def _settings(ok: _Values) -> dict[tuple[str, str], list[str]]:
    """Return what the program had set, by heading and label: at start, first step and exit."""
    told: dict[str, list[Any]] = {}
    program, variables = ok.get("program", {}), ok.get("variables", {}).get("variables")
    if isinstance(variables, dict):
        told = {f"environ.{name}": [value] for name, value in variables.items()}
    for values in (program.get("step"), program.get("exit")):
        for name, value in values.items() if isinstance(values, dict) else ():
            told.setdefault(name, []).append(value)
    found: dict[tuple[str, str, str], list[str]] = {}
    for name in sorted(told)[:_MAX_SETTINGS]:
        parts = 2 if name.startswith("torch.backends.") else 1
        module, rest = ".".join(name.split(".")[:parts]), ".".join(name.split(".")[parts:])
        pair = f"{_word(rest or module)}={'→'.join(map(_value, told[name]))}"
        found.setdefault((*_place(name[:_MAX_WORD]), module if rest else ""), []).append(pair)
    lines: dict[tuple[str, str], list[str]] = {}
    if (more := len(told) - _MAX_SETTINGS) > 0:
        lines["Numerics and threads", "settings"] = [f"and {more:,} {_MORE}:"]
    for (heading, label, module), pairs in found.items():
        lines.setdefault((heading, label), []).extend(_packed(pairs, module))
    return lines


def _place(name: str) -> tuple[str, str]:
    """Return the heading and the label of the setting *name*."""
    return next(
        (heading, label)
        for heading, labels in _SETTINGS.items()
        for label, patterns in labels.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns.split())
    )


def _byproducts(claim: TrainingStatement, *, random: bool) -> list[str]:
    """Say what was kept besides the weights; of the digests of *random* things, the first one."""
    found = []
    for each in claim.run.byproducts:
        of_random = bool(_RANDOM.fullmatch(each.name))
        if of_random is random and not each.name.startswith("manifest/"):
            about = {name: value for name, value in each.annotations.items() if name != "files"}
            pairs = [*_pairs(about), *(_first_line(each) if random else ())]
            found += _packed(pairs or _pairs(each.digest), each.name)
    return found


def _first_line(byproduct: ResourceDescriptor) -> list[str]:
    """Return what the first line of JSON in *byproduct* says, if it is in the statement."""
    try:
        first, *others = strict_base64.parse(byproduct.content).splitlines() or [b"{}"]
        return [*_pairs(strict_json.parse(first)), *([f"and {len(others):,} more"] * bool(others))]
    except MalformedError:
        return []


def _described(claim: TrainingStatement, names: tuple[str, ...]) -> list[str]:
    """Say where the dependencies are from whose names begin with one of *names*."""
    found = [
        f"{_word(each.name)}  {each.uri or ', '.join(_pairs(each.digest))}"
        for each in claim.build.resolved_dependencies
        if each.name.startswith(names) and (each.uri or names is _REPOSITORIES)
    ]
    return cut(found, _MAX_ITEMS, _MORE)


def _packed(texts: Iterable[str], name: str = "", most: int = _MAX_PAIRS) -> list[str]:
    """Return at most so many of *texts* in lines that are not too long, after *name*."""
    shown = cut(list(texts), most, _MORE)
    lines = [f"{_word(name)}:"] if name and shown else []
    for number, text in enumerate(shown, 1):
        part = text if number == len(shown) else f"{text},"
        if lines and len(lines[-1]) + 1 + len(part) <= _WIDTH:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return lines


def _pairs(value: Any, name: str = "") -> Iterator[str]:  # noqa: ANN401 - any JSON value
    """Yield each value in *value* with its dotted name."""
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _pairs(value[key], f"{name}.{_word(key)}" if name else _word(key))
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for number, each in enumerate(value):
            yield from _pairs(each, f"{name}.{number}")
    elif value is not None or name:
        shown = map(_value, value) if isinstance(value, list) else [_value(value)]
        yield f"{name}={' '.join(shown)}"


def _value(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a comma in it would seem to end a pair
    return _word(value) if isinstance(value, str) else shorten(cell(value), _MAX_WORD)


def _word(text: str) -> str:
    """Return *text*, cut if it is long, in quotes if it could pass for several or for none."""
    text = cell(shorten(text, _MAX_WORD))
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
