"""Operations that treat every element on its own, and those of them that are made of straight lines."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from clarp.operations.base import Interval, Kept, Operation, Record, Tensors, may_overwrite
from clarp.operations.call import Call, Lowered, Refused, lowers, spelt

aten = torch.ops.aten


class Elementwise(Operation):
    """One element in, one element out: relevance passes unchanged."""

    rule: ClassVar[str] = "Pass"


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
        return self.function(inputs[0]), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        slope = self.slope(record.input())
        if gradient.shape[0] > 1 or not may_overwrite(gradient, slope):
            return (gradient * slope,)
        return (slope.mul_(gradient[0]).unsqueeze(0),)  # fresh memory costs more than the product

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """F at both ends and at its bend in zero; where f dips, no less than its least value."""
        low, high = inputs[0]
        ends = [low, high, 0.0] if low < 0 < high else [low, high]
        values = self.function(torch.tensor(ends, dtype=torch.float64)).tolist()
        if self.dip is not None and low < 0:
            return self.dip, max(values[1], 0.0)
        return min(values), max(values)


class Rectifier(Elementwise):
    """An elementwise operation whose gradient reads the output only, so that the input may be overwritten."""

    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"output"})

    @abstractmethod
    def overwrite(self, x: Tensor) -> Tensor:
        """The output, in the memory of the input."""


@spelt(aten.relu.default)
@dataclass(frozen=True)
class ReLU(Rectifier):
    """``max(0, x)``."""

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0].relu(), None

    def overwrite(self, x: Tensor) -> Tensor:
        return x.relu_()

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return (aten.threshold_backward.default(gradient, record.result().expand_as(gradient), 0),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return max(inputs[0][0], 0.0), max(inputs[0][1], 0.0)


@spelt(aten.hardtanh.default, fields=("min_val", "max_val"))
@dataclass(frozen=True)
class HardTanh(Rectifier):
    """``min(max(x, low), high)``: ReLU6, Hardtanh, clamp."""

    low: float
    high: float

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0].clamp(self.low, self.high), None

    def overwrite(self, x: Tensor) -> Tensor:
        return x.clamp_(self.low, self.high)

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        y = record.result()
        return (gradient * ((y > self.low) & (y < self.high)),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        low, high = (min(max(end, self.low), self.high) for end in inputs[0])
        return low, high


@lowers(aten.relu6.default)
def _relu6(call: Call) -> Lowered:
    return HardTanh(0.0, 6.0), (call.value("self"),)


@lowers(
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
    aten.clamp.Tensor,
    aten.clip.default,
    aten.clip.Tensor,
)
def _clamp(call: Call) -> Lowered:
    """Bounds are numbers, or constants of one element; `clamp(min=0)` is a ReLU."""
    x, low, high = call.value("self"), _number(call, "min"), _number(call, "max")
    return clamped(x, -inf if low is None else low, inf if high is None else high)


def clamped(x: fx.Node | str, low: float = -inf, high: float = inf) -> Lowered:
    """A value between two numbers."""
    return (ReLU() if (low, high) == (0, inf) else HardTanh(low, high)), (x,)


def _number(call: Call, name: str) -> float | None:
    value = call.arguments.get(name)
    if not isinstance(value, fx.Node):
        return None if value is None else float(value)
    constant = call.constants.get(value.name)
    if constant is None or constant.numel() != 1:
        raise Refused(
            f"its {name} is a tensor of several values, or computed from the image, expected a number"
        )
    return float(constant.item())


@spelt(aten.leaky_relu.default, fields=("negative_slope",))
@dataclass(frozen=True)
class LeakyReLU(Activation):
    """``x``, and ``below x`` where it is negative."""

    below: float

    def function(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.below)

    def slope(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, torch.ones_like(x), self.below)


@lowers(aten.rrelu.default)
def _rrelu(call: Call) -> Lowered:
    """In eval mode, with the mean of its slopes."""
    if call["training"]:
        raise Refused("its slopes are random: call model.eval() first")
    return LeakyReLU((float(call["lower"]) + float(call["upper"])) / 2), (call.value("self"),)


@dataclass(frozen=True)
class PReLU(Elementwise):
    """``x``, and ``w x`` where it is negative.

    Attributes:
        weight: the name of w among the graph's tensors; it broadcasts over (B, ...).
    """

    weight: str
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        x = inputs[0]
        return torch.where(x > 0, x, x * tensors[self.weight]), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return (gradient * torch.where(record.input() > 0, 1, tensors[self.weight]),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        low, high = inputs[0]
        return (low, high) if low >= 0 else (-inf, inf)


@lowers(aten.prelu.default)
def _prelu(call: Call) -> Lowered:
    """Constant weights."""
    x, weight = call.value("self"), call.constants[call.required("weight")]
    shape = [1] * (len(call.sizes()) + 1)
    shape[call.axis(1) if weight.numel() > 1 else -1] = -1
    return PReLU(call.new("weight", weight.view(shape))), (x,)


@spelt(aten.hardsigmoid.default)
@dataclass(frozen=True)
class HardSigmoid(Activation):
    """``min(max(x + 3, 0), 6) / 6``."""

    def function(self, x: Tensor) -> Tensor:
        return (x + 3).clamp(0, 6) / 6

    def slope(self, x: Tensor) -> Tensor:
        return (x.abs() < 3).to(x) / 6


@spelt(aten.hardswish.default)
@dataclass(frozen=True)
class HardSwish(Activation):
    """``x min(max(x + 3, 0), 6) / 6``."""

    dip: ClassVar[float] = -0.375

    def function(self, x: Tensor) -> Tensor:
        return F.hardswish(x)

    def slope(self, x: Tensor) -> Tensor:
        """``x / 3 + 1 / 2`` between -3 and 3, 0 before and 1 behind."""
        return aten.hardswish_backward.default(x.new_ones(()), x)


class Passing(Elementwise):
    """An operation whose slope is 1 where something holds, which ``forward`` remembers, and 0 elsewhere."""

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return (gradient * record.remembered(),)


@spelt(aten.threshold.default, fields=("threshold", "value"))
@dataclass(frozen=True)
class Threshold(Passing):
    """``x`` above a threshold, a constant elsewhere.

    Attributes:
        threshold: what x must be above.
        value: the constant.
    """

    threshold: float
    value: float

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor]:
        above = inputs[0] > self.threshold
        return torch.where(above, inputs[0], self.value), above

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        low, high = inputs[0]
        return min(self.value, max(low, self.threshold)), max(self.value, high)


@dataclass(frozen=True)
class Shrink(Passing):
    """Zero where ``abs(x)`` is at most a limit; elsewhere x, or if soft x nearer to zero by the limit."""

    limit: float
    soft: bool

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor]:
        x = inputs[0]
        outside = x.abs() > self.limit
        nearer = x - x.clamp(-self.limit, self.limit) if self.soft else x
        return torch.where(outside, nearer, 0.0), outside

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return min(inputs[0][0], 0.0), max(inputs[0][1], 0.0)


@lowers(aten.hardshrink.default, aten.softshrink.default)
def _shrink(call: Call) -> Lowered:
    return Shrink(float(call["lambd"]), call.node.target is aten.softshrink.default), (call.value("self"),)
