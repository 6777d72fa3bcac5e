"""Operations that move values and change none: each relevance goes back where its value came from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clarp.operations.base import Interval, Operation, Record, Tensors, over_seeds, summed_to


class Routing(Operation):
    """Each output element is one input element or a constant."""

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Moved values stay what they are."""
        del tensors
        return min(low for low, _ in inputs), max(high for _, high in inputs)


@dataclass(frozen=True)
class Reshape(Routing):
    """A view of each sample in another shape.

    Attributes:
        shape: the new shape without the batch axis.
    """

    shape: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """(B, ...) as (B, *shape)."""
        del tensors
        return inputs[0].reshape(inputs[0].shape[0], *self.shape), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Back in the old shape."""
        del tensors
        return (gradient.reshape(*gradient.shape[:2], *record.shapes[0][1:]),)


@dataclass(frozen=True)
class Permute(Routing):
    """Axes in another order; the batch stays first.

    Attributes:
        axes: the new order, as in ``Tensor.permute``.
    """

    axes: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """Permuted."""
        del tensors
        return inputs[0].permute(self.axes), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Permuted back."""
        del record, tensors
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return (gradient.permute(0, *(axis + 1 for axis in back)),)


@dataclass(frozen=True)
class Slice(Routing):
    """Every ``step``-th element from ``start`` to ``end`` along one axis (not the batch)."""

    axis: int
    start: int
    end: int
    step: int

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The slice."""
        del tensors
        return torch.ops.aten.slice.Tensor(inputs[0], self.axis, self.start, self.end, self.step), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """The slice in its place, zeros around it."""
        del tensors

        def back(g: Tensor) -> Tensor:
            sizes = [g.shape[0], *record.shapes[0][1:]]
            placed: Tensor = torch.ops.aten.slice_backward.default(
                g, sizes, self.axis, self.start, self.end, self.step
            )
            return placed

        return (over_seeds(back, gradient),)


@dataclass(frozen=True)
class Pad(Routing):
    """Constant padding, or cropping where an amount is negative.

    Attributes:
        amounts: in the order of ``torch.nn.functional.pad``.
        value: what is put around.
    """

    amounts: tuple[int, ...]
    value: float

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The padded value."""
        del tensors
        return F.pad(inputs[0], self.amounts, value=self.value), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """What was put around is cut off, what was cut off gets zero."""
        del record, tensors
        return (F.pad(gradient, [-amount for amount in self.amounts]),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Of the input and of the padding."""
        del tensors
        return min(inputs[0][0], self.value), max(inputs[0][1], self.value)


@dataclass(frozen=True)
class Concatenate(Routing):
    """Several values side by side along one axis (not the batch)."""

    axis: int

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """All in one."""
        del tensors
        return torch.cat(tuple(inputs), self.axis), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Each gets its own part."""
        del tensors
        sizes = [shape[self.axis] for shape in record.shapes]
        return torch.split(gradient, sizes, self.axis + 1)


@dataclass(frozen=True)
class Extend(Operation):
    """A value with constants before and behind it along one axis (not the batch): a class token and the patches.

    Attributes:
        axis: along which.
        before: the name of a constant (1, ...) among the graph's tensors, or None.
        behind: likewise.
    """

    axis: int
    before: str | None
    behind: str | None

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """All in one."""
        before, behind = (
            () if name is None else (tensors[name].expand(inputs[0].shape[0], *tensors[name].shape[1:]),)
            for name in (self.before, self.behind)
        )
        return torch.cat((*before, inputs[0], *behind), self.axis), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """The part of the value."""
        start = 0 if self.before is None else tensors[self.before].shape[self.axis]
        return (gradient.narrow(self.axis + 1, start, record.shapes[0][self.axis]),)


@dataclass(frozen=True)
class Expand(Routing):
    """Axes of size one repeated without copying.

    Attributes:
        shape: the new shape without the batch axis, of as many axes.
    """

    shape: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """(B, ...) as (B, *shape)."""
        del tensors
        return inputs[0].expand(inputs[0].shape[0], *self.shape), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """The sum over all copies."""
        del tensors
        return (summed_to(gradient, record.shapes[0]),)


@dataclass(frozen=True)
class Roll(Routing):
    """Shifted around along some axes (not the batch), as ``torch.roll`` does."""

    shifts: tuple[int, ...]
    axes: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """Rolled."""
        del tensors
        return inputs[0].roll(self.shifts, self.axes), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Rolled back."""
        del record, tensors
        return (gradient.roll([-shift for shift in self.shifts], [axis + 1 for axis in self.axes]),)


@dataclass(frozen=True)
class Flip(Routing):
    """The other way round along some axes (not the batch)."""

    axes: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """Flipped."""
        del tensors
        return inputs[0].flip(self.axes), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Flipped back."""
        del record, tensors
        return (gradient.flip([axis + 1 for axis in self.axes]),)


@dataclass(frozen=True)
class Rearrange(Routing):
    """Values taken from anywhere in the sample: pixel shuffles, mirrored padding, windows side by side.

    Attributes:
        index: the name of the places in the flat sample, counted from 1, among the graph's tensors; 0 gives zero.
        shape: the new shape without the batch axis.
    """

    index: str
    shape: tuple[int, ...]

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The value at each place."""
        flat = F.pad(inputs[0].flatten(1), (1, 0))
        return flat.index_select(1, tensors[self.index]).reshape(-1, *self.shape), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Back to each place, the sum where it was read several times."""
        shape = record.shapes[0]
        back = gradient.new_zeros(*gradient.shape[:2], 1 + shape[1:].numel())
        back.index_add_(2, tensors[self.index], gradient.flatten(2))
        return (back[..., 1:].reshape(*gradient.shape[:2], *shape[1:]),)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Of the input, and of the zeros."""
        del tensors
        return min(inputs[0][0], 0.0), max(inputs[0][1], 0.0)
