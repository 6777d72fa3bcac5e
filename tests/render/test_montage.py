"""Slices side by side, and strips: each value stands where the note says."""

import numpy as np
import pytest

from clarp.render import Look
from clarp.render.montage import MOST, Montage


def volume(depth: int, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(depth, height, width))


def tile(flat: np.ndarray, number: int, size: tuple[int, int], columns: int) -> np.ndarray:
    height, width = size
    gap = 1 + max(size) // 50
    top, left = number // columns * (height + gap), number % columns * (width + gap)
    return flat[top : top + height, left : left + width]


def test_a_flat_map_stays_as_it_is() -> None:
    values = volume(1)[0]
    montage = Montage.of(values[None])
    assert montage.map(values, Look()) is values
    assert montage.note(Look()) == ""
    assert montage.look(Look()) == Look()


def test_every_slice_of_a_thin_volume_row_by_row() -> None:
    values = volume(6)
    montage = Montage.of(values[None])
    assert montage.shown == tuple(range(6))
    flat = montage.map(values)
    assert flat.shape == (2 * 5 + 1, 3 * 7 + 2)
    for number in range(6):
        assert np.array_equal(tile(flat, number, (5, 7), 3), values[number])
    assert flat[5].tolist() == [0.0] * 23  # the gap
    assert montage.note(Look("pixels")) == "Slices 0, 1, 2, 3, 4, 5 of 6, row by row."


def test_the_strongest_slice_of_each_part_of_the_depth() -> None:
    maps = 0.01 * np.abs(volume(40))[None].repeat(2, 0)
    strong = [2 + 5 * k for k in range(8)]
    maps[0, strong[:4]] -= 1.0  # either sign
    maps[1, strong[4:]] += 1.0
    shown = Montage.of(maps).shown
    assert len(shown) == MOST
    assert list(shown) == sorted(shown)
    assert set(strong) <= set(shown)
    assert "of each part" in Montage.of(maps).note(Look())


def test_slices_are_smoothed_one_by_one() -> None:
    values = np.zeros((4, 60, 60))
    values[0, :, -1] = 1.0
    montage, look = Montage.of(values[None]), Look("contours")
    flat = montage.map(values, look)
    assert tile(flat, 0, (60, 60), 2)[:, -3].min() > 0
    assert not tile(flat, 1, (60, 60), 2).any()
    assert montage.look(look).sigma == 0
    assert "Smoothed, sigma 1.2 px." in montage.note(look)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_volume_itself(channels: int) -> None:
    image = volume(6)[None].repeat(channels, 0)
    montage = Montage.of(volume(6)[None])
    photo = montage.photo(image)
    assert photo is not None
    assert photo.dtype == np.uint8
    assert photo.shape == (*montage.map(image[0]).shape, 3)
    low, high = image.min(), image.max()
    assert np.array_equal(
        tile(photo, 3, (5, 7), 3)[..., 0], ((image[0, 3] - low) / (high - low) * 255).astype(np.uint8)
    )
    assert (photo[5] == 255).all()


def test_a_volume_without_visible_colours() -> None:
    assert Montage.of(volume(6)[None]).photo(volume(12).reshape(2, 6, 5, 7)) is None


def test_a_signal_is_a_strip() -> None:
    values = np.linspace(-1, 1, 60)
    montage = Montage.of(values[None])
    strip = montage.map(values, Look())
    assert strip.shape == (10, 60)
    assert (strip == values).all()
    curve = montage.photo(np.stack([values, np.zeros(60)]))
    assert curve is not None
    assert curve.shape == (10, 60, 3)
    inked = curve[..., 0] < 255
    assert inked.any(0).all()  # a curve has a height everywhere
    assert inked[0, -1]
    assert inked[-1, 0]
    assert Montage.of(np.zeros((1, 3))).map(np.zeros(3)).shape == (1, 3)


def test_constant_values_are_drawn() -> None:
    montage = Montage.of(np.zeros((1, 4, 5, 7)))
    assert montage.photo(np.zeros((1, 4, 5, 7))) is not None
    assert Montage.of(np.full((1, 4, 5, 7), np.nan)).shown == (0, 1, 2, 3)
