"""What makes two recipes the same, and how a difference reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.rebuilding.code import MAX_NAMED
from provenance.rebuilding.recipe import MAX_SHOWN, compare, environment_differences, gaps
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import (
    BuildDefinition,
    Collected,
    Environment,
    Input,
    ProgramFile,
    Recipe,
    Source,
)
from provenance.statement.uris import BUILD_TYPE
from tests.world import RECIPE

if TYPE_CHECKING:
    from random import Random

ENVIRONMENT = Environment(observed=("start", "end"))


def build(
    recipe: Recipe = RECIPE,
    environment: Environment = ENVIRONMENT,
    dependencies: tuple[ResourceDescriptor, ...] = (),
) -> BuildDefinition:
    return BuildDefinition(BUILD_TYPE, recipe, environment, dependencies)


def differ(left: Recipe, right: Recipe) -> tuple[str, ...]:
    return tuple(each.text for each in compare(build(left), build(right)).differences)


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
    other = msgspec.structs.replace(RECIPE.data[0], digest={"sha256": "55" * 32})
    left = msgspec.structs.replace(RECIPE, data=(RECIPE.data[0], other))
    right = msgspec.structs.replace(RECIPE, data=(other, RECIPE.data[0]))
    assert differ(left, right) == ()


def test_a_difference_shows_both_sides() -> None:
    assert replaced(seeds={}) == ("the seed numpy is missing (published: 0)",)
    assert replaced(seeds={"numpy": "1", "torch": "2"}) == (
        "the seed numpy is 1 instead of 0; the seed torch is only in the rebuild (2)",
    )
    other = msgspec.structs.replace(RECIPE.data[0], digest={"sha256": "55" * 32})
    (text,) = replaced(data=(other,))
    digests = [f"1 file with root sha256 {digest * 32}" for digest in ("55", "22")]
    assert text == f"the data train is {digests[0]} instead of {digests[1]}"
    words = [*RECIPE.command[:3], "7", *RECIPE.command[4:]]
    assert replaced(command=tuple(words)) == ("the command has 7 where the published one has 0",)
    source = Source(files=(ProgramFile("train.py", "99" * 32), ProgramFile("a b", "88" * 32)))
    (text,) = replaced(source=source)
    added, changed = text.split("; ")
    assert added == f"the file a b is only in the rebuild (sha256 {'88' * 32})"
    assert changed == f"the file train.py is sha256 {'99' * 32} instead of sha256 {'11' * 32}"
    assert replaced(base_model=RECIPE.data[0]) == (
        f"the base model train is only in the rebuild (1 file with root sha256 {'22' * 32})",
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


# --- Inputs, under the names by which the program reads them --------------------------------------

A, B, C = (f"{digit * 2}" * 32 for digit in "abc")


def reading(
    command: str, *, data: dict[str, str] | None = None, config: dict[str, str] | None = None
) -> Recipe:
    """Return the recipe of *command* with inputs of one file, their digests by name."""

    def described(inputs: dict[str, str] | None) -> tuple[Input, ...]:
        return tuple(Input(n, {"sha256": m}, m, 1, 1) for n, m in (inputs or {}).items())

    return msgspec.structs.replace(
        RECIPE, command=tuple(command.split()), data=described(data), config=described(config)
    )


BOTH = "train.py ${data:train} ${data:eval}"


def test_swapped_data_is_another_recipe() -> None:
    published = reading(BOTH, data={"train": A, "eval": B})
    text = (
        "the command reads eval where the published one reads train; "
        "the command reads train where the published one reads eval"
    )
    assert differ(published, reading(BOTH, data={"train": B, "eval": A})) == (text,)
    other = "train.py ${data:eval} ${data:train}"
    assert differ(published, reading(other, data={"train": A, "eval": B})) == (text,)


@pytest.mark.parametrize(
    "rebuilt",
    [
        reading("train.py ${data:x} ${data:y}", data={"x": A, "y": B}),
        reading("train.py ${data:x} ${data:y}", data={"y": B, "x": A}),
        reading("train.py ${data:eval} ${data:train}", data={"train": B, "eval": A}),
    ],
)
def test_what_data_is_called_does_not_count_where_the_command_names_it(rebuilt: Recipe) -> None:
    assert differ(reading(BOTH, data={"train": A, "eval": B}), rebuilt) == ()


@pytest.mark.parametrize(
    ("published", "rebuilt"),
    [
        ("--d=${data:a}/x ${data:b}", "--d=${data:b}/x ${data:a}"),
        ("${config:a} ${data:a}", "${data:a} ${config:a}"),
        ("${data:a} ${data:b}", "${data:a} ${data:a}"),
        ("${data:a} ${data:b}", "${data:b}"),
        ("${data:a}", "${data:a}/x"),
    ],
)
def test_every_place_in_the_command_counts(published: str, rebuilt: str) -> None:
    inputs = {"data": {"a": A, "b": B}, "config": {"a": C}}
    one, two = reading(published, **inputs), reading(rebuilt, **inputs)
    assert differ(one, two)
    assert differ(two, one)


def test_another_base_model_in_the_same_place() -> None:
    one, two = (
        msgspec.structs.replace(
            reading("train.py ${baseModel}"), base_model=Input(name, {"sha256": m}, m, 1, 1)
        )
        for name, m in (("ours", A), ("theirs", B))
    )
    (text,) = differ(one, two)
    assert text.startswith("the base model is 1 file with root sha256 bb")
    renamed = msgspec.structs.replace(one, base_model=Input("x", {"sha256": A}, A, 1, 1))
    assert differ(one, renamed) == ()


def test_names_in_a_folder_count_and_what_one_file_is_called_does_not() -> None:
    for files, same in ((1, True), (2, False)):
        one, two = (
            msgspec.structs.replace(RECIPE, data=(Input("train", {"sha256": A}, m, files, 9),))
            for m in (B, C)
        )
        assert (differ(one, two) == ()) is same


def test_many_inputs_are_counted() -> None:
    published = reading("train.py", data={f"d{n}": A for n in range(MAX_NAMED + 3)})
    (text,) = differ(published, reading("train.py", data={"x": B}))
    assert text.endswith("; and 4 more")


def test_data_that_the_command_does_not_name_is_found_by_its_name() -> None:
    published = reading("train.py", data={"train": A, "eval": B})
    (text,) = differ(published, reading("train.py", data={"train": B, "eval": A}))
    assert "the data train is what the published one has as eval instead of" in text
    assert differ(published, reading("train.py", data={"mine": A, "yours": B})) == ()
    assert differ(published, reading("train.py", data={"mine": A, "yours": C}))
    assert differ(published, reading("train.py", data={"eval": B, "yours": A})) == ()


def test_configurations_are_compared_like_data() -> None:
    command = "train.py ${config:a.toml} ${config:b.toml}"
    published = reading(command, config={"a.toml": A, "b.toml": B})
    found = compare(
        build(published), build(reading(command, config={"a.toml": B, "b.toml": A}))
    ).differences
    assert [each.part for each in found] == ["configuration"]
    (text,) = differ(published, reading(command, config={"a.toml": A, "b.toml": C}))
    assert f"the configuration b.toml is 1 file with root sha256 {C} instead of" in text


NAMES = st.sampled_from(["a", "b", "c", "d"])
INPUTS = st.dictionaries(NAMES, st.sampled_from([A, B, C]), max_size=4)
COMMANDS = st.lists(
    st.one_of(NAMES.map("${{data:{}}}".format), st.sampled_from(["-x", "${redacted}"])), max_size=5
).map(" ".join)


@given(COMMANDS, INPUTS, COMMANDS, INPUTS)
def test_a_difference_is_one_from_either_side(
    command: str, data: dict[str, str], other: str, inputs: dict[str, str]
) -> None:
    left, right = reading(command, data=data), reading(other, data=inputs)
    found, back = compare(build(left), build(right)), compare(build(right), build(left))
    assert [each.part for each in found.differences] == [each.part for each in back.differences]
    assert set(found.unknown) == set(back.unknown)
    assert compare(build(left), build(left)).differences == ()


@given(COMMANDS, INPUTS, st.permutations(["a", "b", "c", "d"]), st.randoms())
def test_other_names_and_another_order_are_the_same_recipe(
    command: str, data: dict[str, str], names: list[str], random: Random
) -> None:
    # Only inputs that the command names: others are found by their name.
    data = {name: content for name, content in data.items() if f"${{data:{name}}}" in command}
    new = dict(zip("abcd", names, strict=True))
    words = [
        f"${{data:{new[word[7]]}}}" if word.startswith("${data:") and word[7] in data else word
        for word in command.split()
    ]
    renamed = [(new[name], content) for name, content in data.items()]
    random.shuffle(renamed)
    rebuilt = reading(" ".join(words), data=dict(renamed))
    taken = {f"${{data:{name}}}" for name in new.values()} & set(command.split())
    if taken <= {f"${{data:{name}}}" for name in data}:  # no mark without an input changes hands
        assert differ(reading(command, data=data), rebuilt) == ()


def test_environments_by_path() -> None:
    left = Environment(
        observed=("start",),
        collectors={
            "a": Collected(
                "ok", {"x": {"y": 1, "z": 2}, "r": "${redacted:host}", "s": ["${redacted:host}"]}
            ),
            "b": Collected("absent"),
            "cost": Collected("ok", {"wallSeconds": 1.0}),
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
    found = compare(build(dependencies=left), build(dependencies=right)).differences
    assert [each.part for each in found] == ["code"]


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


@pytest.mark.parametrize("name", ["python", "python3", "python3.12"])
def test_what_a_python_is_called_does_not_count(name: str) -> None:
    other = msgspec.structs.replace(RECIPE, command=(name, *RECIPE.command[1:]))
    assert compare(build(), build(other)).differences == ()


@pytest.mark.parametrize("name", ["python2", "pypy3", "python3 -O", "bin/python3"])
def test_another_program_is_another_command(name: str) -> None:
    other = msgspec.structs.replace(RECIPE, command=(*name.split(), *RECIPE.command[1:]))
    assert [each.part for each in compare(build(), build(other)).differences] == ["command"]


STDIN = "no program: it came by standard input"


@pytest.mark.parametrize(
    ("command", "is_open"),
    [
        ("python3 -", True),
        ("python3", True),
        ("python3 -u -X dev - --lr 1", True),
        ("timeout 9 python3 /dev/stdin", True),
        ("bash -s", True),
        ("bash /dev/fd/63", True),
        ("python3 train.py -", False),
        ("python3 -O train.py", False),
        ("bash -O extglob run.sh", False),
        ("python3 -m train", False),
        ("python3 -um train", False),
        ("python3 -c x", False),
        ("bash -c x", False),
        ("bash -e run.sh", False),
        ("make model", False),
    ],
)
def test_a_program_that_comes_by_standard_input_is_a_gap(command: str, is_open: bool) -> None:
    recipe = msgspec.structs.replace(RECIPE, command=tuple(command.split()))
    assert (STDIN in gaps(recipe)) == is_open
