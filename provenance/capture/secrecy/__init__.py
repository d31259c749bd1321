"""What must not be published.

- ``secrets``: the table of it.
- ``redact``: replacing it in what is recorded.
- ``scan``: searching the finished document for it; ``leaks`` names and redacts what that finds.
"""
