"""Turns what a system says about an image into an event of ours, or knows that it is none. Pure.

The id of an event follows from what it is about: the connection, the asset and its content mark (without one, all that
was said). So what is sent or listed twice is one event, also after a crash between its publication and the note of it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from worker.connect.mapping import JsonQuery, Missing, UrlTemplate
from worker.errors import CannotBeDone
from worker.messages import EVENT_TYPE, UnreadableEvent, read_event
from worker.messages.events import CLOUDEVENTS_JSON
from worker.settings import ConnectionSettings, MappingSettings

CONNECTION_FIELD: Final = "connect"
"""In `data.context`: the name of the connection that an event came by."""

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "autotag/connect")


@dataclass(frozen=True, slots=True)
class Upload:
    """One image, as an event that can be published. `mark` is its content mark, if the system gives one."""

    asset_id: str
    event_id: str
    body: bytes
    mark: str | None = None
    content_type: str = CLOUDEVENTS_JSON


class NotAnUpload(CannotBeDone):
    """What was said can't be an event; the message names what is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="upload_not_readable")


class UploadMapping:
    """Reads uploads out of one kind of document: what the inlet is sent, or what the poller lists."""

    def __init__(self, name: str, connection: ConnectionSettings, settings: MappingSettings, place: str) -> None:
        self._name = name
        self._instance = connection.instance
        at = f"connect.{name}.{place}"

        def reading(field: str) -> JsonQuery | None:
            text: str | None = getattr(settings, field)
            return None if text is None else JsonQuery(text, f"{at}.{field}")

        def readings(field: str) -> dict[str, JsonQuery]:
            return {key: JsonQuery(text, f"{at}.{field}.{key}") for key, text in getattr(settings, field).items()}

        self._accept = reading("accept")
        self._asset_id = reading("asset_id")
        self._content_path = reading("content_path")
        self._texts = {field: reading(field) for field in ("file_name", "mime_type")}
        self._time, self._existing_tags, self._mark = reading("time"), reading("existing_tags"), reading("mark")
        self._variables, self._context = readings("variables"), readings("context")
        base = connection.url or ""
        self._content_url = (
            UrlTemplate(settings.content_url, base, f"{at}.content_url") if settings.content_url is not None else None
        )

    @property
    def is_set(self) -> bool:
        """Whether documents other than events of ours can be read."""
        return self._asset_id is not None

    def upload(self, document: Any) -> Upload | None:
        """The upload that a document is about; None where `accept` is not true of it. Raises NotAnUpload."""
        try:
            if self._accept is not None and not self._accept.find(document):
                return None
            return self._upload(document)
        except Missing as error:
            raise NotAnUpload(str(error)) from None

    def _upload(self, document: Any) -> Upload:
        assert self._asset_id is not None  # noqa: S101 - `is_set`; settings are checked when they are loaded
        asset_id = self._asset_id.needed_text_in(document)
        mark = self._mark.text_in(document) if self._mark is not None else None
        data: dict[str, Any] = {"asset_id": asset_id, "instance": self._instance}
        data["content"] = self._content(document, asset_id)
        data |= {name: text for name, each in self._texts.items() if each and (text := each.text_in(document))}
        if self._existing_tags is not None and (tags := self._existing_tags.find(document)):
            data["existing_tags"] = tags
        data["context"] = {name: each.find(document) for name, each in self._context.items()}
        data["context"][CONNECTION_FIELD] = self._name
        content = f"mark {mark}" if mark is not None else f"said {digest(document)}"
        event = {
            "specversion": "1.0",
            "id": str(uuid.uuid5(_NAMESPACE, "\n".join((self._name, asset_id, content)))),
            "source": f"/connect/{self._name}",
            "type": EVENT_TYPE,
            "data": data,
        }
        if self._time is not None and (moment := self._time.moment_in(document)):
            event["time"] = moment
            data["context"].setdefault("time", moment)  # by which the target knows which of two results is newer
        return _checked(event, mark)

    def _content(self, document: Any, asset_id: str) -> dict[str, str]:
        if self._content_path is not None:
            return {"path": self._content_path.needed_text_in(document)}
        assert self._content_url is not None  # noqa: S101 - one of both, which is checked when settings are loaded
        scope = {name: each.find(document) for name, each in self._variables.items()}
        return {"url": self._content_url.of({"asset_id": asset_id, **scope})}

    def own(self, event: Mapping[str, Any]) -> Upload:
        """An event of ours, as a program that knows us sends it: for the instance of the connection, whatever it says.

        Raises NotAnUpload.
        """
        data = event.get("data")
        if not isinstance(data, Mapping):
            raise NotAnUpload("data: must be an object")
        context = data.get("context")
        if context is not None and not isinstance(context, Mapping):
            raise NotAnUpload("data.context: must be an object")
        said = data.get("instance")
        if said is not None and said != self._instance:
            raise NotAnUpload(f"data.instance: this inlet is the instance {self._instance}'s alone")
        ours = {**data, "instance": self._instance, "context": {**(context or {}), CONNECTION_FIELD: self._name}}
        return _checked({**event, "data": ours}, None)


def _checked(event: Mapping[str, Any], mark: str | None) -> Upload:
    """The event as it will be published, once it has been read as the service will read it."""
    try:
        body = json.dumps(event, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise NotAnUpload("it holds what JSON has no form for, or half of a character") from None
    try:
        read = read_event(body, CLOUDEVENTS_JSON, {}, None)
    except UnreadableEvent as error:
        raise NotAnUpload(str(error)) from None
    return Upload(read.event.data.asset_id, read.event.id, body, mark)


def digest(document: Any) -> str:
    """A text that differs for what differs, to stand in for a content mark."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
