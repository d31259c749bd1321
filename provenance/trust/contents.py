"""Whether the files in a folder are those that a statement names: step 5 of a verification.

The folder is walked once before anything is hashed: an extra file, or another size where sizes are
stated, is refused unread. Each file is then read once, whatever digests of it are stated. That
takes as long as the statements are, however many there are. What the signer of a model signature
left out (``ignore_paths``) is not extra, if no loader opens it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from provenance.errors import SHOWN, ContentError, ProvenanceError, some_of
from provenance.files.digest import SHA256, Hasher, Hashing, hash_open
from provenance.files.manifest import (
    Differences,
    FileEntry,
    Manifest,
    as_manifest,
    compare_sizes,
    look_at,
    manifest_of,
    sizes_at,
)
from provenance.files.names import RESERVED, is_within
from provenance.files.pointers import FETCH, pointer_at
from provenance.files.reading import open_file
from provenance.files.walking import Place, walk
from provenance.loaders.table import folded, table
from provenance.weights.names import is_loaded, opened_by

if TYPE_CHECKING:
    from provenance.weights.model import Model

Progress = Callable[[int], None] | None

_AGAIN = "was it downloaded whole? Download it again"


class Stated(msgspec.Struct, frozen=True):
    """The files that the statement *where* names: digests and size (None: not stated) by name."""

    where: str
    digests: Mapping[str, str]
    sizes: Mapping[str, int | None]
    ignored: frozenset[str] = frozenset()
    """What the signer left out: files, and folders by a ``/`` at the end."""
    hashing: Hashing = SHA256
    """How the digests were made. By shards, empty files are left out too."""


class Found(NamedTuple):
    """The files in a folder, the names of those that do not count, and digests by each hashing."""

    manifest: Manifest
    left_out: frozenset[str]
    digests: Mapping[Hashing, Mapping[str, str]]


class Reading(msgspec.Struct, frozen=True):
    """How a folder is read: where its links may lead, and whether files count that nobody signed.

    With *ignore_unsigned* they do not, whatever they are.
    """

    link_roots: tuple[Path, ...] = ()
    ignore_unsigned: bool = False
    later: bool = False
    """Files are not hashed now, if only one manifest fits them: :func:`confirm` comes later."""
    ignored: frozenset[str] = frozenset()
    """What need not be signed if no loader opens it, as in :class:`Stated`."""
    older_digests: bool = False
    """Signatures of the form before model-signing 0.3 are read."""
    separately: bool = False
    """What one signer says refuses nothing that another says: a policy looks for enough."""


def hash_stated(
    root: Path,
    statements: Iterable[Stated],
    reading: Reading,
    progress: Progress,
    beside: Sequence[Stated] = (),
) -> Found:
    """Return the files in *root*, and their digests by SHA-256 and as those *beside* were made.

    By names and sizes one of *statements* can be about them, and each of those beside.
    """
    every = list(statements)
    places = walk(root, ignore=RESERVED, link_roots=reading.link_roots)
    sizes = _sizes(root, places, (*every, *beside))
    fitting = []
    for stated in beside:
        if not (found := compare_sizes(*_counted(sizes, stated, reading))):
            fitting.append(stated)
        elif not reading.separately:
            raise _other_files(root, stated, found)
    others = tuple(dict.fromkeys(each.hashing for each in fitting if each.hashing != SHA256))
    hash_those = partial(_hash, root, reading.link_roots, progress, others, places)
    for stated in every:
        here, expected = _counted(sizes, stated, reading)
        if len(expected) == len(here) and not compare_sizes(here, expected):
            left_out = frozenset(sizes.keys() - here.keys())
            if not reading.ignore_unsigned:
                _refuse_opened(root, left_out, stated)
            alike = (each.digests for each in every if each.sizes == stated.sizes)
            known = None not in expected.values() and not left_out
            if reading.later and known and not others and all(it == stated.digests for it in alike):
                both = ((name, size or 0, stated.digests[name]) for name, size in expected.items())
                manifest = manifest_of((FileEntry(*each) for each in both), where=stated.where)
                return Found(manifest, left_out, {SHA256: dict(stated.digests)})
            return hash_those(left_out)
    found, left_out = compare_sizes(here, expected), frozenset(sizes.keys() - here.keys())
    if _is_opened(found, stated):
        raise _other_files(root, stated, found)
    try:  # so that it can be said of the others that they hold
        rest = hash_those(left_out.union(*found.kinds.values()))
    except ProvenanceError as error:
        raise _other_files(root, stated, found) from error
    more = _differences(root, rest.digests[stated.hashing], stated)
    found = Differences(
        tuple(dict.fromkeys((*found.changed, *more.changed))),
        tuple(name for name in more.missing if name not in found.changed),
        tuple(dict.fromkeys((*found.extra, *more.extra))),
    )
    raise _other_files(root, stated, found, whole=True)


def _sizes(
    root: Path, places: Mapping[str, Place], statements: Iterable[Stated]
) -> dict[str, int | None]:
    """Return the sizes of the files at these *places* by name; None where none is stated."""
    if any(size is not None for each in statements for size in each.sizes.values()):
        return {**sizes_at(root, places)}
    return dict.fromkeys(places)


def _hash(
    root: Path,
    link_roots: Sequence[Path],
    progress: Progress,
    hashings: tuple[Hashing, ...],
    places: dict[str, Place],
    left_out: frozenset[str],
) -> Found:
    """Return the files in *root*, which are at these *places*, but for those *left_out*."""
    seen = look_at(
        root,
        ignore=RESERVED | left_out,
        link_roots=link_roots,
        progress=progress,
        hashings=hashings,
        places=None if left_out else places,  # a link may lead to what is left out
    )
    digests = {SHA256: {name: it.sha256 for name, it in seen.items()}}
    for number, each in enumerate(hashings):
        of = ((name, it) for name, it in seen.items() if it.size or not each.shard_bytes)
        digests[each] = {name: it.others[number] for name, it in of}
    return Found(as_manifest(seen, root), left_out, digests)


def _counted(
    sizes: dict[str, int | None], stated: Stated, reading: Reading
) -> tuple[dict[str, int | None], dict[str, int | None]]:
    """Return which of the files that are here count, and which those are that *stated* expects."""
    if sizes == stated.sizes:
        return sizes, sizes
    expected = {name: it for name, it in stated.sizes.items() if not is_within(name, RESERVED)}
    if reading.ignore_unsigned:
        return {name: sizes[name] for name in expected if name in sizes}, expected
    ignored, shards = stated.ignored | reading.ignored, stated.hashing.shard_bytes
    here = {
        name: size
        for name, size in sizes.items()
        if name in expected or not (is_within(name, ignored) or (shards and size == 0))
    }
    return here, expected


def _refuse_opened(root: Path, left_out: Iterable[str], stated: Stated) -> None:
    beside = frozenset(left_out).union(stated.digests)
    for name in sorted(left_out):
        if loader := opened_by(name, beside):
            what = f"is left out of {stated.where}, and {loader} would open it"
            raise ContentError(what, where=f"{root}/{name}", hint="move it away")


def confirm(model: Model, stated: Stated, reading: Reading, progress: Progress) -> None:
    """Return if the folder of *model* holds just the files *stated*, and they are what was read.

    What was not read whole is hashed now.
    """
    roots, known = reading.link_roots, model.confirmed
    now = look_at(model.root, ignore=RESERVED, link_roots=roots, progress=progress, known=known)
    check_files(model.root, {name: it.sha256 for name, it in now.items()}, stated)
    model.check_unchanged(now)


def check_files(root: Path, digests: Mapping[str, str], stated: Stated) -> None:
    """Return if *stated* are exactly the files in *root*, whose *digests* were made as its own."""
    if found := _differences(root, digests, stated):
        raise _other_files(root, stated, found, whole=True)


def _differences(root: Path, digests: Mapping[str, str], stated: Stated) -> Differences:
    if digests == stated.digests:  # none is reserved: the walk left those out
        return Differences((), (), ())
    actual = dict(digests)
    for name in stated.digests:
        if is_within(name, RESERVED):  # signed by a tool that has other reserved names
            actual[name] = ""
            if os.path.lexists(root / name):
                hasher = Hasher([stated.hashing])
                hash_open(*open_file(root / name), root / name, hasher=hasher)
                [actual[name]] = hasher.others()
    return Differences(
        changed=tuple(n for n, it in stated.digests.items() if actual.get(n) not in (None, "", it)),
        missing=tuple(name for name in stated.digests if actual.get(name, "") == ""),
        extra=tuple(
            n for n in actual if n not in stated.digests and not is_within(n, stated.ignored)
        ),
    )


def _is_opened(found: Differences, stated: Stated) -> bool:
    """Tell whether a loader opens one of the files *found*, or they are more than are named."""
    names = [name for names in found.kinds.values() for name in names]
    beside = {*names, *stated.digests}
    return len(names) > SHOWN or any(table().opened_by(name, beside) for name in names)


def _other_files(
    root: Path, stated: Stated, found: Differences, *, whole: bool = False
) -> ContentError:
    """Return the refusal of files that differ as *found* from those *stated*; *whole*: only so."""
    problems = [f"{name} {what}" for what, names in found.kinds.items() for name in names]
    twins = set(map(folded, found.missing)).intersection(map(folded, found.extra))
    hint = "a copy wrote a name in another case or Unicode form: rename it" if twins else None
    for number, name in enumerate(found.changed[:SHOWN]):
        path = root / name if root.is_dir() else root
        whole_size = stated.sizes.get(name) or 0
        if (pointer := pointer_at(path)) is not None:
            to = "it" if pointer.sha256 == stated.digests.get(name) else "another file"
            problems[number], hint = f"{name} is a Git LFS pointer to {to}", FETCH
        elif is_loaded(name):
            with suppress(OSError):  # it changes under us
                if (size := path.stat().st_size) < whole_size:
                    problems[number] += f" ({size:,} of {whole_size:,} bytes)"
                    hint = hint or _AGAIN
    if {each.rpartition(".")[0] for each in found.extra}.intersection(found.missing):
        hint = hint or _AGAIN  # NAME.incomplete, NAME.part
    what = f"not the files that {stated.where} states: {some_of(problems)}"
    others = len(stated.digests) - len(found.changed) - len(found.missing)
    if whole and others and not _is_opened(found, stated):
        names = [name for names in found.kinds.values() for name in names]
        known = all(table().is_free(name, None, {*names, *stated.digests}) for name in names)
        what += f"; {'no loader opens that, and ' * known}every other file is as signed"
    return ContentError(what, where=str(root), hint=hint)
