"""Uploads: the same thing said twice is one event, and what is none is refused by the name of the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.connect.uploads import NotAnUpload, UploadMapping
from worker.messages import EVENT_TYPE
from worker.settings import ConnectionSettings
from worker.settings.presets import preset, preset_names

TOKEN = "a-token-of-some-length"
NEXTCLOUD = {
    "event": {
        "class": "OCP\\Files\\Events\\Node\\NodeCreatedEvent",
        "node": {"id": 437, "path": "/admin/files/Fotos/ä ?.jpg"},
    },
    "user": {"uid": "admin", "displayName": "Admin"},
    "time": 1_700_100_000,
}
IMMICH = {
    "type": "AssetV1",
    "trigger": "AssetCreate",
    "data": {"asset": {"id": "0d9c", "type": "IMAGE", "checksum": "x=", "originalFileName": "a.heic"}},
}
MAYAN = {"document_id": 3, "file_id": 4, "checksum": "bcce", "mime_type": "image/jpeg", "label": "a.jpg"}
SAID = {"nextcloud": NEXTCLOUD, "immich": IMMICH, "mayan": MAYAN}


def mapping(name: str, **changes: Any) -> UploadMapping:
    settings = preset(name) | {"url": "https://dms.example", "instance": "acme", **changes}
    connection = ConnectionSettings.model_validate(settings)
    return UploadMapping("photos", connection, connection.inlet, "inlet")


@pytest.mark.parametrize("name", SAID)
def test_what_a_system_says_is_an_event_of_its_instance_that_names_its_connection(name: str) -> None:
    upload = mapping(name).upload(SAID[name])
    assert upload is not None
    event = json.loads(upload.body)
    assert event["type"] == EVENT_TYPE
    assert event["data"]["instance"] == "acme"
    assert event["data"]["context"]["connect"] == "photos"
    assert event["data"]["content"]["url"].startswith("https://dms.example/")
    again = mapping(name).upload(SAID[name])
    assert again == upload, "said twice, it is the same event"


def test_the_path_of_a_file_of_nextcloud_is_encoded_part_by_part() -> None:
    upload = mapping("nextcloud").upload(NEXTCLOUD)
    assert upload is not None
    url = json.loads(upload.body)["data"]["content"]["url"]
    assert url == "https://dms.example/remote.php/dav/files/admin/Fotos/%C3%A4%20%3F.jpg"


def test_another_mark_is_another_event_and_the_same_mark_the_same_whatever_else_is_said() -> None:
    first, renamed, changed = (
        mapping("mayan").upload({**MAYAN, **change}) for change in ({}, {"label": "b.jpg"}, {"checksum": "new"})
    )
    assert first is not None
    assert renamed is not None
    assert changed is not None
    assert first.event_id == renamed.event_id != changed.event_id


def test_what_is_not_accepted_is_no_upload() -> None:
    assert mapping("mayan").upload({**MAYAN, "mime_type": "application/pdf"}) is None


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({}, "accept"),
        ({**MAYAN, "document_id": None}, "asset_id"),
        ({**MAYAN, "document_id": ["3"]}, "asset_id"),
        ({**MAYAN, "file_id": None}, "content_url"),
        ({**MAYAN, "file_id": ".."}, "content_url"),
        ({**MAYAN, "document_id": "a\u0000"}, "asset_id"),
        ([], "accept"),
        ("text", "accept"),
        (None, "accept"),
    ],
)
def test_what_lacks_something_is_refused_by_the_name_of_the_field(said: Any, field: str) -> None:
    with pytest.raises(NotAnUpload, match=field):
        mapping("mayan").upload(said)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*MAYAN, "event", "data"]), inner),
    max_leaves=10,
)


@given(json_values, st.sampled_from(sorted(SAID)))
def test_no_json_is_anything_but_an_upload_none_or_refused(said: Any, name: str) -> None:
    try:
        mapping(name).upload(said)
    except NotAnUpload as error:
        assert str(error)


def own(**data: Any) -> dict[str, Any]:
    event = {"specversion": "1.0", "id": "e1", "source": "/dms", "type": EVENT_TYPE}
    return {**event, "data": {"asset_id": "1", "content": {"url": "https://dms.example/1"}, **data}}


def test_an_event_of_ours_keeps_its_id_and_belongs_to_the_instance_of_the_inlet() -> None:
    upload = mapping("mayan").own(own(context={"site": 7}))
    event = json.loads(upload.body)
    assert (event["id"], event["data"]["instance"]) == ("e1", "acme")
    assert event["data"]["context"] == {"site": 7, "connect": "photos"}


def test_an_event_for_another_instance_is_refused() -> None:
    with pytest.raises(NotAnUpload, match="acme"):
        mapping("mayan").own(own(instance="globex"))


@pytest.mark.parametrize("data", [{"asset_id": ""}, {"content": {}}, {"context": "x"}, {"content": {"url": 5}}])
def test_an_event_of_ours_that_is_none_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(NotAnUpload):
        mapping("mayan").own(own(**data))


@pytest.mark.parametrize("name", preset_names())
def test_each_preset_is_a_connection_once_it_has_an_address_and_its_secrets(name: str) -> None:
    settings = preset(name)
    settings["url"] = "https://dms.example"
    if settings.get("inlet", {}).get("enabled"):
        settings["inlet"]["token"] = TOKEN
    connection = ConnectionSettings.model_validate(settings)
    assert list(connection.wrong_fields()) == []
