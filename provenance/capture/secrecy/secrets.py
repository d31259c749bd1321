"""The table of what must not be published: credentials, and what leads to a person or a machine.

:mod:`~provenance.capture.secrecy.redact` replaces what a row finds where a value is written down;
:mod:`~provenance.capture.secrecy.scan` looks for the credentials in the finished document. Both
read this one table. Each row has a ``kind``, which the mark names, and a source.

- A :class:`Shape` is recognised by its form. ``scope`` says where it applies: ``document`` shapes
  are also refused in the finished document; ``text`` shapes are only replaced, in arguments, URLs
  and variables; ``variables`` shapes are replaced in variables alone.
- A :class:`Name` makes the value of that name secret. Names are split into words at ``_ - .`` and
  between lower and upper case. ``--sort-key`` and ``max_tokens`` are harmless, so a value whose
  name is only *suspect* is hidden if it looks random; a *variable* of such a name is secret.
- A :class:`Form` is an option whose meaning depends on the program: after ``mysql``, ``-p8080`` is
  a password; elsewhere it is a port.

Every search is linear in the text: repetitions are possessive or bounded, and start only where no
earlier one could have.

Sources: *gitleaks* is its rule of that name (config/gitleaks.toml at 009e025); others are the
issuer's documentation, an RFC, or a manual page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Span = tuple[int, int, str]
"""Where something is in a text, and its kind."""

Scope = Literal["document", "text", "variables"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is recognised by its form.

    ``find`` returns the places in a text; its second argument is the context of the text.
    """

    kind: str
    find: Callable[[str, str], Iterable[tuple[int, int]]]
    source: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class Name:
    """A name whose value is secret: it has one of ``words``, or a word with one of ``endings``.

    That word must not follow one of ``unless``, must follow one of ``after`` if given, and must be
    the last if ``last``. A name that contains a part of ``inside`` is suspect.
    """

    kind: str
    source: str
    words: frozenset[str] = frozenset()
    endings: tuple[str, ...] = ()
    after: frozenset[str] = frozenset()
    unless: frozenset[str] = frozenset()
    inside: tuple[str, ...] = ()
    last: bool = False
    certain: bool = True

    def fits(self, name: str, words: list[str]) -> bool:
        """Tell whether *name*, whose lower-case words are *words*, is such a name."""
        for number, word in enumerate(words):
            end = next((end for end in self.endings if word.endswith(end)), "")
            if not (end or word in self.words) or (self.last and number + 1 < len(words)):
                continue
            before = (end and word.removesuffix(end)) or (words[number - 1] if number else "")
            if before not in self.unless and (not self.after or before in self.after):
                return True
        name = name.lower().replace("tokeniz", "").replace("-", "_") if self.inside else ""
        return any(part in name for part in self.inside)


@dataclass(frozen=True, slots=True)
class Form:
    """An option whose next words, up to ``values``, are secret, or whose own group ``value`` is."""

    kind: str
    option: re.Pattern[str]
    programs: frozenset[str]
    source: str
    value: re.Pattern[str]
    values: int


_EDGE = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2}))"
"""A token follows no letter or digit, unless that is an escape in a URL."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _shape(kind: str, pattern: str, source: str, *hints: str, scope: Scope = "document") -> Shape:
    """Return a row. *pattern* (its group ``secret``, if any) is tried if the text has a hint."""
    compiled = re.compile(pattern, re.VERBOSE)
    group = "secret" if "secret" in compiled.groupindex else 0

    def find(text: str, beside: str) -> Iterator[tuple[int, int]]:
        if not hints or any(hint in text or hint in beside for hint in hints):
            yield from (match.span(group) for match in compiled.finditer(text))

    return Shape(kind, find, source, scope)


def _token(kind: str, pattern: str, source: str, *hints: str) -> Shape:
    return _shape(kind, _EDGE + pattern, source, *hints)


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"]+")
_HOST = re.compile(r"(?:[\w-]+(?:\.[\w-]+)+|\[[^\]]*\]|localhost)(?::[0-9]{0,5})?|[\w.-]*")
"""The host of a URL without a user; it has a port only if it has a dot."""

_SECRET_QUERY = frozenset({"sig", "signature", "key", "code"})
_NOBODY = frozenset({"git", "hg"})
"""Shared user names of repositories over SSH."""


def split_user(url: str) -> tuple[str, str, str]:
    """Return the scheme of *url* with ``://``, the user and password, and the rest.

    An unescaped password may contain ``#``, ``?``, ``/`` and ``@``, so the user ends at the last
    ``@``, unless a host, or a user without a password, precedes a ``/``.
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


def urls_in(text: str) -> Iterator[re.Match[str]]:
    """Yield the URLs in *text*."""
    if "://" in text:
        yield from _URL.finditer(text)


def _users_of_urls(text: str, _beside: str) -> Iterator[tuple[int, int]]:
    for match in urls_in(text):
        scheme, user, rest = split_user(match[0])
        start = match.start() + len(scheme)
        if user and user not in _NOBODY:
            yield start, start + len(user)
        try:
            urlsplit(scheme + rest)
        except ValueError:  # an invalid address in brackets; in Markdown there is none before @
            if "@" in match[0]:
                yield match.span()


def _secrets_of_queries(text: str, _beside: str) -> Iterator[tuple[int, int]]:
    for match in urls_in(text):
        scheme, user, _ = split_user(match[0])
        place = match[0].find("?", len(scheme) + len(user)) + 1
        if not place:
            continue
        for parameter in match[0][place:].partition("#")[0].split("&"):
            name, equals, value = parameter.partition("=")
            if equals and value and (is_secret_name(name) or _SECRET_QUERY & set(words_of(name))):
                start = match.start() + place + len(name) + 1
                yield start, start + len(value)
            place += len(parameter) + 1


_HEADER = r"""["']?\s*+[:=]\s*+["']?(?:(?:basic|bearer|digest|key|negotiate|token)\s+)?+
    (?P<secret>(?:=["'][^"'\r\n]*["']|[^"'\r\n])++)"""
"""A header's value, of one or more words; the scheme is kept."""

_MAIL_ENDINGS = "bin|ckpt|csv|gguf|json|jsonl|npy|npz|onnx|parquet|pth|safetensors|toml|txt|ya?ml"
"""File extensions, which are no top-level domains: ``model@best.ckpt``."""

_BYTE = r"(?:\.[0-9]{1,3})"
_LABELS = r"(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,8}"

SHAPES = (
    _shape("private-key",
           r"-----BEGIN[ ](?:[A-Z]{1,16}[ ]){0,4}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----[^-]*+"
           r"(?:-----END[ ](?:[A-Z]{1,16}[ ]){0,4}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----)?",
           "RFC 7468, RFC 4880 6.2", "-----BEGIN "),
    _token("slack-webhook", r"https://hooks\.slack(?:-gov)?\.com/\w+/[\w/+-]{20,}",
           "gitleaks slack-webhook-url", "hooks.slack"),
    _token("discord-webhook", r"https://(?:\w+\.)?discord(?:app)?\.com/api/(?:v[0-9]+/)?webhooks/"
           r"[0-9]{10,24}/[\w-]{20,}", "Discord developers, webhook resource", "/webhooks/"),
    _token("slack", r"(?:xox[a-z]|xapp)-(?:[0-9]-)?[A-Za-z0-9-]{10,}", "gitleaks slack-*",
           "xox", "xapp-"),
    _shape("telegram", rf"(?:{_EDGE}|(?<=bot))[0-9]{{6,16}}:A[\w-]{{34}}(?![\w-])",
           "gitleaks telegram-bot-api-token", ":A"),
    _token("hugging-face", r"(?:hf_|api_org_)[A-Za-z0-9]{20,}", "gitleaks huggingface-*",
           "hf_", "api_org_"),
    _token("github", r"(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})", "gitleaks github-*",
           "gh", "github_pat_"),
    _token("gitlab", r"gl(?:pat|rt|ptt|dt|soat|imt|agent|cbt|ft|oas)-[\w-]{20,}",
           "GitLab docs, token prefixes; gitleaks gitlab-*", "gl"),
    _token("databricks", r"dapi[0-9a-f]{32}(?:-[0-9])?", "gitleaks databricks-api-token", "dapi"),
    _token("vault", r"hv[sbr]\.[\w-]{20,}", "gitleaks vault-*", "hv"),
    _token("sendgrid", r"SG\.[\w-]{16,32}\.[\w-]{32,64}", "gitleaks sendgrid-api-token", "SG."),
    _token("google", r"(?:GOCSPX-[\w-]{20,}|ya29\.[\w-]{20,}|AIza[\w-]{35})",
           "Google Cloud, authentication; gitleaks gcp-api-key", "GOCSPX-", "ya29.", "AIza"),
    _token("groq", r"gsk_[A-Za-z0-9]{20,}", "GroqCloud, API keys", "gsk_"),
    _token("docker", r"dckr_[a-z]{3}_[\w-]{20,}", "Docker Hub, access tokens", "dckr_"),
    _token("age", r"AGE-SECRET-KEY-1[0-9A-Z]{50,}", "age(1); gitleaks age-secret-key",
           "AGE-SECRET-KEY-1"),
    _token("neptune", r"eyJhcGlf[A-Za-z0-9+/=_-]{24,}", 'neptune: base64 of {"api_address": …}',
           "eyJhcGlf"),
    _token("jwt", r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*", "RFC 7519 3.1", "eyJ"),
    _token("stripe", r"[srp]k_(?:live|test|prod)_[A-Za-z0-9]{10,}", "gitleaks stripe-access-token",
           "k_live_", "k_test_", "k_prod_"),
    _token("replicate", r"r8_[A-Za-z0-9]{30,}", "Replicate, API tokens", "r8_"),
    _token("together", r"tgp_v1_[\w-]{20,}", "Together, API keys", "tgp_v"),
    _token("openai", r"sk-(?=[\w-]{0,200}[0-9])(?=[\w-]{0,200}[A-Z])[\w-]{20,}",  # not sk-learn-…
           "OpenAI and Anthropic, API keys", "sk-"),
    _token("nvidia", r"nvapi-[\w-]{20,}", "NVIDIA NGC, API keys", "nvapi-"),
    _token("wandb", r"wandb_v1_\w{20,}", "Weights & Biases, API keys", "wandb_v1_"),
    _token("npm", r"npm_[A-Za-z0-9]{36}", "gitleaks npm-access-token", "npm_"),
    _token("pypi", r"pypi-[\w-]{50,}", "gitleaks pypi-upload-token", "pypi-"),
    _token("aws", r"(?:AKIA|ASIA)[0-9A-Z]{16}", "gitleaks aws-access-token", "AKIA", "ASIA"),
    _shape("aws-secret",  # with an access key in the context; not a hexadecimal digest or a path
           r"(?<![A-Za-z0-9/+=])(?![0-9a-f]{40}|/)(?=[A-Za-z/+]{0,39}[0-9])(?=[a-z0-9/+]{0,39}[A-Z])"
           r"(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
           "AWS IAM, managing access keys", "AKIA", "ASIA"),
    Shape("user", _users_of_urls, "RFC 3986 3.2.1", "document"),
    Shape("parameter", _secrets_of_queries, "RFC 3986 3.4", "text"),
    _shape("authorization", rf"(?i:authorization{_HEADER})", "RFC 9110 11.6.2", scope="text"),
    _shape("cookie", rf"(?i:\bcookie{_HEADER.replace('[:=]', ':')})", "RFC 6265 4.2", scope="text"),
    _shape("bearer", r"(?i:\b(?:bearer|basic)\s++(?P<secret>[\w.~+/=-]{8,}+))", "RFC 6750 2.1",
           scope="text"),
    _shape(
        "user",
        r"""(?<![\w.+/:-])(?<!\$\{)(?P<secret>[\w.+-]{1,100}+:(?!//)[^\s'"]{1,256})@
        (?=(?:(?:[\w-]{1,63}\.){1,9}[A-Za-z]{2,20}|[0-9]+(?:\.[0-9]+){3}|localhost)(?:[:/\s'"]|$)
          |(?!sha[0-9]+:)[A-Za-z][\w-]{0,62}:[0-9]{2,5}(?!\w))""",
        "scp(1)", "@", scope="text"),
    _shape(
        "email",
        rf"""(?<![\w.%+-])(?!(?:git|hg)@)(?P<secret>[\w.%+-]{{1,64}}(?:@|%40)
        (?:[A-Za-z0-9-]{{1,63}}\.){{1,8}}(?!(?:{_MAIL_ENDINGS})\b)[A-Za-z]{{2,24}})(?![\w-])""",
        "RFC 5321 4.1.2", "@", "%40", scope="text"),
    _shape(
        "private-address",
        rf"""(?<![\w.])(?:10{_BYTE}{{3}}|192\.168{_BYTE}{{2}}|169\.254{_BYTE}{{2}}
          |172\.(?:1[6-9]|2[0-9]|3[01]){_BYTE}{{2}}
          |100\.(?:6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7]){_BYTE}{{2}})(?!\.?[0-9])
        |(?<![\w:.])(?i:f[cd][0-9a-f]{{2}}|fe[89ab][0-9a-f])(?::[0-9a-fA-F]{{0,4}}){{2,7}}(?!\w)""",
        "RFC 1918, 3927, 6598, 4193, 4291", scope="text"),
    _shape(
        "gpu-uuid",
        r"(?<![\w-])(?:MIG-)?(?:GPU|MIG)-[0-9a-fA-F]{6,8}(?:-[0-9a-fA-F]{1,12}){0,4}(?:/[0-9]+){0,2}",
        "CUDA C++ programming guide, CUDA_VISIBLE_DEVICES", "GPU-", "MIG-", scope="text"),
    _shape(
        "user",
        r"""(?:(?<![\w.$}~-])(?:/(?:var|usr|export|mnt|nfs|gpfs))?(?:/home|/Users)/
        |(?<![\w.$}/~-])~(?=[a-z_][\w.-]{0,63}/))(?P<secret>(?!(?i:shared)\b)[^\s/'":;,$]+)""",
        "hier(7)", "/home/", "/Users/", "~", scope="text"),
    _shape(
        "host",
        r"""://(?:[^\s/@'"]{0,256}@)?(?P<secret>(?!localhost\b|127\.)[\w.-]{1,253}
        |\[[0-9a-fA-F:.]{2,60}\])""",
        "RFC 3986 3.2.2", "://", scope="variables"),
    _shape(
        "host",
        rf"""(?<![\w./@-])(?!localhost\b|127\.)(?:
            {_LABELS}(?:internal|local|lan|corp|intranet|localdomain|svc|com|org|net|edu|gov|cloud
              |io|ai|dev)(?![\w-]|\.\w)
          | {_LABELS}[A-Za-z][A-Za-z0-9-]{{0,62}}(?=:[0-9]{{2,5}}(?![\w.]))
          | [0-9]{{1,3}}{_BYTE}{{3}}(?![\w.])
          | (?=[a-z-]{{0,62}}[0-9])[A-Za-z][A-Za-z0-9-]{{1,62}}(?=:[1-9][0-9]{{3,4}}(?![\w.])))""",
        "RFC 1123 2.1", scope="variables"),
)  # fmt: skip
"""Credentials first: of two that overlap, the earlier row names the kind."""

_BEFORE_KEY = _set("access account api auth client encryption private secret signing ssh")
_TEXT = _set("bos cls eos image mask max min new num pad per sep special stop unk use")
"""Words before ``token`` that are about text, not access."""

_PASSES = _set(
    """all band by com each first forward backward high low max min multi n num one per second
    single sur test third train two"""
)
"""Words before ``pass`` that are about a pass over something; in one word too (``bypass``)."""

NAMES = (
    Name("password", "recording.md 6; OpenSSL, sshpass(1), PostgreSQL, MySQL",
         _set("passphrase passwd password passwords pwd sshpass"), ("password", "passwd")),
    Name("password", "recording.md 6", endings=("pass",), unless=_PASSES, last=True),
    Name("token", "recording.md 6; RFC 7519", _set("jwt token"), unless=_TEXT),
    Name("token", "recording.md 6", endings=("accesstoken", "authtoken")),
    Name("token", "Azure DevOps, personal access tokens", _set("pat"), last=True,
         unless=frozenset({"", "exclude", "file", "glob", "include", "name"})),  # patterns
    Name("key", "recording.md 6", _set("apikey sshkey"), ("apikey",)),
    Name("key", "recording.md 6", _set("key"), after=_BEFORE_KEY),
    Name("credential", "recording.md 6; RFC 9110 11.6.2",
         _set("auth authorization cookie credential credentials secret secrets")),
    Name("key", "recording.md 6", endings=("key", "keys", "tokens"), last=True, certain=False),
    Name("credential", "recording.md 6", endings=("dsn",), last=True, certain=False,
         inside=("token", "secret", "password", "passwd", "passphrase", "credential", "apikey",
                 "sshkey", "jwt", "cookie", "netrc", "connection_string", "connectionstring",
                 "connection_str", "database_url", "databaseurl")),
)  # fmt: skip

FILES = re.compile(
    r"""(?!.*\.(?:pyc?|pyd|so|sh|ipynb)\Z)(?:\.env.* | .+\.(?:pem|key|p12|pfx|jks|keystore|kdbx|ppk)
    | id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)? | [._]?netrc | \.?credentials?(?:\..+)? | kaggle\.json
    | \.(?:pgpass|my\.cnf|pypirc|npmrc|git-credentials|htpasswd|boto|s3cfg|dockercfg|vault-token)
    | client_secrets?.*\.json | (?:service[-_]account|application_default_credentials).*\.json
    | (?:secrets?|passwords?|passwd)(?:\.(?:txt|json|ya?ml|toml|ini))?)""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""Last names of files that hold secrets, not code: ssh-keygen(1), netrc(5), PostgreSQL's pgpass,
the command lines of Kaggle, Google Cloud, AWS and npm, gitleaks pkcs12-file."""

_SCRIPTS = """ sh bash dash zsh ksh env python script torchrun accelerate deepspeed srun mpirun
    nohup time timeout uv poetry conda make"""
"""Programs that run another one, whose options are unknown; ``script`` is any ``x.sh`` and
``x.py``, ``python`` any Python."""

_ANY = r".+"
_LOGIN = r"(?![\w.-]+:[0-9]{0,2}\Z|[0-9]+:[0-9]+\Z)[^:/\s]+:(?!//).+"


def _form(
    kind: str, option: str, programs: str, source: str, value: str = _ANY, values: int = 1
) -> Form:
    patterns = (re.compile(pattern, re.DOTALL) for pattern in (option, value))
    return Form(kind, next(patterns), _set(programs), source, next(patterns), values)


FORMS = (
    _form("password", r"(?:-[sSkLfiv]{0,6}[uU]|--(?:proxy-)?user(?==|\Z)=?)(?P<value>.+)?",
          "curl" + _SCRIPTS, "curl(1)", _LOGIN),
    _form("password", r"(?:-a|--auth=?)(?P<value>.+)?", "http https httpie xh",
          "httpie, authentication", _LOGIN),
    _form("password", r"-p(?P<value>.+)", """mysql mysqldump mysqladmin mysqlimport mysqlshow
          mariadb mariadb-dump mariadb-admin sshpass mongo mongosh mongodump mongorestore 7z 7za 7zr
          rar unrar""", "mysql(1), sshpass(1), 7z(1)"),
    _form("password", r"-p(?P<value>)", "sshpass mongo mongosh mongodump mongorestore login",
          "sshpass(1), docker-login(1)"),
    _form("password", r"-P(?P<value>.+)?", "bcp sqlcmd zip unzip", "zip(1), sqlcmd(1)"),
    _form("password", r"-w(?P<value>.+)?", "ldapsearch ldapadd ldapmodify", "ldapsearch(1)"),
    _form("password", r"-a(?P<value>.+)?", "redis-cli", "redis-cli(1)"),
    _form("password", r"--?pw(?:=(?P<value>.+))?", "plink pscp psftp" + _SCRIPTS,
          "PuTTY manual 3.11.3.8"),
    _form("pin", r"--pin(?:=(?P<value>.+))?", "pkcs11-tool" + _SCRIPTS, "pkcs11-tool(1)"),
    _form("credential", r"--auth(?P<value>)", "http https httpie xh" + _SCRIPTS,
          "Python, argparse nargs=2", values=2),
)  # fmt: skip

PROGRAMS = frozenset[str]().union(*(form.programs for form in FORMS))

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_RANDOM_LENGTH = 16
_RANDOM_DIGITS = 3


def words_of(name: str) -> list[str]:
    """Return the words of *name*, in lower case."""
    return [word.lower() for word in _WORDS.findall(name)]


def kind_of_name(name: str, value: str | None = None) -> str:
    """Return the kind of secret that *value* is by its *name*, or "".

    None for *value* asks for names that make every value secret.
    """
    words = words_of(name)
    for row in NAMES:
        if (row.certain or (value is not None and looks_random(value))) and row.fits(name, words):
            return row.kind
    return ""


def is_secret_file(path: str) -> bool:
    """Tell whether the file *path* holds secrets, by its last name."""
    return FILES.fullmatch(path.rpartition("/")[2]) is not None


def is_secret_name(name: str) -> bool:
    """Tell whether every value called *name* is secret."""
    return kind_of_name(name) != ""


def is_suspect_name(name: str) -> bool:
    """Tell whether a value called *name* is secret, always or if it looks random."""
    words = words_of(name)
    return any(row.fits(name, words) for row in NAMES)


def looks_random(value: str) -> bool:
    """Tell whether *value* looks like a key: long, one word, with digits and letters."""
    return (
        len(value) >= _RANDOM_LENGTH
        and re.fullmatch(r"[A-Za-z0-9_+/=.-]+", value) is not None
        and sum(character.isdigit() for character in value) >= _RANDOM_DIGITS
        and sum(character.isalpha() for character in value) >= _RANDOM_DIGITS
    )
