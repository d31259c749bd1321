"""The table of what must not be published: credentials, and what leads to a person or a machine.

:mod:`~provenance.capture.redact` replaces what a row finds where a value is written down;
:mod:`~provenance.capture.scan` looks for the credentials in the finished document. Both read this
one table. A row names its ``kind``, which stands in the mark, its source, and an example.

- A :class:`Shape` is told by what it looks like. ``scope`` says where: ``document`` for what is
  refused in the finished document, too; ``text`` for what is only replaced, in arguments, URLs and
  variables; ``variables`` for what is replaced in variables alone.
- A :class:`Name` says that a value called so is secret. Names are split into words at ``_ - .`` and
  between lower and upper case. ``--sort-key`` and ``max_tokens`` are harmless, so a value whose
  name is only *suspect* is hidden if it looks random; a *variable* of such a name is secret.
- A :class:`Form` is an option that has another meaning elsewhere: it counts only after one of its
  programs. After ``mysql``, ``-p8080`` is a password; elsewhere it is a port.

Every search takes time linear in the text: repetitions are possessive or bounded, and begin only
where no earlier one could have.

Sources: *gitleaks* is its rule of that name (config/gitleaks.toml at 009e025); others are the
issuer's documentation, an RFC, or a manual page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Span = tuple[int, int, str]
"""Where something is in a text, and its kind."""

Scope = Literal["document", "text", "variables"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is told by its looks; ``hidden`` is the part of ``example`` that must not remain.

    ``find`` gives the places in a text; its second argument is what else stands beside the text.
    """

    kind: str
    find: Callable[[str, str], Iterable[tuple[int, int]]]
    source: str
    example: str
    hidden: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class Name:
    """A name whose value is secret: one of its words, or the end of one, says so.

    It must not follow a word of ``unless``, must follow one of ``after`` if there are any, and must
    be the last word if ``last``. ``inside`` are parts of a name that make it suspect.
    """

    kind: str
    source: str
    examples: str
    words: frozenset[str]
    after: frozenset[str]
    unless: frozenset[str]
    endings: tuple[str, ...]
    inside: tuple[str, ...]
    last: bool
    certain: bool

    def fits(self, name: str, words: list[str]) -> bool:
        """Tell whether *name*, which consists of *words* in lower case, is one of these."""
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
    example: str
    value: re.Pattern[str]
    values: int


_EDGE = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2}))"
"""What stands before a token: no letter or digit, unless it is an escape in a URL."""


def _shape(
    kind: str, pattern: str, source: str, example: str, *hints: str, hidden: str = "",
    scope: Scope = "document",
) -> Shape:  # fmt: skip
    """Return a row: *pattern*, whose group ``secret`` counts, is tried where a hint is there."""
    compiled = re.compile(pattern, re.VERBOSE)
    group = "secret" if "secret" in compiled.groupindex else 0

    def find(text: str, beside: str) -> Iterator[tuple[int, int]]:
        if not hints or any(hint in text or hint in beside for hint in hints):
            yield from (match.span(group) for match in compiled.finditer(text))

    return Shape(kind, find, source, example, hidden or example, scope)


def _token(kind: str, pattern: str, source: str, example: str, *hints: str) -> Shape:
    return _shape(kind, _EDGE + pattern, source, example, *hints)


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"]+")
_HOST = re.compile(r"(?:[\w-]+(?:\.[\w-]+)+|\[[^\]]*\]|localhost)(?::[0-9]{0,5})?|[\w.-]*")
"""What stands before a path in a URL, if it is no user: with a port only if it has a dot."""

_SECRET_QUERY = frozenset("sig signature key code".split())
_NOBODY = frozenset({"git", "hg"})
"""Users by which everybody reaches a repository over SSH."""


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
        except ValueError:  # an address in brackets that is none
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
"""A header's value, which may have several words; the scheme stays."""

_MAIL_ENDINGS = "bin|ckpt|csv|gguf|json|jsonl|npy|npz|onnx|parquet|pth|safetensors|toml|txt|ya?ml"
"""Last words after a dot that name a file, not a country: ``model@best.ckpt``."""

_TEN = "aB3dE5gH7j"
_HEX = "0123456789abcdef"
_BYTE = r"(?:\.[0-9]{1,3})"
_LABELS = r"(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,8}"

SHAPES = (
    _shape(
        "private-key",
        r"-----BEGIN[ ](?:[A-Z]{1,16}[ ]){0,4}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----[^-]*+"
        r"(?:-----END[ ](?:[A-Z]{1,16}[ ]){0,4}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----)?",
        "RFC 7468, RFC 4880 6.2",
        "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----", "-----BEGIN ",
    ),
    _token(
        "slack-webhook", r"https://hooks\.slack(?:-gov)?\.com/\w+/[\w/+-]{20,}",
        "gitleaks slack-webhook-url", "https://hooks.slack.com/" + "services/T0/B0/X" + _TEN * 2,
        "hooks.slack",
    ),
    _token(
        "discord-webhook",
        r"https://(?:\w+\.)?discord(?:app)?\.com/api/(?:v[0-9]+/)?webhooks/[0-9]{10,24}/[\w-]{20,}",
        "Discord developers, webhook resource",
        "https://discord.com/" + "api/webhooks/123456789012345678/" + _TEN * 3, "/webhooks/",
    ),
    _token("slack", r"(?:xox[a-z]|xapp)-(?:[0-9]-)?[A-Za-z0-9-]{10,}", "gitleaks slack-*",
           "xapp-" + "1-A012345-" + _TEN, "xox", "xapp-"),
    _shape("telegram", rf"(?:{_EDGE}|(?<=bot))[0-9]{{6,16}}:A[\w-]{{34}}(?![\w-])",
           "gitleaks telegram-bot-api-token", "123456789:" + "AAH" + _TEN * 3 + "_-", ":A"),
    _token("hugging-face", r"(?:hf_|api_org_)[A-Za-z0-9]{20,}", "gitleaks huggingface-*",
           "api_org_" + _TEN * 3, "hf_", "api_org_"),
    _token("github", r"(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})", "gitleaks github-*",
           "ghp_" + _TEN * 3, "gh", "github_pat_"),
    _token("gitlab", r"gl(?:pat|rt|ptt|dt|soat|imt|agent|cbt|ft|oas)-[\w-]{20,}",
           "GitLab docs, token prefixes; gitleaks gitlab-*", "glrt-" + _TEN * 2, "gl"),
    _token("databricks", r"dapi[0-9a-f]{32}(?:-[0-9])?", "gitleaks databricks-api-token",
           "dapi" + _HEX * 2, "dapi"),
    _token("vault", r"hv[sbr]\.[\w-]{20,}", "gitleaks vault-*", "hvs." + _TEN * 3, "hv"),
    _token("sendgrid", r"SG\.[\w-]{16,32}\.[\w-]{32,64}", "gitleaks sendgrid-api-token",
           "SG." + _TEN * 2 + "." + _TEN * 4, "SG."),
    _token("google", r"(?:GOCSPX-[\w-]{20,}|ya29\.[\w-]{20,}|AIza[\w-]{35})",
           "Google Cloud, authentication; gitleaks gcp-api-key", "GOCSPX-" + _TEN * 3,
           "GOCSPX-", "ya29.", "AIza"),
    _token("groq", r"gsk_[A-Za-z0-9]{20,}", "GroqCloud, API keys", "gsk_" + _TEN * 5, "gsk_"),
    _token("docker", r"dckr_[a-z]{3}_[\w-]{20,}", "Docker Hub, access tokens",
           "dckr_" + "pat_" + _TEN * 3, "dckr_"),
    _token("age", r"AGE-SECRET-KEY-1[0-9A-Z]{50,}", "age(1); gitleaks age-secret-key",
           "AGE-SECRET-" + "KEY-1" + "Q" * 58, "AGE-SECRET-KEY-1"),
    _token("neptune", r"eyJhcGlf[A-Za-z0-9+/=_-]{24,}", 'neptune: base64 of {"api_address": …}',
           "eyJhcGlf" + "YWRkcmVzcyI6Imh0dHBzOi8vYXBwIn0=", "eyJhcGlf"),
    _token("jwt", r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*", "RFC 7519 3.1",
           "eyJ" + _TEN * 2 + ".eyJ" + _TEN * 2 + ".c-_d", "eyJ"),
    _token("stripe", r"[srp]k_(?:live|test|prod)_[A-Za-z0-9]{10,}", "gitleaks stripe-access-token",
           "sk_" + "live_" + _TEN * 2, "k_live_", "k_test_", "k_prod_"),
    _token("replicate", r"r8_[A-Za-z0-9]{30,}", "Replicate, API tokens", "r8_" + _TEN * 4, "r8_"),
    _token("together", r"tgp_v1_[\w-]{20,}", "Together, API keys", "tgp_" + "v1_" + _TEN * 4,
           "tgp_v"),
    _token("openai", r"sk-(?=[\w-]{0,200}[0-9])(?=[\w-]{0,200}[A-Z])[\w-]{20,}",  # not sk-learn-…
           "OpenAI and Anthropic, API keys", "sk-" + "proj-" + _TEN * 3, "sk-"),
    _token("nvidia", r"nvapi-[\w-]{20,}", "NVIDIA NGC, API keys", "nvapi-" + _TEN * 3, "nvapi-"),
    _token("wandb", r"wandb_v1_\w{20,}", "Weights & Biases, API keys", "wandb_" + "v1_" + _TEN * 3,
           "wandb_v1_"),
    _token("npm", r"npm_[A-Za-z0-9]{36}", "gitleaks npm-access-token", "npm_" + "a" * 36, "npm_"),
    _token("pypi", r"pypi-[\w-]{50,}", "gitleaks pypi-upload-token", "pypi-" + "a" * 60, "pypi-"),
    _token("aws", r"(?:AKIA|ASIA)[0-9A-Z]{16}", "gitleaks aws-access-token",
           "AKIA" + "ABCDEFGH" * 2, "AKIA", "ASIA"),
    _shape(
        "aws-secret",  # beside an access key, and neither a digest in hexadecimal nor a path
        r"(?<![A-Za-z0-9/+=])(?![0-9a-f]{40}|/)(?=[A-Za-z/+]{0,39}[0-9])(?=[a-z0-9/+]{0,39}[A-Z])"
        r"(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        "AWS IAM, managing access keys", "AKIA" + "ABCDEFGH" * 2 + " " + "wJalr/7MD+" * 4,
        "AKIA", "ASIA", hidden="wJalr/7MD+" * 4,
    ),
    Shape("user", _users_of_urls, "RFC 3986 3.2.1", "https://bob:hunter2z@example.org/x",
          "hunter2z", "document"),
    Shape("parameter", _secrets_of_queries, "RFC 3986 3.4",
          "https://example.org/x?sig=hunter2z&y=1", "hunter2z", "text"),
    _shape("authorization", rf"(?i:authorization{_HEADER})", "RFC 9110 11.6.2",
           "Authorization: Token hunter2z", hidden="hunter2z", scope="text"),
    _shape("cookie", rf"(?i:\bcookie{_HEADER.replace('[:=]', ':')})", "RFC 6265 4.2",
           "Cookie: a=hunter2z; b=1", hidden="hunter2z", scope="text"),
    _shape("bearer", r"(?i:\b(?:bearer|basic)\s++(?P<secret>[\w.~+/=-]{8,}+))", "RFC 6750 2.1",
           "bearer hunter2z9", hidden="hunter2z9", scope="text"),
    _shape(
        "user",
        r"""(?<![\w.+/:-])(?<!\$\{)(?P<secret>[\w.+-]{1,100}+:(?!//)[^\s'"]{1,256})@
        (?=(?:(?:[\w-]{1,63}\.){1,9}[A-Za-z]{2,20}|[0-9]+(?:\.[0-9]+){3}|localhost)(?:[:/\s'"]|$))""",
        "scp(1)", "bob:hunter2z@example.org:a/b", "@", hidden="hunter2z", scope="text",
    ),
    _shape(
        "email",
        rf"""(?<![\w.%+-])(?!(?:git|hg)@)(?P<secret>[\w.%+-]{{1,64}}(?:@|%40)
        (?:[A-Za-z0-9-]{{1,63}}\.){{1,8}}(?!(?:{_MAIL_ENDINGS})\b)[A-Za-z]{{2,24}})(?![\w-])""",
        "RFC 5321 4.1.2", "alice.b@mail.example.org", "@", "%40", scope="text",
    ),
    _shape(
        "private-address",
        rf"""(?<![\w.])(?:10{_BYTE}{{3}}|192\.168{_BYTE}{{2}}|169\.254{_BYTE}{{2}}
          |172\.(?:1[6-9]|2[0-9]|3[01]){_BYTE}{{2}}
          |100\.(?:6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7]){_BYTE}{{2}})(?!\.?[0-9])
        |(?<![\w:.])(?i:f[cd][0-9a-f]{{2}}|fe[89ab][0-9a-f])(?::[0-9a-fA-F]{{0,4}}){{2,7}}(?!\w)""",
        "RFC 1918, 3927, 6598, 4193, 4291", "192.168.7.21", scope="text",
    ),
    _shape(
        "gpu-uuid",
        r"(?<![\w-])(?:MIG-)?(?:GPU|MIG)-[0-9a-fA-F]{6,8}(?:-[0-9a-fA-F]{1,12}){0,4}(?:/[0-9]+){0,2}",
        "CUDA C++ programming guide, CUDA_VISIBLE_DEVICES",
        "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-", "MIG-", scope="text",
    ),
    _shape(
        "user",
        r"""(?:(?<![\w.$}~-])(?:/(?:var|usr|export|mnt|nfs|gpfs))?(?:/home|/Users)/
        |(?<![\w.$}/~-])~(?=[a-z_][\w.-]{0,63}/))(?P<secret>(?!(?i:shared)\b)[^\s/'":;,$]+)""",
        "hier(7)", "/home/bob/cache", "/home/", "/Users/", "~", hidden="bob", scope="text",
    ),
    _shape(
        "host",
        r"""://(?:[^\s/@'"]{0,256}@)?(?P<secret>(?!localhost\b|127\.)[\w.-]{1,253}
        |\[[0-9a-fA-F:.]{2,60}\])""",
        "RFC 3986 3.2.2", "tcp://node17.example.org:29500", "://", hidden="node17.example.org",
        scope="variables",
    ),
    _shape(
        "host",
        rf"""(?<![\w./@-])(?!localhost\b|127\.)(?:
            {_LABELS}(?:internal|local|lan|corp|intranet|localdomain|svc|com|org|net|edu|gov|cloud
              |io|ai|dev)(?![\w-]|\.\w)
          | {_LABELS}[A-Za-z][A-Za-z0-9-]{{0,62}}(?=:[0-9]{{2,5}}(?![\w.]))
          | [0-9]{{1,3}}{_BYTE}{{3}}(?![\w.])
          | (?=[a-z-]{{0,62}}[0-9])[A-Za-z][A-Za-z0-9-]{{1,62}}(?=:[1-9][0-9]{{3,4}}(?![\w.])))""",
        "RFC 1123 2.1", "w0.corp.internal:29500", hidden="w0.corp.internal", scope="variables",
    ),
)  # fmt: skip
"""What is told by its looks, credentials first: of two that overlap the first names the kind."""

_BEFORE_KEY = "access account api auth client encryption private secret signing ssh"
_TEXT = "bos cls eos image mask max min new num pad per sep special stop unk use"
"""Words before ``token`` that speak of text, not of access."""

_PASSES = """all band by com each first forward backward high low max min multi n num one per second
    single sur test third train two"""
"""Words before ``pass`` that speak of a pass over something; in one word too (``bypass``)."""


def _name(  # noqa: PLR0913 - the columns of the table
    kind: str, source: str, examples: str, words: str = "", *, endings: tuple[str, ...] = (),
    inside: tuple[str, ...] = (), after: str = "", unless: Iterable[str] = (), last: bool = False,
    certain: bool = True,
) -> Name:  # fmt: skip
    sets = (frozenset(words.split()), frozenset(after.split()), frozenset(unless))
    return Name(kind, source, examples, *sets, endings, inside, last, certain)


NAMES = (
    _name("password", "recording.md 6; OpenSSL, sshpass(1), PostgreSQL, MySQL",
          "--password db.password PGPASSWORD --passwd Passphrase MYSQL_PWD SSHPASS",
          "passphrase passwd password passwords pwd sshpass", endings=("password", "passwd")),
    _name("password", "recording.md 6", "--db-pass DB_PASS --pass SSHPASS",
          endings=("pass",), unless=_PASSES.split(), last=True),
    _name("token", "recording.md 6; RFC 7519", "--hf-token authToken GITHUB_TOKEN jwt", "jwt token",
          unless=_TEXT.split()),
    _name("token", "recording.md 6", "accesstoken AUTHTOKEN", endings=("accesstoken", "authtoken")),
    _name("token", "Azure DevOps, personal access tokens", "AZURE_PAT --gitlab-pat", "pat",
          unless=("", "exclude", "file", "glob", "include", "name"), last=True),  # patterns
    _name("key", "recording.md 6", "--api-key apiKey APIKEY X-Api-Key sshKey",
          "apikey sshkey", endings=("apikey",)),
    _name("key", "recording.md 6", "secret_key access-key privateKey --ssh-key", "key",
          after=_BEFORE_KEY),
    _name("credential", "recording.md 6; RFC 9110 11.6.2",
          "auth AUTHORIZATION client-secret credentials session_cookie DOCKER_AUTH_CONFIG",
          "auth authorization cookie credential credentials secret secrets"),
    _name("key", "recording.md 6", "KAGGLE_KEY AZURE_STORAGE_KEY --refresh-tokens",
          endings=("key", "keys", "tokens"), last=True, certain=False),
    _name("credential", "recording.md 6", "GITHUBTOKEN NETRC DATABASE_URL SENTRY_DSN",
          inside=("token", "secret", "password", "passwd", "passphrase", "credential", "apikey",
                  "sshkey", "jwt", "cookie", "netrc", "connection_string", "connectionstring",
                  "connection_str", "database_url", "databaseurl"),
          endings=("dsn",), last=True, certain=False),
)  # fmt: skip
"""Names of what is secret."""

_SCRIPTS = frozenset(
    """sh bash dash zsh ksh env python script torchrun accelerate deepspeed srun
    mpirun nohup time timeout uv poetry conda make""".split()
)
"""Programs that run another one, which takes options that nobody knows; ``script`` is any
``x.sh`` and ``x.py``, ``python`` any Python."""

_ANY = re.compile(r"(?s).+")
_USER_AND_PASSWORD = re.compile(r"(?s)(?![\w.-]+:[0-9]{0,2}\Z|[0-9]+:[0-9]+\Z)[^:/\s]+:(?!//).+")


def _form(  # noqa: PLR0913 - the columns of the table
    kind: str, option: str, programs: str, source: str, example: str, *,
    value: re.Pattern[str] = _ANY, values: int = 1, scripts: bool = False,
) -> Form:  # fmt: skip
    named = frozenset(programs.split()) | (_SCRIPTS if scripts else frozenset())
    return Form(kind, re.compile(option, re.DOTALL), named, source, example, value, values)


FORMS = (
    _form("password", r"(?:-[sSkLfiv]{0,6}[uU]|--(?:proxy-)?user(?==|\Z)=?)(?P<value>.+)?",
          "curl", "curl(1)", "curl -u alice:hunter2z", value=_USER_AND_PASSWORD, scripts=True),
    _form("password", r"(?:-a|--auth=?)(?P<value>.+)?", "http https httpie xh",
          "httpie, authentication", "http -a alice:hunter2z", value=_USER_AND_PASSWORD),
    _form("password", r"-p(?P<value>.+)", """mysql mysqldump mysqladmin mysqlimport mysqlshow
          mariadb mariadb-dump mariadb-admin sshpass mongo mongosh mongodump mongorestore 7z 7za 7zr
          rar unrar""", "mysql(1), sshpass(1), 7z(1)", "mysql -uroot -phunter2z"),
    _form("password", r"-p(?P<value>)", "sshpass mongo mongosh mongodump mongorestore login",
          "sshpass(1), docker-login(1)", "docker login -p hunter2z"),
    _form("password", r"-P(?P<value>.+)?", "zip unzip", "zip(1)", "zip -P hunter2z a.zip"),
    _form("password", r"-w(?P<value>.+)?", "ldapsearch ldapadd ldapmodify", "ldapsearch(1)",
          "ldapsearch -w hunter2z"),
    _form("password", r"-a(?P<value>.+)?", "redis-cli", "redis-cli(1)", "redis-cli -a hunter2z"),
    _form("password", r"--?pw(?:=(?P<value>.+))?", "plink pscp psftp", "PuTTY manual 3.11.3.8",
          "sh train.sh --pw hunter2z", scripts=True),
    _form("pin", r"--pin(?:=(?P<value>.+))?", "pkcs11-tool", "pkcs11-tool(1)",
          "python train.py --pin hunter2z", scripts=True),
    _form("credential", r"--auth(?P<value>)", "http https httpie xh", "Python, argparse nargs=2",
          "sh train.sh --auth alice hunter2z", values=2, scripts=True),
)  # fmt: skip
"""Options that are secret only after some programs."""

PROGRAMS = frozenset[str]().union(*(form.programs for form in FORMS))

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_RANDOM_LENGTH = 16
_RANDOM_DIGITS = 3


def words_of(name: str) -> list[str]:
    """Return the words of *name*, in lower case."""
    return [word.lower() for word in _WORDS.findall(name)]


def kind_of_name(name: str, value: str | None = None) -> str:
    """Return what makes a *value* called *name* secret; empty: nothing does.

    None for *value* asks whether any value would be.
    """
    words = words_of(name)
    for row in NAMES:
        if (row.certain or (value is not None and looks_random(value))) and row.fits(name, words):
            return row.kind
    return ""


def is_secret_name(name: str) -> bool:
    """Tell whether a value called *name* is secret, whatever it is."""
    return kind_of_name(name) != ""


def is_suspect_name(name: str) -> bool:
    """Tell whether a value called *name* is secret for certain, or if it looks random."""
    words = words_of(name)
    return any(row.fits(name, words) for row in NAMES)


def looks_random(value: str) -> bool:
    """Tell whether *value* looks like a key: long, in one piece, digits among letters."""
    return (
        len(value) >= _RANDOM_LENGTH
        and re.fullmatch(r"[A-Za-z0-9_+/=.-]+", value) is not None
        and sum(character.isdigit() for character in value) >= _RANDOM_DIGITS
        and sum(character.isalpha() for character in value) >= _RANDOM_DIGITS
    )
