"""Coverings: references that differ from an image in some of its cells only."""

from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import ceil
from operator import and_

import torch
from torch import Size, Tensor


@dataclass(frozen=True)
class Covering:
    """An image with every so many cells covered by its mean colour, once for each of their places.

    The image is divided into ``grid`` cells along each axis. Each reference covers cells that lie ``apart``
    cells from each other, so each cell is covered in exactly one of ``apart ** 2`` references of a photo, and
    its neighbours are there to be seen. ``apart`` of 1 is one reference that is covered everywhere; with
    ``apart = grid`` each reference covers one cell, as occlusion does.

    Attributes:
        grid: cells along each axis.
        apart: how many cells there are from one that is covered to the next.

    Raises:
        ValueError: they are no whole numbers, or not ``1 <= apart <= grid``.

    >>> Covering(4, 2).masks(Size((1, 1, 4, 4)), 1)[0].int().squeeze()
    tensor([[1, 0, 1, 0],
            [0, 0, 0, 0],
            [1, 0, 1, 0],
            [0, 0, 0, 0]], dtype=torch.int32)
    """

    grid: int = 7
    apart: int = 2

    def __post_init__(self) -> None:
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (self.grid, self.apart))
        if not (whole and 1 <= self.apart <= self.grid):
            raise ValueError(
                f"{self!r}: expected whole numbers with 1 <= apart <= grid, for example Covering(7, 2)."
            )

    def masks(self, shape: Size, channels: int, device: torch.device | None = None) -> list[Tensor]:
        """What each reference covers, bool, to be broadcast over images of this shape (B, ...).

        Args:
            shape: of the images.
            channels: their axis of channels, which is covered as a whole.
            device: where the masks are.
        """
        axes = [axis for axis in range(1, len(shape)) if axis != channels]
        return [
            reduce(and_, parts) for parts in product(*(self._along(axis, shape, device) for axis in axes))
        ]

    def _along(self, axis: int, shape: Size, device: torch.device | None) -> list[Tensor]:
        """What is covered along one axis, for each offset of the covered cells; a short axis has fewer."""
        side = ceil(shape[axis] / self.grid)
        cell = (torch.arange(shape[axis], device=device) // side).view(
            [-1 if other == axis else 1 for other in range(len(shape))]
        )
        return [cell % self.apart == offset for offset in range(min(self.apart, ceil(shape[axis] / side)))]

    def references(self, images: Tensor, channels: int) -> list[Tensor]:
        """The covered images, each (B, ...); what is covered has the mean of its image and channel."""
        axes = [axis for axis in range(1, images.ndim) if axis != channels]
        colour = images.mean(axes, keepdim=True) if axes else images
        return [torch.where(m, colour, images) for m in self.masks(images.shape, channels, images.device)]
