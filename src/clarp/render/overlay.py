"""The picture that people look at: the photo, and beside it the heatmap over the faded photo."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from clarp.render.scale import Bytes, Floats, Scale, checked, paint

_DPI = 150
_PANEL = 4.0  # inches, the longer side of a panel
_MARGIN, _GAP, _BAR = 0.2, 0.15, 0.16  # inches
_NUMBERS = 1.15  # inches right of the colour bar, for its numbers
_LINE = 0.24  # inches
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def overlay(heatmap: ArrayLike, photo: Bytes | None, caption: str) -> Image.Image:
    """Draw a heatmap over its photo.

    Left the photo; right the same photo, grey and faded, under the relevance: red speaks for the class, blue
    against it, the stronger the more opaque, and where there is no relevance the grey photo shows
    through. A colour bar gives the numbers and says how the scale was chosen.

    Args:
        heatmap: (H, W) relevance.
        photo: (H, W, 3) bytes, RGB, as the model saw it; None to draw the heatmap alone, on white.
        caption: what is explained; its first line is the title, more lines are small print.

    Returns:
        An RGB picture.

    Raises:
        ValueError: the heatmap is not (H, W), or the photo's shape or type does not fit.
    """
    values = checked(heatmap)
    rows, columns = values.shape
    if photo is not None and (photo.shape != (rows, columns, 3) or photo.dtype != np.uint8):
        raise ValueError(
            f"the photo must be ({rows}, {columns}, 3) bytes like the heatmap, got {photo.shape} of {photo.dtype}."
        )
    scale = Scale.of(values)
    title, *small_print = caption.splitlines() or [""]
    panels = [_blend(scale.strength(values), None if photo is None else _faded(photo))]
    if photo is not None:
        panels.insert(0, photo / 255)

    width, height = _PANEL * columns / max(rows, columns), _PANEL * rows / max(rows, columns)
    picture_width = len(panels) * (width + _GAP) + _BAR + _NUMBERS + 2 * _MARGIN
    titles = textwrap.wrap(title, int(picture_width * 9.5)) or [""]
    prints = [
        part
        for line in [*small_print, _legend(scale)]
        for part in textwrap.wrap(line, int(picture_width * 12.5))
    ]
    head, foot = _LINE * 1.15 * len(titles) + 0.1, _LINE * 0.85 * len(prints) + 0.1
    figure = Figure((picture_width, height + head + foot + 2 * _MARGIN), dpi=_DPI, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)

    def axes(left: float, width: float) -> Axes:
        whole_width, whole_height = figure.get_size_inches()
        bottom = _MARGIN + foot
        return figure.add_axes(
            (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
        )

    left = _MARGIN
    for panel in panels:
        frame = axes(left, width)
        frame.imshow(panel, interpolation="bilinear", aspect="auto")
        frame.set_axis_off()
        left += width + _GAP
    _draw_bar(axes(left, _BAR), scale, faded=photo is not None)
    whole_height = figure.get_size_inches()[1]
    edge = _MARGIN / picture_width
    figure.text(edge, 1 - _MARGIN / whole_height, "\n".join(titles), va="top", size=13, weight="bold")
    figure.text(edge, _MARGIN / whole_height, "\n".join(prints), va="bottom", size=9, color="0.25")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _faded(photo: Bytes) -> Floats:
    """The photo in pale greys, (H, W, 1) within 0.45 to 1: recognisable, and colours stand out on it."""
    faded: Floats = 0.45 + 0.55 * (photo @ np.array(_LUMA))[..., None] / 255
    return faded


def _blend(strength: Floats, ground: Floats | float | None) -> Floats:
    """Relevance over a ground; the opacity is the root of its strength, so that weak relevance is seen."""
    painted = paint(strength)
    if ground is None:
        return painted
    opacity = np.sqrt(np.abs(np.nan_to_num(strength, nan=1.0)))[..., None]
    blended: Floats = (1 - opacity) * ground + opacity * painted
    return blended


def _legend(scale: Scale) -> str:
    scaled = [] if scale.basis == "no scale" else [f"Full colour at ±{scale.limit:.3g} ({scale.basis})."]
    noted = [f"Note: {scale.warning}."] if scale.warning else []
    return " ".join(scaled + noted)


def _draw_bar(bar: Axes, scale: Scale, *, faded: bool) -> None:
    """The colour bar, blended like the map itself, over the middle of the faded greys."""
    strength = np.linspace(1, -1, 401)[:, None]
    bar.imshow(_blend(strength, 0.8 if faded else None), aspect="auto", extent=(0, 1, -1, 1))
    bar.set_xticks([])
    bar.yaxis.tick_right()
    ticks = (-1.0, -0.5, 0.0, 0.5, 1.0)
    ends = {1.0: "\nspeaks for", -1.0: "\nspeaks against"}
    labels = [f"{tick * scale.limit:+.2g}".replace("-", "−") if tick else "0" for tick in ticks]
    bar.set_yticks(
        ticks, [label + ends.get(tick, "") for tick, label in zip(ticks, labels, strict=True)], size=8
    )
    bar.tick_params(length=2)
