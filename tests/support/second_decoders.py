"""Two decoders that share no code of ours: libvips and ImageMagick, as Debian has them. They judge what Autotag sees.

Neither is right about everything: libvips has CMYK through a profile and takes floating point for 0 to 255, ImageMagick
6 ignores the orientation of a PNG. A file that both of them read otherwise than Autotag needs a reason.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

from PIL import Image


def libvips(file: Path) -> Image.Image | None:
    """The first picture of a file as libvips sees it: upright, on white; None if it does not read it."""
    output = file.with_suffix(".vips.png")
    command = ["vipsthumbnail", str(file), "--size", "10000x10000>", "-o", str(output)]
    subprocess.run(command, capture_output=True, check=False)
    if not output.exists():
        return None
    with Image.open(output) as image:
        if image.mode.startswith("I;16"):
            return image.convert("I").point(lambda value: value * (1 / 257) + 0).convert("L").convert("RGB")
        return on_white(image.convert("RGBA"))


def imagemagick(file: Path) -> Image.Image | None:
    """The same as ImageMagick sees it."""
    program = shutil.which("magick") or "/usr/bin/convert"
    settings = [
        "-auto-orient",
        "-background",
        "white",
        "-alpha",
        "remove",
        "-alpha",
        "off",
        "-colorspace",
        "sRGB",
        "-depth",
        "8",
    ]
    done = subprocess.run([program, f"{file}[0]", *settings, "ppm:-"], capture_output=True, check=False)
    return Image.open(io.BytesIO(done.stdout)).convert("RGB") if done.stdout.startswith(b"P") else None


def on_white(image: Image.Image) -> Image.Image:
    """An RGBA picture blended with white."""
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image)
    return canvas.convert("RGB")
