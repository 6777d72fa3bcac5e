"""Text that can be drawn, whatever is in it: other fonts where the usual one has no sign for a letter, else its code."""

import logging
from functools import cache

from matplotlib.font_manager import findfont, fontManager, get_font

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
