"""The decoder child: untrusted bytes in; pixels, smaller JPEGs and facts out. `python -m worker.children.decoder`.

An image that cannot be used is answered with `refused`, and the decoder continues. An image that kills it nevertheless
is handled by the parent.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import PIL
from PIL import Image

from worker.children import loop, opening, rendering, sandbox
from worker.children.picture import Picture
from worker.errors import CannotBeDone, Misconfigured
from worker.images.requests import Fit, Interpolation, JpegLimits, PixelRecipe
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

_TINY_RECIPE = PixelRecipe(8, Fit.CROP, 1, Interpolation.BICUBIC)


class Decoder:
    """Handles jobs, each about one image, one after the other."""

    def __init__(
        self, formats: Mapping[str, str], *, maximum_pixels: int, maximum_bytes: int, maximum_cpu_s: int
    ) -> None:
        self._formats = formats
        self._maximum_pixels = maximum_pixels
        self._maximum_bytes = maximum_bytes
        self._maximum_cpu_s = maximum_cpu_s

    def handle(self, packet: Packet, fds: Sequence[int], reply: loop.SendReply) -> None:
        """Do one job: `inspect`, `decode` or `shrink`. The first descriptor is the image, the second the output."""
        sandbox.allow_processor_time(self._maximum_cpu_s)
        try:
            facts = self._facts(packet, fds)
        except CannotBeDone as refusal:
            reply("refused", {"reason": refusal.reason, "message": str(refusal)})
        else:
            reply("done", facts)

    def _facts(self, packet: Packet, fds: Sequence[int]) -> Mapping[str, object]:
        output = None
        limits = {"maximum_pixels": self._maximum_pixels, "maximum_bytes": self._maximum_bytes}
        with opening.opened(fds[0], formats=self._formats, **limits) as opened:
            picture, facts = opened
            match packet["kind"]:
                case "decode":
                    output = rendering.pixels(picture, _recipe_in(packet["recipe"]))
                case "shrink":
                    output = rendering.jpeg(picture, JpegLimits(**packet["limits"]))
        if output is not None:
            _write(fds[1], output)
        return asdict(facts)


def prepare(settings: Mapping[str, Any]) -> tuple[loop.Handler, Mapping[str, object]]:
    """Set Pillow's limits, import all that decoding needs, and enter the sandbox. Raises `Misconfigured`."""
    opening.prepare(settings["maximum_pixels"])
    _import_codecs()
    formats = opening.readable()
    level = sandbox.Level.NONE
    if settings["sandbox"] != "off":
        level = sandbox.enter(sandbox.Allowance(settings["maximum_memory_bytes"], opening.needs_threads()))
        formats = {media_type: name for media_type, name in formats.items() if name != "HEIF" or _decodes(name)}
    if settings["sandbox"] == "strict" and level != sandbox.STRICTEST:
        raise Misconfigured(
            f"the sandbox reaches only level {level.value!r} here, and decoder.sandbox is 'strict'; "
            "set it to 'best' or use a kernel that offers more",
            reason="sandbox_too_weak",
        )
    decoder = Decoder(
        formats,
        maximum_pixels=settings["maximum_pixels"],
        maximum_bytes=settings["maximum_bytes"],
        maximum_cpu_s=settings["maximum_cpu_s"],
    )
    return decoder.handle, {"pillow": PIL.__version__, "sandbox": level.value}


def _import_codecs() -> None:
    """Decode a tiny image of every format: what Python imports at first use cannot be imported inside the sandbox."""
    for name in {*opening.readable().values()}:
        _decode_tiny(name)
    rendering.pixels(Picture(Image.new("LAB", (16, 16)), "TIFF"), _TINY_RECIPE)


def _decode_tiny(name: str) -> None:
    with Image.open(io.BytesIO(_tiny(name)), formats=[name]) as image:
        rendering.pixels(Picture(image, name), _TINY_RECIPE)


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
    return PixelRecipe(fields["size"], Fit(fields["fit"]), fields["margin"], Interpolation(fields["interpolation"]))


def _write(fd: int, data: bytes) -> None:
    position = 0
    while position < len(data):
        position += os.pwrite(fd, data[position : position + (1 << 20)], position)


if __name__ == "__main__":
    loop.serve(prepare)
