"""What a model's folder holds beside the weights.

- ``claims``: read: signed claims, the model signature, byproducts.
- ``attach``: written, under one lock: claims, signatures, and the proofs of a log.
"""
