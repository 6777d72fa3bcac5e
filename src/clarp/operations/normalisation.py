"""Normalisations by statistics of the value itself: layer, group and instance norm, RMS norm."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from clarp.operations.base import Kept, Operation, Record, Tensors


@dataclass(frozen=True)
class Normalisation(Operation):
    """``w (x - m(x)) / d(x) + b`` with the mean m and the deviation d over groups of the value's elements.

    Attributes:
        weight: the name of w among the graph's tensors, or None for 1.
        bias: the name of b, or None for 0.
        eps: what is added under the root of d.
    """

    weight: str | None
    bias: str | None
    eps: float
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})
    centred: ClassVar[bool] = True

    @abstractmethod
    def grouped(self, x: Tensor, axes: int) -> Tensor:
        """A value of this many axes, perhaps with more before them, as (..., groups, elements)."""

    @abstractmethod
    def shaped(self, parameter: Tensor, axes: int) -> Tensor:
        """A weight or bias in a shape that broadcasts over a value of this many axes."""

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``(g' - mean(g') - y mean(g' y)) / d`` with ``g' = w g`` and ``y = (x - m) / d``; without ``mean(g')`` where there is no m."""
        axes = len(record.shapes[0])
        if self.weight is not None:
            gradient = gradient * self.shaped(tensors[self.weight], axes)
        x, g = self.grouped(record.input(), axes), self.grouped(gradient, axes)
        if self.centred:
            x, g = x - x.mean(-1, keepdim=True), g - g.mean(-1, keepdim=True)
        scale = (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        y = x * scale
        return (((g - y * (g * y).mean(-1, keepdim=True)) * scale).reshape(gradient.shape),)


@dataclass(frozen=True)
class LayerNorm(Normalisation):
    """``w (x - mean) / sqrt(variance + eps) + b``, both over the last axes, of the shape of w and b.

    Attributes:
        shape: of the last axes.
    """

    shape: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The layer norm."""
        weight, bias = (None if name is None else tensors[name] for name in (self.weight, self.bias))
        return F.layer_norm(inputs[0], self.shape, weight, bias, self.eps), None

    def grouped(self, x: Tensor, axes: int) -> Tensor:
        """All of the last axes are one group."""
        del axes
        return x.flatten(-len(self.shape)).unsqueeze(-2)

    def shaped(self, parameter: Tensor, axes: int) -> Tensor:
        """As it is: its axes are the last."""
        del axes
        return parameter


@dataclass(frozen=True)
class RMSNorm(LayerNorm):
    """``w x / sqrt(mean(x^2) + eps)``, over the last axes, of the shape of w."""

    centred: ClassVar[bool] = False

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The RMS norm."""
        weight = None if self.weight is None else tensors[self.weight]
        return F.rms_norm(inputs[0], self.shape, weight, self.eps), None


@dataclass(frozen=True)
class GroupNorm(Normalisation):
    """``w (x - mean) / sqrt(variance + eps) + b`` over groups of channels (axis 1); an instance norm has a group for each.

    Attributes:
        groups: the number of groups.
    """

    groups: int

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The group norm."""
        weight, bias = (None if name is None else tensors[name] for name in (self.weight, self.bias))
        return F.group_norm(inputs[0], self.groups, weight, bias, self.eps), None

    def grouped(self, x: Tensor, axes: int) -> Tensor:
        """The channels of a group and all their positions."""
        return x.unflatten(1 - axes, (self.groups, -1)).flatten(1 - axes)

    def shaped(self, parameter: Tensor, axes: int) -> Tensor:
        """(C,) as (C, 1, ...)."""
        return parameter.view(-1, *(1,) * (axes - 2))
