"""Judgement: a declaration applied to what was measured.

- ``comparators``: a declaration applied to two models.
- ``coverage``: whether it fits them; ``selection``: which rule judges what.
- ``measured``: the weights, each pair measured once; ``tensors``: the rules applied to them.
- ``exceptions``: what may differ beside the tensors.
- ``evidence``: the rules about what a model does: outputs, scores, curves.
- ``suggestion``: a declaration proposed from two models; ``calibration``: one with limits.
- ``side_by_side``: two models compared without a declaration.
"""
