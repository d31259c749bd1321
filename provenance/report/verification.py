"""How a verification reads: its steps, and at the end what was proven."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

from provenance.errors import MAX_PART, SHOWN, count, cut, one_line, some_of
from provenance.report.explain_text import MAX_ROWS, cell, shorten
from provenance.report.terminal import bad, dim, good
from provenance.statement.training import Input, Source, TrainingStatement
from provenance.trust.verification import STEPS, Step, Verified

STEP_HANG: Final = 25
"""Column in which the text of a step stands."""

MAX_SEEDS, MAX_SEED = 16, 100
"""Most seeds that are shown, and characters of one."""

_SIGNATURE: Final = STEPS.index("signature") + 1
_FORMS: Final = {"same": "the same", "cast": "cast", "renamed": "under other names",
                 "other": "not found there", "left": "of its own left out"}  # fmt: skip
_LISTED: Final = {"checked": "with the SHA-256 stated", "unchecked": "without a SHA-256 stated",
                  "absent": "not there"}  # fmt: skip
_NO_NAMES: Final[Mapping[str, str]] = {}


def step_lines(step: Step, keys: Mapping[str, str] = _NO_NAMES) -> list[str]:
    """Return the line of *step*, which held, and one for each of its notes.

    *keys* are the names of key files by key id.
    """
    mark = dim("–") if step.skipped else good("✓")
    detail, *notes = (
        _named(text, keys) if step.number == _SIGNATURE else text
        for text in (step.detail, *step.notes)
    )
    lines = (f"{dim('–')} {'':<23}{one_line(shorten(note))}" for note in notes)
    return [f"{mark} {f'{step.number} {step.name}':<23}{one_line(detail)}", *lines]


def _named(text: str, keys: Mapping[str, str]) -> str:
    for key_id, name in keys.items():
        text = text.replace(key_id, name)
    return text


def failed_line(name: str, steps_held: int, what: str) -> str:
    """Return the line of the step *name* after *steps_held*, which failed because of *what*."""
    return f"{bad('✗')} {f'{steps_held + 1} {name}':<23}{one_line(what)}"


def summary_lines(verified: Verified, keys: Mapping[str, str] = _NO_NAMES) -> list[str]:
    """Return what was proven, and how the model was made; *keys* are as for a step.

    The last lines name the evidence level, one for each signer.
    """
    model, claim = one_line(verified.name), verified.claim
    root = ("root", verified.manifest.root_digest)  # with "sha256:" it is too wide for 80 columns
    if claim is None:
        start = good("signed") + f": {model} is what was signed. How it was made is not stated."
        rows = [root]
    else:
        signer = claim.opened.subject or keys.get(claim.opened.key.key_id, "the key below")
        start = good("verified") + f": {model} is what {one_line(signer)} attested."
        rows = [root, *recipe_rows(claim.training)]
        if (metadata := claim.training.run.metadata).started_on:
            rows.append(("run", f"{metadata.started_on} to {metadata.finished_on or 'unknown'}"))
        rows.append(("key id", claim.opened.key.key_id))
        rows += [("made from", text) for text in _ancestor_texts(verified, keys)]
    for each in verified.key_changes:
        old, new = (keys.get(it, it) for it in (each.old, each.new))
        rows.append(("new key", f"{new} in place of {old}, as both signed"))
    for number, word in enumerate(verified.levels):
        said = f"{word.level} (as {keys.get(word.signer, word.signer)} says)"
        rows.append(("" if number else "level", said))
    return [
        "",
        start,
        *(f"{bad('warning')}: {one_line(shorten(text))}" for text in verified.warnings),
        *(f"  {label:<11}{one_line(shorten(text, MAX_PART))}" for label, text in rows),
    ]


def _ancestor_texts(verified: Verified, keys: Mapping[str, str]) -> list[str]:
    """Say what the model was made from, and whose word that is, back to where it began."""
    texts = []
    for each in verified.ancestors:
        text = f"{each.name} sha256 {each.root_digest[:16]}…"
        text += f", {each.part} in its model" * bool(each.part)
        if each.signer:
            text += f", {each.level} (as {keys.get(each.signer, each.signer)} says)"
        texts.append(f"{text}: {each.problem}" if each.problem else text)
    if texts and verified.ancestors[-1].signer:
        texts[-1] += "; that began with no base model"
    return cut(texts[:-1], SHOWN, "more between") + texts[-1:]


def recipe_rows(statement: TrainingStatement) -> list[tuple[str, str]]:
    """Return labels and texts of the recipe, not yet safe to print, and what is unknown of it."""
    recipe = statement.recipe
    rows = [("command", shlex.join(recipe.command))] if recipe.command else []
    code = code_texts(statement)
    rows += [("" if number else "code", text) for number, text in enumerate(code)]
    rows += [("config", input_text(item)) for item in recipe.config]
    for item in recipe.data:
        rows += [("data", input_text(item)), *(("", text) for text in _about_texts(item))]
    if recipe.base_model is not None:
        rows.append(("base model", input_text(recipe.base_model)))
    if recipe.seeds:
        rows.append(("seeds", seeds_text(recipe.seeds)))
    rows += [("" if n else "weights", text) for n, text in enumerate(weights_texts(statement))]
    software = _software_texts(statement)
    return rows + [("" if number else "software", text) for number, text in enumerate(software)]


def seeds_text(seeds: Mapping[str, str]) -> str:
    """Say which *seeds*: of many, or long ones as a program may tell them, the beginning."""
    texts = (shorten(f"{name}={value}", MAX_SEED) for name, value in sorted(seeds.items()))
    return ", ".join(cut([*texts], MAX_SEEDS))


def _unread_code(statement: TrainingStatement) -> str:
    """Say why the code is not known as a whole; "" if it is, or if nothing is said about that."""
    said = statement.build.internal_parameters.collectors.get("source")
    if said is None or said.status == "ok":
        return ""
    if said.status == "absent":
        return "no repository"
    part = "a part of it" if statement.recipe.source and statement.recipe.source.tree else "it"
    return f"{part} could not be read: {said.reason or said.status}"


def code_texts(statement: TrainingStatement) -> list[str]:
    """Say what is known of the code, each fact in a text that is not yet safe to print."""
    source = statement.recipe.source or Source()
    texts = []
    if source.tree:
        texts.append(f"git tree {source.tree}{', with uncommitted changes' * source.dirty}")
    if source.commit:
        texts.append(f"{'on ' if source.dirty else ''}commit {source.commit}")
    if source.uri:
        texts.append(f"from {source.uri}")
    if source.folder:
        texts.append(f"in the folder {source.folder}")
    if unread := _unread_code(statement):
        texts.append(unread)
    files = [f"{file.name} sha256 {file.sha256[:16]}…" for file in source.files]
    texts += cut(files, SHOWN, "more that the command names")
    if source.read:
        names = some_of([file.name for file in source.read])
        texts.append(f"{count(len(source.read), 'untracked file')} read: {names}")
    untracked = statement.build.internal_parameters.collectors.get("untracked")
    number = untracked.values.get("count") if untracked else None
    if isinstance(number, int) and number:
        texts.append(f"{count(number, 'untracked file')} beside it, read or not")
    return texts


def _software_texts(statement: TrainingStatement) -> list[str]:
    """Say what is not known of the interpreter and its packages, or only by the program's word."""
    collectors = statement.build.internal_parameters.collectors
    found: dict[str, list[str]] = {}
    for name in ("interpreter", "packages"):
        said = collectors.get(name)
        if said is not None and said.status != "ok":
            found.setdefault(f"not known: {said.reason or said.status}", []).append(name)
        elif said is not None and "saidBy" in said.values:
            found.setdefault(f"as {said.values['saidBy']} said", []).append(name)
    return [f"{' and '.join(names)} {text}" for text, names in found.items()]


def input_text(item: Input) -> str:
    """Say what went in, in a text that is not yet safe to print."""
    role = f"{item.role}: " if item.role not in ("", item.name) else ""
    what = f"{count(item.files, 'file')}, {count(item.size, 'byte')}"
    return f"{role}{item.name}  {what}  sha256 {item.digest['sha256'][:16]}…"


def _about_texts(item: Input) -> list[str]:
    """Say what is said of data, each fact in a text that is not yet safe to print."""
    if (about := item.about) is None:
        return []
    texts = [about.title, about.version, about.license, about.availability, about.source]
    said = [", ".join(filter(None, texts)), *about.notices]
    if numbers := about.files:
        files = (f"{numbers[key]:,} {text}" for key, text in _LISTED.items() if numbers.get(key))
        said.append(f"files of its Croissant file: {', '.join(files) or 'none'}")
    return [text for text in said if text]


def weights_texts(statement: TrainingStatement) -> list[str]:
    """Say of each file of weights what its tensors are, if they are listed, and those of another.

    The texts are not yet safe to print.
    """
    named = (each for each in statement.run.byproducts if each.name == "tensors")
    said = next((each.annotations.get("files") for each in named), None)
    texts = []
    for each in said if isinstance(said, list) else ():
        it = {key: cell(value) for key, value in each.items()} if isinstance(each, dict) else {}
        text = f"{it.get('file', '')}: {it.get('problem') or it.get('types', 'no tensors')}"
        if "from" in it:
            counts = (f"{it[key]} {words}" for key, words in _FORMS.items() if key in it)
            text += f"; {it.get('conversion', 'tensors')} of {it['from']}: {', '.join(counts)}"
        texts.append(text)
    return cut(texts, MAX_ROWS, "more files of weights")


def verified_document(verified: Verified) -> dict[str, Any]:
    """Return *verified* for programs."""
    claim = verified.claim
    return {
        "verified": True,
        "model": str(verified.root),
        "name": verified.name,
        "rootDigest": {"sha256": verified.manifest.root_digest},
        "keyId": claim.opened.key.key_id if claim else None,
        "levels": verified.levels,
        "recipe": claim.training.recipe if claim else None,
        "environment": claim.training.build.internal_parameters if claim else None,
        "run": claim.training.run if claim else None,
        "ancestors": verified.ancestors,
        "equality": verified.declaration.name if verified.declaration else None,
        "logIndex": verified.log_index,
        "notCovered": verified.not_covered,
        "warnings": verified.warnings,
        "keyChanges": verified.key_changes,
        "policy": verified.answers,
        "steps": verified.steps,
    }
