"""The verbs: each one function with one frozen result (``docs/api.md``).

- ``signing``: keygen, sign, publish.
- ``making``: record, attest. ``finishing``: finish, and the end of both;
  ``weaknesses``: what the signer is told then.
- ``recording``: recording, of a program from inside it.
- ``repeating``: rebuild.
- ``checking``: verify, compare, agree.
- ``declaring``: what ``equality check``, ``suggest`` and ``calibrate`` do.
- ``arguments``: paths may be texts; keys are files or loaded; equalities are built-in names, files
  or declarations; a log's key is its text, a file, or a ``VerifierKey``.

What is refused or fails raises a :class:`~provenance.errors.ProvenanceError`. Nothing is printed.
"""
