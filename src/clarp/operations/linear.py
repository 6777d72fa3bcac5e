"""Linear operations, f(x, w) + b: bilinear in the input and the weight, all that a rule needs to know."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Size, Tensor, fx

from clarp.operations.base import Interval, Operation, Record, Tensors, over_seeds
from clarp.operations.call import Call, Lowered, Refused, Value, lowers, per_axis

aten = torch.ops.aten

Weight = Tensor | float


class Linear(Operation):
    """``z = f(x, w) + b``. The weight of an average is 1, a gain on its fixed non-negative weights."""

    @abstractmethod
    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        """``f(x, w)`` without bias: (N, ...) to (N, ...)."""

    @abstractmethod
    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        """``f`` transposed in x: (N, ...) of the output to (N, ...) of the input of this shape."""

    @abstractmethod
    def parameters(self, tensors: Tensors) -> tuple[Weight, Tensor | None]:
        """The weight, and the bias in a shape that broadcasts over the output."""

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g_x = f_transposed(g, w)``."""
        weight, _ = self.parameters(tensors)
        return (over_seeds(lambda g: self.transpose(g, weight, record.shapes[0]), gradient),)


@dataclass(frozen=True)
class WeightedLinear(Linear):
    """A linear operation with a learnt weight.

    Attributes:
        weight: the name of its weight among the graph's tensors.
        bias: the name of its bias (C,), or None.
    """

    weight: str
    bias: str | None

    def parameters(self, tensors: Tensors) -> tuple[Weight, Tensor | None]:
        bias = None if self.bias is None else self.shaped_bias(tensors[self.bias])
        return tensors[self.weight], bias

    def shaped_bias(self, bias: Tensor) -> Tensor:
        return bias


@dataclass(frozen=True)
class Convolution(WeightedLinear):
    """A convolution over the last one, two or three axes, x (N, C, ...), w (C', C / groups, ...).

    Axes before the channels' are several windows of each image, (N, m, C, ...), each convolved by itself.

    Attributes:
        stride: per axis.
        padding: zeros on both sides, per axis.
        dilation: per axis.
        groups: number of groups.
        extra: uneven zero padding before it, in the order of ``torch.nn.functional.pad``, or ().
    """

    rule: ClassVar[str] = "convolution"
    rule_at_pixels: ClassVar[str | None] = "first"
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    extra: tuple[int, ...] = ()

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        bias = None if self.bias is None else tensors[self.bias]
        return self._convolve(inputs[0], tensors[self.weight], bias), None

    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        assert isinstance(weight, Tensor)
        return self._convolve(x, weight, None)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = F.pad(x, self.extra) if self.extra else x
        none = (0,) * len(self.stride)
        return self._each(
            x,
            lambda windows: torch.ops.aten.convolution.default(
                windows, weight, bias, self.stride, self.padding, self.dilation, False, none, self.groups
            ),
        )

    def _each(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of (N, C, ...) for each window of (N, m, C, ...)."""
        before = x.ndim - 1 - len(self.stride)
        return (
            function(x) if before == 1 else function(x.flatten(0, before - 1)).unflatten(0, x.shape[:before])
        )

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        """The input gradient as a transposed convolution, which is faster than ATen's backward on CPU."""
        assert isinstance(weight, Tensor)
        padded = list(shape[-len(self.stride) :])
        for axis in range(len(self.extra) // 2):
            padded[-1 - axis] += self.extra[2 * axis] + self.extra[2 * axis + 1]
        kernel = weight.shape[2:]
        unreached = [
            size + 2 * p - d * (k - 1) - 1 - (out - 1) * s
            for size, out, k, s, p, d in zip(
                padded,
                r.shape[-len(self.stride) :],
                kernel,
                self.stride,
                self.padding,
                self.dilation,
                strict=True,
            )
        ]
        x = self._each(
            r,
            lambda windows: torch.ops.aten.convolution.default(
                windows, weight, None, self.stride, self.padding, self.dilation, True, unreached, self.groups
            ),
        )
        return F.pad(x, [-p for p in self.extra]) if self.extra else x

    def shaped_bias(self, bias: Tensor) -> Tensor:
        return bias.view(-1, *(1,) * len(self.stride))

    @property
    def uniform(self) -> bool:
        """Whether every output reads as many inputs as any other, also at the border."""
        return not any(self.padding) and not any(self.extra)


@dataclass(frozen=True)
class TransposedConvolution(Convolution):
    """A transposed convolution: each input adds the kernel to the output.

    x is (N, C, ...), w (C', C / groups, ...).

    Attributes:
        stride: how far apart two neighbours add it, per axis.
        padding: what is cut off the output on both sides, per axis.
        output_padding: what is left on, behind, per axis.
    """

    output_padding: tuple[int, ...] = field(kw_only=True)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = F.pad(x, self.extra) if self.extra else x
        return self._each(
            x,
            lambda windows: torch.ops.aten.convolution.default(
                windows,
                exchanged(weight, self.groups),
                bias,
                self.stride,
                self.padding,
                self.dilation,
                True,
                self.output_padding,
                self.groups,
            ),
        )

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        assert isinstance(weight, Tensor)
        none = (0,) * len(self.stride)
        x = self._each(
            r,
            lambda windows: torch.ops.aten.convolution.default(
                windows,
                exchanged(weight, self.groups),
                None,
                self.stride,
                self.padding,
                self.dilation,
                False,
                none,
                self.groups,
            ),
        )
        starts = self.extra[0::2][::-1] or none
        for axis, start in enumerate(starts, -len(none)):
            x = x.narrow(axis, start, shape[axis])
        return x

    @property
    def uniform(self) -> bool:
        """At the border the kernels of fewer inputs overlap."""
        return False


def exchanged(weight: Tensor, groups: int) -> Tensor:
    """A weight (C', C / groups, ...) as (C, C' / groups, ...), as ATen's transposed convolution has it."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class Dense(WeightedLinear):
    """A dense layer over the last axis, x (N, ..., C), w (C', C)."""

    rule: ClassVar[str] = "dense"
    rule_at_pixels: ClassVar[str | None] = "first"

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        bias = None if self.bias is None else tensors[self.bias]
        return F.linear(inputs[0], tensors[self.weight], bias), None

    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        assert isinstance(weight, Tensor)
        return F.linear(x, weight)

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        assert isinstance(weight, Tensor)
        return r @ weight


@dataclass(frozen=True)
class Affine(WeightedLinear):
    """``w x + b`` with constants that broadcast over (B, ...): a batch norm that was not folded."""

    rule: ClassVar[str] = "affine"
    rule_at_pixels: ClassVar[str | None] = "Pass"

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        y = inputs[0] * tensors[self.weight]
        return (y if self.bias is None else y + tensors[self.bias]), None

    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        return x * weight

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        return r * weight

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        weight = tensors[self.weight].double()
        bias = weight.new_zeros(()) if self.bias is None else tensors[self.bias].double()
        ends = [(weight * end).masked_fill(weight == 0, 0) + bias for end in inputs[0]]
        return torch.minimum(*ends).min().item(), torch.maximum(*ends).max().item()


@lowers(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
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
def _dense(call: Call) -> Lowered:
    """Constant weights; over any axis but the batch."""
    x = call.value("input")
    call.axis(-1, x)
    return Dense(call.required("weight"), call.constant("bias")), (x,)


@lowers(aten.addmm.default, batch="first")
def _addmm(call: Call) -> Lowered:
    """Beta = alpha = 1; the matrix and the summand are constants."""
    if call["beta"] != 1 or call["alpha"] != 1:
        raise Refused(f"beta={call['beta']} and alpha={call['alpha']}, expected 1 and 1")
    weight = call.new("weight", call.constants[call.required("mat2")].t().contiguous())
    return Dense(weight, call.required("self")), (call.value("mat1"),)


def affine(call: Call, x: Value, scale: Tensor, shift: Tensor | None = None) -> Lowered:
    """``scale x + shift``; a scale of no axes is one for all elements."""
    scale = scale.double().view((1,) * (len(call.sizes()) + 1)) if scale.ndim == 0 else scale.double()
    bias = None if shift is None else call.new("bias", shift)
    return Affine(call.new("weight", scale), bias), (x,)


def line(call: Call, factor: float, summand: float | None = None, axes: int | None = None) -> Affine:
    """``factor x + summand`` with numbers, for a value of this many axes (None: as the result has)."""
    suffix = len(call.steps)
    bias = None if summand is None else call.number(f"summand.{suffix}", summand, axes)
    return Affine(call.number(f"factor.{suffix}", factor, axes), bias)


def scaled(call: Call, x: Value, factor: float, shape: tuple[int, ...] | None = None) -> Value:
    """A value of this shape (None: of the result's) times a number."""
    shape = call.sizes() if shape is None else shape
    return x if factor == 1 else call.step(line(call, factor, axes=len(shape)), (x,), shape)
