"""Witnesses: whose cosignatures make a checkpoint count (C2SP tlog-policy, tlog-cosignature).

A witness signs that a log only grew up to a checkpoint, at a time. The policy is text, in lines
``log VKEY [URL]``, ``witness NAME VKEY [URL]``, ``group NAME all|any|K NAME…`` and one ``quorum
NAME|none``. What a line names stands above it, and is a member of one group at most, so that no
witness counts twice. URLs are for those who ask logs; nothing is asked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

import msgspec

from provenance.errors import LogProofError, MalformedError, SignatureError, count
from provenance.transparency import checkpoint as checkpoints
from provenance.transparency import note as notes
from provenance.transparency.merkle import MAX_SIZE
from provenance.transparency.note import COSIGNATURES, Note, NoteSignature, VerifierKey

MAX_POLICY_BYTES = 2**20
"""Longest policy, in bytes: 500 ML-DSA-44 keys; at least 32 witnesses must be taken."""

MAX_AHEAD = timedelta(days=1)
"""How far a witness's clock may be ahead."""

MAX_NAME_BYTES = 255
"""Longest name that an ML-DSA-44 cosignature can hold."""

NO_QUORUM = "none"


class Group(msgspec.Struct, frozen=True):
    """Of which *members*, witnesses and groups, at *least* how many must have cosigned."""

    least: int
    members: tuple[str, ...]


class LogPolicy(msgspec.Struct, frozen=True):
    """Logs, and the quorum of witnesses that must have cosigned their checkpoints.

    ``members`` are the witnesses and the groups by their names, each after its own members.
    """

    logs: tuple[VerifierKey, ...]
    members: Mapping[str, VerifierKey | Group]
    quorum: str

    @property
    def witnesses(self) -> tuple[VerifierKey, ...]:
        """The keys of the witnesses."""
        return tuple(each for each in self.members.values() if isinstance(each, VerifierKey))

    def check(
        self,
        data: bytes,
        now: datetime,
        *,
        max_age: timedelta | None = None,
        where: str | None = None,
    ) -> None:
        """Return if a quorum cosigned the checkpoint *data*, whose log's signature was checked.

        Lines of others are ignored; each line of a witness must verify, and one whose time is after
        *now*, or more than *max_age* before it, does not count.
        """
        first = int((now - max_age).timestamp()) if max_age else 0
        counting = range(first, int((now + MAX_AHEAD).timestamp()) + 1)
        note, met = notes.parse(data, where=where), {NO_QUORUM}
        for name, each in self.members.items():
            if isinstance(each, Group):
                holds = sum(it in met for it in each.members) >= each.least
            else:
                holds = any(it in counting for it in _times(note, each, where))
            if holds:
                met.add(name)
        if self.quorum not in met:
            number = sum(name in met for name in self.members)
            when = f" in the last {count(max_age.days, 'day')}" if max_age else ""
            what = f"the quorum {self.quorum} of witnesses did not cosign it{when}: {number} did"
            raise LogProofError(what, where=where)


def parse(data: bytes, *, where: str | None = None) -> LogPolicy:
    """Return the policy that *data* spells."""
    logs: list[VerifierKey] = []
    members: dict[str, VerifierKey | Group] = {}
    free: set[str] = set()  # what is defined, and a member of no group
    quorum: list[str] = []
    for at, words in _lines(data, where or "tlog-policy"):
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                logs.append(notes.parse_vkey(vkey, where=at))
            case ["witness", name, vkey] | ["witness", name, vkey, _] if name not in members:
                members[name] = notes.parse_vkey(vkey, kinds=COSIGNATURES, where=at)
                free.add(name)
            case ["group", name, least, *them] if them and name not in members:
                if unknown := [it for it in them if it not in free]:
                    what = f"{unknown[0]} is not defined above, or is a member already"
                    raise MalformedError(what, where=at)
                members[name] = Group(_least(least, them, at), tuple(them))
                free -= {*them}
                free.add(name)
            case ["quorum", name] if name in members or name == NO_QUORUM:
                quorum.append(name)
            case _:
                raise MalformedError("is no line of a tlog-policy, or repeats a name", where=at)
    policy = LogPolicy(tuple(logs), members, quorum[0] if len(quorum) == 1 else "")
    if not policy.quorum or NO_QUORUM in members:
        raise MalformedError("has not one quorum line, or calls a member none", where=where)
    for kind, keys in {"logs": policy.logs, "witnesses": policy.witnesses}.items():
        if len({key.public for key in keys}) < len(keys):
            raise MalformedError(f"two {kind} have one key", where=where)
    return policy


def _lines(data: bytes, where: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the words of each line that says something."""
    if strange := re.search(rb"[^\t\n\x20-\x7e\x80-\xff]", data):
        raise MalformedError(f"control character 0x{strange[0].hex()}", where=where)
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}", where=where) from error
    for number, line in enumerate(lines, 1):
        words = [word for word in re.split("[ \t]+", line) if word]
        if words and not words[0].startswith("#"):
            yield f"{where}, line {number}", words


def _least(text: str, members: list[str], where: str) -> int:
    """Return how many of *members* are needed; each is named once."""
    named = {"any": 1, "all": len(members)}
    least = named[text] if text in named else checkpoints.parse_size(text, where=where)
    if not 1 <= least <= len(set(members)) == len(members):
        raise MalformedError(f"{text} of {len(members)} members can never be met", where=where)
    return least


def _times(note: Note, key: VerifierKey, where: str | None) -> list[int]:
    """Return when the witness with *key* cosigned *note*; each of its lines must verify."""
    return [_time(note, line, key, where) for line in note.lines_of(key)]


def _time(note: Note, line: NoteSignature, key: VerifierKey, where: str | None) -> int:
    """Return when *key* cosigned, in seconds since 1970."""
    stamp, signature = line.signature[:8], line.signature[8:]
    time = int.from_bytes(stamp, "big")
    message = b"cosignature/v1\ntime %d\n%b" % (time, note.text.encode())
    if key.kind == COSIGNATURES[1]:
        stated = checkpoints.parse(note.text, where=where)
        texts = [each.encode() for each in (key.name, stated.origin)]
        if any(len(text) > MAX_NAME_BYTES for text in texts):
            raise LogProofError("a name is too long to be cosigned", where=where)
        name, origin = (len(text).to_bytes(1, "big") + text for text in texts)
        span = bytes(8) + stated.size.to_bytes(8, "big") + stated.root
        message = b"subtree/v1\n\0" + name + stamp + origin + span
    try:
        key.public.verify(signature, message)
    except SignatureError as error:
        raise LogProofError(f"the cosignature of {key.name} does not match", where=where) from error
    if time > MAX_SIZE:
        raise LogProofError(f"the cosignature of {key.name} has no time", where=where)
    return time
