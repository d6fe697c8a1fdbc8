"""JSON Schemas (2020-12) of events and results, generated from the models that read and write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from worker.messages.events import Event, EventData
from worker.messages.results import Result, ResultEvent

_MODELS: Mapping[str, tuple[type, JsonSchemaMode, str]] = {
    "event-data": (EventData, "validation", "Upload event: the data"),
    "event": (Event, "validation", "Upload event: a CloudEvent in structured mode"),
    "result-data": (Result, "serialization", "Result: the data"),
    "result": (ResultEvent, "serialization", "Result: a CloudEvent in structured mode"),
}


def schemas() -> dict[str, dict[str, Any]]:
    """Every schema by name (`event-data`, `event`, `result-data`, `result`), each self-contained."""
    return {
        name: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:autotag:schema:{name}:v1",
            **TypeAdapter(model).json_schema(mode=mode, schema_generator=_Generator),
            "title": title,
        }
        for name, (model, mode, title) in _MODELS.items()
    }


def components(ref_template: str) -> dict[str, dict[str, Any]]:
    """The same models by class name, for a document that contains them all and references them by `ref_template`."""
    _, generated = TypeAdapter.json_schemas(
        [(name, mode, TypeAdapter(model)) for name, (model, mode, _) in _MODELS.items()],
        ref_template=ref_template,
        schema_generator=_Generator,
    )
    definitions: dict[str, dict[str, Any]] = generated["$defs"]
    return definitions


class _Generator(GenerateJsonSchema):
    """Omits what carries no information: titles that repeat a field's name, and defaults of fields always written."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if self.mode == "serialization":
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)
