"""Comparisons, and what is chosen by them. A condition is a value of zeros and ones that is held constant."""

from math import inf
from typing import Any

import torch
from torch import Tensor, fx

from clarp.capture.lowering.call import Call, Lowered, Refused, Value, anywhere, lowers
from clarp.capture.lowering.merge import affine, broadcast, constant_of, is_constant
from clarp.operations import (
    Add,
    Affine,
    Compare,
    Concatenate,
    Extend,
    HardTanh,
    Max,
    Multiply,
    Operation,
    ReLU,
    Reshape,
    Shift,
    Sign,
    Threshold,
    Where,
)

aten = torch.ops.aten

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
@anywhere
def _compare(call: Call) -> Lowered:
    """With a number, a constant, or another value."""
    how = COMPARED[call.node.target]
    if is_constant(call, "self"):
        x, other, how = broadcast(call, "other"), constant_of(call, "self"), MIRRORED[how]
    elif is_constant(call, "other"):
        x, other = broadcast(call, "self"), constant_of(call, "other")
    else:
        opposite = _negative(call, broadcast(call, "other"))
        return Compare(how, 0.0), (call.step(Add(), (broadcast(call, "self"), opposite), call.sizes()),)
    if other.numel() == 1:
        return Compare(how, float(other.item())), (x,)
    shifted = call.step(Shift(call.new("constant", -other)), (x,), call.sizes())
    return Compare(how, 0.0), (shifted,)


@lowers(aten.sign.default, aten.sgn.default)
@anywhere
def _sign(call: Call) -> Lowered:
    """Held constant."""
    return Sign(), (call.value("self"),)


@lowers(aten.logical_not.default, aten.bitwise_not.default)
@anywhere
def _not(call: Call) -> Lowered:
    """Of a condition."""
    _check_condition(call, "self")
    return _affine(call, call.value("self"), -1.0, 1.0)


@lowers(aten.logical_and.default, aten.bitwise_and.Tensor, aten.__and__.Tensor)
@anywhere
def _and(call: Call) -> Lowered:
    """Of two conditions."""
    return _both(call)


@lowers(aten.logical_or.default, aten.bitwise_or.Tensor, aten.__or__.Tensor)
@anywhere
def _or(call: Call) -> Lowered:
    """Of two conditions."""
    for name in ("self", "other"):
        _check_condition(call, name)
        if is_constant(call, name):
            one = constant_of(call, name)
            other = "other" if name == "self" else "self"
            return Affine(call.new("weight", 1 - one), call.new("bias", one)), (broadcast(call, other),)
    return Compare(">", 0.5), (
        call.step(Add(), (broadcast(call, "self"), broadcast(call, "other")), call.sizes()),
    )


def _both(call: Call) -> Lowered:
    for name in ("self", "other"):
        _check_condition(call, name)
        if is_constant(call, name):
            other = "other" if name == "self" else "self"
            return affine(call, broadcast(call, other), constant_of(call, name))
    return Multiply(), (broadcast(call, "self"), broadcast(call, "other"))


def _check_condition(call: Call, name: str) -> None:
    given = call[name]
    if isinstance(given, fx.Node) and given.meta["val"].dtype != torch.bool:
        raise Refused("it computes with bits of numbers, expected conditions")


@lowers(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
@anywhere
def _where(call: Call) -> Lowered:
    """By a constant condition or one computed from the image; a value or a constant where a clamp is spelt so."""
    return _chosen(call, "condition", "self", "other")


@lowers(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
@anywhere
def _masked_fill(call: Call) -> Lowered:
    """As a choice between the filling and the value."""
    return _chosen(call, "mask", "value", "self")


def _chosen(call: Call, condition: str, first: str, second: str) -> Lowered:
    clamped = _clamped(call, condition, first, second)
    if clamped is not None:
        return clamped
    names: list[str | None] = []
    values: list[Value] = []
    for name in (condition, first, second):
        if is_constant(call, name):
            names.append(call.new(name, constant_of(call, name)))
        else:
            names.append(None)
            values.append(broadcast(call, name))
    return Where(*names), tuple(values)


def _clamped(call: Call, condition: str, first: str, second: str) -> Lowered | None:
    """A value, or a constant where the value itself is beyond a number: one element in, one out, as in a clamp or a threshold."""
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
    return _beyond(call, x, float(limit.item()), float(constant.item()), above=keeps_above)


def _beyond(call: Call, x: Value, limit: float, value: float, *, above: bool) -> Lowered:
    """``x`` above (below) a limit, else a constant."""
    if limit == value:
        operation: Operation = HardTanh(limit, inf) if above else HardTanh(-inf, limit)
        return (ReLU() if above and limit == 0 else operation), (x,)
    if above:
        return Threshold(limit, value), (x,)
    mirrored = call.step(Threshold(-limit, -value), (_negative(call, x),), call.sizes())
    return _affine(call, mirrored, -1.0)


@lowers(aten.maximum.default, aten.max.other, aten.fmax.default)
@anywhere
def _maximum(call: Call) -> Lowered:
    """Of two values, or of a value and a constant (a number is a clamp)."""
    return _greatest(call, sign=1.0)


@lowers(aten.minimum.default, aten.min.other, aten.fmin.default)
@anywhere
def _minimum(call: Call) -> Lowered:
    """As the maximum of the opposites."""
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
            if sign > 0:
                return (ReLU() if limit == 0 else HardTanh(limit, inf)), (x,)
            return HardTanh(-inf, limit), (x,)
        wide = (sign * constant).expand(1, *shape).unsqueeze(-1).contiguous()
        first = _with_axis(call, x if sign > 0 else _negative(call, x))
        both = call.step(Extend(len(shape) + 1, None, call.new("constant", wide)), (first,), (*shape, 2))
    else:
        values = [broadcast(call, name) for name in ("self", "other")]
        parts = tuple(_with_axis(call, x if sign > 0 else _negative(call, x)) for x in values)
        both = call.step(Concatenate(len(shape) + 1), parts, (*shape, 2))
    if sign > 0:
        return Max(-1, keepdim=False), (both,)
    return _affine(call, call.step(Max(-1, keepdim=False), (both,), shape), -1.0)


def _with_axis(call: Call, x: Value) -> Value:
    shape = (*call.sizes(), 1)
    return call.step(Reshape(shape), (x,), shape)


def _affine(call: Call, x: Value, factor: float, shift: float | None = None) -> Lowered:
    one: Tensor = torch.ones((1,) * (len(call.sizes()) + 1), dtype=torch.float64)
    return affine(call, x, factor * one, None if shift is None else shift * one)


def _negative(call: Call, x: Value) -> Value:
    operation, values = _affine(call, x, -1.0)
    assert operation is not None
    return call.step(operation, values, call.sizes())
