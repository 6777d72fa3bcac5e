"""Maps as a small HTML table with the pictures inside, for notebooks."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from clarp.render.look import Look
from clarp.render.palette import Bytes
from clarp.render.scale import Scale, as_bytes, oddity
from clarp.render.sheet import Row
from clarp.render.styles import laid, photo_panel

_SIDE = 160  # pixels, the longer side of a picture


def table(rows: Sequence[Row], caption: str, look: Look | None = None) -> str:
    """A table of maps over their photos, a row for each photo, with one scale in each row.

    Args:
        rows: as of :func:`~clarp.render.sheet.sheet`.
        caption: over the table.
        look: how the maps are drawn; None: the usual one.

    Returns:
        HTML that needs nothing else; all names are escaped, the pictures are PNGs in it.
    """
    lines, look = [], look or Look()
    for row in rows:
        scale = Scale.of(*(values for cell in row.cells for values in cell.prepared(look)))
        pictures: list[str] = []
        for cell in row.cells:
            seen, view = laid(cell.heatmap, row.photo, look, scale, side=_SIDE)
            original = photo_panel(seen)
            if original is not None and not pictures:
                pictures.append(_figure(as_bytes(original.pixels), row.title, "the photo"))
            note = oddity(cell.heatmap) or cell.note
            words = f"{cell.title}: {note}" if note else cell.title
            pictures.append(_figure(as_bytes(view.panels[0].pixels), words, f"relevance, {words}"))
        told = f"full colour from {scale.full:.0%} of the peak" if scale.basis != "no scale" else ""
        lines.append(f"<tr>{''.join(pictures)}<td>{escape(told)}</td></tr>")
    return f"<table><caption>{escape(caption)}</caption><tbody>{''.join(lines)}</tbody></table>"


def _figure(pixels: Bytes, words: str, alternative: str) -> str:
    picture = Image.fromarray(pixels)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    source = base64.b64encode(file.getvalue()).decode()
    return (
        f'<td><img alt="{escape(alternative)}" width="{picture.width}" height="{picture.height}" '
        f'src="data:image/png;base64,{source}"><br>{escape(words)}</td>'
    )
