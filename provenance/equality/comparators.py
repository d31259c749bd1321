"""A declaration, applied to two models.

1. Models whose files are all equal satisfy every equality: the strongest that held is ``bytes``.
2. Weight files that differ and that a rule selects are read, once, side by side.
3. Each alternative is judged. It covers everything: a file that no rule selects must be equal byte
   for byte, a tensor of a selected file that no rule selects bit for bit, and what several rules
   select must satisfy all. Files and tensors on one side only, other types, shapes or metadata are
   against it.
4. The strongest alternative that held concludes. Where none held: ``inconclusive`` if for one of
   them something could not be read and nothing was against it, otherwise ``mismatch``.

The digests of the files are the caller's: they are believed, and the files are only checked not to
change while they are read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol

from provenance.equality.contents import Contents, WeightFile, read_contents
from provenance.equality.declaration import Alternative, Bytes, Close, Declaration, Rule, Tensors
from provenance.equality.distances import Wanted
from provenance.equality.findings import (
    CONCLUDES,
    STRENGTHS,
    AlternativeOutcome,
    Finding,
    Outcome,
)
from provenance.equality.judgement import judge_contents
from provenance.equality.patterns import selects_file
from provenance.errors import MalformedError, UnreadableError
from provenance.tensors.opening import carries_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class FileDigest(Protocol):
    """What is known of a file's bytes."""

    @property
    def size(self) -> int:
        """Return the size in bytes."""

    @property
    def sha256(self) -> str:
        """Return the SHA-256 in lower-case hexadecimal."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model: its folder, and its files by name (parts joined by ``/``)."""

    root: Path
    files: Mapping[str, FileDigest]

    def path(self, name: str) -> Path:
        """Return where the file *name* is.

        Raises:
            MalformedError: the name leaves the folder.
            UnreadableError: the file is not there, or not of its size.
        """
        plain = PurePosixPath(name)
        if plain.is_absolute() or ".." in plain.parts or "\0" in name:
            raise MalformedError("the name leaves the model's folder", where=name)
        path = self.root / plain
        try:
            size = path.stat().st_size
        except OSError as error:
            raise UnreadableError("cannot be read", where=name) from error
        if size != self.files[name].size:
            raise UnreadableError("has another size than its manifest says", where=name)
        return path

    def weights(self, name: str) -> WeightFile:
        """Return the weight file *name*, with the SHA-256 that it must still have. See path()."""
        return WeightFile(self.path(name), self.files[name].sha256)

    def same_file(self, other: Model, name: str) -> bool:
        """Tell whether both models have the file *name*, with the same bytes."""
        mine, theirs = self.files.get(name), other.files.get(name)
        if mine is None or theirs is None:
            return False
        return (mine.size, mine.sha256) == (theirs.size, theirs.sha256)


@dataclass(frozen=True, slots=True)
class _Unread:
    """A weight file that could not be read, and why."""

    reason: str


_Read = dict[tuple[str, str | None], Contents | _Unread]
"""What was read, by the file's name and that of its initial weights."""


def compare_models(
    left: Model,
    right: Model,
    declaration: Declaration,
    *,
    on_bytes: Callable[[int], None] | None = None,
) -> Outcome:
    """Return what *declaration* says of *left* and *right*; the order of the two does not matter.

    *on_bytes* is told the bytes of each side as they are compared.

    Raises:
        MalformedError: a file's name leaves its folder.
        UnavailableError: float64 arithmetic does not work as it should.
    """
    names = sorted(left.files.keys() | right.files.keys())
    changed = [name for name in names if not left.same_file(right, name)]
    if not changed:
        return _identical(declaration, names)
    read = _read(left, right, declaration, changed, on_bytes)
    alternatives = tuple(
        _judge(alternative, left, right, changed, read) for alternative in declaration.any
    )
    held = [outcome.strength for outcome in alternatives if outcome.held]
    strongest = max(held, key=STRENGTHS.index) if held else None
    undecided = any(outcome.held is None for outcome in alternatives)
    contents = [value for value in read.values() if isinstance(value, Contents)]
    return Outcome(
        conclusion=(
            CONCLUDES[strongest] if strongest else "inconclusive" if undecided else "mismatch"
        ),
        declaration=declaration.digest,
        alternatives=alternatives,
        strongest=strongest,
        distances=tuple(
            pair.distance for value in contents for pair in value.tensors if pair.distance
        ),
        normalisers=tuple(
            dict.fromkeys(effect for value in contents for effect in value.normalisers or ())
        ),
        missing=tuple(dict.fromkeys(what for outcome in alternatives for what in outcome.missing)),
    )


def _identical(declaration: Declaration, names: list[str]) -> Outcome:
    """Return the outcome of two models whose files are all equal."""
    missing = () if names else ("neither model has a file",)
    held = True if names else None
    return Outcome(
        conclusion="match" if names else "inconclusive",
        declaration=declaration.digest,
        alternatives=tuple(
            AlternativeOutcome(
                strength=alternative.strength, held=held, findings=(), missing=missing
            )
            for alternative in declaration.any
        ),
        strongest="bytes" if names else None,
        missing=missing,
    )


def _selecting(alternative: Alternative, name: str) -> tuple[Rule, ...]:
    """Return the rules that select the file *name*.

    Initial weights measure the others, so no tolerance reaches them.
    """
    measuring = any(isinstance(rule, Close) and rule.initial == name for rule in alternative.all)
    return tuple(
        rule
        for rule in alternative.all
        if (isinstance(rule, Bytes) or not measuring)
        and (
            isinstance(rule, Bytes) or carries_tensors(name)
            if rule.files is None
            else selects_file(rule.files, name)
        )
    )


def _tensor_rules(alternative: Alternative, name: str) -> tuple[Tensors | Close, ...]:
    """Return the rules that judge the tensors of the file *name*; none if its bytes decide."""
    rules = _selecting(alternative, name)
    if any(isinstance(rule, Bytes) for rule in rules):
        return ()
    return tuple(rule for rule in rules if not isinstance(rule, Bytes))


def _read(
    left: Model,
    right: Model,
    declaration: Declaration,
    changed: list[str],
    on_bytes: Callable[[int], None] | None,
) -> _Read:
    """Read every changed file that some alternative judges by its tensors."""
    read: _Read = {}
    for name in changed:
        if name not in left.files or name not in right.files:
            continue
        rules = [
            rule for alternative in declaration.any for rule in _tensor_rules(alternative, name)
        ]
        close = [rule for rule in rules if isinstance(rule, Close)]
        named = {_usable_initial(rule, left, right) for rule in close}
        initials: list[str | None] = [*sorted(filter(None, named))]
        if rules and not initials:
            initials = [None]
        ulp = any(rule.max_ulp is not None for rule in close)
        for initial in initials:
            wanted = Wanted(norms=bool(close), ulp=ulp, on_bytes=on_bytes)
            read[name, initial] = _contents(name, (left, right), initial, wanted)
    return read


def _usable_initial(rule: Rule, left: Model, right: Model) -> str | None:
    """Return the file of initial weights that *rule* names, if both models have the same."""
    if not isinstance(rule, Close) or rule.initial is None:
        return None
    return rule.initial if left.same_file(right, rule.initial) else None


def _contents(
    name: str, models: tuple[Model, Model], initial: str | None, wanted: Wanted
) -> Contents | _Unread:
    left, right = models
    try:
        start = (initial, left.weights(initial)) if initial is not None else None
        return read_contents(name, left.weights(name), right.weights(name), wanted, start)
    except (MalformedError, UnreadableError) as error:
        return _Unread(str(error))


def _for_rule(read: _Read, name: str, initial: str | None) -> Contents | _Unread:
    """Return what was read of the file *name*, measured from *initial* where that was possible."""
    exact = read.get((name, initial))
    if exact is not None:
        return exact
    return next(contents for (file, _), contents in read.items() if file == name)


def _judge(
    alternative: Alternative, left: Model, right: Model, changed: list[str], read: _Read
) -> AlternativeOutcome:
    """Judge one alternative. Nothing is read here."""
    findings: list[Finding] = []
    missing: list[str] = []
    for name in changed:
        rules = _tensor_rules(alternative, name)
        if not rules or name not in left.files or name not in right.files:
            findings.append(_file_differs(name, left, right))
            continue
        found = [
            (rule, _for_rule(read, name, _usable_initial(rule, left, right))) for rule in rules
        ]
        unread = [contents.reason for _, contents in found if isinstance(contents, _Unread)]
        if unread:
            missing.extend(unread)
            continue
        readable = [(rule, value) for rule, value in found if isinstance(value, Contents)]
        judged = judge_contents(name, readable)
        findings.extend(judged.findings)
        missing.extend(judged.missing)
    against = any(not finding.held for finding in findings)
    return AlternativeOutcome(
        strength=alternative.strength,
        held=False if against else None if missing else True,
        findings=tuple(findings),
        missing=tuple(dict.fromkeys(missing)),
    )


def _file_differs(name: str, left: Model, right: Model) -> Finding:
    mine, theirs = left.files.get(name), right.files.get(name)
    return Finding(
        file=name,
        measure="bytes" if mine and theirs else "presence",
        held=False,
        left=mine.sha256 if mine else None,
        right=theirs.sha256 if theirs else None,
    )
