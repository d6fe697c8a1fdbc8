"""Whatever a publisher sends, the service goes on, says what was wrong with which asset, and keeps the event."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.pictures import written
from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-bad-input-{os.getpid()}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad-input")


@pytest.fixture(scope="module")
def service(broker: str, prefix: str, folder: Path, photographs: dict[str, Path]) -> Iterator[RunningService]:
    roots = json.dumps([str(folder), str(photographs["coffee"].parent)])
    # One attempt, so that what may succeed later is reported at once; retries have tests of their own.
    with running_service(
        broker, prefix, folder / "run", SOURCES__PATH_ROOTS=roots, RETRY__MAXIMUM_NUMBER_OF_ATTEMPTS="1"
    ) as service:
        yield service.ready(within_s=120)
        assert service.stop() == 0


def in_the_middle_of_good_ones(dms: Dms, good: Path) -> list[str]:
    return [dms.publish({"path": str(good)}) for _ in range(3)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff\xfe no json at all", "event_not_json"),
        (b'{"some": "other json"}', "event_invalid"),
        (b'{"asset_id": "a-1", "content": {"path": "x", "url": "https://y"}}', "event_invalid"),
        (b"[" * 100_000, "event_not_json"),
        (
            b'{"specversion": "1.0", "id": "1", "source": "/", "type": "dms.document.uploaded.v9", "data": {}}',
            "event_type_unknown",
        ),
    ],
)
def test_an_event_that_cannot_be_read_becomes_a_dead_letter_with_its_reason(
    dms: Dms, photographs: dict[str, Path], body: bytes, reason: str
) -> None:
    before = in_the_middle_of_good_ones(dms, photographs["coffee"])
    dms.publish_body(
        body, content_type="application/json" if reason != "event_type_unknown" else "application/cloudevents+json"
    )
    after = in_the_middle_of_good_ones(dms, photographs["coffee"])

    letter = until(lambda: dms.take("dead-letters"), "a dead letter came")

    assert letter.properties.headers["x-autotag-reason"] == reason
    assert letter.properties.headers["x-autotag-message"]
    assert letter.body == body
    good = [*before, *after]
    found = dms.results_of(good)
    assert {found[key][0].data["status"] for key in good} == {"tagged"}


BAD_FILES: dict[str, tuple[str | bytes | None, str]] = {
    "missing.jpg": (None, "content_missing"),
    "text.jpg": (b"This is no picture, whatever its name says.\n", "image_unrecognised"),
    "empty.jpg": (b"", "content_empty"),
    "truncated.jpg": ("truncated", "image_truncated"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_tagged_is_answered_by_name_and_kept(
    dms: Dms, photographs: dict[str, Path], folder: Path, name: str
) -> None:
    content, reason = BAD_FILES[name]
    if isinstance(content, str):  # "truncated"
        whole = photographs["coffee"].read_bytes()
        content = whole[: len(whole) // 2]
    if content is not None:
        (folder / name).write_bytes(content)
    good = in_the_middle_of_good_ones(dms, photographs["coffee"])
    bad = dms.publish({"path": str(folder / name)}, asset_id=f"the asset {name}")

    found = dms.results_of([*good, bad])

    data = found[bad][0].data
    assert (data["status"], data["reason"]) == ("failed", reason)
    assert name in data["message"]
    assert {found[key][0].data["status"] for key in good} == {"tagged"}
    letter = until(lambda: dms.take("dead-letters"), "a dead letter came")
    assert letter.properties.headers["x-autotag-reason"] == reason
    assert letter.properties.headers["x-autotag-asset"] == f"the asset {name}"


def odd_images(coffee: Image.Image) -> dict[str, bytes]:
    frames = [coffee, coffee.rotate(90)]
    odd = {
        "cmyk.jpg": written(coffee.convert("CMYK"), "JPEG"),
        "palette.png": written(coffee.convert("P"), "PNG"),
        "grey16.png": written(coffee.convert("I").point(lambda v: v * 257).convert("I;16"), "PNG"),
        "one.gif": written(coffee.convert("P"), "GIF"),
        "animated.webp": written(coffee, "WEBP", save_all=True, append_images=frames[1:], duration=100),
        "one-pixel.png": written(Image.new("RGB", (1, 1), "red"), "PNG"),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        odd[f"orientation-{orientation}.jpg"] = written(coffee, "JPEG", exif=exif)
    return odd


def test_every_odd_but_sound_image_is_looked_at(dms: Dms, photographs: dict[str, Path], folder: Path) -> None:
    # Given images of every unusual kind
    with Image.open(photographs["coffee"]) as coffee:
        coffee.load()
        files = odd_images(coffee)
    events = {}
    for name, content in files.items():
        (folder / name).write_bytes(content)
        events[dms.publish({"path": str(folder / name)}, asset_id=name)] = name
    # When they have been answered
    found = dms.results_of(events)
    # Then none failed
    by_name = {name: found[key][0].data for key, name in events.items()}
    assert {
        name: data["message"] for name, data in by_name.items() if data["status"] not in ("tagged", "no_tags")
    } == {}
    # And those in colour, upright, still show an espresso
    for name in ("cmyk.jpg", "palette.png", "one.gif", "animated.webp", "orientation-1.jpg"):
        assert "espresso" in {tag["name"] for tag in by_name[name]["tags"]}, name
    # And a picture that lies on its side is measured as it is shown
    upright, lying = by_name["orientation-1.jpg"]["image"], by_name["orientation-6.jpg"]["image"]
    assert (upright["width"], upright["height"]) == (lying["height"], lying["width"])
