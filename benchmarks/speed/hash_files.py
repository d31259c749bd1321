"""Hash each file with SHA-256, each on a core of its own: what whoever signs or checks must do.

python hash_files.py FILE...
"""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path


def digest(name: str) -> None:
    """Hash the file *name*."""
    buffer = bytearray(2**20)
    found = hashlib.sha256()
    with Path(name).open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            found.update(memoryview(buffer)[:count])


if __name__ == "__main__":
    threads = [threading.Thread(target=digest, args=(name,)) for name in sys.argv[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
