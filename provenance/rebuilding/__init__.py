"""Rebuilds: whether independent repetitions of a training agree.

- ``recipe``: whether two trainings followed the same recipe.
- ``recorded``: the metrics that a training statement recorded.
- ``agreement``: the judgement over several verified models.
- ``verdict``: the signed document that says so.
"""
