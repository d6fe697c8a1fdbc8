"""What a fuzzer begins with: valid inputs of every kind, made here."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections import OrderedDict
from typing import Any

import msgpack
import pika
from PIL import Image

from worker.children.decoder import _TINY, _tiny
from worker.messages import EVENT_TYPE, ImageFacts
from worker.models.builder.weights import MAGIC, PROTOCOL
from worker.providers.base import Suggestion
from worker.providers.replies import ProviderReplies, Reply, pack

_DATA = {"asset_id": "a1", "instance": "acme", "content": {"path": "/a.jpg"}, "existing_tags": ["cat"]}
_EVENT = {"specversion": "1.0", "id": "e1", "source": "/dms", "type": EVENT_TYPE, "data": _DATA}

_RECORD = {
    "eventSource": "minio:s3",
    "eventName": "s3:ObjectCreated:Put",
    "eventTime": "2026-01-01T00:00:00Z",
    "s3": {"bucket": {"name": "b"}, "object": {"key": "a%2Fb+c.jpg", "eTag": "e", "sequencer": "1"}},
}


def messages() -> list[bytes]:
    """Every encoding of an event, and headers of every type."""
    odd = {"a": [1, True, None, {"b": b"\xff"}], "x-autotag-attempt": 3, "x-autotag-mark": "0" * 64, "f": 2**40}
    binary = {"cloudEvents:id": "e1", "cloudEvents:source": "/dms", "cloudEvents:type": EVENT_TYPE}
    attributes = binary | {"cloudEvents:specversion": "1.0", "cloudEvents:assetid": "a1"}
    pixel = b"\xff\xd8\xff\xe0"
    return [
        _message(json.dumps(_EVENT).encode(), content_type="application/cloudevents+json", headers=odd),
        _message(json.dumps(_DATA).encode(), content_type="application/json", message_id="m1"),
        _message(json.dumps(_DATA).encode(), headers=attributes),
        _message(pixel, content_type="image/jpeg", headers=attributes | {"cloudEvents:existingtags": '["cat"]'}),
        _message(pixel, content_type="image/jpeg", headers={"assetid": "a1", "x-autotag-answers": "{}"}),
        _message(json.dumps(_EVENT | {"data_base64": "e30=", "assetid": "a1"}).encode()),
        _message(json.dumps(_DATA | {"content": {"base64": "/9j/"}}).encode("utf-16")),
        _message(json.dumps(_DATA | {"content": {"url": "https://images.example/a"}}).encode(), headers=odd),
        _message(json.dumps(_DATA | {"context": {"a": [1, {"b": None}]}}).encode(), message_id="m1"),
        _message(json.dumps({"Records": [_RECORD]}).encode(), content_type="application/json"),
        _message(json.dumps({"Records": [_RECORD, _RECORD | {"eventSource": "ceph:s3"}]}).encode(), headers=odd),
    ]


def _message(body: bytes, **properties: Any) -> bytes:
    encoded = b"".join(pika.BasicProperties(**properties).encode())
    return len(encoded).to_bytes(2, "big") + encoded + body


def properties() -> list[bytes]:
    """The properties alone."""
    return [message[2 : 2 + int.from_bytes(message[:2], "big")] for message in messages()]


def own_headers() -> list[bytes]:
    """Answers of several providers about one image."""
    facts = ImageFacts(format="JPEG", width=3, height=2, sha256="0" * 64)
    replies = (
        Reply("tensorflow", "ok", (Suggestion("cat", 0.5), Suggestion("sofa", 0.25)), "m@1", duration_s=0.1),
        Reply("google", "failed", reason="image_refused", message="it can't"),
    )
    return [pack(ProviderReplies(replies, facts)).encode(), pack(ProviderReplies((), facts)).encode(), b"{}"]


def packets() -> list[bytes]:
    """What children answer."""
    scores = {"labels": struct.pack("<2H", 1, 2), "confidences": struct.pack("<2f", 0.5, 0.25)}
    refused = {"reason": "pixels_wrong_length", "message": "its pixels are not 3"}
    facts = {"kind": "done", "format": "JPEG", "width": 3, "height": 2, "sha256": "0" * 64}
    kinds: list[dict[str, Any]] = [
        facts,
        {"kind": "refused", "reason": "image_corrupt", "message": "it is damaged"},
        {"kind": "done", "items": [scores, refused]},
        {"kind": "hopeless", "reason": "model_refused", "message": "it cannot be loaded"},
        {"kind": "hello", "size": 224, "labels": 1000, "identity": "m@1", "sandbox": "seccomp"},
    ]
    return [msgpack.packb(each) for each in kinds]


def weights() -> list[bytes]:
    """A weight file of one tensor, and one that asks for a function."""
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((" + _text("storage") + b"ctorch\nFloatStorage\nq\x01" + _text("0")
        + _text("cpu") + b"K\x06NtQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip
    state = b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(" + _text("conv.weight") + tensor + b"u."
    first = pickle.dumps(MAGIC, 2) + pickle.dumps(PROTOCOL, 2) + pickle.dumps({"little_endian": True}, 2)
    last = pickle.dumps(["0"], 2) + struct.pack("<q6f", 6, *range(6))
    call = b"\x80\x02cos\nsystem\n" + _text("true") + b"\x85R."
    empty = pickle.dumps(OrderedDict(), 2) + pickle.dumps([], 2)
    return [first + state + last, first + call + last, first + empty]


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def manifests() -> list[bytes]:
    """A manifest with its labels."""
    pinned = {"file": "model.tflite", "sha256": "0" * 64}
    manifest = {
        "format": 1,
        "name": "lite0",
        "runtime": "litert",
        "model": pinned,
        "labels": pinned | {"file": "labels.txt"},
        "input": {"size": 224, "mean": 127.0, "scale": 128.0, "fit": "crop", "margin": 32, "interpolation": "bicubic"},
        "output": {"activation": "logits", "temperature": 1.5, "label_offset": 1, "ignored_labels": ["sofa"]},
        "licence": "Apache-2.0",
        "source": "here",
        "checked": {"top1": 0.75},
    }
    return [json.dumps(manifest).encode() + b"\n\nn02123394\tPersian cat\nsofa\n"]


def cloud_answers() -> list[bytes]:
    """Answers and refusals of both services."""
    trees: list[tuple[int, object]] = [
        (0, {"responses": [{"labelAnnotations": [{"description": "cat", "score": 0.5}]}, {"error": {"code": 3}}]}),
        (0, {"labelAnnotations": [{"description": "cat"}], "error": {"code": 8, "message": "quota"}}),
        (0, {"tagsResult": {"values": [{"name": "cat", "confidence": 0.5}]}, "modelVersion": "2023-10-01"}),
        (0, {"tags": [{"name": "cat", "confidence": 0.5}], "modelVersion": "2021-05-01"}),
        (4, {"error": {"message": "no", "details": [{"reason": "SERVICE_DISABLED"}, {"retryDelay": "26.5s"}]}}),
        (8, {"error": {"code": "429", "message": "later", "innererror": {"code": "x", "message": "y"}}}),
        (3, {"statusCode": 401, "message": "the-key-of-an-account is wrong"}),
    ]
    return [bytes([status]) + b"120\n" + json.dumps(tree).encode() for status, tree in trees]


def retry_after() -> list[bytes]:
    """Both forms of the standard, and some that are none."""
    return [b"120", b"Fri, 31 Dec 1999 23:59:59 GMT", b"Wed, 01 Jan 2031 00:00:00 +0100", b"9" * 400, b"-1", b"1e3"]


def images() -> list[bytes]:
    """A small picture of every format that is read, and of some modes; a raw photograph's frame, and what is none."""
    ramp = Image.frombytes("RGB", (24, 16), bytes(value % 251 for value in range(24 * 16 * 3)))
    made = [
        *(_written(ramp, name) for name in ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", "ICO")),
        *(_tiny(name) for name in _TINY),
        _written(ramp, "JPEG", progressive=True),
        _written(ramp.convert("CMYK"), "JPEG"),
        _written(ramp.convert("P"), "PNG", transparency=0),
        _written(ramp.convert("I").convert("I;16"), "PNG"),
        _written(ramp.convert("RGBA"), "WEBP", lossless=True),
        _written(ramp.convert("P"), "GIF"),
        *(_written(ramp, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        _written(ramp.convert("1"), "TIFF", compression="group4"),
        _written(ramp.convert("F"), "TIFF"),
        _written(ramp, "TIFF", big_tiff=True),
        _written(ramp.convert("L"), "BMP"),
        b"FUJIFILMCCD-RAW " + bytes(68) + struct.pack(">II", 160, 400) + bytes(68) + _written(ramp, "JPEG"),
        b"<?xml version='1.0'?><!-- a --><svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n",
    ]
    return [*made, made[2] + b"PK\x03\x04", made[1] + b"<html><script>", made[4][:100]]


def _written(image: Image.Image, name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def label_rules() -> list[bytes]:
    """Rules, suggestions, and a maximum."""
    rules = {"clean": "liferay", "rename": {"Tabby": "cat"}, "drop": ["dog"]}
    given = {"tensorflow": [["tabby", 0.9], ["dog", 0.8], ["a/b", 0.4]], "google": [["CAT", 0.95], ["İ", 0.5]]}
    return [json.dumps([rules, given, 3]).encode(), json.dumps([{}, given, 0]).encode()]


def urls() -> list[bytes]:
    """URLs with every part, and redirects."""
    return [
        b"https://images.example/a%20b.jpg?key=1#top\n/c.jpg",
        b"http://images.example:8080/\n//other.example/x",
        "https://a.müller.example./ü\nhttps://images.example/ü".encode(),
        b"https://user:secret@images.example/\n\xff\xfe",
        b"http://[::1]:80/\n?x",
        b"http://xn--mller-kva.example/\n../..",
    ]
