"""Colours that colour-blind eyes tell apart, too."""

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from clarp.render import PALETTES, Look
from clarp.render import palette as palette_module
from clarp.render.palette import mix, paint
from clarp.render.shading import _shades, blend

SIGHT = {
    "usual": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Linear RGB as it is seen: Machado, Oliveira and Fernandes 2009, severity 1."""


def differences(colours, sight):
    """CIEDE2000 between (n, 3) sRGB colours as eyes see them, (n, n); 1 is just noticeable."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    linear = (linear @ np.array(SIGHT[sight]).T).clip(0, 1)
    seen = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    lab = rgb2lab(seen[None])[0]
    return deltaE_ciede2000(lab[:, None], lab[None])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("ground", [0.3, 0.65, 1.0])
@pytest.mark.parametrize(("strength", "apart", "from_ground"), [(0.5, 20, 10), (1.0, 40, 15)])
def test_for_and_against_and_nothing_are_told_apart(sight, ground, strength, apart, from_ground):
    """On the darkest, the middle and the lightest grey that a photo has."""
    colours = blend(np.array([[strength, -strength, 0.0]]), ground)[0]
    found = differences(colours, sight)
    assert found[0, 1] >= apart
    assert found[:2, 2].min() >= from_ground


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("colours", PALETTES)
def test_the_ends_of_every_palette_are_told_apart(sight, colours):
    painted = blend(np.array([[1.0, -1.0, 0.0]]), 0.65, Look(colours=colours))[0]
    found = differences(painted, sight)
    assert found[0, 1] >= 30
    assert found[:2, 2].min() >= 25


@pytest.mark.parametrize("sight", SIGHT)
def test_two_classes_and_both_are_told_apart(sight):
    strengths = (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)
    found = differences(np.array([mix(np.array(a), np.array(b)) for a, b in strengths]), sight)
    assert found[np.triu_indices(3, 1)].min() >= 12


def test_of_two_classes_the_difference_is_the_hue():
    shares = np.linspace(0, 1, 101)
    colours = mix(shares, 1 - shares)
    assert (colours[50] == 1).all()  # both
    assert (np.diff(colours[50:, 2]) < 0).all()  # towards orange
    assert (np.diff(colours[:50, 1]) > 0).all()  # from violet
    np.testing.assert_allclose(mix(np.array(0.2), np.array(0.1)), mix(np.array(0.8), np.array(0.4)))


@pytest.mark.parametrize("name", PALETTES)
def test_the_colours_are_those_of_the_package(name):
    cm = pytest.importorskip("cmcrameri.cm")
    expected = getattr(cm, name)(np.linspace(0.09, 0.91, 511))[:, :3].astype(np.float32)
    assert np.array_equal(palette_module._table(name), expected)


def test_what_is_not_finite_has_a_colour_of_its_own():
    for name in PALETTES:
        assert (paint(np.array([np.nan]), name)[0] == np.float32((1.0, 0.85, 0.0))).all()


def test_a_server_asked_for_many_opacities_does_not_keep_them_all():
    for percent in range(100):
        blend(np.zeros((2, 2)), 0.5, Look(opacity=percent / 100))
    assert _shades.cache_info().currsize <= 8
