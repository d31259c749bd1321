"""Transparency: proof that a signed document is in a public, append-only log.

A log is one RFC 6962 Merkle tree. Anybody who keeps a checkpoint of it can detect later whether an
entry was changed or removed, so the log cannot show different statements to different people.

- ``merkle``: the tree's hashes, roots and proofs.
- ``note``, ``checkpoint``: signed notes, and the log's signed size and root.
- ``witness``: the cosignatures of others, and which of them suffice.
- ``tiles``: how tree and entries are cut into files, and these in a folder.
- ``rekor``: what is logged for a signed envelope.
- ``entry``: an entry with its proof, as bundles hold it; its check.
- ``log``, ``audit``: a log kept in a folder, and its audit; ``log_state``: the writer's own files.

The formats are described in ``docs/spec/log.md``.
"""
