"""Rebuilds: whether independent repetitions of a training agree.

- ``code``: whether two trainings ran the same code.
- ``recipe``: whether two trainings followed the same recipe.
- ``agreement``: the judgement over several verified models.
- ``verdict``: the signed document that says so.
"""
