"""Tags by which a run of MLflow names the claim about it.

Installed with MLflow, runs that ``mlflow.start_run`` begins under a recorder get the tag
``provenance.run``, with which the claim's ``invocationId`` begins. When the claim is made,
``tag(recorded)`` names it by its digest.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from provenance.capture.run import VARIABLE

if TYPE_CHECKING:
    from provenance.api.finishing import Recorded


class ProvenanceContext:
    """A provider of context, by MLflow's entry point ``mlflow.run_context_provider``."""

    def in_context(self) -> bool:
        """Whether a recorder is at work."""
        return bool(os.environ.get(VARIABLE))

    def tags(self) -> dict[str, str]:
        """Return the tag that names the run."""
        folder = os.path.dirname(os.environ.get(VARIABLE, ""))  # noqa: PTH120 - as a text
        return {"provenance.run": os.path.basename(folder)}  # noqa: PTH119


def tag(recorded: Recorded) -> None:
    """Name the claim *recorded* in the active run: its invocation, model and signer."""
    import mlflow  # noqa: PLC0415 - which imports this module

    stated = recorded.statement
    mlflow.set_tags(
        {
            "provenance.invocationId": stated.run.metadata.invocation_id,
            "provenance.model": f"sha256:{stated.manifest.root_digest}",
            "provenance.level": stated.level,
            "provenance.keyId": recorded.key_id,
        }
    )
