"""Operations that treat every element on its own."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.operations.base import Interval, Kept, Operation, Record, Tensors


class Elementwise(Operation):
    """One element in, one element out: relevance passes unchanged."""


class Rectifier(Elementwise):
    """An elementwise operation whose gradient reads the output only, so that the input may be overwritten."""

    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"output"})

    @abstractmethod
    def overwrite(self, x: Tensor) -> Tensor:
        """The output, in the memory of the input."""


@dataclass(frozen=True)
class ReLU(Rectifier):
    """``max(0, x)``."""

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``max(0, x)``."""
        del tensors
        return inputs[0].relu(), None

    def overwrite(self, x: Tensor) -> Tensor:
        """The output, in the memory of the input."""
        return x.relu_()

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g 1[y > 0]``."""
        del tensors
        return (torch.ops.aten.threshold_backward.default(gradient, record.result().expand_as(gradient), 0),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Never negative."""
        del tensors
        return max(inputs[0][0], 0.0), max(inputs[0][1], 0.0)


@dataclass(frozen=True)
class HardTanh(Rectifier):
    """``min(max(x, low), high)``: ReLU6, Hardtanh, clamp."""

    low: float
    high: float

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``min(max(x, low), high)``."""
        del tensors
        return inputs[0].clamp(self.low, self.high), None

    def overwrite(self, x: Tensor) -> Tensor:
        """The output, in the memory of the input."""
        return x.clamp_(self.low, self.high)

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
