"""The weights of two models, measured: each pair once for each file of initial weights.

What to measure is decided first, so that every rule, and the view without a declaration, uses the
same reading; that tells, too, whether files that keep tensors as they are have equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import PurePosixPath
from typing import Final

from provenance.equality.declaration import Alternative, Declaration
from provenance.equality.rules import Close, Rounded
from provenance.errors import MalformedError, UnreadableError
from provenance.judge.selection import Judges, judges_of
from provenance.measure.contents import Beside, Contents, read_contents
from provenance.measure.distances import Wanted
from provenance.measure.pieces import Digests
from provenance.measure.rounding import is_rounding
from provenance.weights.dtypes import DTYPES, DType
from provenance.weights.model import Model, Unit
from provenance.weights.normalisers import Normaliser
from provenance.weights.pairs import Pair, SideBySide
from provenance.weights.view import TensorFile, same_beside

_Pairs = list[tuple["MeasuredWeights", Pair]]
_Group = tuple[tuple[str | None, Unit | None], _Pairs]
"""Initial weights, by name, and the pairs of which the files are read together."""

MAX_FORMS: Final = 16
"""Most files of weights among which the narrower form is looked for where no rule names it."""

_PLACED: Final = frozenset({".safetensors", ".gguf", ".npy"})
"""Suffixes of the formats in which tensors lie as they are: one reading shows all."""


def _wanted(
    declaration: Declaration | None, *, view: bool, on_bytes: Callable[[int], None] | None
) -> Wanted:
    """Return what must be measured to judge by *declaration* and, with *view*, to show it."""
    rules = declaration.rules if declaration is not None else ()
    close = [rule for rule in rules if isinstance(rule, Close)]
    return Wanted(
        norms=view or bool(close),
        ulp=view or any(rule.max_ulp is not None for rule in close),
        rounded=tuple((rule.to, rule.tensors) for rule in rules if isinstance(rule, Rounded)),
        on_bytes=on_bytes,
    )


class MeasuredWeights:
    """The weights of *sides*, each pair measured when it is first asked for."""

    def __init__(
        self,
        sides: SideBySide,
        declaration: Declaration | None,
        *,
        view: bool = False,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """Measure what *declaration* needs and, with *view*, what is shown of *sides*.

        *on_bytes* is called with the numbers of bytes compared.
        """
        self.sides = sides
        self.wanted = _wanted(declaration, view=view, on_bytes=on_bytes)
        self._alternatives = declaration.any if declaration is not None else ()
        self.judges: Callable[[Alternative, Pair], Judges] = cache(partial(judges_of, sides))
        """Tell what judges a pair under an alternative."""
        self._read: dict[Pair, dict[str | None, Contents | str]] = {}

    @cached_property
    def changed(self) -> tuple[Pair, ...]:
        """The pairs whose files are not all equal."""
        return tuple(pair for pair in self.sides.pairs if not self.same_files(pair))

    def same_files(self, pair: Pair) -> bool:
        """Tell whether both units of *pair* have the same files, byte for byte."""
        known = self.stated or pair.both is None or pair.files_of_both in self.sides.known
        if not known and all(map(_placed, pair.both or ())):
            self.of(pair, None)
        return self.sides.same(pair)

    def of(self, pair: Pair, initial: str | None) -> Contents | str:
        """Return what *pair* holds, measured from *initial* weights, or why it cannot be read.

        Without *initial*, or where the models do not have the same one, any reading is returned:
        only the updates depend on it.
        """
        read = self._read.setdefault(pair, {})
        start = self.sides.unit(initial)
        if start is None:
            initial, start = next(((at, None) for at in read), self._planned(pair))
        if initial not in read:
            try:
                _read([(self, pair)], initial, start)
            except (MalformedError, UnreadableError) as error:
                read[initial] = str(error)
        return read[initial]

    def _planned(self, pair: Pair) -> tuple[str | None, Unit | None]:
        """Return the initial weights that a rule asks for *pair*, and both models have, if any."""
        for alternative in self._alternatives:
            named = {it.initial for it in alternative.all if isinstance(it, Close)} - {None}
            for rule in self.judges(alternative, pair).rules if named else ():
                name = rule.initial if isinstance(rule, Close) else None
                if (unit := self.sides.unit(name)) is not None:
                    return name, unit
        return None, None

    def all(self) -> list[Contents]:
        """Return every pair that could be read, in the order in which they were."""
        every = (contents for read in self._read.values() for contents in read.values())
        return [contents for contents in every if isinstance(contents, Contents)]

    def same(self) -> bool | None:
        """Tell whether all weights are equal bit for bit; None: some were not read, or are none."""
        found = [self._same(pair) for pair in self.sides.pairs if pair.weights and not pair.state]
        unknown = not found or (None in found and False not in found)
        return None if unknown else all(found)

    def shipped(self, pair: Pair, rule: Rounded, names: Sequence[str]) -> set[str]:
        """Return which tensors *names* of *pair* both models hold as *rule* rounds them, too.

        They are in a file of weights that is equal in every bit: the one that the rule names, or
        any of a few; none where a loader takes *pair* itself. It is asked when all weights are
        read.
        """
        others = [it for it in self.sides.pairs if it.weights and rule.ships in (None, *it.names)]
        found: set[str] = set()
        looked = names and len(others) <= MAX_FORMS and not self.sides.loaded(pair)
        for other in others if looked else ():
            if self._same(other):
                found |= self._rounded(pair, other, DTYPES[rule.to], names)
        return found

    def _rounded(self, pair: Pair, other: Pair, to: DType, names: Sequence[str]) -> set[str]:
        try:
            with self.sides.opened(pair) as wide, self.sides.opened(other) as narrow:
                forms = [*zip(wide, narrow, strict=True)]
                if any(file.doubts for file in narrow):
                    return set()
                return {it for it in names if all(is_rounding(it, to, *each) for each in forms)}
        except (MalformedError, UnreadableError):
            return set()

    def _same(self, pair: Pair) -> bool | None:
        if pair.both is None or self.sides.equal(pair):
            return pair.both is not None
        for contents in self._read.get(pair, {}).values():
            if isinstance(contents, Contents) and not contents.doubts:
                return all(each.differing == 0 for each in contents.tensors)
        return None

    def asked(self) -> Iterator[tuple[Pair, str | None, Unit | None]]:
        """Yield the pairs whose tensors rules ask for, and from which initial weights."""
        for pair in self.changed:
            judged_by = (self.judges(each, pair).by for each in self._alternatives)
            if pair.both is not None and "tensors" in judged_by:
                yield pair, *self._planned(pair)

    @property
    def stated(self) -> bool:
        """Whether the digests of both models are stated."""
        return None not in (self.sides.left.sha256, self.sides.right.sha256)

    def take(
        self, pair: Pair, initial: str | None, files: Sequence[TensorFile], contents: Contents
    ) -> None:
        """Take *contents* of the *files* of *pair*, measured from *initial* weights."""
        if not self.stated:
            if contents.metadata or any(each.differing != 0 for each in contents.tensors):
                self.sides.known[pair.files_of_both] = False
            elif same_beside(*files):
                self.sides.known[pair.files_of_both] = True
        if len(pair.unit_names) > 1:  # of which equal bytes need no other explanation
            normalisers = () if self.sides.equal(pair) else contents.normalisers
            if normalisers is not None:
                renamed = Normaliser.WEIGHT_FILE_NAME.had_effect_on(pair.name)
                contents = replace(contents, normalisers=(*normalisers, renamed))
        self._read.setdefault(pair, {})[initial] = contents


def read_together(every: Sequence[MeasuredWeights]) -> None:
    """Read what rules ask of *every* two models, and each file of each model once.

    The first model is the left one of the first two. What cannot be read so, such as files that are
    not laid out as those of the first, is left to be read two by two.
    """
    for (initial, start), pairs in _groups(every):
        with suppress(MalformedError, UnreadableError):
            _read(pairs, initial, start)


def _groups(every: Sequence[MeasuredWeights]) -> list[_Group]:
    """Return what is asked of *every* two models; files that are in one pair are in one group."""
    groups: list[_Group] = []
    places: dict[tuple[int, str, str | None], _Group] = {}
    for weights in every:
        for pair, initial, start in weights.asked():
            keys = [(id(model), unit.name, initial) for model, unit, _ in weights.sides.each(pair)]
            group = next((places[key] for key in keys if key in places), None)
            if group is None:
                group = (initial, start), []
                groups.append(group)
            group[1].append((weights, pair))
            places |= dict.fromkeys(keys, group)
    return groups


def _read(pairs: _Pairs, initial: str | None, start: Unit | None) -> None:
    """Read what each of *pairs* holds, measured from *initial* weights.

    Digests that are stated are confirmed by the same reading.
    """
    first, _ = pairs[0]
    opened: dict[tuple[int, str], tuple[Model, Unit, TensorFile]] = {}
    with ExitStack() as stack:

        def place(model: Model, unit: Unit, shown: str) -> int:
            if (key := (id(model), unit.name)) not in opened:
                file = stack.enter_context(model.open(unit, shown, later=_placed(unit)))
                opened[key] = model, unit, file
            return [*opened].index(key)

        beside = []
        for weights, pair in pairs:
            each = weights.sides.each(pair)
            left, right = (place(it, unit, f"{pair.name} ({side})") for it, unit, side in each)
            beside.append(Beside(pair.name, left, right, weights.sides.tied(pair)))
        files = [file for _, _, file in opened.values()]
        begun = None
        if start is not None and initial is not None:
            number = place(first.sides.left, start, initial)
            begun = initial, [*opened.values()][number][2]
        digests = Digests() if first.stated else None
        found = read_contents(beside, files, first.wanted, begun, digests)
        for model, unit, file in opened.values():
            file.check_unchanged()
            folder = PurePosixPath(unit.main).parent
            for name, sha256 in digests.of(file).items() if digests is not None else ():
                model.confirm({(folder / name).as_posix() if name else unit.main: sha256})
        for (weights, pair), at, contents in zip(pairs, beside, found, strict=True):
            if contents is not None:
                weights.take(pair, initial, (files[at.left], files[at.right]), contents)


def _placed(unit: Unit) -> bool:
    """Tell whether tensors lie in the files of *unit* as they are, by its name."""
    return PurePosixPath(unit.name).suffix.lower() in _PLACED
