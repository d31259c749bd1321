"""Does an in-toto layout hold over links, and end in these files? Steps 10 to 12 of verification.

in-toto's own library decides, in a process of its own (``layout_child``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from provenance.errors import ContentError, MalformedError, PolicyError, count, some_of
from provenance.files.manifest import Manifest
from provenance.files.names import RESERVED, is_within
from provenance.files.reading import open_file
from provenance.folder.link import check_signer
from provenance.keys import PublicKey
from provenance.trust.verification import STEPS, Step

CHAIN_STEPS: Final = ("layout", "links", "products")
"""The steps after those of :mod:`~provenance.trust.verification`."""

_CHILD: Final = Path(__file__).with_name("layout_child.py")


class Chain(NamedTuple):
    """A layout's file, its owners, the folder of its links, and whether its inspections are run."""

    layout: Path
    owners: tuple[PublicKey, ...]
    links: Path
    inspections: bool


def check_layout(chain: Chain, manifest: Manifest) -> Iterator[Step]:
    """Yield each step that holds of the layout of *chain* and the files *manifest*."""
    found = _ask(chain)
    number = len(STEPS)
    if "steps" in found:
        number += 1
        ids = ", ".join(owner.key_id for owner in chain.owners)
        yield Step(number, CHAIN_STEPS[0], f"signed by {ids}, expires {found['expires']}")
    for kind, error in (("refused", PolicyError), ("malformed", MalformedError)):
        if kind in found:
            what, where, hint = found[kind]
            at = chain.links if "steps" in found else chain.layout
            raise error(what, where=where or str(at), hint=hint)
    steps = found["steps"]
    detail = f"{count(found['number'], 'link')} for {count(len(steps), 'step')}"
    yield Step(number + 1, CHAIN_STEPS[1], detail)
    last = f"the products of {steps[-1]}" if steps else "no products"
    if others := list(_others(found["products"], manifest)):
        what = f"{last} are not the files of this model: {some_of(others)}"
        raise ContentError(what, where=str(chain.links))
    yield Step(number + 2, CHAIN_STEPS[2], f"{last} are the files of this model")


def _ask(chain: Chain) -> dict[str, Any]:
    """Return the child's answer about *chain*."""
    import tempfile  # noqa: PLC0415 - rarely needed

    from provenance.weights.isolated import Isolated, Limits  # noqa: PLC0415 - as above

    for owner in chain.owners:
        check_signer(owner)
    where = str(chain.layout)
    descriptor, _ = open_file(where, follow=True)
    with (
        os.fdopen(descriptor, "rb"),
        tempfile.TemporaryDirectory(prefix="provenance-links-") as folder,
    ):
        request = {
            "layout": where,
            "links": os.path.realpath(chain.links),
            "folder": folder,
            "owners": [owner.pem.decode() for owner in chain.owners],
            "inspections": chain.inspections,
        }
        child = Isolated(
            _CHILD,
            [str(descriptor), json.dumps(request)],
            limits=Limits(60, 2**32),
            where=where,
            needs=("in-toto", ""),
            descriptor=descriptor,
        )
        with closing(child):
            return dict(json.loads(child.answer()))  # a text may hold lone surrogates


def _others(products: Mapping[str, Mapping[str, str]], manifest: Manifest) -> Iterator[str]:
    """Yield the names by which *products* are not the files of *manifest*."""
    files = {entry.name: entry.sha256 for entry in manifest.entries}
    yield from (name for name, it in files.items() if products.get(name, {}).get("sha256") != it)
    yield from (it for it in products if it not in files and not is_within(it, RESERVED))
