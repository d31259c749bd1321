"""GGUF.

- ``reader``: a file and its tensors.
- ``values``: its keys and values; ``types``: its element types.
"""
