"""Where a pixel of the photo lies in the model's input, and back.

Coordinates are edges: a picture of width W covers [0, W), its pixel c covers [c, c + 1) and has its centre at
c + 1/2. A box is (left, top, right, bottom) in such coordinates: its width is right - left.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
"""(height, width) in pixels."""
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixel edges."""


_PARTS = 4


@dataclass(frozen=True)
class Geometry:
    """The geometric part of a preprocessing: resize the photo, then cut a window out of it.

    Attributes:
        original: (height, width) of the photo.
        resized: (height, width) after resizing, before the crop.
        crop: (top, left, height, width) of the window in the resized photo; top and left are negative where
            the crop is larger than the photo and the preprocessing pads.

    >>> g = Geometry.of((375, 500), resize=256, crop=224)
    >>> g.resized, g.crop
    ((256, 341), (16, 58, 224, 224))
    >>> [round(edge, 1) for edge in g.box_to_model((100.0, 100.0, 300.0, 200.0))]
    [10.2, 52.3, 146.6, 120.5]
    """

    original: Size
    resized: Size
    crop: tuple[int, int, int, int]

    @classmethod
    def of(
        cls, original: Size, *, resize: int | Size | None = None, crop: int | Size | None = None
    ) -> "Geometry":
        """The geometry of torchvision's ``Resize(resize)`` followed by ``CenterCrop(crop)``.

        Args:
            original: (height, width) of the photo.
            resize: length of the shorter side, or (height, width); None: not resized.
            crop: side of a square, or (height, width), cut from the middle; None: not cropped.
        """
        resized = original if resize is None else _resized(original, resize)
        height, width = resized if crop is None else _pair(crop)
        return cls(
            original, resized, (_middle(resized[0], height), _middle(resized[1], width), height, width)
        )

    @classmethod
    def measured(cls, preprocess: Callable[[Image.Image], Tensor], original: Size) -> "Geometry":
        """The geometry of any preprocessing that resizes and crops, measured on pictures of coordinates.

        A picture that goes evenly from black to white shows, after the preprocessing, at each pixel how far
        along the photo it lies; a line through those values gives the size before the crop and where the crop
        begins, both rounded to pixels. It runs the preprocessing ten times, so keep the result for photos of
        the same size.

        Args:
            preprocess: RGB photo to tensor (C, h, w).
            original: (height, width) of the photo.

        Raises:
            ValueError: the preprocessing does more than resize and crop: it turns, warps, or draws lots.
        """
        black, white = (_grey(preprocess, np.full(original, level)) for level in (0.0, 1.0))
        span = torch.where(white == black, torch.nan, white - black)  # equal where the preprocessing pads
        lines = []
        for axis in (0, 1):
            along = ((np.arange(original[axis]) + 0.5) / original[axis]).reshape(
                (-1, 1) if axis == 0 else (1, -1)
            )
            # Pictures have 256 levels; several pictures, each for a part of the way, tell places apart more
            # finely.
            parts = [
                np.broadcast_to(np.clip(along * _PARTS - part, 0, 1), original) for part in range(_PARTS)
            ]
            share = torch.stack([(_grey(preprocess, part) - black) / span for part in parts]).mean(dim=0)
            lines.append(_line(share.nanmean(dim=1 - axis), original[axis]))
        (top, resized_height), (left, resized_width) = lines
        return cls(original, (resized_height, resized_width), (top, left, *black.shape))

    @property
    def model(self) -> Size:
        """(height, width) of the model's input."""
        return self.crop[2], self.crop[3]

    @property
    def window(self) -> Box:
        """The model's input in the photo's pixel edges; beyond the photo where the preprocessing pads.

        >>> Geometry.of((100, 200), resize=50, crop=50).window
        (50.0, 0.0, 150.0, 100.0)
        """
        down, right = self.original[0] / self.resized[0], self.original[1] / self.resized[1]
        top, left, height, width = self.crop
        return left * right, top * down, (left + width) * right, (top + height) * down

    def box_to_model(self, box: Box) -> Box | None:
        """The part of the photo's box that the model sees, in the model's pixels; None where it sees none."""
        down, right = self.resized[0] / self.original[0], self.resized[1] / self.original[1]
        top, left, height, width = self.crop
        seen = (
            min(max(box[0] * right - left, 0.0), width),
            min(max(box[1] * down - top, 0.0), height),
            min(max(box[2] * right - left, 0.0), width),
            min(max(box[3] * down - top, 0.0), height),
        )
        return seen if seen[0] < seen[2] and seen[1] < seen[3] else None

    def mask_to_model(self, mask: Tensor) -> Tensor:
        """A mask of the photo in the model's pixels.

        A model pixel belongs to the object if at least half of it does, by antialiased bilinear resizing; so
        an object smaller than half a pixel of the model is gone, and padding never belongs to it.

        Args:
            mask: (H, W) bool, of the size ``original``.

        Returns:
            (h, w) bool, of the size ``model``.

        Raises:
            ValueError: the mask has another size than the photo.
        """
        self._check(mask, self.original, "mask", "photo")
        image = mask.to(torch.float64)[None, None]
        if self.resized != self.original:
            image = F.interpolate(image, self.resized, mode="bilinear", antialias=True)
        top, left, height, width = self.crop
        bottom, right = top + height - self.resized[0], left + width - self.resized[1]
        # Negative padding cuts, positive padding adds background.
        return F.pad(image, (-left, right, -top, bottom))[0, 0] >= 0.5

    def map_to_original(self, heatmap: Tensor, unseen: float = 0.0) -> Tensor:
        """A heatmap of the model's input on the photo: bilinear, edges repeated, as TorchRay resizes maps.

        Args:
            heatmap: (h, w), of the size ``model``.
            unseen: value of the photo's pixels that the crop cut away.

        Returns:
            (H, W) float64, of the size ``original``.

        Raises:
            ValueError: the heatmap has another size than the model's input.
        """
        self._check(heatmap, self.model, "heatmap", "model's input")
        y, x = self._places()
        rows = _between(heatmap.detach().to("cpu", torch.float64), y)
        return _between(rows.mT, x).mT.masked_fill(~self.seen(), unseen)

    def seen(self) -> Tensor:
        """(H, W) bool: the photo's pixels whose centre lies in the model's input."""
        y, x = self._places()
        return ((y >= 0) & (y <= self.crop[2]))[:, None] & ((x >= 0) & (x <= self.crop[3]))

    def _places(self) -> tuple[Tensor, Tensor]:
        """Where the centres of the photo's rows and columns lie in the model's input, in edges."""
        top, left, _, _ = self.crop
        rows = torch.arange(self.original[0], dtype=torch.float64) + 0.5
        columns = torch.arange(self.original[1], dtype=torch.float64) + 0.5
        down, right = (
            rows * self.resized[0] / self.original[0],
            columns * self.resized[1] / self.original[1],
        )
        return down - top, right - left

    @staticmethod
    def _check(given: Tensor, expected: Size, what: str, whose: str) -> None:
        if tuple(given.shape) != expected:
            raise ValueError(
                f"this {what} has the shape {tuple(given.shape)}, but the {whose} is {expected[0]} x "
                f"{expected[1]} (height x width): give the {what} of that picture, or the geometry of this "
                "one"
            )


def _between(values: Tensor, places: Tensor) -> Tensor:
    """Rows of (n, m) interpolated at places (k,) in edges: (k, m); between equals exactly these."""
    positions = (places - 0.5).clamp(0, len(values) - 1)
    before = positions.floor().long()
    after = (before + 1).clamp(max=len(values) - 1)
    return torch.lerp(values[before], values[after], (positions - before)[:, None])


def _grey(preprocess: Callable[[Image.Image], Tensor], levels: NDArray[np.float64]) -> Tensor:
    """What a grey picture of levels (H, W) in 0 ... 1 becomes: (h, w), the mean over channels."""
    grey = (levels * 255).round().astype(np.uint8)
    picture = Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2))
    return preprocess(picture).detach().to("cpu", torch.float64).mean(dim=0)


def _line(share: Tensor, length: int) -> tuple[int, int]:
    """Where the crop begins, and the length before it, from the place in the photo of each pixel, (n,)."""
    positions = np.arange(len(share)) + 0.5
    values = share.numpy()
    # At both ends the border's pixels are repeated, up to half a pixel of the photo, or padding begins (NaN).
    end = max(0.02, 0.51 / length)
    inner = (values > end) & (values < 1 - end)
    if inner.sum() >= 2:
        slope, offset = np.polyfit(positions[inner], values[inner], 1)
        # Levels come in steps of 1/1020: a smaller rise over all pixels is no line but rounding.
        rises = slope * len(values) > 1e-3
        if rises and np.abs(slope * positions[inner] + offset - values[inner]).max() < 0.02:
            return round(offset / slope), round(1 / slope)
    raise ValueError(
        "this preprocessing does more than resize and crop, so boxes and masks can't follow it: use one "
        "that doesn't turn, warp or choose at random, or give a Geometry made by hand"
    )


def _pair(size: int | Size) -> Size:
    return (size, size) if isinstance(size, int) else size


def _resized(original: Size, resize: int | Size) -> Size:
    if not isinstance(resize, int):
        return resize
    height, width = original
    if width <= height:
        return int(resize * height / width), resize
    return resize, int(resize * width / height)


def _middle(length: int, crop: int) -> int:
    """Where torchvision's centre crop begins; negative where it pads first."""
    return -((crop - length) // 2) if crop > length else round((length - crop) / 2)
