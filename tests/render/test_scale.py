import numpy as np
import pytest

from clarp.render import Scale, colours


def luminance(rgb):
    """Relative luminance of sRGB bytes (IEC 61966-2-1), 0 to 1."""
    linear = np.where(rgb <= 0.04045 * 255, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


@pytest.fixture
def ramp():
    """From full blue to full red, through zero in the middle."""
    return np.linspace(-1, 1, 201)[None]


def test_sign_is_hue_and_zero_is_neutral(ramp):
    red, _, blue = colours(ramp)[0].astype(int).T
    assert (red[120:] - blue[120:] > 10).all()
    assert (blue[:80] - red[:80] > 10).all()
    assert np.ptp(colours(ramp)[0, 100].astype(int)) <= 15
    assert colours(ramp)[0, 100].min() > 220


def test_strength_is_darkness_equally_on_both_sides(ramp):
    brightness = luminance(colours(ramp)[0])
    assert (np.diff(brightness[:95]) > 0).all()
    assert (np.diff(brightness[106:]) < 0).all()
    assert abs(brightness[0] - brightness[-1]) < 0.03


def test_the_scale_is_symmetric_and_robust():
    heatmap = np.zeros((100, 100))
    heatmap[:50] = 1.0
    heatmap[0, 0] = 1000.0
    scale = Scale.of(heatmap)
    assert scale.limit == 1.0
    assert scale.basis == "99.5th percentile of |relevance|"
    assert (scale.peak, scale.full) == (1000.0, 0.001)
    assert Scale.of(-heatmap) == scale
    strength = scale.strength(heatmap)
    assert (strength[0, 0], strength[0, 1], strength[99, 99]) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("rest", [0.0, 1e-9])
def test_a_sparse_map_is_scaled_by_the_pixels_that_have_it(rest):
    """Nearly zero elsewhere, as behind a max pooling: what is rounding there must not be as red as the rest."""
    heatmap = np.full((100, 100), rest)
    heatmap[3, 4] = -2.5
    assert Scale.of(heatmap) == Scale(
        2.5, "median of |relevance| in the 1 pixels that have nearly all", "", 2.5
    )
    assert colours(heatmap)[3, 4, 2] > colours(heatmap)[3, 4, 0] + 50


def test_the_unit_does_not_matter(ramp):
    assert (colours(ramp * 1e-30) == colours(ramp)).all()
    assert (colours(ramp * 1e30) == colours(ramp)).all()


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        (np.zeros((4, 5)), "all relevance is zero"),
        (np.full((4, 5), 3.0), "the relevance is the same everywhere"),
        (np.full((4, 5), np.nan), "no value is finite (yellow)"),
        (np.array([[1.0, np.nan], [np.inf, -1.0]]), "2 of 4 values are not finite (yellow)"),
    ],
)
def test_odd_maps_are_drawn_and_labelled(values, warning):
    assert Scale.of(values).warning == warning
    picture = colours(values)
    assert picture.shape == (*values.shape, 3)
    yellow = (picture == (255, 217, 0)).all(-1)
    assert (yellow == ~np.isfinite(values)).all()


def test_zero_is_not_painted_as_anything():
    plain = colours(np.zeros((2, 2)))
    assert (plain == colours(np.array([[-1.0, 0.0, 1.0]]))[0, 1]).all()


@pytest.mark.parametrize("shape", [(3,), (0, 4), (1, 2, 3)])
def test_a_heatmap_has_two_dimensions(shape):
    with pytest.raises(ValueError, match=r"a heatmap is \(H, W\), got an array of shape"):
        colours(np.zeros(shape))
