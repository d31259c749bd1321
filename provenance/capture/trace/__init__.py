"""What a run does with files, as the system tells it.

- ``tracer``: the mechanisms, put around a run, and what they say beside the claim;
  ``supervisor``: the program behind two of them.
- ``inotify``: events of files and folders that are named before.
"""

MECHANISMS = ("auto", "audit", "inotify", "seccomp", "strace", "off")
"""Of ``record --trace``."""
