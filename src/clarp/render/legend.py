"""What the colours mean: the colour bar and its words."""

import numpy as np

from clarp.render.look import Look
from clarp.render.palette import Pixels, mix
from clarp.render.scale import Scale
from clarp.render.shading import blend
from clarp.render.styles import GROUND


def bar(scale: Scale, look: Look, size: tuple[int, int], *, faded: bool) -> Pixels:
    """The colours from the negative peak to the positive one, drawn like the map.

    Of two classes from the second's to the first's.

    Args:
        scale: of the map.
        look: how the map is drawn.
        size: (height, width) in pixels.
        faded: whether the map lies over a photo, of which the bar has the middle grey.

    Returns:
        (height, width, 3) in 0 to 1, from left to right.
    """
    places = np.broadcast_to(np.linspace(-1, 1, size[1]), size)
    if look.style == "versus":
        return mix((1 + places).clip(0, 1), (1 - places).clip(0, 1)).astype(np.float32)
    strength = (places / scale.full).clip(-1, 1)
    return blend(strength, GROUND if faded else None, look, striped=look.striped)


def ticks(scale: Scale, look: Look, names: tuple[str, str] | None = None) -> list[tuple[float, str]]:
    """The places of a bar, -1 to 1, with their words, the most important first.

    A map without a scale has none but zero.

    Args:
        scale: of the map.
        look: how it is drawn.
        names: of the two classes of the style "versus".

    >>> ticks(Scale(1.0, "", ""), Look())[:3]
    [(0.0, '0'), (1.0, '+100% speaks for'), (-1.0, '−100% speaks against')]
    """
    if look.style == "versus":
        first, second = names or ("the first class", "the second class")
        return [(1.0, first), (-1.0, second), (0.0, "both")]
    if scale.basis == "no scale":
        return [(0.0, "0")]
    return [
        (0.0, "0"),
        (1.0, "+100% speaks for"),
        (-1.0, "−100% speaks against"),
        (0.5, "+50%"),
        (-0.5, "−50%"),
    ]


FRAME = "The model sees what is inside the frame."


def legend(scale: Scale) -> str:
    """What the numbers are, where colour is full, and what is odd, in sentences."""
    scaled = []
    if scale.basis != "no scale":
        scaled = [f"Colours are in percent of the peak, and full from {scale.full:.0%}."]
    noted = [f"Note: {scale.warning}."] if scale.warning else []
    return " ".join(scaled + noted)
