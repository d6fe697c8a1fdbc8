"""Builds the AsyncAPI 3 document: which messages pass which exchanges, for developers of the DMS's side.

Names come from the topology, schemas and examples from the messages; nothing is written twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from worker.amqp.topology import Exchange, Lane, Topology
from worker.messages import examples
from worker.messages.events import CLOUDEVENTS_JSON, Attributes, Event, EventData
from worker.messages.results import Result, write_result
from worker.messages.schemas import components

_BINDING = "0.3.0"
_EVENTS = ("eventStructured", "eventBinary", "eventImage", "eventPlain")


def asyncapi(topology: Topology) -> dict[str, Any]:
    """The document for one topology, as JSON values."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Autotag",
            "version": "1.0.0",  # of the messages, for those who consume them: Autotag's own changes more often
            "description": (
                "Upload events in, tags out, over RabbitMQ (AMQP 0-9-1). "
                f"Names begin with the setting `amqp.queue_prefix`, here `{topology.prefix}`."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": CLOUDEVENTS_JSON,
        "servers": {"rabbitmq": {"host": "127.0.0.1:5672", "protocol": "amqp", "protocolVersion": "0-9-1"}},
        "channels": _channels(topology),
        "operations": _operations(),
        "components": {"schemas": _schemas(), "messages": _messages()},
    }


def _channels(topology: Topology) -> dict[str, Any]:
    exchanges = {exchange.name: exchange for exchange in topology.exchanges}
    results = exchanges[topology.results_exchange]
    dead = exchanges[topology.dead_exchange]
    return {
        **{f"{lane}Events": _lane(lane, exchanges[topology.images_exchange]) for lane in Lane},
        "results": {
            "address": "{instance}.{status}",
            "title": "Results",
            "description": (
                "A queue of your own can be bound with `acme.*` or `*.failed`. What no such queue takes is kept in the "
                f"queue `{topology.results_queue}`."
            ),
            "parameters": {
                "instance": {"description": "The instance of the event, with a colon for each dot in its name."},
                "status": {
                    "description": "What became of it.",
                    "enum": ["tagged", "no_tags", "skipped", "failed"],
                },
            },
            "messages": _references("result", of="#/components/messages"),
            "bindings": _binding(results),
        },
        "deadLetters": {
            "address": "{lane}",
            "title": "Events that could not be done",
            "description": f"Kept for people in the queue `{topology.dead_letters_queue}`, unchanged.",
            "parameters": {"lane": {"enum": [lane.value for lane in Lane]}},
            "messages": _references(*_EVENTS, of="#/components/messages"),
            "bindings": _binding(dead),
        },
    }


def _lane(lane: Lane, exchange: Exchange) -> dict[str, Any]:
    descriptions = {
        Lane.LIVE: "A user waits for these.",
        Lane.BULK: "Nobody waits for these: back-fills of a whole library.",
    }
    return {
        "address": lane.value,
        "title": f"Upload events, {lane} lane",
        "description": descriptions[lane],
        "messages": _references(*_EVENTS, of="#/components/messages"),
        "bindings": _binding(exchange),
    }


def _binding(exchange: Exchange) -> dict[str, Any]:
    return {
        "amqp": {
            "is": "routingKey",
            "exchange": {"name": exchange.name, "type": exchange.type, "durable": True, "autoDelete": False},
            "bindingVersion": _BINDING,
        }
    }


def _operations() -> dict[str, Any]:
    receive = {
        f"receive{lane.capitalize()}Events": _operation(
            "receive",
            f"{lane}Events",
            _EVENTS,
            "Autotag looks at the image and answers on `results`. Publish with confirms, `mandatory`, delivery mode 2.",
            {"ack": True},
        )
        for lane in Lane
    }
    return receive | {
        "sendResults": _operation(
            "send",
            "results",
            ("result",),
            "At least once: drop a result whose `message_id` was seen before. A later result replaces an earlier one.",
            {"deliveryMode": 2, "mandatory": True},
        ),
        "sendDeadLetters": _operation(
            "send",
            "deadLetters",
            _EVENTS,
            "An event that cannot be read, or whose image can never be tagged, is set aside.",
            {"deliveryMode": 2, "mandatory": True},
        ),
    }


def _operation(
    action: str, channel: str, messages: tuple[str, ...], summary: str, binding: dict[str, Any]
) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": list(_references(*messages, of=f"#/channels/{channel}/messages").values()),
        "bindings": {"amqp": binding | {"bindingVersion": _BINDING}},
    }


def _messages() -> dict[str, Any]:
    return {
        "eventStructured": _message(
            "Upload event: CloudEvent in structured mode",
            CLOUDEVENTS_JSON,
            "Event",
            {
                "a file": {"payload": examples.EVENT},
                "an address": {"payload": examples.EVENT_WITH_URL},
                "a small image inside": {"payload": examples.EVENT_WITH_BASE64},
            },
        ),
        "eventBinary": _message(
            "Upload event: CloudEvent in binary mode",
            "application/json",
            "EventData",
            {"a file": {"headers": examples.HEADERS, "payload": examples.EVENT_DATA}},
            headers="EventHeaders",
        ),
        "eventImage": _message(
            "Upload event: CloudEvent in binary mode, whose body is the image",
            "image/*",
            "ImageBytes",
            {"an image": {"headers": examples.IMAGE_HEADERS}},
            headers="ImageEventHeaders",
        ),
        "eventPlain": _message(
            "Upload event: plain JSON, the id in `message_id`",
            "application/json",
            "EventData",
            {"a file": {"payload": examples.EVENT_DATA}},
        ),
        "result": _message(
            "Result",
            CLOUDEVENTS_JSON,
            "ResultEvent",
            {
                "tagged": {"payload": example_result(examples.TAGGED)},
                "skipped": {"payload": example_result(examples.SKIPPED)},
                "failed": {"payload": example_result(examples.FAILED)},
            },
        ),
    }


def example_result(result: Result) -> dict[str, Any]:
    """An example result as `write_result` serializes it, as JSON values."""
    event = Event.model_validate_json(json.dumps(examples.EVENT))
    message = write_result(result, event=event, settings_digest="example", time=examples.TIME)
    event_json: dict[str, Any] = json.loads(message.body)
    return event_json


def _schemas() -> dict[str, Any]:
    attributes = {
        f"cloudEvents:{name}": {"type": "string", "description": field.description or f"`{examples.ATTRIBUTES[name]}`"}
        for name, field in Attributes.model_fields.items()
    }
    required = [f"cloudEvents:{name}" for name, field in Attributes.model_fields.items() if field.is_required()]
    about_image = {
        f"cloudEvents:{name.replace('_', '')}": {"type": "string", "description": field.description}
        for name, field in EventData.model_fields.items()
        if name != "content"
    }
    return {
        **components("#/components/schemas/{model}"),
        "EventHeaders": {
            "type": "object",
            "description": "CloudEvents attributes as AMQP headers; `cloudEvents_` does as well.",
            "properties": attributes,
            "required": required,
        },
        "ImageEventHeaders": {
            "type": "object",
            "description": (
                "CloudEvents attributes as AMQP headers, and the fields of `EventData` as extension attributes: names "
                "without underscores, `existingtags` a JSON array as text. `subject` does for `assetid`."
            ),
            "properties": attributes | about_image,
            "required": required,
        },
        "ImageBytes": {"type": "string", "format": "binary", "description": "The image's file, byte by byte."},
    }


def _message(
    title: str,
    content_type: str,
    payload: str,
    named_examples: Mapping[str, Mapping[str, Any]],
    *,
    headers: str | None = None,
) -> dict[str, Any]:
    return {
        "title": title,
        "contentType": content_type,
        **({"headers": _reference("#/components/schemas", headers)} if headers else {}),
        "payload": _reference("#/components/schemas", payload),
        "examples": [{"name": name, **example} for name, example in named_examples.items()],
    }


def _references(*names: str, of: str) -> dict[str, dict[str, str]]:
    return {name: _reference(of, name) for name in names}


def _reference(of: str, name: str) -> dict[str, str]:
    return {"$ref": f"{of}/{name}"}
