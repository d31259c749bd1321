"""``provenance attest``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from provenance.api import making
from provenance.cli.help import Command
from provenance.cli.options import PATH
from provenance.cli.recording import print_recorded, read_stated, recording_options


@click.command(
    cls=Command,
    examples=(
        "provenance attest model --key alice",
        "provenance attest model --key alice --data train=data.csv --seed 0",
    ),
    next_step="'provenance verify model --key alice.pub' checks the claim as others will.",
)
@click.argument("model", type=PATH, metavar="DIR|FILE")
@recording_options
def command(model: Path, **options: Any) -> None:  # noqa: ANN401 - click's options, read in one place
    """Sign how the model in DIR was made, as you state it, without running anything.

    The statement says that the run itself was not observed. Code and machine are recorded as they
    are now; packages and interpreter are not recorded.
    """
    print_recorded(making.attest(model, key=options["key_path"], **read_stated(options)), options)
