"""What weakens a claim and can be mended before the run, while that is cheap.

Every remark is one line: what is so, and the way out. Each but the default equality is a *cause*
for ``--strict`` to refuse the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from provenance.capture.draft import Before
from provenance.capture.python.packages import NOT_NAMED, NOT_STARTED
from provenance.capture.secrecy.redact import redact_text
from provenance.capture.secrecy.secrets import is_secret_file
from provenance.errors import SHOWN, SecretError, count, some_of
from provenance.files.pointers import FETCH, unfetched
from provenance.keys import refuse_private_keys

MAX_SEARCHED = 10_000
"""Most untracked files that are searched for a private key (half a second)."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One remark; ``is_cause`` tells whether a strict recorder refuses for it."""

    text: str
    way_out: str
    is_cause: bool = True

    def __str__(self) -> str:
        return f"{self.text} ({self.way_out})"


def remarks(before: Before, *, by_default: bool, key: Path | None) -> tuple[Remark, ...]:
    """Return what is to be said about *before*.

    *by_default* tells that nobody chose the equality; *key* is the file of the signing key.
    """
    found = []
    if by_default and before.inputs.equality is not None:
        text = f"the equality is '{before.inputs.equality.name}', by default"
        found.append(Remark(text, "--equality NAME|FILE", is_cause=False))
    if not before.inputs.data:
        found.append(Remark("no data is named, so the recipe is incomplete", "--data ROLE=PATH"))
    found += [*_about_inputs(before), *_about_code(before), *_about_keys(before, key)]
    return (*found, *_about_software(before)) if before.command else tuple(found)


def _about_inputs(before: Before) -> Iterator[Remark]:
    for each in before.hashed:
        if (text := unfetched(each.root, each.manifest.entries)) is not None:
            yield Remark(f"{each.place.key}: {text}", FETCH)
        if before.command and each.place.path.is_relative_to(os.path.realpath(before.model)):
            what = f"{each.place.key} lies in the model's folder, where the run may remove it"
            yield Remark(f"{what}: 'verify' refuses such a claim", "copy it elsewhere first")
        if each.croissant and len(each.manifest.entries) == 1 and not each.croissant.absent:
            what = f"{each.place.key}: its Croissant file lists no file: nothing else is hashed"
            yield Remark(what, "name the data themselves")
        if each.croissant and each.croissant.absent:
            first, more = each.croissant.absent[:SHOWN], len(each.croissant.absent[SHOWN:])
            names = some_of([redact_text(name) for name in first], more)
            what = f"{each.place.key}: not beside its Croissant file: {names}"
            yield Remark(what, "fetch it before, so that it is hashed")
        elif number := each.described.about and each.described.about.files.get("unchecked"):
            what = f"{each.place.key}: its Croissant file has no SHA-256 of {count(number, 'file')}"
            yield Remark(what, "hashed, not checked", is_cause=False)


def _about_code(before: Before) -> Iterator[Remark]:
    observed = before.source
    counted = (repository for repository in observed.repositories if repository.count)
    if changed := [repo.prefix + name for repo in counted for name in repo.changed]:
        yield Remark(f"not committed: {some_of(changed)}", "commit it, so that others get it")
    reason = observed.collected.reason
    if observed.collected.status == "absent":
        files = observed.source.files if observed.source else ()
        known = f"only {some_of([file.name for file in files])}" if files else "none"
        yield Remark(f"the code is {reason}: {known} is recorded", "'git init' and commit it")
    elif observed.collected.status != "ok":
        way_out = observed.hint or "see 'git status' there"
        yield Remark(f"the code is not seen as a whole: {reason}", way_out)


def _about_keys(before: Before, key: Path | None) -> Iterator[Remark]:
    roots = [repository.root for repository in before.source.repositories]
    if not roots:
        return
    if key is not None and any(before.inputs.located(key).is_relative_to(root) for root in roots):
        yield Remark(f"the private key {key} is inside the repository", "move it out")
        return
    try:
        # Those whose name says so come first, then the small ones: they were hashed.
        untracked = before.source.untracked
        names = sorted(untracked, key=lambda name: (not is_secret_file(name), not untracked[name]))
        refuse_private_keys(roots[0], names[:MAX_SEARCHED])
    except SecretError as error:
        yield Remark(f"inside the repository, {error.where} {error.what}", "move it out")


def _about_software(before: Before) -> Iterator[Remark]:
    interpreter, packages = before.software.interpreter, before.software.packages
    reasons = {item.reason: None for item in (interpreter, packages) if item.status != "ok"}
    for reason in reasons:
        if reason not in (NOT_STARTED, NOT_NAMED):
            what = "interpreter and packages" if interpreter.status != "ok" else "packages"
            yield Remark(f"{what} not seen: {reason}", "start Python directly")
    if set("EIS") & set(before.software.options):
        how = f"Python is started with {before.software.options}"
        yield Remark(f"neither packages nor reads will be seen: {how}", "leave that out")
