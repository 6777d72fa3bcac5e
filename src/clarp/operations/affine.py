"""A factor and a summand for every element."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from clarp.operations.base import Interval, Tensors
from clarp.operations.linear import Weight, WeightedLinear


@dataclass(frozen=True)
class Affine(WeightedLinear):
    """``w x + b`` with constants that broadcast over (B, ...): a batch norm or layer scale that no neighbour could take in."""

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``w x + b``."""
        y = inputs[0] * tensors[self.weight]
        return (y if self.bias is None else y + tensors[self.bias]), None

    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        """``w x``."""
        return x * weight

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        """``w r``."""
        del shape
        return r * weight

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """The least and the greatest of all its straight lines at both ends."""
        weight = tensors[self.weight].double()
        bias = weight.new_zeros(()) if self.bias is None else tensors[self.bias].double()
        ends = [(weight * end).masked_fill(weight == 0, 0) + bias for end in inputs[0]]
        return torch.minimum(*ends).min().item(), torch.maximum(*ends).max().item()
