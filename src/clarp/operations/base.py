"""The two things every operation can do: compute its output, and transport a gradient back to its inputs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Size, Tensor

Kept = Literal["inputs", "output"]
Tensors = Mapping[str, Tensor]


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

    def result(self) -> Tensor:
        """The kept output."""
        assert self.output is not None, "the plan did not keep an output that a rule reads"
        return self.output


class Operation(ABC):
    """One step of a network. Subclasses are frozen dataclasses: they can be printed and compared."""

    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset()
    """What :meth:`gradient` reads of the forward pass."""

    @abstractmethod
    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, Tensor | None]:
        """The output (B, ...), and what :attr:`Record.memo` should remember."""

    @abstractmethod
    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """Transport a gradient (K, B, ...) of the output to each input."""

    def keeps_sign(self, signs: Sequence[bool]) -> bool:
        """Whether the output can't be negative, given which inputs can't."""
        del signs
        return False


def over_seeds(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """Apply a function of (N, ...) to (K, B, ...), with N = K B."""
    return function(value.flatten(0, 1)).unflatten(0, value.shape[:2])
