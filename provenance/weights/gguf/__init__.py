"""GGUF.

- ``reader``: a file, its keys and values, and its tensors; ``types``: its element types.
"""
