"""Maps as a small HTML table with the pictures inside, for notebooks."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from clarp.render.scale import Bytes, Scale, as_bytes, number, oddity
from clarp.render.sheet import Row
from clarp.render.styles import View

_SIDE = 128  # pixels, the longer side of a picture


def table(rows: Sequence[Row], caption: str) -> str:
    """A table of maps over their photos, a row for each photo, with one scale in each row.

    Args:
        rows: as of :func:`~clarp.render.sheet.sheet`.
        caption: over the table.

    Returns:
        HTML that needs nothing else; all names are escaped, the pictures are PNGs in it.
    """
    lines = []
    for row in rows:
        scale = Scale.of(*(cell.heatmap for cell in row.cells))
        pictures = [] if row.photo is None else [_figure(row.photo, row.title, "the photo")]
        for cell in row.cells:
            view = View.of(cell.heatmap, row.photo, "overlay", scale)
            note = oddity(cell.heatmap) or cell.note
            words = f"{cell.title}: {note}" if note else cell.title
            pictures.append(_figure(as_bytes(view.panels[0].pixels), words, f"relevance, {words}"))
        told = f"full colour at ±{number(scale.limit)}" if scale.basis != "no scale" else ""
        lines.append(f"<tr>{''.join(pictures)}<td>{escape(told)}</td></tr>")
    return f"<table><caption>{escape(caption)}</caption><tbody>{''.join(lines)}</tbody></table>"


def _figure(pixels: Bytes, words: str, alternative: str) -> str:
    picture = thumbnail(pixels, _SIDE)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    source = base64.b64encode(file.getvalue()).decode()
    return (
        f'<td><img alt="{escape(alternative)}" width="{picture.width}" height="{picture.height}" '
        f'src="data:image/png;base64,{source}"><br>{escape(words)}</td>'
    )


def thumbnail(pixels: Bytes, side: int) -> Image.Image:
    """A picture whose longer side is at most ``side``; a tiny one grows by a whole number, in squares.

    >>> import numpy as np
    >>> thumbnail(np.zeros((20, 10, 3), dtype=np.uint8), 160).size
    (80, 160)
    """
    picture = Image.fromarray(pixels)
    longer = max(picture.size)
    if longer * 2 <= side:
        factor = side // longer
        size = (picture.width * factor, picture.height * factor)
        return picture.resize(size, Image.Resampling.NEAREST)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture
