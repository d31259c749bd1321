"""Checkpoints of torch.

- ``archive``: the archive that ``torch.save`` writes.
- ``pickle_program``: its pickle, read and never run.
- ``values``: what the pickle describes; ``plain``: its plain values as texts; ``tensors``: a tensor
  as torch describes it.
"""
