import warnings

import numpy as np
import pytest

from clarp import render
from clarp.render.palette import paint
from clarp.render.shading import faded
from clarp.render.styles import REGION, View, region, smoothed


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)


@pytest.fixture
def heatmap():
    """Speaks for the class at the top, against it at the bottom, nothing in between."""
    values = np.zeros((50, 40))
    values[5:15, 10:30], values[35:45, 10:30] = 2.0, -1.0
    return values


def drawn(values, ground, style, draw=render.picture, **more):
    """A picture in any style: with versus, of the map against its mirror image."""
    rival = values[::-1] if style == "versus" else None
    return draw(values, ground, "x", style=style, rival=rival, **more)


def neutral():
    return paint(np.zeros(1))[0]


def test_every_style_is_drawn_with_and_without_a_photo(heatmap, photo):
    for style in render.STYLES:
        for ground in (photo, None):
            assert np.asarray(drawn(heatmap, ground, style)).std() > 5
            assert np.asarray(render.rasterised(drawn(heatmap, ground, style, render.figure))).std() > 5


def test_the_heatmap_alone_has_the_neutral_colour_where_it_is_zero(heatmap, photo):
    (panel,) = View.of(heatmap, photo, "heatmap").panels
    assert (panel.pixels[25] == neutral()).all()
    assert (panel.pixels[10, 20] == paint(np.ones(1))[0]).all()
    assert (panel.pixels[40, 20] == paint(np.full(1, -0.5))[0]).all()


def test_the_signs_stand_apart_with_their_shares(heatmap, photo):
    supports, opposes = View.of(heatmap, photo, "signs").panels
    assert (supports.title, opposes.title) == (
        "speaks for: 67% of |relevance|",
        "speaks against: 33% of |relevance|",
    )
    ground = np.broadcast_to(faded(photo), (50, 40, 3))
    assert (supports.pixels[20:] == ground[20:]).all()
    assert (opposes.pixels[:30] == ground[:30]).all()
    assert supports.pixels[10, 20, 0] > supports.pixels[10, 20, 2] + 0.3  # red
    assert (
        opposes.pixels[40, 15:25, 2] - opposes.pixels[40, 15:25, 0]
    ).max() > 0.2  # blue, between the stripes


class TestRegion:
    def test_its_area_is_the_share_asked_for(self):
        values = np.random.default_rng(1).random((50, 40))
        for share in (0.01, 0.1, 0.5):
            chosen = region(values, share)
            assert chosen.sum() == round(share * values.size)
            assert values[chosen].min() >= values[~chosen].max()

    def test_ties_go_to_the_first_and_nothing_that_speaks_against_is_in_it(self, heatmap):
        assert np.flatnonzero(region(np.ones((4, 5)), 0.2)).tolist() == [0, 1, 2, 3]
        assert (region(heatmap, 0.5) == (heatmap > 0)).all()
        assert not region(-np.ones((4, 5))).any()

    def test_the_photo_shows_in_colour_there_and_nowhere_else(self, heatmap, photo):
        view = View.of(heatmap, photo, "region")
        (panel,) = view.panels
        chosen = region(smoothed(heatmap, 0.02))
        assert chosen.mean() == pytest.approx(REGION)
        assert (np.rint(panel.pixels[chosen] * 255) == photo[chosen]).all()
        assert (np.ptp(panel.pixels[~chosen], axis=-1) == 0).all()
        held = heatmap[chosen].sum() / heatmap.clip(min=0).sum()
        assert (
            f"the most relevant 10.0% of the pixels, with {held:.0%} of the positive relevance" in view.note
        )

    def test_it_says_when_there_is_less(self, photo):
        few = np.full((50, 40), -1.0)
        few[0, 0] = 100.0
        assert "Fewer than 10% speak for the class" in View.of(few, photo, "region").note
        assert "all relevance is zero" in View.of(few * 0, photo, "region").note


class TestContours:
    def test_they_are_of_the_smoothed_map_on_its_own_scale(self, heatmap, photo):
        view = View.of(heatmap, photo, "contours")
        assert view.scale == render.Scale.of(smoothed(heatmap, 0.02))
        assert len(view.panels[0].lines) == 4  # one negative level, three positive
        assert "Smoothed, sigma 1 px. Lines at ±25%, 50%, 75% of full colour" in view.note

    def test_red_lines_around_what_speaks_for_and_blue_around_what_speaks_against(self, heatmap):
        grey = np.full((50, 40, 3), 128, np.uint8)
        pixels = np.asarray(render.rasterised(render.figure(heatmap, grey, "x", style="contours"))).astype(
            int
        )
        panel = pixels[:, int(pixels.shape[1] * 0.45) : int(pixels.shape[1] * 0.8)]
        red = np.argwhere(panel[..., 0] - panel[..., 2] > 60)
        blue = np.argwhere(panel[..., 2] - panel[..., 0] > 60)
        assert len(blue) > 500
        assert len(red) > 500
        assert red[:, 0].max() < blue[:, 0].min()

    def test_smoothing_keeps_the_sum_and_is_symmetric(self):
        point = np.zeros((101, 101))
        point[50, 50] = 1.0
        found = smoothed(point, 0.02)
        assert found.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(found, found.T)
        np.testing.assert_allclose(found, found[::-1, ::-1])
        sigma = np.sqrt((found.sum(0) * (np.arange(101) - 50.0) ** 2).sum())
        assert sigma == pytest.approx(0.02 * 101, rel=0.01)


@pytest.mark.parametrize("style", render.STYLES)
@pytest.mark.parametrize("shape", [(12, 9), (1, 1), (1, 30), (40, 2)])
@pytest.mark.parametrize("value", [0.0, 3.0, -1.0, np.nan, np.inf, 5e-324, 1e308])
def test_odd_maps_are_drawn_without_a_word_from_numpy_or_matplotlib(style, shape, value):
    photo = np.full((*shape, 3), 90, np.uint8)
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        figure = drawn(np.full(shape, value), photo, style, render.figure)
        drawn(np.full(shape, value), photo, style)
        mixed = np.full(shape, value)
        mixed[0, 0] = -np.inf
        View.of(mixed, photo, style, rival=mixed if style == "versus" else None)
    assert figure.get_size_inches().min() > 0.5


@pytest.mark.parametrize("style", render.STYLES)
def test_what_is_not_finite_is_yellow_and_said(heatmap, photo, style):
    heatmap[20] = np.nan
    view = View.of(heatmap, photo, style, rival=heatmap * 0 if style == "versus" else None)
    count = "80 of 4000" if style == "versus" else "40 of 2000"
    assert f"{count} values are not finite (yellow)" in view.scale.warning + view.note
    for panel in view.panels:
        assert (panel.pixels[20] == np.float32((1.0, 0.85, 0.0))).all()


def test_one_scale_over_several_maps(heatmap):
    maps = [heatmap, 10 * heatmap]
    scale = render.Scale.of(*maps)
    assert scale.limit == 20.0
    assert scale.basis == "99.5th percentile of |relevance| over 2 maps"
    pale, strong = (View.of(values, None, "heatmap", scale).panels[0].pixels for values in maps)
    assert (strong[10, 20] == paint(np.ones(1))[0]).all()
    assert (pale[10, 20] == paint(np.full(1, 0.1))[0]).all()


def test_tiny_pictures_are_shown_as_squares():
    heatmap = np.zeros((4, 4))
    heatmap[0, 0] = 1.0
    for style in ("heatmap", "pixels"):
        pixels = np.asarray(render.picture(heatmap, None, "", render.Look(style, caption=False)))
        assert pixels.shape == (448, 448, 3)
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 2  # nothing between full red and neutral


def test_an_unknown_style():
    for draw in (render.figure, render.picture):
        with pytest.raises(ValueError, match="style is 'outlay', expected one of overlay, pixels, heatmap"):
            draw(np.zeros((2, 2)), None, "", style="outlay")
