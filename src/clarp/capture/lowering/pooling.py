"""Poolings, means, maxima and interpolations."""

from math import inf, prod
from typing import Any

import torch

from clarp.capture.lowering.call import Call, Lowered, Refused, Value, anywhere, channelwise, lowers, per_axis
from clarp.operations import (
    Absolute,
    AdaptiveAverage,
    AdaptiveMax,
    Add,
    Affine,
    AveragePool,
    Expand,
    Interpolate,
    Max,
    MaxPool,
    Mean,
    Operation,
    Power,
    RealPower,
    Reshape,
    Slice,
    Sqrt,
    TopK,
    VectorNorm,
)

aten = torch.ops.aten


@lowers(
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.max_pool2d_with_indices.default,
)
@channelwise
def _max_pool(call: Call) -> Lowered:
    """The values, and the places for a max unpooling; over one axis as over two, of which one has size one."""
    kernel, stride, padding, dilation = (
        _pooled(call, name) for name in ("kernel_size", "stride", "padding", "dilation")
    )
    return _over_two_axes(call, MaxPool(kernel, stride, padding, dilation, call["ceil_mode"]))


@lowers(aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default)
@channelwise
def _average_pool(call: Call) -> Lowered:
    """Over one axis as over two, of which one has size one."""
    kernel, stride, padding = (_pooled(call, name) for name in ("kernel_size", "stride", "padding"))
    rest = (call["ceil_mode"], call["count_include_pad"], call.arguments.get("divisor_override"))
    return _over_two_axes(call, AveragePool(kernel, stride, padding, *rest))


@lowers(aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default)
@channelwise
def _adaptive_average(call: Call) -> Lowered:
    """Dropped where the size stays the same; over one axis as over two, of which one has size one."""
    x = call.value("self")
    if call.shape() == call.shape(x):
        return None, (x,)
    axes = len(call["output_size"])
    size = (1, call.shape()[-1]) if axes == 1 else call.shape()[-axes:]
    return _over_two_axes(call, AdaptiveAverage(size))


@lowers(aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
@channelwise
def _adaptive_max(call: Call) -> Lowered:
    """Without `return_indices`; over one axis as over two, of which one has size one."""
    axes = len(call["output_size"])
    return _over_two_axes(call, AdaptiveMax((1, call.shape()[-1]) if axes == 1 else call.shape()[-axes:]))


def _pooled(call: Call, name: str) -> tuple[int, ...]:
    """An argument of a pooling per axis, with one more axis in front where there is one."""
    axes = len(_shape_without_channels(call))
    given = call[name] or call["kernel_size"]
    values = per_axis([given] if isinstance(given, int) else given, axes)
    return ((0,) if name == "padding" else (1,)) + values if axes == 1 else values


def _shape_without_channels(call: Call) -> tuple[int, ...]:
    shape = call.shape(call.value("self"))
    if len(shape) < 2:
        raise Refused("its input has no batch axis, expected (B, C, ...)")
    return shape[1:]


def _over_two_axes(call: Call, operation: Operation) -> Lowered:
    """A pooling over one axis with an axis of size one in front of it, taken away again."""
    x = call.value("self")
    shape, out = call.shape(x), call.shape()
    if len(shape) != 2:
        return operation, (x,)
    wide = call.step(Reshape((shape[0], 1, shape[1])), (x,), (shape[0], 1, shape[1]))
    return Reshape(out), (call.step(operation, (wide,), (out[0], 1, out[1])),)


@lowers(aten.mean.dim, aten.mean.default)
@anywhere
def _mean(call: Call) -> Lowered:
    """Over any axes but the batch."""
    x = call.value("self")
    return Mean(_axes(call), call.arguments.get("keepdim", False)), (x,)


@lowers(aten.sum.dim_IntList, aten.sum.default)
@anywhere
def _sum(call: Call) -> Lowered:
    """Over any axes but the batch: a mean, times the number of values."""
    x, axes = call.value("self"), _axes(call)
    mean = call.step(Mean(axes, call.arguments.get("keepdim", False)), (x,), call.sizes())
    count = prod(call.sizes(x)[axis] for axis in axes)
    weight = torch.full((1,) * (len(call.sizes()) + 1), float(count), dtype=torch.float64)
    return Affine(call.new("weight", weight), None), (mean,)


@lowers(aten.amax.default, aten.max.dim)
@anywhere
def _max(call: Call) -> Lowered:
    """Over any axes but the batch; the values only."""
    value: Value = call.value("self")
    axes = _axes(call)
    shape = list(call.sizes(call.value("self")))
    # Within the rows first, so that of equals the first in rows wins, as in a pooling.
    *before, last = sorted(axes, reverse=True)
    for axis in before:
        shape[axis] = 1
        value = call.step(Max(axis, keepdim=True), (value,), tuple(shape))
    if len(axes) == 1 or call["keepdim"]:
        return Max(last, call["keepdim"]), (value,)
    shape[last] = 1
    return Reshape(call.sizes()), (call.step(Max(last, keepdim=True), (value,), tuple(shape)),)


@lowers(aten.amin.default, aten.min.dim)
@anywhere
def _min(call: Call) -> Lowered:
    """Over any axes but the batch; the values only, as the opposite of the maximum of the opposites."""
    x = call.value("self")
    shape = call.sizes(x)
    value: Value = _opposite(call, x, shape)
    kept = list(shape)
    for axis in sorted(_axes(call), reverse=True):
        kept[axis] = 1
        value = call.step(Max(axis, keepdim=True), (value,), tuple(kept))
    value = call.step(Reshape(call.sizes()), (value,), call.sizes())
    return _factor(call, "back", len(call.sizes()), -1.0), (value,)


def _opposite(call: Call, x: Value, shape: tuple[int, ...]) -> Value:
    return call.step(_factor(call, "opposite", len(shape), -1.0), (x,), shape)


def _factor(call: Call, name: str, axes: int, value: float) -> Affine:
    return Affine(call.new(name, torch.full((1,) * (axes + 1), value, dtype=torch.float64)), None)


@lowers(aten.topk.default, aten.sort.default, aten.sort.stable)
@anywhere
def _top_k(call: Call) -> Lowered:
    """Along any axis but the batch, in their order; the values only."""
    x = call.value("self")
    axis = call.axis(call["dim"], x)
    size = call.sizes(x)[axis - 1]
    if call.node.target is aten.topk.default:
        k, largest = call["k"], call["largest"]
    else:
        k, largest = size, call["descending"]
    return TopK(int(k), axis - len(call.sizes(x)) - 1, largest), (x,)


@lowers(aten.kthvalue.default, aten.median.dim)
@anywhere
def _kth(call: Call) -> Lowered:
    """Along any axis but the batch; the values only."""
    x = call.value("self")
    sizes = list(call.sizes(x))
    axis = call.axis(call["dim"], x)
    k = (sizes[axis - 1] + 1) // 2 if call.node.target is aten.median.dim else call["k"]
    sizes[axis - 1] = k
    least = call.step(TopK(k, axis - len(sizes) - 1, largest=False), (x,), tuple(sizes))
    sizes[axis - 1] = 1
    return Reshape(call.sizes()), (call.step(Slice(axis, k - 1, k, 1), (least,), tuple(sizes)),)


@lowers(aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim)
@anywhere
def _vector_norm(call: Call) -> Lowered:
    """Over any axes but the batch: the Euclidean length, or of another order as a sum of powers and its root."""
    given = call["ord"] if "ord" in call.arguments else call["p"]
    order, axes, x = 2.0 if given is None else float(given), _axes(call), call.value("self")
    if order == 2:
        return VectorNorm(axes, call["keepdim"]), (x,)
    if not 0 < order < inf:
        raise Refused(f"the norm is of order {order}, expected one above zero")
    shape, kept = call.sizes(x), call.sizes()
    value: Value = call.step(Absolute(), (x,), shape)
    if order != 1:
        power = call.new("order", torch.full((1,) * (len(shape) + 1), order, dtype=torch.float64))
        value = call.step(RealPower(power), (value,), shape)
    mean = call.step(Mean(axes, call["keepdim"]), (value,), kept)
    total = _factor(call, "count", len(kept), float(prod(shape[axis] for axis in axes)))
    if order == 1:
        return total, (mean,)
    root = call.new("root", torch.full((1,) * (len(kept) + 1), 1 / order, dtype=torch.float64))
    return RealPower(root), (call.step(total, (mean,), kept),)


@lowers(aten.var.dim, aten.var.correction, aten.std.dim, aten.std.correction)
@anywhere
def _variance(call: Call) -> Lowered:
    """Over any axes but the batch: the mean of the squared distances from the mean."""
    x, axes, keepdim = call.value("self"), _axes(call), call["keepdim"]
    shape = call.sizes(x)
    count = prod(shape[axis] for axis in axes)
    correction = call["correction"] if "correction" in call.arguments else int(call["unbiased"])
    less = count - (1 if correction is None else correction)
    kept = tuple(1 if axis - len(shape) in axes else size for axis, size in enumerate(shape))
    minus, factor = (
        call.new(name, torch.full((1,) * (axes_ + 1), value, dtype=torch.float64))
        for name, axes_, value in (("minus", len(shape), -1.0), ("factor", len(call.sizes()), count / less))
    )
    mean = call.step(Mean(axes, keepdim=True), (x,), kept)
    opposite = call.step(Affine(minus, None), (call.step(Expand(shape), (mean,), shape),), shape)
    distance = call.step(Add(), (x, opposite), shape)
    squares = call.step(Power(2), (distance,), shape)
    value = call.step(Mean(axes, keepdim), (squares,), call.sizes())
    variance = Affine(factor, None)
    if call.node.target in (aten.var.dim, aten.var.correction):
        return variance, (value,)
    return Sqrt(), (call.step(variance, (value,), call.sizes()),)


def _axes(call: Call) -> tuple[int, ...]:
    """The axes that an operation takes together, negative, in our graph."""
    x = call.value("self")
    count = len(call.sizes(x)) + 1
    dims = call.arguments.get("dim")
    given = [dims] if isinstance(dims, int) else dims or range(len(x.meta["val"].shape))
    return tuple(sorted(call.axis(axis, x) - count for axis in given))


MODES: dict[Any, str] = {
    aten.upsample_nearest2d.vec: "nearest",
    aten._upsample_nearest_exact2d.vec: "nearest-exact",  # noqa: SLF001  an ATen name
}


@lowers(*MODES)
@channelwise
def _interpolate(call: Call) -> Lowered:
    """(B, C, H, W), modes "nearest" and "nearest-exact"."""
    factors = tuple(call["scale_factors"] or (None, None))
    size = (call.shape()[-2], call.shape()[-1])
    return Interpolate(MODES[call.node.target], size, factors), (call.value("input"),)
