"""Maps of volumes, of several views and of signals as flat pictures: slices side by side, or a strip."""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, sqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clarp.render.look import Look
from clarp.render.palette import Bytes, Floats
from clarp.render.styles import prepared

Kind = TypeVar("Kind", bound=np.generic)

MOST = 16
"""How many slices are shown."""
COLOURS = (1, 3)
"""With how many channels an image can be seen."""
_FLATTEST = 6  # times as long as high, a strip
_LINES = 8  # channels of a signal that are drawn
_INK = 90  # the grey of a signal's curve


@dataclass(frozen=True)
class Montage:
    """How maps of one shape become maps (h, w), and what they are of pictures.

    Attributes:
        shape: of a map: (H, W), (D, H, W) or (L,).
        shown: the numbers of the slices that are shown.
        kind: what the slices are called.
    """

    shape: tuple[int, ...]
    shown: tuple[int, ...] = ()
    kind: str = "slices"

    @classmethod
    def of(cls, maps: Floats, kind: str = "slices") -> "Montage":
        """For these maps, (n, H, W), (n, D, H, W) or (n, L).

        Where a volume has more than :data:`MOST` slices, it is cut into as many parts, and each shows the
        slice with the most relevance of either sign, over all these maps.
        """
        shape = maps.shape[1:]
        if len(shape) != 3:
            return cls(shape)
        amounts, depth = np.abs(np.nan_to_num(maps)).sum((0, 2, 3)), shape[0]
        count = min(MOST, depth)
        ends = [part * depth // count for part in range(count + 1)]
        shown = (start + int(amounts[start:end].argmax()) for start, end in pairwise(ends))
        return cls(shape, tuple(shown), kind)

    def note(self, look: Look) -> str:
        """What is shown of each map in a look, sentences; of a flat one nothing."""
        if len(self.shape) == 1:
            return "From left to right: the signal's places."
        if not self.shown:
            return ""
        numbers = ", ".join(map(str, self.shown))
        all_of_them = len(self.shown) == self.shape[0]
        chosen = "" if all_of_them else ", of each part of the depth the one with the most relevance"
        said = f"{self.kind.capitalize()} {numbers} of {self.shape[0]}, row by row{chosen}."
        return f"{said} {look.smoothed_by(max(self.shape[1:]))}".strip()

    def map(self, values: Floats, look: Look | None = None) -> Floats:
        """A map as (h, w); slices are smoothed one by one, as a look says."""
        if len(self.shape) == 1:
            return np.broadcast_to(values, (self._height(), len(values)))
        if not self.shown:
            return values
        slices = values[list(self.shown)]
        if look is not None:
            slices = np.stack([prepared(one, look) for one in slices])
        return _tiled(slices, 0.0)

    def look(self, look: Look) -> Look:
        """How the flat map is drawn, whose slices are smoothed already."""
        return replace(look, smoothing=0.0) if self.shown else look

    def photo(self, image: Floats) -> Bytes | None:
        """An image (C, ...) for the eye, (h, w, 3): its slices or curves; None without visible colours."""
        if len(self.shape) == 1:
            return self._curves(image)
        if len(image) not in COLOURS:
            return None
        low, high = image.min(), image.max()
        grey = ((image - low) / max(float(high - low), 1e-12) * 255).astype(np.uint8)
        flat = _tiled(grey[:, list(self.shown)], 255) if self.shown else grey
        return np.ascontiguousarray(np.broadcast_to(flat, (3, *flat.shape[1:])).transpose(1, 2, 0))

    def _height(self) -> int:
        return ceil(self.shape[0] / _FLATTEST)

    def _curves(self, signal: Floats) -> Bytes:
        """A signal (C, L) as curves on white, its first channels on one scale."""
        height, (_, length) = self._height(), signal.shape
        picture = np.full((height, length, 3), 255, dtype=np.uint8)
        drawn = signal[:_LINES]
        low, high = float(drawn.min()), float(drawn.max())
        rows = np.rint((high - drawn) / max(high - low, 1e-12) * (height - 1)).astype(np.intp)
        for curve in rows:
            for place in range(length):
                ends = curve[max(place - 1, 0) : place + 1]
                picture[ends.min() : ends.max() + 1, place] = _INK
        return picture


def _tiled(slices: NDArray[Kind], fill: float) -> NDArray[Kind]:
    """Slices (..., n, H, W) side by side in rows, (..., h, w), with a gap between them."""
    *others, count, height, width = slices.shape
    columns = grid(count, height, width)
    rows = ceil(count / columns)
    gap = 1 + max(height, width) // 50
    places = np.full((*others, rows * columns, height + gap, width + gap), fill, dtype=slices.dtype)
    places[..., :count, :height, :width] = slices
    apart = places.reshape(*others, rows, columns, height + gap, width + gap)
    flat = np.moveaxis(apart, -3, -2).reshape(*others, rows * (height + gap), columns * (width + gap))
    return flat[..., :-gap, :-gap]


def grid(count: int, height: int, width: int) -> int:
    """How many columns make a picture about as wide as high.

    >>> grid(16, 32, 32), grid(12, 64, 32), grid(2, 8, 8)
    (4, 5, 2)
    """
    return min(count, max(1, ceil(sqrt(count * height / width))))
