"""The decoder child: untrusted bytes in; pixels, smaller JPEGs and facts out. `python -m worker.children.decoder`.

It is a fork server: the images are decoded in processes of their own, each in a sandbox. An image that cannot be used
is answered with `refused`, and its process continues. An image that kills it nevertheless is handled by the parent.
"""

from __future__ import annotations

import base64
import ctypes
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import PIL
from PIL import Image

from worker.children import loop, opening, perceptual_hash, rendering, sandbox
from worker.children.demand import Demand, Granted, MoreWanted
from worker.children.fork_server import DoJob, ForkServer
from worker.children.picture import Picture
from worker.errors import CannotBeDone, Misconfigured
from worker.images.perceptual_hash import DETAIL_BYTES, HASH_BYTES, PerceptualHash
from worker.images.requests import Fit, Interpolation, JpegLimits, PixelRecipe
from worker.supervision import packets
from worker.supervision.packets import Packet

_TINY = {
    "AVIF": (
        "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcG"
        "l0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAAHwAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABq"
        "aXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAAEAAAABAAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAAB"
        "dpcG1hAAAAAAAAAAEAAQQBAoMEAAAAJ21kYXQSAAoJGAz/2iAhoNCAMhAcR4eF3dNNNMLGwAB1fWZY"
    ),
    "HEIF": (
        "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAWhtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAA"
        "AAAERAAAEAAQAAAAABjAABAAAAAAAAABwAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA6GlwcnAA"
        "AADJaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkA"
        "AAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABRpc3BlAAAAAAAAAEAAAABAAAAAKGNsYXAAAAAQAAAAAQAAABAA"
        "AAAB////0AAAAAL////QAAAAAgAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIEgwAAACRtZGF0AAAAGCgBrwQSONz4laCSMK"
        "znLzyhXt7gkfCKgA=="
    ),
}
"""Grey images of 16 x 16 pixels, in base64: their encoders are large, start threads, and serve nothing else."""

_KEPT_BYTES = 48 << 20
"""After an image that may have taken more, memory is given back to the system."""

_HASHED_SIDE = 400
"""A JPEG is decoded at no less than this many pixels of its shorter side for a hash alone: about what it has for one
beside the model's input."""

_TINY_RECIPE = PixelRecipe(8, Fit.CROP, 1, Interpolation.BICUBIC)


class Decoder:
    """Does jobs, each about one image, one after the other."""

    def __init__(self, formats: Mapping[str, str], settings: Mapping[str, Any]) -> None:
        self._formats = formats
        self._give_back = getattr(ctypes.CDLL(None), "malloc_trim", int)  # glibc's; called with 0
        self._maximum_pixels: int = settings["maximum_pixels"]
        self._maximum_bytes: int = settings["maximum_bytes"]
        self._maximum_cpu_s: int = settings["maximum_cpu_s"]

    def answer(self, packet: Packet, fds: Sequence[int]) -> bytes:
        """Do one job: `inspect`, `decode` or `shrink`. The first descriptor is the image, the second the output."""
        granted = Granted(packet["memory_bytes"], packet["may_have_more"], packet["quick_s"])
        limits = JpegLimits(**packet["limits"]) if packet["kind"] == "shrink" else None
        demand = Demand(granted, limits)
        try:
            with sandbox.limits_of_an_image(self._maximum_cpu_s, granted.quick_s):
                return packets.pack("done", self._facts(packet, fds, demand, limits))
        except MoreWanted as more:
            return packets.pack("more", {"memory_bytes": more.memory_bytes, "slow": more.slow})
        except MemoryError:  # while another error was being handled
            if granted.may_have_more:
                return packets.pack("more", {"memory_bytes": 2 * granted.memory_bytes, "slow": False})
            return _refused(CannotBeDone("decoding it takes too much memory", reason=opening.TOO_MUCH_MEMORY))
        except CannotBeDone as refusal:
            return _refused(refusal)
        finally:
            if demand.memory_bytes > _KEPT_BYTES:
                self._give_back(0)

    def _facts(
        self, packet: Packet, fds: Sequence[int], demand: Demand, jpeg_limits: JpegLimits | None
    ) -> Mapping[str, object]:
        output = None
        hashes: list[PerceptualHash | None] = []
        limits = {"maximum_pixels": self._maximum_pixels, "maximum_bytes": self._maximum_bytes}
        with opening.opened(fds[0], demand, formats=self._formats, **limits) as opened:
            picture, facts = opened

            def add_hash(decoded: Image.Image) -> None:
                if packet["hashed"]:
                    square = rendering.square(decoded, picture.orientation, perceptual_hash.SIDE)
                    hashes.append(perceptual_hash.of(square))

            match packet["kind"]:
                case "decode" if packet.get("recipes"):
                    output = rendering.pixels(picture, [_recipe_in(each) for each in packet["recipes"]], add_hash)
                case "decode":
                    add_hash(picture.decoded(_HASHED_SIDE / min(picture.size)))
                case "shrink" if jpeg_limits is not None:
                    output = rendering.jpeg(picture, jpeg_limits)
        if output is not None:
            _write(fds[1], output)
        return asdict(facts) | {"hash": _hash_fields(hashes[0]) if hashes else None}


def prepare(settings: Mapping[str, Any]) -> tuple[loop.Serve, Mapping[str, object]]:
    """Set Pillow's limits, import all that decoding needs, and start the fork server. Raises `Misconfigured`."""
    os.nice(settings["nice"])
    opening.prepare(settings["maximum_pixels"])
    _import_codecs()
    begin = partial(_begin, settings, sandbox.address_space_bytes())
    server = ForkServer(
        begin,
        settings["first_memory_bytes"],
        settings["maximum_cpu_s"],
        for_each_image=settings["isolation"] == "image",
    )
    if settings["sandbox"] != "off":
        sandbox.enter_for_server()
    hello = server.start()
    return server.serve, {"pillow": PIL.__version__, "sandbox": hello["sandbox"]}


def _begin(
    settings: Mapping[str, Any], own_bytes: int, memory_bytes: int, first: Mapping[str, Any]
) -> tuple[DoJob, Mapping[str, object]]:
    """In a process of its own: enter the sandbox. `own_bytes`: of address space, without an image's.

    Raises `Misconfigured`.
    """
    formats = opening.readable()
    level = sandbox.Level.NONE
    if settings["sandbox"] != "off":
        allowed_bytes = min(own_bytes + memory_bytes + sandbox.RESERVE_BYTES, settings["maximum_memory_bytes"])
        allowance = sandbox.Allowance(allowed_bytes, opening.needs_threads())
        level = sandbox.enter(allowance, sandbox.Level(first["sandbox"]) if first else None)
        if "HEIF" in formats.values() and not (first["heif"] if first else _decodes("HEIF")):
            formats = {media_type: name for media_type, name in formats.items() if name != "HEIF"}
    if settings["sandbox"] == "strict" and level != sandbox.STRICTEST:
        raise Misconfigured(
            f"the sandbox reaches only level {level.value!r} here, and decoder.sandbox is 'strict'; "
            "set it to 'best' or use a kernel that offers more",
            reason="sandbox_too_weak",
        )
    return Decoder(formats, settings).answer, {"sandbox": level.value, "heif": "HEIF" in formats.values()}


def _refused(refusal: CannotBeDone) -> bytes:
    return packets.pack("refused", {"reason": refusal.reason, "message": str(refusal)})


def _import_codecs() -> None:
    """Decode a tiny image of every format: what Python imports at first use cannot be imported inside the sandbox."""
    for name in {*opening.readable().values()}:
        _decode_tiny(name)
    rendering.pixels(Picture(Image.new("LAB", (16, 16)), "TIFF"), [_TINY_RECIPE])


def _decode_tiny(name: str) -> None:
    with Image.open(io.BytesIO(_tiny(name)), formats=[name]) as image:
        rendering.pixels(Picture(image, name), [_TINY_RECIPE])


def _decodes(name: str) -> bool:
    """Whether a format can be decoded in the sandbox as it is here. Without its filter no thread can be started."""
    try:
        _decode_tiny(name)
    except Exception:  # noqa: BLE001 - a library's own words for it may be of any type
        return False
    return True


def _tiny(name: str) -> bytes:
    """A grey image of 16 x 16 pixels."""
    if name in _TINY:
        return base64.b64decode(_TINY[name])
    written = io.BytesIO()
    Image.new("RGB", (16, 16), "grey").save(written, name)
    return written.getvalue()


def _recipe_in(fields: Mapping[str, Any]) -> PixelRecipe:
    """The recipe from the fields of a packet."""
    fit, interpolation = Fit(fields["fit"]), Interpolation(fields["interpolation"])
    return PixelRecipe(fields["size"], fit, fields["margin"], interpolation, fields["fill"])


def _hash_fields(found: PerceptualHash | None) -> Mapping[str, object] | None:
    if found is None:
        return None
    return {
        "bits": found.bits.to_bytes(HASH_BYTES),
        "detail": found.detail.to_bytes(DETAIL_BYTES) if found.detail is not None else None,
        "colour": bytes(found.colour),
    }


def _write(fd: int, data: bytes) -> None:
    position = 0
    while position < len(data):
        position += os.pwrite(fd, data[position : position + (1 << 20)], position)


if __name__ == "__main__":
    loop.serve(prepare)
