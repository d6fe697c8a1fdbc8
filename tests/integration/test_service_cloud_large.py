"""Images far beyond the limits of the cloud services: each service gets a JPEG within its limits."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.support.cloud import google_table, key, microsoft_table
from tests.support.fake_google import FakeGoogle
from tests.support.fake_microsoft import FakeMicrosoft
from tests.support.tenants import LOCAL, Tenancy, tenancy

WIDTH, HEIGHT = 7072, 7070
assert 49_990_000 < WIDTH * HEIGHT <= 50_000_000, "as close to `decoder.maximum_pixels` as possible"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("large")


@pytest.fixture(scope="module")
def google() -> Iterator[FakeGoogle]:
    with FakeGoogle(key("google")) as service:
        yield service


@pytest.fixture(scope="module")
def microsoft() -> Iterator[FakeMicrosoft]:
    with FakeMicrosoft(key("microsoft")) as service:
        yield service


@pytest.fixture(scope="module")
def it(broker: str, folder: Path, google: FakeGoogle, microsoft: FakeMicrosoft) -> Iterator[Tenancy]:
    instance = {
        "provider_wait_s": 60,
        "tensorflow": LOCAL,
        "google_cloud_vision": google_table(google.url, key("google")),
        "microsoft_vision": microsoft_table(f"{microsoft.url}/vision/v3.2", key("microsoft")),
    }
    prefix = f"test-large-{os.getpid()}"
    sources = {"path_roots": [str(folder)]}
    with tenancy(broker, prefix, folder / "run", instances={"acme": instance}, sources=sources) as tenants:
        yield tenants


def noise(width: int, height: int) -> Image.Image:
    """A picture that no format can compress."""
    return Image.frombytes("RGB", (width, height), os.urandom(width * height * 3))


def sent_to(service: FakeGoogle | FakeMicrosoft) -> Image.Image:
    """The last image that was sent to a service."""
    call = service.calls[-1]
    if isinstance(service, FakeGoogle):
        return Image.open(BytesIO(base64.b64decode(call.json()["requests"][0]["image"]["content"])))
    return Image.open(BytesIO(call.body))


def assert_tagged_by_all_three(
    it: Tenancy, google: FakeGoogle, microsoft: FakeMicrosoft, file: Path, form: str, size: tuple[int, int]
) -> None:
    event = it.dms.publish({"path": str(file)}, instance="acme")
    (data,) = it.one_result(event)

    assert (data["status"], data["complete"], data["message"]) == ("tagged", True, None)
    assert {report["name"]: report["status"] for report in data["providers"]} == {
        "tensorflow": "ok",
        "google_cloud_vision": "ok",
        "microsoft_vision": "ok",
    }
    image = data["image"]
    assert (image["format"], image["width"], image["height"]) == (form, *size)
    for service in (google, microsoft):
        with sent_to(service) as sent:
            assert sent.format == "JPEG"
            assert max(sent.size) <= 2048
            assert sent.width / sent.height == pytest.approx(size[0] / size[1], rel=0.01)
    assert len(microsoft.calls[-1].body) < 4 * 1024 * 1024


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_30_megabytes_and_50_megapixels_is_tagged_by_all_three(
    it: Tenancy, google: FakeGoogle, microsoft: FakeMicrosoft, folder: Path, progressive: bool
) -> None:
    # A progressive one is the most expensive: all coefficients are held in memory before the first pixel is decoded.
    file = folder / "large.jpg"
    noise(WIDTH, HEIGHT).save(file, "JPEG", quality=79 if progressive else 75, progressive=progressive)
    assert 29_000_000 < file.stat().st_size < 33_000_000

    assert_tagged_by_all_three(it, google, microsoft, file, "JPEG", (WIDTH, HEIGHT))


def test_a_png_of_24_megabytes_is_sent_to_the_services_as_a_jpeg(
    it: Tenancy, google: FakeGoogle, microsoft: FakeMicrosoft, folder: Path
) -> None:
    file = folder / "large.png"
    noise(2900, 2760).save(file, "PNG", compress_level=1)
    assert 23_000_000 < file.stat().st_size < 26_000_000

    assert_tagged_by_all_three(it, google, microsoft, file, "PNG", (2900, 2760))
