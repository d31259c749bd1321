"""Judgement: a declaration applied to what was measured.

- ``comparators``: a declaration applied to two models.
- ``coverage``: whether it fits them; ``selection``: which rule judges what.
- ``readings``: the weights, read once; ``judgement``: rules applied to them.
- ``evidence``: rules about what a model does, judged by ``behaviour_rules``, ``metric_rules`` and
  ``curve_rules``; ``pairing`` opens their files.
- ``side_by_side``: two models compared without a declaration.
"""
