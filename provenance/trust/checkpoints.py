"""Is a folder or file a checkpoint of the run? A step of verification for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from provenance.errors import ContentError, UnreadableError
from provenance.files.names import BYPRODUCTS
from provenance.folder.claims import read_byproduct
from provenance.trust.verification import Step, Verified

CHECKPOINT_STEP: Final = "checkpoint"


def check_checkpoints(verified: Verified, paths: Sequence[Path], after: int) -> Iterator[Step]:
    """Yield a step, the first *after* so many, for each of *paths* that the claim lists."""
    if not paths:
        return
    from provenance.capture import chain  # noqa: PLC0415 - rarely needed

    training = verified.claim.training if verified.claim else None
    named = (it for it in (training.run.byproducts if training else ()))
    said = next((it for it in named if it.name == chain.BYPRODUCT), None)
    if training is None or said is None:
        raise ContentError("the claim lists no checkpoints", where=str(verified.root))
    where = f"{verified.root}/{BYPRODUCTS}/{said.digest.get('sha256', '')}"
    if (data := read_byproduct(verified.root, training, chain.BYPRODUCT)) is None:
        raise UnreadableError("the list of checkpoints is not there", where=where)
    found = chain.Chain(dict(chain.follow(data, where)))
    if any(said.annotations.get(name) != it for name, it in found.summary().items()):
        raise ContentError("is not the chain whose root was signed", where=where)
    listed = [*found.lines.values()]
    for number, path in enumerate(paths, after + 1):
        one = listed[at := found.find(path)]
        step = "" if one.step is None else f", step {one.step}"
        detail = f"{path} is {one.name}{step}, of {one.time}: {at + 1} of {len(listed)}"
        yield Step(number, CHECKPOINT_STEP, detail)
