"""ONNX.

- ``model``: a model and its tensors, in files beside it, too; ``graph``: what it says beside them,
  and their names.
- ``data``: a tensor's numbers; ``protobuf``: the wire format.
"""
