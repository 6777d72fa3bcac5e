"""Maps as pictures for the page and the API: the one place here where they are drawn."""

import base64
from collections.abc import Iterable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarp.render import Look, Scale, Style, layer, picture, prepared, tiles
from clarp.serve.answers import Picture

Heatmap = NDArray[np.float32]
"""(H, W)."""
_SIDE = 450  # pixels, the longer side of a picture


def scale_of(heatmaps: Iterable[Heatmap], look: Style) -> Scale:
    """One scale over maps as they are drawn in a style."""
    return Scale.of(*(prepared(heatmap, look) for heatmap in heatmaps))


def is_smoothed(heatmap: Heatmap, look: Style) -> bool:
    """Whether a style draws the map smoothed."""
    return not np.array_equal(prepared(heatmap, look), heatmap, equal_nan=True)


def pictures(
    heatmap: Heatmap, photo: NDArray[np.uint8], look: Style, scale: Scale
) -> tuple[list[Picture], str]:
    """A map in a style, without frame and caption, and how to read it.

    Args:
        heatmap: (H, W).
        photo: (H, W, 3), as the model sees it.
        look: the style. Of "overlay" the picture is the map alone, to lay over the photo: the weaker the more transparent.
        scale: of :func:`scale_of`.
    """
    if look == "overlay":
        return [Picture(title="", png=png(Image.fromarray(layer(heatmap, scale))))], ""
    drawn, note = tiles(heatmap, photo, Look(look, size=_SIDE), scale)
    return [Picture(title=title, png=png(tile)) for title, tile in drawn], note


def whole(heatmap: Heatmap, photo: NDArray[np.uint8], look: Style, caption: str) -> bytes:
    """A map in a style as ``clarp explain`` draws it, with colour bar and caption: a PNG."""
    file = BytesIO()
    picture(heatmap, photo, caption, look).save(file, "PNG")
    return file.getvalue()


def png(picture: Image.Image) -> str:
    """A picture as a PNG in base64."""
    file = BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
