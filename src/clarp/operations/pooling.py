"""Pooling that is not linear: the greatest of several values, and their length as a vector."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clarp.operations.average import adaptive_size, norm, over_two_axes, pooled, reduced
from clarp.operations.base import Interval, Kept, Operation, Record, Tensors, over_seeds, stand_in, unsqueezed
from clarp.operations.call import Call, Lowered, Refused, Value, lowers
from clarp.operations.indexing import Slice
from clarp.operations.linear import line, scaled
from clarp.operations.shape import Reshape

aten = torch.ops.aten

POOLING = aten.max_pool2d_with_indices.default


class Maximum(Operation):
    """The greatest of several values; remembers the winners, ties go to the first."""

    rule: ClassVar[str] = "Transport"

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return inputs[0]

    @abstractmethod
    def at_winners(self, value: Tensor, winners: Tensor) -> Tensor:
        """Values of the input's shape (B, ...) where the winners of a forward pass lie, as the output."""

    @staticmethod
    def _to_winners(gradient: Tensor, record: Record, axis: int) -> tuple[Tensor, ...]:
        back = gradient.new_zeros(*gradient.shape[:2], *record.shapes[0][1:])
        return (back.scatter_(axis, record.remembered().expand(gradient.shape), gradient),)


def _gathered(value: Tensor, places: Tensor, axes: int) -> Tensor:
    """Values at places that are counted over the last axes together."""
    return value.flatten(-axes).gather(-1, places.flatten(-axes)).view(places.shape)


@dataclass(frozen=True)
class MaxPool(Maximum):
    """``torch.nn.functional.max_pool2d`` or ``max_pool3d`` with these arguments; ties go to the first."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        pool: Callable[..., Any] = F.max_pool2d if len(self.kernel) == 2 else F.max_pool3d
        y, winners = pool(
            inputs[0],
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=True,
        )
        return y, winners

    def at_winners(self, value: Tensor, winners: Tensor) -> Tensor:
        return _gathered(value, winners, len(self.kernel))

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        winners = record.remembered().expand(gradient.shape).flatten(0, 1)
        backward = (
            aten.max_pool2d_with_indices_backward
            if len(self.kernel) == 2
            else aten.max_pool3d_with_indices_backward
        )

        def back(g: Tensor) -> Tensor:
            result: Tensor = backward.default(
                g,
                stand_in(g, record.shapes[0]),
                self.kernel,
                self.stride,
                self.padding,
                self.dilation,
                self.ceil_mode,
                winners,
            )
            return result

        return (over_seeds(back, gradient),)


@dataclass(frozen=True)
class AdaptiveMax(Maximum):
    """``torch.nn.functional.adaptive_max_pool2d`` or ``adaptive_max_pool3d``; ties go to the first."""

    size: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        pool: Callable[..., Any] = F.adaptive_max_pool2d if len(self.size) == 2 else F.adaptive_max_pool3d
        y, winners = pool(inputs[0], self.size, return_indices=True)
        return y, winners

    def at_winners(self, value: Tensor, winners: Tensor) -> Tensor:
        return _gathered(value, winners, len(self.size))

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        axes = len(self.size)
        back = gradient.new_zeros(*gradient.shape[:2], *record.shapes[0][1:]).flatten(-axes)
        winners = record.remembered().flatten(-axes).expand(*gradient.shape[:-axes], -1)
        back.scatter_add_(-1, winners, gradient.flatten(-axes))
        return (back.unflatten(-1, record.shapes[0][-axes:]),)


@dataclass(frozen=True)
class Max(Maximum):
    """The greatest value along one axis; remembers the winners, ties go to the first.

    Attributes:
        axis: negative, counted from the end.
        keepdim: whether an axis of size one stays.
    """

    axis: int
    keepdim: bool

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        y, winners = inputs[0].max(self.axis, keepdim=True)
        return (y if self.keepdim else y.squeeze(self.axis)), winners

    def at_winners(self, value: Tensor, winners: Tensor) -> Tensor:
        taken = value.gather(self.axis, winners)
        return taken if self.keepdim else taken.squeeze(self.axis)

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return self._to_winners(unsqueezed(gradient, (self.axis,), keepdim=self.keepdim), record, self.axis)


@dataclass(frozen=True)
class VectorNorm(Operation):
    """``n = sqrt(sum_i x_i^2)`` over these axes (negative): what ``F.normalize`` divides by."""

    rule: ClassVar[str] = "Squares"
    axes: tuple[int, ...]
    keepdim: bool
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        return torch.linalg.vector_norm(inputs[0], dim=self.axes, keepdim=self.keepdim), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g x / n``, zero where n is zero."""
        x = record.input()
        length = torch.linalg.vector_norm(x, dim=self.axes, keepdim=True)
        return (
            unsqueezed(gradient, self.axes, keepdim=self.keepdim)
            * (x / length.masked_fill(length == 0, torch.inf)),
        )

    def spread(self, value: Tensor) -> Tensor:
        if self.keepdim:
            return value
        for axis in sorted(self.axes, reverse=True):
            value = value.unsqueeze(axis)
        return value

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        return 0.0, torch.inf


@dataclass(frozen=True)
class TopK(Maximum):
    """The k greatest values along one axis, the greatest first; remembers where they were.

    Attributes:
        k: how many.
        axis: negative, counted from the end.
        largest: False for the least, the least first.
    """

    k: int
    axis: int
    largest: bool

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        y, places = inputs[0].topk(self.k, self.axis, largest=self.largest, sorted=True)
        return y, places

    def at_winners(self, value: Tensor, winners: Tensor) -> Tensor:
        return value.gather(self.axis, winners)

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        return self._to_winners(gradient, record, self.axis)


@lowers(
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.max_pool2d_with_indices.default,
    batch="channels",
)
def _max_pool(call: Call) -> Lowered:
    """Values, and places for a max unpooling; over one axis as over two, of which one has size one."""
    kernel, stride, padding, dilation = (
        pooled(call, name) for name in ("kernel_size", "stride", "padding", "dilation")
    )
    return over_two_axes(call, MaxPool(kernel, stride, padding, dilation, call["ceil_mode"]))


@lowers(
    aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default,
    batch="channels",
)
def _adaptive_max(call: Call) -> Lowered:
    """Without `return_indices`; over one axis as over two, of which one has size one."""
    return over_two_axes(call, AdaptiveMax(adaptive_size(call)))


@lowers(aten.amax.default, aten.max.dim)
def _max(call: Call) -> Lowered:
    """Over any axes but the batch; the values only."""
    value: Value = call.value("self")
    axes = reduced(call)
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
def _min(call: Call) -> Lowered:
    """Over any axes but the batch; the values only. ``min(x) = -max(-x)``."""
    x = call.value("self")
    shape = call.sizes(x)
    value = scaled(call, x, -1.0, shape)
    kept = list(shape)
    for axis in sorted(reduced(call), reverse=True):
        kept[axis] = 1
        value = call.step(Max(axis, keepdim=True), (value,), tuple(kept))
    value = call.step(Reshape(call.sizes()), (value,), call.sizes())
    return line(call, -1.0), (value,)


@lowers(aten.topk.default, aten.sort.default, aten.sort.stable)
def _top_k(call: Call) -> Lowered:
    """Along any axis but the batch; the values only, sorted."""
    x = call.value("self")
    axis = call.axis(call["dim"], x)
    size = call.sizes(x)[axis - 1]
    if call.node.target is aten.topk.default:
        k, largest = call["k"], call["largest"]
    else:
        k, largest = size, call["descending"]
    return TopK(int(k), axis - len(call.sizes(x)) - 1, largest), (x,)


@lowers(aten.kthvalue.default, aten.median.dim)
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
def _vector_norm(call: Call) -> Lowered:
    """Over any axes but the batch. An order other than 2 becomes a sum of powers and its root."""
    given = call["ord"] if "ord" in call.arguments else call["p"]
    order, axes, x = 2.0 if given is None else float(given), reduced(call), call.value("self")
    if order == 2:
        return VectorNorm(axes, call["keepdim"]), (x,)
    if not 0 < order < inf:
        raise Refused(f"the norm is of order {order}, expected one above zero")
    return norm(call, x, call.sizes(x), axes, order, keepdim=call["keepdim"])
