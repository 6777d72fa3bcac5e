"""Convolutions and dense layers."""

import torch
from torch import fx

from clarp.capture.lowering.call import Call, Lowered, Refused, anywhere, lowers, per_axis
from clarp.operations import Convolution, Dense, TransposedConvolution
from clarp.operations.linear import exchanged

aten = torch.ops.aten


@lowers(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
@anywhere
def _convolution(call: Call) -> Lowered:
    """Constant weights; its input has a batch axis."""
    x, weight = call.value("input"), call.required("weight")
    axes = _axes(call, x)
    operation = Convolution(
        weight,
        call.constant("bias"),
        per_axis(call["stride"], axes),
        per_axis(call["padding"], axes),
        per_axis(call["dilation"], axes),
        call["groups"],
    )
    return operation, (_first(call, x),)


@lowers(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding)
@anywhere
def _convolution_padded_by_name(call: Call) -> Lowered:
    """Padding "same" or "valid"."""
    x, weight = call.value("input"), call.required("weight")
    kernel = call.constants[weight].shape[2:]
    dilation = per_axis(call["dilation"], len(kernel))
    total = [d * (k - 1) if call["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
    uneven = [amount for t in reversed(total) for amount in (0, t % 2)]
    stride = per_axis(call["stride"], len(kernel))
    padding = tuple(t // 2 for t in total)
    extra = tuple(uneven) if any(uneven) else ()
    operation = Convolution(weight, call.constant("bias"), stride, padding, dilation, call["groups"], extra)
    return operation, (_first(call, x),)


@lowers(aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
@anywhere
def _transposed_convolution(call: Call) -> Lowered:
    """Constant weights; its input has a batch axis."""
    x, weight = call.value("input"), call.constants[call.required("weight")]
    axes = _axes(call, x)
    operation = TransposedConvolution(
        call.new("exchanged", exchanged(weight, call["groups"]).contiguous()),
        call.constant("bias"),
        per_axis(call["stride"], axes),
        per_axis(call["padding"], axes),
        per_axis(call["dilation"], axes),
        call["groups"],
        output_padding=per_axis(call["output_padding"], axes),
    )
    return operation, (_first(call, x),)


def _axes(call: Call, x: fx.Node) -> int:
    """Over how many axes a convolution goes."""
    axes = call.constants[call.required("weight")].ndim - 2
    if len(x.meta["val"].shape) != axes + 2:
        raise Refused("its input has no batch axis, expected (B, C, ...)")
    return axes


def _first(call: Call, x: fx.Node) -> fx.Node:
    """A convolution's input, which may be several windows of each image."""
    if call.layout(x).axis:
        call.shape(x)  # refuses any other batch axis
    return x


@lowers(aten.linear.default)
@anywhere
def _dense(call: Call) -> Lowered:
    """Constant weights; over any axis but the batch."""
    x = call.value("input")
    call.axis(-1, x)
    return Dense(call.required("weight"), call.constant("bias")), (x,)


@lowers(aten.addmm.default)
def _addmm(call: Call) -> Lowered:
    """Beta = alpha = 1; the matrix and the summand are constants."""
    if call["beta"] != 1 or call["alpha"] != 1:
        raise Refused(f"beta={call['beta']} and alpha={call['alpha']}, expected 1 and 1")
    weight = call.new("weight", call.constants[call.required("mat2")].t().contiguous())
    return Dense(weight, call.required("self")), (call.value("mat1"),)
