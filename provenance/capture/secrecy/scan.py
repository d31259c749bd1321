"""The last check of a document before it is signed: it must contain no live secret.

The small files of a model are searched in the same way, and pickles of settings by their names, as
arguments are: what is found there is said, since the files are there already.

A transparency log cannot forget. So the bytes to be signed are searched for the values of the
environment's sensitive variables (plain, and as in JSON, a URL, base64 at any alignment, and
hexadecimal), and for the ``document`` shapes of :mod:`~provenance.capture.secrecy.secrets`. A match
is an error that names the variable and the place, never the value.

**Sensitive variables** are those known to hold a key's password, and those whose name the table
calls secret or suspect, except ``PWD`` and ``OLDPWD``, which are folders.

**Searched** are the value; if it is JSON, its strings; if it has several lines, the long ones; if
it is ``Name=Value;…``, the values of secret names; and of *every* variable the password of each URL
in it (a proxy, a package index).

**Not secret** are values of fewer than eight characters; ``true``, ``production`` and the other
:data:`COMMON_VALUES`; the path of something that exists (a key's *file*); and the values of public
variables (``HOME``, ``USER``, ``PWD``, ``LANG`` …). Any other harmless value that is found must be
allowed by its variable's name, or unset.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, quote_plus, unquote

from provenance.capture.secrecy.redact import credential_in, named_secret_in
from provenance.capture.secrecy.secrets import (
    is_secret_file,
    is_secret_name,
    is_suspect_name,
    split_user,
    urls_in,
)
from provenance.errors import UnreadableError
from provenance.files.reading import read_file

if TYPE_CHECKING:
    from provenance.files.manifest import FileEntry

KEEP_OUT = "keep it out of arguments, names and settings; nothing was signed"
"""What to do about a secret that was found."""

MIN_LENGTH = 8
"""Shortest value searched, in characters: shorter ones occur everywhere."""

COMMON_VALUES = frozenset(
    "anonymous basic-auth changeme default development disabled enabled localhost none optional"
    " password production required sandbox staging true undefined unlimited".split()
)
"""Values that are not secret, in lower case."""

_FOLDERS = frozenset({"PWD", "OLDPWD"})
_PUBLIC = frozenset("HOME HOSTNAME LANG LOGNAME OLDPWD PATH PWD SHELL TERM TMPDIR USER".split())
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)")
"""JSON escapes, whose last letter would hide the start of a token."""

_MIN_LINE = 20
_MAX_JSON = 2**16

MAX_FILE, MAX_FILES, MAX_NAMED = 2**20, 2**23, 2**20
"""Largest file of a model that is searched, most bytes of all of them, and of those in which values
are known by their names, which is ten times as slow (a second or two together)."""

_TEXTS = re.compile(rb"[\t\n\r -~]{%d,}" % MIN_LENGTH)
"""What may be text in a file that is none."""

_PICKLED = re.compile(rb"(?s)X(.)\0\0\0|\x8c(.)")
"""BINUNICODE and SHORT_BINUNICODE of a pickle, with a length below 256."""

_MEMO = re.compile(rb"(?s)(?:\x94|q.|r....)?")


@dataclass(frozen=True, slots=True)
class LiveSecret:
    """The value *value* of the variable *variable*, or a part of it."""

    variable: str
    value: str = field(repr=False)


def live_secrets(
    environ: Mapping[str, str],
    *,
    allowed: frozenset[str] = frozenset(),
    named: frozenset[str] = frozenset(),
) -> tuple[LiveSecret, ...]:
    """Return the secrets in *environ*, except those of *allowed* variables.

    The variables *named* hold passwords, whatever their names and lengths.
    """
    public = {environ[name] for name in _PUBLIC if name in environ}
    found: dict[tuple[str, str], None] = {}
    for variable, value in sorted(environ.items()):
        if variable in allowed or variable in _FOLDERS:
            continue
        if variable in named and value:
            found[variable, value] = None
        candidates = list(_url_passwords(value))
        if is_suspect_name(variable):
            candidates += _parts(value)
        for candidate in candidates:
            if _is_worth_hiding(candidate) and candidate not in public:
                found[variable, candidate] = None
    return tuple(LiveSecret(variable, value) for variable, value in found)


class Found(NamedTuple):
    """A secret in a document: what it is, the JSON pointer of its string, its variable or ""."""

    what: str
    pointer: str
    variable: str


def find_secret(payload: bytes, secrets: tuple[LiveSecret, ...]) -> Found | None:
    """Return the first of *secrets* in *payload*, or what looks like one."""
    for secret in secrets:
        for spelling in _spellings(secret.value):
            position = payload.find(spelling)
            if position >= 0:
                what = f"the value of the environment variable {secret.variable}"
                return Found(what, _place(payload, spelling, position), secret.variable)
    text = payload.decode("utf-8", "replace")
    text = _ESCAPE.sub(" ", text) if "\\" in text else text
    if (found := credential_in(text)) is not None:
        start, end, kind = found
        place = _place(payload, text[start:end].encode("utf-8", "replace"), start)
        return Found(f"what looks like a credential ({kind})", place, "")
    return None


def secrets_in_files(
    root: Path, entries: Iterable[FileEntry], secrets: tuple[LiveSecret, ...]
) -> dict[str, list[str]]:
    """Return, by what it is, which small files of the model *root* hold one of *secrets*.

    The smallest come first; the same bytes are searched once. Compressed ones are not opened.
    """
    known: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    left = MAX_FILES
    for each in sorted(entries, key=lambda each: (each.size, each.name)):
        if each.sha256 not in known:
            if each.size > min(left, MAX_FILE):
                break
            left -= each.size
            try:
                data = read_file(root / each.name if root.is_dir() else root, MAX_FILE)
            except UnreadableError:  # what signs or verifies says why
                continue
            known[each.sha256] = _secret_in(data, secrets, named=MAX_FILES - left <= MAX_NAMED)
        if what := known[each.sha256] or ("secrets, by its name" * is_secret_file(each.name)):
            found.setdefault(what, []).append(each.name)
    return found


def _secret_in(data: bytes, secrets: tuple[LiveSecret, ...], *, named: bool) -> str:
    """Return what *data* holds of *secrets*, or what looks like one; "" if nothing."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    pickled = _pickled(data)
    try:
        data.decode()
    except UnicodeDecodeError:
        wide = (it for each in secrets for it in _spellings(each.value) if not it.isascii())
        data = b"\n".join([*_TEXTS.findall(data), *(it for it in wide if it in data)])
    if found := find_secret(b"%b\n%b" % (data, pickled), secrets):
        return found.what
    if named and (kind := named_secret_in(data, pickled)):
        return f"what looks like a credential ({kind})"
    return ""


def _pickled(data: bytes) -> bytes:
    """Return the short texts that *data* pickles, in quotes: ``"name": "value"`` if adjacent."""
    texts, place, after = [], 0, -1
    while match := _PICKLED.search(data, place):
        place = match.end() + (match[1] or match[2])[0]
        text = data[match.end() : place].replace(b'"', b"'")
        texts += [b": " if match.start() == after else b"\n", b'"%b"' % text]
        after = place + len((_MEMO.match(data, place) or match)[0])
    return b"".join(texts)


def _url_passwords(value: str) -> Iterator[str]:
    for match in urls_in(value):
        _, user, _ = split_user(match[0])
        if user:
            name, _, password = user.partition(":")
            yield from (password or name, unquote(password or name), user, unquote(user))


def _parts(value: str) -> Iterator[str]:
    """Yield *value* and the secrets in it."""
    value = value.strip()
    yield value
    yield from (line.strip() for line in value.splitlines() if len(line.strip()) >= _MIN_LINE)
    if value[:1] in ("{", "[") and len(value) <= _MAX_JSON:
        with contextlib.suppress(ValueError, RecursionError):
            yield from _strings(json.loads(value))
    for part in value.split(";") if ";" in value else ():
        name, _, text = part.partition("=")
        if is_secret_name(name):
            yield text.strip()


def _strings(value: Any) -> Iterator[str]:  # noqa: ANN401 - a JSON value
    if isinstance(value, str):
        yield value
        with contextlib.suppress(ValueError):  # Docker keeps "user:password" in base64
            yield base64.b64decode(value, validate=True).decode().partition(":")[2]
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _is_worth_hiding(value: str) -> bool:
    if len(value) < MIN_LENGTH or value.lower() in COMMON_VALUES:
        return False
    if value.startswith(("-----BEGIN ", "-----END ")) and "\n" not in value:
        return False
    try:
        return not (value.startswith(("/", "./")) and Path(value).exists())
    except (OSError, ValueError):  # too long for a name
        return True


def _spellings(value: str) -> list[bytes]:
    """Return the forms that *value* may have in a document."""
    raw = value.encode("utf-8", "surrogateescape")
    texts = (
        raw,
        json.dumps(value)[1:-1].encode(),
        json.dumps(value, ensure_ascii=False)[1:-1].encode("utf-8", "surrogateescape"),
        quote(raw, safe="").encode(),
        quote(raw).encode(),
        quote_plus(raw).encode(),
        raw.hex().encode(),
        raw.hex().upper().encode(),
        *_base64_spellings(raw),
    )
    return [text for text in dict.fromkeys(texts) if len(text) >= MIN_LENGTH]


def _base64_spellings(raw: bytes) -> Iterator[bytes]:
    """Yield what *raw* looks like in the base64 of a text that contains it, without the edges."""
    for shift in range(3):
        head = -(-shift * 8 // 6)  # characters shared with the bytes before
        whole = (shift + len(raw)) * 8 // 6  # characters not shared with the bytes after
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * shift + raw)[head:whole]


def _place(payload: bytes, spelling: bytes, position: int) -> str:
    """Return the JSON pointer of the string that contains *spelling*, or the byte *position*."""
    try:
        pointer = _pointer(json.loads(payload), spelling.decode("utf-8", "replace"), "")
    except (ValueError, RecursionError):
        pointer = None
    return f"byte {position}" if pointer is None else (pointer or "/")


def _pointer(value: Any, text: str, path: str) -> str | None:  # noqa: ANN401 - a JSON value
    if isinstance(value, str):
        return path if text in value or text in json.dumps(value) else None
    if isinstance(value, dict):
        for key, item in value.items():
            if text in key:
                return f"{path}/(a key)"
            step = key.replace("~", "~0").replace("/", "~1")
            if (found := _pointer(item, text, f"{path}/{step}")) is not None:
                return found
    if isinstance(value, list):
        for number, item in enumerate(value):
            if (found := _pointer(item, text, f"{path}/{number}")) is not None:
                return found
    return None
