"""Linear operations, f(x, w) + b: bilinear in the input and the weight, which is all that a rule needs to know."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Size, Tensor

from clarp.operations.base import Operation, Record, Tensors, over_seeds

Weight = Tensor | float


class Linear(Operation):
    """``z = f(x, w) + b``. The weight of an average is the number 1, a gain on its fixed non-negative weights."""

    @abstractmethod
    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        """``f(x, w)`` without bias: (N, ...) to (N, ...)."""

    @abstractmethod
    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        """``f`` transposed in its first argument: (N, ...) of the output to (N, ...) of the input of this shape."""

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
        """The weight, and the bias in a shape that broadcasts over the output."""
        bias = None if self.bias is None else self.shaped_bias(tensors[self.bias])
        return tensors[self.weight], bias

    def shaped_bias(self, bias: Tensor) -> Tensor:
        """The bias (C,) in a shape that broadcasts over the output."""
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

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    extra: tuple[int, ...] = ()

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``f(x, w) + b``."""
        bias = None if self.bias is None else tensors[self.bias]
        return self._convolve(inputs[0], tensors[self.weight], bias), None

    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        """``f(x, w)``."""
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
        """The input gradient of the convolution: a transposed convolution, faster than ATen's backward on CPU."""
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
        """(C,) as (C, 1, ...)."""
        return bias.view(-1, *(1,) * len(self.stride))

    @property
    def uniform(self) -> bool:
        """Whether every output reads as many inputs as any other, also at the border."""
        return not any(self.padding) and not any(self.extra)


@dataclass(frozen=True)
class TransposedConvolution(Convolution):
    """A convolution transposed, where each input adds the kernel to the output, x (N, C, ...), w (C', C / groups, ...).

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
        """The convolution that it is the transpose of."""
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
    """A weight (C', C / groups, ...) as (C, C' / groups, ...), as ATen's transposed convolutions want it; and back."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class Dense(WeightedLinear):
    """A dense layer over the last axis, x (N, ..., C), w (C', C)."""

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``x w^T + b``."""
        bias = None if self.bias is None else tensors[self.bias]
        return F.linear(inputs[0], tensors[self.weight], bias), None

    def apply(self, x: Tensor, weight: Weight) -> Tensor:
        """``x w^T``."""
        assert isinstance(weight, Tensor)
        return F.linear(x, weight)

    def transpose(self, r: Tensor, weight: Weight, shape: Size) -> Tensor:
        """``r w``."""
        del shape
        assert isinstance(weight, Tensor)
        return r @ weight
