"""Two models with other weights and some evidence, judged in both orders by what they do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from provenance.encoding import strict_json
from provenance.equality.declaration import parse
from provenance.measure.findings import NOTES, Outcome
from tests.judge.models import compare_models, write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from provenance.equality.declaration import Declaration
    from provenance.measure.findings import Finding
    from tests.judge.models import Content

    Array = np.ndarray[Any, Any]
    Files = Mapping[str, Content]

WEIGHTS = "model.safetensors"
THROUGH = f"files = ['{WEIGHTS}']\n"
"""Of a rule: the weights are judged through it alone."""


def declare(*rules: str) -> Declaration:
    """Return the declaration whose one alternative has *rules*."""
    text = "format = 1\nversion = 1\nname = 'evidence'\n[[any]]\n"
    text += "".join(f"[[any.all]]\nreason = 'a test'\n{rule}\n" for rule in rules)
    return parse(text.encode())


@dataclass(frozen=True)
class Answer:
    """What was concluded, and why."""

    outcome: Outcome

    @property
    def conclusion(self) -> str:
        return self.outcome.conclusion

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.outcome.alternatives[0].findings

    @property
    def against(self) -> set[str]:
        """The tensor (or the file) of what was against it, the measure, and a note if any."""
        return {
            " ".join(filter(None, (finding.tensor or finding.file, finding.measure, finding.note)))
            for finding in self.findings
            if not finding.held
        }

    @property
    def measures(self) -> set[str]:
        """What was measured."""
        return {finding.measure for finding in self.findings} - {"reported"}

    @property
    def missing(self) -> str:
        return "\n".join(self.outcome.missing)

    def found(self, measure: str, tensor: str | None = None) -> Finding:
        """Return the one finding of *measure* (of *tensor*)."""
        (finding,) = (
            finding
            for finding in self.findings
            if finding.measure == measure and tensor in (None, finding.tensor)
        )
        return finding

    def value(self, measure: str, tensor: str | None = None) -> float:
        """Return the value of that finding, which has one."""
        value = self.found(measure, tensor).value
        assert value is not None
        return value


class Judge:
    """Judges two models in both orders, which must make no difference."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0

    def __call__(
        self,
        left: Files,
        right: Files,
        *rules: str,
        recorded: tuple[bytes | None, bytes | None] = (None, None),
        probes: Path | None = None,
    ) -> Answer:
        """Judge *left* and *right* with weights of their own added, under *rules*."""
        self._number += 1
        models = []
        for side, files in enumerate((left, right)):
            weights = np.arange(side, side + 4, dtype="<f4")
            root = self._folder / f"{self._number}-{side}"
            written = write(root, {WEIGHTS: {"w": weights}, **files})
            models.append(replace(written, recorded=recorded[side]))
        declared = declare(*rules)
        forth = compare_models(models[0], models[1], declared, probes=probes)
        back = compare_models(models[1], models[0], declared, probes=probes)
        for outcome in (forth, back):
            assert all(f.note is None or f.note in NOTES for f in _findings(outcome))
            signed = strict_json.format(msgspec.to_builtins(outcome))
            assert msgspec.convert(strict_json.parse(signed), Outcome) == outcome
        assert (forth.conclusion, forth.strongest) == (back.conclusion, back.strongest)
        assert bool(forth.missing) == bool(back.missing)
        assert _as_set(forth) == {(*rest, one, other) for *rest, other, one in _as_set(back)}
        return Answer(forth)


def _findings(outcome: Outcome) -> tuple[Finding, ...]:
    return outcome.alternatives[0].findings


def _as_set(outcome: Outcome) -> set[tuple[Any, ...]]:
    return {
        (f.file, f.tensor, f.measure, f.held, f.value, f.limit, f.place, f.note, f.left, f.right)
        for f in _findings(outcome)
    }
