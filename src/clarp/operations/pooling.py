"""Pooling that is not linear: the greatest of several values, and their length as a vector."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clarp.operations.base import Interval, Kept, Operation, Record, Tensors, over_seeds, stand_in

aten = torch.ops.aten


class Maximum(Operation):
    """The greatest of several values; remembers the winners, ties go to the first."""

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """A maximum is one of the values."""
        del tensors
        return inputs[0]


@dataclass(frozen=True)
class MaxPool(Maximum):
    """``torch.nn.functional.max_pool2d`` or ``max_pool3d`` with these arguments; remembers the winners, ties go to the first."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        """The maximum of each window, and where it was."""
        del tensors
        pool: Callable[..., Any] = F.max_pool2d if len(self.kernel) == 2 else F.max_pool3d
        y, winners = pool(
            inputs[0],
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=True,
        )
        return y, winners

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Everything to the winner of each window."""
        del tensors
        assert record.memo is not None
        winners = record.memo.expand(gradient.shape).flatten(0, 1)
        backward = (
            aten.max_pool2d_with_indices_backward
            if len(self.kernel) == 2
            else aten.max_pool3d_with_indices_backward
        )

        def back(g: Tensor) -> Tensor:
            result: Tensor = backward.default(
                g,
                stand_in(g, record.shapes[0]),
                self.kernel,
                self.stride,
                self.padding,
                self.dilation,
                self.ceil_mode,
                winners,
            )
            return result

        return (over_seeds(back, gradient),)


@dataclass(frozen=True)
class AdaptiveMax(Maximum):
    """``torch.nn.functional.adaptive_max_pool2d`` or ``adaptive_max_pool3d`` to this size; remembers the winners, ties go to the first."""

    size: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        """The maximum of each window, and where it was."""
        del tensors
        pool: Callable[..., Any] = F.adaptive_max_pool2d if len(self.size) == 2 else F.adaptive_max_pool3d
        y, winners = pool(inputs[0], self.size, return_indices=True)
        return y, winners

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Everything to the winner of each window."""
        del tensors
        assert record.memo is not None
        axes = len(self.size)
        back = gradient.new_zeros(*gradient.shape[:2], *record.shapes[0][1:]).flatten(-axes)
        winners = record.memo.flatten(-axes).expand(*gradient.shape[:-axes], -1)
        back.scatter_add_(-1, winners, gradient.flatten(-axes))
        return (back.unflatten(-1, record.shapes[0][-axes:]),)


@dataclass(frozen=True)
class Max(Maximum):
    """The greatest value along one axis; remembers the winners, ties go to the first.

    Attributes:
        axis: negative, counted from the end.
        keepdim: whether an axis of size one stays.
    """

    axis: int
    keepdim: bool

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        """The maximum, and where it was."""
        del tensors
        y, winners = inputs[0].max(self.axis, keepdim=True)
        return (y if self.keepdim else y.squeeze(self.axis)), winners

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Everything to the winner."""
        del tensors
        assert record.memo is not None
        g = gradient if self.keepdim else gradient.unsqueeze(self.axis)
        back = gradient.new_zeros(*gradient.shape[:2], *record.shapes[0][1:])
        return (back.scatter_(self.axis, record.memo.expand(g.shape), g),)


@dataclass(frozen=True)
class VectorNorm(Operation):
    """``n = sqrt(sum_i x_i^2)`` over these axes (negative, counted from the end): what ``F.normalize`` divides by."""

    axes: tuple[int, ...]
    keepdim: bool
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The length."""
        del tensors
        return torch.linalg.vector_norm(inputs[0], dim=self.axes, keepdim=self.keepdim), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g x / n``, zero where n is zero."""
        del tensors
        x = record.input()
        length = torch.linalg.vector_norm(x, dim=self.axes, keepdim=True)
        return (self.spread(gradient) * (x / length.masked_fill(length == 0, torch.inf)),)

    def spread(self, value: Tensor) -> Tensor:
        """A value of the output in a shape that broadcasts over the input."""
        if self.keepdim:
            return value
        for axis in sorted(self.axes, reverse=True):
            value = value.unsqueeze(axis)
        return value

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Never negative."""
        del inputs, tensors
        return 0.0, torch.inf


@dataclass(frozen=True)
class TopK(Maximum):
    """The k greatest values along one axis, the greatest first; remembers where they were.

    Attributes:
        k: how many.
        axis: negative, counted from the end.
        largest: False for the least, the least first.
    """

    k: int
    axis: int
    largest: bool

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        """The values, and their places."""
        del tensors
        y, places = inputs[0].topk(self.k, self.axis, largest=self.largest, sorted=True)
        return y, places

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """To the places that the values are from."""
        del tensors
        assert record.memo is not None
        back = gradient.new_zeros(*gradient.shape[:2], *record.shapes[0][1:])
        return (back.scatter_(self.axis, record.memo.expand(gradient.shape), gradient),)
