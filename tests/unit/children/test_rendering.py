"""The models' squares, as a decoder renders them of one decoded picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from worker.children import rendering
from worker.children.picture import Picture, of_pillow
from worker.images.requests import Fit, Interpolation, PixelRecipe

CROP = PixelRecipe(64, Fit.CROP, 8, Interpolation.BICUBIC)
PADDED = PixelRecipe(96, Fit.PAD, 0, Interpolation.BILINEAR, 116)


def jpeg(width: int, height: int, colour: str = "red") -> Picture:
    written = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(written, "JPEG", quality=95)
    return of_pillow(Image.open(written))


def square(data: bytes, recipe: PixelRecipe) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.frombuffer(data, np.uint8).reshape(recipe.size, recipe.size, 3)


@pytest.mark.parametrize(("width", "height"), [(400, 200), (200, 400), (300, 300), (4000, 8)])
def test_a_padded_picture_is_whole_in_the_middle_between_bars(width: int, height: int) -> None:
    found = square(rendering.pixels(jpeg(width, height), [PADDED]), PADDED)
    bars = (found == 116).all(axis=2)
    drawn = ~bars
    across, down = PADDED.drawn(width, height)
    assert drawn.sum() == across * down
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    assert rows[0] == (96 - down) // 2
    assert columns[0] == (96 - across) // 2
    assert (found[rows[0], columns[0]] > (200, -1, -1)).all()


def test_several_squares_of_one_picture_follow_each_other_and_it_is_decoded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scales: list[float] = []
    decoded = Picture.decoded

    def noted(picture: Picture, scale: float) -> Image.Image:
        scales.append(scale)
        return decoded(picture, scale)

    monkeypatch.setattr(Picture, "decoded", noted)
    both = rendering.pixels(jpeg(1600, 1200), [CROP, PADDED])
    assert len(both) == CROP.bytes + PADDED.bytes
    assert scales == [pytest.approx(rendering.DRAFT_FACTOR * 96 / 1600)]
    np.testing.assert_array_equal(square(both[CROP.bytes :], PADDED)[0, 0], [116, 116, 116])


def test_a_turned_picture_is_upright_between_its_bars() -> None:
    image = Image.new("RGB", (200, 100), "black")
    image.paste("white", (0, 0, 100, 100))  # left; after the turn by 90 degrees clockwise: above
    found = square(rendering.pixels(Picture(image, "PNG", orientation=6), [PADDED]), PADDED)
    assert found[10, 48].tolist() == [255, 255, 255]
    assert found[85, 48].tolist() == [0, 0, 0]
    assert found[48, 5].tolist() == [116, 116, 116]


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(Fit), st.integers(8, 640))
def test_whatever_the_shape_what_is_drawn_fits_and_the_scale_is_enough(
    width: int, height: int, fit: Fit, size: int
) -> None:
    recipe = PixelRecipe(size, fit, 0, Interpolation.BILINEAR)
    across, down = recipe.drawn(width, height)
    left, top, right, bottom = recipe.box(width, height)
    assert 1 <= across <= size
    assert 1 <= down <= size
    scale = recipe.scale(width, height)
    assert scale * (right - left) >= across * (1 - 1e-9)
    assert scale * (bottom - top) >= down * (1 - 1e-9)
