"""Linear operations with fixed weights: average poolings, means, interpolations, folding."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Size, Tensor

from clarp.operations.base import Interval, Tensors, stand_in
from clarp.operations.linear import Linear, Weight

aten = torch.ops.aten


class Average(Linear):
    """A linear operation whose weights are fixed and non-negative; the weight argument is a gain on all of them."""

    @abstractmethod
    def average(self, x: Tensor) -> Tensor:
        """The average, (N, ...) to (N, ...)."""

    @abstractmethod
    def spread(self, r: Tensor, shape: Size) -> Tensor:
        """The average transposed."""

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The average."""
        del tensors
        return self.average(inputs[0]), None

    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        """``w`` times the average."""
        y = self.average(x)
        return y if weight == 1.0 else y * weight

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        """``w`` times the average transposed."""
        return self.spread(r if weight == 1.0 else r * weight, shape)

    def parameters(self, tensors: Tensors) -> tuple[Weight, Tensor | None]:
        """A gain of one, and no bias."""
        del tensors
        return 1.0, None

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """An average lies between what it averages; padding averages zeros too."""
        del tensors
        return min(inputs[0][0], 0.0), max(inputs[0][1], 0.0)


@dataclass(frozen=True)
class AveragePool(Average):
    """``torch.nn.functional.avg_pool2d`` or ``avg_pool3d`` with these arguments."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None

    def average(self, x: Tensor) -> Tensor:
        """The mean of each window."""
        pool = F.avg_pool2d if len(self.kernel) == 2 else F.avg_pool3d
        return pool(x, *self._arguments())

    def spread(self, r: Tensor, shape: Size) -> Tensor:
        """Each output's value, divided over its window."""
        like = stand_in(r, shape)
        back = aten.avg_pool2d_backward if len(self.kernel) == 2 else aten.avg_pool3d_backward
        spread: Tensor = back.default(r, like, *self._arguments())
        return spread

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """An average lies between what it averages, unless it is divided by another number."""
        low, high = super().interval(inputs, tensors)
        return (low, high) if self.divisor_override is None else (-inf if low < 0 else 0.0, inf)

    def _arguments(
        self,
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool, bool, int | None]:
        return (
            self.kernel,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


@dataclass(frozen=True)
class AdaptiveAverage(Average):
    """``torch.nn.functional.adaptive_avg_pool2d`` or ``adaptive_avg_pool3d`` to this size."""

    size: tuple[int, ...]

    def average(self, x: Tensor) -> Tensor:
        """The mean of each adaptive window."""
        if len(self.size) == 2:
            return F.adaptive_avg_pool2d(x, (self.size[0], self.size[1]))
        return F.adaptive_avg_pool3d(x, (self.size[0], self.size[1], self.size[2]))

    def spread(self, r: Tensor, shape: Size) -> Tensor:
        """Each output's value, divided over its window."""
        like = stand_in(r, shape)
        if len(self.size) == 2:
            return aten._adaptive_avg_pool2d_backward.default(r, like)  # noqa: SLF001  an ATen name
        return aten._adaptive_avg_pool3d_backward.default(r, like)  # noqa: SLF001  an ATen name


@dataclass(frozen=True)
class Mean(Average):
    """The mean over these axes (negative, counted from the end)."""

    axes: tuple[int, ...]
    keepdim: bool

    def average(self, x: Tensor) -> Tensor:
        """The mean."""
        return x.mean(self.axes, keepdim=self.keepdim)

    def spread(self, r: Tensor, shape: Size) -> Tensor:
        """Each mean, divided over what it was taken of."""
        if not self.keepdim:
            for axis in sorted(len(shape) + a for a in self.axes):
                r = r.unsqueeze(axis)
        count = 1
        for axis in self.axes:
            count *= shape[axis]
        return (r / count).expand(r.shape[0], *shape[1:])


@dataclass(frozen=True)
class Interpolate(Average):
    """``torch.nn.functional.interpolate`` of (N, C, H, W) to this size by the nearest values.

    Attributes:
        mode: "nearest" or "nearest-exact".
        size: of the output, (H', W').
        scales: by how much each axis grows, where it is not the ratio of the sizes.
    """

    mode: str
    size: tuple[int, int]
    scales: tuple[float | None, float | None]

    def average(self, x: Tensor) -> Tensor:
        """Each output as the input nearest to it."""
        function, _ = self._functions()
        y: Tensor = function(x, self.size, *self.scales)
        return y

    def spread(self, r: Tensor, shape: Size) -> Tensor:
        """Each output's value to the input nearest to it."""
        _, backward = self._functions()
        x: Tensor = backward(r, self.size, (r.shape[0], *shape[1:]), *self.scales)
        return x

    def _functions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return {
            "nearest": (aten.upsample_nearest2d.default, aten.upsample_nearest2d_backward.default),
            "nearest-exact": (
                aten._upsample_nearest_exact2d.default,  # noqa: SLF001  an ATen name
                aten._upsample_nearest_exact2d_backward.default,  # noqa: SLF001  an ATen name
            ),
        }[self.mode]


@dataclass(frozen=True)
class Fold(Average):
    """``torch.nn.functional.fold`` of (N, C kernel, windows): each output is the sum of what overlapping windows say there."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    stride: tuple[int, ...]

    def average(self, x: Tensor) -> Tensor:
        """The windows in their places, added up."""
        return F.fold(x, self.size, self.kernel, self.dilation, self.padding, self.stride)

    def spread(self, r: Tensor, shape: Size) -> Tensor:
        """Each window's part of the image."""
        del shape
        return F.unfold(r, self.kernel, self.dilation, self.padding, self.stride)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """A sum of at most as many values as a window has places."""
        del tensors
        most = prod(self.kernel)
        return min(inputs[0][0] * most, 0.0), max(inputs[0][1] * most, 0.0)
