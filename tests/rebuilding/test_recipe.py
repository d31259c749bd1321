"""What makes two recipes the same, and how a difference reads."""

from __future__ import annotations

import msgspec
import pytest

from provenance.rebuilding.recipe import MAX_SHOWN, differences, environment_differences, gaps
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import (
    BuildDefinition,
    Collected,
    Environment,
    ProgramFile,
    Recipe,
    Source,
)
from provenance.statement.uris import BUILD_TYPE
from tests.world import RECIPE

ENVIRONMENT = Environment(observed=("start", "end"))


def build(
    recipe: Recipe = RECIPE,
    environment: Environment = ENVIRONMENT,
    dependencies: tuple[ResourceDescriptor, ...] = (),
) -> BuildDefinition:
    return BuildDefinition(BUILD_TYPE, recipe, environment, dependencies)


def differ(left: Recipe, right: Recipe) -> tuple[str, ...]:
    return differences(build(left), build(right))


def replaced(**changes: object) -> tuple[str, ...]:
    return differ(RECIPE, msgspec.structs.replace(RECIPE, **changes))


def test_a_recipe_is_itself() -> None:
    assert differ(RECIPE, RECIPE) == ()
    assert gaps(RECIPE) == ()


def test_what_an_input_is_called_and_where_code_came_from_do_not_count() -> None:
    renamed = msgspec.structs.replace(RECIPE.data[0], name="mine")
    assert replaced(data=(renamed,)) == ()
    tree = Source(tree="a" * 40, commit="b" * 40, uri="https://one.example/x")
    other = Source(tree="a" * 40, commit="c" * 40, uri="https://two.example/x")
    left = msgspec.structs.replace(RECIPE, source=tree)
    assert differ(left, msgspec.structs.replace(RECIPE, source=other)) == ()


def test_the_role_of_an_input_counts() -> None:
    moved = msgspec.structs.replace(RECIPE.data[0], role="eval")
    assert len(replaced(data=(moved,))) == 1


def test_the_folder_in_the_repository_counts() -> None:
    left = msgspec.structs.replace(RECIPE, source=Source(tree="a" * 40, folder="x"))
    right = msgspec.structs.replace(RECIPE, source=Source(tree="a" * 40, folder="y"))
    assert len(differ(left, right)) == 1


def test_a_tree_is_not_the_files_of_a_command_line() -> None:
    files = (ProgramFile("train.py", "11" * 32),)
    left = msgspec.structs.replace(RECIPE, source=Source(tree="a" * 40, files=files))
    assert len(differ(left, RECIPE)) == 1


def test_the_order_of_files_and_data_does_not_count() -> None:
    other = msgspec.structs.replace(RECIPE.data[0], manifest="55" * 32)
    left = msgspec.structs.replace(RECIPE, data=(RECIPE.data[0], other))
    right = msgspec.structs.replace(RECIPE, data=(other, RECIPE.data[0]))
    assert differ(left, right) == ()


def test_a_difference_shows_both_sides() -> None:
    assert replaced(seeds={}) == ("the seed numpy is missing (published: 0)",)
    assert replaced(seeds={"numpy": "1", "torch": "2"}) == (
        "the seed numpy is 1 instead of 0; the seed torch is only in the rebuild (2)",
    )
    other = msgspec.structs.replace(RECIPE.data[0], manifest="55" * 32)
    (text,) = replaced(data=(other,))
    digests = [f"1 file with manifest sha256 {digest * 32}" for digest in ("55", "33")]
    assert text == f"the data train is {digests[0]} instead of {digests[1]}"
    words = [*RECIPE.command[:3], "7", *RECIPE.command[4:]]
    assert replaced(command=tuple(words)) == ("the command has 7 where the published one has 0",)
    source = Source(files=(ProgramFile("train.py", "99" * 32), ProgramFile("a b", "88" * 32)))
    (text,) = replaced(source=source)
    added, changed = text.split("; ")
    assert added == f"the file a b is only in the rebuild (sha256 {'88' * 32})"
    assert changed == f"the file train.py is sha256 {'99' * 32} instead of sha256 {'11' * 32}"
    assert replaced(base_model=RECIPE.data[0]) == (
        f"the base model train is only in the rebuild (1 file with manifest sha256 {'33' * 32})",
    )


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("${redacted:password}", "${redacted:password}", True),
        ("${redacted:password}", "anything", True),
        ("--x=${redacted:email}", "--x=${redacted:user}", True),
        ("--x=${redacted:email}", "--y=${redacted:email}", False),
        ("https://${redacted:user}@h/a", "https://${redacted:user}@h/b", False),
        ("https://${redacted:user}@h/a", "https://h/a", False),
        ("$${redacted:email}", "x", False),
        ("${redacted}", "x", True),
    ],
)
def test_a_mark_is_neither_the_same_nor_another_recipe(
    left: str, right: str, *, same: bool
) -> None:
    sides = [msgspec.structs.replace(RECIPE, command=("train", word)) for word in (left, right)]
    assert (differ(sides[0], sides[1]) == ()) is same
    assert [gaps(side) for side in sides] == [
        ("a redacted argument",) if "${redacted" in word and not word.startswith("$$") else ()
        for word in (left, right)
    ]


def test_a_long_difference_shows_where_it_begins() -> None:
    words = tuple(f"--option-{number}" for number in range(100))
    left = msgspec.structs.replace(RECIPE, command=(*words, "left", *words))
    right = msgspec.structs.replace(RECIPE, command=(*words, "right", *words))
    (text,) = differ(left, right)
    assert text == "the command has right where the published one has left"
    script = "x" * 1000
    left, right = (
        msgspec.structs.replace(RECIPE, command=("sh", "-c", f"{script}{end}{script}"))
        for end in ("left", "right")
    )
    (text,) = differ(left, right)
    other, _, mine = text.removeprefix("the command has ").partition(
        " where the published one has "
    )
    assert "left" in mine
    assert "right" in other
    assert all(len(side) <= MAX_SHOWN + 2 for side in (mine, other))
    assert mine[0] == mine[-1] == "…"


def test_a_long_side_against_none() -> None:
    words = tuple(f"--option-{number}" for number in range(100))
    long = msgspec.structs.replace(RECIPE, command=words)
    short = msgspec.structs.replace(RECIPE, command=())
    (text,) = differ(long, short)
    assert text.startswith("the command has nothing where the published one has --option-0")
    assert text.endswith("…")


def test_environments_by_path() -> None:
    left = Environment(
        observed=("start",),
        collectors={
            "a": Collected(
                "ok", {"x": {"y": 1, "z": 2}, "r": "${redacted:host}", "s": ["${redacted:host}"]}
            ),
            "b": Collected("absent"),
            "variables": Collected("ok", {"others": 7}),
        },
    )
    right = Environment(
        observed=("start",),
        collectors={
            "a": Collected(
                "ok", {"x": {"y": 1, "z": 3}, "r": "${redacted:host}", "s": ["${redacted:host}"]}
            ),
            "c": Collected("ok", {"n": 0}),
            "variables": Collected("ok", {"others": 8}),
        },
    )
    assert environment_differences(build(environment=left), build(environment=right)) == (
        "a.r (redacted)",
        "a.s (redacted)",
        "a.x.z",
        "c.n",
    )
    same = build(environment=left)
    assert environment_differences(same, same) == ("a.r (redacted)", "a.s (redacted)")


def test_a_file_that_git_ignores_but_the_command_names_counts() -> None:
    left, right = (
        msgspec.structs.replace(
            RECIPE, source=Source(tree="a" * 40, files=(ProgramFile("local.py", digest * 32),))
        )
        for digest in ("11", "22")
    )
    assert len(differ(left, right)) == 1


def test_the_trees_of_submodules_count() -> None:
    left, right = (
        (ResourceDescriptor(name="source/sub", digest={"gitTree": digit * 40}),) for digit in "12"
    )
    assert len(differences(build(dependencies=left), build(dependencies=right))) == 1


def test_an_argument_that_was_redacted_leaves_the_recipe_open() -> None:
    hidden = msgspec.structs.replace(
        RECIPE, command=("train", "--token-dropout", "${redacted:token}")
    )
    assert gaps(hidden) == ("a redacted argument",)


def test_other_distributions_are_told() -> None:
    left, right = (
        (ResourceDescriptor(name="torch", uri=f"pkg:pypi/torch@{version}"),)
        for version in ("1.0", "6.6.6")
    )
    found = environment_differences(build(dependencies=left), build(dependencies=right))
    assert found == ("packages.torch",)
