"""Colours of relevance: nearly white is zero, one hue speaks for the class, another against it."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Bytes: TypeAlias = NDArray[np.uint8]
Pixels: TypeAlias = NDArray[np.float32]
"""Values of a picture's pixels: colours in 0 to 1, or relevance in units of the limit."""

PaletteName = Literal["vik", "bam"]
PALETTES: dict[PaletteName, tuple[str, str]] = {"vik": ("red", "blue"), "bam": ("green", "pink")}
"""Crameri's diverging colour maps (https://doi.org/10.5281/zenodo.1243862), and the names of their ends.

His others with a light middle, broc and cork, have ends that some colour-blind eyes can't tell apart."""

NOT_FINITE = (1.0, 0.85, 0.0)  # a yellow, which no palette has
FIRST, SECOND = (
    (0.85, 0.37, 0.01),
    (0.35, 0.2, 0.6),
)  # orange and violet: two classes, neither for nor against
BOTH = (1.0, 1.0, 1.0)
OF_TWO = ("orange", "violet")
"""The names of the colours of two classes."""


@cache
def _table(name: PaletteName) -> Pixels:
    """511 colours, read from the file: importing the package takes pyplot and 200 other maps along."""
    package = find_spec("cmcrameri")
    assert package is not None
    assert package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / "cmaps" / f"{name}.txt", dtype=np.float32)
    # The outermost tenths are so dark that the two hues look alike there.
    chosen: Pixels = table[(np.linspace(0.09, 0.91, 511) * len(table)).astype(np.intp)]
    return chosen


def paint(strength: Floats | Pixels, colours: PaletteName = "vik") -> Pixels:
    """Colours in 0 to 1 for relevance (...) in units of the limit: (..., 3); NaN is yellow."""
    table = _table(colours)
    missing = np.isnan(strength)
    middle = (len(table) - 1) / 2
    index = np.rint((np.where(missing, 0.0, strength) + 1.0) * middle).astype(np.intp)
    painted: Pixels = table[index]
    if missing.any():
        painted[missing] = NOT_FINITE
    return painted


def mix(first: Floats | Pixels, second: Floats | Pixels) -> Floats:
    """The colour of two strengths of one shape, in 0 to 1: that shape and 3.

    Their difference is the hue: orange, violet, white for both.

    >>> mix(np.array(1.0), np.array(1.0)).tolist()
    [1.0, 1.0, 1.0]
    """
    total = first + second
    share = np.divide(first - second, total, out=np.zeros_like(total), where=total > 0)[..., None]
    mixed: Floats = (1 - np.abs(share)) * np.array(BOTH) + np.abs(share) * np.where(share > 0, FIRST, SECOND)
    return mixed
