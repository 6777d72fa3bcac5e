"""The two things every operation can do: compute its output, and transport a gradient back to its inputs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

import torch
from torch import Size, Tensor

Kept = Literal["inputs", "output"]
Tensors = Mapping[str, Tensor]
Interval = tuple[float, float]
"""The least and the greatest value that an element can have, whatever the image; infinite where nothing is
known."""


@dataclass(frozen=True)
class Record:
    """What the forward pass kept of one operation for the way back.

    Attributes:
        inputs: its inputs, (B, ...), None where nobody asked to keep them.
        output: its output, (B, ...), or None.
        shapes: the inputs' shapes, always there.
        memo: what the operation itself wanted to remember, for example the winners of a max pooling.
    """

    inputs: tuple[Tensor | None, ...]
    output: Tensor | None
    shapes: tuple[Size, ...]
    memo: Tensor | None = None

    def input(self, index: int = 0) -> Tensor:
        """The kept input number ``index``."""
        value = self.inputs[index]
        assert value is not None, "the plan did not keep an input that a rule reads"
        return value

    def remembered(self) -> Tensor:
        """What the operation itself remembered."""
        assert self.memo is not None
        return self.memo

    def result(self) -> Tensor:
        """The kept output."""
        assert self.output is not None, "the plan did not keep an output that a rule reads"
        return self.output


class Operation(ABC):
    """One step of a network. Subclasses are frozen dataclasses: they can be printed and compared."""

    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset()
    """What :meth:`gradient` reads of the forward pass."""
    rule: ClassVar[str]
    """Which rule it gets: a field of :class:`~clarp.rules.composites.Composite`, or one of the rules that are
    the same in all."""
    rule_at_pixels: ClassVar[str | None] = None
    """The same where it reads the pixels; None: no exception there."""

    @abstractmethod
    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        """The output (B, ...), and what :attr:`Record.memo` should remember."""

    @abstractmethod
    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Transport a gradient (K, B, ...) of the output to each input."""

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Within which limits the output lies, given those of the inputs."""
        return -inf, inf


def in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A constant in the type that the graph computes in; indices stay whole numbers."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def may_overwrite(*values: Tensor) -> bool:
    """Whether what is computed of these may go into memory that nobody else reads, which saves new memory.

    Not where autograd records it: that may read the memory on its way back.
    """
    return not (torch.is_grad_enabled() and any(value.requires_grad for value in values))


def over_seeds(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """Apply a function of (N, ...) to (K, B, ...), with N = K B."""
    return function(value.flatten(0, 1)).unflatten(0, value.shape[:2])


def sample_sums(value: Tensor) -> Tensor:
    """The sum over each sample, (K, B, ...) to (K, B); at least in float32: half precision would overflow."""
    dtype = torch.float32 if value.dtype in (torch.float16, torch.bfloat16) else value.dtype
    if value.ndim == 2:  # one logit without an axis of its own; a sum over no axes is one over all
        return value.to(dtype)
    return value.sum(tuple(range(2, value.ndim)), dtype=dtype)


def unsqueezed(value: Tensor, axes: Sequence[int], *, keepdim: bool) -> Tensor:
    """A value that was reduced over these axes (negative), in a shape that broadcasts over the input's."""
    for axis in () if keepdim else sorted(axes, reverse=True):
        value = value.unsqueeze(axis)
    return value


def channels_last(value: Tensor) -> bool:
    """Whether the channels of (N, C, H, W) or (K, B, C, H, W) lie side by side in memory."""
    return value.ndim >= 4 and value.shape[-3] > 1 and value.stride(-3) == 1


def stand_in(value: Tensor, shape: Size) -> Tensor:
    """What ATen's backwards read of an input of this shape (B, ...): sizes and layout, as of (N, ...)."""
    layout = torch.channels_last if len(shape) == 4 and channels_last(value) else torch.contiguous_format
    return torch.empty(
        (value.shape[0], *shape[1:]), dtype=value.dtype, device=value.device, memory_format=layout
    )


def summed_to(value: Tensor, shape: Size) -> Tensor:
    """(K, B, ...) summed over the axes that an input of this shape (B, ...) was broadcast along."""
    axes = [
        axis + 1 for axis, size in enumerate(shape) if axis > 0 and size == 1 and value.shape[axis + 1] > 1
    ]
    return value.sum(axes, keepdim=True) if axes else value
