"""The weights of two models, measured: each pair once for each file of initial weights.

What to measure is decided first (:func:`wanted_by`), so that every rule, and the view without a
declaration, uses the same reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from provenance.equality.rules import Close, Rounded
from provenance.errors import MalformedError, UnreadableError
from provenance.measure.contents import Contents, read_contents
from provenance.measure.distances import Wanted
from provenance.weights.normalisers import Normaliser

if TYPE_CHECKING:
    from provenance.equality.declaration import Declaration
    from provenance.weights.model import Pair, SideBySide, Unit


def wanted_by(
    declaration: Declaration | None,
    *,
    view: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> Wanted:
    """Return what must be measured to judge by *declaration* and, with *view*, to show the models.

    *on_bytes* is called with the numbers of bytes compared.
    """
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

    def __init__(self, sides: SideBySide, wanted: Wanted) -> None:
        """Measure what is *wanted* whenever a pair of *sides* is read."""
        self.sides = sides
        self._wanted = wanted
        self._read: dict[tuple[Pair, str | None], Contents | str] = {}

    def of(self, pair: Pair, initial: str | None) -> Contents | str:
        """Return what *pair* holds, measured from *initial* weights, or why it cannot be read.

        Without *initial*, or where the models do not have the same one, any reading is returned:
        only the updates depend on it.
        """
        start = self.sides.unit(initial) if initial is not None else None
        if start is None:
            initial = next((at for read, at in self._read if read == pair), None)
        if (pair, initial) not in self._read:
            self._read[pair, initial] = self._contents(pair, initial, start)
        return self._read[pair, initial]

    def all(self) -> list[Contents]:
        """Return every pair that could be read, in the order in which they were."""
        return [value for value in self._read.values() if isinstance(value, Contents)]

    def same(self) -> bool | None:
        """Tell whether all weights are equal bit for bit; None: some were not read, or are none."""
        found = [self._same(pair) for pair in self.sides.pairs if pair.weights and not pair.state]
        unknown = not found or (None in found and False not in found)
        return None if unknown else all(found)

    def _same(self, pair: Pair) -> bool | None:
        if pair.both is None or pair.same or pair.renamed:
            return pair.both is not None
        for (read, _), contents in self._read.items():
            if read == pair and isinstance(contents, Contents) and not contents.doubts:
                return all(each.differing == 0 for each in contents.tensors)
        return None

    def _contents(self, pair: Pair, initial: str | None, start: Unit | None) -> Contents | str:
        try:
            tied = self.sides.tied(pair)
            with self.sides.opened(pair) as files:
                if start is None or initial is None:
                    contents = read_contents(pair.name, files, self._wanted, tied=tied)
                else:
                    with self.sides.left.open(start, initial) as file:
                        begun = (initial, file)
                        contents = read_contents(pair.name, files, self._wanted, begun, tied=tied)
                        file.check_unchanged()
        except (MalformedError, UnreadableError) as error:
            return str(error)
        # Equal bytes under two names need no other explanation.
        normalisers = () if pair.renamed else contents.normalisers
        if pair.both is None or pair.both[0].name == pair.both[1].name or normalisers is None:
            return contents
        renamed = Normaliser.WEIGHT_FILE_NAME.had_effect_on(pair.name)
        return replace(contents, normalisers=(*normalisers, renamed))
