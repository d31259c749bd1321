"""What a model's folder holds beside the weights.

- ``claims``: signed claims, the model signature, byproducts.
- ``beside``: the same, read for verification.
- ``publication``: claims put into a log, each with its proof.
"""
