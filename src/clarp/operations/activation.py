"""Smooth activations: each is its spelling in ATen, its formula and the derivative of it."""

from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clarp.operations.call import Call, Lowered, lowers, spelt
from clarp.operations.elementwise import Activation
from clarp.operations.indexing import Slice
from clarp.operations.merge import Multiply

aten = torch.ops.aten

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@spelt(aten.sigmoid.default, aten.special_expit.default)
@dataclass(frozen=True)
class Sigmoid(Activation):
    """``1 / (1 + exp(-x))``."""

    def function(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def slope(self, x: Tensor) -> Tensor:
        return aten.sigmoid_backward.default(x.new_ones(()), x.sigmoid())


@spelt(aten.tanh.default)
@dataclass(frozen=True)
class Tanh(Activation):
    """``tanh(x)``."""

    def function(self, x: Tensor) -> Tensor:
        return x.tanh()

    def slope(self, x: Tensor) -> Tensor:
        return 1 - x.tanh().square()


@spelt(aten.atan.default, aten.arctan.default)
@dataclass(frozen=True)
class Atan(Activation):
    """``arctan(x)``."""

    def function(self, x: Tensor) -> Tensor:
        return x.atan()

    def slope(self, x: Tensor) -> Tensor:
        return (1 + x.square()).reciprocal()


@spelt(aten.erf.default, aten.special_erf.default)
@dataclass(frozen=True)
class Erf(Activation):
    """``2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x``."""

    def function(self, x: Tensor) -> Tensor:
        return x.erf()

    def slope(self, x: Tensor) -> Tensor:
        """``2 / sqrt(pi) exp(-x^2)``."""
        return 2 / sqrt(pi) * (-x.square()).exp()


@spelt(aten.silu.default)
@dataclass(frozen=True)
class SiLU(Activation):
    """``x / (1 + exp(-x))``, also called swish."""

    dip: ClassVar[float] = -0.2785

    def function(self, x: Tensor) -> Tensor:
        return F.silu(x)

    def slope(self, x: Tensor) -> Tensor:
        """``s (1 + x (1 - s))`` with the sigmoid s."""
        return aten.silu_backward.default(x.new_ones(()), x)


@spelt(aten.gelu.default, fields=("approximate",))
@dataclass(frozen=True)
class GELU(Activation):
    """``x P(x)`` with P the distribution function of the normal distribution, or its approximation by a tanh.

    Attributes:
        approximate: "none" or "tanh".
    """

    approximate: str
    dip: ClassVar[float] = -0.1701

    def function(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate=self.approximate)

    def slope(self, x: Tensor) -> Tensor:
        """``P(x) + x p(x)`` with p the derivative of P."""
        ones = torch.ones_like(x)  # oneDNN's does not broadcast
        return aten.gelu_backward.default(ones, x, approximate=self.approximate)


@spelt(aten.mish.default)
@dataclass(frozen=True)
class Mish(Activation):
    """``x tanh(log(1 + exp(x)))``."""

    dip: ClassVar[float] = -0.3089

    def function(self, x: Tensor) -> Tensor:
        return F.mish(x)

    def slope(self, x: Tensor) -> Tensor:
        """``t + x s (1 - t^2)`` with ``t = tanh(softplus(x))`` and the sigmoid s."""
        return aten.mish_backward.default(x.new_ones(()), x)


@spelt(aten.softplus.default, fields=("beta", "threshold"))
@dataclass(frozen=True)
class Softplus(Activation):
    """``log(1 + exp(beta x)) / beta``, and x itself where ``beta x`` is above the threshold."""

    beta: float
    threshold: float

    def function(self, x: Tensor) -> Tensor:
        return F.softplus(x, self.beta, self.threshold)

    def slope(self, x: Tensor) -> Tensor:
        """The sigmoid of ``beta x``, 1 above the threshold."""
        return (self.beta * x).sigmoid().masked_fill(self.beta * x > self.threshold, 1)


@spelt(aten.elu.default, fields=("alpha", "scale", "input_scale"))
@dataclass(frozen=True)
class ELU(Activation):
    """``scale max(0, x) + scale alpha (exp(rate x) - 1)`` where x is negative: ELU, SELU, CELU."""

    alpha: float
    scale: float
    rate: float

    def function(self, x: Tensor) -> Tensor:
        return aten.elu.default(x, self.alpha, self.scale, self.rate)

    def slope(self, x: Tensor) -> Tensor:
        """``scale`` above zero, ``scale alpha rate exp(rate x)`` below."""
        below = self.scale * self.alpha * self.rate * (self.rate * x.clamp(max=0)).exp()
        return below.masked_fill(x > 0, self.scale)


@spelt(aten.log_sigmoid.default)
@dataclass(frozen=True)
class LogSigmoid(Activation):
    """``-log(1 + exp(-x))``."""

    def function(self, x: Tensor) -> Tensor:
        return F.logsigmoid(x)

    def slope(self, x: Tensor) -> Tensor:
        return (-x).sigmoid()


@lowers(aten.selu.default)
def _selu(call: Call) -> Lowered:
    return ELU(SELU_ALPHA, SELU_SCALE, 1.0), (call.value("self"),)


@lowers(aten.celu.default)
def _celu(call: Call) -> Lowered:
    return ELU(float(call["alpha"]), 1.0, 1 / float(call["alpha"])), (call.value("self"),)


@lowers(aten.glu.default)
def _glu(call: Call) -> Lowered:
    """One half of the channels is the gate of the other half."""
    x, shape = call.value("self"), call.sizes()
    axis = call.axis(call["dim"])
    size = shape[axis - 1]
    signal, gate = (call.step(Slice(axis, first, first + size, 1), (x,), shape) for first in (0, size))
    return Multiply(), (signal, call.step(Sigmoid(), (gate,), shape))
