"""Whatever a cloud service answers is an answer, or one of our own errors; a wrong field never hides the status."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from worker.errors import AutotagError, Misconfigured
from worker.providers import google_errors, microsoft_errors
from worker.providers.base import Answer
from worker.providers.cloud.errors import GARBLED_ANSWER, ServiceFailed, answer_read
from worker.providers.cloud.http_client import HttpResponse, KeyHeader
from worker.providers.cloud.suggestions import parse_suggestions
from worker.providers.google_cloud_vision import _annotation_or_failure
from worker.providers.microsoft_vision import Api, _model, _tags

KEY = KeyHeader("X-Key", SecretStr("secret-key"))
STATUS = st.sampled_from([200, 301, 400, 401, 403, 404, 408, 413, 429, 500])

_errors = ["error", "details", "message", "code", "reason", "retryDelay", "innererror", "statusCode"]
_labels = ["labelAnnotations", "description", "score", "tags", "name", "confidence", "tagsResult", "values"]
_names = st.sampled_from([*_errors, *_labels, "modelVersion"])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)


def response(tree: object, status: int) -> HttpResponse:
    return HttpResponse(status, {}, json.dumps(tree).encode())


@given(ANY_JSON, STATUS)
def test_any_refusal_is_one_of_our_errors(tree: object, status: int) -> None:
    assert isinstance(google_errors.call_error(response(tree, status), KEY, "acme"), AutotagError)
    error = microsoft_errors.call_error(response(tree, status), KEY, instance="acme", retired=False)
    assert isinstance(error, AutotagError)


@given(ANY_JSON)
def test_any_annotation_is_an_answer_or_one_of_our_errors(part: object) -> None:
    assert isinstance(_annotation_or_failure(part, KEY), Answer | AutotagError)


@given(st.dictionaries(_names, ANY_JSON), st.sampled_from(["4.0", "3.2"]))
def test_any_tags_are_read_or_garbled(tree: dict[str, object], version: str) -> None:
    api = Api(version, "https://vision.example")
    _model(tree, api)
    try:
        parse_suggestions("a service", _tags(tree, api) or [])
    except ServiceFailed as error:
        assert error.reason == GARBLED_ANSWER  # noqa: PT017 - or there are tags


@pytest.mark.parametrize("details", [5, True, "text", {"reason": 5}, [5, [5]]])
def test_details_of_another_type_do_not_hide_a_refused_key(details: object) -> None:
    error = google_errors.call_error(response({"error": {"details": details}}, 401), KEY, "acme")

    assert isinstance(error, Misconfigured)
    assert error.reason == "google_key_refused"


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe\x00", b"<html>", b'{"a": ' + b"9" * 5000 + b"}", b""]
)
def test_a_body_that_is_no_json_object_is_none(body: bytes) -> None:
    assert HttpResponse(200, {}, body).json_object() is None


def test_what_nobody_foresaw_is_a_garbled_answer() -> None:
    with pytest.raises(ServiceFailed) as failed, answer_read("a service"):
        len(5)  # type: ignore[arg-type]

    assert failed.value.reason == GARBLED_ANSWER
