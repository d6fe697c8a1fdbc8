"""The checked-in schemas match the code, and every example and everything that is written is valid under them."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from worker.amqp.asyncapi import asyncapi, example_result
from worker.amqp.topology import Lane, topology
from worker.cli.schema import documents, schema
from worker.messages import (
    Event,
    ImageFacts,
    ProviderReport,
    Result,
    Tag,
    examples,
    read_event,
    result_data,
    write_result,
)
from worker.messages.schemas import schemas

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS = schemas()
DOCUMENT = asyncapi(topology("autotag", (10, 60, 600)))


def validator(name: str) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    return jsonschema.Draft202012Validator(SCHEMAS[name], format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


def command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(schema)
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_checked_in_documents_are_those_of_the_code(name: str) -> None:
    assert (ROOT / "docs/schemas" / name).read_text(encoding="utf-8") == documents()[name], (
        "run: autotag schema --write docs/schemas"
    )


@pytest.mark.parametrize("event", [examples.EVENT, examples.EVENT_WITH_URL, examples.EVENT_WITH_BASE64])
def test_the_example_events_are_valid_and_readable(event: dict[str, Any]) -> None:
    validator("event").validate(event)
    validator("event-data").validate(event["data"])
    read_event(json.dumps(event).encode(), "application/cloudevents+json", {}, None)


@pytest.mark.parametrize("result", [examples.TAGGED, examples.SKIPPED, examples.FAILED])
def test_the_example_results_are_valid(result: Result) -> None:
    validator("result").validate(example_result(result))
    validator("result-data").validate(result_data(result))


def test_the_examples_of_the_documentation_are_valid() -> None:
    examples_in_text = re.findall(r"```json\n(.*?)```", (ROOT / "docs/messages.md").read_text(), re.DOTALL)
    schema_of = {"dms.image.uploaded.v1": "event", "dms.image.tagged.v1": "result", None: "event-data"}

    assert len(examples_in_text) == 4
    for example in map(json.loads, examples_in_text):
        validator(schema_of[example.get("type")]).validate(example)


@pytest.mark.parametrize(
    "data",
    [
        {"asset_id": "1", "content": {}},
        {"asset_id": "1", "content": {"path": "a", "url": "http://b/"}},
        {"asset_id": "1"},
        {"asset_id": True, "content": {"path": "a"}},
        {"asset_id": "1", "content": {"path": "a"}, "instance": "two words"},
    ],
)
def test_what_is_not_read_is_not_valid_either(data: dict[str, Any]) -> None:
    assert not validator("event-data").is_valid(data)


names = st.text(min_size=1, max_size=20)
some = st.none() | names
results = st.builds(
    Result,
    asset_id=st.from_regex(r"[^\x00-\x1f\x7f]{1,20}", fullmatch=True),
    instance=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    event_id=some,
    status=st.sampled_from(["tagged", "no_tags", "skipped", "failed"]),
    reason=some,
    message=some,
    tags=st.lists(st.builds(Tag, names, st.floats(0, 1), names), max_size=3).map(tuple),
    providers=st.lists(
        st.builds(
            ProviderReport,
            names,
            st.sampled_from(["ok", "skipped", "failed", "unavailable"]),
            some,
            some,
            some,
            st.none() | st.floats(0, 1e6),
        ),
        max_size=3,
    ).map(tuple),
    complete=st.booleans(),
    image=st.none() | st.builds(ImageFacts, names, st.integers(1, 9), st.integers(1, 9), st.just("a" * 64)),
)
RESULT = validator("result")


@given(results)
def test_every_result_that_is_written_is_valid(result: Result) -> None:
    RESULT.validate(json.loads(write_result(result, event=None, settings_digest="s").body))


def asyncapi_errors(document: dict[str, Any]) -> list[str]:
    # AsyncAPI 3.0.0 as @asyncapi/specs 6.11.1 (Apache-2.0) ships it, packed.
    meta = json.loads(gzip.decompress((ROOT / "tests/data/asyncapi-3.0.0.schema.json.gz").read_bytes()))
    return [f"{error.json_path}: {error.message}" for error in jsonschema.Draft7Validator(meta).iter_errors(document)]


def test_the_asyncapi_document_is_valid() -> None:
    assert asyncapi_errors(DOCUMENT) == []
    # And the check can fail
    assert asyncapi_errors(DOCUMENT | {"operations": {"x": {"action": "shout"}}})


def test_every_reference_in_the_asyncapi_document_can_be_resolved() -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, list):
            return [found for each in value for found in references(each)]
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for each in value.values() for found in references(each)]
        return []

    for reference in references(DOCUMENT):
        at = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


def test_the_examples_of_the_asyncapi_document_are_valid_under_its_own_schemas() -> None:
    checked = 0
    for message in DOCUMENT["components"]["messages"].values():
        for example in message["examples"]:
            for part in ("payload", "headers"):
                if part in example:
                    own = message[part] | {"components": DOCUMENT["components"]}
                    jsonschema.Draft202012Validator(own).validate(example[part])
                    checked += 1
    assert checked >= 8


def test_the_example_headers_are_readable() -> None:
    read_event(b"\xff\xd8\xff", "image/jpeg", examples.IMAGE_HEADERS, None)
    assert read_event(
        json.dumps(examples.EVENT_DATA).encode(), "application/json", examples.HEADERS, None
    ).event == Event.model_validate_json(json.dumps(examples.EVENT))


def test_the_asyncapi_document_has_the_names_of_the_topology() -> None:
    layout = topology("dms-test", (10,))
    channels = asyncapi(layout)["channels"]

    exchanges = {channel["bindings"]["amqp"]["exchange"]["name"] for channel in channels.values()}
    assert exchanges == {layout.images_exchange, layout.results_exchange, layout.dead_exchange}
    assert {channels[f"{lane}Events"]["address"] for lane in Lane} == {"live", "bulk"}


def test_the_command_prints_one_document_or_all() -> None:
    assert json.loads(command("result").stdout) == SCHEMAS["result"]
    assert set(json.loads(command().stdout)) == set(documents())


def test_the_command_writes_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given documents that have just been written
    monkeypatch.chdir(tmp_path)
    assert command("--write", "docs/schemas").exit_code == 0
    assert command("--check").exit_code == 0
    # When one of them is changed, and another removed
    (tmp_path / "docs/schemas/event.schema.json").write_text("{}")
    (tmp_path / "docs/schemas/asyncapi.json").unlink()
    found = command("--check")
    # Then the check names them, and how to write them again
    assert found.exit_code == 1
    assert "event.schema.json" in found.stderr
    assert "asyncapi.json" in found.stderr
    assert "autotag schema --write docs/schemas" in found.stderr
