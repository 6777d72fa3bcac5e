"""Sums of products of a value with a constant, in Einstein's notation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from clarp.operations.average import AveragePool, Interpolate
from clarp.operations.base import Tensors
from clarp.operations.linear import Weight, WeightedLinear


@dataclass(frozen=True)
class Contraction(WeightedLinear):
    """``torch.einsum`` of a value x and a constant w: a matrix before the value, or another one at each position.

    Attributes:
        value: the letters of x's axes, the batch's first.
        constant: the letters of w's axes.
        result: the letters of the output's axes, the batch's first; each letter of x is here or in ``constant``.
    """

    value: str
    constant: str
    result: str

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``f(x, w)``."""
        return self.apply(inputs[0], tensors[self.weight]), None

    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        """``f(x, w)``."""
        return torch.einsum(f"{self.value},{self.constant}->{self.result}", x, weight)

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        """``f`` with x and the output exchanged."""
        del shape
        return torch.einsum(f"{self.result},{self.constant}->{self.value}", r, weight)


@dataclass(frozen=True)
class Resample(Contraction):
    """A contraction that makes new positions along one axis of the old ones, each a mean of those near it: an image in another size."""


RESIZING = (AveragePool, Interpolate, Resample)
"""What makes an image of another size: its pixels are pixels still."""
