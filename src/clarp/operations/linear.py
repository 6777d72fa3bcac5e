"""Linear operations, f(x, w) + b: bilinear in the input and the weight, all that a rule needs to know."""

from abc import abstractmethod
from collections.abc import Sequence
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
        return self._aten(x, weight, bias)

    def _aten(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, left: Sequence[int] | None = None
    ) -> Tensor:
        """ATen's convolution of each window of (N, m, C, ...); transposed with output padding ``left``."""
        before = x.ndim - 1 - len(self.stride)
        windows = x.flatten(0, before - 1)
        padding = (0,) * len(self.stride) if left is None else left
        geometry = (self.stride, self.padding, self.dilation, left is not None, padding, self.groups)
        y: Tensor = aten.convolution.default(windows, weight, bias, *geometry)
        return y if before == 1 else y.unflatten(0, x.shape[:before])

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        """The input gradient as a transposed convolution, which is faster than ATen's backward on CPU."""
        assert isinstance(weight, Tensor)
        padded = list(shape[-len(self.stride) :])
        for axis in range(len(self.extra) // 2):
            padded[-1 - axis] += self.extra[2 * axis] + self.extra[2 * axis + 1]
        outputs, kernel = r.shape[-len(self.stride) :], weight.shape[2:]
        axes = zip(padded, outputs, kernel, self.stride, self.padding, self.dilation, strict=True)
        unreached = [size + 2 * p - d * (k - 1) - 1 - (out - 1) * s for size, out, k, s, p, d in axes]
        x = self._aten(r, weight, None, unreached)
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
        return self._aten(x, exchanged(weight, self.groups), bias, self.output_padding)

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        assert isinstance(weight, Tensor)
        x = self._aten(r, exchanged(weight, self.groups), None)
        starts = self.extra[0::2][::-1] or (0,) * len(self.stride)
        for axis, start in enumerate(starts, -len(starts)):
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
    x, weight = _first(call), call.required("weight")
    stride, padding, dilation = _per_axis(call, ("stride", "padding", "dilation"))
    return Convolution(weight, call.constant("bias"), stride, padding, dilation, call["groups"]), (x,)


@lowers(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding)
def _convolution_padded_by_name(call: Call) -> Lowered:
    """Padding "same" or "valid"."""
    x, weight = _first(call), call.required("weight")
    stride, dilation = _per_axis(call, ("stride", "dilation"))
    kernel = call.constants[weight].shape[2:]
    total = [d * (k - 1) if call["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
    uneven = tuple(amount for t in reversed(total) for amount in (0, t % 2))
    padding = tuple(t // 2 for t in total)
    extra = uneven if any(uneven) else ()
    return Convolution(weight, call.constant("bias"), stride, padding, dilation, call["groups"], extra), (x,)


@lowers(aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
def _transposed_convolution(call: Call) -> Lowered:
    """Constant weights; its input has a batch axis."""
    x, weight = _first(call), call.constants[call.required("weight")]
    stride, padding, dilation, left = _per_axis(call, ("stride", "padding", "dilation", "output_padding"))
    own, bias = call.new("exchanged", exchanged(weight, call["groups"]).contiguous()), call.constant("bias")
    operation = TransposedConvolution(
        own, bias, stride, padding, dilation, call["groups"], output_padding=left
    )
    return operation, (x,)


def _per_axis(call: Call, names: Sequence[str]) -> list[tuple[int, ...]]:
    """These arguments of a convolution, for each axis that it goes over."""
    axes = call.constants[call.required("weight")].ndim - 2
    return [per_axis(call[name], axes) for name in names]


def _first(call: Call) -> fx.Node:
    """A convolution's input, which may be several windows of each image."""
    x = call.value("input")
    if len(x.meta["val"].shape) != call.constants[call.required("weight")].ndim:
        raise Refused("its input has no batch axis, expected (B, C, ...)")
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
