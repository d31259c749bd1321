"""What loaders open and obey in a model's folder: a table made from their own code.

- ``choice``: which weights of a folder each loader takes, in place of others.
- ``globs``: globs of names, all matched with a name at once.
- ``keys``: paths of values inside a file, and the patterns that select them.
- ``table``: the table, which is ``table.toml``, and what it answers.
"""
