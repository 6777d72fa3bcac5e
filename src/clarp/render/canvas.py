"""The picture of one map, drawn with Pillow: the photo, the map over it, a colour bar, and words."""

from collections.abc import Sequence

from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageOps

from clarp.render.legend import FRAME, bar, legend, ticks
from clarp.render.letters import Pen
from clarp.render.look import WITH_PHOTO, Look, Style
from clarp.render.palette import Bytes
from clarp.render.scale import Scale, as_bytes
from clarp.render.seen import Seen
from clarp.render.styles import Panel, View, laid, photo_panel

_WIDE = 1.25  # a photo that is so much wider than high stands over its map, and not beside it
_LEAST = 440  # pixels, the least width of words
HALF = 0.5
_POINT = 1 / 288  # of a panel's longer side: a point on four inches


def picture(
    heatmap: ArrayLike,
    photo: Seen | Bytes | None,
    caption: str,
    style: Look | Style = "overlay",
    *,
    scale: Scale | None = None,
    rival: ArrayLike | None = None,
    names: tuple[str, str] | None = None,
) -> Image.Image:
    """Draw a map as a picture of pixels.

    :func:`~clarp.render.figures.figure` draws the same as a figure, more slowly.

    Args:
        heatmap: (h, w) relevance.
        photo: (h, w, 3) bytes, RGB, as the model saw it; or the whole photo with what the model saw of it;
            None: white ground.
        caption: what is explained; its first line is the title, more lines are small print.
        style: a style, or a whole look.
        scale: one over several maps; None: the map's own.
        rival: (h, w), the map of the second class, for the style "versus".
        names: the names of the two classes, for the style "versus".

    Returns:
        The picture, RGB. Without caption (``Look(caption=False)``) it is the map alone, over its photo.

    Raises:
        ValueError: the heatmap is not (h, w), the photo's shape or type does not fit, or no such style.
    """
    look = Look.of(style)
    return composed(*laid(heatmap, photo, look, scale, rival=rival), caption, look, names)


def composed(
    seen: Seen, view: View, caption: str, look: Look, names: tuple[str, str] | None = None
) -> Image.Image:
    """The :func:`picture` of a map and a photo that are :func:`~clarp.render.styles.laid`."""
    side = max(seen.size)
    gap = max(4, side // 60)
    stacked = seen.size[1] >= _WIDE * seen.size[0]
    maps = [_tile(panel, side) for panel in view.panels]
    if not look.caption:
        return _joined(maps, gap, down=stacked)
    original = photo_panel(seen) if look.style in WITH_PHOTO else None
    parts = ([] if original is None else [_tile(original, side)]) + maps
    titles = [""] * (len(parts) - len(maps)) + [panel.title for panel in view.panels]
    body = _joined(_titled(parts, titles, side), gap, down=stacked)
    width = max(body.width, _LEAST)
    title, *small_print = caption.splitlines() or [""]
    strips = [_words([title], Pen(_letters(width, title=True), bold=True), width), body]
    if look.style != "region":
        strips.append(_bar(view, look, (body.width, side), names, faded=seen.photo is not None))
    meaning = legend(view.scale) if look.style != "region" else ""
    told = [*small_print, " ".join(filter(None, [FRAME if seen.cut else "", view.note, meaning]))]
    strips.append(_words(told, Pen(_letters(width)), width, grey=0.25))
    drawn = _joined([strip for strip in strips if strip.height > 1], gap, down=True)
    return ImageOps.expand(drawn, 2 * gap, "white")


def tiles(
    heatmap: ArrayLike,
    photo: Seen | Bytes | None,
    look: Look,
    scale: Scale | None = None,
    *,
    rival: ArrayLike | None = None,
) -> tuple[list[tuple[str, Image.Image]], str]:
    """The panels of a map, each with its title or "", and how to read them; as of :func:`picture`."""
    seen, view = laid(heatmap, photo, look, scale, rival=rival)
    return [(panel.title, _tile(panel, max(seen.size))) for panel in view.panels], view.note


def _letters(width: int, *, title: bool = False) -> int:
    """Pixels of letters on a picture so wide: large enough on a phone, and not huge on a large picture."""
    return min(max(17, width // 32), 40) if title else min(max(13, width // 46), 28)


def _tile(panel: Panel, side: int) -> Image.Image:
    """A panel with its lines."""
    tile = Image.fromarray(as_bytes(panel.pixels))
    if not panel.lines:
        return tile
    # Twice the size and back: Pillow's lines have no soft edges.
    large = tile.resize((2 * tile.width, 2 * tile.height), Image.Resampling.NEAREST)
    pencil = ImageDraw.Draw(large)
    for line in panel.lines:
        points = [(2 * x + 0.5, 2 * y + 0.5) for x, y in line.points.tolist()]
        colour = tuple(round(255 * part) for part in line.colour)
        pencil.line(points, fill=colour, width=max(2, round(2 * line.weight * side * _POINT)), joint="curve")
    return large.resize(tile.size, Image.Resampling.BOX)


def _titled(tiles: Sequence[Image.Image], titles: Sequence[str], side: int) -> list[Image.Image]:
    """Tiles under their titles; without any title as they are."""
    if not any(titles):
        return list(tiles)
    pen = Pen(_letters(side))
    return [
        _joined([_words([title or " "], pen, tile.width, grey=0.25, wrap=False), tile], 2, down=True)
        for tile, title in zip(tiles, titles, strict=True)
    ]


def _words(
    lines: Sequence[str], pen: Pen, width: int, *, grey: float = 0.0, wrap: bool = True
) -> Image.Image:
    """Lines of text on white, broken to a width; one row of pixels where there are none."""
    broken = pen.wrapped(lines, width) if wrap else lines
    spaced = round(1.3 * pen.size)
    words = Image.new("RGB", (width, max(1, spaced * len(broken))), "white")
    pencil = ImageDraw.Draw(words)
    for number, line in enumerate(broken):
        pen.write(pencil, 0, spaced * number, line, grey)
    return words


def _bar(
    view: View, look: Look, size: tuple[int, int], names: tuple[str, str] | None, *, faded: bool
) -> Image.Image:
    """The colour bar under the maps, with its words."""
    width, side = size
    thick, tick = max(8, side // 45), max(2, side // 150)
    pen = Pen(_letters(width))
    strip = Image.new("RGB", (width, thick + 3 * tick + round(1.3 * pen.size)), "white")
    colours = bar(view.scale, look, (thick, width), faded=faded)
    strip.paste(Image.fromarray(as_bytes(colours)))
    pencil = ImageDraw.Draw(strip)
    taken: list[tuple[float, float]] = []
    for place, text in ticks(view.scale, look, names):
        if abs(place) == HALF:  # its words would fit on one side only
            continue
        x, length = (place + 1) / 2 * (width - 1), pen.length(text)
        left = min(max(0.0, x - length / 2), width - length)
        if all(left + length + pen.size < begin or left > end + pen.size for begin, end in taken):
            pencil.line([(x, thick), (x, thick + tick)], fill=(60, 60, 60), width=max(1, side // 400))
            pen.write(pencil, left, thick + 2 * tick, text, 0.25)
            taken.append((left, left + length))
    return strip


def _joined(tiles: Sequence[Image.Image], gap: int, *, down: bool) -> Image.Image:
    """Pictures beside each other, or one under the other, on white."""
    widths, heights = [tile.width for tile in tiles], [tile.height for tile in tiles]
    between = gap * (len(tiles) - 1)
    size = (max(widths), sum(heights) + between) if down else (sum(widths) + between, max(heights))
    joined, place = Image.new("RGB", size, "white"), 0
    for tile in tiles:
        joined.paste(tile, (0, place) if down else (place, 0))
        place += gap + (tile.height if down else tile.width)
    return joined
