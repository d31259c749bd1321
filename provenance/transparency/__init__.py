"""Transparency: proof that a signed document stands in a public, append-only log.

A log is one RFC 6962 Merkle tree. Whoever keeps a checkpoint of it can tell later whether anything
in it was changed or removed; so nobody can show different statements to different people.

- :mod:`~provenance.transparency.merkle`: the tree's hashes, roots and proofs.
- :mod:`~provenance.transparency.note`, :mod:`~provenance.transparency.checkpoint`: signed notes,
  and the log's signed size and root.
- :mod:`~provenance.transparency.tiles`: how tree and entries are cut into files.
- :mod:`~provenance.transparency.rekor`: what is logged for a signed envelope.
- :mod:`~provenance.transparency.entry`: an entry with its proof, as bundles hold it; its check.
- :mod:`~provenance.transparency.folder`, :mod:`~provenance.transparency.audit`: a log kept in a
  folder, and its audit. Of the folder, :mod:`~provenance.transparency.tile_store` holds the tiles,
  :mod:`~provenance.transparency.log_state` the writer's own files, and
  :mod:`~provenance.transparency.leaf_index` where each entry stands.

The formats are described in ``docs/spec/log.md``.
"""
