"""What of a finished statement can be redacted, and what then stands there."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.capture.draft import Recording
from provenance.capture.secrecy.leaks import redact, refuse_secrets_in
from provenance.capture.secrecy.scan import live_secrets
from provenance.errors import SecretError, UsageError
from provenance.statement import intoto, training
from provenance.statement.intoto import ResourceDescriptor
from tests.statement.examples import TRAINING

SECRET = "hunter2-hunter2"  # what the variable holds
ENVIRON = {"SERVICE_TOKEN": SECRET}


def recording(**changes: Any) -> Recording:  # noqa: ANN401 - as the structs have them
    recipe = msgspec.structs.replace(TRAINING.recipe, **changes)
    build = msgspec.structs.replace(TRAINING.build, external_parameters=recipe)
    return Recording(msgspec.structs.replace(TRAINING, build=build), {})


def document(item: Recording) -> dict[str, Any]:
    whole = json.loads(intoto.format(training.to_statement(item.statement)))
    predicate: dict[str, Any] = whole["predicate"]
    return predicate


def fields_of(item: Recording) -> dict[str, str]:
    with pytest.raises(SecretError) as caught:
        refuse_secrets_in(item, live_secrets(ENVIRON))
    assert SECRET not in str(caught.value)
    return caught.value.fields


def test_every_field_that_holds_a_secret_is_named_at_once() -> None:
    item = recording(command=("a", SECRET, f"b{SECRET}"), seeds={SECRET: "1"})
    found = fields_of(item)
    assert found == dict.fromkeys(
        (
            "externalParameters/command/1",
            "externalParameters/command/2",
            "externalParameters/seeds",
        ),
        "SERVICE_TOKEN",
    )
    clean = redact(item, found)
    assert refuse_secrets_in(clean, live_secrets(ENVIRON))
    recipe = document(clean)["buildDefinition"]["externalParameters"]
    assert recipe["command"] == ["a", "${redacted:late}", "${redacted:late}"]
    assert recipe["seeds"] == {"${redacted:late-0}": "${redacted:late}"}
    assert training.REDACTION.fullmatch("${redacted:late-0}")


def test_the_rest_of_the_statement_stays() -> None:
    item = recording()
    clean = redact(item, ["externalParameters/command/0"])
    before, after = document(item), document(clean)
    before["buildDefinition"]["externalParameters"]["command"][0] = "${redacted:late}"
    assert after == before


def test_a_byproduct_keeps_its_name_alone() -> None:
    item = ResourceDescriptor(name="metrics", digest={"sha256": "11" * 32}, media_type="text/plain")
    run = msgspec.structs.replace(TRAINING.run, byproducts=(item,))
    whole = Recording(
        msgspec.structs.replace(TRAINING, run=run), {"11" * 32: f"x {SECRET} y".encode()}
    )
    assert fields_of(whole) == {"byproducts/metrics": "SERVICE_TOKEN"}
    clean = redact(whole, ["byproducts/metrics"])
    assert document(clean)["runDetails"]["byproducts"] == [
        {"name": "metrics", "annotations": {"redacted": True}}
    ]
    assert clean.files == {}


def test_a_field_is_not_named_by_a_secret() -> None:
    """Neither by the one that it holds nor by another."""
    inner = {f"k-{SECRET}": {"a": "another-one-1"}}
    collectors = {"x": training.Collected("ok", inner)}
    environment = msgspec.structs.replace(TRAINING.build.internal_parameters, collectors=collectors)
    build = msgspec.structs.replace(TRAINING.build, internal_parameters=environment)
    item = Recording(msgspec.structs.replace(TRAINING, build=build), {})
    with pytest.raises(SecretError) as caught:
        refuse_secrets_in(item, live_secrets({"A_TOKEN": "another-one-1", **ENVIRON}))
    assert caught.value.fields == {"internalParameters/collectors/x/values": "A_TOKEN"}
    assert SECRET not in str(caught.value)


def test_the_name_of_a_byproduct_is_not_shown_if_it_is_secret() -> None:
    item = ResourceDescriptor(name=f"manifest/data:{SECRET}", digest={"sha256": "0" * 64})
    run = msgspec.structs.replace(TRAINING.run, byproducts=(item,))
    named = Recording(msgspec.structs.replace(TRAINING, run=run), {})
    with pytest.raises(SecretError) as caught:
        refuse_secrets_in(named, live_secrets(ENVIRON))
    assert caught.value.fields == {"byproducts/0": "SERVICE_TOKEN"}
    assert SECRET not in str(caught.value)
    left = redact(named, ["byproducts/0"])
    assert SECRET.encode() not in refuse_secrets_in(left, live_secrets(ENVIRON))
    assert left.statement.run.byproducts[0].name == "${redacted:late}"


def test_the_names_of_the_models_files_cannot_be_redacted() -> None:
    named = msgspec.structs.replace(TRAINING, model_name=SECRET)
    assert fields_of(Recording(named, {})) == {"": "SERVICE_TOKEN"}


@pytest.mark.parametrize(
    "field",
    [
        "", "/", "none", "byproducts/none", "byproducts/99", "byproducts/-1",
        "externalParameters/command/99", "externalParameters",
        "externalParameters/command/x", "externalParameters/none/x",
        "internalParameters/collectors",
        "externalParameters/command/0/x",
    ],
)  # fmt: skip
def test_what_is_no_field_is_refused(field: str) -> None:
    with pytest.raises(UsageError):
        redact(recording(), [field])


@given(st.lists(st.sampled_from(["externalParameters", "command", "0", "-1", "source", "~", "x"])))
def test_any_field_is_redacted_or_refused(parts: list[str]) -> None:
    field = "/".join(parts)
    try:
        clean = redact(recording(), [field])
    except UsageError:
        return
    assert "${redacted:late" in json.dumps(document(clean)), field
