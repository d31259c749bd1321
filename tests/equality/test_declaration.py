from __future__ import annotations

import contextlib
import copy
import hashlib
import subprocess
import sys
import time
import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.encoding import strict_json
from provenance.equality import declaration
from provenance.equality.declaration import Alternative, builtin, from_document, parse
from provenance.equality.lattice import LATER
from provenance.equality.rules import Bytes, Close, Tensors
from provenance.errors import MalformedError, ProvenanceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

CLOSE = """\
equality = "close"
relative_to = "weights"
relative_l2 = 1e-4
relative_linf = 1e-3
reason = "measured"
"""


HEAD = "format = 1\nversion = 1\n"


def document(rule: str, head: str = HEAD + 'name = "x"\n') -> bytes:
    return f"{head}[[any]]\n[[any.all]]\n{rule}".encode()


def test_the_example_of_the_module_is_read() -> None:
    text = (declaration.__doc__ or "").split("::\n", 1)[1].split("\n\nUnknown keys")[0]
    read = parse(text.encode())
    assert read.name == "digits"
    assert (read.version, read.axes) == (1, ("blas-kernel", "thread-count"))
    assert read.any == (
        Alternative((Bytes(),)),
        Alternative(
            (
                Close(
                    relative_l2=1e-4,
                    relative_linf=1e-3,
                    reason="float32 sums in another order; measured over 12 rebuilds: 3e-6",
                    files=("model.safetensors",),
                    initial="initial.safetensors",
                ),
            )
        ),
    )


def test_a_declaration_is_known_by_its_canonical_form() -> None:
    read = parse(document(CLOSE, HEAD + 'name = "x"\naxes = ["b", "a"]\n'))
    assert read.digest == hashlib.sha256(read.canonical).hexdigest()
    assert read.canonical == (
        b'{"any":[{"all":[{"equality":"close","nan":"refused","optional":false,"reason":"measured",'
        b'"relative_l2":0.0001,"relative_linf":0.001,"relative_to":"weights",'
        b'"signed_zero":"equal","tensors":["*"]}]}],"axes":["a","b"],"format":1,"name":"x",'
        b'"version":1}'
    )


def test_what_means_the_same_has_the_same_digest() -> None:
    plain = parse(document(CLOSE)).digest
    remarked = document(CLOSE).replace(b"relative_l2 = 1e-4", b"relative_l2   = 0.000_1 # small")
    assert parse(remarked + b"signed_zero = 'equal' # as it is anyway\r\n").digest == plain
    assert parse(document(CLOSE + "signed_zero = 'distinct'\n")).digest != plain
    assert parse(document(CLOSE, 'format = 1\nversion = 2\nname = "x"\n')).digest != plain


def test_the_embedded_form_reads_back_and_no_other_form_does() -> None:
    read = parse(document(CLOSE))
    assert from_document(read.document) == read
    as_received = strict_json.parse(strict_json.format(read.document))
    assert from_document(as_received).digest == read.digest
    without_default = copy.deepcopy(read.document)
    del without_default["any"][0]["all"][0]["nan"]
    with_null = {**copy.deepcopy(read.document), "axes": None}
    others: list[object] = [without_default, with_null, [], "x", {**read.document, "more": 1}]
    for other in others:
        with pytest.raises(MalformedError):
            from_document(other)


def test_builtins_are_exact() -> None:
    assert builtin("bytes").any == (Alternative((Bytes(),)),)
    assert builtin("tensors").any == (Alternative((Tensors(),)),)
    with pytest.raises(UsageError, match="no equality 'close' is built in"):
        builtin("close")


def test_an_integer_may_spell_a_limit() -> None:
    (alternative,) = parse(document(CLOSE.replace("1e-3", "1"))).any
    assert alternative.all[0] == Close(
        relative_l2=1e-4, relative_linf=1.0, reason="measured", relative_to="weights"
    )


def without(key: str) -> str:
    return "".join(line for line in CLOSE.splitlines(keepends=True) if not line.startswith(key))


def replaced(key: str, value: str) -> str:
    return f"{without(key)}{key} = {value}\n"


REFUSED: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (b"\xff", "not UTF-8"),
    "not TOML": (b"version", "not TOML"),
    "key twice": (b"format = 1\nformat = 1\n", "not TOML"),
    "too long": (b"#" * (2**16 + 1), "longer than"),
    "empty": (b"", "format"),
    "format missing": (document(CLOSE, 'version = 1\nname = "x"\n'), "format"),
    "version missing": (document(CLOSE, 'format = 1\nname = "x"\n'), "version"),
    "format 2": (document(CLOSE, 'format = 2\nversion = 1\nname = "x"\n'), "format"),
    "version 0": (document(CLOSE, 'format = 1\nversion = 0\nname = "x"\n'), "version"),
    "version text": (document(CLOSE, 'version = "1"\nname = "x"\n'), "version"),
    "name missing": (document(CLOSE, "format = 1\nversion = 1\n"), "name"),
    "name of two words": (document(CLOSE, HEAD + 'name = "a b"\n'), "name"),
    "name with a line break": (document(CLOSE, HEAD + 'name = "a\\n"\n'), "name"),
    "axes text": (document(CLOSE, HEAD + 'name = "x"\naxes = "cpu"\n'), "axes"),
    "axis in capitals": (document(CLOSE, HEAD + 'name = "x"\naxes = ["CPU"]\n'), "axes"),
    "axis twice": (document(CLOSE, HEAD + 'name = "x"\naxes = ["a", "a"]\n'), "twice"),
    "unknown key": (document(CLOSE, HEAD + 'name = "x"\ntolerance = 1\n'), "tolerance"),
    "unknown key in a rule": (document(CLOSE + "atol = 1e-3\n"), "atol"),
    "limit of bytes": (document('equality = "bytes"\nrelative_l2 = 1e-3\n'), "relative_l2"),
    "tensors of bytes": (document('equality = "bytes"\ntensors = ["*"]\n'), "tensors"),
    "no alternative": (HEAD.encode() + b'name = "x"\nany = []\n', "any"),
    "alternative without rules": (HEAD.encode() + b'name = "x"\n[[any]]\nall = []\n', "all"),
    "alternative not a table": (HEAD.encode() + b'name = "x"\nany = [1]\n', "any"),
    "equality missing": (document("files = ['a']\n"), "equality"),
    "equality unknown": (document('equality = "near"\n'), "near"),
    "equality a number": (document("equality = 1\n"), "str"),
    "reason missing": (document(without("reason")), "reason"),
    "reason empty": (document(replaced("reason", '""')), "reason"),
    "reason blank": (document(replaced("reason", '"  "')), "reason is empty"),
    "l2 missing": (document(without("relative_l2")), "relative_l2"),
    "linf missing": (document(without("relative_linf")), "relative_linf"),
    "limit NaN": (document(replaced("relative_l2", "nan")), "finite|>="),
    "limit infinite": (document(replaced("relative_l2", "inf")), "<= 10|finite"),
    "limit zero": (document(replaced("relative_l2", "0.0")), "relative_l2"),
    "limit negative": (document(replaced("relative_linf", "-1e-3")), "relative_linf"),
    "limit too large": (document(replaced("relative_linf", "10.5")), "relative_linf"),
    "limit text": (document(replaced("relative_l2", '"1e-3"')), "float"),
    "limit true": (document(replaced("relative_l2", "true")), "float"),
    "ulp zero": (document(CLOSE + "max_ulp = 0\n"), "max_ulp"),
    "ulp a float": (document(CLOSE + "max_ulp = 4.0\n"), "int"),
    "ulp too large": (document(CLOSE + "max_ulp = 9007199254740992\n"), "max_ulp"),
    "no initial, not said": (document(without("relative_to")), "needs 'initial'"),
    "initial without use": (document(CLOSE + "initial = 'a.npz'\n"), "has no use"),
    "initial leaves": (
        document(replaced("relative_to", '"update"') + "initial = '../a.npz'\n"),
        "not the name of a file",
    ),
    "what is shipped leaves": (
        document('equality = "rounded"\nto = "F16"\nreason = "x"\nships = "../a.npz"\n'),
        "not the name of a file",
    ),
    "relative to another": (document(replaced("relative_to", '"size"')), "relative_to|size"),
    "no pattern": (document(CLOSE + "tensors = []\n"), "tensors"),
    "bad pattern": (document(CLOSE + "files = ['../*']\n"), "pattern"),
    "date": (document(replaced("reason", "1979-05-27")), "str"),
    "integer too long": (b"version = " + b"1" * 5000, "not TOML"),
    "deep": (b"a = " + b"[" * 30_000, "nested too deeply"),
    "dotted": (b"a" + b".a" * 30_000 + b" = 1", "dots"),
}


@pytest.mark.parametrize(("data", "what"), REFUSED.values(), ids=REFUSED)
def test_refuses(data: bytes, what: str) -> None:
    with pytest.raises(MalformedError, match=what) as caught:
        parse(data, where="equality.toml")
    assert str(caught.value).startswith("equality.toml: ")


@pytest.mark.parametrize("name", sorted(LATER))
def test_equalities_of_later_versions_are_refused_by_name(name: str) -> None:
    with pytest.raises(MalformedError, match=f"cannot judge the equality '{name}' yet"):
        parse(document(f'equality = "{name}"\n'))


def lines() -> Iterable[str]:
    return document(CLOSE).decode().splitlines()


@given(st.lists(st.sampled_from([*lines(), "[[any]]", "any = 1", "all = 2", "x", "[any]"])))
def test_shuffled_lines_raise_only_our_errors(text: list[str]) -> None:
    with contextlib.suppress(ProvenanceError):
        parse("\n".join(text).encode())


@given(st.binary(max_size=200) | st.text("[]{}=.\"'#\n ae1_-+:T", max_size=200).map(str.encode))
def test_random_bytes_raise_only_our_errors(data: bytes) -> None:
    with contextlib.suppress(ProvenanceError):
        parse(data)


def test_no_document_takes_long() -> None:
    line = "a" + ".a" * 500 + " = 1\n"
    began = time.monotonic()
    with pytest.raises(MalformedError):
        parse((line * (2**16 // len(line)))[: 2**16].encode())
    assert time.monotonic() - began < 60
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads("a.a = 1\na.a = 1\n")


def test_a_declaration_is_read_without_numpy() -> None:
    code = "import sys, provenance.equality.declaration, provenance.measure.findings\n"
    code += "sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            CLOSE + "atol = 1\n",
            r"rule 1 \(close\): unknown key `atol` \(one of: relative_l2, .*nan",
        ),
        (
            replaced("relative_to", '"size"'),
            r"rule 1 \(close\): 'relative_to'.*: update, weights\)",
        ),
        ('equality = "near"\n', r"rule 1 \(near\): .*\(one of: bytes, .*, curves\)"),
        (without("reason"), r"rule 1 \(close\): missing key `reason`"),
        (CLOSE + 'initial = "a"\n', r"rule 1 \(close\): 'initial' has no use"),
    ],
)
def test_a_rule_is_named_by_number_and_kind_and_what_is_allowed(rule: str, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        parse(document(rule))
    two = document("equality = 'bytes'\n") + b"[[any]]\n[[any.all]]\n" + rule.encode()
    with pytest.raises(MalformedError, match=f"alternative 2, {message}"):
        parse(two)
