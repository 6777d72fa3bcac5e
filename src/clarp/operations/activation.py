"""Smooth and piecewise activations: each is its formula and the derivative of it."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clarp.operations.base import Interval, Kept, Record, Tensors
from clarp.operations.elementwise import Elementwise


class Activation(Elementwise):
    """``y = f(x)``.

    Attributes:
        dip: the least value that f has anywhere where it is not monotone; None where it never falls.
    """

    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})
    dip: ClassVar[float | None] = None

    @abstractmethod
    def function(self, x: Tensor) -> Tensor:
        """``f(x)``."""

    @abstractmethod
    def slope(self, x: Tensor) -> Tensor:
        """``f'(x)``, in memory of its own; where ATen has it, in one pass over memory."""

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``f(x)``."""
        del tensors
        return self.function(inputs[0]), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g f'(x)``."""
        del tensors
        slope = self.slope(record.input())
        if len(gradient) > 1:
            return (gradient * slope,)
        return (slope.mul_(gradient[0]).unsqueeze(0),)  # fresh memory costs more than the product

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """F at both ends and at its bend in zero; where f dips, no less than its least value."""
        del tensors
        low, high = inputs[0]
        ends = [low, high, 0.0] if low < 0 < high else [low, high]
        values = self.function(torch.tensor(ends, dtype=torch.float64)).tolist()
        if self.dip is not None and low < 0:
            return self.dip, max(values[1], 0.0)
        return min(values), max(values)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """``1 / (1 + exp(-x))``."""

    def function(self, x: Tensor) -> Tensor:
        """``s``."""
        return x.sigmoid()

    def slope(self, x: Tensor) -> Tensor:
        """``s (1 - s)``."""
        s = x.sigmoid()
        return s * (1 - s)


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """``min(max(x + 3, 0), 6) / 6``."""

    def function(self, x: Tensor) -> Tensor:
        """The straight line from 0 to 1."""
        return (x + 3).clamp(0, 6) / 6

    def slope(self, x: Tensor) -> Tensor:
        """``1[-3 < x < 3] / 6``."""
        return (x.abs() < 3).to(x) / 6


@dataclass(frozen=True)
class Tanh(Activation):
    """``tanh(x)``."""

    def function(self, x: Tensor) -> Tensor:
        """``tanh(x)``."""
        return x.tanh()

    def slope(self, x: Tensor) -> Tensor:
        """``1 - tanh(x)^2``."""
        return 1 - x.tanh().square()


@dataclass(frozen=True)
class Erf(Activation):
    """``2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x``."""

    def function(self, x: Tensor) -> Tensor:
        """``erf(x)``."""
        return x.erf()

    def slope(self, x: Tensor) -> Tensor:
        """``2 / sqrt(pi) exp(-x^2)``."""
        return 2 / sqrt(pi) * (-x.square()).exp()


@dataclass(frozen=True)
class SiLU(Activation):
    """``x / (1 + exp(-x))``, also called swish."""

    dip: ClassVar[float] = -0.2785

    def function(self, x: Tensor) -> Tensor:
        """``x s``."""
        return F.silu(x)

    def slope(self, x: Tensor) -> Tensor:
        """``s (1 + x (1 - s))`` with the sigmoid s."""
        return torch.ops.aten.silu_backward.default(x.new_ones(()), x)


@dataclass(frozen=True)
class HardSwish(Activation):
    """``x min(max(x + 3, 0), 6) / 6``."""

    dip: ClassVar[float] = -0.375

    def function(self, x: Tensor) -> Tensor:
        """``x`` times its hard sigmoid."""
        return F.hardswish(x)

    def slope(self, x: Tensor) -> Tensor:
        """``x / 3 + 1 / 2`` between -3 and 3, 0 before and 1 behind."""
        return torch.ops.aten.hardswish_backward.default(x.new_ones(()), x)


@dataclass(frozen=True)
class GELU(Activation):
    """``x P(x)`` with P the distribution function of the normal distribution, or its approximation by a tanh.

    Attributes:
        approximate: "none" or "tanh".
    """

    approximate: str
    dip: ClassVar[float] = -0.1701

    def function(self, x: Tensor) -> Tensor:
        """``x P(x)``."""
        return F.gelu(x, approximate=self.approximate)

    def slope(self, x: Tensor) -> Tensor:
        """``P(x) + x p(x)`` with p the derivative of P."""
        ones = torch.ones_like(x)  # oneDNN's does not broadcast
        return torch.ops.aten.gelu_backward.default(ones, x, approximate=self.approximate)


@dataclass(frozen=True)
class Mish(Activation):
    """``x tanh(log(1 + exp(x)))``."""

    dip: ClassVar[float] = -0.3089

    def function(self, x: Tensor) -> Tensor:
        """``x tanh(softplus(x))``."""
        return F.mish(x)

    def slope(self, x: Tensor) -> Tensor:
        """``t + x s (1 - t^2)`` with ``t = tanh(softplus(x))`` and the sigmoid s."""
        return torch.ops.aten.mish_backward.default(x.new_ones(()), x)


@dataclass(frozen=True)
class Softplus(Activation):
    """``log(1 + exp(beta x)) / beta``, and x itself where ``beta x`` is above the threshold."""

    beta: float
    threshold: float

    def function(self, x: Tensor) -> Tensor:
        """The soft ramp."""
        return F.softplus(x, self.beta, self.threshold)

    def slope(self, x: Tensor) -> Tensor:
        """The sigmoid of ``beta x``, 1 above the threshold."""
        return (self.beta * x).sigmoid().masked_fill(self.beta * x > self.threshold, 1)


@dataclass(frozen=True)
class ELU(Activation):
    """``scale max(0, x) + scale alpha (exp(rate x) - 1)`` where x is negative: ELU, SELU, CELU."""

    alpha: float
    scale: float
    rate: float

    def function(self, x: Tensor) -> Tensor:
        """Straight above zero, an exponential below."""
        return torch.ops.aten.elu.default(x, self.alpha, self.scale, self.rate)

    def slope(self, x: Tensor) -> Tensor:
        """``scale`` above zero, ``scale alpha rate exp(rate x)`` below."""
        below = self.scale * self.alpha * self.rate * (self.rate * x.clamp(max=0)).exp()
        return below.masked_fill(x > 0, self.scale)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """``x``, and ``below x`` where it is negative."""

    below: float

    def function(self, x: Tensor) -> Tensor:
        """Two straight lines."""
        return F.leaky_relu(x, self.below)

    def slope(self, x: Tensor) -> Tensor:
        """1 above zero, ``below`` elsewhere."""
        return torch.where(x > 0, torch.ones_like(x), self.below)


@dataclass(frozen=True)
class LogSigmoid(Activation):
    """``-log(1 + exp(-x))``."""

    def function(self, x: Tensor) -> Tensor:
        """The logarithm of the sigmoid."""
        return F.logsigmoid(x)

    def slope(self, x: Tensor) -> Tensor:
        """The sigmoid of -x."""
        return (-x).sigmoid()


@dataclass(frozen=True)
class Sqrt(Activation):
    """``sqrt(x)``, as in a standard deviation."""

    def function(self, x: Tensor) -> Tensor:
        """``sqrt(x)``."""
        return x.clamp(min=0).sqrt()

    def slope(self, x: Tensor) -> Tensor:
        """``1 / (2 sqrt(x))``, zero where x is zero."""
        return 0.5 * x.clamp(min=0).sqrt().reciprocal().masked_fill(x <= 0, 0)


@dataclass(frozen=True)
class Reciprocal(Activation):
    """``1 / x``: a divisor, written as a factor."""

    def function(self, x: Tensor) -> Tensor:
        """``1 / x``."""
        return x.reciprocal()

    def slope(self, x: Tensor) -> Tensor:
        """``-1 / x^2``."""
        return -x.square().reciprocal()

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """The other way round, where the sign is known."""
        del tensors
        low, high = inputs[0]
        return (1 / high, 1 / low if low else torch.inf) if low >= 0 and high else (-torch.inf, torch.inf)


@dataclass(frozen=True)
class PReLU(Elementwise):
    """``x``, and ``w x`` where it is negative.

    Attributes:
        weight: the name of w among the graph's tensors; it broadcasts over (B, ...).
    """

    weight: str
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """Two straight lines."""
        x = inputs[0]
        return torch.where(x > 0, x, x * tensors[self.weight]), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g`` above zero, ``g w`` elsewhere."""
        return (gradient * torch.where(record.input() > 0, 1, tensors[self.weight]),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """What is not negative stays as it is."""
        del tensors
        low, high = inputs[0]
        return (low, high) if low >= 0 else (-torch.inf, torch.inf)


@dataclass(frozen=True)
class Power(Elementwise):
    """``x^n`` for a whole n of at least 1.

    Attributes:
        exponent: n.
    """

    exponent: int
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``x^n``."""
        del tensors
        return inputs[0] ** self.exponent, None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g n x^(n - 1)``."""
        del tensors
        return (gradient * (self.exponent * record.input() ** (self.exponent - 1)),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """An even power is not negative, and neither is one of a value that is not."""
        del tensors
        low, _ = inputs[0]
        return (0.0 if low >= 0 or self.exponent % 2 == 0 else -torch.inf), torch.inf
