"""``provenance trust``: policies, whom you trust and for what."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from provenance.cli.help import Group
from provenance.cli.options import PATH, json_option, trusted_keys_option
from provenance.errors import UsageError, one_line
from provenance.files.atomic import create_file
from provenance.report.policy import policy_lines
from provenance.report.terminal import print_json, print_lines
from provenance.trust.policy import load, parse


@click.group(
    cls=Group,
    examples=(
        "provenance trust init policy.toml --key alice.pub --organisation Example",
        "provenance trust check policy.toml",
    ),
    next_step="'provenance verify DIR --trust policy.toml' asks whether it accepts a model.",
)
def command() -> None:
    """Write and explain a trust policy: whom you trust, and for what."""


@command.command(
    "check",
    short_help="Say in words what a policy demands.",
    examples=("provenance trust check policy.toml", "provenance trust check policy.toml --json"),
    next_step="'provenance verify DIR --trust policy.toml' asks whether it accepts a model.",
)
@click.argument("policy", type=PATH, metavar="FILE")
@json_option
def check(policy: Path, *, as_json: bool) -> None:
    """Say in words what the policy in FILE demands.

    A rule that can never hold is an error, as is a file or a party that is not there.
    """
    lines = [*policy_lines(found := load(policy))]
    if as_json:
        parties = {each.name: each for each in found.signers.values()}
        print_json({"words": lines, "parties": [*parties.values()], "rules": found.rules})
        return
    print_lines(lines)


@command.command(
    "init",
    short_help="Write a policy from a question or two.",
    examples=(
        "provenance trust init policy.toml",
        "provenance trust init policy.toml --key alice.pub --organisation Example",
    ),
    next_step="'provenance trust check policy.toml' explains it; change it with any editor.",
)
@click.argument("policy", type=PATH, metavar="FILE")
@trusted_keys_option
@click.option(
    "--organisation", metavar="NAME", help="Who stands behind the keys; else each for itself."
)
@click.option(
    "--models", "models", multiple=True, metavar="PATTERN",
    help="Models that they may sign, as 'digits-*'. Repeatable; all by default.",
)  # fmt: skip
@click.option("--recorded", is_flag=True, help="Demand that a recorder saw the training.")
@json_option
def init(
    policy: Path,
    key_paths: tuple[Path, ...],
    organisation: str | None,
    models: tuple[str, ...],
    *,
    recorded: bool,
    as_json: bool,
) -> None:
    """Write a policy into the new FILE: one of the keys must have signed how a model was made.

    On a terminal it asks for what is not given.
    """
    if not key_paths:
        if not sys.stdin.isatty():
            raise UsageError("nobody is trusted by default", hint="name a public key with --key")
        key_paths = (Path(click.prompt("Public key of somebody whom you trust (a file)")),)
        organisation = click.prompt("Their organisation", default=organisation or key_paths[0].stem)
        recorded = recorded or click.confirm("Must a recorder have seen the training?")
    text = "format = 1\n"
    for path in key_paths:
        key = os.path.relpath(path, policy.parent)
        named = {"name": path.stem, "organisation": organisation or path.stem, "keys": [key]}
        text += _table("party", named)
    rule: dict[str, Any] = {"statement": "training", "models": [*models] or ["*"]}
    text += _table("rule", rule | ({"level": "recorded"} if recorded else {}))
    data = text.encode("utf-8", "surrogateescape")
    lines = [*policy_lines(parse(data, policy))]
    create_file(policy, data)
    if as_json:
        print_json({"policy": str(policy), "words": lines})
        return
    print_lines([f"policy   {one_line(str(policy))}", "", *lines])


def _table(name: str, values: dict[str, Any]) -> str:
    """Return a table of an array in TOML, whose texts and lists are spelled as in JSON."""
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    return "\n".join(["", f"[[{name}]]", *lines, ""])
