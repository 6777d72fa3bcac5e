"""The figure of one map: as :mod:`~clarp.render.canvas` draws it, with words and lines as shapes."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from clarp.render.legend import FRAME, bar, legend, ticks
from clarp.render.look import WITH_PHOTO, Look, Style
from clarp.render.palette import Bytes
from clarp.render.paper import DPI, GAP, MARGIN, PRINT, TITLE, Paper, wrapped
from clarp.render.scale import Scale
from clarp.render.seen import Seen
from clarp.render.styles import CRISP, Panel, laid, photo_panel

_PANEL = 4.0  # inches, the longer side of a panel
_THIN = 0.5  # inches, the least shorter side
BAR = 0.16  # inches
_LOW_BAR = 1.3  # inches, with room for three numbers only
NUMBERS = 1.15  # inches right of the colour bar, for its numbers


def figure(
    heatmap: ArrayLike,
    photo: Seen | Bytes | None,
    caption: str,
    *,
    style: Look | Style = "overlay",
    scale: Scale | None = None,
    rival: ArrayLike | None = None,
    names: tuple[str, str] | None = None,
) -> Figure:
    """Draw a heatmap.

    Red speaks for the class, blue against it. A colour bar gives percent of the peak, the largest ``|R|``
    that is drawn, and the caption says where colour is full and what is odd about the map. The styles:

    - "overlay": the photo, and the smoothed map over the same photo in greys: the stronger the relevance, the
      more opaque, and where there is none the photo shows through. What speaks against the class is striped
      too.
    - "pixels": likewise the raw map, without stripes.
    - "heatmap": the raw map alone.
    - "contours": the photo, and lines of equal relevance on the faded photo, of the smoothed map.
    - "signs": the photo, what speaks for the class, and what speaks against it, with their shares of ``|R|``.
    - "region": the photo in colour where the most relevant tenth of the smoothed map lies, faded elsewhere.
    - "versus": what speaks for either of two classes: the brightness says how strongly, the hue for which.

    Args:
        heatmap: (h, w) relevance.
        photo: (h, w, 3) bytes, RGB, as the model saw it; or the whole photo with what the model saw of it, of
            which the rest is dimmed; None to draw the heatmap alone, on white.
        caption: what is explained; its first line is the title, more lines are small print.
        style: a style, or a whole look.
        scale: one over several maps; None: the map's own.
        rival: (h, w), the map of the second class, for the style "versus".
        names: the names of the two classes, for the style "versus".

    Raises:
        ValueError: the heatmap is not (h, w), the photo's shape or type does not fit, or no such style.
    """
    look = Look.of(style)
    seen, view = laid(heatmap, photo, look, scale, rival=rival)
    panels = list(view.panels)
    original = photo_panel(seen) if look.style in WITH_PHOTO and look.caption else None
    if original is not None:
        panels.insert(0, original)
    rows, columns = panels[0].pixels.shape[:2]
    width, height = (max(_THIN, _PANEL * side / max(rows, columns)) for side in (columns, rows))
    barred = look.style != "region" and look.caption
    paper_width = len(panels) * (width + GAP) - GAP + 2 * MARGIN + (GAP + BAR + NUMBERS if barred else 0)
    title, *small_print = caption.splitlines() if look.caption and caption else [""]
    room = paper_width - 2 * MARGIN
    framed, meaning = FRAME if seen.cut else "", legend(view.scale) if barred else ""
    told = [*small_print, framed, view.note, meaning] if look.caption else []
    titles, prints = wrapped([title], room, 13, "bold"), wrapped(told, room, 9)
    over = 0.24 if any(panel.title for panel in panels) else 0.0
    head, foot = TITLE * max(1, len(titles)) + 0.1, PRINT * len(prints) + 0.15

    paper = Paper(paper_width, height + head + over + foot + 2 * MARGIN)
    top, left = MARGIN + head + over, MARGIN
    for panel in panels:
        draw_panel(panel, paper.axes(left, top, width, height))
        paper.write(left, top - 0.06, panel.title, size=9, va="bottom")
        left += width + GAP
    if barred:
        draw_bar(paper.axes(left, top, BAR, height), view.scale, look, names, faded=seen.photo is not None)
    paper.write(MARGIN, MARGIN, "\n".join(titles), size=13, weight="bold")
    paper.write(MARGIN, paper.height - MARGIN, "\n".join(prints), size=9, color="0.25", va="bottom")
    return paper.figure


def draw_panel(panel: Panel, axes: Axes) -> None:
    """Fill a rectangle with a panel."""
    rows, columns = panel.pixels.shape[:2]
    interpolation = "nearest" if max(rows, columns) <= CRISP else "bilinear"
    axes.imshow(panel.pixels, interpolation=interpolation, aspect="auto")
    axes.set_axis_off()
    for line in panel.lines:
        axes.plot(*line.points.T, color=line.colour, linewidth=line.weight)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


def draw_bar(
    axes: Axes, scale: Scale, look: Look, names: tuple[str, str] | None = None, *, faded: bool
) -> None:
    """The colour bar, upright, drawn like the map itself."""
    colours = bar(scale, look, (20, 401), faded=faded and look.style != "heatmap")
    axes.imshow(colours.transpose(1, 0, 2)[::-1], aspect="auto", extent=(0, 1, -1, 1))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    low = axes.get_window_extent().height < _LOW_BAR * DPI
    marked = [(place, words) for place, words in ticks(scale, look, names) if not low or abs(place) != 0.5]
    axes.set_yticks(
        [place for place, _ in marked],
        [words.replace(" ", "\n", 1) if "%" in words else words for _, words in marked],
        size=8,
    )
    axes.tick_params(length=2)
