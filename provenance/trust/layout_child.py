"""in-toto's own verification: a program of its own that imports nothing of ours.

:mod:`~provenance.trust.layout` starts it with the descriptor of a layout and a request in JSON. The
library sees, in the empty folder in which it runs, copies of the links that the layout asks for.
What it does not look at is refused before: inspections, which are commands, in layouts that stand
for links too; a link of another step; one key under two ids, which it would count twice.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from in_toto import verifylib
from in_toto.models.metadata import Metadata
from securesystemslib.signer import Key, SSlibKey  # type: ignore[attr-defined]

ROOM, LEAST = 2**28, 2**18
"""Bytes of layout and links together, and how many of them each takes at least. A link to a hundred
thousand files has 15 MB."""

MAX_DEPTH, MAX_REASON, INSPECTION_SECONDS = 8, 1000, 60

_HINTS = {
    "LinkNotFoundError": "--links names their folder",
    "SignatureVerificationError": "each --layout-key must have signed the layout",
}


class RefusedError(Exception):
    """What is refused here: why, where, and the way out."""


def read(descriptor: int, where: str, request: dict[str, Any]) -> Any:  # noqa: ANN401 - in-toto has no types
    """Return the bytes of the file *descriptor*, and the metadata that they are."""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RefusedError("is no file", where)
        data = file.read(max(request["room"], 0) + 1)
    request["room"] -= max(len(data), LEAST)
    if request["room"] < 0:
        raise RefusedError(f"more than {ROOM} bytes, or {ROOM // LEAST} files", where)
    return data, Metadata.from_dict(json.loads(data))


def check(layout: Any, where: str, request: dict[str, Any]) -> None:  # noqa: ANN401 - as above
    """Return if *layout* runs nothing, and its keys are each one key."""
    if layout.inspect and not request["inspections"]:
        names = ", ".join(each.name for each in layout.inspect)
        hint = "--unsafe-run-inspections runs them"
        raise RefusedError(f"has inspections, which are commands: {names}", where, hint)
    same: dict[bytes, str] = {}
    for keyid, value in layout.keys.items():
        key: Any = Key.from_dict(keyid, deepcopy(value))
        if not isinstance(key, SSlibKey) or value.get("subkeys"):
            raise RefusedError(f"the key {keyid} is of a kind that is not checked here", where)
        public = key._crypto_key()  # noqa: SLF001 - there is no public way
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if (other := same.setdefault(spki, keyid)) != keyid:
            what = f"{other} and {keyid} are one key, which would count twice"
            raise RefusedError(what, where)


def gather(layout: Any, request: dict[str, Any], below: str = "") -> int:  # noqa: ANN401 - as above
    """Copy the links that *layout* asks for in the folder *below* that of all; return how many."""
    number = 0
    for step in layout.steps:
        if not step.name or "/" in step.name or "\0" in step.name:
            raise RefusedError(f"the step {step.name!r} is no name of a file")
        for prefix in sorted({keyid[:8] for keyid in step.pubkeys}):
            name = f"{below}{step.name}.{prefix}"
            path = f"{request['links']}/{name}.link"
            if not os.path.lexists(path):
                continue
            data, metadata = read(os.open(path, os.O_RDONLY | os.O_NONBLOCK), path, request)
            Path(below).mkdir(exist_ok=True)
            Path(f"{name}.link").write_bytes(data)
            payload = metadata.get_payload()
            number += 1
            if payload.type_ == "layout" and name.count("/") < MAX_DEPTH:
                check(payload, path, request)
                number += gather(payload, request, f"{name}/")
            elif payload.type_ == "layout" or payload.name != step.name:
                raise RefusedError(f"is no link of the step {step.name}", path)
    return number


def verify(descriptor: int, request: dict[str, Any], found: dict[str, Any]) -> None:
    """Put into *found* what holds."""
    _, metadata = read(descriptor, request["layout"], request)
    keys = {}
    for pem in request["owners"]:
        key = SSlibKey.from_crypto(load_pem_public_key(pem.encode()))
        keys[key.keyid] = {**key.to_dict(), "keyid": key.keyid}
    verifylib.verify_metadata_signatures(metadata, keys)
    layout = metadata.get_payload()
    verifylib.verify_layout_expiration(layout)
    steps = [step.name for step in layout.steps]
    check(layout, request["layout"], request)
    found |= {"expires": layout.expires, "steps": steps}
    found["number"] = gather(layout, request)
    found["products"] = verifylib.in_toto_verify(
        metadata, keys, persist_inspection_links=False, inspect_timeout=INSPECTION_SECONDS
    ).products


def main(arguments: list[str]) -> Iterator[list[bytes]]:
    """Answer what holds, and why what does not is refused: why, where, the way out, by whom."""
    request = {**json.loads(arguments[1]), "room": ROOM}
    os.chdir(request["folder"])
    found: dict[str, Any] = {}
    try:
        verify(int(arguments[0]), request, found)
    except RefusedError as error:
        found["refused"] = [*error.args, None, None][:3]
    except Exception as error:  # noqa: BLE001 - whatever the library says is about layout or links
        known = type(error).__module__ == "in_toto.exceptions"
        what = f"{type(error).__name__}: {error}".partition("\n")[0][:MAX_REASON].removesuffix(": ")
        hint = _HINTS.get(type(error).__name__)
        found["refused" if known else "malformed"] = [f"in-toto says {what}", None, hint]
    yield [json.dumps(found).encode()]
