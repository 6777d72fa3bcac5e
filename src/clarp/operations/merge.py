"""Where two branches of a network meet."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from torch import Tensor

from clarp.operations.base import Interval, Kept, Operation, Record, Tensors


@dataclass(frozen=True)
class Add(Operation):
    """``a + b``, of the same shape: the end of a residual block."""

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``a + b``."""
        del tensors
        return inputs[0] + inputs[1], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Both get g."""
        del record, tensors
        return gradient, gradient

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """The sums of the ends."""
        del tensors
        return inputs[0][0] + inputs[1][0], inputs[0][1] + inputs[1][1]


@dataclass(frozen=True)
class Shift(Operation):
    """``x + c`` with a constant that differs from place to place: a position embedding, a mask.

    Attributes:
        constant: the name of c, (1, ...), among the graph's tensors; it broadcasts over x.
    """

    constant: str

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``x + c``."""
        return inputs[0] + tensors[self.constant], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g``."""
        del record, tensors
        return (gradient,)


@dataclass(frozen=True)
class Multiply(Operation):
    """``a b``, element by element, of the same shape: a gate and what it lets through, or two branches."""

    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``a b``."""
        del tensors
        return inputs[0] * inputs[1], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g b`` and ``g a``."""
        del tensors
        return gradient * record.input(1), gradient * record.input(0)

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """The least and the greatest product of two ends."""
        del tensors
        ends = [a * b if a and b else 0.0 for a in inputs[0] for b in inputs[1]]
        return min(ends), max(ends)


@dataclass(frozen=True)
class Divide(Operation):
    """``a / b``, element by element, of the same shape: a value and what it is normalised by."""

    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """``a / b``."""
        del tensors
        return inputs[0] / inputs[1], None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """``g / b`` and ``-g a / b^2``."""
        del tensors
        a, b = record.input(0), record.input(1)
        return gradient / b, -gradient * a / b.square()

    def interval(self, inputs: Sequence[Interval], tensors: Tensors) -> Interval:
        """Of two values that are not negative neither is the quotient."""
        del tensors
        return (0.0 if all(low >= 0 for low, _ in inputs) else -inf), inf
