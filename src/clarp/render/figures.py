"""The picture of one map: the photo, and beside it the heatmap, with colour bar and caption."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from clarp.render.paper import DPI, GAP, MARGIN, PRINT, TITLE, Paper, rasterised, wrapped
from clarp.render.scale import Bytes, Scale, number
from clarp.render.styles import GROUND, Panel, Style, View, blend

_PANEL = 4.0  # inches, the longer side of a panel
_THIN = 0.5  # inches, the least shorter side
BAR = 0.16  # inches
_LOW_BAR = 1.3  # inches, with room for three numbers only
NUMBERS = 1.15  # inches right of the colour bar, for its numbers


def overlay(heatmap: ArrayLike, photo: Bytes | None, caption: str) -> Image.Image:
    """Draw a heatmap over its photo: :func:`figure` in its first style, as an RGB picture."""
    return rasterised(figure(heatmap, photo, caption))


def figure(
    heatmap: ArrayLike,
    photo: Bytes | None,
    caption: str,
    *,
    style: Style = "overlay",
    scale: Scale | None = None,
) -> Figure:
    """Draw a heatmap.

    Red speaks for the class, blue against it. A colour bar gives the numbers, and the caption says how the scale was
    chosen and what is odd about the map. The styles:

    - "overlay": left the photo; right the same photo, grey and faded, under the relevance: the stronger the more
      opaque, and where there is no relevance the grey photo shows through.
    - "heatmap": the map alone.
    - "contours": left the photo; right lines of equal relevance on the faded photo, of the smoothed map.
    - "signs": the photo, what speaks for the class, and what speaks against it, with their shares of ``|R|``.
    - "region": the photo in colour where the most relevant tenth of the smoothed map lies, faded elsewhere.

    Args:
        heatmap: (H, W) relevance.
        photo: (H, W, 3) bytes, RGB, as the model saw it; None to draw the heatmap alone, on white.
        caption: what is explained; its first line is the title, more lines are small print.
        style: see above.
        scale: one over several maps; None: the map's own.

    Raises:
        ValueError: the heatmap is not (H, W), the photo's shape or type does not fit, or no such style.
    """
    view = View.of(heatmap, photo, style, scale)
    panels = list(view.panels)
    if photo is not None and style in {"overlay", "contours", "signs"}:
        panels.insert(0, Panel(photo / 255))
    rows, columns = panels[0].pixels.shape[:2]
    width, height = (max(_THIN, _PANEL * side / max(rows, columns)) for side in (columns, rows))
    barred = style != "region"
    paper_width = len(panels) * (width + GAP) - GAP + 2 * MARGIN + (GAP + BAR + NUMBERS if barred else 0)
    title, *small_print = caption.splitlines() or [""]
    room = paper_width - 2 * MARGIN
    titles = wrapped([title], room, 13, "bold")
    prints = wrapped([*small_print, view.note, legend(view.scale) if barred else ""], room, 9)
    over = 0.24 if any(panel.title for panel in panels) else 0.0
    head, foot = TITLE * max(1, len(titles)) + 0.1, PRINT * len(prints) + 0.15

    paper = Paper(paper_width, height + head + over + foot + 2 * MARGIN)
    top, left = MARGIN + head + over, MARGIN
    for panel in panels:
        panel.draw(paper.axes(left, top, width, height))
        paper.write(left, top - 0.06, panel.title, size=9, va="bottom")
        left += width + GAP
    if barred:
        draw_bar(
            paper.axes(left, top, BAR, height), view.scale, faded=photo is not None and style != "heatmap"
        )
    paper.write(MARGIN, MARGIN, "\n".join(titles), size=13, weight="bold")
    paper.write(MARGIN, paper.height - MARGIN, "\n".join(prints), size=9, color="0.25", va="bottom")
    return paper.figure


def legend(scale: Scale) -> str:
    """What full colour means, how that was chosen, and what is odd."""
    scaled = [] if scale.basis == "no scale" else [f"Full colour at ±{number(scale.limit)} ({scale.basis})."]
    noted = [f"Note: {scale.warning}."] if scale.warning else []
    return " ".join(scaled + noted)


def draw_bar(bar: Axes, scale: Scale, *, faded: bool) -> None:
    """The colour bar, blended like the map itself, over the middle of the faded greys."""
    strength = np.linspace(1, -1, 401)[:, None]
    bar.imshow(blend(strength, GROUND if faded else None), aspect="auto", extent=(0, 1, -1, 1))
    bar.set_xticks([])
    bar.yaxis.tick_right()
    low = bar.get_window_extent().height < _LOW_BAR * DPI
    ticks = (-1.0, 0.0, 1.0) if low else (-1.0, -0.5, 0.0, 0.5, 1.0)
    ends = {1.0: " for", -1.0: " against"} if low else {1.0: "\nspeaks for", -1.0: "\nspeaks against"}
    labels = [f"{'+' if tick > 0 else ''}{number(tick * scale.limit, 2)}" for tick in ticks]
    words = [label + ends.get(tick, "") for tick, label in zip(ticks, labels, strict=True)]
    bar.set_yticks(ticks, words, size=8)
    bar.tick_params(length=2)
