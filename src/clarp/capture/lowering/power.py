"""Powers, roots, exponentials and logarithms."""

from math import log
from typing import Any

import torch
from torch import Tensor, fx

from clarp.capture.lowering.call import Call, Lowered, Refused, Value, anywhere, lowers
from clarp.capture.lowering.merge import affine
from clarp.operations import (
    Absolute,
    Add,
    Exp,
    Expand,
    HardTanh,
    Log,
    LogOdds,
    LogSumExp,
    Operation,
    Power,
    RealPower,
    Reciprocal,
    Sqrt,
)

aten = torch.ops.aten


@lowers(aten.pow.Tensor_Scalar, aten.square.default)
@anywhere
def _power(call: Call) -> Lowered:
    """Any exponent but zero; a negative one is a divisor."""
    return _to_the(call, call.value("self"), float(call.arguments.get("exponent", 2)))


@lowers(aten.pow.Tensor_Tensor)
@anywhere
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
    axes = len(call.sizes()) + 1
    return RealPower(call.new("exponent", torch.full((1,) * axes, exponent, dtype=torch.float64)))


@lowers(aten.abs.default, aten.absolute.default)
@anywhere
def _absolute(call: Call) -> Lowered:
    return Absolute(), (call.value("self"),)


@lowers(
    aten.exp.default,
    aten.exp2.default,
    aten.special_exp2.default,
    aten.expm1.default,
    aten.special_expm1.default,
)
@anywhere
def _exponential(call: Call) -> Lowered:
    """To the base e or 2; less one as a shift behind it."""
    x: Value = call.value("self")
    if call.node.target in (aten.exp2.default, aten.special_exp2.default):
        x = _scaled(call, x, log(2))
    if call.node.target in (aten.expm1.default, aten.special_expm1.default):
        return affine(call, call.step(Exp(), (x,), call.sizes()), _number(1.0), _number(-1.0, call))
    return Exp(), (x,)


@lowers(aten.pow.Scalar)
@anywhere
def _exponential_of(call: Call) -> Lowered:
    """A number above zero to the power of a value."""
    base = float(call["self"])
    if base <= 0:
        raise Refused(f"it is a power of {base}, expected one of a number above zero")
    return Exp(), (_scaled(call, call.value("exponent"), log(base)),)


LOGARITHMS: dict[Any, float] = {
    aten.log.default: 1.0,
    aten.log2.default: 1 / log(2),
    aten.log10.default: 1 / log(10),
    aten.log1p.default: 1.0,
    aten.special_log1p.default: 1.0,
}


@lowers(*LOGARITHMS)
@anywhere
def _logarithm(call: Call) -> Lowered:
    """To any base; of one plus a value as a shift before it."""
    x: Value = call.value("self")
    if call.node.target in (aten.log1p.default, aten.special_log1p.default):
        operation, values = affine(call, x, _number(1.0), _number(1.0, call))
        assert operation is not None
        x = call.step(operation, values, call.sizes())
    factor = LOGARITHMS[call.node.target]
    if factor == 1:
        return Log(), (x,)
    return affine(call, call.step(Log(), (x,), call.sizes()), _number(factor))


@lowers(aten.logit.default, aten.special_logit.default)
@anywhere
def _log_odds(call: Call) -> Lowered:
    """Of a probability, perhaps kept away from 0 and 1."""
    x: Value = call.value("self")
    if call["eps"] is not None:
        low = float(call["eps"])
        x = call.step(HardTanh(low, 1 - low), (x,), call.sizes())
    return LogOdds(), (x,)


def _number(value: float, call: Call | None = None) -> Tensor:
    tensor = torch.tensor(value, dtype=torch.float64)
    return tensor if call is None else tensor.view((1,) * (len(call.sizes()) + 1))


def _scaled(call: Call, x: Value, factor: float) -> Value:
    operation, values = affine(call, x, _number(factor))
    assert operation is not None
    return call.step(operation, values, call.sizes())


@lowers(aten.logsumexp.default, aten.special_logsumexp.default)
@anywhere
def _logsumexp(call: Call) -> Lowered:
    """Over any axes but the batch."""
    x = call.value("self")
    count = len(call.sizes(x)) + 1
    given = call["dim"] if isinstance(call["dim"], list | tuple) else [call["dim"]]
    return LogSumExp(tuple(sorted(call.axis(axis, x) - count for axis in given)), call["keepdim"]), (x,)


@lowers(aten.log_softmax.int, aten._log_softmax.default)  # noqa: SLF001  an ATen name
@anywhere
def _log_softmax(call: Call) -> Lowered:
    """Inside the model: the value, less the logarithm of the sum of exponentials."""
    x: fx.Node = call.value("self")
    shape = call.sizes()
    axis = call.axis(call["dim"], x)
    kept = (*shape[: axis - 1], 1, *shape[axis:])
    total = call.step(LogSumExp((axis - len(shape) - 1,), keepdim=True), (x,), kept)
    wide = call.step(Expand(shape), (total,), shape)
    return Add(), (x, _scaled(call, wide, -1.0))
