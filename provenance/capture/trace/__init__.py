"""What a run does with files, as the system tells it.

- ``tracer``: the mechanisms, put around a run; ``supervisor`` is the program behind two of them.
- ``findings``: what that says beside the claim.
- ``inotify``: events of files and folders that are named before.
"""

MECHANISMS = ("auto", "audit", "inotify", "seccomp", "strace", "off")
"""Of ``record --trace``."""
