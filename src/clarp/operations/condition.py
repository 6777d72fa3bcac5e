"""Comparisons, and what is chosen by them. A condition is a value of zeros and ones that is held constant."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from clarp.operations.base import Interval, Operation, Record, Tensors, summed_to
from clarp.operations.call import Call, Lowered, Refused, Value, lowers, spelt
from clarp.operations.elementwise import Elementwise, Threshold, clamped
from clarp.operations.indexing import Concatenate, Extend
from clarp.operations.linear import Affine, affine, line, scaled
from clarp.operations.merge import Add, Multiply, Shift, broadcast, constant_of, is_constant
from clarp.operations.pooling import Max
from clarp.operations.shape import Reshape

aten = torch.ops.aten

COMPARISONS: dict[str, Callable[..., Tensor]] = {
    ">": torch.gt,
    ">=": torch.ge,
    "<": torch.lt,
    "<=": torch.le,
    "==": torch.eq,
    "!=": torch.ne,
}


class StepFunction(Elementwise):
    """Constant but for its jumps: its gradient is zero, and it is held constant like a gate."""

    rule: ClassVar[str] = "Hold"

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return (torch.zeros_like(gradient),)


@dataclass(frozen=True)
class Compare(StepFunction):
    """1 where ``x`` compares so with the threshold, else 0.

    Attributes:
        how: one of ``COMPARISONS``.
        threshold: what x is compared with.
    """

    how: str
    threshold: float

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return COMPARISONS[self.how](inputs[0], self.threshold).to(inputs[0]), None

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return 0.0, 1.0


@spelt(aten.sign.default, aten.sgn.default)
@dataclass(frozen=True)
class Sign(StepFunction):
    """-1, 0 or 1."""

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return inputs[0].sign(), None

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        low, high = inputs[0]
        return (0.0 if low >= 0 else -1.0), (0.0 if high <= 0 else 1.0)


@dataclass(frozen=True)
class Where(Operation):
    """``a`` where the condition is true, ``b`` elsewhere, of the same shape; remembers where it is true.

    Attributes:
        condition: the name of a constant condition (1, ...) among the graph's tensors; None: it is computed
            from the image, zeros and ones.
        first: the name of a constant a; None: it is computed from the image.
        second: likewise b.
    """

    rule: ClassVar[str] = "Chosen"
    condition: str | None
    first: str | None
    second: str | None

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor]:
        given = iter(inputs)
        condition, first, second = (
            next(given) if name is None else tensors[name]
            for name in (self.condition, self.first, self.second)
        )
        chosen = condition > 0.5
        result = torch.where(chosen, first, second)
        return result, chosen.expand_as(result)

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g`` where a value was chosen, zero for the condition."""
        chosen = record.remembered()
        zero = gradient.new_zeros(()).expand_as(gradient)
        parts = [
            part
            for name, part in (
                (self.condition, zero),
                (self.first, gradient * chosen),
                (self.second, gradient * ~chosen),
            )
            if name is None
        ]
        return tuple(summed_to(part, shape) for part, shape in zip(parts, record.shapes, strict=True))

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        ends = list(inputs if self.condition is not None else inputs[1:])
        constants = [tensors[name] for name in (self.first, self.second) if name is not None]
        ends += [(constant.min().item(), constant.max().item()) for constant in constants]
        return min(low for low, _ in ends), max(high for _, high in ends)


COMPARED: dict[Any, str] = {
    getattr(getattr(aten, name), overload): sign
    for names, sign in (
        (("gt", "greater"), ">"),
        (("ge", "greater_equal"), ">="),
        (("lt", "less"), "<"),
        (("le", "less_equal"), "<="),
        (("eq",), "=="),
        (("ne", "not_equal"), "!="),
    )
    for name in names
    for overload in ("Scalar", "Tensor")
}
MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "==": "==", "!=": "!="}


@lowers(*COMPARED)
def _compare(call: Call) -> Lowered:
    """With a number, a constant, or another value."""
    how = COMPARED[call.node.target]
    if is_constant(call, "self"):
        x, other, how = broadcast(call, "other"), constant_of(call, "self"), MIRRORED[how]
    elif is_constant(call, "other"):
        x, other = broadcast(call, "self"), constant_of(call, "other")
    else:
        opposite = scaled(call, broadcast(call, "other"), -1.0)
        return Compare(how, 0.0), (call.step(Add(), (broadcast(call, "self"), opposite), call.sizes()),)
    if other.numel() == 1:
        return Compare(how, float(other.item())), (x,)
    shifted = call.step(Shift(call.new("constant", -other)), (x,), call.sizes())
    return Compare(how, 0.0), (shifted,)


@lowers(aten.logical_not.default, aten.bitwise_not.default)
def _not(call: Call) -> Lowered:
    """The value is a condition."""
    _check_condition(call, "self")
    return line(call, -1.0, 1.0), (call.value("self"),)


@lowers(aten.logical_and.default, aten.bitwise_and.Tensor, aten.__and__.Tensor)
def _and(call: Call) -> Lowered:
    """Of two conditions."""
    for name, other in (("self", "other"), ("other", "self")):
        _check_condition(call, name)
        if is_constant(call, name):
            return affine(call, broadcast(call, other), constant_of(call, name))
    return Multiply(), (broadcast(call, "self"), broadcast(call, "other"))


@lowers(aten.logical_or.default, aten.bitwise_or.Tensor, aten.__or__.Tensor)
def _or(call: Call) -> Lowered:
    """Of two conditions."""
    for name, other in (("self", "other"), ("other", "self")):
        _check_condition(call, name)
        if is_constant(call, name):
            one = constant_of(call, name)
            return Affine(call.new("weight", 1 - one), call.new("bias", one)), (broadcast(call, other),)
    return Compare(">", 0.5), (
        call.step(Add(), (broadcast(call, "self"), broadcast(call, "other")), call.sizes()),
    )


def _check_condition(call: Call, name: str) -> None:
    given = call[name]
    if isinstance(given, fx.Node) and given.meta["val"].dtype != torch.bool:
        raise Refused("it computes with bits of numbers, expected conditions")


@lowers(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def _where(call: Call) -> Lowered:
    """The condition is a constant or computed. A clamp that is written as ``where`` becomes a clamp."""
    return _chosen(call, "condition", "self", "other")


@lowers(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def _masked_fill(call: Call) -> Lowered:
    """It becomes ``where(mask, filling, value)``."""
    return _chosen(call, "mask", "value", "self")


def _chosen(call: Call, condition: str, first: str, second: str) -> Lowered:
    clamp = _as_clamp(call, condition, first, second)
    if clamp is not None:
        return clamp
    names: list[str | None] = []
    values: list[Value] = []
    for name in (condition, first, second):
        if is_constant(call, name):
            names.append(call.new(name, constant_of(call, name)))
        else:
            names.append(None)
            values.append(broadcast(call, name))
    return Where(*names), tuple(values)


def _as_clamp(call: Call, condition: str, first: str, second: str) -> Lowered | None:
    """A value, or a constant where the value is above or below a number: a clamp or a threshold."""
    asked: Any = call[condition]
    if is_constant(call, condition) or asked.target not in COMPARED:
        return None
    if is_constant(call, first) == is_constant(call, second):
        return None
    value, fill = (second, first) if is_constant(call, first) else (first, second)
    constant = constant_of(call, fill)
    x, other = asked.args[:2]
    how = COMPARED[asked.target]
    if other is call[value]:
        x, other, how = other, x, MIRRORED[how]
    limit = call.constants.get(other.name) if isinstance(other, fx.Node) else torch.tensor(other)
    if x is not call[value] or limit is None or limit.numel() != 1 or constant.numel() != 1:
        return None
    if how in ("==", "!=") or call.sizes(x) != call.sizes():
        return None
    keeps_above = (how in (">", ">=")) == (value == first)
    return _thresholded(call, x, float(limit.item()), float(constant.item()), above=keeps_above)


def _thresholded(call: Call, x: Value, limit: float, value: float, *, above: bool) -> Lowered:
    """``x`` above (below) a limit, else a constant."""
    if limit == value:
        return clamped(x, low=limit) if above else clamped(x, high=limit)
    if above:
        return Threshold(limit, value), (x,)
    mirrored = call.step(Threshold(-limit, -value), (scaled(call, x, -1.0),), call.sizes())
    return line(call, -1.0), (mirrored,)


@lowers(aten.maximum.default, aten.max.other, aten.fmax.default)
def _maximum(call: Call) -> Lowered:
    """Of two values, or of a value and a constant (a number is a clamp)."""
    return _greatest(call, sign=1.0)


@lowers(aten.minimum.default, aten.min.other, aten.fmin.default)
def _minimum(call: Call) -> Lowered:
    """``min(a, b) = -max(-a, -b)``."""
    return _greatest(call, sign=-1.0)


def _greatest(call: Call, *, sign: float) -> Lowered:
    """The winner gets everything, ties go to the first."""
    shape = call.sizes()
    constants = [name for name in ("self", "other") if is_constant(call, name)]
    if constants:
        constant = constant_of(call, constants[0])
        x = broadcast(call, "other" if constants == ["self"] else "self")
        if constant.numel() == 1:
            limit = float(constant.item())
            return clamped(x, low=limit) if sign > 0 else clamped(x, high=limit)
        wide = (sign * constant).expand(1, *shape).unsqueeze(-1).contiguous()
        first = _with_axis(call, scaled(call, x, sign))
        both = call.step(Extend(len(shape) + 1, None, call.new("constant", wide)), (first,), (*shape, 2))
    else:
        values = [broadcast(call, name) for name in ("self", "other")]
        parts = tuple(_with_axis(call, scaled(call, x, sign)) for x in values)
        both = call.step(Concatenate(len(shape) + 1), parts, (*shape, 2))
    if sign > 0:
        return Max(-1, keepdim=False), (both,)
    opposite = call.step(Max(-1, keepdim=False), (both,), shape)
    return line(call, -1.0), (opposite,)


def _with_axis(call: Call, x: Value) -> Value:
    shape = (*call.sizes(), 1)
    return call.step(Reshape(shape), (x,), shape)
