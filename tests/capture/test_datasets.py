from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import provenance
from provenance.capture.datasets import is_spdx, read_croissant, read_info
from provenance.errors import ContentError, MalformedError, UsageError
from provenance.rebuilding.recipe import compare
from provenance.statement.training import About

if TYPE_CHECKING:
    from tests.world import Person

CONFORMS = "http://mlcommons.org/croissant/1.1"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def file(ident: str, url: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"@type": "cr:FileObject", "@id": ident, "contentUrl": url, **more}


def file_set(name: str, includes: Any, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"@type": "cr:FileSet", "@id": name, "includes": includes, **more}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with data, and a secret beside it."""
    (tmp_path / "secret.csv").write_text("secret")
    folder = tmp_path / "work"
    (folder / "data/parts").mkdir(parents=True)
    for name in ("a.csv", "parts/1.parquet", "parts/2.parquet", "parts/2.txt"):
        (folder / "data" / name).write_text(name)
    monkeypatch.chdir(folder)
    return folder


def croissant(folder: Path, *nodes: Any, **more: Any) -> Path:  # noqa: ANN401 - JSON
    path = folder / "data/x.croissant.json"
    path.write_text(json.dumps({"conformsTo": CONFORMS, "distribution": nodes, **more}))
    return path


def record(alice: Person, **stated: Any) -> Any:  # noqa: ANN401 - as record has them
    train = ["sh", "-c", "mkdir -p model; echo 1 >> model/w"]
    return provenance.record(train, model="model", key=alice.key, **stated)


def only_data(recorded: Any) -> Any:  # noqa: ANN401 - a claim
    (data,) = recorded.statement.recipe.data
    return data


def test_a_croissant_file_is_an_input_with_what_it_lists(folder: Path, alice: Person) -> None:
    path = croissant(
        folder,
        file("a", "a.csv", sha256=digest("a.csv").upper()),
        file("repo", "https://example.org/x/tree/main", sha256="https://example.org/issues/80"),
        file_set("parts", "parts/*.parquet", excludes=["parts/2*"], containedIn={"@id": "repo"}),
        name="digits",
        license="https://spdx.org/licenses/CC-BY-4.0.html",
        url="https://me:pw1@example.org/digits",
        version="1.2",
        citeAs="Someone, 2026",
    )
    recorded = record(alice, data={"train": path})
    data = only_data(recorded)
    assert data.files == 3
    assert "pw1" not in data.about.source
    assert data.about.source.endswith("@example.org/digits")
    assert data.about == About(
        title="digits",
        version="1.2",
        license="CC-BY-4.0",
        source=data.about.source,
        citation="Someone, 2026",
        files={"checked": 1, "unchecked": 1, "absent": 0},
    )
    (rows,) = (b for b in recorded.statement.run.byproducts if b.name == "manifest/data:train")
    assert rows.digest["sha256"] == data.manifest


def test_a_digest_that_does_not_hold_is_refused_before_the_run(folder: Path, alice: Person) -> None:
    path = croissant(folder, file("a", "a.csv", sha256="0" * 64))
    with pytest.raises(ContentError, match=r"a\.csv") as caught:
        record(alice, data={"train": path})
    assert caught.value.hint
    assert not (folder / "model").exists()


def test_a_url_means_the_file_of_its_name(folder: Path) -> None:
    path = croissant(folder, file("a", "https://example.org/v1/a.csv?x=1", sha256=digest("a.csv")))
    listed = read_croissant(path)
    assert listed.paths.keys() == {"x.croissant.json", "a.csv"}
    assert listed.absent == ()
    assert listed.check(listed.hash(), path).files == {"checked": 1, "unchecked": 0, "absent": 0}


KAGGLE = "https://example.org/download/uci/iris?datasetVersionNumber=2"


@pytest.mark.parametrize(
    ("here", "found", "absent"),
    [
        (["iris.zip"], ["iris.zip"], ()),  # as it came: the browser gives it its `name`
        (["Iris.csv", "db.sqlite"], ["Iris.csv", "db.sqlite"], ()),  # unpacked, and removed
        (["iris.zip", "Iris.csv"], ["Iris.csv", "iris.zip"], ()),
        (["Iris.csv"], ["Iris.csv"], ("db",)),
        ([], [], ("zip", "iris", "db")),
    ],
)
def test_an_archive_is_there_packed_or_unpacked(
    folder: Path, here: list[str], found: list[str], absent: tuple[str, ...]
) -> None:
    for name in here:
        (folder / "data" / name).write_text(name)
    path = croissant(
        folder,
        file("zip", KAGGLE, name="iris.zip", md5="zzzz"),
        file("iris", "Iris.csv", containedIn={"@id": "zip"}),
        file("db", "db.sqlite", containedIn={"@id": "zip"}),
    )
    listed = read_croissant(path)
    assert sorted(listed.paths) == sorted([*found, "x.croissant.json"])
    assert listed.absent == absent


def test_a_croissant_file_that_lists_nothing_is_remarked(folder: Path, alice: Person) -> None:
    recorded = record(alice, data={"train": croissant(folder)})
    assert any(each.is_cause and "lists no file" in each.text for each in recorded.remarks)


@pytest.mark.parametrize(
    "url",
    [
        "../../secret.csv",
        "/etc/passwd",
        "link.csv",
        "parts",
        "pipe",
        "a.csv/",
        "",
        "..",
        "http://[",
    ],
)
def test_nothing_elsewhere_is_read(folder: Path, url: str) -> None:
    (folder / "data/link.csv").symlink_to("../../secret.csv")
    listed = read_croissant(croissant(folder, file("it", url), file_set("all", "**/link.csv")))
    assert listed.paths.keys() == {"x.croissant.json"}
    assert listed.absent == ("it", "all")


def test_what_is_not_there_is_named_without_its_secrets(folder: Path, alice: Person) -> None:
    key = "hf_" + "a1B2c3D4" * 4
    url = f"https://ada:hunter2@example.org/{key}"
    path = croissant(folder, file(url, "1"), file(key, "2"), file("", "b.csv"), {"@id": ""})
    said = [each.text for each in record(alice, data={"train": path}).remarks]
    assert not any(secret in text for text in said for secret in (key, "hunter2"))
    assert any("b.csv, a part without a name" in text for text in said)


def test_of_two_parts_by_one_name_the_other_is_missed(folder: Path) -> None:
    listed = read_croissant(croissant(folder, file("a", "a.csv"), file("a", "b.csv")))
    assert listed.absent == ("a",)


@pytest.mark.parametrize(
    "document",
    ["[]", "{}", '{"conformsTo": "http://mlcommons.org/croissant/0.8"}', "{", '{"a": 1, "a": 2}'],
)
def test_what_is_no_croissant_is_refused(folder: Path, document: str) -> None:
    path = folder / "data/croissant.json"
    path.write_text(document)
    with pytest.raises(MalformedError):
        read_croissant(path)


@pytest.mark.parametrize(
    "distribution", [None, 3, "a.csv", [None, [[]], 7], {"contentUrl": [{"@id": 1}], "@id": []}]
)
def test_any_json_is_read(folder: Path, distribution: Any) -> None:  # noqa: ANN401 - JSON
    path = croissant(folder)
    path.write_text(json.dumps({"conformsTo": [CONFORMS], "distribution": distribution}))
    assert read_croissant(path).paths.keys() == {"x.croissant.json"}


def test_a_listed_file_that_changes_during_the_run_spoils_it(folder: Path, alice: Person) -> None:
    path = croissant(folder, file("a", "a.csv"), file_set("parts", ["parts/*.parquet"]))
    train = "mkdir model; echo 1 > model/w; echo 2 > data/a.csv; echo 3 > data/parts/3.parquet"
    recorded = provenance.record(
        ["sh", "-c", train], model="model", key=alice.key, data={"train": path}
    )
    (changed,) = recorded.statement.run.provenance_outcome.changed_inputs
    assert changed.changed == ("a.csv",)
    assert [entry.name for entry in changed.added] == ["parts/3.parquet"]


@pytest.mark.parametrize(
    "text",
    ["MIT", "mit", "CC-BY-4.0", "Apache-2.0+", "MIT OR (Apache-2.0 AND BSD-3-Clause)",
     "GPL-2.0-only WITH Classpath-exception-2.0", "DocumentRef-x:LicenseRef-Mine",
     "((MIT))"],
)  # fmt: skip
def test_expressions_of_spdx(text: str) -> None:
    assert is_spdx(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Apache 2.0",
        "MIT OR",
        "AND",
        "(MIT",
        "MIT)",
        "MIT, BSD",
        "a/b",
        "é",
        "MIT\n",
        "()",
        "(" * 10**6 + "MIT",
    ],
)
def test_no_expressions_of_spdx(text: str) -> None:
    assert not is_spdx(text)


def test_what_a_trainer_says_of_data(folder: Path, alice: Person) -> None:
    (folder / "data.toml").write_text(
        '[train]\npath = "data/parts"\nlicense = "MIT"\navailability = "open"\n'
        'notices = ["made by us"]\n'
        '[eval]\nsource = "https://u:p1234@example.org/e"\n'
    )
    subprocess.run(["git", "init", "-q", folder], check=True)
    recorded = record(alice, data={"eval": "data/a.csv"}, data_info="data.toml")
    collectors = recorded.statement.build.internal_parameters.collectors
    assert "data.toml" not in collectors["untracked"].values["files"]  # it is no code
    found = {each.role: each for each in recorded.statement.recipe.data}
    assert found["train"].files == 3
    assert found["train"].about == About(
        license="MIT", availability="open", notices=("made by us",)
    )
    assert "p1234" not in found["eval"].about.source


def test_what_a_trainer_says_counts_before_the_croissant_file(folder: Path, alice: Person) -> None:
    path = croissant(folder, license="other", name="digits")
    (folder / "data.toml").write_text('[train]\nlicense = "MIT"\n')
    about = only_data(record(alice, data={"train": path}, data_info="data.toml")).about
    assert (about.license, about.title) == ("MIT", "digits")


@pytest.mark.parametrize(
    "text",
    ['[train]\nlicense = "Apache 2.0"',
     '[train]\navailability = "free"', "[train]\nlicence = 'MIT'",
     "train = 3", "[train", "[train.files]\nchecked = 3"],
)  # fmt: skip
def test_a_mistake_in_what_is_said_is_refused(folder: Path, text: str) -> None:
    path = folder / "data.toml"
    path.write_text(text)
    with pytest.raises(MalformedError, match=r"data\.toml") as caught:
        read_info(path)
    assert caught.value.hint or "TOML" in caught.value.what


@pytest.mark.parametrize("same", [True, False])
def test_one_role_has_one_path(folder: Path, alice: Person, *, same: bool) -> None:
    (folder / "data.toml").write_text('[train]\npath = "data/a.csv"\nlicense = "MIT"\n')
    stated = {"data": {"train": "./data/a.csv" if same else "data"}, "data_info": "data.toml"}
    if same:
        assert only_data(record(alice, **stated)).about.license == "MIT"
    else:
        with pytest.raises(UsageError, match=r"data/a\.csv"):
            record(alice, **stated)


def test_of_what_is_no_data_nothing_can_be_said(folder: Path, alice: Person) -> None:
    (folder / "data.toml").write_text('[tain]\nlicense = "MIT"\n')
    with pytest.raises(UsageError, match="tain"):
        record(alice, data={"train": "data/a.csv"}, data_info="data.toml")


def test_what_is_said_of_data_is_no_other_recipe(folder: Path, alice: Person) -> None:
    (folder / "data.toml").write_text('[train]\nlicense = "MIT"\n')
    one = record(alice, data={"train": "data/a.csv"})
    other = record(alice, data={"train": "data/a.csv"}, data_info="data.toml")
    assert only_data(one) != only_data(other)
    found = compare(one.statement.build, other.statement.build).differences
    assert "data" not in [each.part for each in found]
