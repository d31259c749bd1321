"""What loaders open and obey in a model's folder: a table made from their own code.

- ``keys``: paths of values inside a file, and the patterns that select them.
- ``table``: the table, which is ``table.toml``, and what it answers.
"""
