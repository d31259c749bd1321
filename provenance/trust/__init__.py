"""Trust: from bytes and the keys that somebody trusts to a decision.

- ``verification``: the numbered steps of verification.
"""
