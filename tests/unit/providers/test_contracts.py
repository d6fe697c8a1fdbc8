"""Our requests, our parsing and the fakes are checked against the interface definitions that the vendors publish.

Google's are the protobuf types of `google-cloud-vision`; Microsoft's are the models and request builders of its two
Python clients, which are generated from the published API descriptions.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from azure.ai.vision.imageanalysis import models as analysis
from azure.ai.vision.imageanalysis._operations._operations import build_image_analysis_analyze_from_image_data_request
from azure.cognitiveservices.vision.computervision import models as vision_3
from azure.cognitiveservices.vision.computervision.operations import ComputerVisionClientOperationsMixin
from google.api import error_reason_pb2
from google.cloud import vision
from google.protobuf import json_format
from google.rpc import code_pb2
from msrest import Deserializer, Serializer

from tests.support import fake_google, fake_microsoft
from tests.support.cloud import google, microsoft, picture
from tests.support.fake_google import FakeGoogle, labels_of
from tests.support.fake_microsoft import FakeMicrosoft
from tests.support.fake_service import Call, Response
from worker.errors import CannotBeDone, Misconfigured, TryLater
from worker.providers import google_cloud_vision, google_errors, microsoft_errors, microsoft_vision
from worker.providers.base import Answer
from worker.providers.cloud.http_client import KeyHeader
from worker.providers.microsoft_vision import MicrosoftVision
from worker.providers.registry import ProviderContext
from worker.settings import Settings

IMAGES = [picture(1), picture(2)]


def call(method: str, url: str, headers: dict[str, str], body: bytes) -> Call:
    parts = urlsplit(url)
    return Call(0.0, method, parts.path, dict(parse_qsl(parts.query)), headers, body, "1.1")


def google_key() -> KeyHeader:
    key = google("https://x").google_cloud_vision.api_key
    assert key is not None
    return KeyHeader("X", key)


class TestGoogle:
    def test_our_request_is_one_of_the_service(self) -> None:
        body = google_cloud_vision._request_body(IMAGES, [10, 50])
        message = json_format.Parse(body, vision.BatchAnnotateImagesRequest()._pb)
        assert [request.image.content for request in message.requests] == IMAGES
        assert [
            (feature.type_, feature.max_results) for request in message.requests for feature in request.features
        ] == [(vision.Feature.Type.LABEL_DETECTION, 10), (vision.Feature.Type.LABEL_DETECTION, 50)]

    def test_the_fakes_response_is_one_of_the_service(self) -> None:
        service = FakeGoogle("k")
        service.image_errors[IMAGES[1]] = {
            "labelAnnotations": labels_of(IMAGES[1]),
            "error": {"code": 14, "message": "partly", "details": []},
        }
        headers = {"x-goog-api-key": "k", "content-type": "application/json"}
        body = google_cloud_vision._request_body([*IMAGES, b"bad"], [2, 2, 2])
        response = service.answer(call("POST", "https://x/v1/images:annotate", headers, body))
        message = json_format.Parse(response.body, vision.BatchAnnotateImagesResponse()._pb)
        assert len(message.responses) == 3
        assert [label.description for label in message.responses[0].label_annotations][1:] == ["Freight car"]
        assert message.responses[1].error.code == code_pb2.UNAVAILABLE
        assert message.responses[2].error.code == code_pb2.INVALID_ARGUMENT

    def test_we_read_what_the_services_own_types_write(self) -> None:
        message = vision.AnnotateImageResponse(
            label_annotations=[
                vision.EntityAnnotation(mid="/m/1", description="Train", score=0.75, topicality=0.5),
                vision.EntityAnnotation(mid="/m/2", description="Fog", score=0.0),
            ]
        )
        tree = json_format.MessageToDict(message._pb)
        answer = google_cloud_vision._parse_annotation(tree, google_key())
        assert isinstance(answer, Answer)
        assert [(each.name, each.confidence) for each in answer.suggestions] == [("Train", 0.75), ("Fog", 0.0)]

    @pytest.mark.parametrize("number", [value.number for value in code_pb2.Code.DESCRIPTOR.values if value.number])
    def test_every_code_of_an_image_has_a_meaning(self, number: int) -> None:
        error = google_errors.image_error({"code": number, "message": "because"}, google_key())
        never = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED"}
        refused = {"PERMISSION_DENIED", "UNAUTHENTICATED"}
        name = code_pb2.Code.Name(number)
        expected = CannotBeDone if name in never else Misconfigured if name in refused else TryLater
        assert isinstance(error, expected)

    def test_every_reason_we_name_is_one_of_googles(self) -> None:
        assert set(google_errors.REASONS) <= set(error_reason_pb2.ErrorReason.keys())

    def test_the_fakes_errors_are_of_googles_shape(self) -> None:
        for response in (fake_google.API_DISABLED, fake_google.BILLING_DISABLED, fake_google.KEY_RESTRICTED):
            error = json.loads(response.body)["error"]
            assert code_pb2.Code.Value(error["status"]) == code_pb2.PERMISSION_DENIED
            assert error_reason_pb2.ErrorReason.Value(error["details"][0]["reason"])


def provider() -> MicrosoftVision:
    return MicrosoftVision(ProviderContext(Settings()))


HEADERS = {"ocp-apim-subscription-key": "k", "content-type": "application/octet-stream"}


def exchange(path: str) -> tuple[Call, Response]:
    """The request that we make for an endpoint, and the fake's response."""
    endpoint = provider().endpoint(microsoft("https://westeurope.api.cognitive.microsoft.com" + path).microsoft_vision)
    made = call("POST", endpoint.url, HEADERS, IMAGES[0])
    return made, FakeMicrosoft("k").answer(made)


class TestImageAnalysis4:
    def test_our_request_is_the_one_that_microsofts_client_makes(self) -> None:
        theirs = build_image_analysis_analyze_from_image_data_request(
            visual_features=[analysis.VisualFeatures.TAGS], language="en", content_type="application/octet-stream"
        )
        ours, _ = exchange("")
        assert ours.path == "/computervision" + urlsplit(theirs.url).path
        assert ours.query == {**dict(parse_qsl(urlsplit(theirs.url).query)), "features": "tags"}
        assert ours.headers["content-type"] == theirs.headers["content-type"]
        assert ours.query["api-version"] == microsoft_vision.API_VERSION

    def test_the_fake_answers_in_microsofts_model(self) -> None:
        _, response = exchange("")
        result = analysis.ImageAnalysisResult(json.loads(response.body))
        assert response.status == 200
        assert result.model_version == "2023-10-01"
        assert (result.metadata.width, result.metadata.height) == (64, 64)
        assert result.tags is not None
        assert [type(tag.confidence) for tag in result.tags.list] == [float] * 3
        assert set(analysis.ImageAnalysisResult(json.loads(response.body))) <= {
            "modelVersion",
            "metadata",
            "tagsResult",
        }

    def test_we_read_what_microsofts_model_writes(self) -> None:
        tags = analysis.TagsResult(list=[analysis.DetectedTag(name="train", confidence=0.5)])
        metadata = analysis.ImageMetadata(width=64, height=64)
        result = analysis.ImageAnalysisResult(model_version="2023-10-01", metadata=metadata, tags=tags)
        api = microsoft_vision.Api("4.0", "https://x")
        assert microsoft_vision._tags(result.as_dict(), api) == [("train", 0.5)]


class TestComputerVision32:
    def test_our_request_is_the_one_that_microsofts_client_makes(self) -> None:
        ours, _ = exchange("/vision/v3.2")
        theirs: Any = ComputerVisionClientOperationsMixin.tag_image_in_stream  # a function with `metadata` set on it
        assert ours.path == "/vision/v3.2" + theirs.metadata["url"]
        assert set(ours.query) <= {"language", "model-version"}

    @pytest.mark.parametrize("path", ["/vision/v2.0", "/vision/v3.2"])
    def test_the_fake_answers_in_microsofts_model(self, path: str) -> None:
        _, response = exchange(path)
        tree = json.loads(response.body)
        result = self._deserialize("TagResult", tree)
        assert [tag.name for tag in result.tags][1:] == ["train", "outdoor"]
        assert result.metadata.width == 64
        assert result.request_id
        assert set(tree) <= {each["key"] for each in vision_3.TagResult._attribute_map.values()}

    def test_we_read_what_microsofts_model_writes(self) -> None:
        result = vision_3.TagResult(tags=[vision_3.ImageTag()], model_version="2021-05-01")
        result.tags[0].name, result.tags[0].confidence = "train", 0.5
        classes = {name: each for name, each in vars(vision_3).items() if isinstance(each, type)}
        tree: dict[str, Any] = Serializer(classes)._serialize(result, keep_readonly=True)
        api = microsoft_vision.Api("3.2", "https://x")
        assert microsoft_vision._tags(tree, api) == [("train", 0.5)]
        assert microsoft_vision._model(tree, api) == "microsoft_vision/3.2 2021-05-01"

    def test_the_fakes_errors_are_in_microsofts_model(self) -> None:
        response = fake_microsoft.nested(400, "InvalidRequest", "too small", "InvalidImageSize")
        parsed = self._deserialize("ComputerVisionErrorResponse", json.loads(response.body))
        assert (parsed.error.code, parsed.error.innererror.code) == ("InvalidRequest", "InvalidImageSize")

    def test_every_code_we_name_is_one_of_microsofts(self) -> None:
        theirs = {each.value for each in vision_3.ComputerVisionInnerErrorCodeValue}
        assert set(microsoft_errors.SETTINGS_CODES) <= theirs

    def test_the_languages_of_the_old_versions_are_those_of_the_reference(self) -> None:
        described = ComputerVisionClientOperationsMixin.tag_image_in_stream.__doc__ or ""
        listed = re.findall(r"'([a-z]{2})'", described)
        assert set(listed) == microsoft_vision.LANGUAGES_BEFORE_3_2

    @staticmethod
    def _deserialize(kind: str, tree: object) -> Any:
        classes = {name: each for name, each in vars(vision_3).items() if isinstance(each, type)}
        return Deserializer(classes)(kind, tree)
