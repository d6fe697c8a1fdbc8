"""Notifications of MinIO and Ceph, byte for byte as they publish them, and what is no new image."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.messages import UnreadableEvent, read_event
from worker.messages.examples import EVENT, EVENT_DATA
from worker.messages.s3_notifications import S3Content, read_s3_event, s3_notification

MINIO = (
    b'{"EventName":"s3:ObjectCreated:Put","Key":"photos/summer 2026/a+b \xc3\xa9.jpg","Records":[{"eventVersion":"2.0",'
    b'"eventSource":"minio:s3","awsRegion":"","eventTime":"2026-11-25T09:30:00.123Z","eventName":"s3:ObjectCreated:Put",'
    b'"userIdentity":{"principalId":"app"},"requestParameters":{"principalId":"app","region":"","sourceIPAddress":'
    b'"10.0.0.5"},"responseElements":{"x-amz-id-2":"dd9025ba","x-amz-request-id":"18A1B2C3D4E5F607",'
    b'"x-minio-deployment-id":"7c0ea3a1-2f86-4a4e-9d8c-5d4b4f0d3b11","x-minio-origin-endpoint":"http://10.0.0.2:9000"},'
    b'"s3":{"s3SchemaVersion":"1.0","configurationId":"Config","bucket":{"name":"photos","ownerIdentity":{"principalId":'
    b'"app"},"arn":"arn:aws:s3:::photos"},"object":{"key":"summer+2026%2Fa%2Bb+%C3%A9.jpg","size":48213,"eTag":'
    b'"5d41402abc4b2a76b9719d911017c592","contentType":"image/jpeg","userMetadata":{"content-type":"image/jpeg"},'
    b'"sequencer":"18A1B2C3D4F00000"}},"source":{"host":"10.0.0.5","port":"","userAgent":"MinIO (linux; amd64)"}}]}'
)
CEPH = (
    b'{"Records":[{"eventVersion":"2.2","eventSource":"ceph:s3","awsRegion":"default","eventTime":'
    b'"2026-11-25T09:30:00.123456Z","eventName":"ObjectCreated:Put","userIdentity":{"principalId":"app"},'
    b'"requestParameters":{"sourceIPAddress":""},"responseElements":{"x-amz-request-id":"e3b1.4152.7","x-amz-id-2":'
    b'"1038-default-default"},"s3":{"s3SchemaVersion":"1.0","configurationId":"live","bucket":{"name":"photos",'
    b'"ownerIdentity":{"principalId":"app"},"arn":"arn:aws:s3:default::photos","id":"4f5.1"},"object":{"key":'
    b'"summer+2026/100%25.jpg","size":48213,"eTag":"5d41402abc4b2a76b9719d911017c592","versionId":"","sequencer":'
    b'"F7E6D5C4","metadata":[],"tags":[]}},"eventId":"1763980200.123456.5d41402abc4b2a76b9719d911017c592",'
    b'"opaqueData":""}]}'
)


def record(**changes: Any) -> dict[str, Any]:
    """MinIO's record, with changes to the record itself, and to its object by `key`, `etag`, `version`, `sequencer`."""
    made: dict[str, Any] = json.loads(MINIO)["Records"][0]
    names = {"key": "key", "etag": "eTag", "version": "versionId", "sequencer": "sequencer"}
    for name, value in changes.items():
        if name in names:
            made["s3"]["object"][names[name]] = value
        else:
            made[name] = value
    return made


def event_of(raw: dict[str, Any], instance: str | None = "acme", **headers: str) -> Any:
    return read_s3_event(raw, headers, lambda bucket: instance).event


def only_record(body: bytes) -> dict[str, Any]:
    found = s3_notification(body, "m")
    assert found is not None
    assert found.is_one_event
    return dict(found.records[0])


def test_a_notification_of_minio_is_an_event() -> None:
    event = event_of(only_record(MINIO))

    assert (event.data.asset_id, event.data.instance) == ("photos/summer 2026/a+b é.jpg", "acme")
    assert (event.data.file_name, event.data.mime_type) == ("a+b é.jpg", "image/jpeg")
    assert (event.source, event.time.isoformat()) == ("minio:s3", "2026-11-25T09:30:00.123000+00:00")
    content = event.data.content
    assert isinstance(content, S3Content)
    assert (content.kind, content.bucket, content.key) == ("s3", "photos", "summer 2026/a+b é.jpg")
    assert content.version_id is None
    assert event.data.context == {
        "s3": {
            "source": "minio:s3",
            "bucket": "photos",
            "key": "summer 2026/a+b é.jpg",
            "version_id": None,
            "etag": "5d41402abc4b2a76b9719d911017c592",
            "sequencer": "18A1B2C3D4F00000",
        }
    }


def test_the_key_of_minio_is_the_one_at_the_top_of_its_message() -> None:
    assert event_of(only_record(MINIO)).data.asset_id == json.loads(MINIO)["Key"]


def test_a_notification_of_ceph_is_an_event_whose_key_is_as_it_is() -> None:
    event = event_of(only_record(CEPH))

    assert event.data.asset_id == "photos/summer+2026/100%25.jpg"
    assert event.source == "ceph:s3"
    assert (event.data.content.key, event.data.content.version_id) == ("summer+2026/100%25.jpg", None)
    assert event.data.mime_type is None


def test_a_key_of_any_other_source_is_decoded_as_aws_documents_it() -> None:
    event = event_of(record(eventSource="aws:s3", key="a+b%2Bc%C3%A9.jpg"))

    assert event.data.content.key == "a b+cé.jpg"


def test_the_id_is_pinned_and_stands_for_one_version_of_an_object() -> None:
    first = event_of(only_record(MINIO)).id

    assert first == "630e8f53-4e06-5a66-b246-c411273fe7ec"
    assert event_of(record(eventTime="2031-01-01T00:00:00Z", awsRegion="x"), "beta").id == first
    others = (
        record(key="b.jpg"),
        record(etag="0" * 32),
        record(version="v1"),
        record(sequencer="18A1B2C3D4F00001"),
        record(eventSource="aws:s3"),
    )
    assert len({first, *(event_of(each).id for each in others)}) == len(others) + 1
    assert event_of(record(version="v1")).id == event_of(record(version="v1", etag="0" * 32)).id


@pytest.mark.parametrize(
    ("name", "key", "why"),
    [
        ("s3:ObjectCreated:Put", "a.jpg", None),
        ("s3:ObjectCreated:CompleteMultipartUpload", "a.jpg", None),
        ("ObjectCreated:Copy", "a.jpg", None),
        ("s3:ObjectCreated:PutTagging", "a.jpg", "tagging"),
        ("s3:ObjectCreated:DeleteTagging", "a.jpg", "tagging"),
        ("s3:ObjectCreated:PutRetention", "a.jpg", "tagging"),
        ("s3:ObjectCreated:PutLegalHold", "a.jpg", "tagging"),
        ("s3:ObjectTagging:Put", "a.jpg", "tagging"),
        ("s3:ObjectRemoved:Delete", "a.jpg", "removed"),
        ("ObjectRemoved:DeleteMarkerCreated", "a.jpg", "removed"),
        ("s3:ObjectCreated:Put", "folder/", "folder"),
        ("s3:ObjectAccessed:Get", "a.jpg", "other"),
        ("s3:Replication:OperationFailedReplication", "a.jpg", "other"),
    ],
)
def test_only_what_makes_an_object_is_an_event(name: str, key: str, why: str | None) -> None:
    found = s3_notification(json.dumps({"Records": [record(eventName=name, key=key)]}).encode(), "m")

    assert found is not None
    assert (len(found.records), found.ignored) == ((1, ()) if why is None else (0, (why,)))


def test_several_records_are_messages_of_their_own_and_each_is_the_event_that_it_was() -> None:
    records = [
        record(),
        record(eventName="s3:ObjectRemoved:Delete"),
        record(key="b.jpg"),
        {"eventName": "s3:ObjectCreated:Put"},
    ]
    records[3]["s3"] = {"bucket": {"name": "photos"}}

    found = s3_notification(json.dumps({"Records": records}).encode(), "m")

    assert found is not None
    assert not found.is_one_event
    assert found.ignored == ("removed",)
    first, second, unreadable = found.parts()
    assert (first.bucket, first.message_id) == ("photos", event_of(record()).id)
    assert event_of(only_record(second.body)).id == second.message_id == event_of(record(key="b.jpg")).id
    assert unreadable.bucket is None
    assert [each.message_id for each in found.parts()][2] == unreadable.message_id, "the same each time"
    with pytest.raises(UnreadableEvent, match=r"s3.object: must be an object"):
        event_of(only_record(unreadable.body))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": "a" * 1020}, "asset_id: String should have at most 1024 characters"),
        ({"key": "a%0Ab.jpg"}, "asset_id: "),
        ({"key": "%FF.jpg"}, "s3.object.key: is not UTF-8 once it is decoded"),
        ({"key": ""}, "s3.object.key: must be a text"),
        ({"key": "\ud800.jpg"}, "s3.object.key: holds what is not text in UTF-8"),
        ({"etag": "\ud800"}, "eTag: holds what is not text in UTF-8"),
        ({"key": 5}, "s3.object.key: must be a text"),
        ({"eventSource": None}, "eventSource: must be a text"),
        ({"s3": {}}, "s3.bucket: must be an object"),
    ],
)
def test_a_record_that_cannot_be_an_event_is_refused_by_its_field(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UnreadableEvent) as refused:
        event_of(record(**changes))

    assert refused.value.reason == "event_invalid"
    assert words in str(refused.value)
    assert refused.value.asset_id is None, "nobody is answered under a name that was not found out"


def test_a_bucket_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UnreadableEvent, match=r"no table of `sources\.s3` has the bucket 'photos'") as refused:
        event_of(record(), None)

    assert refused.value.reason == "s3_bucket_unknown"


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(EVENT | {"Records": [record()]}).encode(),
        json.dumps(EVENT_DATA | {"Records": [record()]}).encode(),
        b'{"Records":[],"s3":1}',
        b'{"Records":{"s3":{}}}',
        b'{"Records":["s3"]}',
        b'{"Records":[{"s3":5}]}',
        b'[{"Records":[{"s3":{}}]}]',
        b'{"Records":[{"s3":{}}]',
        b'{"Records":[{"s3":' + b"[" * 100_000,
        MINIO + b" " * (1 << 20),
    ],
)
def test_what_is_no_notification_is_read_as_before(body: bytes) -> None:
    assert s3_notification(body, "m") is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (MINIO.replace(b'"size":', b'"key":"b.jpg","size":'), "'key': given more than once"),
        (json.dumps({"Records": [{"s3": {}}] * 1001}).encode(), "has 1,001 records, at most 1,000 are taken"),
    ],
)
def test_a_message_that_is_not_to_be_taken_apart_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(UnreadableEvent, match=words) as refused:
        s3_notification(body, "m")

    assert refused.value.reason == "event_invalid"


def test_the_trace_of_its_message_goes_on() -> None:
    parent = "00-11111111111111111111111111111111-2222222222222222-01"

    assert event_of(record(), traceparent=parent).traceparent == parent


def test_nobody_can_write_the_content_of_such_an_event() -> None:
    content = {"path": None, "bucket": "photos", "key": "a.jpg"}

    with pytest.raises(UnreadableEvent, match="exactly one of path, url and base64"):
        read_event(json.dumps(EVENT_DATA | {"content": content}).encode(), None, {}, "m")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["s3", "bucket", "object", "name", "key", "eventName", "eventSource"]), inner)
    ),
    max_leaves=12,
)


@given(st.lists(json_values, min_size=1, max_size=3))
def test_no_record_raises_anything_but_unreadable_event(records: list[Any]) -> None:
    try:
        found = s3_notification(json.dumps({"Records": records}).encode(), "m")
        for each in found.parts() if found else ():
            event_of(only_record(each.body))
    except UnreadableEvent:
        pass
