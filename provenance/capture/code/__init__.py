"""The code that ran: trees of tracked files, and what else of it was read.

- ``source``: the code before the run; ``reread``: what of it the run read, and what changed.
- ``worktrees``: the repositories; ``git`` asks git about them, ``checkout`` finds what it hides.
- ``named``: the files that the command names.
- ``bytecode``: byte-compiled files that are what their source says.
- ``editables``: code that is imported from outside the library and the repositories.
"""
