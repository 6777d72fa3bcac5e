"""Operations that treat every element on its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clarp.operations.base import Kept, Operation, Record, Tensors


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

    def keeps_sign(self, signs: Sequence[bool]) -> bool:
        """Never negative."""
        del signs
        return True


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

    def keeps_sign(self, signs: Sequence[bool]) -> bool:
        """Not negative if the lower bound is not, or the input is not and the upper bound neither."""
        return self.low >= 0 or (all(signs) and self.high >= 0)


@dataclass(frozen=True)
class Affine(Elementwise):
    """``s x + b`` per channel (axis 1): a batch norm that no neighbour could take in.

    Attributes:
        scale: the name of s (C,) among the graph's tensors.
        shift: the name of b (C,).
    """

    scale: str
    shift: str

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``s x + b``."""
        x = inputs[0]
        shape = (-1, *(1,) * (x.ndim - 2))
        return x * tensors[self.scale].view(shape) + tensors[self.shift].view(shape), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g s``."""
        shape = (-1, *(1,) * (len(record.shapes[0]) - 2))
        return (gradient * tensors[self.scale].view(shape),)
