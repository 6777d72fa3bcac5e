"""What attention is made of: products of two values, and the softmax."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from torch import Tensor

from clarp.operations.base import Interval, Kept, Operation, Record, Tensors, summed_to


@dataclass(frozen=True)
class MatMul(Operation):
    """``a @ b``: matrix products of two values, (B, ..., N, D) and (B, ..., D, M); the axes between broadcast."""

    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``a @ b``."""
        del tensors
        return inputs[0] @ inputs[1], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g b^T`` and ``a^T g``."""
        del tensors
        a, b = record.input(0), record.input(1)
        return summed_to(gradient @ b.mT, record.shapes[0]), summed_to(a.mT @ gradient, record.shapes[1])

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Products of non-negative matrices are non-negative."""
        del tensors
        return (0.0 if all(low >= 0 for low, _ in inputs) else -inf), inf


@dataclass(frozen=True)
class Softmax(Operation):
    """``s_i = exp(x_i) / sum_j exp(x_j)`` along one axis.

    Attributes:
        axis: negative, counted from the end.
    """

    axis: int
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"output"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``s``."""
        del tensors
        return inputs[0].softmax(self.axis), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``s_i (g_i - sum_j s_j g_j)``."""
        del tensors
        s = record.result()
        weighted = gradient * s
        return (weighted - s * weighted.sum(self.axis, keepdim=True),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Shares of one."""
        del inputs, tensors
        return 0.0, 1.0
