"""A sheet of paper measured in inches, as a picture or a file; no state outside the figure."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from PIL import Image

from clarp.files import write_atomically
from clarp.render.letters import broken, drawable, families

DPI = 150
MARGIN, GAP = 0.2, 0.15  # inches
TITLE, PRINT = 0.276, 0.16  # inches, a line in 13 and in 9 points
FORMATS = ("png", "svg", "pdf")
"""The suffixes that :func:`save` knows."""


class Drawing(Figure):
    """A matplotlib figure that a notebook shows as a cell's last line, whichever backend is chosen."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


class Paper:
    """A white figure whose places are inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Drawing((width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """A rectangle to draw in."""
        bottom = self.height - top - height
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def write(self, left: float, top: float, text: str, *, size: float, **looks: Any) -> None:
        """Text whose upper left corner is there: dollar signs are plain, and what no font has is a code."""
        text = drawable(text)
        self.figure.text(
            left / self.width,
            1 - top / self.height,
            text,
            family=families(text),
            size=size,
            va=looks.pop("va", "top"),
            parse_math=False,
            **looks,
        )


def wrapped(lines: Sequence[str], width: float, size: float, weight: str = "normal") -> list[str]:
    """Lines broken to a width in inches, by their own letters' widths in points; empty ones are left out.

    >>> wrapped(["one two three", ""], 0.8, 13)
    ['one two', 'three']
    """

    def points(line: str) -> float:
        looks = FontProperties(family=families(line), size=size, weight=weight)
        return float(TextToPath().get_text_width_height_descent(line, looks, ismath=False)[0])

    return broken(lines, 72 * width, points)


def rasterised(figure: Figure) -> Image.Image:
    """A figure as an RGB picture."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def save(figure: Figure, path: Path) -> None:
    """Write a figure as its file's suffix says: PNG, SVG or PDF, whole or not at all.

    Raises:
        ValueError: another suffix.
        OSError: the folder is missing or can't be written to.
    """
    suffix = checked_format(path)
    metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[suffix]
    write_atomically(path, partial(figure.savefig, format=suffix, metadata=metadata))


def checked_format(path: Path) -> str:
    """The format that a file's suffix names.

    Raises:
        ValueError: none of :data:`FORMATS`.

    >>> checked_format(Path("sheet.SVG"))
    'svg'
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(f'.{name}' for name in FORMATS)}.")
    return suffix
