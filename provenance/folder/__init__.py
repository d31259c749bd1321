"""What a model's folder holds beside the weights.

- ``claims``: read: signed claims, the model signature, byproducts.
- ``attach``: written, under one lock: claims, signatures, links, and the proofs of a log.
- ``link``: an in-toto link of what a claim says.
"""
