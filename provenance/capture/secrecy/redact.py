"""Redaction of text and variables, by the table in ``secrets``.

What is removed leaves a mark with its kind, ``${redacted:email}``, which stands for any text: two
marks are never equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit, urlunsplit

from provenance.capture.process import is_python
from provenance.capture.secrecy.secrets import (
    FORMS,
    PROGRAMS,
    SHAPES,
    Form,
    Span,
    is_suspect_name,
    kind_of_name,
    looks_random,
    split_user,
    words_of,
)
from provenance.statement.training import REDACTION

_NAMED = re.compile(
    r"""(?x)(?<![\w.-]) (?: (?P<name>[\w.-]++) \\*+["']?+\]?+\s*+(?:=[=>]?+|:(?!//)=?+)\s*+
      | (?P<option>--?[A-Za-z][\w.-]*+) \s++ )"""
)
"""What precedes a value: ``name=``, ``"name": ``, ``['name'] = ``, ``--name ``."""

_VALUE = re.compile(
    r"""(?x) \\++"[^"]*+"?  |  "(?:[^"\\]|\\.)*+"?  |  '[^']*+'?   # JSON in a string; JSON; shell
      | (?:\\[ ] | [^\s"',;&|] | ,(?![\w.-]{1,64}["']?[=:]))+      # up to the next one"""
)
_SCHEME = re.compile(r"""["']?(?i:basic|bearer|digest|key|negotiate|token)[ \t]++(?=\S)""")
_SUSPECT_PART = 256
"""How many characters of a value decide whether it looks random."""

_SWITCHES = frozenset("ask disable enable has is no prompt require skip use with without".split())
"""First words of options without a value: ``--use-auth-token``."""

_TOKEN = re.compile(r"""(?:[^\s"'`;|&()\\]|\\(?!\n))+""")
_QUOTED = re.compile(r"""(?s)(?:"(?:[^"\\]|\\.){0,256}+"?|'[^']{0,256}+'?){1,4}+""")
"""What may follow an option without a blank: ``-p'…'``."""

_BLANK = re.compile(r"(?:[ \t]|\\\n)++")
_SAME_COMMAND = re.compile(r"(?:[^;|&\n\\]|\\\n)*+")


def mark(kind: str) -> str:
    """Return the mark for something of the *kind* that was removed."""
    return f"${{redacted:{kind}}}"


def credential_in(text: str) -> Span | None:
    """Return the first credential in *text* that has a known shape."""
    rows = (row for row in SHAPES if row.scope == "document")
    found = ((*span, row.kind) for row in rows for span in row.find(text, ""))
    return next((span for span in found if not _is_mark(text[span[0] : span[1]])), None)


def named_secret_in(*texts: bytes) -> str:
    """Return the kind of the first value in *texts* that is secret by its name and looks random."""
    for text in (each.decode("utf-8", "replace") for each in texts):
        for start, end, kind in _named_values(text):
            if looks_random(text[start:end]):
                return kind
    return ""


def redact_text(text: str, *, beside: str = "", in_variable: bool = False) -> str:
    """Return *text* with a mark for each secret in it; *beside* is context.

    In a variable, host names are removed, too.
    """
    rows = [row for row in SHAPES if in_variable or row.scope != "variables"]
    found = [(*span, row.kind) for row in rows for span in row.find(text, beside)]
    found += _named_values(text)
    found += secrets_of_forms([text])[0]
    return _replaced(text, [span for span in found if not _is_mark(text[span[0] : span[1]])])


def redact_variable(value: str, home: str, hosts: Iterable[str]) -> str:
    """Return the *value* of a variable of the allow-list; *hosts* are names of this machine."""
    value = readable(value)
    if len(home) > 1:
        value = re.sub(rf"(?<![\w.$~-]){re.escape(home)}(?![\w.-])", "~", value)
    for host in hosts:
        pieces = re.split(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", value)
        value = mark("host").join(pieces)
    return redact_text(value, in_variable=True)


def _is_mark(text: str) -> bool:
    return text == "" or REDACTION.fullmatch(text.rstrip("}") + "}") is not None


def _replaced(text: str, spans: list[Span]) -> str:
    """Return *text* with a mark for each of *spans*; of two that overlap, the first names it.

    A dollar before a mark is removed: it would escape the mark.
    """
    ranked = sorted((start, end, rank, kind) for rank, (start, end, kind) in enumerate(spans))
    merged: list[tuple[int, int, int, str]] = []
    for start, end, rank, kind in ranked:
        if merged and start < merged[-1][1]:
            if kind == "email":  # password@host of user:password@host looks like one
                continue
            first, last, other, name = merged[-1]
            merged[-1] = (first, max(last, end), min(rank, other), kind if rank < other else name)
        else:
            merged.append((start, end, rank, kind))
    pieces: list[str] = []
    done = 0
    for start, end, _, kind in merged:
        pieces += [text[done:start].rstrip("$"), mark(kind)]
        done = end
    return "".join([*pieces, text[done:]])


def _named_values(text: str) -> Iterator[Span]:
    """Yield the values of secret names in *text*, without quotes."""
    done = 0
    for match in _NAMED.finditer(text):
        name, start = match["name"] or match["option"], match.end()
        if match.start() < done or not is_suspect_name(name):
            continue
        if match["option"] and text[start : start + 1] == "-" and not takes_value(name):
            continue
        if name.lower().endswith("authorization") and (scheme := _SCHEME.match(text, start)):
            start = scheme.end()
        part = _VALUE.match(text, start, start + _SUSPECT_PART)
        if part and (kind := kind_of_name(name, _bare(part[0]))):
            value = _VALUE.match(text, start) or part
            done = value.end()
            bare = _bare(value[0])
            start += value[0].index(bare)
            yield start, start + len(bare), kind


def _bare(value: str) -> str:
    return value.strip("\"'\\") if value[0] in "\"'\\" else value.rstrip("}])")


def secrets_of_forms(words: Sequence[str]) -> list[list[Span]]:
    """Return for each of *words* what is secret because of an option in it or before it."""
    found: list[list[Span]] = []
    programs: set[str] = set()
    waiting: list[Form] = []
    for word in words:
        spans: list[Span] = []
        form = waiting.pop(0) if waiting else None
        if form is not None and not word.startswith("-") and form.value.fullmatch(word):
            found.append([(0, len(word), form.kind)])
            continue
        waiting = []
        outside = here = frozenset(programs)
        last = 0
        for token in _TOKEN.finditer(word):
            if not _SAME_COMMAND.fullmatch(word, last, token.start()):
                here = outside
            last = token.end()
            here |= _called(token[0])
            programs |= here
            for form in FORMS if token[0].startswith("-") else ():
                called = not here.isdisjoint(form.programs)
                option, end = _option(form, word, token) if called else (None, 0)
                if option is None:
                    continue
                if option["value"]:
                    if form.value.fullmatch(option["value"]):
                        place = token.start() + option.start("value")
                        spans.append((place, end, form.kind))
                elif len(token[0]) == len(word):
                    waiting = [form] * form.values
                else:
                    spans += _values_after(word, token.end(), form)
        found.append(spans)
    return found


def _option(form: Form, text: str, token: re.Match[str]) -> tuple[re.Match[str] | None, int]:
    """Return *token* as an option of *form*, with the quoted value that follows it, and its end."""
    option = form.option.fullmatch(token[0])
    quoted = _QUOTED.match(text, token.end())
    if quoted and (token[0].endswith(":") or not (option and option["value"])):
        longer = form.option.fullmatch(token[0] + quoted[0].strip("\"'"))
        if longer and longer["value"]:
            return longer, quoted.end()
    return option, token.end()


def _values_after(text: str, place: int, form: Form) -> Iterator[Span]:
    for _ in range(form.values):
        blank = _BLANK.match(text, place)
        value = _VALUE.match(text, blank.end()) if blank else None
        if value is None or value[0][0] == "-":
            return
        more = _QUOTED.match(text, value.end()) if value[0].endswith(":") else None
        place = (more or value).end()
        if not form.value.fullmatch(text[value.start() : place].strip("\"'")):
            return
        yield value.start(), place, form.kind


def _called(word: str) -> set[str]:
    name = word.rpartition("/")[2]
    name = "python" if is_python(name) else "script" if name.endswith((".sh", ".py")) else name
    return {name} & PROGRAMS


def takes_value(option: str) -> bool:
    """Tell whether what follows *option* is its value, even if it begins with a dash."""
    return _SWITCHES.isdisjoint(words_of(option)[:1])


def public_remote(url: str) -> str:
    """Return the URL of a repository without user and query; "" for a local path.

    ``git@example.org:a/b`` becomes ``ssh://example.org/a/b``.
    """
    url = readable(url)
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("https", "http", "ssh", "git"):
        try:
            parts = urlsplit(f"{scheme}://{split_user(url)[2]}")
        except ValueError:
            return ""
        if "@" in parts.path + parts.query + parts.fragment:  # a user after all
            return ""
        return urlunsplit((scheme, parts.netloc, parts.path, "", ""))
    if not scheme and (match := re.fullmatch(r"(?:.*@)?([\w.-]+\.[\w-]+):(?!/)([^@]+)", url)):
        return f"ssh://{match[1]}/{match[2]}"
    return ""


def readable(text: str) -> str:
    r"""Return *text* as valid UTF-8; invalid bytes become ``\xff``."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that is no escaped byte
        return text.encode("utf-8", "backslashreplace").decode()
