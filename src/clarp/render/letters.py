"""Text that can be drawn: another font where the usual one lacks a letter, and else the letter's code."""

import logging
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from PIL import ImageDraw, ImageFont

USUAL = "DejaVu Sans"
_NO_HELP = ("Last Resort", "cm", "STIXSize")
"""Beginnings of the names of fonts that draw boxes, or whose codes are not Unicode's."""


def drawable(text: str) -> str:
    r"""The text, with the code in place of each letter that no font here has.

    >>> drawable("tabby → cat"), drawable("bell\a")
    ('tabby → cat', 'bell[U+0007]')
    """
    return "".join(letter if _font(letter) else f"[U+{ord(letter):04X}]" for letter in text)


def families(text: str) -> list[str]:
    """The fonts that together have the letters of a text, the usual one first."""
    return list(dict.fromkeys([USUAL, *filter(None, map(_font, text))]))


def broken(lines: Sequence[str], width: float, measured: Callable[[str], float]) -> list[str]:
    """Lines broken to a width, which ``measured`` gives of each in the same unit; empty ones are left out."""
    parts = []
    for line in map(drawable, lines):
        found = measured(line)
        letters = len(line) if found <= width else max(6, int(0.95 * len(line) * width / found))
        parts += textwrap.wrap(line, max(1, letters))
    return parts


@dataclass(frozen=True)
class Pen:
    """Writes lines into a picture in the fonts that have their letters.

    Attributes:
        size: of the letters, in pixels.
        bold: whether they are bold, where the font is.
    """

    size: int
    bold: bool = False

    def wrapped(self, lines: Sequence[str], width: float) -> list[str]:
        """Lines broken to a width in pixels.

        >>> Pen(20).wrapped(["one two three", ""], 90)
        ['one two', 'three']
        """
        return broken(lines, width, self.length)

    def length(self, line: str) -> float:
        """Pixels from the beginning of a line to its end."""
        return _length(line, self.size, self.bold)

    def write(
        self, picture: ImageDraw.ImageDraw, left: float, top: float, line: str, grey: float = 0.0
    ) -> None:
        """Write a line whose upper left corner is there."""
        for font, part in _parts(drawable(line), self.size, self.bold):
            # On one base line, for fonts differ in their heights.
            picture.text((left, top + self.size), part, fill=(round(255 * grey),) * 3, font=font, anchor="ls")
            left += font.getlength(part)


# A folder's photos share most of their lines.
@lru_cache(maxsize=1024)
def _length(line: str, size: int, bold: bool) -> float:
    return sum(font.getlength(part) for font, part in _parts(line, size, bold))


def _parts(line: str, size: int, bold: bool) -> list[tuple[ImageFont.FreeTypeFont, str]]:
    runs = groupby(line, key=lambda letter: _font(letter) or USUAL)
    return [(_face(family, size, bold), "".join(letters)) for family, letters in runs]


@cache
def _face(family: str, size: int, bold: bool) -> ImageFont.FreeTypeFont:
    found = findfont(FontProperties(family=family, weight="bold" if bold else "normal"))
    return ImageFont.truetype(str(found), size)


def _is_news(record: logging.LogRecord) -> bool:
    """Few of the other fonts are there in bold, and nobody needs to hear of it."""
    return "Failed to find font weight" not in record.getMessage()


logging.getLogger("matplotlib.font_manager").addFilter(_is_news)


@cache
def _font(letter: str) -> str:
    """The name of a font that has a letter; "" where there is none."""
    if letter == "\n" or ord(letter) in _codes(findfont(USUAL)):
        return USUAL
    others = sorted(
        (font.name, font.fname) for font in fontManager.ttflist if not font.name.startswith(_NO_HELP)
    )
    return next((name for name, file in others if ord(letter) in _codes(file)), "")


@cache
def _codes(file: str) -> frozenset[int]:
    """The letters that a font has; none for one that can't be read, or has pictures in place of outlines."""
    try:
        font = get_font(file)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()
