"""Near-duplicates in a real service: the copy of a photograph is not shown to the model, and its result says so."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.cloud import google_table, key
from tests.support.fake_google import FakeGoogle
from tests.support.monitoring import fetch, http_url, total
from tests.support.polling import until
from tests.support.service import inline
from tests.support.tenants import LOCAL, Tenancy, tenancy
from worker.images.content import Content
from worker.messages import EVENT_TYPE
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool

ON = {"enabled": True}


@pytest.fixture(scope="module")
def google() -> Iterator[FakeGoogle]:
    with FakeGoogle(key("paying")) as google:
        yield google


@pytest.fixture(scope="module")
def it(broker: str, google: FakeGoogle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenancy]:
    paying = {
        "tensorflow": {"enabled": False},
        "google_cloud_vision": google_table(google.url, key("paying")),
        "near_duplicates": ON | {"providers": ["google_cloud_vision"]},
    }
    with tenancy(
        broker,
        f"test-near-duplicates-{os.getpid()}",
        tmp_path_factory.mktemp("near-duplicates"),
        instances={"acme": {"near_duplicates": ON}, "beta": {"near_duplicates": ON}, "off": {}, "paying": paying},
        defaults={"tensorflow": LOCAL},
    ) as tenants:
        yield tenants


@pytest.fixture(scope="module")
def cat(photographs: dict[str, Path]) -> bytes:
    return photographs["chelsea"].read_bytes()


def copy(image: bytes, scale: float = 0.7, quality: int = 60) -> bytes:
    """The same picture, smaller and compressed again."""
    with Image.open(io.BytesIO(image)) as picture:
        written = io.BytesIO()
        picture.resize((round(picture.width * scale), round(picture.height * scale))).save(
            written, "JPEG", quality=quality
        )
    return written.getvalue()


def tagged(it: Tenancy, image: bytes, instance: str, asset: str | None = None) -> dict[str, Any]:
    """The result of an event; the next one is published only when it is there."""
    return it.one_result(it.dms.publish(inline(image), asset_id=asset, instance=instance))[0]


def counted(it: Tenancy, name: str, instance: str) -> float:
    return total(fetch(f"{http_url(it.service)}/metrics").body, name, dms_instance=instance)


def test_a_copy_has_the_tags_of_the_first_and_says_so(it: Tenancy, cat: bytes, photographs: dict[str, Path]) -> None:
    # Given photographs that were tagged; the clock of processor time is too coarse for one alone
    for name in ("astronaut", "coffee", "motorcycle_left"):
        assert tagged(it, photographs[name].read_bytes(), "acme")["providers"][0]["near_duplicate_of"] is None
    first = tagged(it, cat, "acme", "cat-1")
    # When a smaller copy of it comes
    second = tagged(it, copy(cat), "acme", "cat-2")
    # Then the model was not asked about it, and the result says so
    assert first["tags"]
    assert second["tags"] == first["tags"]
    assert second["image"]["sha256"] != first["image"]["sha256"]
    assert (first["providers"][0]["near_duplicate_of"], first["providers"][0]["distance"]) == (None, None)
    (report,) = second["providers"]
    assert (report["name"], report["status"], report["near_duplicate_of"]) == ("tensorflow", "ok", "cat-1")
    assert report["distance"] in range(4)
    # And so do the log and the metrics
    until(lambda: '"near_duplicate_of": {"tensorflow": "cat-1"}' in it.service.logged(), "the log says so")
    assert counted(it, "autotag_near_duplicates_total", "acme") == 1
    assert 0 < counted(it, "autotag_near_duplicates_cpu_saved_seconds_total", "acme") < 5


def test_another_instance_has_its_own_answer(it: Tenancy, cat: bytes) -> None:
    tagged(it, cat, "acme")
    assert tagged(it, cat, "beta")["providers"][0]["near_duplicate_of"] is None
    assert counted(it, "autotag_near_duplicates_total", "beta") == 0


def test_where_it_is_off_each_image_is_looked_at(it: Tenancy, cat: bytes) -> None:
    results = [tagged(it, cat, "off") for _ in range(2)]
    assert [each["providers"][0]["near_duplicate_of"] for each in results] == [None, None]
    assert all(each["providers"][0]["duration_s"] for each in results)


def test_pictures_of_one_colour_are_looked_at_each(it: Tenancy) -> None:
    for colour in ("white", "white", "red"):
        written = io.BytesIO()
        Image.new("RGB", (300, 200), colour).save(written, "PNG")
        assert tagged(it, written.getvalue(), "acme")["providers"][0]["near_duplicate_of"] is None


def test_a_cloud_service_that_the_instance_names_is_called_once(it: Tenancy, google: FakeGoogle, cat: bytes) -> None:
    first, second = tagged(it, cat, "paying", "paid"), tagged(it, copy(cat), "paying")
    assert len(google.calls) == 1
    assert second["tags"] == first["tags"]
    assert second["providers"][0]["near_duplicate_of"] == "paid"


def test_an_event_that_comes_again_has_the_same_result(it: Tenancy, photographs: dict[str, Path]) -> None:
    # Given an event with a photograph that was tagged
    data = {"asset_id": "rocket", "instance": "acme", "content": inline(photographs["rocket"].read_bytes())}
    event = {"specversion": "1.0", "id": "rocket", "source": "/dms", "type": EVENT_TYPE, "data": data}
    ids = []
    for _ in range(2):
        # When the same event comes again
        it.dms.publish_body(json.dumps(event).encode(), content_type="application/cloudevents+json")
        ids += [each.properties.message_id for each in it.dms.results_of(["rocket"])["rocket"]]
    # Then its result has the same id, and the model was asked once
    assert len(ids) == 2
    assert ids[0] == ids[1]


def test_a_reload_keeps_what_is_remembered_unless_it_is_switched_off(it: Tenancy, cat: bytes) -> None:
    before = it.settings["instances"]
    tagged(it, cat, "acme", "before")
    it.reload(instances=before | {"acme": {"near_duplicates": ON, "labels": {"drop": ["tabby"]}}})
    assert tagged(it, cat, "acme")["providers"][0]["near_duplicate_of"] is not None
    it.reload(instances=before | {"acme": {"near_duplicates": ON, "tensorflow": {"confidence_threshold": 0.2}}})
    assert tagged(it, cat, "acme")["providers"][0]["near_duplicate_of"] is None
    it.reload(instances=before | {"acme": {}})
    assert tagged(it, cat, "acme")["providers"][0]["near_duplicate_of"] is None
    it.reload(instances=before)


async def test_a_decoder_gives_a_hash_on_request_and_the_same_with_and_without_pixels(cat: bytes) -> None:
    pool = DecoderPool(DecoderOptions())
    await pool.start()
    try:
        with Content.from_bytes(cat, "body") as content:
            assert (await pool.decode(content, (), "asset")).hash is None
            hashed = (await pool.decode(content, (), "asset", hashed=True)).hash
        with Content.from_bytes(copy(cat), "body") as content:
            of_copy = (await pool.decode(content, (), "asset", hashed=True)).hash
    finally:
        await pool.close()
    assert hashed is not None
    assert of_copy is not None
    assert hashed.distance(of_copy) <= 3
