"""``provenance trust``: policies, whom you trust and for what."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from provenance.api.arguments import paired
from provenance.cli.help import Group
from provenance.cli.options import (
    PATH,
    json_option,
    read_trusted_keys,
    trusted_identity_options,
    trusted_keys_option,
)
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
@trusted_identity_options
@click.option(
    "--certificate-chain", "authority", type=PATH, metavar="PEM",
    help="Certificate of an authority that you trust to name who signs: --subject.",
)  # fmt: skip
@click.option(
    "--subject", metavar="NAME",
    help="Who it names, as 'verify --certificate-chain' shows the signer: CN=Alice,O=Example.",
)  # fmt: skip
@click.option(
    "--organisation", metavar="NAME", help="Who stands behind them; else each for itself."
)
@click.option(
    "--models", "models", multiple=True, metavar="PATTERN",
    help="Models that they may sign, as 'digits-*'. Repeatable; all by default.",
)  # fmt: skip
@click.option("--recorded", is_flag=True, help="Demand that a recorder saw the training.")
@click.option(
    "--files-only", is_flag=True, help="A model.sig suffices: how it was made is not asked."
)
@json_option
def init(policy: Path, *, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - those above
    """Write a policy into the new FILE: one of them must have signed how a model was made.

    On a terminal it asks for what is not given.
    """
    if os.path.lexists(policy) or not policy.parent.is_dir():
        create_file(policy, b"")  # says why it cannot, before anything is asked
    if not any(options[each] for each in ("key_paths", "identity", "authority", "subject")):
        if not sys.stdin.isatty():
            hint = "name a public key with --key, an identity with --identity, or a --subject"
            raise UsageError("nobody is trusted by default", hint=hint)
        _ask(options)
    if options["files_only"] and options["recorded"]:
        raise UsageError("a model.sig says nothing of a training", hint="leave out --files-only")
    text = "format = 1\n"
    if root := options["trust_config"]:
        text += f"trusted-root = {_spelled(os.path.relpath(root, policy.parent))}\n"
    text += "".join(_parties(options, policy.parent))
    kind = "signature" if options["files_only"] else "training"
    rule: dict[str, Any] = {"statement": kind, "models": [*options["models"]] or ["*"]}
    text += _table("rule", rule | ({"level": "recorded"} if options["recorded"] else {}))
    data = text.encode("utf-8", "surrogateescape")
    lines = [*policy_lines(parse(data, policy))]
    create_file(policy, data)
    if as_json:
        print_json({"policy": str(policy), "words": lines})
        return
    print_lines([f"policy   {one_line(str(policy))}", "", *lines])


def _parties(options: dict[str, Any], folder: Path) -> Iterator[str]:
    """Yield each party of *options* in TOML; files are named from *folder*."""
    keys = {os.path.relpath(path, folder): path for path in options["key_paths"]}
    stems = [path.stem for path in keys.values()]
    for key, path in keys.items():
        named = path.stem if stems.count(path.stem) == 1 else str(path.with_suffix(""))
        yield _table("party", _called(named, options) | {"keys": [key]})
    for name, provider in paired(options["identity"], options["identity_provider"]):
        yield _table("party", _called(name, options))
        yield f"identities = [{{ name = {_spelled(name)}, provider = {_spelled(provider)} }}]\n"
    if bool(subject := options["subject"]) != bool(authority := options["authority"]):
        hint = "add --certificate-chain PEM" if subject else "add --subject NAME"
        raise UsageError("a subject counts by the word of its authority", hint=hint)
    if subject:
        root = _spelled(os.path.relpath(authority, folder))
        yield _table("party", _called(subject, options))
        yield f"certificates = [{{ authority = {root}, subject = {_spelled(subject)} }}]\n"


def _ask(options: dict[str, Any]) -> None:
    """Ask on the terminal for those of *options* that are not given."""
    who = click.prompt("Whom do you trust: the file of a public key, or a mail or URL (keyless)")
    if "://" in who or ("@" in who and not Path(who).exists()):
        options["identity"], name = who, who
        options["identity_provider"] = click.prompt("Who vouches for that identity (a URL)")
    else:
        options["key_paths"], name = (Path(who),), Path(who).stem
        read_trusted_keys(options["key_paths"])  # before more is asked
    name = options["organisation"] or name
    options["organisation"] = click.prompt("Their organisation", default=name)
    if not (options["files_only"] or options["recorded"]):
        said = click.confirm(
            "Must they say how a model was made, not only which files it is?", default=True
        )
        options["files_only"] = not said
        options["recorded"] = said and click.confirm("Must a recorder have seen the training?")


def _called(name: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "organisation": options["organisation"] or name}


def _table(name: str, values: dict[str, Any]) -> str:
    """Return a table of an array in TOML."""
    return "\n".join(
        ["", f"[[{name}]]", *(f"{key} = {_spelled(it)}" for key, it in values.items()), ""]
    )


def _spelled(value: str | list[str]) -> str:
    """Return a text, or a list of texts, in TOML, where they are spelled as in JSON."""
    return json.dumps(value, ensure_ascii=False)
