"""Rebuilds: whether independent repetitions of a training agree.

- ``code``: whether two trainings ran the same code.
- ``recipe``: whether two trainings followed the same recipe.
- ``repetition``: what a rebuilder runs, and what could never agree.
- ``agreement``: the judgement over several verified models.
- ``verdict``: the signed document that says so.
- ``against``: those that a log shows to speak against a model.
"""
