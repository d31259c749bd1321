"""Strict readers of weight files, behind one view.

- :mod:`~provenance.tensors.view`: what every reader offers, and the refusals that all share.
- :mod:`~provenance.tensors.dtypes`: the element types and the values that their bits spell.
- :mod:`~provenance.tensors.opening`: from a path to a reader, by its name
  (:mod:`~provenance.tensors.names`);
  :mod:`~provenance.tensors.source`: the bytes of one file, by position.
- :mod:`~provenance.tensors.safetensors`, :mod:`~provenance.tensors.npy`,
  :mod:`~provenance.tensors.npz`: one format each;
  :mod:`~provenance.tensors.zip_archive`: the archive that an npz is;
  :mod:`~provenance.tensors.zip_records`: its records.
- :mod:`~provenance.tensors.torch_zip`: checkpoints of torch;
  :mod:`~provenance.tensors.pickle_program`: their pickle, read and never run;
  :mod:`~provenance.tensors.torch_values`: what it describes;
  :mod:`~provenance.tensors.torch_plain`: its plain values as texts;
  :mod:`~provenance.tensors.torch_tensors`: a tensor as torch describes it;
  :mod:`~provenance.tensors.strided`: views of a storage, in C order.
- :mod:`~provenance.tensors.gguf`: GGUF; :mod:`~provenance.tensors.gguf_values`: its keys and
  values; :mod:`~provenance.tensors.ggml_types`: its element types.
- :mod:`~provenance.tensors.onnx_model`: ONNX; :mod:`~provenance.tensors.onnx_graph`: what a model
  says and the names of its tensors; :mod:`~provenance.tensors.onnx_data`: a tensor's numbers;
  :mod:`~provenance.tensors.onnx_external`: the files beside a model;
  :mod:`~provenance.tensors.protobuf`: the wire format.
- :mod:`~provenance.tensors.hdf5`: HDF5; :mod:`~provenance.tensors.hdf5_probe`: the program that
  finds its datasets; :mod:`~provenance.tensors.hdf5_storage`: a dataset's bytes;
  :mod:`~provenance.tensors.keras_archive`: HDF5 in the archive that Keras writes;
  :mod:`~provenance.tensors.isolated`: a library in a process of its own, which
  :mod:`~provenance.tensors.isolated_start` starts.
- :mod:`~provenance.tensors.sharded`: an index and its shards as one file;
  :mod:`~provenance.tensors.shard_pool`: which of them are open;
  :mod:`~provenance.tensors.weight_sets`: the files of a model's folder, grouped so.
- :mod:`~provenance.tensors.arrays`: arrays in memory behind the same view.
- :mod:`~provenance.tensors.canonical`: the canonical digest of a tensor.

Nothing is ever unpickled or executed, and no tensor is held in memory whole (one exception, with
its limit, in :mod:`~provenance.tensors.npy`). This package needs numpy: import it where a command
needs it.
"""
