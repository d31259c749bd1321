"""The JSON Schema of every document, with examples: ``python -m tools.schemas --write schemas``.

- ``documents``: the documents, from their types.
- ``examples``, ``counterexamples``: valid and invalid ones.
"""
