"""Many maps on one sheet: a row for each method or photo, a column for each class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from clarp.geometry import Box
from clarp.render.figures import BAR, NUMBERS, draw_bar, draw_panel
from clarp.render.look import Look, Style
from clarp.render.palette import Bytes, Floats
from clarp.render.paper import DPI, GAP, MARGIN, PRINT, TITLE, Paper, wrapped
from clarp.render.scale import Scale, oddity
from clarp.render.seen import Seen
from clarp.render.styles import View, laid, photo_panel, prepared

_CELL = 2.3  # inches, the longer side of a map
_PART = 0.18  # inches over a map, for what a part of it shows
_THIN = 0.4  # inches, the least shorter side


@dataclass(frozen=True, eq=False)
class Cell:
    """One map.

    Attributes:
        heatmap: (H, W) relevance.
        title: what stands over it, a line.
        note: what stands under it, a line.
        boxes: (left, top, right, bottom) in the map's pixel edges, drawn over it.
        rival: (H, W), the map of the second class, for the style "versus".
    """

    heatmap: ArrayLike
    title: str = ""
    note: str = ""
    boxes: tuple[Box, ...] = ()
    rival: ArrayLike | None = None

    def prepared(self, look: Look) -> list[Floats]:
        """The maps that are drawn."""
        return [prepared(values, look) for values in (self.heatmap, self.rival) if values is not None]


@dataclass(frozen=True, eq=False)
class Row:
    """Maps that share one scale.

    Attributes:
        title: what the row is of.
        photo: (H, W, 3) bytes, what the maps are of; or a photo with the part that the model saw; None: white
            ground.
        cells: the maps, all of the photo's size.
        shows_photo: whether the photo itself stands left of the maps.
    """

    title: str
    photo: Seen | Bytes | None
    cells: tuple[Cell, ...]
    shows_photo: bool = True

    def versus(self) -> "Row":
        """The row with its two maps as one cell, for the style "versus".

        Raises:
            ValueError: it has not two.
        """
        if len(self.cells) != 2:
            raise ValueError(
                f"the style versus draws two classes at once, and there are {len(self.cells)} targets: name "
                "two."
            )
        first, second = self.cells
        title = f"{first.title} (orange), {second.title} (violet, striped)"
        return replace(self, cells=(replace(first, title=title, rival=second.heatmap),))


def sheet(
    rows: Sequence[Row],
    caption: str,
    *,
    aside: Sequence[str] = (),
    style: Look | Style = "overlay",
    one_scale: bool = False,
) -> Figure:
    """Draw maps in rows; every row has one scale over its maps, and its colour bar at the end.

    Args:
        rows: at least one, each with at least one cell.
        caption: its first line is the title, more lines are small print.
        aside: small print under the first row's photo, if the second row shows none.
        style: as of :func:`~clarp.render.figures.figure`.
        one_scale: one over all rows.

    Raises:
        ValueError: no row or cell, or a map, photo or style that does not hold.
    """
    if not rows or not all(row.cells for row in rows):
        raise ValueError("a sheet needs at least one row, and a map in every row.")
    look = Look.of(style)
    every = [[values for cell in row.cells for values in cell.prepared(look)] for row in rows]
    scales = [Scale.of(*maps) for maps in every]
    if one_scale:
        scales = [Scale.of(*(values for maps in every for values in maps))] * len(rows)
    side = look.size or round(_CELL * DPI)
    drawn = [
        [laid(cell.heatmap, row.photo, look, scale, rival=cell.rival, side=side) for cell in row.cells]
        for row, scale in zip(rows, scales, strict=True)
    ]
    height, width = (max(_THIN, _CELL * length / max(drawn[0][0][0].size)) for length in drawn[0][0][0].size)
    many = max(len(cells) for cells in drawn) * len(drawn[0][0][1].panels)
    photos = any(row.photo is not None and row.shows_photo for row in rows)
    barred = look.style != "region"
    columns = many + photos
    paper_width = columns * (width + GAP) - GAP + 2 * MARGIN + (GAP + BAR + NUMBERS if barred else 0)
    title, *small_print = caption.splitlines() or [""]
    room = paper_width - 2 * MARGIN
    titles = wrapped([title], room, 13, "bold")
    prints = wrapped([*small_print, *_read(scales, drawn[0][0][1], barred=barred)], room, 9)
    head, foot = TITLE * max(1, len(titles)) + 0.1, PRINT * len(prints) + 0.2
    tops, top = [], MARGIN + head
    for row in rows:
        tops.append(top)
        top += _over(row, look) + height + _under(row) + GAP
    paper = Paper(paper_width, top - GAP + foot + MARGIN)
    for row, cells, start in zip(rows, drawn, tops, strict=True):
        _draw_row(
            paper, row, cells, (start, start + _over(row, look)), (width, height), look=look, photos=photos
        )
    if aside:
        _draw_aside(paper, aside, tops[0] + _over(rows[0], look) + height + 0.12, width)
    paper.write(MARGIN, MARGIN, "\n".join(titles), size=13, weight="bold")
    paper.write(MARGIN, paper.height - MARGIN, "\n".join(prints), size=9, color="0.25", va="bottom")
    return paper.figure


def _read(scales: Sequence[Scale], first: View, *, barred: bool) -> list[str]:
    """How the scales were chosen, and how to read the style."""
    said = [
        "One scale over all maps." if len({id(scale) for scale in scales}) == 1 else "One scale in each row."
    ]
    bases = dict.fromkeys(scale.basis for scale in scales if scale.basis != "no scale")
    said += [f"In percent of its peak; full colour: {', '.join(bases)}."] if bases else []
    note = first.note if barred else "Marked: the most relevant tenth of each map, smoothed."
    return [" ".join(said) if barred else "", note]


def _over(row: Row, look: Look) -> float:
    titles = 0.2 if any(cell.title for cell in row.cells) else 0.0
    return 0.25 + titles + (_PART if look.style == "signs" else 0.0)


def _under(row: Row) -> float:
    return 0.2 if any(cell.note or oddity(cell.heatmap) for cell in row.cells) else 0.0


def _draw_row(
    paper: Paper,
    row: Row,
    drawn: list[tuple[Seen, View]],
    tops: tuple[float, float],
    size: tuple[float, float],
    *,
    look: Look,
    photos: bool,
) -> None:
    """Draw a row whose title and whose maps begin at ``tops``."""
    width, height = size
    left, (top, under) = MARGIN, tops
    if photos:
        original = photo_panel(drawn[0][0]) if row.shows_photo else None
        if original is not None:
            draw_panel(original, paper.axes(left, under, width, height))
        left += width + GAP
    paper.write(left, top, row.title, size=10.5, weight="bold")
    for cell, (seen, view) in zip(row.cells, drawn, strict=True):
        parted = _PART if len(view.panels) > 1 else 0.0
        paper.write(left, under - 0.05 - parted, _cut(cell.title, width), size=9, va="bottom")
        odd = oddity(cell.heatmap)
        note = f"Note: {odd}" if odd else cell.note
        paper.write(left, under + height + 0.05, note, size=8, color="0.25")
        for panel in view.panels:
            axes = paper.axes(left, under, width, height)
            draw_panel(panel, axes)
            paper.write(left, under - 0.05, panel.title, size=8, color="0.25", va="bottom")
            for box in (seen.box(box, np.shape(cell.heatmap)) for box in cell.boxes):
                axes.add_patch(_outline(box, "white", 2.4))
                axes.add_patch(_outline(box, "black", 1.0))
            left += width + GAP
    if look.style != "region":
        scale = drawn[0][1].scale
        draw_bar(paper.axes(left, under, BAR, height), scale, look, faded=row.photo is not None)


def _outline(box: Box, colour: str, width: float) -> Rectangle:
    """A box in edges as a rectangle in matplotlib's coordinates, where a pixel's centre is a whole number."""
    left, top, right, bottom = box
    place = (left - 0.5, top - 0.5)
    return Rectangle(place, right - left, bottom - top, fill=False, edgecolor=colour, linewidth=width)


def _draw_aside(paper: Paper, lines: Sequence[str], top: float, width: float) -> None:
    text = "\n".join(part for line in lines for part in (wrapped([line], width, 8.5) or [""]))
    paper.write(MARGIN, top, text, size=8.5, color="0.15", linespacing=1.35)


def _cut(title: str, width: float) -> str:
    """A title that fits over its map."""
    lines = wrapped([title], width, 9)
    return f"{lines[0]} …" if len(lines) > 1 else title
