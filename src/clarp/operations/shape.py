"""Operations that move values and change none: each relevance goes back where its value came from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clarp.operations.base import Operation, Record, Tensors, over_seeds


class Routing(Operation):
    """Each output element is one input element or a constant."""

    def keeps_sign(self, signs: Sequence[bool]) -> bool:
        """Moved values keep their signs."""
        return all(signs)


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

    def keeps_sign(self, signs: Sequence[bool]) -> bool:
        """Not negative if neither the input nor the padding is."""
        return all(signs) and self.value >= 0


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
