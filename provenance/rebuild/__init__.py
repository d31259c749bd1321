"""Rebuilds: whether independent repetitions of a training agree.

- :mod:`~provenance.rebuild.recipe`: whether two trainings followed the same recipe.
- :mod:`~provenance.rebuild.recorded`: the metrics that a training statement recorded.
- :mod:`~provenance.rebuild.agreement`: the judgement over several verified models.
- :mod:`~provenance.rebuild.verdict`: the signed document that says so.
"""
