"""Normalisations."""

import torch
from torch import Tensor, fx

from clarp.capture.lowering.call import Call, Lowered, Refused, anywhere, channelwise, lowers
from clarp.operations import Affine, GroupNorm, LayerNorm, RMSNorm

aten = torch.ops.aten


@lowers(aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default)  # noqa: SLF001  an ATen name
@anywhere
def _batch_norm(call: Call) -> Lowered:
    """In eval mode; folded into a neighbour where that is exact."""
    if call.arguments.get("training") and call["running_mean"] is None:
        raise Refused(
            "it always uses batch statistics (track_running_stats=False), expected running ones: build it with "
            "track_running_stats=True and train it, or use a norm of each image by itself (nn.GroupNorm)"
        )
    if call.arguments.get("training"):
        raise Refused(
            "it uses batch statistics: the model was captured in train mode; call model.eval() first"
        )
    scale, shift = _running(call)
    shape = [1] * (len(call.sizes()) + 1)
    shape[call.axis(1)] = -1
    operation = Affine(call.new("weight", scale.view(shape)), call.new("bias", shift.view(shape)))
    return operation, (call.value("input"),)


def _running(call: Call) -> tuple[Tensor, Tensor]:
    """The factor and the summand of each channel (C,) that the running statistics give."""
    mean, variance = (
        call.constants[call.required(name)].double() for name in ("running_mean", "running_var")
    )
    scale = (variance + call["eps"]).rsqrt()
    weight, bias = call.constant("weight"), call.constant("bias")
    scale = scale if weight is None else scale * call.constants[weight].double()
    return scale, -mean * scale if bias is None else call.constants[bias].double() - mean * scale


@lowers(aten.layer_norm.default)
@anywhere
def _layer_norm(call: Call) -> Lowered:
    """Over the last axes, not the batch."""
    x, shape = call.value("input"), tuple(call["normalized_shape"])
    _check_behind_batch(call, x, len(shape))
    return LayerNorm(call.constant("weight"), call.constant("bias"), call["eps"], shape), (x,)


@lowers(aten.rms_norm.default)
@anywhere
def _rms_norm(call: Call) -> Lowered:
    """Over the last axes, not the batch."""
    x, shape = call.value("input"), tuple(call["normalized_shape"])
    _check_behind_batch(call, x, len(shape))
    eps = torch.finfo(x.meta["val"].dtype).eps if call["eps"] is None else call["eps"]
    return RMSNorm(call.constant("weight"), None, eps, shape), (x,)


def _check_behind_batch(call: Call, x: fx.Node, axes: int) -> None:
    if call.layout(x).axis >= len(x.meta["val"].shape) - axes:
        raise Refused("it normalises along the batch axis")


@lowers(aten.group_norm.default)
@channelwise
def _group_norm(call: Call) -> Lowered:
    """The channels are axis 1."""
    return _in_groups(call, call["num_groups"])


@lowers(aten.instance_norm.default)
@channelwise
def _instance_norm(call: Call) -> Lowered:
    """By the statistics of each image, or in eval mode as a batch norm; the channels are axis 1."""
    if call["use_input_stats"]:
        return _in_groups(call, call.node.meta["val"].shape[1])
    shape, count = (1, -1, *(1,) * (len(call.shape()) - 1)), call.layout().inner
    weight, bias = (
        call.new(name, constant.repeat(count).view(shape))
        for name, constant in zip(("weight", "bias"), _running(call), strict=True)
    )
    return Affine(weight, bias), (call.value("input"),)


def _in_groups(call: Call, groups: int) -> Lowered:
    """Groups in each of an image's windows."""
    count = call.layout().inner
    weight, bias = (_repeated(call, name, count) for name in ("weight", "bias"))
    return GroupNorm(weight, bias, call["eps"], count * groups), (call.value("input"),)


def _repeated(call: Call, name: str, count: int) -> str | None:
    """A constant (C,) for the channels of each window."""
    constant = call.constant(name)
    return (
        constant if constant is None or count == 1 else call.new(name, call.constants[constant].repeat(count))
    )
