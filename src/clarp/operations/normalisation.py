"""Normalisations: by running statistics, and by statistics of the value itself."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from clarp.operations.base import Kept, Operation, Record, Tensors
from clarp.operations.call import Call, Lowered, Refused, lowers
from clarp.operations.linear import Affine

aten = torch.ops.aten


@dataclass(frozen=True)
class Normalisation(Operation):
    """``w (x - m(x)) / d(x) + b`` with the mean m and the deviation d over groups of the value's elements.

    Attributes:
        weight: the name of w among the graph's tensors, or None for 1.
        bias: the name of b, or None for 0.
        eps: what is added under the root of d.
    """

    rule: ClassVar[str] = "Pass"
    weight: str | None
    bias: str | None
    eps: float
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})
    centred: ClassVar[bool] = True

    @abstractmethod
    def grouped(self, x: Tensor, axes: int) -> Tensor:
        """A value of this many axes, perhaps with more before them, as (..., groups, elements)."""

    @abstractmethod
    def shaped(self, parameter: Tensor, axes: int) -> Tensor:
        """A weight or bias in a shape that broadcasts over a value of this many axes."""

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``(g' - mean(g') - y mean(g' y)) / d`` with ``g' = w g``, ``y = (x - m) / d``; RMS: no m."""
        axes = len(record.shapes[0])
        if self.weight is not None:
            gradient = gradient * self.shaped(tensors[self.weight], axes)
        x, g = self.grouped(record.input(), axes), self.grouped(gradient, axes)
        if self.centred:
            x, g = x - x.mean(-1, keepdim=True), g - g.mean(-1, keepdim=True)
        scale = (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        y = x * scale
        return (((g - y * (g * y).mean(-1, keepdim=True)) * scale).reshape(gradient.shape),)


@dataclass(frozen=True)
class LayerNorm(Normalisation):
    """``w (x - mean) / sqrt(variance + eps) + b``, both over the last axes, of the shape of w and b.

    Attributes:
        shape: of the last axes.
    """

    shape: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        weight, bias = (None if name is None else tensors[name] for name in (self.weight, self.bias))
        return F.layer_norm(inputs[0], self.shape, weight, bias, self.eps), None

    def grouped(self, x: Tensor, axes: int) -> Tensor:
        return x.flatten(-len(self.shape)).unsqueeze(-2)

    def shaped(self, parameter: Tensor, axes: int) -> Tensor:
        return parameter


@dataclass(frozen=True)
class RMSNorm(LayerNorm):
    """``w x / sqrt(mean(x^2) + eps)``, over the last axes, of the shape of w."""

    centred: ClassVar[bool] = False

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        weight = None if self.weight is None else tensors[self.weight]
        return F.rms_norm(inputs[0], self.shape, weight, self.eps), None


@dataclass(frozen=True)
class GroupNorm(Normalisation):
    """``w (x - mean) / sqrt(variance + eps) + b`` over groups of channels (axis 1), or over each channel.

    Attributes:
        groups: the number of groups.
    """

    groups: int

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        weight, bias = (None if name is None else tensors[name] for name in (self.weight, self.bias))
        return F.group_norm(inputs[0], self.groups, weight, bias, self.eps), None

    def grouped(self, x: Tensor, axes: int) -> Tensor:
        return x.unflatten(1 - axes, (self.groups, -1)).flatten(1 - axes)

    def shaped(self, parameter: Tensor, axes: int) -> Tensor:
        return parameter.view(-1, *(1,) * (axes - 2))


@lowers(aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default)  # noqa: SLF001
def _batch_norm(call: Call) -> Lowered:
    """In eval mode; folded into a neighbour where that is exact."""
    if call.arguments.get("training") and call["running_mean"] is None:
        raise Refused(
            "it always uses batch statistics (track_running_stats=False), expected running ones: build it "
            "with track_running_stats=True and train it, or use a norm of each image by itself (nn.GroupNorm)"
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
def _layer_norm(call: Call) -> Lowered:
    """Over the last axes, not the batch."""
    x, shape = call.value("input"), tuple(call["normalized_shape"])
    _check_behind_batch(call, x, len(shape))
    return LayerNorm(call.constant("weight"), call.constant("bias"), call["eps"], shape), (x,)


@lowers(aten.rms_norm.default)
def _rms_norm(call: Call) -> Lowered:
    """Over the last axes, not the batch."""
    x, shape = call.value("input"), tuple(call["normalized_shape"])
    _check_behind_batch(call, x, len(shape))
    eps = torch.finfo(x.meta["val"].dtype).eps if call["eps"] is None else call["eps"]
    return RMSNorm(call.constant("weight"), None, eps, shape), (x,)


def _check_behind_batch(call: Call, x: fx.Node, axes: int) -> None:
    if call.layout(x).axis >= len(x.meta["val"].shape) - axes:
        raise Refused("it normalises along the batch axis")


@lowers(aten.group_norm.default, batch="channels")
def _group_norm(call: Call) -> Lowered:
    """The channels are axis 1."""
    return _in_groups(call, call["num_groups"])


@lowers(aten.instance_norm.default, batch="channels")
def _instance_norm(call: Call) -> Lowered:
    """The channels are axis 1.

    It has the statistics of each image, or the running ones, as a batch norm in eval mode.
    """
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
