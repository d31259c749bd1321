"""Checkpoints of torch.

- ``archive``: the archive that ``torch.save`` writes; ``pickle_program``: its pickle, never run.
- ``values``: what the pickle describes; ``tensors``: a tensor as torch describes it;
  ``strided``: views of a storage.
- ``objects``: every value of any pickle, of what is beside the weights.
"""
