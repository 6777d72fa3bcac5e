import numpy as np
import pytest

from clarp import render
from clarp.render import Look
from clarp.render.styles import View, smoothed


def test_wrong_values_are_refused():
    for wrong, words in (
        ({"style": "outlay"}, "style is 'outlay', expected one of overlay, pixels, heatmap, contours"),
        ({"colours": "jet"}, "colours is 'jet', expected one of vik, bam"),
        ({"smoothing": 0.3}, "smoothing is 0.3, expected a share of the longer side between 0"),
        ({"smoothing": -0.01}, "smoothing is -0.01"),
        ({"smoothing": float("nan")}, "smoothing is nan"),
        ({"opacity": 1.5}, "opacity is 1.5, expected a number between 0 and 1"),
        ({"size": 5}, "size is 5, expected 32 to 8192 pixels"),
    ):
        with pytest.raises(ValueError, match=words):
            Look(**wrong)


def test_smoothing_is_a_share_of_the_longer_side_and_each_style_has_its_own():
    heatmap = np.zeros((50, 100))
    heatmap[25, 50] = 1.0
    for look, share in (
        (Look(), 0.01),
        (Look("contours"), 0.02),
        (Look(smoothing=0.05), 0.05),
        (Look("heatmap", smoothing=0.03), 0.03),
    ):
        np.testing.assert_array_equal(render.prepared(heatmap, look), smoothed(heatmap, share))
    for raw in (Look("pixels"), Look("heatmap"), Look(smoothing=0)):
        np.testing.assert_array_equal(render.prepared(heatmap, raw), heatmap)


def test_the_caption_says_what_was_smoothed():
    heatmap = np.eye(100)
    assert View.of(heatmap, None).note == "Smoothed, sigma 1 px."
    assert View.of(heatmap, None, "pixels").note == ""


def test_opacity_is_what_the_strongest_relevance_hides():
    heatmap, photo = np.zeros((100, 100)), np.zeros((100, 100, 3), np.uint8)
    heatmap[:, 50:] = 1.0
    for share in (0.0, 0.5, 1.0):
        (panel,) = View.of(heatmap, photo, Look("pixels", opacity=share)).panels
        red = render.palette.paint(np.ones(1))[0]
        np.testing.assert_allclose(panel.pixels[10, 90], (1 - share) * 0.3 + share * red)


@pytest.mark.parametrize(("own", "drawn"), [(100, 448), (500, 500), (4000, 1024)])
def test_the_size_is_the_photos_own_within_limits(own, drawn):
    assert Look().side(own) == drawn
    assert Look(size=777).side(own) == 777
