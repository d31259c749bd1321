"""What must not be published, recognised by its name or by its shape.

Used where a value is about to be written down: arguments, URLs, variables. Whatever escapes this is
left to :mod:`provenance.capture.secrets`, which looks at the finished document.

Names are split into words at ``_ - .`` and between lower and upper case. A name is *secret* where a
word of it says so (``password``) or its last one does (``db-pass``, ``AZURE_PAT``), and *suspect*
where it ends in ``key``, ``keys`` or ``tokens``:
``--sort-key`` and ``max_tokens`` are harmless, so their values are hidden only if they look random.
``tokenizer`` is neither. :func:`is_secret` is the rule for a name with its value.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

REDACTED = "${redacted}"
"""Stands for what was left out. A literal ``${`` is never written so: see ``command``."""

SECRET_WORDS = frozenset(
    "apikey auth authorization cookie credential credentials jwt passphrase passwd password"
    " passwords pwd secret secrets sshkey sshpass token".split()
)
"""Words that make a name secret, wherever they stand in it."""

_SECRET_ENDINGS = ("password", "passwd", "apikey", "accesstoken", "authtoken")

_BEFORE_KEY = frozenset(
    "access account api auth client encryption private secret signing ssh".split()
)
"""Words that make a name secret if ``key`` follows."""

_HARMLESS_BEFORE_TOKEN = frozenset(
    "bos cls eos image mask max min new num pad per sep special stop unk use".split()
)
"""Words before ``token`` that speak of text, not of access."""

_HARMLESS_BEFORE_PASS = frozenset(
    "all band by com each first forward backward high low max min multi n num one per second single"
    " sur test third train two".split()
)
"""Words before ``pass`` that speak of a pass over something; in one word too (``bypass``)."""

_HARMLESS_BEFORE_PAT = frozenset("exclude file glob include name".split())
"""Words before ``pat`` that speak of a pattern, not of a personal access token."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_SHAPES = re.compile(
    r"""
    (?<![A-Za-z0-9])(?:
      hf_[A-Za-z0-9]{20,}                      # Hugging Face
    | gh[pousr]_[A-Za-z0-9]{20,}               # GitHub
    | github_pat_[A-Za-z0-9_]{20,}
    | glpat-[A-Za-z0-9_-]{20,}                 # GitLab
    | sk-(?=[\w-]*[0-9])(?=[\w-]*[A-Z])[A-Za-z0-9_-]{20,}    # OpenAI, Anthropic; not sk-learn-…
    | (?:AKIA|ASIA)[0-9A-Z]{16}                # AWS
    | AIza[0-9A-Za-z_-]{35}                    # Google
    | nvapi-[A-Za-z0-9_-]{20,}                 # NVIDIA
    | xox[abeoprs]-[A-Za-z0-9-]{10,}           # Slack
    | npm_[A-Za-z0-9]{36}
    | pypi-[A-Za-z0-9_-]{50,}
    | wandb_v1_[A-Za-z0-9_]{20,}
    | eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*    # JWT
    | -----BEGIN[ ][A-Z ]{0,30}PRIVATE[ ]KEY-----[^-]*(?:-----END[ ][A-Z ]{0,30}PRIVATE[ ]KEY-----)?
    )""",
    re.VERBOSE,
)
"""Access tokens that can be told by their prefix, as their issuers intend."""

_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_AUTHORIZATION = re.compile(
    r"""(?ix)(?P<name>authorization["']?\s*[:=]\s*["']?|\bcookie["']?\s*:\s*["']?)
    (?P<scheme>(?:basic|bearer|digest|key|negotiate|token)\s+)?
    (?P<value>(?:=["'][^"'\r\n]*["']|[^"'\r\n])+)"""
)
"""Headers of HTTP in which what is secret may have several words."""

_NAMED = re.compile(
    r"""(?x)(?<![\w.-]) (?: (?P<name>[\w.-]{1,200}) \\*["']?\s*(?:=|:(?!//))\s*
      | (?P<option>--?[A-Za-z][\w.-]{0,199}) \s+ )"""
)
"""What stands before a value: ``name=``, ``"name": ``, ``--name ``."""

_VALUE = re.compile(
    r"""(?x) \\+"[^"]*"?  |  "(?:[^"\\]|\\.)*"?  |  '[^']*'?   # JSON in a string; JSON; shell
      | (?:[^\s"',;&|] | ,(?![\w.-]{1,64}["']?[=:]))+          # up to the next one"""
)
_DONE = re.compile(
    rf"""["']?(?i:basic|bearer|digest|key|negotiate|token)\s+{re.escape(REDACTED)}"""
)
"""The value of a header after :data:`_AUTHORIZATION`: the scheme stays."""

_SWITCHES = frozenset("ask disable enable has is no prompt require skip use with without".split())
"""First words of options that have no value: ``--use-auth-token``."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"]+")
_HOST = re.compile(r"(?:[\w-]+(?:\.[\w-]+)+|\[[^\]]*\]|localhost)(?::[0-9]{0,5})?|[\w.-]*")
"""What stands before a path in a URL, if it is no user: with a port only if it has a dot."""

_USER_AT_HOST = re.compile(
    r"""(?x)(?<![\w.+/:-])[\w.+-]{1,100}:(?!//)[^\s'"]{1,256}@
    (?=(?:(?:[\w-]+\.)+[A-Za-z]{2,20}|[0-9]+(?:\.[0-9]+){3}|localhost)(?:[:/\s'"]|$))"""
)
"""A user and a password before a host, without a scheme (``scp``, ``--proxy``)."""

_SECRET_QUERY = frozenset("sig signature key code".split())


def is_secret_name(name: str) -> bool:
    """Tell whether a value called *name* is secret, whatever it is."""
    words = [word.lower() for word in _WORDS.findall(name)]
    for before, word in zip(["", *words], words, strict=False):
        if word == "token" and before in _HARMLESS_BEFORE_TOKEN:
            continue
        if word in SECRET_WORDS or word.endswith(_SECRET_ENDINGS):
            return True
        if word == "key" and before in _BEFORE_KEY:
            return True
    return bool(words) and _ends_in_secret(words)


def _ends_in_secret(words: list[str]) -> bool:
    """Tell whether the last of *words* is a short name of a password or an access token."""
    before, last = words[-2] if len(words) > 1 else "", words[-1]
    if last.endswith("pass"):
        return (last.removesuffix("pass") or before) not in _HARMLESS_BEFORE_PASS
    return last == "pat" and before != "" and before not in _HARMLESS_BEFORE_PAT


def takes_value(option: str) -> bool:
    """Tell whether what follows *option*, though it begins with a dash, is its value."""
    return _SWITCHES.isdisjoint(word.lower() for word in _WORDS.findall(option)[:1])


def is_suspect_name(name: str) -> bool:
    """Tell whether a value called *name* is secret if it looks random."""
    words = _WORDS.findall(name)
    return bool(words) and words[-1].lower().endswith(("key", "keys", "tokens"))


def looks_random(value: str) -> bool:
    """Tell whether *value* looks like a key: long, in one piece, digits among letters."""
    return (
        len(value) >= _RANDOM_LENGTH
        and re.fullmatch(r"[A-Za-z0-9_+/=.-]+", value) is not None
        and sum(character.isdigit() for character in value) >= _RANDOM_DIGITS
        and sum(character.isalpha() for character in value) >= _RANDOM_DIGITS
    )


_RANDOM_LENGTH = 16
_RANDOM_DIGITS = 3


def is_secret(name: str, value: str) -> bool:
    """Tell whether *value*, called *name*, must not be published."""
    return is_secret_name(name) or (is_suspect_name(name) and looks_random(value))


def has_secret_shape(text: str) -> re.Match[str] | None:
    """Return the first access token or private key in *text*."""
    return _SHAPES.search(text)


def redact_text(text: str) -> str:
    """Return *text* less access tokens, private keys, and what URLs in it hold of the kind.

    So are the values of secret names, as in JSON, headers, a shell's assignments and options.
    """
    text = _URL.sub(lambda match: redact_url(match[0]), text)
    text = _USER_AT_HOST.sub(f"{REDACTED}@", text)
    text = _BEARER.sub(lambda match: f"{match[1]} {REDACTED}", text)
    text = _AUTHORIZATION.sub(
        lambda match: f"{match['name']}{match['scheme'] or ''}{REDACTED}", text
    )
    text = _redact_values(text)
    # A dollar before the mark would read as an escape of it.
    return re.sub(rf"\$*(?:{_SHAPES.pattern})", REDACTED, text, flags=re.VERBOSE)


def _redact_values(text: str) -> str:
    """Return *text* less the values of the secret names in it; their quotes stay."""
    pieces: list[str] = []
    done = 0
    for match in _NAMED.finditer(text):
        name = match["name"] or match["option"]
        if match.start() < done or not (is_secret_name(name) or is_suspect_name(name)):
            continue
        if _DONE.match(text, match.end()):
            continue
        value = _VALUE.match(text, match.end())
        if value is None or (match["option"] and value[0][0] == "-" and not takes_value(name)):
            continue
        quoted = value[0][0] in "\"'\\"
        bare = value[0].strip("\"'\\") if quoted else value[0].rstrip("}])")
        if bare in ("", REDACTED, REDACTED.rstrip("}")) or not is_secret(name, bare):
            continue
        before, _, after = value[0].partition(bare)
        pieces += [text[done : match.end()], before, REDACTED, after]
        done = value.end()
    return "".join([*pieces, text[done:]])


def redact_url(url: str, mark: str = REDACTED) -> str:
    """Return *url* with *mark* for its user and password and for secret values of its query."""
    scheme, user, rest = split_user(url)
    try:
        parts = urlsplit(f"{scheme}{rest}")
    except ValueError:  # an address in brackets that is none
        return mark
    kept = f"{mark}@" if user and mark else ""
    query = "&".join(_redact_parameter(parameter, mark) for parameter in parts.query.split("&"))
    return urlunsplit((parts.scheme, kept + parts.netloc, parts.path, query, parts.fragment))


def split_user(url: str) -> tuple[str, str, str]:
    """Return the scheme of *url* with ``://``, the user and password, and the rest.

    A password that nobody escaped may hold ``#``, ``?``, ``/`` and ``@``, so the user ends at the
    last ``@``, unless what comes before a ``/`` is a host, or a user without a password.
    """
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority:
        user, at, after = ("", "", rest) if _HOST.fullmatch(authority) else rest.rpartition("@")
    elif ":" in authority.rpartition("@")[0]:
        user, at, after = rest.rpartition("@")
    else:
        name, at, host = authority.rpartition("@")
        user, after = name, host + rest[len(authority) :]
    return f"{scheme}{separator}", user, after if at else rest


def _redact_parameter(parameter: str, mark: str) -> str:
    name, equals, value = parameter.partition("=")
    words = {word.lower() for word in _WORDS.findall(name)}
    secret = is_secret_name(name) or not words.isdisjoint(_SECRET_QUERY)
    return f"{name}={mark}" if equals and value and secret else parameter


def public_remote(url: str) -> str:
    """Return where a repository can be had: no user, no query; empty for a path on this machine.

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
    r"""Return *text* as UTF-8 can hold it: bytes that are none become ``\xff``."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace").decode()
