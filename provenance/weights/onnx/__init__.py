"""ONNX.

- ``model``: a model and its tensors; ``graph``: what it says beside them, and their names.
- ``data``: a tensor's numbers; ``external``: the files beside a model; ``protobuf``: the wire
  format.
"""
