"""Values taken from places that are computed: sampling at a grid, and what a max pooling left behind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clarp.operations.base import Interval, Kept, Operation, Record, Tensors, over_seeds

aten = torch.ops.aten


@dataclass(frozen=True)
class GridSample(Operation):
    """``torch.nn.functional.grid_sample`` of (N, C, H, W): linear in what is sampled, at a grid that is held constant.

    Attributes:
        mode: 0 bilinear, 1 nearest, 2 bicubic.
        padding: 0 zeros, 1 border, 2 reflection.
        align_corners: as in PyTorch.
        grid: the name of a constant grid (1, H', W', 2) among the graph's tensors; None: it is computed from the image.
    """

    mode: int
    padding: int
    align_corners: bool
    grid: str | None
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The samples."""
        grid = inputs[1] if self.grid is None else tensors[self.grid].expand(len(inputs[0]), -1, -1, -1)
        return aten.grid_sampler.default(inputs[0], grid, self.mode, self.padding, self.align_corners), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Back to the values around each sample, and to the grid where it is computed."""
        x = record.input(0)
        grid = record.input(1) if self.grid is None else tensors[self.grid].expand(len(x), -1, -1, -1)
        found = [self._back(g, x, grid) for g in gradient]
        parts = [torch.stack(part) for part in zip(*found, strict=True)]
        return tuple(parts if self.grid is None else parts[:1])

    def _back(self, g: Tensor, x: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(mode=False), torch.enable_grad():
            given = [value.clone().requires_grad_() for value in (x, grid)]
            y = aten.grid_sampler.default(*given, self.mode, self.padding, self.align_corners)
            first, second = torch.autograd.grad(y, given, g.clone())
        return first, second


@dataclass(frozen=True)
class Unpool(Operation):
    """``torch.nn.functional.max_unpool2d``: each value goes to the place of the winner in a max pooling, zeros elsewhere.

    The second input is what that pooling read, (N, C, H, W).

    Attributes:
        kernel: of the pooling.
        stride: likewise.
        padding: likewise.
        dilation: likewise.
        ceil_mode: likewise.
        size: of the output, (H', W').
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool
    size: tuple[int, int]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor]:
        """The values at their places, and the places."""
        del tensors
        _, places = F.max_pool2d(
            inputs[1],
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=True,
        )
        return aten.max_unpool2d.default(inputs[0].contiguous(), places.contiguous(), self.size), places

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """From the places; none to what only says where they are."""
        del tensors
        assert record.memo is not None
        places = record.memo.flatten(-2)

        def back(g: Tensor) -> Tensor:
            index = places.repeat(len(g) // len(places), 1, 1)
            return g.flatten(-2).gather(-1, index).unflatten(-1, record.memo.shape[-2:])  # type: ignore[union-attr]

        return over_seeds(back, gradient), gradient.new_zeros(()).expand(
            *gradient.shape[:2], *record.shapes[1][1:]
        )

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Of the values, and of the zeros."""
        del tensors
        return min(inputs[0][0], 0.0), max(inputs[0][1], 0.0)
