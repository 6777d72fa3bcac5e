import threading

import numpy as np
import pytest
from PIL import Image

from clarp.render import Look, Scale, Seen, picture
from clarp.render.legend import bar, ticks
from clarp.render.letters import Pen

CAPTION = "title\nsmall print"


@pytest.fixture
def photo():
    return np.full((200, 200, 3), 128, np.uint8)


@pytest.fixture
def heatmap():
    """Speaks for the class at the top left, against it at the bottom right."""
    values = np.zeros((200, 200))
    values[30:80, 30:80], values[120:170, 120:170] = 1.0, -1.0
    return values


def alone(heatmap, photo, **look):
    return np.asarray(picture(heatmap, photo, "", Look(caption=False, **look))).astype(int)


def test_red_and_blue_stand_where_the_relevance_is(heatmap, photo):
    pixels = alone(heatmap, photo, size=400)
    assert pixels.shape == (400, 400, 3)
    red, blue = pixels[..., 0] - pixels[..., 2] > 60, pixels[..., 2] - pixels[..., 0] > 40
    assert red[70:150, 70:150].all()
    assert blue[250:330, 250:330].mean() > 0.45  # between the stripes
    assert not red[200:].any()
    assert not blue[:200].any()


def test_what_speaks_against_is_striped_and_what_speaks_for_is_not(heatmap, photo):
    pixels = alone(heatmap, photo, size=400)
    assert len(np.unique(pixels[100:130, 100:130].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(pixels[280:310, 280:310].reshape(-1, 3), axis=0)) == 2
    plain = alone(heatmap, photo, size=400, style="pixels")
    assert len(np.unique(plain[280:310, 280:310].reshape(-1, 3), axis=0)) == 1


def test_without_relevance_the_photo_shows_in_greys():
    photo = np.random.default_rng(0).integers(0, 256, (448, 448, 3), dtype=np.uint8)
    pixels = alone(np.zeros((448, 448)), photo)
    assert np.ptp(pixels, axis=-1).max() <= 1
    assert pixels.std() > 10


def test_the_whole_photo_is_drawn_and_the_rest_is_dim(heatmap):
    photo = np.full((300, 600, 3), 128, np.uint8)
    seen = Seen(photo, (200.0, 50.0, 400.0, 250.0), (300, 600))
    pixels = alone(heatmap, seen)
    assert pixels.shape == (300, 600, 3)  # its own resolution and shape
    assert (pixels[20:40] < pixels[150, 300]).all()
    assert (pixels[50, 200:400] == 255).all()
    assert (pixels[90, 240] - pixels[90, 240, 2])[0] > 60


def test_layout_size_and_margins(heatmap, photo):
    square = picture(heatmap, photo, CAPTION)
    assert square.mode == "RGB"
    assert square.width > 2 * 448  # beside each other
    seen = Seen(np.full((300, 600, 3), 128, np.uint8), (150.0, 0.0, 450.0, 300.0), (300, 600))
    wide = picture(heatmap, seen, CAPTION)
    assert wide.height > 2 * 300  # one under the other
    assert wide.width < 700
    assert picture(heatmap, None, CAPTION).width < 500  # no photo
    for drawn in (square, wide):
        pixels = np.asarray(drawn)
        edges = (pixels[:8], pixels[-8:], pixels[:, :8], pixels[:, -8:])
        assert all((edge == 255).all() for edge in edges)


def test_long_captions_make_it_higher_and_not_wider(heatmap, photo):
    short = picture(heatmap, photo, CAPTION)
    title = "many words of a title " * 12 + "WIDE CAPITALS " * 10
    long = picture(heatmap, photo, f"{title}\n{'small print ' * 40}\n{'W' * 300}")
    assert long.width == short.width
    assert long.height > short.height + 100
    assert (np.asarray(long)[:, -8:] == 255).all()


def test_every_letter_is_drawn_or_has_its_code(heatmap, photo):
    plain = picture(heatmap, photo, "a")
    for title in ("猫 кошка $x_1$", "bell\a", "\U0010ffff", ""):
        assert picture(heatmap, photo, title).width == plain.width
    pen, drawn = Pen(20), Image.new("L", (300, 40), 255)
    assert pen.length("AB") > pen.length("A") > 0
    assert pen.wrapped(["bell\a"], 300) == ["bell[U+0007]"]
    del drawn


def test_the_bar_is_in_percent_of_the_peak():
    scale = Scale(limit=2.0, basis="x", warning="", peak=4.0)
    colours = bar(scale, Look("pixels"), (1, 401), faded=False)[0]
    assert (colours[300:] == colours[400]).all()  # full from 50 %
    assert (colours[250] != colours[300]).any()
    assert (colours[:100] == colours[0]).all()
    assert dict(ticks(scale, Look()))[1.0] == "+100% speaks for"
    assert ticks(Scale.of(np.zeros((2, 2))), Look()) == [(0.0, "0")]
    assert dict(ticks(scale, Look("versus"), ("cat", "dog"))) == {1.0: "cat", -1.0: "dog", 0.0: "both"}


def test_two_classes_at_once(photo):
    cat, dog = np.zeros((200, 200)), np.zeros((200, 200))
    cat[20:60], dog[80:120] = 1.0, 1.0
    cat[140:180], dog[140:180] = 1.0, 1.0
    cat[190:] = -1.0
    look = Look("versus", caption=False, size=400, smoothing=0)
    pixels = np.asarray(picture(cat, photo, "", look, rival=dog)).astype(int)
    orange, violet, both, none = (pixels[row, 200] for row in (80, 200, 320, 260))
    assert orange[0] - orange[2] > 150
    assert (pixels[180:220, 180:220, 2] - pixels[180:220, 180:220, 1]).max() > 100
    assert violet.sum() < both.sum()
    assert both.min() > 240
    assert none.max() < 150
    assert (pixels[390] == none).all()  # what speaks against is not shown
    whole = picture(cat, photo, CAPTION, "versus", rival=dog, names=("cat", "dog"))
    assert whole.width > 800


def test_versus_takes_two_maps_and_the_others_one(heatmap, photo):
    with pytest.raises(ValueError, match="versus draws the maps of two classes"):
        picture(heatmap, photo, "", "versus")
    with pytest.raises(ValueError, match="versus draws the maps of two classes"):
        picture(heatmap, photo, "", rival=heatmap)
    with pytest.raises(ValueError, match=r"rival is \(2, 2\), expected the heatmap's \(200, 200\)"):
        picture(heatmap, photo, "", "versus", rival=np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((64, 63, 3), np.uint8), ((64, 64), np.uint8), ((64, 64, 4), np.uint8), ((64, 64, 3), float)],
)
def test_a_photo_that_does_not_fit(shape, dtype):
    with pytest.raises(ValueError, match=r"the photo must be \(64, 64, 3\) bytes like the heatmap"):
        picture(np.zeros((64, 64)), np.zeros(shape, dtype), "x")


def test_the_same_picture_from_every_thread(heatmap, photo):
    pictures = []
    threads = [
        threading.Thread(target=lambda: pictures.append(np.asarray(picture(heatmap, photo, "кот\n猫"))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pictures) == 8
    assert all((drawn == pictures[0]).all() for drawn in pictures)
