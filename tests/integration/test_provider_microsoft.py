"""Microsoft's vision service in its three generations, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support import fake_microsoft
from tests.support.cloud import MARKER_KEY, image_of, microsoft, picture, small_jpeg, started
from tests.support.fake_microsoft import FakeMicrosoft, flat, nested, tags_of, too_many
from tests.support.fake_service import CLOSE, HTML_PAGE, Fault, Response, over_http2, respond_with
from tests.support.polling import eventually
from worker.errors import AutotagError, CannotBeDone, Misconfigured, TryLater, Unavailable
from worker.images.requests import JpegLimits
from worker.messages import ImageFacts
from worker.providers.base import Answer
from worker.providers.checks import Severity
from worker.providers.microsoft_vision import MicrosoftVision
from worker.settings import InstanceSettings

GENERATIONS = ["/vision/v2.0", "/vision/v3.2", ""]


@pytest.fixture
def service() -> Iterator[FakeMicrosoft]:
    with FakeMicrosoft(MARKER_KEY) as fake:
        yield fake


async def outcome_of(provider: MicrosoftVision, instance: InstanceSettings, data: bytes | None = None) -> AutotagError:
    image = image_of(picture() if data is None else data, asset_id="photos/a.png", shrink=small_jpeg)
    with pytest.raises(AutotagError) as caught:
        await provider.tag(image, instance)
    return caught.value


class TestTheEndpointDecidesTheApi:
    @pytest.mark.parametrize(
        ("endpoint", "path", "query", "model"),
        [
            ("/vision/v2.0", "/vision/v2.0/tag", {"language": "en"}, "microsoft_vision/2.0"),
            ("/vision/v2.0/", "/vision/v2.0/tag", {"language": "en"}, "microsoft_vision/2.0"),
            ("/vision/v2.1/tag", "/vision/v2.1/tag", {"language": "en"}, "microsoft_vision/2.1"),
            ("/vision/v3.2", "/vision/v3.2/tag", {"language": "en"}, "microsoft_vision/3.2 2021-05-01"),
            ("/vision/v3.2/analyze/", "/vision/v3.2/tag", {"language": "en"}, "microsoft_vision/3.2 2021-05-01"),
            *(
                (
                    endpoint,
                    "/computervision/imageanalysis:analyze",
                    {"language": "en", "features": "tags", "api-version": "2023-10-01"},
                    "microsoft_vision/4.0 2023-10-01",
                )
                for endpoint in ("", "/", "/computervision", "/computervision/imageanalysis:analyze/")
            ),
        ],
    )
    async def test_with_and_without_a_trailing_slash(
        self, service: FakeMicrosoft, tmp_path: Path, endpoint: str, path: str, query: dict[str, str], model: str
    ) -> None:
        data = picture()
        async with started(MicrosoftVision, tmp_path) as provider:
            answer = await provider.tag(image_of(data), microsoft(service.url + endpoint))
        (call,) = service.calls
        assert (call.path, call.query) == (path, query)
        assert call.headers["ocp-apim-subscription-key"] == MARKER_KEY
        assert call.headers["content-type"] == "application/octet-stream"
        assert call.body == data
        assert answer.model == model
        assert [(each.name, each.confidence) for each in answer.suggestions] == [
            (tag["name"], tag["confidence"]) for tag in tags_of(data)
        ]

    async def test_a_gateway_may_prefix_the_services_path(self, tmp_path: Path) -> None:
        async with started(MicrosoftVision, tmp_path) as provider:
            section = microsoft("https://gateway.example/tenants/a/vision/v3.2").microsoft_vision
            assert provider.endpoint(section).url == "https://gateway.example/tenants/a/vision/v3.2/tag?language=en"

    @pytest.mark.parametrize("path", ["/vision", "/vision/v5.0", "/vision/v3.2/describe", "/vision/v4.0"])
    async def test_a_path_that_is_none_of_the_services_is_reported(self, tmp_path: Path, path: str) -> None:
        async with started(MicrosoftVision, tmp_path) as provider:
            error = await outcome_of(provider, microsoft("https://westcentralus.api.cognitive.microsoft.com" + path))
        assert isinstance(error, Misconfigured)
        assert error.reason == "endpoint_unknown"
        assert path in str(error)

    async def test_a_missing_endpoint_is_reported(self, tmp_path: Path) -> None:
        async with started(MicrosoftVision, tmp_path) as provider:
            error = await outcome_of(provider, microsoft(None))
        assert error.reason == "endpoint_missing"

    async def test_plain_http_is_refused_unless_allowed(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        async with started(MicrosoftVision, tmp_path, allow_plain_http_endpoints=False) as provider:
            error = await outcome_of(provider, microsoft(service.url))
        assert error.reason == "endpoint_not_allowed"
        assert "cloud.allow_plain_http_endpoints" in str(error)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "169.254.169.254", "192.168.0.1"])
    async def test_a_private_address_is_never_connected_to(
        self, service: FakeMicrosoft, tmp_path: Path, host: str
    ) -> None:
        port = service.url.rpartition(":")[2]
        async with started(MicrosoftVision, tmp_path, allow_private_endpoints=False) as provider:
            error = await outcome_of(provider, microsoft(f"http://{host}:{port}/vision/v3.2"))
        assert isinstance(error, Misconfigured)
        assert error.reason == "endpoint_not_public"
        assert service.calls == []

    async def test_a_retired_version_still_works_with_a_warning(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        async with started(MicrosoftVision, tmp_path) as provider:
            (check,) = provider.review("acme", microsoft(service.url + "/vision/v2.0"))
            assert provider.review("acme", microsoft(service.url)) == []
            warned, answered = await provider.check("acme", microsoft(service.url + "/vision/v2.0"))
        assert (check.severity, check.reason) == (Severity.WARNING, "api_retired")
        assert "2026-09-13" in check.message
        assert warned == check
        assert answered.severity is Severity.OK

    async def test_http_2_is_used_where_the_service_supports_it(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        with over_http2(service, tmp_path / "cert.pem", tmp_path / "key.pem") as url:
            async with started(MicrosoftVision, tmp_path, ca_file=tmp_path / "ca.pem") as provider:
                answer = await provider.tag(image_of(picture()), microsoft(url))
        assert answer.suggestions
        assert [call.protocol for call in service.calls] == ["2"]


class TestLanguages:
    @pytest.mark.parametrize("generation", GENERATIONS)
    async def test_the_language_is_sent(self, service: FakeMicrosoft, tmp_path: Path, generation: str) -> None:
        async with started(MicrosoftVision, tmp_path) as provider:
            await provider.tag(image_of(picture()), microsoft(service.url + generation, language="ja"))
        assert service.calls[0].query["language"] == "ja"

    async def test_one_that_an_old_version_does_not_support_is_reported_without_a_call(
        self, service: FakeMicrosoft, tmp_path: Path
    ) -> None:
        async with started(MicrosoftVision, tmp_path) as provider:
            error = await outcome_of(provider, microsoft(service.url + "/vision/v2.0", language="de"))
            await provider.tag(image_of(picture()), microsoft(service.url + "/vision/v3.2", language="de"))
        assert isinstance(error, Misconfigured)
        assert error.reason == "language_not_supported"
        assert len(service.calls) == 1


class TestLimitsByVersion:
    @pytest.mark.parametrize(
        ("generation", "size_bytes", "fits"),
        [
            ("/vision/v3.2", 4 * 1024 * 1024 - 1, True),
            ("/vision/v3.2", 4 * 1024 * 1024, False),
            ("/vision/v2.0", 4 * 1024 * 1024, False),
            ("", 4 * 1024 * 1024, True),
            ("", 20 * 1024 * 1024 - 1, True),
            ("", 20 * 1024 * 1024, False),
        ],
    )
    async def test_size(
        self, service: FakeMicrosoft, tmp_path: Path, generation: str, size_bytes: int, fits: bool
    ) -> None:
        data = picture()
        data += b"\0" * (size_bytes - len(data))
        await self._fits(service, tmp_path, generation, image_args={"data": data}, fits=fits)

    @pytest.mark.parametrize(
        ("generation", "size", "fits"),
        [
            ("/vision/v3.2", (50, 50), True),
            ("/vision/v3.2", (49, 200), False),
            ("/vision/v2.0", (200, 49), False),
            ("", (50, 16000), True),
            ("", (16001, 50), False),
            ("", (49, 49), False),
        ],
    )
    async def test_dimensions(
        self, service: FakeMicrosoft, tmp_path: Path, generation: str, size: tuple[int, int], fits: bool
    ) -> None:
        await self._fits(service, tmp_path, generation, image_args={"data": picture(size=size)}, fits=fits)

    @pytest.mark.parametrize(
        ("generation", "form", "fits"),
        [
            *((generation, form, True) for generation in GENERATIONS for form in ("BMP", "GIF", "JPEG", "PNG")),
            *(("", form, True) for form in ("WEBP", "TIFF", "ICO")),
            *(("/vision/v3.2", form, False) for form in ("WEBP", "TIFF", "ICO")),
        ],
    )
    async def test_formats(
        self, service: FakeMicrosoft, tmp_path: Path, generation: str, form: str, fits: bool
    ) -> None:
        await self._fits(service, tmp_path, generation, image_args={"data": picture(form=form)}, fits=fits)

    async def _fits(
        self, service: FakeMicrosoft, tmp_path: Path, generation: str, *, image_args: dict[str, Any], fits: bool
    ) -> None:
        requested: list[JpegLimits] = []

        async def shrink(limits: JpegLimits) -> bytes:
            requested.append(limits)
            return picture(form="JPEG", size=(limits.minimum_width, limits.minimum_height))

        url = service.url + generation
        async with started(MicrosoftVision, tmp_path) as provider:
            assert (await provider.tag(image_of(**image_args, shrink=shrink), microsoft(url))).suggestions
            assert len(requested) == (0 if fits else 1)
            if not fits:
                with pytest.raises(CannotBeDone, match="resize"):
                    await provider.tag(image_of(**image_args, shrink=shrink), microsoft(url, resize=False))
        assert [call.status for call in service.calls] == [200]

    async def test_a_jpeg_that_is_still_too_large_is_not_sent(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        async def shrink(limits: JpegLimits) -> bytes:
            return b"\0" * (limits.maximum_bytes + 1)

        facts = ImageFacts(format="AVIF", width=64, height=64, sha256="0" * 64)
        async with started(MicrosoftVision, tmp_path) as provider:
            with pytest.raises(CannotBeDone) as caught:
                await provider.tag(
                    image_of(b"avif", facts=facts, shrink=shrink), microsoft(service.url + "/vision/v3.2")
                )
        assert caught.value.reason == "image_too_large"
        assert service.calls == []


class TestErrors:
    @pytest.mark.parametrize("generation", GENERATIONS)
    async def test_a_wrong_key_is_reported_once_with_what_to_do(
        self, service: FakeMicrosoft, tmp_path: Path, generation: str
    ) -> None:
        async with started(MicrosoftVision, tmp_path) as provider:
            error = await outcome_of(provider, microsoft(service.url + generation, "wrong-key"))
        assert isinstance(error, Misconfigured)
        assert error.reason == "microsoft_key_refused"
        assert "microsoft_vision.api_key" in str(error)
        assert len(service.calls) == 1

    @pytest.mark.parametrize(
        ("response", "generation", "kind", "reason"),
        [
            (flat(400, "InvalidImageFormat", "not an image"), "/vision/v2.0", CannotBeDone, "image_refused"),
            (flat(400, "InvalidImageSize", "too big"), "/vision/v2.0", CannotBeDone, "image_too_large"),
            (flat(400, "NotSupportedLanguage", "no"), "/vision/v2.0", Misconfigured, "language_not_supported"),
            (nested(400, "InvalidRequest", "no", "NotSupportedImage"), "", CannotBeDone, "image_refused"),
            (nested(400, "InvalidRequest", "no", "InvalidImageSize"), "", CannotBeDone, "image_too_large"),
            (nested(400, "InvalidRequest", "no", "NotSupportedLanguage"), "", Misconfigured, "language_not_supported"),
            (nested(400, "InvalidRequest", "no", "NotSupportedFeature"), "", Misconfigured, "feature_not_supported"),
            (nested(413, "413", "too large"), "", CannotBeDone, "image_too_large"),
            (nested(415, "InvalidRequest", "no", "UnsupportedMediaType"), "", CannotBeDone, "image_refused"),
            (nested(403, "403", "Access denied due to Virtual Network"), "", Misconfigured, "microsoft_refused"),
            (fake_microsoft.OUT_OF_QUOTA, "", Unavailable, "quota_used_up"),
            (fake_microsoft.OUT_OF_QUOTA_AT_THE_GATEWAY, "", Unavailable, "quota_used_up"),
            (nested(404, "404", "Resource not found"), "/vision/v3.2", Misconfigured, "endpoint_unknown"),
            (nested(404, "404", "Resource not found"), "/vision/v2.0", Misconfigured, "api_retired"),
            (fake_microsoft.RETIRED, "/vision/v3.2", Misconfigured, "api_retired"),
            (Response(301, b"", {"Location": "http://127.0.0.1:1/"}), "", Misconfigured, "endpoint_unknown"),
            (Response(400, b"<html>", {"Content-Type": "text/html"}), "", CannotBeDone, "image_refused"),
        ],
    )
    async def test_each_shape_and_code_has_its_meaning_and_is_not_retried(
        self,
        service: FakeMicrosoft,
        tmp_path: Path,
        response: Response,
        generation: str,
        kind: type[AutotagError],
        reason: str,
    ) -> None:
        service.refusals[MARKER_KEY] = response
        async with started(MicrosoftVision, tmp_path) as provider:
            error = await outcome_of(provider, microsoft(service.url + generation))
        assert isinstance(error, kind)
        assert error.reason == reason
        # A file that is refused is no JPEG yet: that is sent once more as one
        assert len(service.calls) == (2 if kind is CannotBeDone else 1)

    async def test_retry_after_is_honoured(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        service.next(too_many("1"), Fault(flat(500, "InternalServerError", "oops")), CLOSE)
        async with started(MicrosoftVision, tmp_path) as provider:
            answer = await provider.tag(image_of(picture()), microsoft(service.url))
        assert answer.suggestions
        assert len(service.calls) == 4
        assert service.gaps_s[0] >= 1.0

    @pytest.mark.parametrize(
        ("fault", "generation"),
        [
            (HTML_PAGE, ""),
            (respond_with(200, {}), ""),
            (respond_with(200, {"tags": []}), ""),
            (respond_with(200, {"tagsResult": {"values": []}}), "/vision/v3.2"),
            (respond_with(200, {"tagsResult": {"values": {}}}), ""),
            (respond_with(200, {"tagsResult": {"values": [{"name": "a", "confidence": float("nan")}]}}), ""),
        ],
    )
    async def test_a_response_that_is_no_answer_is_reported(
        self, service: FakeMicrosoft, tmp_path: Path, fault: Fault, generation: str
    ) -> None:
        service.always = fault
        instance = microsoft(service.url + generation, maximum_number_of_attempts=2)
        async with started(MicrosoftVision, tmp_path) as provider:
            error = await outcome_of(provider, instance)
            (check,) = await provider.check("acme", instance)
        assert isinstance(error, TryLater)
        assert error.reason == check.reason == "garbled_answer"

    async def test_unusable_tags_are_left_out(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        service.tags = [{"name": "dog", "confidence": 0.5}, {"name": "x" * 10_000, "confidence": 0.5}, {"name": "cat"}]
        async with started(MicrosoftVision, tmp_path) as provider:
            answer = await provider.tag(image_of(picture()), microsoft(service.url))
        assert [each.name for each in answer.suggestions] == ["dog"]
        assert "2 tags" in (answer.note or "")


class TestConcurrentCalls:
    async def test_calls_of_one_instance_at_once_are_bounded(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        service.always = Fault(delay_s=0.05)
        async with started(MicrosoftVision, tmp_path, maximum_calls_at_once=3) as provider:
            await asyncio.gather(*(provider.tag(image_of(picture(seed)), microsoft(service.url)) for seed in range(12)))
        assert service.maximum_concurrent_calls == 3

    async def test_every_image_is_sent_with_its_own_instances_key(self, tmp_path: Path) -> None:
        with FakeMicrosoft("key-of-a", "key-of-b") as service:
            owners = {picture(seed): f"key-of-{'ab'[seed % 2]}" for seed in range(100)}
            async with started(MicrosoftVision, tmp_path) as provider, asyncio.TaskGroup() as group:
                for data, key in owners.items():
                    group.create_task(provider.tag(image_of(data, instance=key[-1]), microsoft(service.url, key)))
            assert {call.body: service.key_of(call) for call in service.calls} == owners

    async def test_the_budget_is_hard(self, service: FakeMicrosoft, tmp_path: Path) -> None:
        async with started(MicrosoftVision, tmp_path) as provider:
            outcomes = await asyncio.gather(
                *(
                    provider.tag(image_of(picture(seed)), microsoft(service.url, calls_per_month=7))
                    for seed in range(20)
                ),
                return_exceptions=True,
            )
        assert sum(isinstance(outcome, Answer) for outcome in outcomes) == 7
        assert len(service.calls) == 7
        assert {error.reason for error in outcomes if isinstance(error, Unavailable)} == {"budget_exhausted"}

    async def test_a_probe_that_is_broken_off_does_not_close_the_circuit(
        self, service: FakeMicrosoft, tmp_path: Path
    ) -> None:
        once = microsoft(service.url, maximum_number_of_attempts=1)
        service.always = respond_with(503, {})
        async with started(MicrosoftVision, tmp_path, failures_to_open_circuit=1, circuit_open_s=0.2) as provider:
            await outcome_of(provider, once)
            await eventually(lambda: provider.circuits() == {"acme": "half_open"}, "the circuit lets a probe through")
            service.always = Fault(delay_s=5)
            impatient = microsoft(service.url, maximum_number_of_attempts=1, retry_total_s=0.3)
            assert (await outcome_of(provider, impatient, picture(1))).reason == "timed_out"
            assert len(service.calls) == 2, "the probe was sent"
            assert provider.circuits() == {"acme": "half_open"}
            service.always = None
            assert (await provider.tag(image_of(picture(2)), once)).suggestions
            assert provider.circuits() == {"acme": "closed"}


async def test_the_key_is_in_no_log_line_and_no_error(
    service: FakeMicrosoft, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    outputs = []
    for response in (nested(401, "401", f"key {MARKER_KEY} is wrong"), nested(503, "503", MARKER_KEY)):
        service.refusals[MARKER_KEY] = response
        async with started(MicrosoftVision, tmp_path) as provider:
            error = await outcome_of(provider, microsoft(service.url, maximum_number_of_attempts=2))
            outputs += [
                repr(error),
                repr(error.__context__),
                repr(await provider.check("acme", microsoft(service.url))),
            ]
    everything = "\n".join([*outputs, caplog.text, *capfd.readouterr()])
    assert MARKER_KEY not in everything
    assert "[key]" in everything
