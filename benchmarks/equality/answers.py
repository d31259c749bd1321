"""What numpy and our own comparison answer to each trap."""

from __future__ import annotations

import json
import struct
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from provenance.equality.declaration import parse
from provenance.judge.comparators import apply
from provenance.judge.measured import MeasuredWeights
from provenance.weights.model import Model, model_of_folder
from provenance.weights.pairs import SideBySide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.equality.traps import Trap, Values

    Array = np.ndarray[Any, Any]

SAME, DIFFER, ORDER = "same", "differ", "depends on the order"

_NUMPY = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8", "U8": "u1", "I64": "<i8"}


def array(values: Values) -> Array:
    """Return *values* as an array."""
    dtype = np.dtype(_NUMPY.get(values.dtype, ml_dtypes.float8_e4m3fn))
    return np.frombuffer(values.data, dtype).reshape(values.shape)


def both_ways(test: Callable[[Any, Any], bool], left: object, right: object) -> str:
    """Return what *test* answers in both orders of its arguments."""
    found = {_answer(test, left, right), _answer(test, right, left)}
    return found.pop() if len(found) == 1 else ORDER


def _answer(test: Callable[[Any, Any], bool], left: object, right: object) -> str:
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SAME if test(left, right) else DIFFER
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        return type(error).__name__


def _holds(check: Callable[..., object], *arguments: object, **options: object) -> bool:
    """Tell whether an assertion of ``numpy.testing`` passes."""
    try:
        check(*arguments, **options)
    except AssertionError:
        return False
    return True


def numpy_answers(trap: Trap) -> dict[str, str]:
    """Return what numpy's functions answer, by name."""
    left, right = array(trap.left), array(trap.right)
    tolerances = {"rtol": trap.rtol, "atol": trap.atol}
    given = {name: value for name, value in tolerances.items() if value is not None}
    rtol, atol = given.get("rtol", 1e-5), given.get("atol", 1e-8)  # the defaults of np.allclose
    nulp = trap.max_ulp or 1
    units: dict[str, Callable[[Any, Any], bool]] = {
        "assert_…_nulp": lambda a, b: _holds(
            np.testing.assert_array_almost_equal_nulp, a, b, nulp=nulp
        ),
        "assert_…_max_ulp": lambda a, b: _holds(np.testing.assert_array_max_ulp, a, b, maxulp=nulp),
    }
    others: dict[str, Callable[[Any, Any], bool]] = {
        "np.allclose": lambda a, b: bool(np.allclose(a, b, rtol=rtol, atol=atol)),
        "assert_allclose": lambda a, b: _holds(np.testing.assert_allclose, a, b, **given),
        "not max(abs(a - b)) > t": lambda a, b: not np.abs(a - b).max() > threshold(trap),
    }
    tests = {"np.array_equal": np.array_equal} | units
    if trap.max_ulp is None:
        tests |= others
    return dict.fromkeys(others, "–") | {
        name: both_ways(test, left, right) for name, test in tests.items()
    }


def threshold(trap: Trap) -> float:
    """Return the absolute limit that the idiom is tried with."""
    return trap.limit if trap.atol is None else trap.atol


# --- Ours -----------------------------------------------------------------------------------------


def safetensors(tensors: Mapping[str, Values], padding: int = 0) -> bytes:
    """Return a safetensors file; *padding* spaces follow its header."""
    header: dict[str, Any] = {}
    data = b""
    for name, values in tensors.items():
        end = len(data) + len(values.data)
        header[name] = {
            "dtype": values.dtype,
            "shape": list(values.shape),
            "data_offsets": [len(data), end],
        }
        data += values.data
    text = json.dumps(header, separators=(",", ":")).encode() + b" " * padding
    return struct.pack("<Q", len(text)) + text + data


def close_rule(limit: float, max_ulp: int | None = None) -> str:
    """Return a rule ``close`` with *limit* for both norms, as a part of the weights."""
    rule = (
        f'equality = "close"\nrelative_to = "weights"\nrelative_l2 = {limit}\n'
        f'relative_linf = {limit}\nreason = "a trap"\n'
    )
    return rule if max_ulp is None else f"{rule}max_ulp = {max_ulp}\n"


def our_answer(left: bytes, right: bytes, rule: str, name: str = "model.safetensors") -> str:
    """Return what we answer in both orders, with the first reason."""
    text = f'format = 1\nname = "trap"\nversion = 1\n[[any]]\n[[any.all]]\n{rule}'
    declaration = parse(text.encode())
    with tempfile.TemporaryDirectory() as folder:
        one, two = (
            _model(Path(folder) / side, name, data)
            for side, data in (("left", left), ("right", right))
        )
        there, back = (
            apply(declaration, MeasuredWeights(SideBySide(*models), declaration))
            for models in ((one, two), (two, one))
        )
    found = {_judged(there), _judged(back)}
    return found.pop() if len(found) == 1 else ORDER


def _model(root: Path, name: str, data: bytes) -> Model:
    root.mkdir()
    (root / name).write_bytes(data)
    return model_of_folder(root)


def _judged(outcome: Any) -> str:  # noqa: ANN401 - an Outcome
    alternative = outcome.alternatives[0]
    if alternative.held:
        return SAME
    if alternative.held is None:
        return "inconclusive"
    reasons = [
        finding.note or f"{finding.measure} {_shown(finding)}".strip()
        for finding in alternative.findings
        if not finding.held
    ]
    return f"{DIFFER}: {reasons[0]}"


def _shown(finding: Any) -> str:  # noqa: ANN401 - a Finding
    return "" if finding.value is None else f"{finding.value:.3g}"


def our_answers(trap: Trap) -> dict[str, str]:
    """Return what the rules ``tensors`` and ``close`` answer."""
    # Padding makes the bytes of the files differ, so that the tensors are what is judged.
    left, right = safetensors({"w": trap.left}), safetensors({"w": trap.right}, padding=8)
    return {
        "`tensors`": our_answer(left, right, 'equality = "tensors"\n'),
        "`close`": our_answer(left, right, close_rule(trap.limit, trap.max_ulp)),
    }
