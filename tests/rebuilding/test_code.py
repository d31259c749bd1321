"""When two trainings ran the same code, and when nobody can tell."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import MalformedError
from provenance.rebuilding.code import MAX_NAMED
from provenance.rebuilding.recipe import answer, compare
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import (
    BuildDefinition,
    Collected,
    Environment,
    ProgramFile,
    Source,
)
from provenance.statement.uris import BUILD_TYPE
from tests.world import RECIPE

ONE, TWO, HIDDEN = "11" * 32, "22" * 32, ""
TREE = "a" * 40


def build(
    read: dict[str, str] | None = None,
    untracked: dict[str, str] | None = None,
    *,
    complete: bool = False,
    count: int | None = None,
    digest: str = "",
    collectors: dict[str, Collected] | None = None,
    dependencies: tuple[ResourceDescriptor, ...] = (),
) -> BuildDefinition:
    """Return a build that read the files *read* while the files *untracked* lay there."""
    files = tuple(ProgramFile(name, sha256) for name, sha256 in (read or {}).items())
    recipe = msgspec.structs.replace(RECIPE, source=Source(tree=TREE, read=files))
    found = {"reads": Collected("ok", {"by": "start-up folder", "complete": complete})}
    if untracked is not None:
        number = len(untracked) if count is None else count
        values = {"count": number, "files": untracked, "digest": digest}
        found["untracked"] = Collected("ok", values)
    environment = Environment(observed=("start", "end"), collectors=found | (collectors or {}))
    return BuildDefinition(BUILD_TYPE, recipe, environment, dependencies)


def judged(left: BuildDefinition, right: BuildDefinition) -> tuple[str, tuple[str, ...]]:
    """Return the answer and its texts, which must be the same answer the other way round."""
    found, back = compare(left, right), compare(right, left)
    word = answer(found.differences, found.unknown)
    assert word == answer(back.differences, back.unknown)
    assert found.unknown == back.unknown
    assert [each.part for each in found.differences] == [each.part for each in back.differences]
    return word, tuple(each.text for each in found.differences) or found.unknown


# --- Files that git does not track ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (build(), build()),
        (build(untracked={}), build()),
        (build(untracked={"err.txt": ONE}), build(untracked={"err.txt": ONE})),
        (build({"h.py": ONE}, {"h.py": ONE}), build({"h.py": ONE}, {"h.py": ONE})),
        (build({"h.py": ONE}), build({"h.py": ONE})),  # ignored files are in no list
        (build({"h.py": ONE}, {"h.py": ONE}), build({}, {"h.py": ONE})),  # a read that was missed
        (
            build({}, {"err.txt": ONE}, complete=True),
            build({}, {"err.txt": TWO, "x": ONE}, complete=True),
        ),
        (build({}, {"a": ONE}, count=9, digest="d"), build({}, {"a": ONE}, count=9, digest="d")),
    ],
)
def test_the_same_code(left: BuildDefinition, right: BuildDefinition) -> None:
    assert judged(left, right) == ("same", ())


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [
        (build(untracked={"err.txt": ONE}), build(untracked={}), "perhaps read: err.txt"),
        (build(untracked={"err.txt": ONE}), build(), "perhaps read: err.txt"),
        (
            build(untracked={"err.txt": ONE, "b": ONE}),
            build(untracked={"err.txt": TWO}),
            "perhaps read: b, err.txt",
        ),
        (  # one trace is not enough: what the other run read is not known
            build({}, {"err.txt": ONE}, complete=True),
            build({}, {"err.txt": TWO}),
            "perhaps read: err.txt",
        ),
        (build(untracked={"k": HIDDEN}), build(untracked={"k": HIDDEN}), "perhaps read: k"),
        (
            build(untracked={"a": ONE}, count=2000, digest="one"),
            build(untracked={"a": ONE}, count=2000, digest="two"),
            "perhaps read: untracked files beyond those listed",
        ),
        (  # the other may have it, beyond those listed
            build({"h.py": ONE}, {"h.py": ONE}),
            build({}, {}, count=2000, digest="two"),
            "perhaps read: h.py",
        ),
        (
            build({}, collectors={"untracked": Collected("error", reason="git failed")}),
            build(untracked={"a": ONE}),
            "perhaps read: a",
        ),
        (
            build({".env": HIDDEN}),
            build({".env": HIDDEN}),
            "read, and perhaps another: .env",
        ),
        (  # git may ignore it, and nobody saw what the other read
            build({"h.py": ONE}),
            build({}, {}, collectors={"reads": Collected("absent", reason="none spoke")}),
            "perhaps read: h.py",
        ),
        (
            build({"h.py": ONE}),
            build({}, {}, collectors={"reads": Collected("ok", {"lost": 3})}),
            "perhaps read: h.py",
        ),
        (
            build(collectors={"source": Collected("error", reason="sub: damaged")}),
            build(),
            "code that could not be looked at: sub: damaged",
        ),
    ],
)
def test_what_was_perhaps_read_is_never_another_recipe(
    left: BuildDefinition, right: BuildDefinition, text: str
) -> None:
    word, texts = judged(left, right)
    assert (word, texts[-1]) == ("unknown", text)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (build({"h.py": ONE}, {"h.py": ONE}), build({"h.py": TWO}, {"h.py": TWO})),
        (build({"h.py": ONE}, {"h.py": ONE}), build({}, {"h.py": TWO})),
        (build({"h.py": ONE}, {"h.py": ONE}), build({}, {})),
        (build({"h.py": ONE}), build({}, {})),  # git ignores it, and the other was heard
        (  # it would be listed
            build({"h.py": ONE}, {"h.py": ONE}),
            build({}, {}, collectors={"reads": Collected("absent", reason="none spoke")}),
        ),
        (build({"__pycache__/h.pyc": ONE}), build({"__pycache__/h.pyc": TWO})),
        (
            build({"h.py": ONE}, {"h.py": ONE}, complete=True),
            build({}, {"h.py": ONE}, complete=True),
        ),
    ],
)
def test_what_one_run_read_and_the_other_did_not_have_is_another_recipe(
    left: BuildDefinition, right: BuildDefinition
) -> None:
    word, (text,) = judged(left, right)
    assert word == "differs"
    assert "which was read" in text


def test_many_files_are_counted() -> None:
    names = {f"f{number:03}": ONE for number in range(MAX_NAMED + 12)}
    word, (text,) = judged(build(untracked=names), build(untracked={}))
    assert word == "unknown"
    assert text.startswith("perhaps read: f000, f001")
    assert text.endswith(", and 12 more")
    (difference,) = compare(build(names), build({})).differences
    assert difference.text.endswith("; and 12 more")


def test_a_list_that_cannot_be_read_is_refused() -> None:
    damaged = build(collectors={"untracked": Collected("ok", {"files": {"a": 1}})})
    with pytest.raises(MalformedError, match="untracked"):
        compare(damaged, build())


# --- Repositories ---------------------------------------------------------------------------------


def holding(name: str, *, git: bool = True, **digest: str) -> BuildDefinition:
    annotations = {} if git else {"pythonFiles": 3}
    item = ResourceDescriptor(name=name, digest=digest, uri="git+x", annotations=annotations)
    return build(dependencies=(item,))


@pytest.mark.parametrize("name", ["source/sub", "editable/trainer", "editable/trainer/sub"])
def test_other_trees_are_other_code(name: str) -> None:
    one, two = (holding(name, gitTree=digit * 40) for digit in "12")
    word, (text,) = judged(one, two)
    assert word == "differs"
    assert f"git tree {'2' * 40} instead of git tree {'1' * 40}" in text
    assert judged(one, build())[0] == "differs"
    assert judged(one, one)[0] == "same"


def test_the_same_tree_from_elsewhere_is_the_same_code() -> None:
    one = holding("editable/trainer", gitTree=TREE, gitCommit="b" * 40)
    two = holding("editable/trainer", gitTree=TREE)
    assert judged(one, two)[0] == "same"


@pytest.mark.parametrize("kind", ["gitTree", "sha256"])
def test_editable_code_without_a_repository_is_compared_by_its_digest(kind: str) -> None:
    name = "editable/trainer"
    one, two = (holding(name, git=False, **{kind: digest}) for digest in (ONE, TWO))
    assert judged(one, two)[0] == "differs"
    assert judged(one, one)[0] == "same"
    for other in (holding(name, gitTree=TREE), holding(name)):
        assert judged(one, other)[0] == "unknown"


# --- Any two runs ---------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c"])
FILES = st.dictionaries(NAMES, st.sampled_from([ONE, TWO, HIDDEN]), max_size=3)
RUNS = st.builds(build, FILES, st.none() | FILES, complete=st.booleans(), digest=st.just(""))


@given(RUNS, RUNS)
def test_the_answer_is_the_same_from_either_side(
    left: BuildDefinition, right: BuildDefinition
) -> None:
    judged(left, right)
    assert judged(left, left)[0] != "differs"


@given(st.none() | FILES, st.none() | FILES)
def test_what_no_run_was_seen_to_read_is_never_another_recipe(
    left: dict[str, str] | None, right: dict[str, str] | None
) -> None:
    word, _ = judged(build({}, left), build({}, right))
    assert word == (
        "same"
        if (left or {}) == (right or {}) and HIDDEN not in (left or {}).values()
        else "unknown"
    )


@given(FILES, FILES, FILES)
def test_traced_runs_are_judged_by_their_reads_alone(
    read: dict[str, str], left: dict[str, str], right: dict[str, str]
) -> None:
    word, _ = judged(build(read, left, complete=True), build(read, right, complete=True))
    assert word == ("unknown" if HIDDEN in read.values() else "same")


@pytest.mark.parametrize("name", ["…/helper.py", "${model}/checkpoint"])
def test_what_lay_elsewhere_differs_by_content_and_is_perhaps_there_under_another_name(
    name: str,
) -> None:
    one, two = build({name: ONE}), build({name: TWO})
    assert judged(one, build({name: ONE}))[0] == "same"
    assert judged(one, two)[0] == "differs"
    assert judged(one, build()) == ("unknown", (f"perhaps read: {name}",))


def test_the_reads_of_a_silent_python_are_unknown() -> None:
    silent = build(collectors={"reads": Collected("absent", reason="no Python reported")})
    started = build(collectors={"interpreter": Collected("error", reason="python did not report")})
    for run in (silent, started):
        assert judged(run, run) == ("unknown", ("a Python ran, and nobody saw what it read",))


def test_folders_of_code_may_have_any_name() -> None:
    def on_the_path(name: str, tree: str) -> BuildDefinition:
        folder = ResourceDescriptor(name=f"editable/{name}", digest={"gitTree": tree})
        return build(dependencies=(folder,))

    assert judged(on_the_path("lib", TREE), on_the_path("lib2", TREE))[0] == "same"
    assert judged(on_the_path("lib", TREE), on_the_path("lib2", "b" * 40))[0] == "differs"
    assert judged(on_the_path("lib", TREE), build())[0] == "differs"
