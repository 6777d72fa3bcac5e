"""From one ATen operation of the exported program to one operation of clarp, or to none where it does nothing."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from clarp.operations import (
    AdaptiveAverage,
    Add,
    Affine,
    AveragePool,
    Concatenate,
    Convolution,
    Dense,
    HardTanh,
    MaxPool,
    Mean,
    Operation,
    Pad,
    Permute,
    ReLU,
    Reshape,
    Slice,
)

aten = torch.ops.aten


class Refused(Exception):  # noqa: N818  a signal between two functions, never seen by a user
    """This operation can't be lowered; the message says why and what to do."""


@dataclass
class Call:
    """One call of an ATen operation, its arguments by name.

    Attributes:
        node: the call in the exported graph.
        arguments: by the names of ATen's schema, defaults filled in; by position where there is no schema.
        constants: the tensors that do not depend on the input, by the name of their node.
        tensors: where a lowering puts tensors that it computes.
        batch: the size of the batch axis while exporting, a symbol or a number.
    """

    node: fx.Node
    constants: Mapping[str, Tensor]
    tensors: dict[str, Tensor]
    batch: Any
    arguments: dict[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.node.target, OpOverload):
            self.arguments = dict(enumerate(self.node.args))
            return
        schema = self.node.target._schema.arguments  # noqa: SLF001  no public name
        given = dict(zip((a.name for a in schema), self.node.args, strict=False))
        self.arguments = {
            a.name: self.node.kwargs.get(a.name, given.get(a.name, a.default_value)) for a in schema
        }

    def __getitem__(self, name: str | int) -> Any:
        return self.arguments[name]

    def value(self, name: str | int) -> fx.Node:
        """An argument that must depend on the input."""
        node = self[name]
        if not isinstance(node, fx.Node) or node.name in self.constants:
            raise Refused(f"its argument {name!r} is a constant, expected a value computed from the image")
        return node

    def constant(self, name: str) -> str | None:
        """The name of an argument that must be a constant tensor or None."""
        node = self[name]
        if node is None:
            return None
        if not isinstance(node, fx.Node) or node.name not in self.constants:
            raise Refused(f"its argument {name!r} is computed from the image, expected a constant")
        self.tensors[node.name] = self.constants[node.name]
        return node.name

    def required(self, name: str) -> str:
        """The name of an argument that must be a constant tensor."""
        constant = self.constant(name)
        if constant is None:
            raise Refused(f"its argument {name!r} is None, expected a tensor")
        return constant

    def new(self, suffix: str, tensor: Tensor) -> str:
        """Keep a computed tensor, return its name."""
        name = f"{self.node.name}.{suffix}"
        self.tensors[name] = tensor
        return name

    def shape(self, node: fx.Node | None = None) -> tuple[int, ...]:
        """The shape of a value without its batch axis."""
        node = self.node if node is None else node
        value = node.meta["val"]
        shape = (value[0] if isinstance(value, tuple | list) else value).shape
        if not shape or shape[0] != self.batch or not all(isinstance(size, int) for size in shape[1:]):
            raise Refused(f"it mixes the batch with other axes (shape {tuple(shape)})")
        return tuple(shape[1:])


Lowered = tuple[Operation | None, tuple[fx.Node, ...]]
"""The operation and the values that it reads; None instead of an operation that only passes its one value on."""


def no_lowering(call: Call) -> Lowered:
    """What an operation without a rule gets."""
    del call
    raise Refused("not supported")


LOWERINGS: dict[Any, Callable[[Call], Lowered]] = {}


def lowers(*targets: Any) -> Callable[[Callable[[Call], Lowered]], Callable[[Call], Lowered]]:
    """Register the lowering of these ATen operations."""

    def register(function: Callable[[Call], Lowered]) -> Callable[[Call], Lowered]:
        LOWERINGS.update(dict.fromkeys(targets, function))
        return function

    return register


def _tuple(value: Any, length: int) -> tuple[int, ...]:
    values = tuple(value)
    return values * length if len(values) == 1 else values


@lowers(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
def _convolution(call: Call) -> Lowered:
    x, weight = call.value("input"), call.required("weight")
    axes = call.constants[weight].ndim - 2
    if len(x.meta["val"].shape) != axes + 2:
        raise Refused("its input has no batch axis, expected (B, C, ...)")
    operation = Convolution(
        weight,
        call.constant("bias"),
        _tuple(call["stride"], axes),
        _tuple(call["padding"], axes),
        _tuple(call["dilation"], axes),
        call["groups"],
    )
    return operation, (x,)


@lowers(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding)
def _convolution_padded_by_name(call: Call) -> Lowered:
    x, weight = call.value("input"), call.required("weight")
    kernel = call.constants[weight].shape[2:]
    dilation = _tuple(call["dilation"], len(kernel))
    total = [d * (k - 1) if call["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
    uneven = [amount for t in reversed(total) for amount in (0, t % 2)]
    stride = _tuple(call["stride"], len(kernel))
    padding = tuple(t // 2 for t in total)
    extra = tuple(uneven) if any(uneven) else ()
    return Convolution(weight, call.constant("bias"), stride, padding, dilation, call["groups"], extra), (x,)


@lowers(aten.linear.default)
def _dense(call: Call) -> Lowered:
    return Dense(call.required("weight"), call.constant("bias")), (call.value("input"),)


@lowers(aten.addmm.default)
def _addmm(call: Call) -> Lowered:
    if call["beta"] != 1 or call["alpha"] != 1:
        raise Refused(f"beta={call['beta']} and alpha={call['alpha']}, expected 1 and 1")
    weight = call.new("weight", call.constants[call.required("mat2")].t().contiguous())
    return Dense(weight, call.required("self")), (call.value("mat1"),)


@lowers(aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default)  # noqa: SLF001  an ATen name
def _batch_norm(call: Call) -> Lowered:
    if call.arguments.get("training"):
        raise Refused(
            "it uses batch statistics: the model was captured in train mode; call model.eval() first"
        )
    x = call.value("input")
    mean, variance = (
        call.constants[call.required(name)].double() for name in ("running_mean", "running_var")
    )
    scale = (variance + call["eps"]).rsqrt()
    weight, bias = call.constant("weight"), call.constant("bias")
    scale = scale if weight is None else scale * call.constants[weight].double()
    shift = -mean * scale if bias is None else call.constants[bias].double() - mean * scale
    return Affine(call.new("scale", scale), call.new("shift", shift)), (x,)


@lowers(aten.relu.default)
def _relu(call: Call) -> Lowered:
    return ReLU(), (call.value("self"),)


@lowers(aten.hardtanh.default)
def _hardtanh(call: Call) -> Lowered:
    return HardTanh(float(call["min_val"]), float(call["max_val"])), (call.value("self"),)


@lowers(aten.relu6.default)
def _relu6(call: Call) -> Lowered:
    return HardTanh(0.0, 6.0), (call.value("self"),)


@lowers(aten.clamp.default, aten.clamp_min.default)
def _clamp(call: Call) -> Lowered:
    low, high = call["min"], call.arguments.get("max")
    if low == 0 and high is None:
        return ReLU(), (call.value("self"),)
    return HardTanh(-inf if low is None else float(low), inf if high is None else float(high)), (
        call.value("self"),
    )


@lowers(aten.max_pool2d.default)
def _max_pool(call: Call) -> Lowered:
    kernel, padding, dilation = (_tuple(call[name], 2) for name in ("kernel_size", "padding", "dilation"))
    stride = _tuple(call["stride"] or kernel, 2)
    return MaxPool(kernel, stride, padding, dilation, call["ceil_mode"]), (call.value("self"),)


@lowers(aten.avg_pool2d.default)
def _average_pool(call: Call) -> Lowered:
    kernel, padding = _tuple(call["kernel_size"], 2), _tuple(call["padding"], 2)
    stride = _tuple(call["stride"] or kernel, 2)
    rest = (call["ceil_mode"], call["count_include_pad"], call["divisor_override"])
    return AveragePool(kernel, stride, padding, *rest), (call.value("self"),)


@lowers(aten.adaptive_avg_pool2d.default)
def _adaptive_average(call: Call) -> Lowered:
    x = call.value("self")
    same = call.shape() == call.shape(x)
    return None if same else AdaptiveAverage((call.shape()[-2], call.shape()[-1])), (x,)


@lowers(aten.mean.dim)
def _mean(call: Call) -> Lowered:
    x = call.value("self")
    axes = len(call.shape(x)) + 1
    given = tuple(sorted(axis % axes - axes for axis in call["dim"] or range(axes)))
    if -axes in given:
        raise Refused("it averages over the batch")
    return Mean(given, call["keepdim"]), (x,)


@lowers(aten.add.Tensor)
def _add(call: Call) -> Lowered:
    if call["alpha"] != 1:
        raise Refused(f"it adds {call['alpha']} times a value, expected plain a + b")
    a, b = call.value("self"), call.value("other")
    if call.shape(a) != call.shape(b):
        raise Refused(
            f"it adds values of the shapes {call.shape(a)} and {call.shape(b)}, expected the same shape"
        )
    return Add(), (a, b)


@lowers(
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten._unsafe_view.default,  # noqa: SLF001  an ATen name
)
def _reshape(call: Call) -> Lowered:
    x = call.value("self")
    same = call.shape() == call.shape(x)
    return None if same else Reshape(call.shape()), (x,)


@lowers(aten.permute.default, aten.transpose.int)
def _permute(call: Call) -> Lowered:
    x = call.value("self")
    count = len(call.shape(x)) + 1
    if "dims" in call.arguments:
        axes = tuple(axis % count for axis in call["dims"])
    else:
        order = list(range(count))
        first, second = call["dim0"] % count, call["dim1"] % count
        order[first], order[second] = second, first
        axes = tuple(order)
    if axes[0] != 0:
        raise Refused("it moves the batch axis")
    return Permute(axes), (x,)


@lowers(aten.slice.Tensor)
def _slice(call: Call) -> Lowered:
    x = call.value("self")
    axis = call["dim"] % (len(call.shape(x)) + 1)
    start, end = call["start"] or 0, call["end"]
    size = x.meta["val"].shape[axis]
    if start == 0 and call["step"] == 1 and (end is None or end == torch.iinfo(torch.int64).max):
        return None, (x,)
    if axis == 0:
        raise Refused("it takes a part of the batch")
    start, end, step = slice(start, end, call["step"]).indices(size)
    return (None if (start, end, step) == (0, size, 1) else Slice(axis, start, end, step)), (x,)


@lowers(aten.pad.default, aten.constant_pad_nd.default)
def _pad(call: Call) -> Lowered:
    if call.arguments.get("mode", "constant") != "constant":
        raise Refused(f"mode {call['mode']!r}, expected 'constant'")
    x, amounts = call.value("self"), tuple(call["pad"])
    if len(amounts) > 2 * len(call.shape(x)) and any(amounts[2 * len(call.shape(x)) :]):
        raise Refused("it pads the batch")
    return Pad(amounts, float(call["value"] or 0)) if any(amounts) else None, (x,)


@lowers(aten.cat.default)
def _concatenate(call: Call) -> Lowered:
    parts = tuple(call["tensors"])
    if any(part.name in call.constants for part in parts):
        raise Refused("one of its parts is a constant, expected values computed from the image")
    axis = call["dim"] % (len(call.shape()) + 1)
    if axis == 0:
        raise Refused("it concatenates batches")
    return Concatenate(axis), parts


@lowers(
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.to.dtype,
    aten._to_copy.default,  # noqa: SLF001  an ATen name
)
def _nothing(call: Call) -> Lowered:
    x = call.value(next(iter(call.arguments)))
    if call.arguments.get("train"):
        raise Refused(
            "it drops at random: call model.eval() first, or pass training=self.training where the model calls F.dropout"
        )
    if call.node.meta["val"].dtype != x.meta["val"].dtype:
        raise Refused(f"it changes the type from {x.meta['val'].dtype} to {call.node.meta['val'].dtype}")
    return None, (x,)


@lowers(operator.getitem)
def _item(call: Call) -> Lowered:
    if call[1] != 0:
        raise Refused(f"it takes result number {call[1]} of an operation, expected the first")
    return None, (call.value(0),)
