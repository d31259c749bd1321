"""Repeating a published training: ``rebuild``, which is ``record --rebuild-of``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Unpack

from provenance.api.arguments import PathLike, Texts, a_path, in_options, signers, silent
from provenance.api.finishing import Recorded
from provenance.api.making import Stated, inputs_of, record
from provenance.errors import PolicyError, ProvenanceError, UsageError
from provenance.keys import PrivateKey, PublicKey
from provenance.rebuilding import repetition


def rebuild(  # noqa: PLR0913 - each option of the verb, by name
    published: PathLike,
    *,
    publisher_keys: Sequence[PathLike | PublicKey] = (),
    publisher_certificate_chain: Sequence[PathLike] = (),
    publisher_identity: Texts = None,
    publisher_identity_provider: Texts = None,
    publisher_trust_config: PathLike | None = None,
    model: PathLike,
    key: PathLike | PrivateKey | None = None,
    confirm: Callable[[tuple[str, ...]], bool],
    **stated: Unpack[Stated],
) -> Recorded:
    """Repeat the training of *published*, and sign how the folder *model* was made.

    *published* is a model's folder or a file of claims, verified with *publisher_keys*,
    certificates and identities, as by :func:`verify`. Command, roles, seeds and equality are the
    published ones; inputs that are not stated are looked for under their names in the working
    folder. *confirm* is asked about the command before anything of it is run. What could never
    agree is refused before the run with a PolicyError.
    """
    for name in ("seeds", "equality"):
        if stated.get(name) not in (None, {}):
            raise UsageError(f"{name}: stated by the published claim, and not to be given here")
    if os.path.realpath(a_path(model)) == os.path.realpath(a_path(published)):
        raise UsageError(
            "is the published model, which the rebuild would replace", where=str(model)
        )
    identified = publisher_identity, publisher_identity_provider, publisher_trust_config
    try:
        trusted = signers(publisher_keys, publisher_certificate_chain, *identified)
        with stated.get("progress", silent)("hashing") as advance:
            found = repetition.read_published(Path(published), trusted, advance)
    except ProvenanceError as error:
        raise in_options(error, "publisher-") from error.__cause__
    inputs = repetition.place_inputs(found, inputs_of(model, stated))
    command = repetition.command_here(found, inputs, inputs.without_secrets(os.environ))
    if not confirm(command):
        raise PolicyError("not confirmed, so nothing was run")
    repeated: Stated = {
        **stated,
        "data": inputs.data,
        "config": inputs.config,
        "base_model": inputs.base_model,
        "seeds": found.seeds,
        "equality": found.declaration,
    }
    check = partial(repetition.refuse_difference, found)
    return record(command, model=model, key=key, check=check, **repeated)
