"""What weakens a claim and can be mended before the run, while that is cheap.

Every remark is one line: what is so, and the way out. Each but the default equality is a *cause*
for ``--strict`` to refuse the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from provenance.capture.packages import NOT_NAMED, NOT_STARTED
from provenance.errors import SecretError
from provenance.keys import refuse_private_keys

if TYPE_CHECKING:
    from provenance.capture.draft import Before


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
    found = [
        *_about_equality(before, by_default=by_default),
        *_about_data(before),
        *_about_code(before),
        *_about_key(before, key),
    ]
    return (*found, *_about_software(before)) if before.command else tuple(found)


def _about_equality(before: Before, *, by_default: bool) -> Iterator[Remark]:
    if by_default and before.inputs.equality is not None:
        text = f"the equality is '{before.inputs.equality.name}', by default"
        yield Remark(text, "--equality NAME|FILE", is_cause=False)


def _about_data(before: Before) -> Iterator[Remark]:
    if not before.inputs.data:
        yield Remark("no data is named, so the recipe is incomplete", "--data ROLE=PATH")


def _about_code(before: Before) -> Iterator[Remark]:
    source, collected = before.source.source, before.source.collected
    if collected.status == "ok":
        if source is not None and source.dirty:
            yield Remark("the code has changes that are not committed", "commit them")
        return
    named = ", ".join(file.name for file in source.files) if source else ""
    known = f"only {named} is recorded" if named else "none is recorded"
    if collected.status == "absent":
        yield Remark(f"the code is in no git repository; {known}", "'git init' and commit it")
    else:
        yield Remark(f"the repository was not read: {collected.reason}", known)


def _about_key(before: Before, key: Path | None) -> Iterator[Remark]:
    source, top = before.source.source, before.inputs.located(Path())
    if source is None or not source.tree:
        return
    for _ in Path(source.folder).parts:
        top = top.parent
    if key is not None and before.inputs.located(key).is_relative_to(top):
        yield Remark(f"the private key {key} is inside the repository", "move it out")
        return
    try:
        refuse_private_keys(before.source.repositories[0].root, before.source.untracked)
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
