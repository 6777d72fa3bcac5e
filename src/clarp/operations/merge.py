"""Where two branches of a network meet."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from clarp.operations.base import Operation, Record, Tensors


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

    def keeps_sign(self, signs: Sequence[bool]) -> bool:
        """A sum of non-negative values is non-negative."""
        return all(signs)
