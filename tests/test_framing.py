"""Where in its photos a classifier looks."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from clarp.framing import Framing
from clarp.geometry import Geometry
from clarp.models.classifier import Classifier


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """Blobs of many colours."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


class Preprocess:
    """Resizes to a shorter side, or to one size, and cuts the middle; counts its calls."""

    def __init__(self, resize: int | tuple[int, int], crop: int) -> None:
        self.resize, self.crop, self.calls = resize, crop, 0

    def __call__(self, image: Image.Image) -> Tensor:
        self.calls += 1
        geometry = Geometry.of((image.height, image.width), resize=self.resize, crop=self.crop)
        resized = image.resize(geometry.resized[::-1], Image.Resampling.BILINEAR)
        top, left, height, width = geometry.crop
        cut = resized.crop((left, top, left + width, top + height))
        return torch.from_numpy(np.asarray(cut).copy()).permute(2, 0, 1).float() / 255


def framing(preprocess: Preprocess) -> Framing:
    return Framing(Classifier("mine", nn.Identity(), ("a",), preprocess))


@pytest.mark.parametrize("resize", [64, (64, 80)])
def test_two_measurements_are_enough_for_photos_of_all_sizes(resize: int | tuple[int, int]) -> None:
    preprocess = Preprocess(resize, 48)
    frames = framing(preprocess)
    for number, size in enumerate([(150, 200), (300, 211), (97, 400), (120, 120), (64, 64)]):
        picture = photo(*size, seed=number)
        image = preprocess(picture)
        seen = frames.seen(picture, image)
        assert seen.photo is not None
        np.testing.assert_array_equal(seen.photo, np.asarray(picture))
        assert seen.window == Geometry.of(size, resize=resize, crop=48).window
    assert (
        preprocess.calls <= 5 + 2 * 10 + 6
    )  # once each, two measurements, and what finding the colours takes


def test_a_preprocessing_that_changes_its_mind_is_measured_again() -> None:
    class Tall(Preprocess):
        def __call__(self, image: Image.Image) -> Tensor:
            self.resize = 96 if image.height > image.width else 64
            return super().__call__(image)

    preprocess = Tall(64, 48)
    frames = framing(preprocess)
    wide, tall = photo(150, 200), photo(200, 150)
    assert frames.seen(wide, preprocess(wide)).window == Geometry.of((150, 200), resize=64, crop=48).window
    assert frames.seen(tall, preprocess(tall)).window == Geometry.of((200, 150), resize=96, crop=48).window


def test_what_turns_the_photo_is_drawn_as_the_model_saw_it() -> None:
    def turned(image: Image.Image) -> Tensor:
        return Preprocess(48, 48)(image.rotate(30))

    picture = photo(150, 200)
    seen = Framing(Classifier("mine", nn.Identity(), ("a",), turned)).seen(picture, turned(picture))
    assert seen.size == (48, 48)
    assert not seen.cut


def test_large_photos_are_kept_in_the_size_in_which_they_are_drawn() -> None:
    preprocess = Preprocess(64, 48)
    picture = photo(1500, 2000)
    seen = framing(preprocess).seen(picture, preprocess(picture), side=500)
    assert seen.size == (375, 500)
    left, top, right, bottom = Geometry.of((1500, 2000), resize=64, crop=48).window
    assert seen.window == pytest.approx((left / 4, top / 4, right / 4, bottom / 4))


def test_padding_lies_outside_of_the_photo() -> None:
    preprocess = Preprocess(40, 48)
    picture = photo(200, 200)
    seen = framing(preprocess).seen(picture, preprocess(picture))
    assert seen.window == (-20.0, -20.0, 220.0, 220.0)
    assert not seen.cut


def test_a_large_photo_is_never_measured() -> None:
    """A picture of coordinates of so many pixels would take seconds, and much memory."""

    def turned(image: Image.Image) -> Tensor:
        assert image.width < 3000 or image is picture
        return Preprocess(48, 48)(image.rotate(90))

    picture = photo(2000, 3000)
    seen = Framing(Classifier("mine", nn.Identity(), ("a",), turned)).seen(picture, turned(picture))
    assert seen.size == (48, 48)
