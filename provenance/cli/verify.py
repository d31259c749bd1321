"""``provenance verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from provenance.api import checking
from provenance.api.arguments import log_key
from provenance.cli import Answered
from provenance.cli.help import Command
from provenance.cli.options import (
    PATH,
    json_option,
    link_root_option,
    read_trusted_keys,
    trusted_keys_option,
    trusted_signer_options,
)
from provenance.errors import ProvenanceError, UsageError
from provenance.report.terminal import print_json, print_lines, progress
from provenance.report.verification import (
    STEP_HANG,
    failed_line,
    step_lines,
    summary_lines,
    verified_document,
)
from provenance.trust.checkpoints import CHECKPOINT_STEP
from provenance.trust.layout import CHAIN_STEPS
from provenance.trust.outcome import LEVELS
from provenance.trust.verification import STEPS, Answer, Step, Verified


@click.command(
    cls=Command,
    examples=(
        "provenance verify model --key alice.pub",
        "provenance verify model --key alice.pub --log log/vkey",
    ),
    next_step="'provenance show model' shows everything that the claim states.",
)
@click.argument("model", type=PATH, metavar="DIR|FILE")
@trusted_keys_option
@trusted_signer_options
@click.option(
    "--trust", type=PATH, metavar="POLICY",
    help="A trust policy says whom you trust, and for what: 'provenance trust'.",
)  # fmt: skip
@click.option("--claims", type=PATH, metavar="FILE", help="Claims to check instead of DIR's own.")
@click.option(
    "--signature", type=PATH, metavar="PATH", help="Check this model signature, and nothing else."
)
@click.option(
    "--log", "log", metavar="VKEY", help="The log's key, or its file: require a proof of that log."
)
@click.option(
    "--require",
    type=click.Choice(LEVELS),
    help="Refuse what says less: that the run was attested, recorded, or rebuilt (--verdict).",
)
@click.option("--name", metavar="NAME", help="Refuse a model that its signer calls otherwise.")
@click.option(
    "--root-digest", metavar="sha256:HEX",
    help="Refuse a model with another root digest, as 'verify' prints it.",
)  # fmt: skip
@click.option(
    "--verdict", type=PATH, metavar="FILE",
    help="A signed verdict of 'agree', by a key you trust: that the model was rebuilt.",
)  # fmt: skip
@click.option(
    "--layout", type=PATH, metavar="FILE", help="An in-toto layout that must end in these files."
)
@click.option(
    "--layout-key", "layout_keys", type=PATH, multiple=True, metavar="PUB",
    help="Public key of the layout's owner; all that are given must have signed it.",
)  # fmt: skip
@click.option("--links", type=PATH, metavar="FOLDER", help="The links, if not DIR/provenance.")
@click.option(
    "--base", "bases", type=PATH, multiple=True, metavar="DIR|FILE",
    help="Claims about what the model was made from, or a folder with them. Repeatable.",
)  # fmt: skip
@click.option(
    "--checkpoint", "checkpoints", type=PATH, multiple=True, metavar="DIR|FILE",
    help="Require that this is a checkpoint which the run wrote, by the claim. Repeatable.",
)  # fmt: skip
@link_root_option
@click.option(
    "--ignore-paths", type=PATH, multiple=True, metavar="PATH",
    help="File or folder that need not be signed, if no loader opens it. Repeatable.",
)  # fmt: skip
@click.option(
    "--digests-v0.1", "digests_v0", is_flag=True,
    help="Read a signature of model-signing before 0.3, which names no model.",
)  # fmt: skip
@click.option(
    "--unsafe-ignore-unsigned", is_flag=True, help="Accept what nobody signed, whatever it is."
)
@click.option(
    "--unsafe-run-inspections", is_flag=True, help="Run the commands that the layout holds."
)
@json_option
def command(
    *,
    model: Path,
    key_paths: tuple[Path, ...],
    log: str | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - the library's own, passed on
) -> None:
    """Check that a key you trust attested the files in DIR, and show how they were made.

    Every file is hashed; one that was changed, is missing, or is extra is refused. The last lines
    say what each signer vouches for: that these are the files (signed), how they were made
    (attested), that a recorder saw it (recorded), that others made the same (rebuilt).
    """
    keys = read_trusted_keys(key_paths)
    vkey = log_key(log) if log is not None else None  # before the steps, as it is none of them
    names = {key.key_id: name for key, name in keys.items()}
    steps: list[Step] = []
    answers: list[Answer] = []

    def report(step: Step) -> None:
        steps.append(step)
        if not as_json and options["trust"] is None:
            print_lines(step_lines(step, names), hang=STEP_HANG)

    try:
        verified = checking.verify(
            model, keys=tuple(keys), log=vkey, on_step=report, on_answer=answers.append,
            progress=progress, **options,
        )  # fmt: skip
    except ProvenanceError as error:
        if as_json:
            problem = {"message": str(error), "where": error.where, "step": len(steps) + 1}
            refused = {"error": problem, "steps": steps, "verified": False}
            print_json({**refused, "policy": answers} if answers else refused)
            raise Answered(error) from error
        if answers:
            print_lines(_answers(answers, None))
        elif steps and not isinstance(error, UsageError):  # else perhaps something named beside
            known = (*STEPS, *(CHAIN_STEPS if options["layout"] else ()), CHECKPOINT_STEP)
            name = known[min(len(steps), len(known) - 1)]
            print_lines([failed_line(name, len(steps), error.what)], hang=STEP_HANG)
        raise
    if as_json:
        print_json(verified_document(verified))
        return
    lines = _answers(answers, verified) if answers else summary_lines(verified, names)
    print_lines(lines)


def _answers(answers: list[Answer], verified: Verified | None) -> list[str]:
    from provenance.report.policy import answer_lines  # rarely needed

    return answer_lines(answers, verified)
