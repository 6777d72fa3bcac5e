"""What a map lies over: a photo, and the part of it that the model saw."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clarp.render.palette import Bytes, Floats, Pixels

Window = tuple[float, float, float, float]
"""(left, top, right, bottom) in the photo's pixel edges; beyond the photo where the preprocessing pads."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A photo, and where in it the model's input lies.

    Attributes:
        photo: (H, W, 3) bytes, RGB; None: white ground.
        window: the part that the model saw.
        size: (H, W).
    """

    photo: Bytes | None
    window: Window
    size: tuple[int, int]

    @classmethod
    def of(cls, photo: "Seen | Bytes | None", size: tuple[int, ...]) -> "Seen":
        """What a map lies over.

        Args:
            photo: a photo as the model saw it, (h, w, 3) bytes; or a photo of any size with its window; None:
                white ground.
            size: (h, w), of the map.

        Raises:
            ValueError: an array of another shape or type.
        """
        if isinstance(photo, Seen):
            return photo
        if photo is not None and (photo.shape != (*size, 3) or photo.dtype != np.uint8):
            raise ValueError(
                f"the photo must be ({size[0]}, {size[1]}, 3) bytes like the heatmap, got {photo.shape} of "
                f"{photo.dtype}."
            )
        return cls(photo, (0.0, 0.0, float(size[1]), float(size[0])), (size[0], size[1]))

    @property
    def cut(self) -> bool:
        """Whether the model saw only a part."""
        left, top, right, bottom = self._edges()
        return left > 0 or top > 0 or right < self.size[1] or bottom < self.size[0]

    def at(self, side: int, *, squares: bool = False) -> "Seen":
        """The same in another size.

        Args:
            side: pixels of the longer side.
            squares: whether pixels become squares, each of as many pixels; the size is then rounded down to a
                multiple.
        """
        factor = side / max(self.size)
        if squares:
            factor = max(1, int(factor))
        height, width = (max(1, round(factor * length)) for length in self.size)
        if (height, width) == self.size:
            return self
        resample = Image.Resampling.NEAREST if squares else Image.Resampling.LANCZOS
        photo = self.photo
        if photo is not None:
            photo = np.asarray(Image.fromarray(photo).resize((width, height), resample))
        x, y = width / self.size[1], height / self.size[0]
        left, top, right, bottom = self.window
        return Seen(photo, (left * x, top * y, right * x, bottom * y), (height, width))

    def placed(self, values: Floats, *, squares: bool = False) -> Pixels:
        """A map (h, w) where the model saw it, (H, W), interpolated or as squares; 0 elsewhere.

        Args:
            values: within -1 to 1, or NaN, which stays.
            squares: whether the map's pixels are shown as squares.
        """
        left, top, right, bottom = self._edges()
        missing = np.isnan(values)
        drawn = self._stretched(np.where(missing, 0.0, values), squares=squares)
        if missing.any():
            drawn = np.where(self._stretched(missing.astype(np.float64), squares=True) > 0, np.nan, drawn)
        placed = np.zeros(self.size, np.float32)
        height, width = self.size
        placed[max(top, 0) : bottom, max(left, 0) : right] = drawn[
            max(-top, 0) : height - top, max(-left, 0) : width - left
        ]
        return placed

    def cropped(self) -> "Seen":
        """What the model saw of the photo, and nothing else; black where the preprocessing pads."""
        left, top, right, bottom = edges = self._edges()
        photo = None if self.photo is None else np.asarray(Image.fromarray(self.photo).crop(edges))
        height, width = bottom - top, right - left
        return Seen(photo, (0.0, 0.0, float(width), float(height)), (height, width))

    def box(self, box: Window, size: tuple[int, ...]) -> Window:
        """A box of a map of ``size`` (h, w), in its pixel edges, in the photo's."""
        left, top, right, bottom = self._edges()
        x, y = (right - left) / size[1], (bottom - top) / size[0]
        return left + box[0] * x, top + box[1] * y, left + box[2] * x, top + box[3] * y

    def inside(self) -> NDArray[np.bool_]:
        """(H, W): the pixels that the model saw."""
        left, top, right, bottom = self._edges()
        inside = np.zeros(self.size, np.bool_)
        inside[max(top, 0) : bottom, max(left, 0) : right] = True
        return inside

    def framed(self, pixels: Pixels, dimmed: float) -> Pixels:
        """A picture (H, W, 3) with what the model did not see dimmed, and a white line around what it saw."""
        if not self.cut:
            return pixels
        framed = np.array(pixels)
        left, top, right, bottom = self._edges()
        height, width = self.size
        rows = slice(max(top, 0), bottom)
        for outside in (slice(0, rows.start), slice(bottom, None)):
            framed[outside] *= dimmed
        for outside in (slice(0, max(left, 0)), slice(right, None)):
            framed[rows, outside] *= dimmed
        line = max(1, round(max(self.size) / 400))
        framed[max(top, 0) : max(top, 0) + line, max(left, 0) : right] = 1.0
        framed[min(bottom, height) - line : min(bottom, height), max(left, 0) : right] = 1.0
        framed[max(top, 0) : bottom, max(left, 0) : max(left, 0) + line] = 1.0
        framed[max(top, 0) : bottom, min(right, width) - line : min(right, width)] = 1.0
        return framed

    def _edges(self) -> tuple[int, int, int, int]:
        """The window in whole pixels, at least one of which lies in the photo."""
        height, width = self.size
        left, top, right, bottom = (round(edge) for edge in self.window)
        left, top = min(left, width - 1), min(top, height - 1)
        return left, top, max(right, left + 1, 1), max(bottom, top + 1, 1)

    def _stretched(self, values: Floats, *, squares: bool) -> Pixels:
        left, top, right, bottom = self._edges()
        size = (right - left, bottom - top)
        stretched = values.astype(np.float32)
        if values.shape == size[::-1]:
            return stretched
        resample = Image.Resampling.NEAREST if squares else Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(stretched).resize(size, resample))
