"""The exceptions of a declaration, applied to what differs beside the tensors.

Of a side file that no rule judges, and of the metadata of weights, each value that differs must be
admitted by an exception (``docs/spec/equality.md`` section 8); the others are against every rule.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from typing import Final

from msgspec.structs import replace

from provenance.equality.declaration import Declaration
from provenance.equality.exceptions import Except
from provenance.errors import MalformedError, UnreadableError
from provenance.judge.selection import files_differ
from provenance.loaders.globs import Globs
from provenance.loaders.keys import Path, spelled
from provenance.loaders.table import folded
from provenance.measure.contents import Contents
from provenance.measure.findings import Excepted, Finding, Judged, differs
from provenance.measure.side_files import parse_values, side_differences
from provenance.weights.beside import MAX_LISTED, Difference, is_within, tree_differences
from provenance.weights.normalisers import Normaliser
from provenance.weights.pairs import Pair, SideBySide

MAX_TEXT: Final = 4096
"""Longest text that is admitted on either side, in characters: a path (PATH_MAX)."""

_NEVER: Final = re.compile(r"sha256 [0-9a-f]{64}|\{\"global\":")
"""What readers put for a value too long to be given, and for a name that a pickle imports."""


class Exceptions:
    """The exceptions of a declaration, applied to two models."""

    def __init__(
        self, declaration: Declaration, sides: SideBySide, *, same_base: bool = False
    ) -> None:
        """Judge pairs of *sides*; *same_base*: both claims name one base model by digest."""
        self._declared = declaration.exceptions
        self._globs = Globs([f"/{it.file}" for it in self._declared], paths=True)
        self._sides = sides
        self._same_base = same_base
        self._beside = frozenset(sides.left.files.keys() | sides.right.files.keys())
        self.of_file = cache(self._of_file)
        """Judge the files of a pair, which differ and which no rule judges."""
        self._known: dict[tuple[Pair, str | None, Path | None], list[tuple[Except, bool]]] = {}

    def _of_file(self, pair: Pair) -> Judged:
        against, about = files_differ(pair, self._sides), self._about(pair)
        if not about or (pair.weights and not pair.state) or self._holds_tensors(pair):
            return Judged(against)
        for declared, reached in self._selecting(pair, None, None):
            if reached and (pair.both or declared.optional):
                sides = (against[0].left, against[0].right)
                return Judged((), excepted=(_excepted(declared, pair.name, None, sides),))
        if pair.both is None or not any(each.keys for each in about):
            return Judged(against)
        try:
            return self._each(pair, side_differences(pair, self._sides), "value")
        except (MalformedError, UnreadableError):
            return Judged(tuple(replace(each, note="not-read") for each in against))

    def _holds_tensors(self, pair: Pair) -> bool:
        """Tell whether weights, though they are equal, may keep tensors in the files of *pair*."""
        files = {folded(name) for name in pair.files}
        named = (side.named for side in (self._sides.left, self._sides.right))
        return any(names is None or not names.isdisjoint(files) for names in named)

    def of_metadata(self, pair: Pair, contents: Contents) -> Judged:
        """Judge what the weights *pair* state beside their tensors."""
        return self._each(pair, contents.metadata, "metadata") if contents.metadata else Judged(())

    def _about(self, pair: Pair) -> list[Except]:
        names = pair.unit_names
        some = [self._declared[index] for index in self._globs.matching(names[0])]
        return [it for it in some if all(map(it.selects_file, names))]

    def _each(self, pair: Pair, differences: Iterable[Difference], measure: str) -> Judged:
        """Judge *differences*; *measure* is what findings about them are called."""
        excepted: dict[tuple[str | None, ...], Excepted] = {}
        findings: dict[str, Finding] = {}
        about = self._about(pair)
        members = {each.member for each in about}
        whole = {each.member for each in about if each.keys is None}
        for member, difference in by_key(members, whole, differences):
            if max(len(findings), len(excepted)) > MAX_LISTED:
                break  # it is against the rule already
            for each in self._one(pair, member, measure, difference):
                if isinstance(each, Finding):
                    findings.setdefault(each.measure, each)
                    continue
                place = (each.member, each.key, each.reason)
                first = excepted.setdefault(place, each)
                if first is not each:
                    excepted[place] = replace(first, places=first.places + 1)
        if len(excepted) > MAX_LISTED:
            many = Finding(file=pair.name, measure="bytes", held=False, note="too-many")
            return Judged((*findings.values(), many)[:MAX_LISTED])
        if not (findings or excepted):
            return Judged((), normalisers=(Normaliser.SPELLING.had_effect_on(pair.name),))
        listed = tuple(findings.values())[:MAX_LISTED]
        return Judged(listed, excepted=tuple(excepted.values()))

    def _one(
        self, pair: Pair, member: str | None, measure: str, found: Difference
    ) -> Iterator[Excepted | Finding]:
        """Yield what is to be said of one difference, or of each place of a list."""
        unknown = member is None and found.path is None
        selecting = [] if unknown else self._selecting(pair, member, found.path)
        admitting = (
            each
            for each, reached in selecting
            if reached and fits(each, found, same_base=self._same_base)
        )
        declared = next(admitting, None)
        if declared is not None:
            yield _excepted(declared, pair.name, found.path, found.shown)
        elif found.inside:
            for each in found.inside:
                yield from self._one(pair, member, measure, each)
        else:
            base = any(each.as_ == "base-model" for each, _ in selecting)
            note = "other-base" if base and not self._same_base else None
            what = measure if member is None else f"{measure}: {member}"
            yield differs(pair.name, what, found, note)

    def _selecting(
        self, pair: Pair, member: str | None, path: Path | None
    ) -> list[tuple[Except, bool]]:
        """Return the exceptions that select *path*, and whether each may reach it.

        It is asked once for all places of a list, which patterns do not tell apart.
        """
        at = None if path is None else tuple(0 if isinstance(it, int) else it for it in path)
        if (pair, member, at) not in self._known:
            self._known[pair, member, at] = [
                (it, all(it.reaches(name, at, self._beside) for name in names))
                for names in [pair.unit_names]
                for it in self._about(pair)
                if it.member == member and it.selects(at)
            ]
        return self._known[pair, member, at]


def fits(each: Except, found: Difference, *, same_base: bool) -> bool:
    """Tell whether *each*, which selects the difference *found*, admits a change of this kind."""
    one, other = found.left, found.right
    if one is None or other is None:
        kept = each.optional and each.as_ is None
    elif each.as_ == "set" or found.inside:
        return each.as_ == "set" and bool(found.inside)
    elif each.as_ == "base-model" and not same_base:
        return False
    else:
        kept = found.path is None or one.kind == other.kind
        kept &= each.tolerance is None or is_within(one, other, each.tolerance)
    texts = [it.text for it in (one, other) if it is not None and found.path is not None]
    return kept and not any(len(text) > MAX_TEXT or _NEVER.search(text) for text in texts)


def by_key(
    members: Collection[str | None],
    whole: Collection[str | None],
    differences: Iterable[Difference],
) -> Iterator[tuple[str | None, Difference]]:
    """Yield *differences*, key by key those of *members* of the archive, each with its member.

    Those of the *whole* members are one, at no path.
    """
    for found in differences:
        if found.key in whole:
            yield found.key, Difference("", None, found.left, found.right)
        elif found.key not in members or found.left is None or found.right is None:
            yield None, found
        else:
            try:
                trees = [
                    parse_values(found.key, it.text.encode()) for it in (found.left, found.right)
                ]
            except MalformedError:
                yield None, found
                continue
            yield from ((found.key, each) for each in tree_differences(*trees))


def _excepted(
    each: Except, file: str, path: Path | None, sides: tuple[str | None, str | None]
) -> Excepted:
    left, right = sides
    return Excepted(
        file=file,
        member=each.member,
        key=None if path is None else spelled(path),
        left=left,
        right=right,
        reason=each.reason,
        set=each.set,
        unsafe=each.unsafe,
    )
