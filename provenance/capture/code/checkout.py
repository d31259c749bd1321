"""What git would write for an entry of the index: the only conversions of bytes that count.

Line endings, ``ident`` and encodings are declared in ``.gitattributes``. git's own rules are not
modelled: git checks the entries out into an empty folder, by the attributes in the index alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from provenance.capture.code.git import FILE, PROGRAM, Entry, Git, look, object_id
from provenance.errors import UnreadableError
from provenance.files.digest import hash_file
from provenance.files.pointers import MAGIC
from provenance.files.reading import read_file

MAX_CONVERTED_BYTES = 2**28
"""Most bytes of files of which it is asked whether git would check them out like that."""


def as_checked_out(
    git: Git, differing: Mapping[bytes, Entry], index: Mapping[bytes, Entry]
) -> dict[bytes, Entry]:
    """Return those of *differing* files that are what git checks out for their *index* entries.

    git writes these anew into a temporary folder, once with each line ending that a text file
    without a declared one may have, by the attributes that the index holds.
    """
    rules = {name: e for name, e in index.items() if name.split(b"/")[-1] == b".gitattributes"}
    files = {
        name: entry
        for name, entry in differing.items()
        if index[name].mode in (FILE, PROGRAM) and entry.mode in (FILE, PROGRAM) and entry.state
    }
    if not rules or not files:
        return {}
    lfs = any(b"filter=lfs" in _text(git.folder, name) for name in rules)
    found = {n: index[n] for n in files if lfs and _pointer(git, n) == index[n].id}
    left = MAX_CONVERTED_BYTES
    asked = dict(rules)
    for name, entry in files.items():
        left -= entry.state.size if entry.state else 0
        if left >= 0 and name not in found and index[name].id:
            asked[name] = index[name]
    rows = [b"%s %s\t%s" % (e.mode, e.id.encode(), name) for name, e in asked.items() if e.id]
    for ending in ("lf", "crlf"):
        with tempfile.TemporaryDirectory(prefix="provenance-git-") as folder:
            plain = _plain(git, Path(folder))
            plain.ask("update-index", "-z", "--index-info", stdin=rows)
            # Status 1: some object is missing, as in a partial clone; its file counts as it lies.
            eol = ("-c", f"core.eol={ending}")
            plain.ask(*eol, "checkout-index", "--all", "--force", "--quiet", expect=(0, 1, 128))
            for name in asked.keys() & files.keys():
                written = look(plain.folder, name, git.algorithm)
                if written is not None and written.id == files[name].id:
                    found[name] = index[name]
    return {name: replace(files[name], id=entry.id) for name, entry in found.items()}


def _plain(git: Git, folder: Path) -> Git:
    """Return *git* with an empty work tree and no configuration or attributes but the index's."""
    for name in ("git/refs", "tree"):
        folder.joinpath(name).mkdir(parents=True)
    folder.joinpath("git/HEAD").write_text("ref: refs/heads/none\n")
    version, extension = 0, ""
    if git.algorithm != "sha1":
        version, extension = 1, f"[extensions]\n\tobjectFormat = {git.algorithm}\n"
    config = f"[core]\n\trepositoryFormatVersion = {version}\n\tbare = false\n{extension}"
    folder.joinpath("git/config").write_text(config)
    own = {
        "GIT_DIR": str(folder / "git"),
        "GIT_WORK_TREE": str(folder / "tree"),
        "GIT_OBJECT_DIRECTORY": str(git.objects),
    }
    return Git(folder / "tree", {**git.variables, **own})


def _text(root: Path, name: bytes) -> bytes:
    try:
        return read_file(root / os.fsdecode(name), 2**20, follow=False)
    except UnreadableError:
        return b""


def _pointer(git: Git, name: bytes) -> str:
    """Return the id of the Git LFS pointer to the file *name*."""
    try:
        sha256, size = hash_file(git.folder / os.fsdecode(name))
    except UnreadableError:
        return ""
    data = MAGIC + f"oid sha256:{sha256}\nsize {size}\n".encode()
    return object_id(git.algorithm, b"blob", data).hex()
