from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clarp.render.encoding import PIXEL_FORMATS, encoded

SIDES = st.integers(1, 40)


def opened(data: bytes) -> Image.Image:
    picture = Image.open(BytesIO(data))
    picture.load()
    return picture


@given(SIDES, SIDES, st.sampled_from(["RGB", "RGBA"]), st.integers(0, 2**32 - 1))
def test_a_png_has_every_pixel(height, width, mode, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    picture = opened(encoded(Image.fromarray(pixels)))
    assert (picture.format, picture.mode) == ("PNG", mode)
    assert np.array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("kind", PIXEL_FORMATS)
def test_every_format_opens_and_is_near(kind):
    ramp = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (48, 64, 3))
    picture = opened(encoded(Image.fromarray(np.ascontiguousarray(ramp)), kind))
    difference = np.abs(np.asarray(picture, dtype=int) - ramp)
    assert difference.max() <= (4 if kind == "jpg" else 0)


def test_a_part_of_a_picture_that_is_not_contiguous():
    pixels = np.arange(20 * 30 * 3, dtype=np.uint32).astype(np.uint8).reshape(20, 30, 3)
    part = Image.fromarray(pixels).crop((5, 4, 25, 17))
    assert np.array_equal(np.asarray(opened(encoded(part))), pixels[4:17, 5:25])
