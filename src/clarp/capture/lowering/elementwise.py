"""Activations: every element on its own."""

from math import inf

import torch
from torch import fx

from clarp.capture.lowering.call import Call, Lowered, Refused, anywhere, lowers
from clarp.operations import (
    ELU,
    GELU,
    Activation,
    Erf,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyReLU,
    LogSigmoid,
    Mish,
    Multiply,
    PReLU,
    Reciprocal,
    ReLU,
    Shrink,
    Sigmoid,
    SiLU,
    Slice,
    Softplus,
    Sqrt,
    Tanh,
    Threshold,
)

aten = torch.ops.aten

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805

PLAIN: dict[object, Activation] = {
    aten.sigmoid.default: Sigmoid(),
    aten.special_expit.default: Sigmoid(),
    aten.hardsigmoid.default: HardSigmoid(),
    aten.tanh.default: Tanh(),
    aten.erf.default: Erf(),
    aten.special_erf.default: Erf(),
    aten.silu.default: SiLU(),
    aten.hardswish.default: HardSwish(),
    aten.mish.default: Mish(),
    aten.selu.default: ELU(SELU_ALPHA, SELU_SCALE, 1.0),
    aten.log_sigmoid.default: LogSigmoid(),
    aten.sqrt.default: Sqrt(),
    aten.reciprocal.default: Reciprocal(),
}


@lowers(*PLAIN)
@anywhere
def _activation(call: Call) -> Lowered:
    """The activation of that name."""
    return PLAIN[call.node.target], (call.value("self"),)


@lowers(aten.rsqrt.default)
@anywhere
def _rsqrt(call: Call) -> Lowered:
    """One over the root."""
    return Reciprocal(), (call.step(Sqrt(), (call.value("self"),), call.sizes()),)


@lowers(aten.relu.default)
@anywhere
def _relu(call: Call) -> Lowered:
    return ReLU(), (call.value("self"),)


@lowers(aten.hardtanh.default)
@anywhere
def _hardtanh(call: Call) -> Lowered:
    return HardTanh(float(call["min_val"]), float(call["max_val"])), (call.value("self"),)


@lowers(aten.relu6.default)
@anywhere
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
@anywhere
def _clamp(call: Call) -> Lowered:
    """Bounds are numbers, or constants of one element; `clamp(min=0)` is a ReLU."""
    x, low, high = call.value("self"), _number(call, "min"), _number(call, "max")
    if low == 0 and high is None:
        return ReLU(), (x,)
    return HardTanh(-inf if low is None else low, inf if high is None else high), (x,)


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


@lowers(aten.gelu.default)
@anywhere
def _gelu(call: Call) -> Lowered:
    return GELU(call["approximate"]), (call.value("self"),)


@lowers(aten.leaky_relu.default)
@anywhere
def _leaky_relu(call: Call) -> Lowered:
    return LeakyReLU(float(call["negative_slope"])), (call.value("self"),)


@lowers(aten.prelu.default)
@anywhere
def _prelu(call: Call) -> Lowered:
    """Constant weights."""
    x, weight = call.value("self"), call.constants[call.required("weight")]
    shape = [1] * (len(call.sizes()) + 1)
    shape[call.axis(1) if weight.numel() > 1 else -1] = -1
    return PReLU(call.new("weight", weight.view(shape))), (x,)


@lowers(aten.elu.default)
@anywhere
def _elu(call: Call) -> Lowered:
    return ELU(float(call["alpha"]), float(call["scale"]), float(call["input_scale"])), (call.value("self"),)


@lowers(aten.celu.default)
@anywhere
def _celu(call: Call) -> Lowered:
    return ELU(float(call["alpha"]), 1.0, 1 / float(call["alpha"])), (call.value("self"),)


@lowers(aten.softplus.default)
@anywhere
def _softplus(call: Call) -> Lowered:
    return Softplus(float(call["beta"]), float(call["threshold"])), (call.value("self"),)


@lowers(aten.threshold.default)
@anywhere
def _threshold(call: Call) -> Lowered:
    return Threshold(float(call["threshold"]), float(call["value"])), (call.value("self"),)


@lowers(aten.hardshrink.default, aten.softshrink.default)
@anywhere
def _shrink(call: Call) -> Lowered:
    return Shrink(float(call["lambd"]), call.node.target is aten.softshrink.default), (call.value("self"),)


@lowers(aten.rrelu.default)
@anywhere
def _rrelu(call: Call) -> Lowered:
    """In eval mode, with the mean of its slopes."""
    if call["training"]:
        raise Refused("its slopes are random: call model.eval() first")
    return LeakyReLU((float(call["lower"]) + float(call["upper"])) / 2), (call.value("self"),)


@lowers(aten.glu.default)
@anywhere
def _glu(call: Call) -> Lowered:
    """One half of the channels as the gate of the other."""
    x, shape = call.value("self"), call.sizes()
    axis = call.axis(call["dim"])
    size = shape[axis - 1]
    signal, gate = (call.step(Slice(axis, first, first + size, 1), (x,), shape) for first in (0, size))
    return Multiply(), (signal, call.step(Sigmoid(), (gate,), shape))
