"""Powers, roots, exponentials and logarithms: what generalised means are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Any, ClassVar

import torch
from torch import Tensor

from clarp.operations.base import Interval, Kept, Operation, Record, Tensors
from clarp.operations.call import Call, Lowered, Refused, Value, lowers, spelt
from clarp.operations.elementwise import Activation, Elementwise, HardTanh
from clarp.operations.linear import line, scaled

aten = torch.ops.aten


@spelt(aten.sqrt.default)
@dataclass(frozen=True)
class Sqrt(Activation):
    """``sqrt(x)``, as in a standard deviation."""

    def function(self, x: Tensor) -> Tensor:
        return x.clamp(min=0).sqrt()

    def slope(self, x: Tensor) -> Tensor:
        """``1 / (2 sqrt(x))``, zero where x is zero."""
        return 0.5 * x.clamp(min=0).sqrt().reciprocal().masked_fill(x <= 0, 0)


@spelt(aten.reciprocal.default)
@dataclass(frozen=True)
class Reciprocal(Activation):
    """``1 / x``: a divisor, written as a factor."""

    rule: ClassVar[str] = "Hold"

    def function(self, x: Tensor) -> Tensor:
        return x.reciprocal()

    def slope(self, x: Tensor) -> Tensor:
        return -x.square().reciprocal()

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        low, high = inputs[0]
        return (1 / high, 1 / low if low else inf) if low >= 0 and high else (-inf, inf)


@dataclass(frozen=True)
class Power(Elementwise):
    """``x^n`` for a whole n of at least 1.

    Attributes:
        exponent: n.
    """

    exponent: int
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0] ** self.exponent, None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return (gradient * (self.exponent * record.input() ** (self.exponent - 1)),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        low, _ = inputs[0]
        return (0.0 if low >= 0 or self.exponent % 2 == 0 else -inf), inf


@spelt(aten.abs.default, aten.absolute.default)
@dataclass(frozen=True)
class Absolute(Activation):
    """``abs(x)``."""

    dip: ClassVar[float] = 0.0

    def function(self, x: Tensor) -> Tensor:
        return x.abs()

    def slope(self, x: Tensor) -> Tensor:
        return x.sign()

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        low, high = inputs[0]
        return (0.0 if low < 0 < high else min(abs(low), abs(high))), max(abs(low), abs(high))


@dataclass(frozen=True)
class Exp(Activation):
    """``exp(x)``."""

    def function(self, x: Tensor) -> Tensor:
        return x.exp()

    def slope(self, x: Tensor) -> Tensor:
        return x.exp()


@dataclass(frozen=True)
class LogOdds(Activation):
    """``log(x) - log(1 - x)`` of a probability x, as near to 0 and 1 as its type can tell."""

    def function(self, x: Tensor) -> Tensor:
        return self._inside(x).logit()

    def slope(self, x: Tensor) -> Tensor:
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
        return x.log()

    def slope(self, x: Tensor) -> Tensor:
        """``1 / x``, zero where x is zero."""
        return x.reciprocal().masked_fill(x == 0, 0)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
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
        return inputs[0] ** tensors[self.exponent], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g p x^(p - 1)``, zero where that is infinite: x is zero and p below one."""
        x, p = record.input(), tensors[self.exponent]
        return (gradient * (p * x ** (p - 1)).masked_fill((x == 0) & (p < 1), 0),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        low, high = inputs[0]
        if low < 0:
            return -inf, inf
        p = tensors[self.exponent].double().flatten().tolist()
        ends = [(min(low**q for q in p)), max(inf if high == inf else high**q for q in p)]
        return ends[0], ends[1]


@lowers(aten.pow.Tensor_Scalar, aten.square.default)
def _power(call: Call) -> Lowered:
    """Any exponent but zero. A negative exponent gives a ``Reciprocal``."""
    return _to_the(call, call.value("self"), float(call.arguments.get("exponent", 2)))


@lowers(aten.pow.Tensor_Tensor)
def _power_of_tensors(call: Call) -> Lowered:
    """The exponent is a constant (a learnt one, as in GeM)."""
    given: Any = call["exponent"]
    if given.name not in call.constants or call["self"].name in call.constants:
        raise Refused("the exponent is computed from the image, expected a constant")
    x, exponent = call.value("self"), call.constants[given.name]
    if call.sizes(x) != call.sizes():
        raise Refused("the exponent has more axes than what it is the exponent of, expected as many")
    if exponent.numel() == 1:
        return _to_the(call, x, float(exponent.item()))
    if not bool((exponent > 0).all()):
        raise Refused("some of its exponents are not above zero")
    return RealPower(call.new("exponent", call.aligned(exponent.double()))), (x,)


def _to_the(call: Call, x: Value, exponent: float) -> Lowered:
    if exponent == 0:
        raise Refused("the exponent is 0, so that it is one everywhere")
    operation = _power_above_zero(call, abs(exponent))
    if exponent > 0:
        return operation, (x,)
    return Reciprocal(), (x if exponent == -1 else call.step(operation, (x,), call.sizes()),)


def _power_above_zero(call: Call, exponent: float) -> Operation:
    if exponent == int(exponent):
        return Power(int(exponent))
    if exponent == 0.5:
        return Sqrt()
    return RealPower(call.number("exponent", exponent))


@lowers(aten.rsqrt.default)
def _rsqrt(call: Call) -> Lowered:
    """It becomes ``1 / sqrt(x)``."""
    return Reciprocal(), (call.step(Sqrt(), (call.value("self"),), call.sizes()),)


@lowers(
    aten.exp.default,
    aten.exp2.default,
    aten.special_exp2.default,
    aten.expm1.default,
    aten.special_expm1.default,
)
def _exponential(call: Call) -> Lowered:
    """To the base e or 2. ``expm1`` becomes ``exp`` and a shift by -1."""
    x: Value = call.value("self")
    if call.node.target in (aten.exp2.default, aten.special_exp2.default):
        x = scaled(call, x, log(2))
    if call.node.target in (aten.expm1.default, aten.special_expm1.default):
        exponential = call.step(Exp(), (x,), call.sizes())
        return line(call, 1.0, -1.0), (exponential,)
    return Exp(), (x,)


@lowers(aten.pow.Scalar)
def _exponential_of(call: Call) -> Lowered:
    """The base is a number above zero."""
    base = float(call["self"])
    if base <= 0:
        raise Refused(f"it is a power of {base}, expected one of a number above zero")
    return Exp(), (scaled(call, call.value("exponent"), log(base)),)


LOGARITHMS: dict[Any, float] = {
    aten.log.default: 1.0,
    aten.log2.default: 1 / log(2),
    aten.log10.default: 1 / log(10),
    aten.log1p.default: 1.0,
    aten.special_log1p.default: 1.0,
}


@lowers(*LOGARITHMS)
def _logarithm(call: Call) -> Lowered:
    """To any base. ``log1p`` becomes a shift by 1 and ``log``."""
    x: Value = call.value("self")
    if call.node.target in (aten.log1p.default, aten.special_log1p.default):
        x = call.step(line(call, 1.0, 1.0), (x,), call.sizes())
    factor = LOGARITHMS[call.node.target]
    if factor == 1:
        return Log(), (x,)
    logarithm = call.step(Log(), (x,), call.sizes())
    return line(call, factor), (logarithm,)


@lowers(aten.logit.default, aten.special_logit.default)
def _log_odds(call: Call) -> Lowered:
    """Of a probability, which a clamp may keep away from 0 and 1."""
    x: Value = call.value("self")
    if call["eps"] is not None:
        low = float(call["eps"])
        x = call.step(HardTanh(low, 1 - low), (x,), call.sizes())
    return LogOdds(), (x,)
