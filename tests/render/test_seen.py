"""Where a map lies in a photo."""

import numpy as np
import pytest

from clarp.render import Seen


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)


def test_a_map_lies_where_the_model_looked(photo):
    seen = Seen(photo, (30.0, 10.0, 70.0, 50.0), (60, 100))
    placed = seen.placed(np.full((20, 20), 0.5))
    expected = np.zeros((60, 100))
    expected[10:50, 30:70] = 0.5
    assert (placed == expected).all()
    assert (seen.inside() == (expected > 0)).all()
    assert seen.cut


def test_a_map_of_the_photos_size_is_not_touched(photo):
    values = np.random.default_rng(1).uniform(-1, 1, (60, 100))
    seen = Seen.of(photo, (60, 100))
    assert (seen.placed(values) == values.astype(np.float32)).all()
    assert not seen.cut
    assert seen.at(100) is seen


def test_what_is_padded_is_not_drawn(photo):
    """A window larger than the photo: the map's border shows what the photo doesn't have."""
    seen = Seen(photo, (-20.0, -10.0, 120.0, 70.0), (60, 100))
    values = np.zeros((80, 140))
    values[:10], values[10:70, 20:120] = -1.0, 1.0
    assert (seen.placed(values) == 1.0).all()
    assert seen.inside().all()
    assert not seen.cut


def test_squares_stay_squares_and_other_maps_are_between_their_pixels(photo):
    values = np.array([[0.0, 1.0], [-1.0, 0.0]])
    seen = Seen(photo, (0.0, 0.0, 60.0, 60.0), (60, 100))
    assert set(np.unique(seen.placed(values, squares=True))) == {-1.0, 0.0, 1.0}
    between = seen.placed(values)
    assert len(np.unique(between)) > 50
    assert abs(between).max() <= 1.0


def test_not_finite_values_stay_where_they_are(photo):
    values = np.zeros((6, 6))
    values[2, 3] = np.nan
    placed = Seen(photo, (20.0, 0.0, 80.0, 60.0), (60, 100)).placed(values)
    missing = np.argwhere(np.isnan(placed))
    assert (missing.min(0) == (20, 50)).all()
    assert (missing.max(0) == (29, 59)).all()


def test_another_size_keeps_the_place(photo):
    seen = Seen(photo, (30.0, 10.0, 70.0, 50.0), (60, 100)).at(200)
    assert seen.size == (120, 200)
    assert seen.window == (60.0, 20.0, 140.0, 100.0)
    squares = Seen.of(photo[:6, :10], (6, 10)).at(99, squares=True)
    assert squares.size == (54, 90)
    assert (squares.photo[::9, ::9] == photo[:6, :10]).all()


def test_the_frame_dims_what_the_model_did_not_see(photo):
    seen = Seen(photo, (30.0, 10.0, 70.0, 50.0), (60, 100))
    framed = seen.framed(photo / 255, 0.4)
    np.testing.assert_allclose(framed[5], 0.4 * photo[5] / 255)
    assert (framed[12:48, 32:68] == photo[12:48, 32:68] / 255).all()
    assert (framed[10, 30:70] == 1).all()
    assert (framed[49, 30:70] == 1).all()
    assert (framed[10:50, 30] == 1).all()
    assert (framed[10:50, 69] == 1).all()
    whole = Seen.of(photo, (60, 100))
    assert (whole.framed(photo / 255, 0.4) == photo / 255).all()


def test_a_box_of_the_map_in_the_photo(photo):
    seen = Seen(photo, (30.0, 10.0, 70.0, 50.0), (60, 100))
    assert seen.box((5, 0, 10, 20), (20, 20)) == (40.0, 10.0, 50.0, 50.0)


def test_what_was_cropped_is_what_the_model_saw(photo):
    cropped = Seen(photo, (30.0, 10.0, 70.0, 50.0), (60, 100)).cropped()
    assert (cropped.photo == photo[10:50, 30:70]).all()
    assert not cropped.cut


@pytest.mark.parametrize(
    "window", [(99.9, 59.9, 100.0, 60.0), (0.0, 0.0, 0.2, 0.2), (40.4, 20.0, 40.6, 60.0)]
)
def test_the_smallest_windows_have_a_pixel(photo, window):
    seen = Seen(photo, window, (60, 100))
    assert seen.inside().any()
    assert np.abs(seen.placed(np.ones((3, 3)))).max() == 1.0
