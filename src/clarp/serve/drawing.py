"""Maps as pictures for the page and the API: the one place here where they are drawn."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarp.render import Look, Scale, Seen, layer, picture, prepared, tiles
from clarp.render.encoding import encoded
from clarp.render.legend import bar
from clarp.render.palette import Bytes
from clarp.render.scale import as_bytes
from clarp.serve import answers

HeatmapArray = NDArray[np.float32]
"""(K, H, W)."""
SIDE = 450
"""Pixels, the longer side of a map's pictures where no size is asked for."""
_Heatmap = NDArray[np.float32]  # (H, W)
_BAR = (24, 480)  # (height, width) in pixels


@dataclass(frozen=True)
class Drawn:
    """A map as it is shown, without frame and caption.

    Attributes:
        pictures: the style's panels.
        note: how to read them, or nothing.
        scale: what the colours mean.
        bar: the colours from the negative peak to the positive one, a PNG in base64; or nothing.
    """

    pictures: list[answers.PictureAnswer]
    note: str
    scale: Scale
    bar: str


def drawn(heatmaps: HeatmapArray, photo: Bytes, look: Look, *, same_scale: bool) -> list[Drawn]:
    """Draw the maps of one method.

    Args:
        heatmaps: K maps.
        photo: (H, W, 3), as the model sees it.
        look: how they are drawn. Of "overlay" the picture is the map alone, to lay over the photo: the weaker
            the more transparent. Of "versus" there are two maps, and one picture of both.
        same_scale: whether they have one scale, as those of "versus" have.

    Returns:
        K; of "versus" twice the same.
    """
    look = look if look.size else replace(look, size=SIDE)
    versus = look.style == "versus"
    one = _scale(heatmaps, look) if same_scale or versus else None
    if versus:
        first, second = heatmaps
        assert one is not None
        return [_drawn(first, photo, look, one, second)] * 2
    return [_drawn(heatmap, photo, look, one or _scale((heatmap,), look)) for heatmap in heatmaps]


def whole(
    heatmaps: HeatmapArray, photo: Seen, look: Look, caption: str, names: tuple[str, str] | None = None
) -> bytes:
    """A map as ``clarp explain`` draws it, with colour bar and caption: a PNG.

    Args:
        heatmaps: one, or of "versus" two.
        photo: what it lies over.
        look: how it is drawn.
        caption: title and small print.
        names: of the two classes of "versus".
    """
    rival = heatmaps[1] if look.style == "versus" else None
    return encoded(picture(heatmaps[0], photo, caption, look, rival=rival, names=names))


def png(picture: Image.Image) -> str:
    """A picture as a PNG in base64."""
    return base64.b64encode(encoded(picture)).decode()


def _scale(heatmaps: Iterable[_Heatmap], look: Look) -> Scale:
    """One scale over maps as they are drawn."""
    return Scale.of(*(prepared(heatmap, look) for heatmap in heatmaps))


def _drawn(heatmap: _Heatmap, photo: Bytes, look: Look, scale: Scale, rival: _Heatmap | None = None) -> Drawn:
    colours = png(Image.fromarray(as_bytes(bar(scale, look, _BAR, faded=look.style != "heatmap"))))
    if look.style == "overlay":
        alone = answers.PictureAnswer(title="", png=png(Image.fromarray(layer(heatmap, scale, look))))
        return Drawn([alone], look.smoothed_by(max(heatmap.shape)), scale, colours)
    found, note = tiles(heatmap, photo, look, scale, rival=rival)
    pictures = [answers.PictureAnswer(title=title, png=png(tile)) for title, tile in found]
    return Drawn(pictures, note, scale, "" if look.style == "region" else colours)
