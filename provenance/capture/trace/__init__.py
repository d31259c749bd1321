"""What a run does with files, as the system tells it.

- ``inotify``: events of files and folders that are named before.
"""
