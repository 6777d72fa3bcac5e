"""Powers, exponentials and logarithms: what generalised means are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from typing import ClassVar

import torch
from torch import Tensor

from clarp.operations.activation import Activation
from clarp.operations.base import Interval, Kept, Operation, Record, Tensors
from clarp.operations.elementwise import Elementwise


@dataclass(frozen=True)
class Absolute(Activation):
    """``abs(x)``."""

    dip: ClassVar[float] = 0.0

    def function(self, x: Tensor) -> Tensor:
        """``abs(x)``."""
        return x.abs()

    def slope(self, x: Tensor) -> Tensor:
        """The sign of x."""
        return x.sign()

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """The sizes of the ends, and zero where it is between them."""
        del tensors
        low, high = inputs[0]
        return (0.0 if low < 0 < high else min(abs(low), abs(high))), max(abs(low), abs(high))


@dataclass(frozen=True)
class Exp(Activation):
    """``exp(x)``."""

    def function(self, x: Tensor) -> Tensor:
        """``exp(x)``."""
        return x.exp()

    def slope(self, x: Tensor) -> Tensor:
        """``exp(x)``."""
        return x.exp()


@dataclass(frozen=True)
class LogOdds(Activation):
    """``log(x) - log(1 - x)`` of a probability x, as near to 0 and 1 as its type can tell."""

    def function(self, x: Tensor) -> Tensor:
        """The logit."""
        return self._inside(x).logit()

    def slope(self, x: Tensor) -> Tensor:
        """``1 / (x (1 - x))``."""
        x = self._inside(x)
        return (x * (1 - x)).reciprocal()

    @staticmethod
    def _inside(x: Tensor) -> Tensor:
        least = torch.finfo(x.dtype).eps / 2
        return x.clamp(least, 1 - least)


@dataclass(frozen=True)
class Log(Activation):
    """``log(x)``, the natural logarithm."""

    def function(self, x: Tensor) -> Tensor:
        """``log(x)``."""
        return x.log()

    def slope(self, x: Tensor) -> Tensor:
        """``1 / x``, zero where x is zero."""
        return x.reciprocal().masked_fill_(x == 0, 0)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Of both ends."""
        del tensors
        low, high = (-inf if end <= 0 else inf if end == inf else log(end) for end in inputs[0])
        return low, high


@dataclass(frozen=True)
class RealPower(Elementwise):
    """``x^p`` for any p above zero, as in a generalised mean (GeM).

    Attributes:
        exponent: the name of p, (1, ...), among the graph's tensors; it broadcasts over x.
    """

    exponent: str
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``x^p``."""
        return inputs[0] ** tensors[self.exponent], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g p x^(p - 1)``, zero where that is infinite: x is zero and p below one."""
        x, p = record.input(), tensors[self.exponent]
        return (gradient * (p * x ** (p - 1)).masked_fill((x == 0) & (p < 1), 0),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """What is not negative stays so; it grows with x there."""
        low, high = inputs[0]
        if low < 0:
            return -inf, inf
        p = tensors[self.exponent].double().flatten().tolist()
        ends = [(min(low**q for q in p)), max(inf if high == inf else high**q for q in p)]
        return ends[0], ends[1]


@dataclass(frozen=True)
class LogSumExp(Operation):
    """``y = log sum_i exp(x_i)`` over these axes (negative, counted from the end): a maximum with soft edges."""

    axes: tuple[int, ...]
    keepdim: bool
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``y``."""
        del tensors
        return torch.logsumexp(inputs[0], self.axes, keepdim=self.keepdim), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g exp(x_i - y)``, the softmax's shares of one."""
        del tensors
        x = record.input()
        shares = (x - torch.logsumexp(x, self.axes, keepdim=True)).exp()
        if not self.keepdim:
            for axis in sorted(self.axes, reverse=True):
                gradient = gradient.unsqueeze(axis)
        return (gradient * shares,)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """No less than the least value."""
        del tensors
        return inputs[0][0], inf
