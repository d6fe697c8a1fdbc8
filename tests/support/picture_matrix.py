"""Picture files of every format, depth, colour, byte order, kind of alpha and orientation, each with what it shows."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageChops, ImageCms, ImageDraw

from tests.support.pictures import FROM_UPRIGHT, bmp, chunk, png, samples, tiff, written
from tests.support.second_decoders import on_white

SIZE = (96, 64)
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _FILL_ORDER, _ORIENTATION = 338, 339, 266, 0x0112
_BACKWARDS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_SIGNED, _FLOAT = 2, 3


@dataclass(frozen=True)
class Specimen:
    """A file, and the picture in it: upright, RGB, on white. `disputed`: why both second decoders see another one."""

    name: str
    data: bytes
    shows: Image.Image
    disputed: str = ""


def scene() -> Image.Image:
    """A picture in which no corner is like another, with shades, strong colours, black and white."""
    width, height = SIZE
    ramp = Image.linear_gradient("L")
    image = Image.merge("RGB", [ramp.rotate(turn).resize(SIZE) for turn in (0, 90, 180)])
    draw = ImageDraw.Draw(image)
    draw.rectangle((width * 0.1, height * 0.1, width * 0.35, height * 0.4), fill=(220, 40, 30))
    draw.rectangle((width * 0.5, height * 0.5, width * 0.9, height * 0.7), fill=(20, 160, 60))
    draw.ellipse((width * 0.6, height * 0.1, width * 0.8, height * 0.4), fill=(255, 255, 255))
    draw.ellipse((width * 0.1, height * 0.6, width * 0.3, height * 0.9), fill=(0, 0, 0))
    return image


SCENE = scene()
GREY = SCENE.convert("L")
ALPHA = Image.radial_gradient("L").resize(SIZE)


def _over_white(image: Image.Image, alpha: Image.Image = ALPHA) -> Image.Image:
    image = image.convert("RGB")
    image.putalpha(alpha)
    return on_white(image)


def _coarse(bits: int) -> Image.Image:
    """The grey scene with as many shades as a depth has."""
    levels = (1 << min(bits, 8)) - 1
    return GREY.point([value * levels // 255 * 255 // levels for value in range(256)])


def grey_tiffs() -> Iterator[Specimen]:
    """Every depth of grey in either byte order, black or white being zero."""
    for order in "<>":
        for inverted in (False, True):
            for bits in (1, 2, 4, 8, 12, 16, 32):
                data = samples(GREY, bits, order, inverted=inverted)
                shows = ImageChops.invert(_coarse_inverted(bits)) if inverted else _coarse(bits)
                name = f"tiff {order} grey {bits}{' inverted' * inverted}"
                made = tiff(order, SIZE, [bits], 0 if inverted else 1, data)
                why = "ImageMagick 6 does not exchange black and white, libvips reads no such depth"
                yield Specimen(name, made, shows.convert("RGB"), why * (inverted and bits in (12, 32)))
            for bits in (16, 32, 64):
                data = samples(GREY, bits, order, kind="float", inverted=inverted)
                made = tiff(order, SIZE, [bits], 0 if inverted else 1, data, {_SAMPLE_FORMAT: (3, [_FLOAT])})
                why = "ImageMagick 6 does not exchange black and white in fractions, libvips reads none" * inverted
                yield Specimen(f"tiff {order} fraction {bits}{' inverted' * inverted}", made, GREY.convert("RGB"), why)
        for bits in (1, 8, 12, 16):
            data = samples(GREY, bits, order).translate(_BACKWARDS)
            made = tiff(order, SIZE, [bits], 1, data, {_FILL_ORDER: (3, [2])})
            yield Specimen(f"tiff {order} grey {bits}, the last bit first", made, _coarse(bits).convert("RGB"))
        unsaid = tiff(order, SIZE, [8], 1, GREY.tobytes())
        photometric = struct.pack(order + "HHIHH", 262, 3, 1, 1, 0)
        assert photometric in unsaid
        unsaid = unsaid.replace(photometric, struct.pack(order + "HHIHH", 263, 3, 1, 1, 0))
        why = "both refuse a picture that does not name its colours; libtiff presumes black to be zero"
        yield Specimen(f"tiff {order} grey that does not say so", unsaid, GREY.convert("RGB"), why)
        for bits in (8, 16, 32):
            data = samples(GREY, bits, order, kind="signed")
            made = tiff(order, SIZE, [bits], 1, data, {_SAMPLE_FORMAT: (3, [_SIGNED])})
            why = "without a negative value, black is 0; both take the most negative number for it"
            yield Specimen(f"tiff {order} signed {bits}", made, GREY.convert("RGB"), why)


def _coarse_inverted(bits: int) -> Image.Image:
    levels = (1 << min(bits, 8)) - 1
    return GREY.point([(255 - value) * levels // 255 * 255 // levels for value in range(256)])


def tiffs_with_alpha() -> Iterator[Specimen]:
    """Grey and RGB of 8 and 16 bits with an extra sample of every kind."""
    for order in "<>":
        for bits in (8, 16):
            for kind in (None, 0, 1, 2):
                more = {} if kind is None else {_EXTRA_SAMPLES: (3, [kind])}
                label = {None: "no kind", 0: "unspecified", 1: "associated", 2: "unassociated"}[kind]
                why = "what an unspecified sample means is not known: it is no transparency" if kind == 0 else ""
                for image, photometric in ((GREY, 1), (GREY, 0), (SCENE, 2)):
                    if photometric == 0 and kind == 1:
                        continue  # which comes first, multiplying or exchanging black and white, is nowhere said
                    shows = image.convert("RGB") if kind == 0 else _over_white(image)
                    bands = [ImageChops.invert(image)] if photometric == 0 else list(image.split())
                    if kind == 1:
                        bands = [ImageChops.multiply(band, ALPHA) for band in bands]
                    stored = Image.merge({1: "LA", 3: "RGBA"}[len(bands)], [*bands, ALPHA])
                    data = tiff(order, SIZE, [bits] * (len(bands) + 1), photometric, samples(stored, bits, order), more)
                    yield Specimen(f"tiff {order} photometric {photometric}, {bits}, alpha {label}", data, shows, why)
            opaque = Image.merge("RGBA", [*SCENE.split(), Image.new("L", SIZE, 0)])
            data = tiff(order, SIZE, [bits] * 4, 2, samples(opaque, bits, order))
            why = "an alpha without a kind that is 0 everywhere was never set"
            yield Specimen(f"tiff {order} RGB {bits}, alpha unset", data, SCENE, why)


def colour_tiffs() -> Iterator[Specimen]:
    """RGB, CMYK and Lab of 8 and 16 bits, pixel by pixel and plane by plane."""
    lab = ImageCms.profileToProfile(
        SCENE, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    raw_lab = lab.tobytes()
    stored_lab = Image.merge("RGB", [Image.frombytes("L", SIZE, raw_lab[band::3]) for band in range(3)])
    for order in "<>":
        for bits in (8, 16):
            for name, image, photometric in (
                ("RGB", SCENE, 2),
                ("CMYK", SCENE.convert("CMYK"), 5),
                ("Lab", stored_lab, 8),
            ):
                bands = image.split()
                depths = [bits] * len(bands)
                shows = image.convert("RGB") if name != "Lab" else SCENE
                chunky = tiff(order, SIZE, depths, photometric, samples(image, bits, order))
                yield Specimen(f"tiff {order} {name} {bits}", chunky, shows)
                data = b"".join(samples(band, bits, order) for band in bands)
                planar = tiff(order, SIZE, depths, photometric, data, planes=len(bands))
                yield Specimen(f"tiff {order} {name} {bits}, planes", planar, shows)


def compressed_tiffs() -> Iterator[Specimen]:
    """What Pillow writes, in every compression and mode, and in every orientation at 8 and 16 bits."""
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        for mode in ("L", "RGB", "CMYK", "YCbCr"):
            image = SCENE.convert(mode)
            if mode == "YCbCr" and compression == "raw":
                continue  # Pillow says of it that it is subsampled, and does not
            shows = image.convert("RGB")
            yield Specimen(f"tiff {mode} {compression}", written(image, "TIFF", compression=compression), shows)
    for orientation, turn in FROM_UPRIGHT.items():
        stored = GREY if turn is None else GREY.transpose(turn)
        for order in "<>":
            for bits in (8, 12, 16):
                more = {_ORIENTATION: (3, [orientation])}
                data = tiff(order, stored.size, [bits], 1, samples(stored, bits, order), more)
                yield Specimen(f"tiff {order} grey {bits} turned {orientation}", data, GREY.convert("RGB"))


def pngs() -> Iterator[Specimen]:
    """Every depth and colour, with a transparent colour and with alpha, in every orientation."""
    for depth in (1, 2, 4, 8, 16):
        shows = _coarse(depth)
        data = samples(GREY, depth, ">")
        yield Specimen(f"png grey {depth}", png(SIZE, depth, 0, data), shows.convert("RGB"))
        for value in (0, 255):
            key = chunk(b"tRNS", (value * ((1 << depth) - 1) // 255).to_bytes(2, "big"))
            alpha = shows.point([0 if level == value else 255 for level in range(256)])
            yield Specimen(
                f"png grey {depth} without {value}", png(SIZE, depth, 0, data, key), _over_white(shows, alpha)
            )
    night = Image.blend(SCENE, Image.new("RGB", SIZE), 0.96)
    for depth in (8, 16):
        data = samples(night, depth, ">")
        yield Specimen(f"png RGB {depth}", png(SIZE, depth, 2, data), night)
        key = chunk(b"tRNS", b"\0" * 6)
        alpha = Image.new("L", SIZE, 255)
        for place in ((x, y) for x in range(SIZE[0]) for y in range(SIZE[1])):
            if night.getpixel(place) == (0, 0, 0):
                alpha.putpixel(place, 0)
        yield Specimen(f"png RGB {depth} without black", png(SIZE, depth, 2, data, key), _over_white(night, alpha))
        for image, colour in ((GREY, 4), (SCENE, 6)):
            bands = Image.merge({4: "LA", 6: "RGBA"}[colour], [*image.split(), ALPHA])
            made = png(SIZE, depth, colour, samples(bands, depth, ">"))
            yield Specimen(f"png colour {colour}, {depth}, alpha", made, _over_white(image))
    just_above = _nearly_black()
    key = chunk(b"tRNS", b"\0" * 6)
    yield Specimen("png RGB 16, nearly the key", png(SIZE, 16, 2, just_above, key), Image.new("RGB", SIZE))
    palette = SCENE.quantize(32)
    yield Specimen("png palette", written(palette, "PNG"), palette.convert("RGB"))
    alpha = palette.convert("RGBA").getchannel("A")
    clear = Image.frombytes("L", SIZE, palette.tobytes()).point([0 if index == 3 else 255 for index in range(256)])
    for name in ("PNG", "GIF"):
        data = written(palette, name, transparency=3, optimize=False)
        yield Specimen(f"{name} palette without a colour", data, _over_white(palette, clear))


def _nearly_black() -> bytes:
    """RGB samples of 16 bits whose upper halves are all 0, and whose lower ones are not."""
    return bytes(
        byte for pixel in range(SIZE[0] * SIZE[1]) for band in range(3) for byte in (0, pixel % 200 + 1 + band)
    )


def bmps() -> Iterator[Specimen]:
    """32 bits with and without alpha, and an alpha that nobody set."""
    flipped = SCENE.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    red, green, blue = flipped.split()
    for header, masks in ((56, 4), (108, 4), (124, 4), (40, 0)):
        for name, alpha in (
            ("opaque", Image.new("L", SIZE, 255)),
            ("shaded", ALPHA),
            ("unset", Image.new("L", SIZE, 0)),
        ):
            stored = Image.merge("RGBA", (blue, green, red, alpha.transpose(Image.Transpose.FLIP_TOP_BOTTOM)))
            fields = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)[:masks]
            shows = _over_white(SCENE) if name == "shaded" and masks else SCENE
            why = {
                "unset": "an alpha of 0 everywhere was never set" * bool(masks),
                "shaded": "the fourth byte of a BMP without masks has no meaning" * (not masks),
            }.get(name, "")
            yield Specimen(f"bmp {header} {name}", bmp(SIZE, 32, stored.tobytes(), fields, header), shows, why)


def photographs() -> Iterator[Specimen]:
    """The formats of cameras, phones and the web as Pillow writes them, in every orientation; CMYK; alpha."""
    for orientation, turn in FROM_UPRIGHT.items():
        stored = SCENE if turn is None else SCENE.transpose(turn)
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        in_bytes = exif.tobytes()  # before Pillow takes the orientation of an AVIF out of it
        for name in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF"):
            options: dict[str, Any] = {"lossless": True} if name == "WEBP" else {} if name == "PNG" else {"quality": 95}
            # As bytes, a HEIC is turned as a phone turns it: by a property of its own. Its EXIF has no say.
            options["exif"] = in_bytes if name == "HEIF" else exif
            yield Specimen(f"{name} turned {orientation}", written(stored, name, **options), SCENE)
    for mode in ("L", "CMYK"):
        for progressive in (False, True):
            image = SCENE.convert(mode)
            data = written(image, "JPEG", quality=95, progressive=progressive)
            yield Specimen(f"JPEG {mode}{' progressive' * progressive}", data, image.convert("RGB"))
    clear = SCENE.copy()
    clear.putalpha(ALPHA)
    for name in ("WEBP", "AVIF", "HEIF", "ICO"):
        options = {"ICO": {"sizes": [SIZE]}}.get(name, {"quality": 95})
        yield Specimen(f"{name} alpha", written(clear, name, **options), _over_white(SCENE))
    large = SCENE.resize((1600, 1100))
    yield Specimen("HEIF of tiles, as a phone's", written(large, "HEIF", quality=90, tile_size=512), SCENE)


FAMILIES = {
    "grey TIFF": grey_tiffs,
    "TIFF with alpha": tiffs_with_alpha,
    "colour TIFF": colour_tiffs,
    "compressed and turned TIFF": compressed_tiffs,
    "PNG": pngs,
    "BMP": bmps,
    "photographs": photographs,
}
"""Each makes its specimens when it is called."""
