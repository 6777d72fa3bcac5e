"""Operations that treat every element on its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.operations.base import Interval, Kept, Operation, Record, Tensors


class Elementwise(Operation):
    """One element in, one element out: relevance passes unchanged."""


@dataclass(frozen=True)
class ReLU(Elementwise):
    """``max(0, x)``."""

    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"output"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``max(0, x)``."""
        del tensors
        return inputs[0].relu(), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g 1[y > 0]``."""
        del tensors
        return (torch.ops.aten.threshold_backward.default(gradient, record.result().expand_as(gradient), 0),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Never negative."""
        del tensors
        return max(inputs[0][0], 0.0), max(inputs[0][1], 0.0)


@dataclass(frozen=True)
class HardTanh(Elementwise):
    """``min(max(x, low), high)``: ReLU6, Hardtanh, clamp."""

    low: float
    high: float
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"output"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``min(max(x, low), high)``."""
        del tensors
        return inputs[0].clamp(self.low, self.high), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g 1[low < y < high]``."""
        del tensors
        y = record.result()
        return (gradient * ((y > self.low) & (y < self.high)),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """The input's, clamped."""
        del tensors
        low, high = (min(max(end, self.low), self.high) for end in inputs[0])
        return low, high
