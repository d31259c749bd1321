"""Rules about what models do, judged: outputs on probes, scores on examples, curves.

What is compared has the same names, types and shapes on both sides, or that is against the rule.
What cannot be read is missing, and leaves the rule undecided. A measure without a limit is listed
as well: it was measured for information, and decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from provenance.equality.rules import Behaviour, Curves, Metrics
from provenance.judge.behaviour_rules import judge_outputs, judge_run
from provenance.judge.curve_rules import judge_curves
from provenance.judge.metric_rules import judge_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from provenance.equality.declaration import Alternative
    from provenance.measure.findings import Judged
    from provenance.weights.model import SideBySide


def judge_evidence(
    alternative: Alternative, sides: SideBySide, probes: Path | None
) -> Iterator[Judged]:
    """Yield the judgement of each rule of *alternative* about what the models do.

    *probes* is a file that takes the place of the probes that a rule names.
    """
    for rule in alternative.all:
        if isinstance(rule, Behaviour) and rule.run is not None:
            yield judge_run(rule, rule.run, sides, probes)
        elif isinstance(rule, Behaviour):
            yield judge_outputs(rule, sides)
        elif isinstance(rule, Metrics):
            yield judge_metrics(rule, sides)
        elif isinstance(rule, Curves):
            yield judge_curves(rule, sides)
