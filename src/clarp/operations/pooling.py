"""Pooling that is not linear."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clarp.operations.base import Operation, Record, Tensors, over_seeds


@dataclass(frozen=True)
class MaxPool(Operation):
    """``torch.nn.functional.max_pool2d`` with these arguments; remembers the winners, ties go to the first."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        """The maximum of each window, and where it was."""
        del tensors
        y, winners = F.max_pool2d(
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
        like = gradient.new_empty(()).expand(winners.shape[0], *record.shapes[0][1:])

        def back(g: Tensor) -> Tensor:
            return torch.ops.aten.max_pool2d_with_indices_backward.default(
                g, like, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode, winners
            )

        return (over_seeds(back, gradient),)

    def keeps_sign(self, signs: Sequence[bool]) -> bool:
        """The maximum of non-negative values is non-negative."""
        return all(signs)
