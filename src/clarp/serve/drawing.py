"""Maps as pictures for the page and the API: the one place here where they are drawn."""

import base64
from collections.abc import Iterable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarp.render import Scale, Style, figure, layer, prepared, rasterised
from clarp.render.paper import Paper
from clarp.render.styles import Panel, View
from clarp.serve.answers import Picture

Heatmap = NDArray[np.float32]
"""(H, W)."""
_SIDE = 3.0  # inches, the longer side of a picture: 450 pixels


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
    view = View.of(heatmap, photo, look, scale)
    return [Picture(title=panel.title, png=png(_drawn(panel))) for panel in view.panels], view.note


def whole(heatmap: Heatmap, photo: NDArray[np.uint8], look: Style, caption: str) -> bytes:
    """A map in a style as ``clarp explain`` draws it, with colour bar and caption: a PNG."""
    file = BytesIO()
    rasterised(figure(heatmap, photo, caption, style=look)).save(file, "PNG")
    return file.getvalue()


def png(picture: Image.Image) -> str:
    """A picture as a PNG in base64."""
    file = BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _drawn(panel: Panel) -> Image.Image:
    rows, columns = panel.pixels.shape[:2]
    width, height = (_SIDE * side / max(rows, columns) for side in (columns, rows))
    paper = Paper(width, height)
    panel.draw(paper.axes(0, 0, width, height))
    return rasterised(paper.figure)
