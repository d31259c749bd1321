"""What torch answers to each trap, as JSON on standard output. Needs torch and numpy alone.

PYTHON_WITH_TORCH -m benchmarks.equality.torch_answers
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.equality.traps import TRAPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.equality.traps import Trap, Values

_TYPES = {
    "F16": torch.float16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "U8": torch.uint8, "I64": torch.int64, "F8_E4M3": torch.float8_e4m3fn,
}  # fmt: skip


def tensor(values: Values) -> torch.Tensor:
    """Return *values* as a tensor."""
    dtype = _TYPES[values.dtype]
    if not values.data:
        return torch.empty(values.shape, dtype=dtype)
    return torch.frombuffer(bytearray(values.data), dtype=dtype).reshape(values.shape)


def both_ways(test: Callable[[Any, Any], bool], left: torch.Tensor, right: torch.Tensor) -> str:
    """Return what *test* answers in both orders of its arguments."""
    found = {_answer(test, left, right), _answer(test, right, left)}
    return found.pop() if len(found) == 1 else "depends on the order"


def _answer(test: Callable[[Any, Any], bool], left: torch.Tensor, right: torch.Tensor) -> str:
    try:
        return "same" if test(left, right) else "differ"
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        return type(error).__name__


def _holds(left: torch.Tensor, right: torch.Tensor, **options: float) -> bool:
    try:
        torch.testing.assert_close(left, right, **options)
    except AssertionError:
        return False
    return True


def torch_answers(trap: Trap) -> dict[str, str]:
    """Return what torch's functions answer, by name."""
    left, right = tensor(trap.left), tensor(trap.right)
    given = {"rtol": trap.rtol, "atol": trap.atol}
    some = {name: value for name, value in given.items() if value is not None}
    # assert_close takes both tolerances or none.
    paired = {name: value or 0.0 for name, value in given.items()} if some else {}
    others: dict[str, Callable[[Any, Any], bool]] = {
        "torch.allclose": lambda a, b: bool(torch.allclose(a, b, **some)),
        "assert_close": lambda a, b: _holds(a, b, **paired),
    }
    tests = {"torch.equal": torch.equal} | (others if trap.max_ulp is None else {})
    if trap.flush and not torch.set_flush_denormal(True):
        return dict.fromkeys(tests, "not on this processor")
    try:
        return dict.fromkeys(others, "–") | {
            name: both_ways(test, left, right) for name, test in tests.items()
        }
    finally:
        torch.set_flush_denormal(False)


def main() -> None:
    """Write the answers, by the text of the trap."""
    warnings.simplefilter("ignore")
    answers = {trap.text: torch_answers(trap) for trap in TRAPS}
    json.dump({"version": torch.__version__.split("+")[0], "answers": answers}, sys.stdout)


if __name__ == "__main__":
    main()
