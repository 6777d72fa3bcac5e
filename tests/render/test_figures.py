import gc
import threading
import weakref

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf

from clarp import render


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def blobs():
    """Red top left, blue bottom right."""
    heatmap = np.zeros((64, 64))
    heatmap[8:24, 8:24], heatmap[40:56, 40:56] = 1, -1
    return heatmap


def drawn(heatmap, photo, caption):
    return render.rasterised(render.figure(heatmap, photo, caption))


def share(picture, first, second):
    """The share of pixels whose one channel is far above another."""
    pixels = np.asarray(picture).astype(int)
    return (pixels[..., first] - pixels[..., second] > 60).mean()


def test_red_and_blue_stand_where_the_relevance_is():
    grey = np.full((64, 64, 3), 128, np.uint8)
    pixels = np.asarray(drawn(blobs(), grey, "x")).astype(int)
    warm = np.argwhere(pixels[..., 0] - pixels[..., 2] > 60)
    cold = np.argwhere(pixels[..., 2] - pixels[..., 0] > 60)
    # Leave out the colour bar, on the right of everything.
    panel = pixels.shape[1] * 0.8
    warm, cold = warm[warm[:, 1] < panel], cold[cold[:, 1] < panel]
    assert (warm.mean(0) < cold.mean(0)).all()
    assert len(warm) > 10_000
    assert 0.4 * len(warm) < len(cold) < 0.8 * len(warm)  # striped


def test_without_relevance_the_grey_photo_shows_through(photo):
    picture = np.asarray(drawn(np.zeros((64, 64)), photo, "x")).astype(int)
    height, width, _ = picture.shape
    right = picture[height // 3 : height // 2, int(width * 0.5) : int(width * 0.8)]
    assert np.ptp(right, axis=-1).max() <= 1  # grey
    assert right.std() > 5  # but a picture


def test_size_and_aspect_follow_the_photo(photo):
    tall = drawn(np.zeros((64, 32)), photo[:, :32], "x")
    wide = drawn(np.zeros((32, 64)), photo[:32], "x")
    alone = drawn(np.zeros((64, 64)), None, "x")
    assert tall.width < wide.width
    assert tall.height > wide.height
    assert alone.width < wide.width
    assert alone.mode == "RGB"


def test_a_panel_has_the_proportions_of_its_map(photo):
    for height, width in ((64, 32), (32, 64), (48, 64)):
        figure = render.figure(np.zeros((height, width)), photo[:height, :width], "x")
        box = figure.axes[0].get_window_extent()
        assert box.height / box.width == pytest.approx(height / width, rel=0.02)
        assert max(box.height, box.width) == pytest.approx(
            max(render.figure(np.zeros((64, 64)), photo, "x").axes[0].get_window_extent().size), rel=0.02
        )


def test_every_line_of_the_caption_is_drawn_inside_the_picture(photo):
    short = drawn(blobs(), photo, "title")
    title = "many words of a title " * 12 + "WIDE CAPITALS " * 10
    long = drawn(blobs(), photo, f"{title}\n{'small print ' * 40}\n{'W' * 300}")
    assert long.width == short.width
    assert long.height > short.height + 100
    pixels = np.asarray(long)
    border = np.concatenate(
        [edge.reshape(-1, 3) for edge in (pixels[:10], pixels[-10:], pixels[:, :10], pixels[:, -10:])]
    )
    assert (border == 255).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0, np.nan, np.inf])
def test_maps_without_any_contrast_are_safe(photo, value):
    with np.errstate(all="raise"):
        assert drawn(np.full((64, 64), value), photo, "").width > 100


def test_not_finite_pixels_are_yellow(photo):
    heatmap = blobs()
    heatmap[30:34] = np.nan
    picture = drawn(heatmap, photo // 4 * 0 + 128, "x")
    assert share(picture, 1, 2) > 0.01  # green far above blue: only yellow is


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((64, 63, 3), np.uint8), ((64, 64), np.uint8), ((64, 64, 4), np.uint8), ((64, 64, 3), float)],
)
def test_a_photo_that_does_not_fit(shape, dtype):
    with pytest.raises(ValueError, match=r"the photo must be \(64, 64, 3\) bytes like the heatmap"):
        drawn(blobs(), np.zeros(shape, dtype), "x")


def test_no_global_state_and_the_same_picture_from_every_thread(photo):
    before = dict(mpl.rcParams)
    pictures = []
    threads = [
        threading.Thread(target=lambda: pictures.append(np.asarray(drawn(blobs(), photo, "x"))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pictures) == 3
    assert all((picture == pictures[0]).all() for picture in pictures)
    assert dict(mpl.rcParams) == before


def test_figures_are_gone_when_nobody_holds_them(photo):
    figure = render.figure(blobs(), photo, "x", style="contours")
    render.rasterised(figure)
    gone = weakref.ref(figure)
    del figure
    gc.collect()
    assert gone() is None
    assert not Gcf.figs
