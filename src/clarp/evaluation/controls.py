"""What every method has to beat: maps that know nothing of the model, and what pooling alone does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from clarp.data.draws import below


@dataclass(frozen=True)
class RandomPosition:
    """A cone around a random pixel: 1 at its tip, falling with the distance, 0 at the farthest pixel.

    So it points somewhere for every metric: by its greatest pixel, by its greatest window, and by the order
    of its pixels.

    Attributes:
        seed: another seed, other pixels. The pixel depends on seed, size and the image's id only, not on the
            batch.

    >>> maps = RandomPosition()(torch.zeros(1, 3, 6, 8), ["a.jpg"])
    >>> maps.shape, float(maps.max()), float(maps.min())
    (torch.Size([1, 6, 8]), 1.0, 0.0)
    """

    seed: int = 0

    name: ClassVar[str] = "random"

    def __call__(self, images: Tensor, ids: Sequence[str]) -> Tensor:
        """Maps (B, H, W) for images (B, C, H, W) with B ids.

        Raises:
            ValueError: another number of ids than images.
        """
        height, width = images.shape[2:]
        if len(ids) != len(images):
            raise ValueError(f"{len(ids)} ids for {len(images)} images: give one id per image")
        rows = [below(height, self.seed, identity, height, width, "row") for identity in ids]
        columns = [below(width, self.seed, identity, height, width, "column") for identity in ids]
        return _cones(images, rows, columns)


@dataclass(frozen=True)
class CentrePosition:
    """A cone around the pixel (H // 2, W // 2), TorchRay's centre; like :class:`RandomPosition` otherwise."""

    name: ClassVar[str] = "centre"

    def __call__(self, images: Tensor, ids: Sequence[str]) -> Tensor:
        """Maps (B, H, W) for images (B, C, H, W); the ids are not used."""
        del ids
        height, width = images.shape[2:]
        return _cones(images, [height // 2] * len(images), [width // 2] * len(images))


@dataclass(frozen=True)
class Pooling:
    """Another map, averaged over squares from the upper left; those at the border are cut off there.

    It knows nothing that the map does not, so what a score gains by it is the score's taste for coarse maps.

    Attributes:
        size: side of a square in pixels.

    >>> Pooling(2)(torch.tensor([[[1.0, 3.0, 8.0], [5.0, 7.0, 0.0]]])).tolist()
    [[[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]]]
    """

    size: int = 16

    def __call__(self, maps: Tensor) -> Tensor:
        """Maps (B, H, W) of the same size."""
        height, width = maps.shape[1:]
        means = F.avg_pool2d(maps[:, None], self.size, ceil_mode=True)[:, 0]
        for axis in (1, 2):
            means = means.repeat_interleave(self.size, dim=axis)
        return means[:, :height, :width]


def _cones(images: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """(B, H, W) on the images' device and in their type."""
    height, width = images.shape[2:]
    down = torch.arange(height) - torch.tensor(rows)[:, None]
    across = torch.arange(width) - torch.tensor(columns)[:, None]
    distance = (down.double().square()[:, :, None] + across.double().square()[:, None, :]).sqrt()
    return (1 - distance / distance.flatten(1).amax(dim=1).clamp(min=1)[:, None, None]).to(images)
