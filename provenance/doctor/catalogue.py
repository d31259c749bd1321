"""What is known to make trainings differ: ``catalogue.toml`` is the table, with its sources."""

from __future__ import annotations

from importlib import resources

import msgspec


class Variable(msgspec.Struct, frozen=True):
    """A variable to export where one ``of`` these is installed; set to anything, or ``exactly``."""

    name: str
    of: tuple[str, ...]
    export: str
    why: str
    gpu: bool = False
    exactly: bool = False


class Generator(msgspec.Struct, frozen=True):
    """A library's generator: its ``state`` in the probe, how a program or its start seeds it."""

    state: str
    remedy: str
    start: str


class Hint(msgspec.Struct, frozen=True):
    """What is not seen in a program that ``uses`` something, and the remedy."""

    uses: tuple[str, ...]
    unless: tuple[str, ...]
    text: str
    remedy: str


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole table."""

    variables: tuple[Variable, ...]
    locks: tuple[str, ...]
    volatile: frozenset[str]
    without_deterministic_path: frozenset[str]
    settings: dict[str, str]
    machines: dict[str, dict[str, str]]
    seeds: dict[str, Generator]
    hints: tuple[Hint, ...]


CATALOGUE = msgspec.toml.decode(
    resources.files(__package__).joinpath("catalogue.toml").read_bytes(), type=Catalogue
)
