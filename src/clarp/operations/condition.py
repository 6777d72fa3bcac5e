"""Choices: what a comparison says, and one value or another by it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clarp.operations.base import Interval, Operation, Record, Tensors, summed_to
from clarp.operations.elementwise import Elementwise

COMPARISONS: dict[str, Callable[..., Tensor]] = {
    ">": torch.gt,
    ">=": torch.ge,
    "<": torch.lt,
    "<=": torch.le,
    "==": torch.eq,
    "!=": torch.ne,
}


class Step(Elementwise):
    """Constant but for its jumps: its gradient is zero, and it is held constant like a gate."""

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Zero."""
        del record, tensors
        return (torch.zeros_like(gradient),)


@dataclass(frozen=True)
class Compare(Step):
    """1 where ``x`` compares so with the threshold, else 0.

    Attributes:
        how: one of ``COMPARISONS``.
        threshold: what x is compared with.
    """

    how: str
    threshold: float

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """Zeros and ones."""
        del tensors
        return COMPARISONS[self.how](inputs[0], self.threshold).to(inputs[0]), None

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Zeros and ones."""
        del inputs, tensors
        return 0.0, 1.0


@dataclass(frozen=True)
class Sign(Step):
    """-1, 0 or 1."""

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The sign."""
        del tensors
        return inputs[0].sign(), None

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Between minus one and one."""
        del tensors
        low, high = inputs[0]
        return (0.0 if low >= 0 else -1.0), (0.0 if high <= 0 else 1.0)


class Passing(Elementwise):
    """An elementwise operation whose slope is 1 where something holds, which :meth:`forward` remembers, and 0 elsewhere."""

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g`` where it holds."""
        del tensors
        assert record.memo is not None
        return (gradient * record.memo,)


@dataclass(frozen=True)
class Threshold(Passing):
    """``x`` above a threshold, a constant elsewhere.

    Attributes:
        threshold: what x must be above.
        value: the constant.
    """

    threshold: float
    value: float

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor]:
        """``x`` or the constant, and where it is x."""
        del tensors
        above = inputs[0] > self.threshold
        return torch.where(above, inputs[0], self.value), above

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Of the constant, and of what is above the threshold."""
        del tensors
        low, high = inputs[0]
        return min(self.value, max(low, self.threshold)), max(self.value, high)


@dataclass(frozen=True)
class Shrink(Passing):
    """Zero where ``abs(x)`` is no more than a limit; elsewhere x, or x nearer to zero by the limit where it is soft."""

    limit: float
    soft: bool

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor]:
        """The shrunk value, and where it is not zero."""
        del tensors
        x = inputs[0]
        beyond = x.abs() > self.limit
        nearer = x - x.clamp(-self.limit, self.limit) if self.soft else x
        return torch.where(beyond, nearer, 0.0), beyond

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """No farther from zero than the input."""
        del tensors
        return min(inputs[0][0], 0.0), max(inputs[0][1], 0.0)


@dataclass(frozen=True)
class Where(Operation):
    """``a`` where the condition is true, ``b`` elsewhere, of the same shape; remembers where it is true.

    Attributes:
        condition: the name of a constant condition (1, ...) among the graph's tensors; None: it is computed from the image, zeros and ones.
        first: the name of a constant a; None: it is computed from the image.
        second: likewise b.
    """

    condition: str | None
    first: str | None
    second: str | None

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor]:
        """The chosen values."""
        given = iter(inputs)
        condition, first, second = (
            next(given) if name is None else tensors[name]
            for name in (self.condition, self.first, self.second)
        )
        chosen = condition > 0.5
        result = torch.where(chosen, first, second)
        return result, chosen.expand_as(result)

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g`` where a value was chosen, zero for the condition."""
        del tensors
        assert record.memo is not None
        chosen = record.memo
        zero = gradient.new_zeros(()).expand_as(gradient)
        parts = [
            part
            for name, part in (
                (self.condition, zero),
                (self.first, gradient * chosen),
                (self.second, gradient * ~chosen),
            )
            if name is None
        ]
        return tuple(summed_to(part, shape) for part, shape in zip(parts, record.shapes, strict=True))

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Of both."""
        ends = list(inputs if self.condition is not None else inputs[1:])
        constants = [tensors[name] for name in (self.first, self.second) if name is not None]
        ends += [(constant.min().item(), constant.max().item()) for constant in constants]
        return min(low for low, _ in ends), max(high for _, high in ends)
