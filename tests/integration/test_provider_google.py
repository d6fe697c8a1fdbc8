"""Google Cloud Vision over real HTTP: the fake follows Google's documentation and validates requests strictly."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from tests.support import fake_google
from tests.support.cloud import MARKER_KEY, google, image_of, picture, small_jpeg, started
from tests.support.fake_google import FakeGoogle, labels_of, too_many, unavailable
from tests.support.fake_service import CLOSE, GARBAGE, HTML_PAGE, Fault, Response, over_http2, respond_with
from tests.support.polling import eventually
from worker.errors import AutotagError, CannotBeDone, Misconfigured, TryLater, Unavailable
from worker.images.content import Content
from worker.images.requests import JpegLimits
from worker.messages import ImageFacts
from worker.providers.base import Answer
from worker.providers.checks import Severity
from worker.providers.google_cloud_vision import GoogleCloudVision
from worker.settings import InstanceSettings


@pytest.fixture
def service() -> Iterator[FakeGoogle]:
    with FakeGoogle(MARKER_KEY) as fake:
        yield fake


async def outcome_of(
    provider: GoogleCloudVision, instance: InstanceSettings, data: bytes | None = None
) -> AutotagError:
    with pytest.raises(AutotagError) as caught:
        await provider.tag(image_of(picture() if data is None else data, shrink=small_jpeg), instance)
    return caught.value


class TestAnImageIsTagged:
    async def test_labels_come_in_the_services_order_with_their_scores(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        data = picture()
        async with started(GoogleCloudVision, tmp_path) as provider:
            answer = await provider.tag(image_of(data), google(service.url))
        assert [(each.name, each.confidence) for each in answer.suggestions] == [
            (label["description"], label["score"]) for label in labels_of(data)
        ]
        assert answer.model == "google_cloud_vision/v1 builtin/stable"
        assert answer.note is None

    async def test_the_key_is_sent_in_its_header_and_nowhere_else(self, service: FakeGoogle, tmp_path: Path) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            await provider.tag(image_of(picture()), google(service.url, maximum_number_of_results=7))
        (call,) = service.calls
        assert call.headers["x-goog-api-key"] == MARKER_KEY
        assert call.path == "/v1/images:annotate"
        assert call.query == {}
        assert MARKER_KEY.encode() not in call.body
        (request,) = call.json()["requests"]
        assert request["features"] == [{"type": "LABEL_DETECTION", "maxResults": 7}]
        assert base64.b64decode(request["image"]["content"]) == picture()

    @pytest.mark.parametrize(
        ("endpoint", "path"),
        [
            ("", "/v1/images:annotate"),
            ("/", "/v1/images:annotate"),
            ("/v1/", "/v1/images:annotate"),
            ("/v1/images:annotate", "/v1/images:annotate"),
            ("/v1/projects/our-archive/locations/eu", "/v1/projects/our-archive/locations/eu/images:annotate"),
            ("/v1/projects/our-archive/locations/eu/", "/v1/projects/our-archive/locations/eu/images:annotate"),
        ],
    )
    async def test_an_endpoint_may_name_project_and_location(
        self, service: FakeGoogle, tmp_path: Path, endpoint: str, path: str
    ) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            await provider.tag(image_of(picture()), google(service.url + endpoint))
        assert [call.path for call in service.calls] == [path]

    async def test_an_image_in_which_nothing_is_seen_has_no_suggestions(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        service.labels = []
        async with started(GoogleCloudVision, tmp_path) as provider:
            answer = await provider.tag(image_of(picture()), google(service.url))
        assert answer.suggestions == ()

    async def test_a_score_of_zero_which_proto_json_leaves_out_is_zero(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        service.labels = [{"description": "fog"}]
        async with started(GoogleCloudVision, tmp_path) as provider:
            answer = await provider.tag(image_of(picture()), google(service.url))
        assert [(each.name, each.confidence) for each in answer.suggestions] == [("fog", 0.0)]

    async def test_http_2_is_used_where_the_service_supports_it(self, service: FakeGoogle, tmp_path: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        with over_http2(service, tmp_path / "cert.pem", tmp_path / "key.pem") as url:
            async with started(GoogleCloudVision, tmp_path, ca_file=tmp_path / "ca.pem") as provider:
                images = [image_of(picture(seed), asset_id=f"asset-{seed}") for seed in range(5)]
                answers = await asyncio.gather(*(provider.tag(image, google(url)) for image in images))
        assert {call.protocol for call in service.calls} == {"2"}
        assert all(len(answer.suggestions) == 3 for answer in answers)

    async def test_a_certificate_of_an_unknown_authority_is_refused(self, service: FakeGoogle, tmp_path: Path) -> None:
        certificate = trustme.CA().issue_cert("localhost")
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        with over_http2(service, tmp_path / "cert.pem", tmp_path / "key.pem") as url:
            async with started(GoogleCloudVision, tmp_path) as provider:
                error = await outcome_of(provider, google(url, maximum_number_of_attempts=1))
        assert error.reason == "unreachable"
        assert "certificate" in str(error).lower()
        assert service.calls == []


class TestImagesBeyondTheLimits:
    async def test_a_large_image_is_sent_as_a_smaller_jpeg_within_the_json_limit(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        requested: list[JpegLimits] = []

        async def shrink(limits: JpegLimits) -> bytes:
            requested.append(limits)
            return picture(form="JPEG")

        data = picture() + b"\0" * 8_000_000  # 30 MB and 50 megapixels take the same path
        facts = ImageFacts(format="PNG", width=8000, height=6250, sha256="0" * 64)
        async with started(GoogleCloudVision, tmp_path) as provider:
            answer = await provider.tag(image_of(data, shrink=shrink, facts=facts), google(service.url))
        assert answer.suggestions
        (limits,) = requested
        assert limits.maximum_bytes * 4 / 3 < fake_google.MAXIMUM_JSON_BYTES

    async def test_the_largest_image_that_is_sent_unchanged_stays_within_the_json_limit(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            endpoint = provider.endpoint(google(service.url).google_cloud_vision)
            data = picture()
            data += b"\0" * (endpoint.limits.maximum_bytes - len(data))
            facts = ImageFacts(format="PNG", width=64, height=64, sha256="0" * 64)
            await provider.tag(image_of(data, facts=facts), google(service.url))
        (call,) = service.calls
        assert call.status == 200
        assert fake_google.MAXIMUM_JSON_BYTES - 1000 < len(call.body) <= fake_google.MAXIMUM_JSON_BYTES

    async def test_with_resize_off_it_is_refused_and_nothing_is_sent(self, service: FakeGoogle, tmp_path: Path) -> None:
        facts = ImageFacts(format="PNG", width=64, height=64, sha256="0" * 64)
        image = image_of(picture() + b"\0" * 8_000_000, facts=facts, asset_id="photos/a.png")
        async with started(GoogleCloudVision, tmp_path) as provider:
            with pytest.raises(CannotBeDone, match=r"photos/a\.png.*bytes.*resize") as caught:
                await provider.tag(image, google(service.url, resize=False))
        assert caught.value.reason == "image_too_large"
        assert service.calls == []

    @pytest.mark.parametrize("mime", ["bmp", "gif", "jpeg", "png", "tiff", "webp", "x-icon", "vnd.microsoft.icon"])
    async def test_the_formats_of_the_predecessor_are_accepted_unchanged(self, tmp_path: Path, mime: str) -> None:
        instance = google("https://vision.googleapis.com", resize=False)
        async with started(GoogleCloudVision, tmp_path) as provider:
            assert provider.refuses(f"image/{mime}", instance) is None

    async def test_another_format_is_converted_unless_resize_is_off(self, service: FakeGoogle, tmp_path: Path) -> None:
        async def shrink(_limits: JpegLimits) -> bytes:
            return picture(form="JPEG")

        facts = ImageFacts(format="AVIF", width=64, height=64, sha256="0" * 64)
        async with started(GoogleCloudVision, tmp_path) as provider:
            assert provider.refuses("image/avif", google(service.url)) is None
            answer = await provider.tag(image_of(b"avif", facts=facts, shrink=shrink), google(service.url))
            assert answer.suggestions
            assert "image/png" in (provider.refuses("image/avif", google(service.url, resize=False)) or "")
            assert provider.refuses("application/pdf", google(service.url)) is not None


class TestQueuedImagesAreSentInBatches:
    async def test_a_lone_image_is_not_delayed(self, service: FakeGoogle, tmp_path: Path) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            await provider.tag(image_of(picture()), google(service.url))
            took_s = []
            for seed in range(1, 6):
                before_s = time.monotonic()
                await provider.tag(image_of(picture(seed)), google(service.url))
                took_s.append(time.monotonic() - before_s)
            assert min(took_s) < 0.5
        assert service.batch_sizes == [1] * 6

    async def test_forty_images_at_once_take_three_calls_and_each_gets_its_own_labels(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        pictures = [picture(seed) for seed in range(40)]
        async with started(GoogleCloudVision, tmp_path) as provider:
            answers = await asyncio.gather(
                *(
                    provider.tag(image_of(data, asset_id=f"a{at}"), google(service.url))
                    for at, data in enumerate(pictures)
                )
            )
        assert sorted(service.batch_sizes) == [8, 16, 16]
        assert [answer.suggestions[0].name for answer in answers] == [
            labels_of(data)[0]["description"] for data in pictures
        ]

    async def test_images_that_arrive_while_calls_are_in_flight_are_batched(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        service.always = Fault(delay_s=1)
        one_call = {"maximum_calls_at_once": 1}
        async with started(GoogleCloudVision, tmp_path, **one_call) as provider, asyncio.TaskGroup() as group:
            group.create_task(provider.tag(image_of(picture(0)), google(service.url)))
            await eventually(lambda: service.calls, "the service was called")
            for seed in range(1, 11):
                group.create_task(provider.tag(image_of(picture(seed)), google(service.url)))
                await asyncio.sleep(0)
        assert service.batch_sizes == [1, 10]
        assert service.maximum_concurrent_calls == 1

    async def test_a_batch_stays_within_the_json_limit(self, service: FakeGoogle, tmp_path: Path) -> None:
        facts = [ImageFacts(format="PNG", width=64, height=64, sha256=f"{seed}" * 64) for seed in range(4)]
        images = [image_of(picture(seed) + b"\0" * 3_000_000, facts=facts[seed]) for seed in range(4)]
        # Given one call at a time, so that the others gather during the first whenever their digests are ready
        service.next(Fault(delay_s=1))
        async with started(GoogleCloudVision, tmp_path, maximum_calls_at_once=1) as provider:
            await asyncio.gather(*(provider.tag(image, google(service.url)) for image in images))
        assert sum(service.batch_sizes) == 4
        assert max(service.batch_sizes) == 2
        assert all(call.status == 200 for call in service.calls)

    async def test_two_instances_never_share_a_call_or_a_key(self, tmp_path: Path) -> None:
        with FakeGoogle("key-of-a", "key-of-b") as service:
            owners = {}
            async with started(GoogleCloudVision, tmp_path) as provider, asyncio.TaskGroup() as group:
                for seed in range(200):
                    name = "ab"[seed % 2]
                    owners[picture(seed)] = f"key-of-{name}"
                    image = image_of(picture(seed), instance=name)
                    group.create_task(provider.tag(image, google(service.url, f"key-of-{name}")))
        seen = 0
        for call in service.calls:
            for request in call.json()["requests"]:
                assert owners[base64.b64decode(request["image"]["content"])] == service.key_of(call)
                seen += 1
        assert seen == 200

    async def test_a_new_key_is_used_at_once_and_calls_in_flight_keep_the_old(self, tmp_path: Path) -> None:
        with FakeGoogle("old-key", "new-key") as service:
            answer = threading.Event()
            service.next(Fault(released=answer))
            async with started(GoogleCloudVision, tmp_path) as provider:
                slow = asyncio.create_task(provider.tag(image_of(picture(1)), google(service.url, "old-key")))
                await eventually(lambda: service.calls, "the service was called")
                await provider.tag(image_of(picture(2)), google(service.url, "new-key"))
                assert not slow.done()
                answer.set()
                await slow
            assert service.keys == ["old-key", "new-key"]


async def no_jpeg(_limits: JpegLimits) -> bytes:
    return b"no JPEG"


async def test_an_image_that_claims_anothers_digest_gets_no_answer_of_it(service: FakeGoogle, tmp_path: Path) -> None:
    # Given two images of which a decoder says that they are the same
    facts = ImageFacts(format="PNG", width=64, height=64, sha256="a" * 64)
    async with started(GoogleCloudVision, tmp_path, cache={"enabled": True}) as provider:
        first, second = [
            await provider.tag(image_of(picture(seed), facts=facts), google(service.url)) for seed in (1, 2)
        ]
    assert first.suggestions != second.suggestions
    assert len(service.calls) == 2


class TestAFileThatTheServiceRefusesIsSentOnceMoreAsAJpeg:
    ANIMATED = b"a file that only some readers know"
    FACTS = ImageFacts(format="WEBP", width=64, height=64, sha256="a" * 64)

    async def test_alone_and_counted_as_a_call(self, service: FakeGoogle, tmp_path: Path) -> None:
        instance = google(service.url, calls_per_month=100)
        refused = image_of(self.ANIMATED, facts=self.FACTS, shrink=small_jpeg)
        async with started(GoogleCloudVision, tmp_path) as provider:
            # Given an image that is sent together with one that the service reads
            answers = await asyncio.gather(*(provider.tag(image, instance) for image in (refused, image_of(picture()))))
            assert all(answer.suggestions for answer in answers)
            assert service.batch_sizes == [2, 1]
            (again,) = service.calls[1].json()["requests"]
            assert base64.b64decode(again["image"]["content"]) == picture(form="JPEG")
            assert await provider.calls_used("acme") == 3

    async def test_the_jpeg_is_made_of_a_content_of_its_own(self, service: FakeGoogle, tmp_path: Path) -> None:
        # Given a caller that is called off, and another that has joined its call
        answer = threading.Event()
        service.next(Fault(released=answer))
        made_of: list[bytes] = []

        async def shrink(content: Content, _limits: JpegLimits) -> bytes:
            made_of.append(content.read())
            return picture(form="JPEG")

        images = [replace(image_of(self.ANIMATED, facts=self.FACTS), shrink_content=shrink) for _ in range(2)]
        async with started(GoogleCloudVision, tmp_path) as provider:
            first, second = (asyncio.create_task(provider.tag(each, google(service.url))) for each in images)
            await eventually(lambda: service.calls, "the service was called")
            first.cancel()
            await asyncio.wait({first})
            images[0].content.close()
            # When the service refuses the file
            answer.set()
            assert (await second).suggestions
        # Then its bytes are still there
        assert made_of == [self.ANIMATED]

    async def test_with_resize_off_it_is_not_and_the_error_says_so(self, service: FakeGoogle, tmp_path: Path) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            with pytest.raises(CannotBeDone, match=r"Bad image data\.; with `resize` it would be asked once more"):
                await provider.tag(image_of(self.ANIMATED, facts=self.FACTS), google(service.url, resize=False))
        assert len(service.calls) == 1

    async def test_what_was_a_jpeg_of_ours_already_is_not(self, service: FakeGoogle, tmp_path: Path) -> None:
        facts = replace(self.FACTS, format="AVIF")
        async with started(GoogleCloudVision, tmp_path) as provider:
            with pytest.raises(CannotBeDone, match="Bad image data"):
                await provider.tag(image_of(b"avif", facts=facts, shrink=no_jpeg), google(service.url))
        assert len(service.calls) == 1


class TestOneFailingImageDoesNotAffectItsBatch:
    async def test_an_error_inside_an_answer_of_200_is_read(self, service: FakeGoogle, tmp_path: Path) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            facts = ImageFacts(format="JPEG", width=9, height=9, sha256="0" * 64)
            bad = image_of(b"no image", asset_id="bad", facts=facts, shrink=no_jpeg)
            good = image_of(picture(), asset_id="good")
            outcomes = await asyncio.gather(
                *(provider.tag(image, google(service.url)) for image in (bad, good)), return_exceptions=True
            )
        assert service.batch_sizes == [2, 1]
        assert isinstance(outcomes[0], CannotBeDone)
        assert outcomes[0].reason == "image_refused"
        assert str(outcomes[0]) == "Google Cloud Vision can't tag the image: Bad image data."
        assert isinstance(outcomes[1], Answer)

    async def test_partial_results_are_kept_and_noted(self, service: FakeGoogle, tmp_path: Path) -> None:
        data = picture()
        service.image_errors[data] = {
            "labelAnnotations": labels_of(data)[:1],
            "error": {"code": 14, "message": "A part of the labels could not be made."},
        }
        async with started(GoogleCloudVision, tmp_path, cache={"enabled": True}) as provider:
            answer = await provider.tag(image_of(data), google(service.url))
            await provider.tag(image_of(data), google(service.url))
        assert len(answer.suggestions) == 1
        assert answer.note is not None
        assert "A part of the labels" in answer.note
        assert len(service.calls) == 2, "an incomplete answer must not be cached"

    @pytest.mark.parametrize(
        ("code", "kind", "reason"),
        [
            (3, CannotBeDone, "image_refused"),
            (7, Misconfigured, "google_refused"),
            (8, TryLater, "quota_exhausted"),
            (13, TryLater, "service_failed"),
            (14, TryLater, "service_failed"),
            (None, TryLater, "service_failed"),
        ],
    )
    async def test_the_code_of_an_image_decides(
        self, service: FakeGoogle, tmp_path: Path, code: int | None, kind: type[AutotagError], reason: str
    ) -> None:
        service.image_errors[b""] = {"error": {"code": code, "message": "because"}}
        async with started(GoogleCloudVision, tmp_path) as provider:
            error = await outcome_of(provider, google(service.url, maximum_number_of_attempts=2))
        assert isinstance(error, kind)
        assert error.reason == reason
        # Tried again, or sent once more as a JPEG
        assert len(service.calls) == (1 if kind is Misconfigured else 2)

    async def test_when_a_whole_call_is_refused_each_image_is_sent_alone(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        service.next(respond_with(400, {"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}))
        async with started(GoogleCloudVision, tmp_path) as provider:
            answers = await asyncio.gather(
                *(provider.tag(image_of(picture(seed)), google(service.url)) for seed in range(3))
            )
        assert service.batch_sizes == [3, 1, 1, 1]
        assert all(answer.suggestions for answer in answers)


class TestTransientErrors:
    async def test_retry_after_two_seconds_three_times_then_one_answer(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        service.next(*[too_many("2")] * 3)
        async with started(GoogleCloudVision, tmp_path) as provider:
            answer = await provider.tag(image_of(picture()), google(service.url))
        assert answer.suggestions
        assert [call.status for call in service.calls] == [429, 429, 429, 200]
        assert min(service.gaps_s) >= 2.0

    async def test_other_images_of_the_instance_respect_the_pause_too(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        service.next(too_many("1"))
        one_call = {"maximum_calls_at_once": 1}  # so that the other one cannot be sent before the response is read
        async with started(GoogleCloudVision, tmp_path, retry_maximum_wait_s=5, **one_call) as provider:
            first = asyncio.create_task(provider.tag(image_of(picture(1)), google(service.url)))
            await eventually(lambda: service.calls, "the service was called")
            await provider.tag(image_of(picture(2)), google(service.url))
            await first
        assert service.gaps_s[0] >= 1.0

    async def test_a_date_is_understood_too(self, service: FakeGoogle, tmp_path: Path) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
        service.next(too_many(date))
        async with started(GoogleCloudVision, tmp_path) as provider:
            await provider.tag(image_of(picture()), google(service.url))
        assert service.gaps_s[0] >= 1.5, "the date has whole seconds only"

    async def test_a_wait_longer_than_the_time_left_is_left_to_the_delayed_lanes(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        service.next(too_many("600"))
        async with started(GoogleCloudVision, tmp_path) as provider:
            before_s = time.monotonic()
            error = await outcome_of(provider, google(service.url))
            another = await outcome_of(provider, google(service.url), picture(1))
        assert isinstance(error, TryLater)
        assert (error.reason, error.after_s) == ("quota_exhausted", 600)
        assert isinstance(another, TryLater)
        took_s = time.monotonic() - before_s
        assert 600 - took_s - 1 <= another.after_s <= 600
        assert took_s < 60
        assert len(service.calls) == 1

    async def test_a_retry_delay_inside_the_body_is_honoured(self, service: FakeGoogle, tmp_path: Path) -> None:
        detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "900.5s"}
        service.next(respond_with(429, {"error": {"code": 429, "message": "slow", "details": [detail]}}))
        async with started(GoogleCloudVision, tmp_path) as provider:
            error = await outcome_of(provider, google(service.url))
        assert isinstance(error, TryLater)
        assert error.after_s == 900.5

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(unavailable(), id="503"),
            pytest.param(respond_with(500, {}), id="500"),
            pytest.param(respond_with(504, []), id="504"),
            pytest.param(respond_with(408, "late"), id="408"),
            pytest.param(too_many(), id="429"),
            pytest.param(CLOSE, id="closed"),
            pytest.param(GARBAGE, id="no-http"),
            pytest.param(HTML_PAGE, id="html"),
            pytest.param(Fault(Response(200, b"[" * 100_000)), id="deep"),
            pytest.param(Fault(Response(200, b"x" * 5_000_000)), id="huge"),
            pytest.param(respond_with(200, {"responses": []}), id="too-few"),
            pytest.param(respond_with(200, {"responses": ["?"]}), id="no-annotation"),
            pytest.param(respond_with(200, {"responses": [{"labelAnnotations": "cat"}]}), id="no-list"),
        ],
    )
    async def test_they_are_retried_until_they_are_over(
        self, service: FakeGoogle, tmp_path: Path, fault: Fault
    ) -> None:
        service.next(fault, fault)
        async with started(GoogleCloudVision, tmp_path) as provider:
            answer = await provider.tag(image_of(picture()), google(service.url))
        assert answer.suggestions
        assert len(service.calls) == 3

    async def test_a_service_that_stalls_in_the_middle_of_a_response_times_out(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        service.always = Fault(stall_mid_body_s=20)
        async with started(GoogleCloudVision, tmp_path) as provider:
            before_s = time.monotonic()
            error = await outcome_of(provider, google(service.url, timeout_s=0.3, maximum_number_of_attempts=2))
        assert error.reason == "timed_out"
        assert time.monotonic() - before_s < 10
        assert len(service.calls) == 2

    async def test_the_number_of_attempts_is_bounded(self, service: FakeGoogle, tmp_path: Path) -> None:
        service.always = unavailable()
        async with started(GoogleCloudVision, tmp_path) as provider:
            error = await outcome_of(provider, google(service.url, maximum_number_of_attempts=3))
        assert isinstance(error, TryLater)
        assert error.reason == "service_failed"
        assert "503" in str(error)
        assert error.counted
        assert len(service.calls) == 3

    async def test_the_time_over_all_attempts_is_bounded(self, service: FakeGoogle, tmp_path: Path) -> None:
        service.always = Fault(delay_s=40)
        async with started(GoogleCloudVision, tmp_path) as provider:
            before_s = time.monotonic()
            error = await outcome_of(provider, google(service.url, timeout_s=30, retry_total_s=0.4))
        assert error.reason == "timed_out"
        assert time.monotonic() - before_s < 20

    async def test_a_refused_connection_is_reported_as_unreachable(self, tmp_path: Path) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            error = await outcome_of(provider, google("http://127.0.0.1:1", maximum_number_of_attempts=2))
        assert isinstance(error, TryLater)
        assert error.reason == "unreachable"


class TestErrorsThatAnOperatorMustFix:
    @pytest.mark.parametrize(
        ("response", "reason"),
        [
            (fake_google.API_DISABLED, "api_not_enabled"),
            (fake_google.BILLING_DISABLED, "billing_disabled"),
            (fake_google.KEY_RESTRICTED, "google_key_restricted"),
            (fake_google.error(401, "Request had invalid credentials.", "UNAUTHENTICATED"), "google_key_refused"),
            (fake_google.error(403, "The caller does not have permission", "PERMISSION_DENIED"), "google_refused"),
            (Response(404, b"<!DOCTYPE html>", {"Content-Type": "text/html"}), "endpoint_unknown"),
            (Response(302, b"", {"Location": "https://elsewhere.example/"}), "endpoint_unknown"),
        ],
    )
    async def test_they_are_reported_with_what_to_do_and_not_retried(
        self, service: FakeGoogle, tmp_path: Path, response: Response, reason: str
    ) -> None:
        service.refusals[MARKER_KEY] = response
        async with started(GoogleCloudVision, tmp_path) as provider:
            error = await outcome_of(provider, google(service.url))
            again = await outcome_of(provider, google(service.url), picture(1))
        assert isinstance(error, Misconfigured)
        assert error.reason == again.reason == reason
        assert "acme" in str(error)
        assert len(service.calls) == 1, "no call is made with a refused key for a while"

    async def test_a_wrong_key_which_google_answers_with_400_is_reported_as_such(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            error = await outcome_of(provider, google(service.url, "wrong-key"))
            assert (await provider.tag(image_of(picture()), google(service.url))).suggestions, "a new key works at once"
        assert isinstance(error, Misconfigured)
        assert error.reason == "google_key_refused"

    async def test_a_refused_key_is_tried_again_after_its_pause(self, service: FakeGoogle, tmp_path: Path) -> None:
        service.refusals[MARKER_KEY] = fake_google.API_DISABLED
        async with started(GoogleCloudVision, tmp_path, refused_key_pause_s=0.1) as provider:
            await outcome_of(provider, google(service.url))
            service.refusals.clear()
            await asyncio.sleep(0.15)
            assert (await provider.tag(image_of(picture()), google(service.url))).suggestions

    async def test_without_a_key_nothing_is_sent(self, service: FakeGoogle, tmp_path: Path) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            error = await outcome_of(provider, google(service.url, ""))
        assert isinstance(error, Misconfigured)
        assert error.reason == "key_missing"
        assert "google_cloud_vision.api_key" in str(error)
        assert service.calls == []

    @pytest.mark.parametrize("key", ["with blank", "line\nbreak", "schlüssel"])
    async def test_a_key_that_would_break_the_header_is_never_sent(
        self, service: FakeGoogle, tmp_path: Path, key: str
    ) -> None:
        # The settings refuse such a key when they are loaded; here it is set directly.
        instance = google(service.url)
        section = instance.google_cloud_vision.model_copy(update={"api_key": SecretStr(key)})
        async with started(GoogleCloudVision, tmp_path) as provider:
            error = await outcome_of(provider, instance.model_copy(update={"google_cloud_vision": section}))
        assert isinstance(error, Misconfigured)
        assert error.reason == "key_malformed"
        assert key not in str(error)
        assert service.calls == []

    @pytest.mark.parametrize(
        ("endpoint", "reason"),
        [
            ("http://vision.googleapis.com", "endpoint_not_allowed"),
            ("https://vision.googleapis.com/v2", "endpoint_unknown"),
            ("https://vision.googleapis.com/v1/projects/a/locations/eu/other", "endpoint_unknown"),
        ],
    )
    async def test_an_impossible_endpoint_is_reported(self, tmp_path: Path, endpoint: str, reason: str) -> None:
        async with started(GoogleCloudVision, tmp_path, allow_plain_http_endpoints=False) as provider:
            error = await outcome_of(provider, google(endpoint))
        assert isinstance(error, Misconfigured)
        assert error.reason == reason
        assert "google_cloud_vision.endpoint" in str(error)

    async def test_an_endpoint_inside_the_network_is_not_connected_to(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        async with started(GoogleCloudVision, tmp_path, allow_private_endpoints=False) as provider:
            error = await outcome_of(provider, google(service.url))
        assert isinstance(error, Misconfigured)
        assert error.reason == "endpoint_not_public"
        assert "127.0.0.1" in str(error)
        assert "cloud.allow_private_endpoints" in str(error)
        assert service.calls == []


class TestInvalidResponses:
    @pytest.mark.parametrize(
        ("bad", "problem"),
        [
            ({"description": "cat", "score": float("nan")}, "no number from 0 to 1"),
            ({"description": "cat", "score": float("inf")}, "no number from 0 to 1"),
            ({"description": "cat", "score": 7}, "no number from 0 to 1"),
            ({"description": "cat", "score": "0.5"}, "a confidence is missing"),
            ({"description": "cat", "score": True}, "a confidence is missing"),
            ({"description": "x" * 10_000, "score": 0.5}, "longer than 255"),
            ({"description": " ", "score": 0.5}, "a name is missing"),
            ({"description": "a\x00b", "score": 0.5}, "control characters"),
            ({"score": 0.5}, "a name is missing"),
            ("cat", "a name is missing"),
        ],
    )
    async def test_an_unusable_label_is_left_out_and_noted(
        self, service: FakeGoogle, tmp_path: Path, bad: Any, problem: str
    ) -> None:
        service.labels = [{"description": "dog", "score": 1.0000001}, bad]
        async with started(GoogleCloudVision, tmp_path) as provider:
            answer = await provider.tag(image_of(picture()), google(service.url))
        assert [(each.name, each.confidence) for each in answer.suggestions] == [("dog", 1.0)]
        assert problem in (answer.note or "")

    async def test_a_response_without_a_usable_label_is_no_answer(self, service: FakeGoogle, tmp_path: Path) -> None:
        service.labels = [{"description": "cat", "score": float("nan")}]
        async with started(GoogleCloudVision, tmp_path) as provider:
            error = await outcome_of(provider, google(service.url, maximum_number_of_attempts=2))
        assert error.reason == "garbled_answer"


class TestLimits:
    async def test_calls_keep_to_the_rate(self, service: FakeGoogle, tmp_path: Path) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            instance = google(service.url, calls_per_second=5)
            started_s = time.monotonic()
            for seed in range(9):
                await provider.tag(image_of(picture(seed)), instance)
        assert len(service.calls) == 9
        assert service.calls[-1].at_s - started_s >= 0.7, "five at once, then one every 0.2 s"

    async def test_images_held_by_the_rate_are_batched(self, service: FakeGoogle, tmp_path: Path) -> None:
        began_s = time.monotonic()
        async with started(GoogleCloudVision, tmp_path) as provider, asyncio.TaskGroup() as group:
            for seed in range(12):
                group.create_task(provider.tag(image_of(picture(seed)), google(service.url, calls_per_second=2)))
                await asyncio.sleep(0.02)
        took_s = time.monotonic() - began_s
        assert len(service.calls) <= 3 + 2 * took_s, "two at once, then two a second"
        assert len(service.calls) < 12

    async def test_the_budget_is_hard_under_concurrency_and_survives_a_restart(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        instance = google(service.url, calls_per_month=25)
        outcomes: list[Answer | BaseException] = []
        for run in range(2):
            async with started(GoogleCloudVision, tmp_path) as provider:
                outcomes += await asyncio.gather(
                    *(provider.tag(image_of(picture(seed + 100 * run)), instance) for seed in range(20)),
                    return_exceptions=True,
                )
        answered = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
        assert (len(answered), len(refused)) == (25, 15)
        assert sum(service.batch_sizes) == 25
        assert {error.reason for error in refused} == {"budget_exhausted"}
        assert "renews at" in str(refused[0])

    async def test_calls_that_the_service_did_not_carry_out_do_not_count(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        service.next(*[unavailable()] * 3)
        async with started(GoogleCloudVision, tmp_path) as provider:
            for seed in range(3):
                await provider.tag(image_of(picture(seed)), google(service.url, calls_per_month=3))
            error = await outcome_of(provider, google(service.url, calls_per_month=3), picture(3))
        assert error.reason == "budget_exhausted"
        assert len(service.calls) == 6

    async def test_calls_that_may_have_been_billed_count(self, service: FakeGoogle, tmp_path: Path) -> None:
        service.next(Fault(stall_mid_body_s=5))
        async with started(GoogleCloudVision, tmp_path) as provider:
            instance = google(service.url, calls_per_month=1, timeout_s=1)
            error = await outcome_of(provider, instance)
        assert error.reason == "budget_exhausted"
        assert len(service.calls) == 1


class TestTheCircuit:
    async def test_it_opens_and_a_single_probe_closes_it_again(self, service: FakeGoogle, tmp_path: Path) -> None:
        service.always = unavailable()
        once: dict[str, Any] = {"maximum_number_of_attempts": 1}
        async with started(GoogleCloudVision, tmp_path, failures_to_open_circuit=3, circuit_open_s=1) as provider:
            for seed in range(3):
                assert (
                    await outcome_of(provider, google(service.url, **once), picture(seed))
                ).reason == "service_failed"
            refused = await outcome_of(provider, google(service.url, **once))
            assert isinstance(refused, TryLater)
            assert refused.reason == "circuit_open"
            assert refused.after_s >= 1
            assert provider.circuits() == {"acme": "open"}
            assert len(service.calls) == 3

            await eventually(lambda: provider.circuits() == {"acme": "half_open"}, "the circuit lets a probe through")
            answer = threading.Event()
            service.always = Fault(released=answer)
            probe = asyncio.create_task(provider.tag(image_of(picture(4)), google(service.url, **once)))
            await eventually(lambda: len(service.calls) == 4, "the probe was sent")
            during = await outcome_of(provider, google(service.url, **once), picture(5))
            assert during.reason == "circuit_open", "one probe is enough"
            answer.set()
            assert (await probe).suggestions
            assert provider.circuits() == {"acme": "closed"}
            assert len(service.calls) == 4

    async def test_it_is_separate_for_each_instance(self, tmp_path: Path) -> None:
        with FakeGoogle("key-b") as working, FakeGoogle("key-a") as broken:
            broken.always = unavailable()
            async with started(GoogleCloudVision, tmp_path, failures_to_open_circuit=2) as provider:
                with pytest.raises(TryLater):
                    await provider.tag(image_of(picture(), instance="a"), google(broken.url, "key-a"))
                assert provider.circuits()["a"] == "open"
                answer = await provider.tag(image_of(picture(), instance="b"), google(working.url, "key-b"))
            assert answer.suggestions

    async def test_refusals_and_requests_to_slow_down_do_not_open_it(self, service: FakeGoogle, tmp_path: Path) -> None:
        service.next(*[too_many()] * 3)
        async with started(GoogleCloudVision, tmp_path, failures_to_open_circuit=2) as provider:
            assert (await provider.tag(image_of(picture()), google(service.url))).suggestions


class TestAnswersAreCached:
    async def test_the_same_image_is_paid_for_once_over_restarts_and_instances(
        self, service: FakeGoogle, tmp_path: Path
    ) -> None:
        answers = []
        for instance in ("a", "b"):
            async with started(GoogleCloudVision, tmp_path, cache={"enabled": True}) as provider:
                answers.append(await provider.tag(image_of(picture(), instance=instance), google(service.url)))
        assert answers[0] == answers[1]
        assert len(service.calls) == 1

    async def test_other_settings_make_another_call(self, service: FakeGoogle, tmp_path: Path) -> None:
        async with started(GoogleCloudVision, tmp_path, cache={"enabled": True}) as provider:
            await provider.tag(image_of(picture()), google(service.url))
            await provider.tag(image_of(picture()), google(service.url, maximum_number_of_results=2))
        assert len(service.calls) == 2

    async def test_it_is_off_by_default(self, service: FakeGoogle, tmp_path: Path) -> None:
        for _ in range(2):
            async with started(GoogleCloudVision, tmp_path) as provider:
                await provider.tag(image_of(picture()), google(service.url))
        assert len(service.calls) == 2
        assert not (tmp_path / "cache").exists()


class TestCheck:
    async def test_a_working_account_passes(self, service: FakeGoogle, tmp_path: Path) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            (check,) = await provider.check("acme", google(service.url))
        assert (check.severity, check.reason) == (Severity.OK, "answered")
        assert len(service.calls) == 1

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Fault(fake_google.API_DISABLED), "api_not_enabled"),
            (Fault(fake_google.error(400, "API key not valid.", "INVALID_ARGUMENT")), "google_key_refused"),
            (too_many("30"), "quota_exhausted"),
            (HTML_PAGE, "garbled_answer"),
            (CLOSE, "connection_lost"),
        ],
    )
    async def test_it_reports_what_is_wrong_after_one_call(
        self, service: FakeGoogle, tmp_path: Path, fault: Fault, reason: str
    ) -> None:
        service.always = fault
        async with started(GoogleCloudVision, tmp_path) as provider:
            (check,) = await provider.check("acme", google(service.url))
        assert (check.severity, check.reason, check.instance) == (Severity.ERROR, reason, "acme")
        assert len(service.calls) == 1

    async def test_wrong_settings_are_found_without_a_call(self, service: FakeGoogle, tmp_path: Path) -> None:
        async with started(GoogleCloudVision, tmp_path) as provider:
            assert [check.reason for check in provider.review("acme", google(service.url, ""))] == ["key_missing"]
            (check,) = await provider.check("acme", google(service.url + "/nowhere"))
            assert provider.review("acme", InstanceSettings()) == []
        assert check.reason == "endpoint_unknown"
        assert service.calls == []


class TestTheKeyStaysSecret:
    async def test_in_no_log_line_and_no_error_whatever_happens(
        self, service: FakeGoogle, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level("DEBUG")
        refused = fake_google.error(403, f"key {MARKER_KEY} is blocked", "PERMISSION_DENIED")
        faults = [Fault(refused), too_many("0"), unavailable(), CLOSE, GARBAGE, HTML_PAGE]
        outputs = []
        for fault in faults:
            service.always = fault
            async with started(GoogleCloudVision, tmp_path) as provider:
                error = await outcome_of(provider, google(service.url, maximum_number_of_attempts=2))
                checks = await provider.check("acme", google(service.url))
            chain: BaseException | None = error
            while chain is not None:
                outputs += [repr(chain), repr(vars(chain))]
                chain = chain.__cause__ or chain.__context__
            outputs += [repr(checks), repr(provider), repr(provider._account_clients["acme"].account)]
        service.always = None
        async with started(GoogleCloudVision, tmp_path) as provider:
            outputs.append(repr(await provider.tag(image_of(picture()), google(service.url))))
        everything = "\n".join([*outputs, caplog.text, *capfd.readouterr()])
        assert MARKER_KEY not in everything
        assert "cloud call failed" in everything, "the log must have been captured"
        assert all(key == MARKER_KEY for key in service.keys)


async def test_stopping_ends_calls_in_flight_with_try_later(service: FakeGoogle, tmp_path: Path) -> None:
    service.always = Fault(delay_s=20)
    async with started(GoogleCloudVision, tmp_path) as provider:
        tagging = asyncio.create_task(provider.tag(image_of(picture()), google(service.url)))
        await eventually(lambda: service.calls, "the service was called")
    with pytest.raises(TryLater, match="stopping"):
        await tagging


async def test_an_image_whose_caller_was_cancelled_is_not_sent(service: FakeGoogle, tmp_path: Path) -> None:
    answer = threading.Event()
    service.next(Fault(released=answer))
    async with started(GoogleCloudVision, tmp_path, maximum_calls_at_once=1) as provider:
        first = asyncio.create_task(provider.tag(image_of(picture(1)), google(service.url)))
        await eventually(lambda: service.calls, "the service was called")
        cancelled = asyncio.create_task(provider.tag(image_of(picture(2)), google(service.url)))
        third = asyncio.create_task(provider.tag(image_of(picture(3)), google(service.url)))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        answer.set()
        await asyncio.gather(first, third)
    assert service.batch_sizes == [1, 1]


def test_the_fake_itself_refuses_what_the_service_would() -> None:
    import urllib.error
    import urllib.request

    with FakeGoogle("k") as service:

        def post(tree: object, path: str = "/v1/images:annotate", **headers: str) -> int:
            all_headers = {"X-Goog-Api-Key": "k", "Content-Type": "application/json"} | headers
            request = urllib.request.Request(service.url + path, json.dumps(tree).encode(), all_headers)  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
                    return int(response.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        image = {"image": {"content": base64.b64encode(picture()).decode()}, "features": [{"type": "LABEL_DETECTION"}]}
        assert post({"requests": [image]}) == 200
        assert post({"requests": [image]}, path="/v1/images:annotate?key=k") == 403
        assert post({"requests": [image] * 17}) == 400
        assert post({"requests": []}) == 400
        assert post({"requests": [{**image, "colour": 1}]}) == 400
        assert post({"requests": [{**image, "image": {"content": "?"}}]}) == 400
        assert post({"requests": [image]}, **{"Content-Type": "text/plain"}) == 400
        assert post({"requests": [image]}, path="/v2/images:annotate") == 404
