"""Sums, differences, products and quotients of two values, or of a value and a constant."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from clarp.operations.base import Interval, Kept, Operation, Record, Tensors
from clarp.operations.call import Call, Lowered, Refused, Value, lowers
from clarp.operations.linear import affine, line, scaled
from clarp.operations.power import Reciprocal
from clarp.operations.shape import Expand, stretched

aten = torch.ops.aten


@dataclass(frozen=True)
class Add(Operation):
    """``a + b``, of the same shape: the end of a residual block."""

    rule: ClassVar[str] = "residual"

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0] + inputs[1], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return gradient, gradient

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return inputs[0][0] + inputs[1][0], inputs[0][1] + inputs[1][1]


@dataclass(frozen=True)
class Shift(Operation):
    """``x + c`` with a constant that differs from place to place: a position embedding, a mask.

    Attributes:
        constant: the name of c, (1, ...), among the graph's tensors; it broadcasts over x.
    """

    rule: ClassVar[str] = "residual"
    rule_at_pixels: ClassVar[str | None] = "Pass"
    constant: str

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0] + tensors[self.constant], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return (gradient,)


@dataclass(frozen=True)
class Multiply(Operation):
    """``a b``, element by element, of the same shape: a gate and what it lets through, or two branches."""

    rule: ClassVar[str] = "factors"
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0] * inputs[1], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return gradient * record.input(1), gradient * record.input(0)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        ends = [a * b if a and b else 0.0 for a in inputs[0] for b in inputs[1]]
        return min(ends), max(ends)


@dataclass(frozen=True)
class Divide(Operation):
    """``a / b``, element by element, of the same shape: a value and what it is normalised by."""

    rule: ClassVar[str] = "Gate"
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0] / inputs[1], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g / b`` and ``-g a / b^2``."""
        a, b = record.input(0), record.input(1)
        return gradient / b, -gradient * a / b.square()

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return (0.0 if all(low >= 0 for low, _ in inputs) else -inf), inf


DIFFERENCES = (aten.sub.Tensor, aten.sub.Scalar, aten.subtract.Tensor, aten.subtract.Scalar)


@lowers(aten.add.Tensor, aten.add.Scalar, *DIFFERENCES, aten.rsub.Scalar, aten.rsub.Tensor)
def _sum(call: Call) -> Lowered:
    """Two values, of which one may broadcast over the other, or a value and a constant."""
    first, second, alpha = 1.0, 1.0, float(call.arguments.get("alpha", 1))
    if call.node.target in (aten.add.Tensor, aten.add.Scalar):
        second = alpha
    elif call.node.target in DIFFERENCES:
        second = -alpha
    else:
        first = -alpha
    constants = [name for name in ("self", "other") if is_constant(call, name)]
    if not constants:
        return Add(), tuple(
            scaled(call, broadcast(call, name), factor)
            for name, factor in (("self", first), ("other", second))
        )
    name = "other" if constants == ["self"] else "self"
    own, others = (first, second) if name == "self" else (second, first)
    summand = others * constant_of(call, constants[0])
    if sum(size > 1 for size in summand.shape) > 1:  # it differs from place to place
        return Shift(call.new("constant", summand)), (scaled(call, broadcast(call, name), own),)
    return affine(call, broadcast(call, name), torch.tensor(own, dtype=torch.float64), summand)


@lowers(aten.mul.Tensor, aten.mul.Scalar, aten.multiply.Tensor, aten.multiply.Scalar)
def _product(call: Call) -> Lowered:
    """Two values, of which one may broadcast over the other, or a value and a constant."""
    constants = [name for name in ("self", "other") if is_constant(call, name)]
    if not constants:
        return Multiply(), (broadcast(call, "self"), broadcast(call, "other"))
    name = "other" if constants == ["self"] else "self"
    return affine(call, broadcast(call, name), constant_of(call, constants[0]))


@lowers(
    aten.div.Tensor,
    aten.div.Scalar,
    aten.divide.Tensor,
    aten.divide.Scalar,
    aten.true_divide.Tensor,
    aten.true_divide.Scalar,
)
def _quotient(call: Call) -> Lowered:
    """Of two values, or of a value and a constant."""
    if is_constant(call, "self"):
        inverse = call.step(Reciprocal(), (broadcast(call, "other"),), call.sizes())
        return affine(call, inverse, constant_of(call, "self"))
    if is_constant(call, "other"):
        return affine(call, broadcast(call, "self"), 1 / constant_of(call, "other"))
    return Divide(), (broadcast(call, "self"), broadcast(call, "other"))


@lowers(aten.addcmul.default)
def _sum_and_product(call: Call) -> Lowered:
    """Of three values, none of them a constant."""
    if any(is_constant(call, name) for name in ("self", "tensor1", "tensor2")):
        raise Refused("one of its arguments is a constant, expected three values: write a + value * b * c")
    product = call.step(Multiply(), (broadcast(call, "tensor1"), broadcast(call, "tensor2")), call.sizes())
    return Add(), (broadcast(call, "self"), scaled(call, product, float(call["value"])))


@lowers(aten.lerp.Scalar)
def _between(call: Call) -> Lowered:
    """Of two values; the weight is a number."""
    weight = float(call["weight"])
    return Add(), tuple(
        scaled(call, broadcast(call, name), factor)
        for name, factor in (("self", 1 - weight), ("end", weight))
    )


@lowers(aten.neg.default, aten.negative.default)
def _negative(call: Call) -> Lowered:
    return line(call, -1.0), (call.value("self"),)


def is_constant(call: Call, name: str) -> bool:
    """Whether an argument is a number or a constant tensor."""
    return not isinstance(call[name], fx.Node) or call[name].name in call.constants


def constant_of(call: Call, name: str) -> Tensor:
    """A number or constant tensor as (1, ...) that broadcasts over the output, in float64."""
    given: Any = call[name]
    tensor = (
        call.constants[given.name] if isinstance(given, fx.Node) else torch.tensor(given, dtype=torch.float64)
    )
    whole = call.aligned(tensor).double()
    for axis, size in enumerate(whole.shape):  # the same along an axis is the same function as one for all
        if size > 1 and torch.equal(whole.narrow(axis, 0, 1).expand_as(whole), whole):
            whole = whole.narrow(axis, 0, 1)
    return whole


def broadcast(call: Call, name: str) -> Value:
    """An argument in the shape of the output."""
    x = call.value(name)
    if call.sizes(x) == call.sizes():
        return x
    return call.step(Expand(call.sizes()), (stretched(call, x, call.node),), call.sizes())
