"""What is fuzzed: functions from bytes that read what is not trusted.

A target returns if its bytes were read, or refused with the error that its part promises; anything else that it raises
is a finding. None opens a socket or starts a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import pika
from pika import spec
from PIL import Image
from pydantic import SecretStr, TypeAdapter, ValidationError

from tests.fuzz import seeds
from worker.amqp.delivery import Delivery
from worker.amqp.in_hand import deferrals_of
from worker.amqp.mark import HeaderCheck, HeaderMark, own_headers
from worker.amqp.pika_fixes import UnreadableProperties
from worker.amqp.republish import (
    MAXIMUM_PROPERTIES_BYTES,
    dead_letter_properties,
    is_probe,
    part_properties,
    retry_properties,
    without_image,
)
from worker.amqp.topology import Lane
from worker.children import opening, rendering
from worker.children.demand import Demand, Granted, MoreWanted
from worker.children.formats import boxes, jpeg
from worker.errors import AutotagError, CannotBeDone, Misconfigured
from worker.images.format import sniff
from worker.images.kinds import PICTURE_FORMATS, described
from worker.images.requests import Fit, Interpolation, JpegLimits, PixelRecipe
from worker.messages import ReadEvent, UnreadableEvent, read_event
from worker.messages.oversized import refuse_oversized
from worker.messages.s3_notifications import read_s3_event, s3_notification
from worker.models.builder.weights import read_state_dict
from worker.models.manifest import Manifest, ModelPackage
from worker.operations.printable import printable
from worker.providers import google_errors, microsoft_errors
from worker.providers.base import Answer, Suggestion
from worker.providers.cloud.errors import ServiceFailed, answer_read
from worker.providers.cloud.http_client import HttpResponse, KeyHeader
from worker.providers.cloud.suggestions import parse_suggestions
from worker.providers.google_cloud_vision import _annotation_or_failure
from worker.providers.microsoft_vision import Api, _model, _tags
from worker.providers.replies import pack, unpack
from worker.settings import LabelsSettings, SourcesSettings
from worker.settings.label_checks import impossible_rules
from worker.sources.hosts import without_secrets
from worker.sources.retry_after import MAXIMUM_RETRY_AFTER_S, retry_after_s
from worker.sources.url import _as_text, _join, check_url
from worker.supervision import packets
from worker.supervision.decoder_pool import DecoderOptions, Grant, _DecoderJob, _MoreWantedError
from worker.supervision.memory_budget import FIRST_BYTES
from worker.supervision.model_pool import _outcome_in
from worker.supervision.turns import OWN_TURN
from worker.supervisor import _hopeless_cause
from worker.tagging.merge import Thresholds, Verdict, choose, tags_of

Target = Callable[[bytes], None]

_SECRET = "the-key-of-an-account"
_KEY = KeyHeader("X-Key", SecretStr(_SECRET))
_MARK = HeaderMark(b"a key")
_JSON: TypeAdapter[Any] = TypeAdapter(Any)
_MAXIMUM_PIXELS = 1 << 20
_MAXIMUM_REASON, _MAXIMUM_MESSAGE = 100, 600
"""Of what a child says about an image: enough for every sentence of ours, beside the asset's id."""
_GRANTED, _LIMITS = Granted(64 << 20, may_have_more=True, quick_s=1.0), JpegLimits(1 << 14, 64, 64, 8, 8)
_STATUSES = (200, 301, 400, 401, 403, 404, 408, 413, 429, 500)
_SOURCES = SourcesSettings(url_allowed_hosts=("images.example", "*.müller.example"))
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def message(data: bytes) -> None:
    """A message as RabbitMQ delivers it: two bytes of length, encoded properties, and the body."""
    length = int.from_bytes(data[:2], "big")
    properties, body = _properties(data[2 : 2 + length]), data[2 + length :]
    is_probe(properties, body)
    HeaderCheck(_MARK).on_arrival(properties, body)
    delivery = Delivery(body, properties, Lane.LIVE, 1, False, 0.0, cast("Any", None))
    assert delivery.attempt == 1, "an attempt was believed without a mark"
    assert not deferrals_of(delivery.headers.get("x-autotag-deferrals"))
    try:
        notification = s3_notification(body, delivery.message_id)
        if notification is not None:
            for part in notification.parts():
                _is_marked(part_properties(delivery, part.message_id, part.body, {}, _MARK), part.body)
                _is_written_again(read_s3_event(json.loads(part.body)["Records"][0], delivery.headers, lambda _: "a"))
            return
        refuse_oversized(body, delivery.content_type, delivery.headers, delivery.message_id, 1 << 10)
        read = read_event(body, delivery.content_type, delivery.headers, delivery.message_id)
    except UnreadableEvent as error:
        assert error.reason in {"event_invalid", "event_not_json", "event_type_unknown", "event_too_large"}
        str(error).encode()
        _can_go_on(delivery, error.asset_id, error.instance)
        if error.asset_id is not None:
            error.result()
    else:
        _is_written_again(read)
        _can_go_on(delivery, read.event.data.asset_id, read.event.data.instance)
    without_image(body, maximum_bytes=1 << 10)


def _properties(encoded: bytes) -> pika.BasicProperties:
    """The properties that our connection makes of a content header."""
    try:
        return spec.BasicProperties().decode(encoded)
    except Exception as error:  # noqa: BLE001 - as in `PikaConnection._read_frame`
        return UnreadableProperties(error, encoded)


def _can_go_on(delivery: Delivery, asset: str | None, instance: str | None) -> None:
    """What replaces a message can be written, fits into one frame, and carries our mark."""
    for made in (
        retry_properties(delivery, {}, attempt=2, mark=_MARK),
        dead_letter_properties(
            delivery, "event_invalid", "it is", asset=asset, instance=instance, headers={}, now=_NOW, mark=_MARK
        ),
    ):
        _is_marked(made, delivery.body)


def _is_marked(made: pika.BasicProperties, body: bytes) -> None:
    encoded = b"".join(made.encode())
    assert len(encoded) <= MAXIMUM_PROPERTIES_BYTES + 1000
    assert _MARK.is_on(_properties(encoded), body), "what comes back is not believed"


def _is_written_again(read: ReadEvent) -> None:
    """What an event holds goes into results, which are JSON."""
    read.event.data.model_dump_json(exclude={"content"})
    json.dumps([read.event.id, read.event.source]).encode()


def own_header(data: bytes) -> None:
    """Answers that are carried over a retry: read, written and read again they are the same."""
    replies = unpack(data)
    replies_again = unpack(pack(replies))
    if replies.facts is not None and len(data) < 1 << 15:
        assert replies_again == replies
    for reply in replies.replies:
        _JSON.dump_json(reply.report())


def packet(data: bytes) -> None:
    """What a child that an image has taken over may send: `hopeless`, and the answers of both kinds of child."""
    try:
        read = packets.unpack(data)
        _hopeless_cause(read).message.encode()
        with contextlib.suppress(packets.ProtocolError):
            _decoder_answer(read)
        items = read.get("items")
        for item in items if isinstance(items, list) else [read]:
            _model_answer(item)
    except packets.ProtocolError:
        pass


def _decoder_answer(read: packets.Packet) -> None:
    """One answer of a decoder, as its job takes it."""

    async def take() -> Any:
        options, first = DecoderOptions(), Grant(FIRST_BYTES)
        job = _DecoderJob(lambda _: None, "inspect", None, first, [], options, "an image", OWN_TURN, False)
        job.on_answer(read)
        return await job.answer

    try:
        done = asyncio.run(take())
    except CannotBeDone as error:
        _is_bounded(error)
    except _MoreWantedError as more:
        assert more.grant.slow or FIRST_BYTES < more.grant.memory_bytes <= DecoderOptions().maximum_memory_bytes
    else:
        assert done.facts.format in PICTURE_FORMATS
        assert len(done.facts.sha256) == 64
        assert done.hash is None or done.hash.bits < 1 << 64


def _model_answer(item: object) -> None:
    outcome = _outcome_in(item, "an image")
    if isinstance(outcome, CannotBeDone):
        _is_bounded(outcome)
    else:
        assert len(outcome) <= packets.MAXIMUM_LABELS
        assert all(0 <= confidence < 1.001 for _, confidence in outcome)


def _is_bounded(error: CannotBeDone) -> None:
    assert len(error.reason) <= _MAXIMUM_REASON
    assert len(str(error)) <= _MAXIMUM_MESSAGE
    assert printable(str(error)) == str(error)
    str(error).encode()


def weights(data: bytes) -> None:
    """A weight file whose digest is the pinned one: read, or refused."""
    with _file("weights.pth", data) as path:
        try:
            arrays = read_state_dict(path, hashlib.sha256(data).hexdigest())
        except Misconfigured:
            return
    assert sum(array.nbytes for array in arrays.values()) <= 64 * len(data)


def manifest(data: bytes) -> None:
    """A model package's manifest, whose own words come after a line break as its labels."""
    written, _, names = data.partition(b"\n\n")
    with _file("manifest.json", written) as path:
        try:
            package = ModelPackage.load(path.parent)
        except Misconfigured:
            return
        package.identity.encode()
        package.manifest.recipe()
        Manifest.model_validate_json(package.manifest.model_dump_json())
        for file in (package.manifest.model.file, package.manifest.labels.file):
            assert path.parent in (path.parent / file).parents
        (path.parent / "labels.txt").write_bytes(names)
        with contextlib.suppress(Misconfigured):
            _ = package.labels
        with contextlib.suppress(Misconfigured):
            package.verify()


def cloud_answer(data: bytes) -> None:
    """A cloud service's answer: a byte for the status, a line for `Retry-After`, and the body."""
    status = _STATUSES[data[0] % len(_STATUSES)] if data else 200
    header, _, body = data[1:].partition(b"\n")
    response = HttpResponse(status, {"retry-after": header.decode("latin-1")}, body)
    for error in (
        google_errors.call_error(response, _KEY, "acme"),
        microsoft_errors.call_error(response, _KEY, instance="acme", retired=False),
    ):
        assert isinstance(error, AutotagError)
        _is_told(str(error))
        assert 0 <= getattr(error, "after_s", 0.0) <= MAXIMUM_RETRY_AFTER_S
    tree = response.json_object()
    for part in [tree, *parts] if tree and isinstance(parts := tree.get("responses"), list) else [tree]:
        _is_answered(_annotation_or_failure(part, _KEY))
    for version in ("4.0", "3.2"):
        with contextlib.suppress(ServiceFailed), answer_read("a service"):
            api = Api(version, "https://vision.example")
            suggestions, note = parse_suggestions("a service", _tags(tree or {}, api) or [])
            _is_answered(Answer(suggestions, _model(tree or {}, api), note))


def _is_answered(answer: object) -> None:
    if isinstance(answer, Answer):
        assert all(0 <= each.confidence <= 1 for each in answer.suggestions)
        json.dumps([each.name for each in answer.suggestions], ensure_ascii=False).encode()
        _is_told(answer.note or "")
    else:
        assert isinstance(answer, AutotagError)
        _is_told(str(answer))


def _is_told(text: str) -> None:
    """A text that goes into logs and results: short, printable, without the key."""
    text.encode()
    assert len(text) < 2000
    assert printable(text) == text
    assert _SECRET not in text


def retry_after(data: bytes) -> None:
    """`Retry-After`, of a cloud service or an image host."""
    text = data.decode("latin-1")
    wait_s = retry_after_s(text, now_s=1.8e9)
    assert math.isfinite(wait_s)
    assert 0 <= wait_s <= MAXIMUM_RETRY_AFTER_S


def image(data: bytes) -> None:
    """An upload, as a decoder child handles it: opened, rendered for a model, and made smaller."""
    media_type = sniff(data[: 1 << 16])
    described(media_type)
    with _memory(data) as fd, _limits_of_a_decoder():
        for work in (_pixels, _smaller):
            try:
                with opening.opened(
                    fd,
                    Demand(_GRANTED, _LIMITS if work is _smaller else None),
                    formats=opening.readable(),
                    maximum_pixels=_MAXIMUM_PIXELS,
                    maximum_bytes=1 << 24,
                ) as (picture, facts):
                    work(picture)
                    assert facts.format in PICTURE_FORMATS
                    assert facts.width > 0
                    assert facts.height > 0
            except CannotBeDone as refusal:
                assert refusal.reason.startswith("image_")
            except MoreWanted as more:
                assert more.slow or more.memory_bytes > _GRANTED.memory_bytes
    boxes.is_cut(data)
    jpeg.frame(data)


def _pixels(picture: Any) -> None:
    recipe = PixelRecipe(16, Fit.CROP, 4, Interpolation.BICUBIC)
    assert len(rendering.pixels(picture, [recipe])) == 16 * 16 * 3


def _smaller(picture: Any) -> None:
    assert rendering.jpeg(picture, _LIMITS).startswith(b"\xff\xd8")


def label_rules(data: bytes) -> None:
    """An instance's rules and what providers suggest, as JSON: `[rules, {provider: [[name, confidence]]}, maximum]`."""
    try:
        rules, given, maximum = json.loads(data)
        settings = LabelsSettings.model_validate(rules)
        suggestions = {
            str(provider): [Suggestion(name, confidence) for name, confidence in _pairs(pairs)]
            for provider, pairs in given.items()
        }
        most = max(0, int(maximum))
    except (ServiceFailed, ValidationError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return
    if any(impossible_rules(settings, by_concept=True, names_of_others=True)):
        return
    choices = choose(
        suggestions,
        thresholds={"tensorflow": Thresholds(0.5)},
        rules=settings,
        existing_tags=["Cat"],
        maximum=most,
        by_concept=most % 2 == 1,
    )
    assert sum(each.because_of is None for each in choices) == sum(map(len, suggestions.values()))
    tags = [choice.name for choice in choices if choice.verdict is Verdict.KEPT]
    assert len({tag.casefold() for tag in tags}) == len(tags)
    assert not most or len(tags) <= most
    for tag in tags:
        assert tag
        assert tag == " ".join(tag.split())
        if settings.clean == "liferay":
            assert len(tag) <= 75
            assert not set("&'@\\]}:,=>/<[{%|+#`?\";*~") & set(tag)
    for each in tags_of(choices):
        _JSON.dump_json(each)


def _pairs(given: Any) -> list[tuple[str, float]]:
    """Names and confidences as every reader of a provider's answer has made sure that they are."""
    answered, _ = parse_suggestions("a service", [(name, confidence) for name, confidence in given])
    return [(each.name, each.confidence) for each in answered]


def url(data: bytes) -> None:
    """The URL of an event, and the bytes of a redirect from it."""
    written, _, location = data.partition(b"\n")
    text = written.decode("utf-8", "surrogateescape" if len(data) % 2 else "replace")
    without_secrets(text).encode()
    try:
        checked = check_url(text, _SOURCES)
    except CannotBeDone as refusal:
        assert refusal.reason.startswith("url_")
        str(refusal).encode()
        checked = httpx.URL("https://images.example/a/b")
    assert not checked.userinfo
    checked.raw_path.decode("ascii")
    try:
        check_url(_join(checked, _as_text(location)), _SOURCES)
    except CannotBeDone as refusal:
        assert refusal.reason.startswith("url_")


def properties(data: bytes) -> None:
    """Properties that pika may not be able to read: what is salvaged can be written, and holds nothing of ours."""
    found = UnreadableProperties(ValueError("x"), data)
    HeaderCheck(_MARK).on_arrival(found, b"")
    assert {name for name, _ in own_headers(found)} == set(found.note)


@contextlib.contextmanager
def _limits_of_a_decoder() -> Any:
    """Pillow's own limits, which hold for the whole process, and are put back: other tests have larger pictures."""
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        opening.prepare(_MAXIMUM_PIXELS)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextlib.contextmanager
def _memory(data: bytes) -> Any:
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _file(name: str, data: bytes) -> Any:
    """A file in a folder of its own, in memory where there is such a place."""
    folder = Path(f"/dev/shm/autotag-fuzz-{os.getpid()}")
    folder.mkdir(exist_ok=True)
    path = folder / name
    try:
        path.write_bytes(data)
        yield path
    finally:
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()


TARGETS: dict[str, tuple[Target, Callable[[], list[bytes]], int]] = {
    "message": (message, seeds.messages, 2000),
    "properties": (properties, seeds.properties, 3000),
    "own_header": (own_header, seeds.own_headers, 3000),
    "packet": (packet, seeds.packets, 1500),
    "weights": (weights, seeds.weights, 1500),
    "manifest": (manifest, seeds.manifests, 1000),
    "cloud_answer": (cloud_answer, seeds.cloud_answers, 2000),
    "retry_after": (retry_after, seeds.retry_after, 3000),
    "image": (image, seeds.images, 700),
    "label_rules": (label_rules, seeds.label_rules, 1500),
    "url": (url, seeds.urls, 2000),
}
"""By name: the target, what makes its seeds, and how many mutated inputs a short run gives it."""
