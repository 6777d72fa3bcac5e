"""Where a pixel of the photo lies in the model's input, and back.

Coordinates are edges: a picture of width W covers [0, W), its pixel c covers [c, c + 1) and has its centre at c + 1/2.
A box is (left, top, right, bottom) in such coordinates, so its area is (right - left) (bottom - top).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
"""(height, width) in pixels."""
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixel edges."""


@dataclass(frozen=True)
class Geometry:
    """The geometric part of a preprocessing: resize the photo, then cut a window out of it.

    Attributes:
        original: (height, width) of the photo.
        resized: (height, width) after resizing, before the crop.
        crop: (top, left, height, width) of the window in the resized photo; top and left are negative where the
            crop is larger than the photo and the preprocessing pads.

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

    @property
    def model(self) -> Size:
        """(height, width) of the model's input."""
        return self.crop[2], self.crop[3]

    def box_to_model(self, box: Box) -> Box | None:
        """The part of a box of the photo that the model sees, in the model's pixels; None where it sees nothing of it."""
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

        A model pixel belongs to the object if at least half of it does, by antialiased bilinear resizing; so an
        object smaller than half a pixel of the model is gone, and padding never belongs to it.

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
        """A heatmap of the model's input on the photo: bilinear, edges repeated, as TorchRay resizes its maps.

        Args:
            heatmap: (h, w), of the size ``model``.
            unseen: value of the photo's pixels that the crop cut away.

        Returns:
            (H, W) float64, of the size ``original``.

        Raises:
            ValueError: the heatmap has another size than the model's input.
        """
        self._check(heatmap, self.model, "heatmap", "model's input")
        y, x = self._centres()
        grid = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))), dim=-1)
        values = heatmap.to("cpu", torch.float64)[None, None]
        sampled = F.grid_sample(values, grid[None], padding_mode="border", align_corners=False)[0, 0]
        return sampled.masked_fill(~self.seen(), unseen)

    def seen(self) -> Tensor:
        """(H, W) bool: the photo's pixels whose centre lies in the model's input."""
        y, x = self._centres()
        return (y.abs() <= 1)[:, None] & (x.abs() <= 1)

    def _centres(self) -> tuple[Tensor, Tensor]:
        """The photo's pixel centres in the model's input, scaled so that -1 and 1 are the input's edges."""
        top, left, height, width = self.crop
        rows = torch.arange(self.original[0], dtype=torch.float64) + 0.5
        columns = torch.arange(self.original[1], dtype=torch.float64) + 0.5
        y = rows * (self.resized[0] / self.original[0]) - top
        x = columns * (self.resized[1] / self.original[1]) - left
        return 2 * y / height - 1, 2 * x / width - 1

    @staticmethod
    def _check(given: Tensor, expected: Size, what: str, whose: str) -> None:
        if tuple(given.shape) != expected:
            raise ValueError(
                f"this {what} has the shape {tuple(given.shape)}, but the {whose} is {expected[0]} x {expected[1]} "
                f"(height x width): give the {what} of that picture, or the geometry of this one"
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
