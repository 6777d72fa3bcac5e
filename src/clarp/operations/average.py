"""Linear operations with fixed weights: average poolings, means, sums, variances, interpolations, folding."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import inf, prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Size, Tensor

from clarp.operations.base import Interval, Operation, Tensors, stand_in, unsqueezed
from clarp.operations.call import Call, Lowered, Refused, Value, lowers, per_axis
from clarp.operations.linear import Linear, Weight, line, scaled
from clarp.operations.merge import Add
from clarp.operations.power import Absolute, Power, RealPower, Sqrt
from clarp.operations.shape import Expand, Reshape

aten = torch.ops.aten


class Average(Linear):
    """A linear operation with fixed, non-negative weights; the weight argument is a gain on all of them."""

    rule: ClassVar[str] = "average"

    @abstractmethod
    def average(self, x: Tensor) -> Tensor:
        """The average, (N, ...) to (N, ...)."""

    @abstractmethod
    def spread(self, r: Tensor, shape: Size) -> Tensor:
        """The average transposed."""

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The average."""
        return self.average(inputs[0]), None

    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        """``w`` times the average."""
        y = self.average(x)
        return y if weight == 1.0 else y * weight

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        """``w`` times the average transposed."""
        return self.spread(r if weight == 1.0 else r * weight, shape)

    def parameters(self, tensors: Tensors) -> tuple[Weight, Tensor | None]:
        """A gain of one, and no bias."""
        return 1.0, None

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """An average lies between what it averages; padding averages zeros too."""
        return min(inputs[0][0], 0.0), max(inputs[0][1], 0.0)


@dataclass(frozen=True)
class AveragePool(Average):
    """``torch.nn.functional.avg_pool2d`` or ``avg_pool3d`` with these arguments."""

    rule: ClassVar[str] = "average"
    rule_at_pixels: ClassVar[str | None] = "first"
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None

    def average(self, x: Tensor) -> Tensor:
        pool = F.avg_pool2d if len(self.kernel) == 2 else F.avg_pool3d
        return pool(x, *self._arguments())

    def spread(self, r: Tensor, shape: Size) -> Tensor:
        like = stand_in(r, shape)
        back = aten.avg_pool2d_backward if len(self.kernel) == 2 else aten.avg_pool3d_backward
        spread: Tensor = back.default(r, like, *self._arguments())
        return spread

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        low, high = super().interval(inputs, tensors)
        return (low, high) if self.divisor_override is None else (-inf if low < 0 else 0.0, inf)

    def _arguments(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class AdaptiveAverage(Average):
    """``torch.nn.functional.adaptive_avg_pool2d`` or ``adaptive_avg_pool3d`` to this size."""

    size: tuple[int, ...]

    def average(self, x: Tensor) -> Tensor:
        if len(self.size) == 2:
            return F.adaptive_avg_pool2d(x, (self.size[0], self.size[1]))
        return F.adaptive_avg_pool3d(x, (self.size[0], self.size[1], self.size[2]))

    def spread(self, r: Tensor, shape: Size) -> Tensor:
        like = stand_in(r, shape)
        if len(self.size) == 2:
            return aten._adaptive_avg_pool2d_backward.default(r, like)  # noqa: SLF001  an ATen name
        return aten._adaptive_avg_pool3d_backward.default(r, like)  # noqa: SLF001  an ATen name


@dataclass(frozen=True)
class Mean(Average):
    """The mean over these axes (negative, counted from the end)."""

    axes: tuple[int, ...]
    keepdim: bool

    def average(self, x: Tensor) -> Tensor:
        return x.mean(self.axes, keepdim=self.keepdim)

    def spread(self, r: Tensor, shape: Size) -> Tensor:
        r = unsqueezed(r, self.axes, keepdim=self.keepdim)
        return (r / prod(shape[axis] for axis in self.axes)).expand(r.shape[0], *shape[1:])


@dataclass(frozen=True)
class Interpolate(Average):
    """``torch.nn.functional.interpolate`` of (N, C, H, W) to this size by the nearest values.

    Attributes:
        mode: "nearest" or "nearest-exact".
        size: of the output, (H', W').
        scales: by how much each axis grows, where it is not the ratio of the sizes.
    """

    rule: ClassVar[str] = "average"
    rule_at_pixels: ClassVar[str | None] = "first"
    mode: str
    size: tuple[int, int]
    scales: tuple[float | None, float | None]

    def average(self, x: Tensor) -> Tensor:
        function, _ = self._functions()
        y: Tensor = function(x, self.size, *self.scales)
        return y

    def spread(self, r: Tensor, shape: Size) -> Tensor:
        _, backward = self._functions()
        x: Tensor = backward(r, self.size, (r.shape[0], *shape[1:]), *self.scales)
        return x

    def _functions(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return {
            "nearest": (aten.upsample_nearest2d.default, aten.upsample_nearest2d_backward.default),
            "nearest-exact": (
                aten._upsample_nearest_exact2d.default,  # noqa: SLF001  an ATen name
                aten._upsample_nearest_exact2d_backward.default,  # noqa: SLF001  an ATen name
            ),
        }[self.mode]


@dataclass(frozen=True)
class Fold(Average):
    """``torch.nn.functional.fold`` of (N, C kernel, windows): the sum of overlapping windows."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    stride: tuple[int, ...]

    def average(self, x: Tensor) -> Tensor:
        return F.fold(x, self.size, self.kernel, self.dilation, self.padding, self.stride)

    def spread(self, r: Tensor, shape: Size) -> Tensor:
        return F.unfold(r, self.kernel, self.dilation, self.padding, self.stride)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        most = prod(self.kernel)
        return min(inputs[0][0] * most, 0.0), max(inputs[0][1] * most, 0.0)


@lowers(aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default, batch="channels")
def _average_pool(call: Call) -> Lowered:
    """Over one axis as over two, of which one has size one."""
    kernel, stride, padding = (pooled(call, name) for name in ("kernel_size", "stride", "padding"))
    rest = (call["ceil_mode"], call["count_include_pad"], call.arguments.get("divisor_override"))
    return over_two_axes(call, AveragePool(kernel, stride, padding, *rest))


@lowers(
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    batch="channels",
)
def _adaptive_average(call: Call) -> Lowered:
    """Dropped where the size stays the same; over one axis as over two, of which one has size one."""
    x = call.value("self")
    if call.shape() == call.shape(x):
        return None, (x,)
    return over_two_axes(call, AdaptiveAverage(adaptive_size(call)))


def adaptive_size(call: Call) -> tuple[int, ...]:
    """The size of an adaptive pooling's output, with one more axis in front where there is one."""
    axes = len(call["output_size"])
    return (1, call.shape()[-1]) if axes == 1 else call.shape()[-axes:]


def pooled(call: Call, name: str) -> tuple[int, ...]:
    """An argument of a pooling per axis, with one more axis in front where there is one."""
    axes = len(call.shape(call.value("self"))) - 1
    if axes < 1:
        raise Refused("its input has no batch axis, expected (B, C, ...)")
    given = call[name] or call["kernel_size"]
    values = per_axis([given] if isinstance(given, int) else given, axes)
    return ((0,) if name == "padding" else (1,)) + values if axes == 1 else values


def over_two_axes(call: Call, operation: Operation) -> Lowered:
    """A pooling over one axis with an axis of size one in front of it, taken away again."""
    x = call.value("self")
    shape, out = call.shape(x), call.shape()
    if len(shape) != 2:
        return operation, (x,)
    wide = call.step(Reshape((shape[0], 1, shape[1])), (x,), (shape[0], 1, shape[1]))
    return Reshape(out), (call.step(operation, (wide,), (out[0], 1, out[1])),)


@lowers(aten.mean.dim, aten.mean.default)
def _mean(call: Call) -> Lowered:
    """Over any axes but the batch."""
    x = call.value("self")
    return Mean(reduced(call), call.arguments.get("keepdim", False)), (x,)


@lowers(aten.sum.dim_IntList, aten.sum.default)
def _sum(call: Call) -> Lowered:
    """Over any axes but the batch: a mean, times the number of values."""
    x = call.value("self")
    return total(call, x, call.sizes(x), reduced(call), keepdim=call.arguments.get("keepdim", False))


def total(
    call: Call, x: Value, shape: tuple[int, ...], axes: tuple[int, ...], *, keepdim: bool = False
) -> Lowered:
    """The sum over axes (negative) of a value of this shape: a mean, times the number of values."""
    kept = _without(shape, axes, keepdim=keepdim)
    mean = call.step(Mean(axes, keepdim), (x,), kept)
    return line(call, float(prod(shape[axis] for axis in axes)), axes=len(kept)), (mean,)


def _without(shape: tuple[int, ...], axes: tuple[int, ...], *, keepdim: bool) -> tuple[int, ...]:
    gone = [axis % len(shape) for axis in axes]
    return tuple(
        1 if axis in gone else size for axis, size in enumerate(shape) if keepdim or axis not in gone
    )


def norm(
    call: Call,
    x: Value,
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    order: float,
    *,
    keepdim: bool = False,
) -> Lowered:
    """``(sum |x|^p)^(1/p)`` over axes (negative) of a value of this shape: powers, a sum and its root."""
    kept = _without(shape, axes, keepdim=keepdim)
    powers = call.step(Power(2), (x,), shape) if order == 2 else call.step(Absolute(), (x,), shape)
    if order not in (1, 2):
        powers = call.step(RealPower(call.number("order", order, len(shape))), (powers,), shape)
    operation, values = total(call, powers, shape, axes, keepdim=keepdim)
    if order == 1:
        return operation, values
    assert operation is not None
    whole = call.step(operation, values, kept)
    return (Sqrt() if order == 2 else RealPower(call.number("root", 1 / order, len(kept)))), (whole,)


@lowers(aten.var.dim, aten.var.correction, aten.std.dim, aten.std.correction)
def _variance(call: Call) -> Lowered:
    """Over any axes but the batch: the mean of the squared distances from the mean."""
    x, axes, keepdim = call.value("self"), reduced(call), call["keepdim"]
    shape = call.sizes(x)
    count = prod(shape[axis] for axis in axes)
    correction = call["correction"] if "correction" in call.arguments else int(call["unbiased"])
    less = count - (1 if correction is None else correction)
    mean = call.step(Mean(axes, keepdim=True), (x,), _without(shape, axes, keepdim=True))
    wide = call.step(Expand(shape), (mean,), shape)
    distance = call.step(Add(), (x, scaled(call, wide, -1.0, shape)), shape)
    squares = call.step(Power(2), (distance,), shape)
    value = call.step(Mean(axes, keepdim), (squares,), call.sizes())
    variance = line(call, count / less)
    if call.node.target in (aten.var.dim, aten.var.correction):
        return variance, (value,)
    return Sqrt(), (call.step(variance, (value,), call.sizes()),)


def reduced(call: Call) -> tuple[int, ...]:
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


@lowers(*MODES, batch="channels")
def _interpolate(call: Call) -> Lowered:
    """(B, C, H, W), modes "nearest" and "nearest-exact"."""
    factors = tuple(call["scale_factors"] or (None, None))
    size = (call.shape()[-2], call.shape()[-1])
    return Interpolate(MODES[call.node.target], size, factors), (call.value("input"),)


@lowers(aten.col2im.default, batch="channels")
def _fold(call: Call) -> Lowered:
    """The sum of overlapping windows."""
    arguments = (
        tuple(call[name]) for name in ("output_size", "kernel_size", "dilation", "padding", "stride")
    )
    if len(call.shape(call.value("self"))) != 2:
        raise Refused("its input has no batch axis, expected (B, C, windows)")
    return Fold(*arguments), (call.value("self"),)
