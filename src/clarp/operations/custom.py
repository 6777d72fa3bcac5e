"""An operation that the user brought along."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch._ops import OpOverload

from clarp.operations.base import Kept, Operation, Record, Tensors

Gradient = Callable[..., Tensor | Sequence[Tensor]]
"""``gradient(g, *arguments)``: from the gradient (B, ...) of the output, and the operation's arguments, that of each input."""


@dataclass(frozen=True)
class Input:
    """An argument that is computed from the images: the input of this number."""

    index: int


@dataclass(frozen=True)
class Constant:
    """An argument that is a constant tensor of this name."""

    name: str


@dataclass(frozen=True)
class Custom(Operation):
    """What the registered operation computes.

    Attributes:
        target: the operation itself.
        arguments: an :class:`Input`, a :class:`Constant`, or the value.
        backward: how a gradient goes back; None: as the operation's own autograd formula says.
        tensors: the names of the constants.
    """

    target: OpOverload
    arguments: tuple[object, ...]
    backward: Gradient | None
    tensors: tuple[str, ...]
    gradient_keeps: ClassVar[frozenset[Kept]] = frozenset({"inputs"})

    def forward(self, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, None]:
        """The operation."""
        return self.target(*self._filled(inputs, tensors)), None

    def gradient(self, gradient: Tensor, record: Record, tensors: Tensors) -> tuple[Tensor, ...]:
        """By the user's formula, or by autograd; one seed after the other."""
        inputs = [record.input(index) for index in range(len(record.inputs))]
        back = self._by_formula if self.backward is not None else self._by_autograd
        found = [back(seed, inputs, tensors) for seed in gradient]
        return tuple(torch.stack(one) for one in zip(*found, strict=True))

    def _filled(self, inputs: Sequence[Tensor], tensors: Tensors) -> list[object]:
        return [
            inputs[argument.index]
            if isinstance(argument, Input)
            else tensors[argument.name]
            if isinstance(argument, Constant)
            else argument
            for argument in self.arguments
        ]

    def _by_formula(self, seed: Tensor, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, ...]:
        assert self.backward is not None
        found = self.backward(seed, *self._filled(inputs, tensors))
        found = (found,) if isinstance(found, Tensor) else tuple(found)
        if [one.shape for one in found] != [x.shape for x in inputs]:
            raise ValueError(
                f"the gradient registered for {self.target} gives the shapes {[tuple(one.shape) for one in found]}, "
                f"expected those of its inputs, {[tuple(x.shape) for x in inputs]}."
            )
        return found

    def _by_autograd(self, seed: Tensor, inputs: Sequence[Tensor], tensors: Tensors) -> tuple[Tensor, ...]:
        with torch.inference_mode(mode=False), torch.enable_grad():
            given = [x.clone().requires_grad_() for x in inputs]
            try:
                output = self.target(*self._filled(given, tensors))
                return torch.autograd.grad(output, given, seed.clone())
            except RuntimeError as error:
                raise ValueError(
                    f"{self.target} has no gradient ({error}), and the method needs it. Give it one: "
                    "clarp.rules.register(..., gradient=...), or use a method without selection, for example 'sglrp'."
                ) from error
