"""Two models of a few tensors, judged in both orders by one rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from provenance.equality.declaration import parse
from tests.judge.models import compare_models, write
from tests.weights.writing import entry, safetensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from provenance.measure.findings import Finding, Outcome

    Array = np.ndarray[Any, Any]

NAMES = {
    np.dtype(np.uint8): "U8",
    np.dtype(np.int64): "I64",
    np.dtype(np.uint64): "U64",
    np.dtype(np.float16): "F16",
    np.dtype(np.float32): "F32",
    np.dtype(np.float64): "F64",
    np.dtype(np.complex64): "C64",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(ml_dtypes.float8_e4m3fn): "F8_E4M3",
    np.dtype(ml_dtypes.float8_e5m2): "F8_E5M2",
}

TENSORS = 'equality = "tensors"'


def close(limit: float = 1e-3, *more: str, linf: float | None = None) -> str:
    """Return a rule with *limit* for L2 and, unless *linf* is given, for L-infinity."""
    lines = (
        'equality = "close"',
        'relative_to = "weights"',
        f"relative_l2 = {limit}",
        f"relative_linf = {limit if linf is None else linf}",
        'reason = "a trap"',
    )
    return "\n".join((*lines, *more))


def rounded(to: str, *more: str) -> str:
    return "\n".join(('equality = "rounded"', f'to = "{to}"', 'reason = "a trap"', *more))


def declaration(*rules: str) -> bytes:
    """Return the declaration whose one alternative has *rules*."""
    head = 'format = 1\nname = "trap"\nversion = 1\n[[any]]\n'
    return (head + "".join(f"[[any.all]]\n{rule}\n" for rule in rules)).encode()


@dataclass(frozen=True)
class Answer:
    """What was concluded, and why."""

    conclusion: str
    reasons: frozenset[str]
    """Of what was against it: the tensor, the measure, and the note where there is one."""
    findings: tuple[Finding, ...]
    outcome: Outcome

    @property
    def value(self) -> float:
        """The largest value that was against it."""
        return max(f.value for f in self.findings if not f.held and f.value is not None)


def model(tensors: Mapping[str, Array], padding: int = 0) -> bytes:
    """Return a safetensors file of *tensors*, whose header *padding* spaces follow."""
    header, data = {}, b""
    for name, array in tensors.items():
        raw = array.tobytes()
        end = len(data) + len(raw)
        header[name] = entry(NAMES[array.dtype], list(array.shape), len(data), end)
        data += raw
    return safetensors(header, data, padding=padding)


class Judge:
    """Judges two models in both orders, which must make no difference."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0

    def __call__(self, left: Mapping[str, Array], right: Mapping[str, Array], rule: str) -> Answer:
        """Judge two files of tensors. The padding makes their bytes differ, so they are read."""
        return self.files(model(left), model(right, padding=8), rule)

    def files(
        self, left: bytes, right: bytes, rule: str, name: str = "model.safetensors"
    ) -> Answer:
        self._number += 1
        one, two = (
            write(self._folder / f"{self._number}-{side}", {name: data})
            for side, data in (("left", left), ("right", right))
        )
        declared = parse(declaration(rule))
        forth, back = compare_models(one, two, declared), compare_models(two, one, declared)
        assert forth.conclusion == back.conclusion
        assert _reasons(forth) == _reasons(back)
        return Answer(forth.conclusion, _reasons(forth), forth.alternatives[0].findings, forth)


def _reasons(outcome: Outcome) -> frozenset[str]:
    return frozenset(
        " ".join(filter(None, (finding.tensor, finding.measure, finding.note)))
        for finding in outcome.alternatives[0].findings
        if not finding.held
    )


def one(values: object, dtype: npt.DTypeLike = np.float32) -> dict[str, Array]:
    """Return a model of the one tensor ``w``."""
    return {"w": np.array(values, dtype=dtype)}


def bits(codes: list[int], width: str, dtype: npt.DTypeLike) -> dict[str, Array]:
    return {"w": np.array(codes, dtype=width).view(dtype)}
