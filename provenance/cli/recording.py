"""What ``record`` and ``attest`` share: their options, and how a claim that was made reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from provenance.cli.options import (
    PATH,
    json_option,
    key_variables,
    link_root_option,
    read_password,
    signing_options,
)
from provenance.errors import UsageError, one_line
from provenance.report.terminal import print_json, print_lines, progress

if TYPE_CHECKING:
    from provenance.api.finishing import Given, Recorded
    from provenance.api.making import Stated

F = TypeVar("F", bound="Callable[..., Any]")

_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)


def recording_options(command: F) -> F:
    """Add the options that both commands have."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return signing_options(link_root_option(json_option(command)), or_identity=True)


_OPTIONS = (
    click.option(
        "--data", "data", multiple=True, metavar="[ROLE=]PATH",
        help="Training data: a file or folder, with its role ('train', 'eval'). Repeatable.",
    ),
    click.option(
        "--data-info", type=PATH, metavar="FILE",
        help="TOML: a table for each ROLE with its license, source, availability, notices.",
    ),
    click.option(
        "--config", "config", type=PATH, multiple=True, metavar="FILE",
        help="Configuration file. Repeatable.",
    ),
    click.option(
        "--base-model", type=PATH, metavar="DIR",
        help="Model or checkpoint that training starts from.",
    ),
    click.option(
        "--equality", metavar="FILE|NAME",
        help="What counts as the same model: a declaration, or a built-in name.",
    ),
    click.option(
        "--seed", "seeds", multiple=True, metavar="[NAME=]N", help="A seed. Repeatable."
    ),
    click.option("--log", type=PATH, metavar="LOGDIR", help="Publish to this log at once."),
    click.option(
        "--log-password-env", metavar="VAR", help="Variable with the password of the log's key."
    ),
    click.option(
        "--link", metavar="NAME",
        help="Write an in-toto link too: this is the step NAME of a supply chain.",
    ),
    click.option(
        "--tensors", is_flag=True,
        help="List the model's tensors by digest; say which files are casts of others.",
    ),
    click.option(
        "--dry-run", is_flag=True, help="Print what would be signed; run and write nothing."
    ),
    click.option("--strict", is_flag=True, help="Refuse where something weakens the claim."),
    click.option(
        "--unsafe-allow-secret", "allowed_secrets", multiple=True, metavar="VAR",
        help="Sign even if this variable's value appears in the statement.",
    ),
)  # fmt: skip


def read_given(options: Mapping[str, Any]) -> Given:
    """Return what *options*, as click passes them, give beside the key, in the library's terms."""
    return {
        "password": read_password(options["password_env"]),
        "identity_token": options["identity_token"],
        "trust_config": options["trust_config"],
        "log": options["log"],
        "log_password": read_password(options["log_password_env"]),
        "allowed_secrets": options["allowed_secrets"],
        "secret_variables": key_variables(options),
        "link_roots": options["link_roots"],
        "link": options["link"],
        "tensors": options["tensors"],
        "progress": progress,
    }


def read_stated(options: Mapping[str, Any]) -> Stated:
    """Return what *options*, as click passes them, state, in the library's terms."""
    return {
        **read_given(options),
        "data": [read_data(text) for text in options["data"]],
        "data_info": options["data_info"],
        "config": options["config"],
        "base_model": options["base_model"],
        "equality": options["equality"],
        "seeds": _seeds(options["seeds"]),
        "dry_run": options["dry_run"],
        "strict": options["strict"],
        "trace": options.get("trace", "auto"),
        "on_warning": lambda it: _say(f"{'warning' if it.is_cause else 'note'}: {it}"),
    }


def print_recorded(recorded: Recorded, options: Mapping[str, Any]) -> None:
    """Say what was claimed and written, on stderr; stdout belongs to the training program.

    Only ``--json`` and ``--dry-run`` print there.
    """
    several = (recorded, *recorded.others)
    if options["dry_run"]:
        documents = [each.document() for each in several]
        print_json(documents if recorded.others else documents[0])
        for sha256, data in recorded.files.items():
            click.echo(
                f"and beside the weights: provenance/{sha256} ({len(data):,} bytes)", err=True
            )
        if options["link"]:
            click.echo(f"and an in-toto link, which repeats it: {options['link']}", err=True)
        return
    if options["as_json"]:
        documents = [_document(each) for each in several]
        print_json(documents if recorded.others else documents[0])
        return
    said = set[str]()  # what the claims of several models say alike is said once
    for each in several:
        if recorded.others:
            _say(f"model    {each.statement.model_name}")
        _print_claim(each, said)


def _document(recorded: Recorded) -> dict[str, Any]:
    return {
        "statement": recorded.document(),
        "identity": recorded.identity or None,
        "level": recorded.statement.level,
        "rootDigest": {"sha256": recorded.manifest.root_digest},
        "keyId": recorded.key_id,
        "notCovered": recorded.not_covered,
        "published": recorded.published,
        "warnings": recorded.warnings,
        "written": recorded.written,
    }


def _print_claim(recorded: Recorded, said: set[str]) -> None:
    from provenance.report.recording import captured_lines, not_covered_lines

    lines = captured_lines(recorded.statement)
    for line in lines:
        if line not in said:
            _say(line)
    said.update(lines)
    for line in not_covered_lines(recorded.not_covered):
        _say(line)
    for path in recorded.written:
        _say(f"written  {path}")
    for claim in recorded.published:
        _say(f"published claim {claim.line} as entry {claim.index}")
    for warning in recorded.warnings[len(recorded.remarks) :]:
        _say(f"warning: {warning}")


def _say(text: str) -> None:
    print_lines([f"provenance: {one_line(text)}"], hang=2, err=True)


def read_data(text: str) -> tuple[str, Path]:
    """Return the role and the path in ``[ROLE=]PATH``."""
    named = _NAMED.fullmatch(text)
    role, path = (named[1], named[2]) if named else ("", text)
    if not path:
        raise UsageError(
            f"--data {text}: names no file or folder", hint=f"--data {role or 'train'}=PATH"
        )
    return role, Path(path)


def _seeds(texts: tuple[str, ...]) -> dict[str, str]:
    seeds: dict[str, str] = {}
    for text in texts:
        named = _NAMED.fullmatch(text)
        name, value = (named[1], named[2]) if named else ("seed", text)
        if name in seeds:
            what = f"the seed {name} is given twice" if named else "two seeds have no name"
            raise UsageError(what, hint="give each its own name: --seed numpy=0 --seed torch=0")
        seeds[name] = value
    return seeds
