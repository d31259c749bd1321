"""Trust: from bytes and the keys that somebody trusts to a decision.

- ``opening``: the statements that a trusted key signed.
- ``contents``: whether these are the files.
- ``outcome``: what a claim says of its run, and its evidence level.
- ``lineage``: the claims about what a model was made from.
- ``verification``: the numbered steps of verification.
- ``checkpoints``: whether a folder is a checkpoint of the run.
- ``policy``: who is trusted to say what, and ``decision``, whether that suffices.
- ``layout``: those of an in-toto layout, and ``layout_child``, where in-toto checks it.
"""
