"""Sums, differences, products and quotients of two values, or of a value and a constant."""

from typing import Any

import torch
from torch import Tensor, fx

from clarp.capture.lowering.call import Call, Lowered, Refused, Value, anywhere, lowers
from clarp.capture.lowering.shape import stretched
from clarp.operations import Add, Affine, Divide, Expand, Multiply, Reciprocal, Shift

aten = torch.ops.aten

DIFFERENCES = (aten.sub.Tensor, aten.sub.Scalar, aten.subtract.Tensor, aten.subtract.Scalar)


@lowers(
    aten.add.Tensor,
    aten.add.Scalar,
    *DIFFERENCES,
    aten.rsub.Scalar,
    aten.rsub.Tensor,
)
@anywhere
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
            _scaled(call, broadcast(call, name), factor)
            for name, factor in (("self", first), ("other", second))
        )
    name = "other" if constants == ["self"] else "self"
    own, others = (first, second) if name == "self" else (second, first)
    summand = others * constant_of(call, constants[0])
    if _varies(summand) > 1:
        return Shift(call.new("constant", summand)), (_scaled(call, broadcast(call, name), own),)
    return affine(call, broadcast(call, name), torch.tensor(own, dtype=torch.float64), summand)


@lowers(aten.mul.Tensor, aten.mul.Scalar, aten.multiply.Tensor, aten.multiply.Scalar)
@anywhere
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
@anywhere
def _quotient(call: Call) -> Lowered:
    """Of two values, or of a value and a constant."""
    if is_constant(call, "self"):
        inverse = call.step(Reciprocal(), (broadcast(call, "other"),), call.sizes())
        return affine(call, inverse, constant_of(call, "self"))
    if is_constant(call, "other"):
        return affine(call, broadcast(call, "self"), 1 / constant_of(call, "other"))
    return Divide(), (broadcast(call, "self"), broadcast(call, "other"))


@lowers(aten.addcmul.default)
@anywhere
def _sum_and_product(call: Call) -> Lowered:
    """Of three values, none of them a constant."""
    if any(is_constant(call, name) for name in ("self", "tensor1", "tensor2")):
        raise Refused("one of its arguments is a constant, expected three values: write a + value * b * c")
    product = call.step(Multiply(), (broadcast(call, "tensor1"), broadcast(call, "tensor2")), call.sizes())
    return Add(), (broadcast(call, "self"), _scaled(call, product, float(call["value"])))


@lowers(aten.lerp.Scalar)
@anywhere
def _between(call: Call) -> Lowered:
    """Of two values, by a number."""
    parts = []
    for name, factor in (("self", 1 - float(call["weight"])), ("end", float(call["weight"]))):
        scale = torch.full((1,) * (len(call.sizes()) + 1), factor, dtype=torch.float64)
        parts.append(call.step(Affine(call.new(name, scale), None), (broadcast(call, name),), call.sizes()))
    return Add(), tuple(parts)


@lowers(aten.neg.default, aten.negative.default)
@anywhere
def _negative(call: Call) -> Lowered:
    return affine(call, call.value("self"), torch.tensor(-1.0))


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


def _varies(constant: Tensor) -> int:
    """Along how many axes."""
    return sum(size > 1 for size in constant.shape)


def affine(call: Call, x: Value, scale: Tensor, shift: Tensor | None = None) -> Lowered:
    """``scale x + shift``; a scale of no axes is one for all elements."""
    scale = scale.double().view((1,) * (len(call.sizes()) + 1)) if scale.ndim == 0 else scale.double()
    bias = None if shift is None else call.new("bias", shift)
    return Affine(call.new("weight", scale), bias), (x,)


def _scaled(call: Call, x: Value, factor: float) -> Value:
    if factor == 1:
        return x
    operation, inputs = affine(call, x, torch.tensor(factor, dtype=torch.float64))
    assert operation is not None
    return call.step(operation, inputs, call.sizes())


def broadcast(call: Call, name: str) -> Value:
    """An argument in the shape of the output."""
    x = call.value(name)
    if call.sizes(x) == call.sizes():
        return x
    return call.step(Expand(call.sizes()), (stretched(call, x, call.node),), call.sizes())
