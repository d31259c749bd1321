"""Globs, all matched with a name at once, in time linear in the name whatever they are.

``*`` matches any characters, ``?`` one, ``[a-z]`` and ``[!a-z]`` one of a set. In globs of *paths*
these do not match ``/``, and ``**`` as a whole part matches any number of whole folders; a glob
without ``/`` is matched with the last part of the path, one with ``/`` with the whole.

Globs come from untrusted documents, and ``*a*a*a*b`` can take a regular expression exponential
time. Each place in each glob is a bit of one integer (K. Thompson, "Regular expression search
algorithm", 1968), and what follows a set of places is kept once it was met.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import accumulate
from operator import getitem, xor
from typing import Final

_Token = str | tuple[tuple[int, int], ...]
"""``*``, ``**``, or the characters of which one is consumed: those in an odd number of ranges."""

_STAR: Final = "*"
_FOLDERS: Final = "**"
_SLASH: Final = ((ord("/"), ord("/")),)
_ANY: Final = ((0, sys.maxunicode),)

_PART: Final = re.compile(r"\*+|\[(!?+)(.[^\]]*)\]|.", re.DOTALL)
_RANGE: Final = re.compile(r".-.|.", re.DOTALL)

MAX_PLACES: Final = 1024
"""Places in one automaton, after which another is begun: its tables grow with their square."""

MAX_KEPT: Final = 1024
"""Steps that an automaton keeps, beside four for each of its places; then it forgets all."""


class Globs:
    """Globs, in order; *paths*: of paths, in which ``/`` separates the parts."""

    def __init__(self, patterns: Sequence[str], *, paths: bool) -> None:
        """Prepare *patterns*; every text means something."""
        self._end = "/" if paths else ""
        self._automata: list[_Automaton] = []
        globs: dict[int, list[_Token]] = {}
        for index, pattern in enumerate(patterns):
            globs[index] = list(_path(pattern) if paths else _part(pattern))
            if index + 1 == len(patterns) or sum(map(len, globs.values())) > MAX_PLACES:
                self._automata.append(_Automaton(globs, paths=paths))
                globs = {}

    def matching(self, name: str) -> tuple[int, ...]:
        """Return which globs match *name*: their indices, in order."""
        name += self._end
        found: tuple[int, ...] = ()
        for automaton in self._automata:
            found += reduce(getitem, name, automaton.start).found
        return found


class _State(dict[str, "_State"]):
    """Places that were reached, and what follows each character, as far as it was met."""

    def __init__(self, automaton: _Automaton, bits: int, found: tuple[int, ...]) -> None:
        self._automaton, self.bits, self.found = automaton, bits, found

    def __missing__(self, letter: str) -> _State:
        return self._automaton.step(self, letter)


class _Automaton:
    def __init__(self, globs: Mapping[int, list[_Token]], *, paths: bool) -> None:
        self._paths = paths
        self._stars = self._folders = self._slashes = starts = 0
        self._ends: dict[int, int] = {}
        edges: dict[int, int] = {}
        bit = 1
        for index, tokens in globs.items():
            starts |= bit
            for token in tokens:
                self._stars |= bit if token == _STAR else 0
                self._folders |= bit if token == _FOLDERS else 0
                self._slashes |= bit if token == _SLASH else 0
                for first, last in token if isinstance(token, tuple) else ():
                    edges[first] = edges.get(first, 0) ^ bit
                    edges[last + 1] = edges.get(last + 1, 0) ^ bit
                bit <<= 1
            self._ends[bit] = index
            bit <<= 1
        self._edges = sorted(edges)
        self._consuming = [0, *accumulate(map(edges.__getitem__, self._edges), xor)]
        self._room = self._most = MAX_KEPT + 4 * bit.bit_length()
        self._states: dict[int, _State] = {}
        self.start = self._state(starts, at_folder=True)

    def step(self, state: _State, letter: str) -> _State:
        """Return what follows *state* where *letter* does, and keep it."""
        self._room -= 1
        if not self._room:
            for each in self._states.values():
                each.clear()
            self._states, self._room = {self.start.bits: self.start}, self._most
        slash = self._paths and letter == "/"
        one = self._consuming[bisect_right(self._edges, ord(letter))]
        moved = (state.bits & (self._slashes if slash else one)) << 1
        moved |= state.bits & (self._folders if slash else self._folders | self._stars)
        state[letter] = following = self._state(moved, at_folder=slash)
        return following

    def _state(self, bits: int, *, at_folder: bool) -> _State:
        """Return the state of the places *bits*, and those reached from them without a letter."""
        bits |= (bits & self._folders) << 1 if at_folder else 0
        bits |= (bits & self._stars) << 1
        if bits not in self._states:
            found = tuple(index for end, index in self._ends.items() if bits & end)
            self._states[bits] = _State(self, bits, found)
        return self._states[bits]


def _path(glob: str) -> Iterator[_Token]:
    before, alone = None, _STAR if glob == _FOLDERS else glob
    for part in glob.removeprefix("/").split("/") if "/" in glob else (_FOLDERS, alone):
        if part != _FOLDERS:
            yield from (*_part(part), _SLASH)
        elif before != _FOLDERS:
            yield _FOLDERS
        before = part


def _part(glob: str) -> Iterator[_Token]:
    for found in _PART.finditer(glob):
        if found[0][0] == "*":
            yield _STAR
        elif found[0] == "?":
            yield _ANY
        elif found[2]:
            yield (*(_ANY if found[1] else ()), *_apart(found[2]))
        else:
            yield ((ord(found[0]), ord(found[0])),)


def _apart(members: str) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a set, without what is in two of them twice."""
    free = 0
    for first, last in sorted((ord(it[0][0]), ord(it[0][-1])) for it in _RANGE.finditer(members)):
        if max(first, free) <= last:
            yield max(first, free), last
            free = last + 1
